//! What stays: the rules of tables without new data, and of rows that are published already, over the candidates that they
//! read. Neither can be held back.

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::prelude::SessionContext;
use datamesh_core::quality::{Metric, MetricRule};
use datamesh_core::reference::{PUBLISHED_REFERENCES, RULE_REFERENCES, Reference};
use datamesh_core::verdict::{MetricResult, RuleCount, rule_id};
use datamesh_core::{Error, ErrorCode, Result, Table};
use datamesh_iceberg::TableCache;
use datamesh_quality::{MetricPlan, MetricStates};

use crate::candidate::{Candidates, Deferred, quote, substitute};
use crate::conditions::Filter;
use crate::files::FilesTable;
use crate::references::ReferenceCheck;
use crate::scan;
use crate::settle::SettledTable;

/// The metric rules of a table that stays which read a table that is settled: comparisons with it, and SQL that names it.
pub(crate) fn rules(context: &SessionContext, table: &Table, settled: &[SettledTable]) -> Vec<MetricRule> {
    let is_settled = |name: &str| settled.iter().any(|other| other.audit.table.name.sql() == name);
    let names_one = |query: &str| {
        let sql = substitute(query, &quote(&table.name.sql()));
        let state = context.state();
        let dialect = state.config().options().sql_parser.dialect;
        let statement = state.sql_to_statement(&sql, &dialect);
        let names = statement.and_then(|statement| state.resolve_table_references(&statement));
        match names {
            Ok(names) => names.iter().any(|name| is_settled(name.table())),
            // Measuring tells what is wrong with it.
            Err(_) => true,
        }
    };
    let reads = |rule: &&MetricRule| {
        let compared = rule.compare_to.as_ref().map(|to| &to.table).filter(|to| to.product.is_none());
        compared.is_some_and(|to| is_settled(&to.table.sql()))
            || matches!(&rule.metric, Metric::Sql { query } if names_one(query))
    };
    table.metrics.iter().filter(reads).cloned().collect()
}

/// Measures some metric rules of a table that stays, which the candidates know under its name.
pub(crate) async fn measure(
    candidates: &Candidates<'_>,
    table: &Table,
    rules: Vec<MetricRule>,
    schema: &SchemaRef,
) -> Result<Vec<MetricResult>> {
    if rules.is_empty() {
        return Ok(Vec::new());
    }
    let deferred: Vec<Deferred> = rules.iter().map(|rule| Deferred { rule: rule.clone(), own: true }).collect();
    let judged = Table { metrics: rules, ..table.clone() };
    let plan = MetricPlan::compile(&judged, |condition| {
        Ok(Arc::new(Filter::compile(candidates.context, condition, schema, candidates.quiet)?))
    });
    let plan = plan.map_err(|why| {
        Error::new(ErrorCode::InvalidManifest, format!("table `{}`: {why}", table.name))
            .with_help("see `datamesh check`")
    })?;
    let measured = candidates.measure(&judged, &deferred).await;
    Ok(plan.judge(&MetricStates::default(), candidates.now, |name| measured.get(name).cloned()))
}

/// What `rows`, the published rows of a table that stay, lose that they refer to: a candidate does not have it any more.
/// What they found nowhere before is not lost. `limit` is what the keys of one reference may take in memory.
pub(crate) async fn references(
    context: &SessionContext,
    table: &Table,
    rows: Arc<dyn TableProvider>,
    settled: &[SettledTable],
    tables: &Arc<TableCache>,
    limit: usize,
) -> Result<Vec<MetricResult>> {
    let mut results = Vec::new();
    for (index, reference) in table.references.iter().enumerate() {
        let other = settled.iter().find(|other| reference.to.is_own(&other.audit.table.name));
        // Of a table without a required column nothing was read, which is told there.
        let other = other.filter(|other| other.report.missing_required.is_empty() && other.may_lose(&reference.at));
        let Some(other) = other else { continue };
        let keys = Arc::new(FilesTable::new(other.audit.file_schema.clone(), other.candidate()));
        let check = ReferenceCheck::load(context, index, reference, &rows.schema(), keys, limit).await?;
        let shown = !table.protects(&reference.path());
        let filter = reference.filter.as_ref().map(|filter| Filter::compile(context, filter, &rows.schema(), !shown));
        let filter = filter.transpose().map_err(|why| {
            Error::new(ErrorCode::InvalidManifest, format!("table `{}`: a reference's `where`: {why}", table.name))
                .with_help("see `datamesh check`")
        })?;
        let mut found = check.count(context, rows.clone(), None, filter.as_ref(), shown).await?;
        if found.rows > 0
            && let Some(base) = other.draft.base()
        {
            let base = scan::open_table(tables, base, None).await?;
            if reference.at.iter().all(|column| base.schema().field_with_name(column).is_ok()) {
                let before = ReferenceCheck::load(context, index, reference, &rows.schema(), base, limit).await?;
                found = check.count(context, rows.clone(), Some(&before), filter.as_ref(), shown).await?;
            }
        }
        if found.rows > 0 {
            results.push(counted(reference, PUBLISHED_REFERENCES, found));
        }
    }
    Ok(results)
}

/// The rows that find nothing where they refer to, as the result of a rule that counts them.
pub(crate) fn counted(reference: &Reference, word: &str, found: RuleCount) -> MetricResult {
    MetricResult {
        rule: rule_id(RULE_REFERENCES, &reference.path()),
        metric: word.to_owned(),
        value: Some(found.rows as f64),
        expected: "= 0".to_owned(),
        passed: found.rows == 0,
        severity: reference.severity,
        samples: found.samples,
        ..MetricResult::default()
    }
}
