//! `FOR VERSION AS OF`, `FOR TIMESTAMP AS OF` and `FOR SYSTEM_TIME AS OF` behind a table's name.
//!
//! DataFusion's planner passes over a table's version without a word, and its parser knows only some of the forms. So
//! versions are taken out of the statement's tokens before it is parsed: a versioned table is given a schema of its own,
//! named after the version, and everything else of the statement stays as it was written.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ops::ControlFlow;

use chrono::{DateTime, SecondsFormat, Utc};
use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr as SqlExpr, Ident, ObjectName, ObjectNamePart, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, TableFactor, Visit, VisitMut, Visitor, VisitorMut, visit_relations,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan, Tokenizer, Word};
use datamesh_app::ports::QueryRequest;
use datamesh_core::{Error, ErrorCode, Result};

use crate::error::unwrap;
use crate::statement;

/// A statement with its versions taken out.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) statement: Statement,
    pub(crate) versioned: BTreeSet<VersionedTable>,
    /// The full names of tables that it reads in one version only, by what stands for them.
    pub(crate) plain: BTreeMap<String, String>,
}

/// A table that is read as of a version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct VersionedTable {
    /// Domain and schema of a published table; `None` for one that the query was given.
    pub(crate) schema: Option<(String, String)>,
    /// The table.
    pub(crate) table: String,
    /// What the version is.
    pub(crate) version: Version,
    /// The schema that the statement now names instead.
    pub(crate) stand_in: String,
}

impl VersionedTable {
    /// The parts of its name: its own, or those of what stands for it.
    fn parts(&self, stand_in: bool) -> Vec<String> {
        match &self.schema {
            Some((domain, schema)) => {
                let schema = if stand_in { &self.stand_in } else { schema };
                vec![domain.clone(), schema.clone(), self.table.clone()]
            }
            None if stand_in => vec![self.stand_in.clone(), self.table.clone()],
            None => vec![self.table.clone()],
        }
    }
}

/// A version as SQL names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    /// A publication's number or a snapshot id.
    Number(i64),
    /// A moment.
    Time(DateTime<Utc>),
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Time(time) => f.write_str(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
        }
    }
}

fn invalid(what: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidQuery, what)
}

/// Parses one statement.
///
/// # Errors
/// `invalid-query` for what is no statement, and for a version where none can be.
pub(crate) fn parse(context: &SessionContext, request: &QueryRequest) -> Result<Parsed> {
    let dialect = GenericDialect {};
    let wrong = |error: DataFusionError| unwrap(ErrorCode::InvalidQuery, "the query cannot be planned", error);
    let tokens = Tokenizer::new(&dialect, &request.sql)
        .tokenize_with_location()
        .map_err(|error| invalid(format!("the query cannot be planned: {error}")))?;
    let tokens: Vec<TokenWithSpan> =
        tokens.into_iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).collect();
    let mut versioned = BTreeSet::new();
    let mut kept: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        let Some(kind) = version_at(&tokens[at..]) else {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        };
        let mut parser = Parser::new(&dialect).with_tokens_with_locations(tokens[at + 4..].to_vec());
        let expression =
            parser.parse_expr().map_err(|error| invalid(format!("`{kind}` must be followed by a value: {error}")))?;
        let version = evaluate(context, kind, &expression.to_string())?;
        at += 4 + parser.index();
        let table = stand_in(&mut kept, kind, version)?;
        if table.schema.is_none() && !request.tables.iter().any(|given| given.name == table.table) {
            return Err(invalid(format!("`{}` is no table that has versions", table.table))
                .with_help("a published table is named domain.product.table; a version stands before an alias"));
        }
        versioned.insert(table);
    }
    let limit = context.copied_config().options().sql_parser.recursion_limit;
    let parser = DFParserBuilder::new(kept).with_dialect(&dialect).with_recursion_limit(limit).build();
    let mut statements = parser.and_then(|mut parser| parser.parse_statements()).map_err(wrong)?;
    let mut statement = match (statements.pop_front(), statements.is_empty()) {
        (Some(statement), true) => statement,
        (None, _) => return Err(invalid("the query cannot be planned: it is empty")),
        (Some(_), false) => return Err(invalid("the query cannot be planned: it is more than one statement")),
    };
    statement::settle(&mut statement)
        .map_err(|refused| invalid(format!("the query cannot be planned: {}", refused.what)).with_help(refused.help))?;
    let plain = match (&mut statement, versioned.is_empty()) {
        (_, true) => BTreeMap::new(),
        (Statement::Explain(explain), _) => plain_names(&mut explain.statement, &versioned)?,
        (statement, _) => plain_names(statement, &versioned)?,
    };
    Ok(Parsed { statement, versioned, plain })
}

