//! Metric rules that need the candidate tables themselves: groups, orders, distinct values, other tables and SQL.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Field, FieldRef, Float64Type, Schema, TimestampMicrosecondType,
};
use datafusion::catalog::TableProvider;
use datafusion::common::Column;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::function::AccumulatorFactoryFunction;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, ColumnarValue, Expr, ScalarUDF, Volatility, create_udaf, create_udf, ident, lit,
};
use datafusion::prelude::{DataFrame, SQLOptions, SessionContext};
use datafusion::scalar::ScalarValue;
use datafusion::sql::TableReference as SqlName;
use datamesh_core::quality::{Comparison, Metric, MetricRule, Statistic, Unit};
use datamesh_core::reference::TableReference;
use datamesh_core::verdict::GroupResults;
use datamesh_core::{ErrorCode, Result, Table};
use datamesh_quality::metrics::{Hits, NO_VALUE, age, percent};
use datamesh_quality::values::show;
use datamesh_quality::{GroupJudge, Measured, PackedStatistic, RowFilter};
use futures::TryStreamExt;

use crate::conditions::Filter;
use crate::error::unwrap;
use crate::references::ReferenceReader;
use crate::statement;

/// Registers a candidate under its table's SQL name.
pub(crate) fn register(context: &SessionContext, table: &str, candidate: Arc<dyn TableProvider>) -> Result<()> {
    let done = context.register_table(SqlName::bare(table), candidate);
    done.map(|_| ()).map_err(|error| unwrap(ErrorCode::Internal, "cannot look at the candidate", error))
}

/// What the rules of one table need to be measured on it.
pub(crate) struct Candidates<'a> {
    pub(crate) context: &'a SessionContext,
    /// The tables of comparisons that are not of this product.
    pub(crate) others: &'a HashMap<TableReference, Arc<dyn TableProvider>>,
    /// In microseconds since the epoch.
    pub(crate) now: i64,
    /// Keeps the texts of errors back: an engine's error can quote a value.
    pub(crate) quiet: bool,
}

/// A rule to measure, and whether the states know its own measurement already.
pub(crate) struct Deferred {
    pub(crate) rule: MetricRule,
    pub(crate) own: bool,
}

