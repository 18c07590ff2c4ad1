//! Row filters: SQL conditions over a table's columns, in which `principal.<attribute>` is the reader's.
//!
//! Attributes are taken out of the condition's tokens before it is parsed, and put into the parsed expression as typed values:
//! what an attribute holds is never read as SQL.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions};
use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{Expr, lit};
use datafusion::physical_plan::PhysicalExpr;
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::ExprWithAlias;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer, Word};
use datamesh_app::ports::FilterProblem;
use datamesh_core::access::{AttributeType, AttributeValue, RowFilter};
use datamesh_core::{Error, ErrorCode, Table};
use datamesh_quality::arrow_types::arrow_field;

use crate::conditions;
use crate::transform::error_place;

/// The word before an attribute.
const PRINCIPAL: &str = "principal";

/// A condition with its attributes found.
struct Parsed {
    expression: Expr,
    /// The attributes that it names.
    attributes: BTreeSet<String>,
}

/// A compiled row filter.
#[derive(Debug)]
pub(super) struct Condition {
    /// The columns that it looks at, as the table has them now, in the order of its batches.
    pub(super) columns: Vec<FieldRef>,
    schema: SchemaRef,
    expression: Arc<dyn PhysicalExpr>,
    /// The condition, and its opposite, over the columns by name.
    pub(super) logical: Expr,
    pub(super) opposite: Option<Expr>,
}

fn problem(message: impl Into<String>, help: Option<String>, place: Option<(usize, usize)>) -> FilterProblem {
    FilterProblem { message: message.into(), help, place }
}

/// The name that an attribute has in a parsed condition.
fn bound_name(attribute: &str) -> String {
    format!("{PRINCIPAL}.{attribute}")
}

fn attribute_field(name: &str, data_type: AttributeType) -> Field {
    let arrow = match data_type {
        AttributeType::String => DataType::Utf8,
        AttributeType::Long => DataType::Int64,
        AttributeType::Boolean => DataType::Boolean,
        AttributeType::Strings => DataType::new_list(DataType::Utf8, true),
    };
    Field::new(bound_name(name), arrow, true)
}

fn place(location: Location) -> Option<(usize, usize)> {
    (location.line > 0).then_some((location.line as usize, location.column as usize))
}

/// Why a condition's tokens cannot be used.
enum Unread {
    /// It names an attribute that is not there.
    Attribute(FilterProblem),
    Other(FilterProblem),
}

impl From<Unread> for FilterProblem {
    fn from(why: Unread) -> Self {
        match why {
            Unread::Attribute(problem) | Unread::Other(problem) => problem,
        }
    }
}

/// The condition's tokens with every attribute as one quoted name, and the attributes.
fn tokens(
    condition: &str,
    attributes: &BTreeMap<String, AttributeType>,
) -> Result<(Vec<TokenWithSpan>, BTreeSet<String>), Unread> {
    let read = Tokenizer::new(&GenericDialect {}, condition).tokenize_with_location();
    let read = read.map_err(|error| Unread::Other(problem(error.message, None, place(error.location))))?;
    let read: Vec<TokenWithSpan> =
        read.into_iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).collect();
    let (mut kept, mut used) = (Vec::<TokenWithSpan>::with_capacity(read.len()), BTreeSet::new());
    let mut at = 0;
    while at < read.len() {
        let is_principal = matches!(&read[at].token, Token::Word(word)
            if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(PRINCIPAL));
        let within = kept.last().is_some_and(|token| token.token == Token::Period);
        let (Some(Token::Period), false, true) = (read.get(at + 1).map(|token| &token.token), within, is_principal)
        else {
            kept.push(read[at].clone());
            at += 1;
            continue;
        };
        let span = read[at].span;
        let name = match read.get(at + 2).map(|token| &token.token) {
            Some(Token::Word(word)) => word.value.clone(),
            _ => {
                let message = "`principal.` is followed by no attribute";
                return Err(Unread::Other(problem(message, None, place(span.start))));
            }
        };
        let found = match attributes.get_key_value(&name) {
            Some(found) => Some(found),
            None => attributes.iter().find(|(own, _)| own.eq_ignore_ascii_case(&name)),
        };
        let Some((name, data_type)) = found else {
            let names: Vec<&str> = attributes.keys().map(String::as_str).collect();
            let help = if names.is_empty() {
                "principals have no attributes here; declare them below `attributes:` of `mesh.yaml`".to_owned()
            } else {
                format!("principals have: {}", names.join(", "))
            };
            let message = format!("principals have no attribute `{name}`");
            return Err(Unread::Attribute(problem(message, Some(help), place(span.start))));
        };
        let word = Word { value: bound_name(name), quote_style: Some('"'), keyword: Keyword::NoKeyword };
        let own = TokenWithSpan { token: Token::Word(word), span };
        let follows_in = kept.last().is_some_and(|token| {
            matches!(&token.token, Token::Word(word) if word.keyword == Keyword::IN && word.quote_style.is_none())
        });
        let is_listed = follows_in
            || matches!(kept.as_slice(), [.., word, open] if open.token == Token::LParen
                && matches!(&word.token, Token::Word(word) if word.keyword == Keyword::IN));
        if is_listed && *data_type != AttributeType::Strings {
            let message = format!("`principal.{name}` is {}, not a set", data_type.as_str());
            let help = format!("write `= principal.{name}`");
            return Err(Unread::Other(problem(message, Some(help), place(span.start))));
        }
        if follows_in {
            let token = |token| TokenWithSpan { token, span };
            kept.extend([token(Token::LParen), own, token(Token::RParen)]);
        } else {
            kept.push(own);
        }
        used.insert(name.clone());
        at += 3;
    }
    Ok((kept, used))
}