/// Lets the statement name the columns of tables that it reads in one version only by the tables' own names, and answers
/// what stands for these names.
fn plain_names(statement: &mut Statement, versioned: &BTreeSet<VersionedTable>) -> Result<BTreeMap<String, String>> {
    let Statement::Statement(inner) = statement else { return Ok(BTreeMap::new()) };
    let mut names = Names::default();
    let _ = Visit::visit(&**inner, &mut names);
    if let Some(table) = versioned.iter().find(|table| table.schema.is_none() && names.shadowed(table)) {
        return Err(invalid(format!("`{}` is a common table expression here, which has no versions", table.table))
            .with_help("give it another name than the table has"));
    }
    let once = versioned.iter().filter(|table| {
        let versions = versioned.iter().filter(|other| (&other.schema, &other.table) == (&table.schema, &table.table));
        versions.count() == 1 && !names.relations.contains(&table.parts(false))
    });
    let once: Vec<&VersionedTable> = once.collect();
    let _ = VisitMut::visit(&mut **inner, &mut Rename { tables: &once, aliases: &names.aliases });
    Ok(once.into_iter().map(|table| (table.parts(true).join("."), table.parts(false).join("."))).collect())
}

/// What a statement names.
#[derive(Default)]
struct Names {
    /// Tables, by the parts of their names.
    relations: BTreeSet<Vec<String>>,
    /// What tables, subqueries and common table expressions are called in it.
    aliases: BTreeSet<String>,
    /// The tables that stand where a common table expression's name means it.
    shadowed: BTreeSet<Vec<String>>,
}

impl Names {
    /// Whether a common table expression of its name is in reach where a version of a table is read.
    fn shadowed(&self, table: &VersionedTable) -> bool {
        self.shadowed.contains(&table.parts(true))
    }
}

fn parts(name: &ObjectName) -> Vec<String> {
    name.0.iter().filter_map(|part| part.as_ident()).map(statement::normal).collect()
}

impl Visitor for Names {
    type Break = Infallible;

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<Infallible> {
        self.relations.insert(parts(relation));
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Infallible> {
        let alias = match factor {
            TableFactor::Table { alias, .. }
            | TableFactor::Derived { alias, .. }
            | TableFactor::NestedJoin { alias, .. }
            | TableFactor::TableFunction { alias, .. }
            | TableFactor::Function { alias, .. }
            | TableFactor::UNNEST { alias, .. } => alias.as_ref(),
            _ => None,
        };
        self.aliases.extend(alias.map(|alias| statement::normal(&alias.name)));
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Infallible> {
        let Some(with) = &query.with else { return ControlFlow::Continue(()) };
        for (at, cte) in with.cte_tables.iter().enumerate() {
            let name = statement::normal(&cte.alias.name);
            // It is in reach of those after it and of the query's body, and if it is recursive of itself.
            let after = with.cte_tables.iter().skip(if with.recursive { at } else { at + 1 });
            let mut reach = |relation: &ObjectName| {
                let parts = parts(relation);
                if parts.len() == 2 && parts[1] == name {
                    self.shadowed.insert(parts);
                }
                ControlFlow::<Infallible>::Continue(())
            };
            for later in after {
                let _ = visit_relations(later.query.as_ref(), &mut reach);
            }
            let _ = visit_relations(query.body.as_ref(), &mut reach);
            self.aliases.insert(name);
        }
        ControlFlow::Continue(())
    }
}

/// Puts what stands for a versioned table where the names of columns have its own name.
struct Rename<'r> {
    tables: &'r [&'r VersionedTable],
    aliases: &'r BTreeSet<String>,
}