impl Candidates<'_> {
    /// Measures the deferred rules of a table. A rule that fails says why; it does not stop the others. Rules over the
    /// same rows and groups share one scan.
    pub(crate) async fn measure(&self, table: &Table, rules: &[Deferred]) -> HashMap<String, Measured> {
        let mut measured: HashMap<String, Measured> = HashMap::new();
        let mut shared: BTreeMap<(Option<&str>, &[String]), Vec<&MetricRule>> = BTreeMap::new();
        for Deferred { rule, own } in rules {
            let entry = measured.entry(rule.name.clone()).or_default();
            if let (Some(comparison), Metric::OrphanedRows { columns, at }) = (&rule.compare_to, &rule.metric) {
                match self.hide_error(self.orphaned(table, rule, comparison, columns, at).await) {
                    Ok(Answer::One(value)) => entry.own = Some(value),
                    Ok(Answer::Groups(groups)) => entry.groups = Some(Ok(groups)),
                    Err(why) => fail(entry, rule, Err(why)),
                }
                continue;
            }
            if let (Some(comparison), false) = (&rule.compare_to, rule.group_by.is_empty()) {
                match self.hide_error(self.compared_groups(table, rule, comparison).await) {
                    Ok(Some(groups)) => entry.groups = Some(Ok(groups)),
                    Ok(None) => {
                        entry.own = Some(of_no_rows(rule));
                        entry.other = Some(of_no_rows(rule));
                    }
                    Err(why) => entry.groups = Some(Err(why)),
                }
                continue;
            }
            if let Some(comparison) = &rule.compare_to {
                entry.other = Some(self.hide(self.other(rule, comparison).await));
            }
            if !own {
                continue;
            }
            match &rule.metric {
                Metric::Sql { query } => {
                    let sql = substitute(query, &quote(&table.name.sql()));
                    entry.own = Some(self.hide(number(self.context, &sql).await));
                }
                _ => shared.entry((rule.filter.as_deref(), &rule.group_by)).or_default().push(rule),
            }
        }
        for ((filter, groups), rules) in shared {
            let base = self.context.table(SqlName::bare(table.name.sql())).await;
            let base = base.map_err(describe).and_then(|frame| selected(frame, filter));
            let base = match base {
                Ok(base) => base,
                Err(why) => {
                    for rule in rules {
                        fail(measured.entry(rule.name.clone()).or_default(), rule, self.hide(Err(why.clone())));
                    }
                    continue;
                }
            };
            // A condition may fail to be computed, which is no fault of the other rules.
            let is_safe = |rule: &&MetricRule| is_aggregate(rule) && !matches!(rule.metric, Metric::FailedRows { .. });
            let (scanned, alone): (Vec<_>, Vec<_>) = rules.into_iter().partition(is_safe);
            for batch in
                [scanned].into_iter().filter(|rules| !rules.is_empty()).chain(alone.into_iter().map(|rule| vec![rule]))
            {
                let answer = self.groups(table, &base, groups, &batch).await;
                match self.hide_error(answer) {
                    Ok(answers) => {
                        for (rule, answer) in batch.into_iter().zip(answers) {
                            let entry = measured.entry(rule.name.clone()).or_default();
                            match answer {
                                Answer::One(value) => entry.own = Some(value),
                                Answer::Groups(groups) => entry.groups = Some(Ok(groups)),
                            }
                        }
                    }
                    Err(why) => {
                        for rule in batch {
                            fail(measured.entry(rule.name.clone()).or_default(), rule, Err(why.clone()));
                        }
                    }
                }
            }
        }
        measured
    }

    fn hide(&self, answer: Result<f64, String>) -> Result<f64, String> {
        self.hide_error(answer)
    }

    fn hide_error<T>(&self, answer: Result<T, String>) -> Result<T, String> {
        answer.map_err(|why| {
            if self.quiet && why != NO_VALUE {
                "the query failed; its error could quote protected values".to_owned()
            } else {
                why
            }
        })
    }

    /// The rows of the other table of a comparison, and the rule that measures them.
    async fn others(&self, rule: &MetricRule, comparison: &Comparison) -> Result<(DataFrame, MetricRule), String> {
        let frame = match self.others.get(&comparison.table) {
            Some(provider) => self.context.read_table(provider.clone()),
            None if comparison.table.product.is_none() => {
                self.context.table(SqlName::bare(comparison.table.table.sql())).await
            }
            None => return Err(format!("`{}` is not published", comparison.table)),
        };
        let frame = frame.map_err(describe).and_then(|frame| selected(frame, comparison.filter.as_deref()))?;
        let mut rule = MetricRule { filter: None, compare_to: None, warn: None, unit: Unit::Rows, ..rule.clone() };
        if let (Metric::NullValues { column } | Metric::Statistic { column, .. }, Some(other)) =
            (&mut rule.metric, &comparison.column)
        {
            column.clone_from(other);
        }
        Ok((frame, rule))
    }

    /// The same metric of the other table of a comparison.
    async fn other(&self, rule: &MetricRule, comparison: &Comparison) -> Result<f64, String> {
        let (frame, rule) = self.others(rule, comparison).await?;
        match self.aggregates(None, &frame, &[], &[&rule]).await?.pop() {
            Some(Answer::One(value)) => value,
            _ => Err("was not measured".to_owned()),
        }
    }

    /// The groups of both tables of a comparison, matched by their values; `None` where there are none.
    async fn compared_groups(
        &self,
        table: &Table,
        rule: &MetricRule,
        comparison: &Comparison,
    ) -> Result<Option<GroupResults>, String> {
        let own = self.context.table(SqlName::bare(table.name.sql())).await;
        let own = own.map_err(describe).and_then(|frame| selected(frame, rule.filter.as_deref()))?;
        let unable = |why: String| format!("the other table cannot be measured: {why}");
        let (other, there) = self.others(rule, comparison).await.map_err(unable)?;
        let columns = rule.group_by.iter().map(String::as_str).chain(there.metric.columns());
        for column in columns {
            if other.schema().as_arrow().field_with_name(column).is_err() {
                return Err(unable(format!("it has no column `{column}`")));
            }
        }
        let (here, beside) = (self.view(&own)?, self.view(&other)?);
        let done = async {
            let left = self.text(Some(table), &here, own.schema().as_arrow(), &rule.group_by, &[rule])?;
            let right = self.text(None, &beside, other.schema().as_arrow(), &rule.group_by, &[&there])?;
            let groups = 0..rule.group_by.len();
            let names = groups.clone().map(|at| format!("coalesce(a.g{at}, b.g{at}) AS g{at}, ")).collect::<String>();
            let same = groups.map(|at| format!("a.g{at} IS NOT DISTINCT FROM b.g{at}"));
            let sql = format!(
                "SELECT {names}a.n IS NOT NULL AS h, b.n IS NOT NULL AS t, a.m0 AS own, b.m0 AS other FROM ({left}) a FULL JOIN ({right}) b ON {}",
                same.collect::<Vec<_>>().join(" AND ")
            );
            let mut judge = GroupJudge::new(rule, rule.shows_protected(table));
            let mut batches = self.read(&sql).await?;
            let mut found = false;
            while let Some(batch) = batches.try_next().await.map_err(describe)? {
                for row in 0..batch.num_rows() {
                    let column = |at: usize| batch.column(rule.group_by.len() + at);
                    let is_there = |at: usize| column(at).as_boolean().value(row);
                    let value = |at: usize| match is_there(at) {
                        true => read_number(column(at + 2), row),
                        false => rule.metric.of_no_rows(),
                    };
                    // A group that only the other table has shows a value of it.
                    let hidden = rule.names_protected(table) || self.quiet && !is_there(0);
                    judge.add_compared((!hidden).then(|| named(&batch, rule.group_by.len(), row)), value(0), value(1));
                    found = true;
                }
            }
            Ok::<_, String>(found.then(|| judge.finish()))
        }
        .await;
        self.context.deregister_table(SqlName::bare(here.as_str())).map_err(describe)?;
        self.context.deregister_table(SqlName::bare(beside.as_str())).map_err(describe)?;
        done
    }

    /// Counts the rows whose values are found nowhere in the other table, of each group.
    async fn orphaned(
        &self,
        table: &Table,
        rule: &MetricRule,
        comparison: &Comparison,
        columns: &[String],
        at: &[String],
    ) -> Result<Answer, String> {
        let own = self.context.table(SqlName::bare(table.name.sql())).await;
        let own = own.map_err(describe).and_then(|frame| selected(frame, rule.filter.as_deref()))?;
        let unable = |why: String| format!("the other table cannot be read: {why}");
        let (other, _) = self.others(rule, comparison).await.map_err(unable)?;
        if let Some(reference) = rule.reference() {
            let fit = ReferenceReader::new(&reference, own.schema().as_arrow(), other.schema().as_arrow());
            fit.map_err(|error| error.to_string())?;
        }
        let (here, there) = (self.view(&own)?, self.view(&other)?);
        let done = async {
            let groups = rule.group_by.iter().enumerate();
            let names: String = groups.map(|(at, name)| format!("a.{} AS g{at}, ", quote(name))).collect();
            let by: Vec<String> = rule.group_by.iter().map(|name| format!("a.{}", quote(name))).collect();
            let by = if by.is_empty() { String::new() } else { format!(" GROUP BY {}", by.join(", ")) };
            let whole: Vec<String> = columns.iter().map(|name| format!("a.{} IS NOT NULL", quote(name))).collect();
            let keys: Vec<String> = at.iter().enumerate().map(|(k, name)| format!("{} AS k{k}", quote(name))).collect();
            let same = columns.iter().enumerate().map(|(k, name)| format!("a.{} = b.k{k}", quote(name)));
            let sql = format!(
                "SELECT {names}count(*) AS n, count(CASE WHEN b.k0 IS NULL AND {} THEN 1 END) AS m0 FROM {here} a LEFT JOIN (SELECT DISTINCT {} FROM {there}) b ON {}{by}",
                whole.join(" AND "),
                keys.join(", "),
                same.collect::<Vec<_>>().join(" AND ")
            );
            self.answers(Some(table), &sql, &rule.group_by, &[rule]).await
        }
        .await;
        self.context.deregister_table(SqlName::bare(here.as_str())).map_err(describe)?;
        self.context.deregister_table(SqlName::bare(there.as_str())).map_err(describe)?;
        done?.pop().ok_or_else(|| "was not measured".to_owned())
    }

    /// Gives rows a name for one query.
    fn view(&self, rows: &DataFrame) -> Result<String, String> {
        let view = format!("__measured_{}", VIEWS.fetch_add(1, Ordering::Relaxed));
        self.context.register_table(SqlName::bare(view.as_str()), rows.clone().into_view()).map_err(describe)?;
        Ok(view)
    }

    async fn read(&self, sql: &str) -> Result<SendableRecordBatchStream, String> {
        let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let frame = self.context.sql_with_options(sql, read_only).await.map_err(describe)?;
        frame.execute_stream().await.map_err(describe)
    }

    async fn groups(
        &self,
        table: &Table,
        base: &DataFrame,
        groups: &[String],
        rules: &[&MetricRule],
    ) -> Result<Vec<Answer>, String> {
        self.aggregates(Some(table), base, groups, rules).await
    }

    /// Measures rules over the rows of `base`, in one query. Only names and numbers are written into its text.
    async fn aggregates(
        &self,
        table: Option<&Table>,
        base: &DataFrame,
        groups: &[String],
        rules: &[&MetricRule],
    ) -> Result<Vec<Answer>, String> {
        let base = self.failing(base, rules)?;
        let view = self.view(&base)?;
        let done = self.query(table, &view, base.schema().as_arrow(), groups, rules).await;
        self.context.deregister_table(SqlName::bare(view.as_str())).map_err(describe)?;
        done
    }

    async fn query(
        &self,
        table: Option<&Table>,
        view: &str,
        schema: &Schema,
        groups: &[String],
        rules: &[&MetricRule],
    ) -> Result<Vec<Answer>, String> {
        self.answers(table, &self.text(table, view, schema, groups, rules)?, groups, rules).await
    }

    /// The rows, with a column for each rule that counts those that fail its condition.
    fn failing(&self, rows: &DataFrame, rules: &[&MetricRule]) -> Result<DataFrame, String> {
        let mut marked = rows.clone();
        for (at, rule) in rules.iter().enumerate() {
            if let Metric::FailedRows { condition } = &rule.metric {
                let schema = rows.schema().as_arrow();
                let condition = Filter::compile(self.context, condition, schema, self.quiet)?;
                let columns = condition.columns().iter().map(ident).collect();
                let name = format!("__fails_{}", VIEWS.fetch_add(1, Ordering::Relaxed));
                let failed = failing_function(&name, condition, schema)?.call(columns);
                marked = marked.with_column(&fails(at), failed).map_err(describe)?;
            }
        }
        Ok(marked)
    }

    /// The answers of a query that measures rules as [`Self::text`] writes it.
    async fn answers(
        &self,
        table: Option<&Table>,
        sql: &str,
        groups: &[String],
        rules: &[&MetricRule],
    ) -> Result<Vec<Answer>, String> {
        let mut batches = self.read(sql).await?;
        let mut found = false;
        let mut judges: Vec<GroupJudge> = rules
            .iter()
            .map(|rule| GroupJudge::new(rule, table.is_some_and(|table| rule.shows_protected(table))))
            .collect();
        let mut one: Vec<Result<f64, String>> = rules.iter().map(|_| Err(NO_VALUE.to_owned())).collect();
        while let Some(batch) = batches.try_next().await.map_err(describe)? {
            for row in 0..batch.num_rows() {
                let total = read_number(batch.column(groups.len()), row).unwrap_or(0.0);
                found = true;
                for (at, rule) in rules.iter().enumerate() {
                    let value = self.value(rule, batch.column(groups.len() + 1 + at), row, total);
                    if groups.is_empty() {
                        one[at] = value.ok_or_else(|| NO_VALUE.to_owned());
                    } else {
                        let hidden = table.is_none_or(|table| rule.names_protected(table));
                        judges[at].add((!hidden).then(|| named(&batch, groups.len(), row)), value);
                    }
                }
            }
        }
        Ok(if groups.is_empty() {
            one.into_iter().map(Answer::One).collect()
        } else if found {
            judges.into_iter().map(|judge| Answer::Groups(judge.finish())).collect()
        } else {
            rules.iter().map(|rule| Answer::One(of_no_rows(rule))).collect()
        })
    }

    /// The query that measures rules by groups: the groups as `g0`, `g1`, …, the number of rows as `n`, and the
    /// measurements as `m0`, `m1`, ….
    fn text(
        &self,
        table: Option<&Table>,
        view: &str,
        schema: &Schema,
        groups: &[String],
        rules: &[&MetricRule],
    ) -> Result<String, String> {
        let names: Vec<String> = groups.iter().map(|column| quote(column)).collect();
        if let [rule] = rules
            && !is_aggregate(rule)
        {
            return alone(rule, view, &names, schema);
        }
        let mut list: Vec<String> = names.iter().enumerate().map(|(at, name)| format!("{name} AS g{at}")).collect();
        list.push("count(*) AS n".to_owned());
        for (at, rule) in rules.iter().enumerate() {
            list.push(match &rule.metric {
                Metric::FailedRows { .. } => format!("count(CASE WHEN {} THEN 1 END) AS m{at}", quote(&fails(at))),
                _ => format!("{} AS m{at}", self.aggregate(table, rule, schema)?),
            });
        }
        let by = if names.is_empty() { String::new() } else { format!(" GROUP BY {}", names.join(", ")) };
        Ok(format!("SELECT {} FROM {view}{by}", list.join(", ")))
    }

    /// A measurement from its cell; `total` is the number of rows.
    fn value(&self, rule: &MetricRule, array: &ArrayRef, row: usize, total: f64) -> Option<f64> {
        if let Metric::Freshness { .. } = rule.metric {
            let newest = match array.data_type() {
                _ if array.is_null(row) => return None,
                DataType::Date32 => i128::from(array.as_primitive::<Date32Type>().value(row)) * 86_400_000_000,
                DataType::Timestamp(..) => array.as_primitive_opt::<TimestampMicrosecondType>()?.value(row).into(),
                _ => return None,
            };
            return Some(age(self.now, newest, rule.unit));
        }
        let value = read_number(array, row)?;
        let compared = rule.compare_to.is_some() && rule.reference().is_none();
        let share = rule.unit == Unit::Percent && !compared && rule.metric.counts_rows();
        Some(if share { percent(value, total) } else { value })
    }

    /// A metric as an aggregate over the rows of a group.
    fn aggregate(&self, table: Option<&Table>, rule: &MetricRule, schema: &Schema) -> Result<String, String> {
        // NaN is no number: a statistic over it is NaN.
        let guarded = |column: &str, sql: String| match schema.field_with_name(column).map(|field| field.data_type()) {
            Ok(DataType::Float32 | DataType::Float64) => format!(
                "CASE WHEN count(CASE WHEN isnan({}) THEN 1 END) > 0 THEN CAST('NaN' AS DOUBLE) ELSE {sql} END",
                quote(column)
            ),
            _ => sql,
        };
        Ok(match &rule.metric {
            Metric::RowCount => "count(*)".to_owned(),
            Metric::NullValues { column } => format!("count(CASE WHEN {} IS NULL THEN 1 END)", quote(column)),
            Metric::MissingValues { column, .. } | Metric::InvalidValues { column, .. } => {
                let table = table.ok_or("it has no contract")?;
                let hits = Hits::compile(table, &rule.metric)?.ok_or("it counts no rows")?;
                let field = schema.field_with_name(column).map_err(|error| error.to_string())?;
                let name = format!("__hits_{}", VIEWS.fetch_add(1, Ordering::Relaxed));
                self.context.register_udf(hits_function(&name, field.data_type().clone(), hits));
                format!("count(CASE WHEN {name}({}) THEN 1 END)", quote(column))
            }
            Metric::DuplicateValues { columns } => {
                let names: Vec<String> = columns.iter().map(|column| quote(column)).collect();
                let whole = names.iter().map(|name| format!("{name} IS NOT NULL")).collect::<Vec<_>>().join(" AND ");
                let key =
                    if let [name] = names.as_slice() { name.clone() } else { format!("struct({})", names.join(", ")) };
                format!("count(CASE WHEN {whole} THEN 1 END) - count(DISTINCT CASE WHEN {whole} THEN {key} END)")
            }
            Metric::Statistic { column, statistic } => match statistic {
                Statistic::Minimum => guarded(column, format!("CAST(min({}) AS DOUBLE)", quote(column))),
                Statistic::Maximum => guarded(column, format!("CAST(max({}) AS DOUBLE)", quote(column))),
                Statistic::Mean | Statistic::Sum | Statistic::StandardDeviation => {
                    self.summed(column, *statistic, schema)
                }
                Statistic::Quantile(_) => return Err("it is no aggregate".to_owned()),
                Statistic::CountDistinct => format!("count(DISTINCT {})", quote(column)),
            },
            Metric::Freshness { column } => format!("max({})", quote(column)),
            Metric::SequenceGaps { column } => {
                let name = quote(column);
                let whole = match schema.field_with_name(column).map(|field| field.data_type()) {
                    Ok(DataType::Date32) => |sql: String| format!("CAST(CAST({sql} AS INT) AS DECIMAL(38,0))"),
                    _ => |sql: String| format!("CAST({sql} AS DECIMAL(38,0))"),
                };
                let (most, least) = (whole(format!("max({name})")), whole(format!("min({name})")));
                format!("coalesce(CAST({most} - {least} + 1 - count(DISTINCT {name}) AS DOUBLE), 0)")
            }
            Metric::Sql { .. }
            | Metric::OutOfOrderValues { .. }
            | Metric::FailedRows { .. }
            | Metric::OrphanedRows { .. } => return Err("it is no aggregate".to_owned()),
        })
    }

    /// A statistic that is summed exactly, as in the pass: the same rows measure the same, in any order.
    fn summed(&self, column: &str, statistic: Statistic, schema: &Schema) -> String {
        let data_type = schema.field_with_name(column).map(|field| field.data_type());
        let made = data_type.ok().and_then(|found| Some((found.clone(), PackedStatistic::new(statistic, found)?)));
        let argument = if made.is_some() { quote(column) } else { format!("CAST({} AS DOUBLE)", quote(column)) };
        let empty = made.or_else(|| Some((DataType::Float64, PackedStatistic::new(statistic, &DataType::Float64)?)));
        let name = format!("__summed_{}", VIEWS.fetch_add(1, Ordering::Relaxed));
        if let Some((data_type, empty)) = empty {
            self.context.register_udaf(summing_function(&name, data_type, empty));
        }
        format!("{name}({argument})")
    }
}