fn parse(
    context: &SessionContext,
    condition: &str,
    columns: &Schema,
    attributes: &BTreeMap<String, AttributeType>,
) -> Result<Parsed, FilterProblem> {
    let (tokens, used) = tokens(condition, attributes)?;
    let mut fields: Vec<FieldRef> = columns.fields().iter().cloned().collect();
    for name in &used {
        if columns.field_with_name(&bound_name(name)).is_ok() {
            return Err(problem(format!("the table has a column `{}` of its own", bound_name(name)), None, None));
        }
        fields.extend(attributes.get(name).map(|data_type| Arc::new(attribute_field(name, *data_type))));
    }
    let mut state = context.state();
    state.config_mut().options_mut().sql_parser.collect_spans = true;
    let limit = state.config().options().sql_parser.recursion_limit;
    let dialect = GenericDialect {};
    let mut parser = Parser::new(&dialect).with_recursion_limit(limit).with_tokens_with_locations(tokens);
    let wrong = |error: DataFusionError| {
        let at = error_place(&error);
        let message = match error.find_root() {
            DataFusionError::Plan(text) | DataFusionError::Execution(text) => text.clone(),
            DataFusionError::SQL(inner, _) => inner.to_string(),
            DataFusionError::SchemaError(inner, _) => inner.to_string(),
            other => other.strip_backtrace(),
        };
        problem(message, None, at)
    };
    let expression = parser.parse_expr().map_err(|error| wrong(DataFusionError::SQL(Box::new(error), None)))?;
    let rest = parser.peek_token();
    if rest.token != Token::EOF {
        return Err(problem(format!("`{}` does not belong there", rest.token), None, place(rest.span.start)));
    }
    let schema = DFSchema::from_unqualified_fields(fields.into(), Default::default()).map_err(wrong)?;
    let expression = ExprWithAlias { expr: expression, alias: None };
    let expression = state.create_logical_expr_from_sql_expr(expression, &schema).map_err(wrong)?;
    let expression = conditions::one_row(expression).map_err(|why| problem(why, None, None))?;
    Ok(Parsed { expression, attributes: used })
}

/// Puts values in the place of attributes; `list` are those of a set behind `IN`.
fn bind(
    expression: Expr,
    value: &dyn Fn(&str) -> Option<Expr>,
    list: &dyn Fn(&str) -> Option<Vec<Expr>>,
) -> Result<Expr, DataFusionError> {
    let attribute = |expr: &Expr| match expr {
        Expr::Column(Column { name, relation: None, .. }) => {
            name.strip_prefix(PRINCIPAL)?.strip_prefix('.').map(str::to_owned)
        }
        _ => None,
    };
    let bound = expression.transform_down(|expr| {
        Ok(match expr {
            Expr::InList(InList { expr, list: items, negated }) => {
                let mut all = Vec::with_capacity(items.len());
                for item in items {
                    match attribute(&item).and_then(|name| list(&name)) {
                        Some(values) => all.extend(values),
                        None => all.push(item),
                    }
                }
                if all.is_empty() {
                    Transformed::yes(lit(negated))
                } else {
                    Transformed::yes(Expr::InList(InList { expr, list: all, negated }))
                }
            }
            other => match attribute(&other).and_then(|name| value(&name)) {
                Some(value) => Transformed::yes(value),
                None => Transformed::no(other),
            },
        })
    });
    bound.data()
}