impl Rename<'_> {
    /// Which of `parts`, the table's name and more, is the one that another schema stands for, and which.
    fn place(&self, parts: &[String]) -> Option<(usize, &str)> {
        let first = parts.first().filter(|first| !self.aliases.contains(*first))?;
        self.tables.iter().find_map(|table| {
            let (domain, schema) = table.schema.as_ref()?;
            let rest = [schema, &table.table];
            if first == domain && parts.get(1..3).is_some_and(|parts| parts.iter().eq(rest)) {
                Some((1, table.stand_in.as_str()))
            } else if parts.get(..2).is_some_and(|parts| parts.iter().eq(rest)) {
                Some((0, table.stand_in.as_str()))
            } else {
                None
            }
        })
    }
}

impl VisitorMut for Rename<'_> {
    type Break = Infallible;

    fn pre_visit_expr(&mut self, expr: &mut SqlExpr) -> ControlFlow<Infallible> {
        match expr {
            SqlExpr::CompoundIdentifier(idents) => {
                let names: Vec<String> = idents.iter().map(statement::normal).collect();
                // The last is a column.
                let table = names.split_last().map(|(_, table)| table);
                if let Some((at, stand_in)) = table.and_then(|table| self.place(table)) {
                    idents[at] = Ident::with_quote('"', stand_in);
                }
            }
            // A column with something taken out of it, such as `domain.product.table.column['key']`.
            SqlExpr::CompoundFieldAccess { root, access_chain } => {
                let mut idents: Vec<&mut Ident> = match root.as_mut() {
                    SqlExpr::Identifier(ident) => vec![ident],
                    _ => return ControlFlow::Continue(()),
                };
                idents.extend(access_chain.iter_mut().map_while(|access| match access {
                    AccessExpr::Dot(SqlExpr::Identifier(ident)) => Some(ident),
                    _ => None,
                }));
                let names: Vec<String> = idents.iter().map(|ident| statement::normal(ident)).collect();
                let table = names.split_last().map(|(_, table)| table);
                if let Some((at, stand_in)) = table.and_then(|table| self.place(table)) {
                    *idents[at] = Ident::with_quote('"', stand_in);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Infallible> {
        for item in &mut select.projection {
            let SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) = item else {
                continue;
            };
            if let Some((at, stand_in)) = self.place(&parts(name)) {
                name.0[at] = ObjectNamePart::Identifier(Ident::with_quote('"', stand_in));
            }
        }
        ControlFlow::Continue(())
    }
}

fn keyword(token: &TokenWithSpan, wanted: Keyword) -> bool {
    matches!(&token.token, Token::Word(word) if word.keyword == wanted && word.quote_style.is_none())
}

/// Whether `FOR … AS OF` starts here.
fn version_at(tokens: &[TokenWithSpan]) -> Option<&'static str> {
    let [first, kind, third, fourth, ..] = tokens else { return None };
    if !(keyword(first, Keyword::FOR) && keyword(third, Keyword::AS) && keyword(fourth, Keyword::OF)) {
        return None;
    }
    match &kind.token {
        Token::Word(word) => match word.value.to_ascii_uppercase().as_str() {
            "VERSION" | "SYSTEM_VERSION" => Some("FOR VERSION AS OF"),
            "TIMESTAMP" => Some("FOR TIMESTAMP AS OF"),
            "SYSTEM_TIME" => Some("FOR SYSTEM_TIME AS OF"),
            _ => None,
        },
        _ => None,
    }
}

/// Gives the table whose name was read last a schema of its own.
fn stand_in(kept: &mut Vec<TokenWithSpan>, kind: &str, version: Version) -> Result<VersionedTable> {
    let mut places = Vec::new();
    let mut at = kept.len();
    while let Some(Token::Word(_)) = at.checked_sub(1).map(|at| &kept[at].token) {
        places.push(at - 1);
        match (at - 1).checked_sub(1).map(|at| &kept[at].token) {
            Some(Token::Period) => at -= 2,
            _ => break,
        }
    }
    places.reverse();
    let names: Vec<String> = places.iter().filter_map(|place| name(&kept[*place].token)).collect();
    match (names.as_slice(), places.as_slice()) {
        ([domain, schema, table], [_, place, _]) => {
            let stand_in = format!("{schema}@{version}");
            kept[*place] = quoted(&stand_in, kept[*place].span);
            let schema = Some((domain.clone(), schema.clone()));
            Ok(VersionedTable { schema, table: table.clone(), version, stand_in })
        }
        ([table], [place]) => {
            let stand_in = format!("@{version}");
            let span = kept[*place].span;
            let period = TokenWithSpan { token: Token::Period, span };
            kept.splice(*place..*place, [quoted(&stand_in, span), period]);
            Ok(VersionedTable { schema: None, table: table.clone(), version, stand_in })
        }
        _ => Err(invalid(format!("`{kind}` does not follow the name of a table"))
            .with_help("write it behind domain.product.table, before an alias")),
    }
}

fn name(token: &Token) -> Option<String> {
    match token {
        Token::Word(Word { value, quote_style: None, .. }) => Some(value.to_lowercase()),
        Token::Word(word) => Some(word.value.clone()),
        _ => None,
    }
}

fn quoted(name: &str, span: Span) -> TokenWithSpan {
    let word = Word { value: name.to_owned(), quote_style: Some('"'), keyword: Keyword::NoKeyword };
    TokenWithSpan { token: Token::Word(word), span }
}

/// The value of a version's expression, which may be anything that needs no table.
fn evaluate(context: &SessionContext, kind: &str, sql: &str) -> Result<Version> {
    let wrong = |why: String| invalid(format!("`{kind} {sql}`: {why}"));
    let describe =
        |error: DataFusionError| wrong(unwrap(ErrorCode::InvalidQuery, "it has no value", error).to_string());
    let schema = DFSchema::empty();
    let state = context.state();
    let expression = state.create_logical_expr(sql, &schema).map_err(describe)?;
    let simplify = SimplifyContext::builder()
        .with_schema(std::sync::Arc::new(schema.clone()))
        .with_config_options(state.config_options().clone())
        .with_query_execution_start_time(state.execution_props().query_execution_start_time)
        .build();
    let simplifier = ExprSimplifier::new(simplify);
    let expression = simplifier.coerce(expression, &schema).and_then(|expression| simplifier.simplify(expression));
    let Expr::Literal(value, _) = expression.map_err(describe)?.unalias() else {
        return Err(wrong("it has no fixed value".into()));
    };
    if value.is_null() {
        return Err(wrong("it is null".into()));
    }
    if kind == "FOR VERSION AS OF" {
        let number = match &value {
            ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
                text.trim().parse().ok()
            }
            value if value.data_type().is_integer() => match value.cast_to(&DataType::Int64) {
                Ok(ScalarValue::Int64(number)) => number,
                _ => None,
            },
            _ => None,
        };
        return number
            .map(Version::Number)
            .ok_or_else(|| wrong("a version is the number of a publication, or the id of a snapshot".into()));
    }
    let is_time = matches!(
        value.data_type(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Date32 | DataType::Timestamp(_, _)
    );
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()));
    let time = match is_time.then(|| value.cast_to(&utc)) {
        Some(Ok(ScalarValue::TimestampMicrosecond(Some(micros), _))) => DateTime::from_timestamp_micros(micros),
        _ => None,
    };
    time.map(Version::Time)
        .ok_or_else(|| wrong("it is no time, such as `TIMESTAMP '2026-01-31 12:00:00'` (UTC)".into()))
}