/// Numbers the names of views and functions that live for one query.
static VIEWS: AtomicU64 = AtomicU64::new(0);

enum Answer {
    One(Result<f64, String>),
    Groups(GroupResults),
}

fn fail(entry: &mut Measured, rule: &MetricRule, why: Result<f64, String>) {
    if rule.group_by.is_empty() {
        entry.own = Some(why);
    } else {
        entry.groups = Some(why.map(|_| GroupResults::default()));
    }
}

/// Whether the metric is one aggregate beside others. Distinct values of a whole table are counted by themselves,
/// since such a query can spill to disk, and so is what needs an order.
fn is_aggregate(rule: &MetricRule) -> bool {
    let whole = rule.group_by.is_empty();
    match &rule.metric {
        Metric::OutOfOrderValues { .. } | Metric::Statistic { statistic: Statistic::Quantile(_), .. } => false,
        Metric::DuplicateValues { .. } | Metric::SequenceGaps { .. } => !whole,
        Metric::Statistic { statistic: Statistic::CountDistinct, .. } => !whole,
        _ => true,
    }
}

/// A query of its own for one rule: the group's columns, the number of rows, the measurement.
fn alone(rule: &MetricRule, view: &str, groups: &[String], schema: &Schema) -> Result<String, String> {
    Ok(match &rule.metric {
        Metric::OutOfOrderValues { column, order_by, decreasing, strictly } => {
            let value = quote(column);
            let mut order: Vec<String> = order_by.iter().map(|column| quote(column)).collect();
            let there = std::iter::once(&value).chain(&order).map(|name| format!("{name} IS NOT NULL"));
            let there = there.collect::<Vec<_>>().join(" AND ");
            // Rows at the same place of the order are looked at in the order that suits the values best.
            order.push(if *decreasing { format!("{value} DESC") } else { value.clone() });
            let by = if groups.is_empty() { String::new() } else { format!("PARTITION BY {} ", groups.join(", ")) };
            let wrong = match (decreasing, strictly) {
                (false, false) => "v < p",
                (false, true) => "v <= p",
                (true, false) => "v > p",
                (true, true) => "v >= p",
            };
            let named: Vec<String> = groups.iter().enumerate().map(|(at, name)| format!("{name} AS g{at}")).collect();
            let inner = named.iter().map(|name| format!("{name}, ")).collect::<String>();
            let outer = (0..groups.len()).map(|at| format!("g{at}, ")).collect::<String>();
            let all = (0..groups.len()).map(|at| format!("g{at}")).collect::<Vec<_>>().join(", ");
            let group = if groups.is_empty() { String::new() } else { format!(" GROUP BY {all}") };
            format!(
                "SELECT {outer}count(*) AS n, count(CASE WHEN {wrong} THEN 1 END) AS m0 FROM (SELECT {inner}{value} AS v, lag({value}) OVER ({by}ORDER BY {}) AS p FROM {view} WHERE {there}){group}",
                order.join(", ")
            )
        }
        Metric::DuplicateValues { columns } => {
            let names: Vec<String> = columns.iter().map(|column| quote(column)).collect();
            let whole = names.iter().map(|name| format!("{name} IS NOT NULL")).collect::<Vec<_>>().join(" AND ");
            let list = names.join(", ");
            format!(
                "SELECT (SELECT count(*) FROM {view}) AS n, (SELECT count(*) FROM {view} WHERE {whole}) - (SELECT count(*) FROM (SELECT DISTINCT {list} FROM {view} WHERE {whole})) AS m0"
            )
        }
        Metric::Statistic { column, statistic: Statistic::CountDistinct } => {
            let name = quote(column);
            format!(
                "SELECT (SELECT count(*) FROM {view}) AS n, (SELECT count(*) FROM (SELECT DISTINCT {name} FROM {view} WHERE {name} IS NOT NULL)) AS m0"
            )
        }
        Metric::SequenceGaps { column } => {
            let name = quote(column);
            let whole = match schema.field_with_name(column).map(|field| field.data_type()) {
                Ok(DataType::Date32) => format!("CAST(CAST({name} AS INT) AS DECIMAL(38,0))"),
                _ => format!("CAST({name} AS DECIMAL(38,0))"),
            };
            format!(
                "SELECT count(*) AS n, coalesce(CAST(max(v) - min(v) + 1 - count(*) AS DOUBLE), 0) AS m0 FROM (SELECT DISTINCT {whole} AS v FROM {view} WHERE {name} IS NOT NULL)"
            )
        }
        Metric::Statistic { column, statistic: Statistic::Quantile(share) } => {
            // Rank by rank over a sort, which can spill; the two neighbours of the rank are interpolated. A group of
            // nulls keeps a row, so that it is there.
            let name = quote(column);
            let value = format!("CAST({name} AS DOUBLE)");
            let named: String = groups.iter().enumerate().map(|(at, name)| format!("{name} AS g{at}, ")).collect();
            let outer: String = (0..groups.len()).map(|at| format!("g{at}, ")).collect();
            let ranked = if groups.is_empty() {
                format!(
                    "SELECT v, row_number() OVER (ORDER BY v) AS r, n, nan FROM (SELECT {value} AS v FROM {view} WHERE {name} IS NOT NULL) CROSS JOIN (SELECT CAST(count({name}) AS DOUBLE) AS n, count(CASE WHEN isnan({value}) THEN 1 END) AS nan FROM {view})"
                )
            } else {
                let by = format!("PARTITION BY {}", groups.join(", "));
                format!(
                    "SELECT {named}{value} AS v, row_number() OVER ({by} ORDER BY {value} NULLS LAST) AS r, CAST(count({name}) OVER ({by}) AS DOUBLE) AS n, count(CASE WHEN isnan({value}) THEN 1 END) OVER ({by}) AS nan FROM {view}"
                )
            };
            let group = outer.trim_end_matches(", ");
            let group = if group.is_empty() { String::new() } else { format!(" GROUP BY {group}") };
            format!(
                "SELECT {outer}max(n) AS n, CASE WHEN max(nan) > 0 THEN CAST('NaN' AS DOUBLE) ELSE min(v) + (max(v) - min(v)) * max({share:?} * (n - 1) - floor({share:?} * (n - 1))) END AS m0 FROM ({ranked}) WHERE r = floor({share:?} * (n - 1)) + 1 OR r = ceil({share:?} * (n - 1)) + 1 OR n = 0 AND r = 1{group}"
            )
        }
        _ => return Err("it is an aggregate".to_owned()),
    })
}

