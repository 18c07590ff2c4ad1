//! `FOR VERSION AS OF`, `FOR TIMESTAMP AS OF` and `FOR SYSTEM_TIME AS OF` behind a table's name.
//!
//! DataFusion's planner passes over a table's version without a word, and its parser knows only some of the forms. So
//! versions are taken out of the statement's tokens before it is parsed: a versioned table is given a schema of its own,
//! named after the version, and everything else of the statement stays as it was written.

use std::collections::BTreeSet;

use chrono::{DateTime, SecondsFormat, Utc};
use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan, Tokenizer, Word};
use datamesh_app::ports::QueryRequest;
use datamesh_core::{Error, ErrorCode, Result};

use crate::error::unwrap;

/// A statement with its versions taken out.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) statement: Statement,
    pub(crate) versioned: BTreeSet<VersionedTable>,
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
    match (statements.pop_front(), statements.is_empty()) {
        (Some(statement), true) => Ok(Parsed { statement, versioned }),
        (None, _) => Err(invalid("the query cannot be planned: it is empty")),
        (Some(_), false) => Err(invalid("the query cannot be planned: it is more than one statement")),
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
    loop {
        match at.checked_sub(1).map(|at| &kept[at].token) {
            Some(Token::Word(_)) => places.push(at - 1),
            _ => break,
        }
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