#[cfg(test)]
mod tests {
    use datamesh_app::ports::GivenTable;

    use super::*;

    fn parsed(sql: &str) -> Result<Parsed> {
        let given = GivenTable { name: "t".to_owned(), location: "file:///t.metadata.json".to_owned() };
        let request = QueryRequest { sql: sql.to_owned(), as_of: None, tables: vec![given] };
        parse(&SessionContext::new(), &request)
    }

    #[track_caller]
    fn check(sql: &str, expected: &str) {
        assert_eq!(parsed(sql).expect("a statement").statement.to_string(), expected, "{sql}");
    }

    #[test]
    fn full_names_of_columns_follow_the_version() {
        check(
            "SELECT d.s.t.id, D.S.T.m['k'] FROM d.s.t FOR VERSION AS OF 4 WHERE d.s.t.id > 1 ORDER BY s.t.id",
            "SELECT d.\"s@4\".t.id, D.\"s@4\".T.m['k'] FROM d.\"s@4\".t WHERE d.\"s@4\".t.id > 1 ORDER BY \"s@4\".t.id",
        );
        check("SELECT d.s.t.*, t.id FROM d.s.t FOR VERSION AS OF 4", "SELECT d.\"s@4\".t.*, t.id FROM d.\"s@4\".t");
        // Where it is read in several versions, a column's full name is that of the one that has no other.
        check(
            "SELECT d.s.t.id FROM d.s.t, d.s.t FOR VERSION AS OF 4 AS o",
            "SELECT d.s.t.id FROM d.s.t, d.\"s@4\".t AS o",
        );
        // What is called like a part of the name is meant.
        check("SELECT d.s.t.id FROM d.s.t FOR VERSION AS OF 4 AS d", "SELECT d.s.t.id FROM d.\"s@4\".t AS d");
    }