/// The column that says which rows fail the condition of the rule at this index.
fn fails(at: usize) -> String {
    format!("__fails_{at}")
}

/// The rows that fail a condition, as a function of SQL over the columns that it looks at.
fn failing_function(name: &str, condition: Filter, schema: &Schema) -> Result<ScalarUDF, String> {
    let fields = condition.columns().iter().map(|column| schema.field_with_name(column).cloned());
    let fields: Vec<Field> = fields.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    let types = fields.iter().map(|field| field.data_type().clone()).collect();
    let schema = Arc::new(Schema::new(fields));
    let run = move |arguments: &[ColumnarValue]| -> datafusion::error::Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        // Without a column it says the same of every row.
        let options = RecordBatchOptions::new().with_row_count(Some(arrays.first().map_or(1, |array| array.len())));
        let batch = RecordBatch::try_new_with_options(schema.clone(), arrays, &options)?;
        let failed = condition.fails(&batch).map_err(DataFusionError::Execution)?;
        Ok(match arguments.is_empty() {
            true => ColumnarValue::Scalar(ScalarValue::Boolean(Some(failed.value(0)))),
            false => ColumnarValue::Array(Arc::new(BooleanArray::new(failed, None))),
        })
    };
    Ok(create_udf(name, types, DataType::Boolean, Volatility::Immutable, Arc::new(run)))
}