/// Checks a row filter against a contract.
pub(crate) fn check(
    context: &SessionContext,
    table: &Table,
    attributes: &BTreeMap<String, AttributeType>,
    condition: &str,
) -> Result<(), FilterProblem> {
    let columns = Schema::new(table.columns.iter().map(arrow_field).collect::<Vec<_>>());
    let parsed = parse(context, condition, &columns, attributes)?;
    let fail = |why: String| problem(why, None, None);
    let text = |_: &str| Some(vec![lit("")]);
    let sets = |name: &str| match attributes.get(name) {
        Some(AttributeType::Strings) => text(name),
        _ => None,
    };
    let expression = bind(parsed.expression, &|_| None, &sets).map_err(|error| fail(error.strip_backtrace()))?;
    let mut fields: Vec<FieldRef> = columns.fields().iter().cloned().collect();
    for name in &parsed.attributes {
        fields.extend(attributes.get(name).map(|data_type| Arc::new(attribute_field(name, *data_type))));
    }
    let schema = Schema::new(fields);
    let settled = conditions::settled(context, expression, &schema).map_err(fail)?;
    conditions::predicate(context, settled, &schema).map_err(fail)?;
    Ok(())
}

fn literal(value: &AttributeValue) -> ScalarValue {
    match value {
        AttributeValue::String(text) => ScalarValue::Utf8(Some(text.clone())),
        AttributeValue::Long(number) => ScalarValue::Int64(Some(*number)),
        AttributeValue::Boolean(truth) => ScalarValue::Boolean(Some(*truth)),
        AttributeValue::Strings(texts) => {
            let texts: Vec<ScalarValue> = texts.iter().map(|text| ScalarValue::Utf8(Some(text.clone()))).collect();
            ScalarValue::List(ScalarValue::new_list_nullable(&texts, &DataType::Utf8))
        }
    }
}

/// Says that a filter of a table cannot be applied, and nothing of the rows.
fn unusable(table: &str) -> Error {
    Error::new(ErrorCode::InvalidManifest, format!("the row filter of table `{table}` cannot be applied"))
        .with_help("its owner sees why with `datamesh check`")
}

impl Condition {
    /// Compiles a row filter of `table` for its reader. `columns` are the table's as it is now. `None`: it names an attribute
    /// that the reader does not have, so no row is admitted.
    ///
    /// # Errors
    /// `invalid-manifest`, without the filter's text.
    pub(super) fn compile(
        context: &SessionContext,
        table: &str,
        filter: &RowFilter,
        columns: &SchemaRef,
    ) -> Result<Option<Self>, Error> {
        let fail = |_| unusable(table);
        let types: BTreeMap<String, AttributeType> =
            filter.attributes.iter().map(|(name, value)| (name.clone(), value.attribute_type())).collect();
        if let Err(Unread::Attribute(_)) = tokens(&filter.condition, &types) {
            return Ok(None);
        }
        let parsed = parse(context, &filter.condition, columns, &types).map_err(|_| unusable(table))?;
        let value = |name: &str| filter.attributes.get(name).map(|value| lit(literal(value)));
        let list = |name: &str| match filter.attributes.get(name) {
            Some(AttributeValue::Strings(texts)) => Some(texts.iter().map(|text| lit(text.clone())).collect()),
            _ => None,
        };
        let expression = bind(parsed.expression, &value, &list).map_err(|_| unusable(table))?;
        let mut used: Vec<usize> =
            expression.column_refs().iter().filter_map(|column| columns.index_of(column.name()).ok()).collect();
        used.sort_unstable();
        used.dedup();
        let columns: Vec<FieldRef> = used.iter().map(|at| columns.fields()[*at].clone()).collect();
        let schema = Arc::new(Schema::new(columns.clone()));
        let opposite = conditions::settled(context, Expr::Not(Box::new(expression.clone())), &schema).ok();
        let logical = conditions::settled(context, expression, &schema).map_err(fail)?;
        let expression = conditions::predicate(context, logical.clone(), &schema).map_err(fail)?;
        Ok(Some(Self { columns, schema, expression, logical, opposite }))
    }

    /// The rows that it admits. `columns` are those of [`Self::columns`].
    ///
    /// # Errors
    /// Where a row makes it fail; the error says nothing of the row.
    pub(super) fn admits(
        &self,
        table: &str,
        columns: Vec<Arc<dyn Array>>,
        rows: usize,
    ) -> Result<BooleanBuffer, DataFusionError> {
        let fail = || {
            let message = format!("the row filter of table `{table}` failed");
            let error = Error::new(ErrorCode::InvalidManifest, message)
                .with_help("a value of the table makes its condition fail; its owner can mend the condition");
            crate::error::wrap(error)
        };
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).map_err(|_| fail())?;
        let truth = self.expression.evaluate(&batch).and_then(|value| value.into_array(rows)).map_err(|_| fail())?;
        let truth = truth.as_boolean_opt().ok_or_else(fail)?;
        Ok(match truth.nulls() {
            Some(nulls) => nulls.inner() & truth.values(),
            None => truth.values().clone(),
        })
    }
}