    #[test]
    fn what_stands_for_a_table_has_its_name_in_results() {
        let names = |sql: &str| Vec::from_iter(parsed(sql).expect("a statement").plain);
        let pair = |stand_in: &str, name: &str| (stand_in.to_owned(), name.to_owned());
        assert_eq!(names("SELECT 1 FROM d.s.t FOR VERSION AS OF 4"), [pair("d.s@4.t", "d.s.t")]);
        assert_eq!(names("SELECT 1 FROM t FOR VERSION AS OF 4"), [pair("@4.t", "t")]);
        assert!(names("SELECT 1 FROM d.s.t FOR VERSION AS OF 4, d.s.t").is_empty());
        assert!(names("SELECT 1 FROM d.s.t FOR VERSION AS OF 4 AS a, d.s.t FOR VERSION AS OF 5 AS b").is_empty());
    }

    #[test]
    fn a_common_table_expression_has_no_versions() {
        for sql in [
            "WITH t AS (SELECT 99 AS id) SELECT id FROM t FOR VERSION AS OF 4",
            "WITH t AS (SELECT 99 AS id), u AS (SELECT id FROM t FOR VERSION AS OF 4) SELECT id FROM u",
            "SELECT * FROM (WITH T AS (SELECT 99 AS id) SELECT id FROM t FOR VERSION AS OF 4) AS s",
        ] {
            let error = parsed(sql).expect_err(sql).to_string();
            assert!(error.contains("`t` is a common table expression"), "{sql}: {error}");
        }
        // Its own query reads the table.
        check(
            "WITH t AS (SELECT id FROM t FOR VERSION AS OF 4) SELECT id FROM t",
            "WITH t AS (SELECT id FROM \"@4\".t) SELECT id FROM t",
        );
    }
}