/// The rows of a table that meet a rule's `where`, with one zero.
fn selected(frame: DataFrame, filter: Option<&str>) -> Result<DataFrame, String> {
    let frame = compared(frame)?;
    let Some(filter) = filter else { return Ok(frame) };
    let schema = frame.schema().clone();
    let (state, _) = frame.clone().into_parts();
    let parsed = crate::conditions::parse(&SessionContext::new_with_state(state), filter, &schema)?;
    frame.filter(parsed).map_err(describe)
}

/// A table's columns as conditions on batches compare them.
fn compared(frame: DataFrame) -> Result<DataFrame, String> {
    let mut signed = false;
    let mut plain = |(qualifier, field): (Option<&SqlName>, &FieldRef)| {
        let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
        let zero = match field.data_type() {
            DataType::Float32 => lit(0.0_f32),
            DataType::Float64 => lit(0.0_f64),
            _ => return column,
        };
        signed = true;
        (column + zero).alias(field.name())
    };
    let columns: Vec<Expr> = frame.schema().iter().map(&mut plain).collect();
    if signed { frame.select(columns).map_err(describe) } else { Ok(frame) }
}

/// The test of a count of rows, as a function of SQL.
fn hits_function(name: &str, data_type: DataType, hits: Hits) -> ScalarUDF {
    let run = move |arguments: &[ColumnarValue]| -> datafusion::error::Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let array = arrays.first().ok_or_else(|| DataFusionError::Internal("the function takes a column".into()))?;
        Ok(ColumnarValue::Array(Arc::new(BooleanArray::new(hits.test(array), None))))
    };
    create_udf(name, vec![data_type], DataType::Boolean, Volatility::Immutable, Arc::new(run))
}

/// A statistic that is summed exactly, as a function of SQL.
fn summing_function(name: &str, data_type: DataType, empty: PackedStatistic) -> AggregateUDF {
    let state = Arc::new(vec![DataType::LargeBinary]);
    let start: AccumulatorFactoryFunction = Arc::new(move |_| Ok(Box::new(Summing(empty.clone()))));
    create_udaf(name, vec![data_type], Arc::new(DataType::Float64), Volatility::Immutable, start, state)
}

/// One group of a statistic that is summed.
#[derive(Debug)]
struct Summing(PackedStatistic);

impl Accumulator for Summing {
    fn update_batch(&mut self, values: &[ArrayRef]) -> datafusion::error::Result<()> {
        values.iter().try_for_each(|array| self.0.update(array)).map_err(DataFusionError::Execution)
    }

    fn evaluate(&mut self) -> datafusion::error::Result<ScalarValue> {
        self.0.value().map(ScalarValue::Float64).map_err(DataFusionError::Execution)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.0.packed().len()
    }

    fn state(&mut self) -> datafusion::error::Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::LargeBinary(Some(self.0.packed().to_vec()))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> datafusion::error::Result<()> {
        let mut packed = states.iter().flat_map(|array| array.as_binary::<i64>().iter().flatten());
        packed.try_for_each(|packed| self.0.merge(packed)).map_err(DataFusionError::Execution)
    }
}

/// The values of a group, which come first in its row.
fn named(batch: &RecordBatch, groups: usize, row: usize) -> Vec<Option<String>> {
    (0..groups).map(|column| show(batch.column(column), row)).collect()
}

/// What a rule measures where there is no row.
fn of_no_rows(rule: &MetricRule) -> Result<f64, String> {
    rule.metric.of_no_rows().ok_or_else(|| NO_VALUE.to_owned())
}

fn describe(error: DataFusionError) -> String {
    unwrap(ErrorCode::InvalidQuery, "the query failed", error).to_string()
}

fn read_number(array: &ArrayRef, row: usize) -> Option<f64> {
    let array = cast(&array.slice(row, 1), &DataType::Float64).ok()?;
    (!array.is_null(0)).then(|| array.as_primitive::<Float64Type>().value(0))
}

pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(crate) fn substitute(query: &str, object: &str) -> String {
    query.replace("${object}", object).replace("{object}", object).replace("${table}", object)
}

/// Runs a query that must answer one number.
async fn number(context: &SessionContext, sql: &str) -> Result<f64, String> {
    let frame = statement::read(context, sql).await.map_err(describe)?;
    let frame = frame.limit(0, Some(2)).map_err(describe)?;
    let batches = frame.collect().await.map_err(describe)?;
    let rows: usize = batches.iter().map(datafusion::arrow::array::RecordBatch::num_rows).sum();
    let Some(batch) = batches.iter().find(|batch| batch.num_rows() > 0) else {
        return Err("the query must answer one row, but it answered none".into());
    };
    if rows != 1 || batch.num_columns() != 1 {
        return Err(format!(
            "the query must answer one number, but it answered {rows} or more rows of {} columns",
            batch.num_columns()
        ));
    }
    let array = batch.column(0);
    if !(array.data_type().is_numeric() || *array.data_type() == DataType::Boolean) {
        return Err(format!("the query must answer a number, but it answered {}", array.data_type()));
    }
    let array = cast(array, &DataType::Float64).map_err(|error| error.to_string())?;
    if array.is_null(0) {
        return Err("the query answered null".into());
    }
    Ok(array.as_primitive::<Float64Type>().value(0))
}

/// The rules of a table that the candidate itself, or another table, must answer.
pub(crate) fn deferred(table: &crate::settle::SettledTable) -> Vec<Deferred> {
    let metrics = &table.audit.metrics;
    let needed = |rule: &MetricRule| metrics.needs_candidate(&table.states, &rule.name);
    metrics.deferred(&table.states).map(|rule| Deferred { own: needed(rule), rule: rule.clone() }).collect()
}
