//! Which predicates may run on rows that are not seen: those that cannot fail, whatever the rows hold.

use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Between, InList, Like};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{
    BinaryExpr as PhysicalBinary, Column, DynamicFilterPhysicalExpr, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr,
    Literal, NotExpr,
};
use std::sync::Arc;

/// Patterns are compiled to automata; a long one may fail to.
const LONGEST_PATTERN: usize = 64;

fn compares(op: Operator) -> bool {
    use Operator as O;
    matches!(op, O::Eq | O::NotEq | O::Lt | O::LtEq | O::Gt | O::GtEq | O::IsDistinctFrom | O::IsNotDistinctFrom)
}

fn is_pattern(value: &ScalarValue) -> bool {
    match value {
        ScalarValue::Utf8(text) | ScalarValue::LargeUtf8(text) | ScalarValue::Utf8View(text) => {
            text.as_ref().is_none_or(|text| text.len() <= LONGEST_PATTERN && !text.contains('\\'))
        }
        _ => false,
    }
}

/// Whether an expression is a harmless predicate. `column` tells the type of a column that may be looked at.
pub(super) fn is_harmless(expr: &Expr, column: &dyn Fn(&str) -> Option<DataType>) -> bool {
    let own = |expr: &Expr| match expr {
        Expr::Column(name) => column(&name.name).filter(|data_type| !data_type.is_nested()),
        _ => None,
    };
    let value = |expr: &Expr| match expr {
        Expr::Literal(value, _) => Some(value.data_type()),
        _ => None,
    };
    let operand = |expr: &Expr| own(expr).or_else(|| value(expr));
    match expr {
        Expr::Literal(ScalarValue::Boolean(_), _) => true,
        Expr::Column(_) => own(expr) == Some(DataType::Boolean),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And | Operator::Or, right }) => {
            is_harmless(left, column) && is_harmless(right, column)
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(*op) => {
            operand(left).is_some_and(|left| operand(right) == Some(left))
        }
        Expr::Not(inner)
        | Expr::IsTrue(inner)
        | Expr::IsFalse(inner)
        | Expr::IsUnknown(inner)
        | Expr::IsNotTrue(inner)
        | Expr::IsNotFalse(inner)
        | Expr::IsNotUnknown(inner) => is_harmless(inner, column),
        Expr::IsNull(inner) | Expr::IsNotNull(inner) => own(inner).is_some(),
        Expr::Between(Between { expr, low, high, .. }) => {
            own(expr).is_some_and(|own| value(low).as_ref() == Some(&own) && value(high) == Some(own))
        }
        Expr::InList(InList { expr, list, .. }) => {
            own(expr).is_some_and(|own| list.iter().all(|item| value(item).as_ref() == Some(&own)))
        }
        Expr::Like(Like { expr, pattern, escape_char: None, case_insensitive: false, .. }) => {
            let pattern = match pattern.as_ref() {
                Expr::Literal(value, _) if is_pattern(value) => Some(value.data_type()),
                _ => None,
            };
            own(expr).is_some_and(|own| pattern == Some(own))
        }
        _ => false,
    }
}

/// Whether a physical expression is a harmless predicate over the columns of `schema` at which `column` says so.
pub(super) fn is_harmless_physical(
    expr: &Arc<dyn PhysicalExpr>,
    schema: &Schema,
    column: &dyn Fn(usize) -> bool,
) -> bool {
    let own = |expr: &Arc<dyn PhysicalExpr>| {
        let found = expr.downcast_ref::<Column>().filter(|found| column(found.index()))?;
        let field = schema.fields().get(found.index())?;
        (field.name() == found.name() && !field.data_type().is_nested()).then(|| field.data_type().clone())
    };
    let value = |expr: &Arc<dyn PhysicalExpr>| expr.downcast_ref::<Literal>().map(|value| value.value().data_type());
    let operand = |expr: &Arc<dyn PhysicalExpr>| own(expr).or_else(|| value(expr));
    let inner = |expr: &Arc<dyn PhysicalExpr>| is_harmless_physical(expr, schema, column);
    if let Some(value) = expr.downcast_ref::<Literal>() {
        return matches!(value.value(), ScalarValue::Boolean(_));
    }
    if expr.is::<Column>() {
        return own(expr) == Some(DataType::Boolean);
    }
    if let Some(binary) = expr.downcast_ref::<PhysicalBinary>() {
        let (left, right) = (binary.left(), binary.right());
        return match binary.op() {
            Operator::And | Operator::Or => inner(left) && inner(right),
            op => compares(*op) && operand(left).is_some_and(|left| operand(right) == Some(left)),
        };
    }
    if let Some(not) = expr.downcast_ref::<NotExpr>() {
        return inner(not.arg());
    }
    if let Some(null) = expr.downcast_ref::<IsNullExpr>() {
        return own(null.arg()).is_some();
    }
    if let Some(null) = expr.downcast_ref::<IsNotNullExpr>() {
        return own(null.arg()).is_some();
    }
    if let Some(list) = expr.downcast_ref::<InListExpr>() {
        return own(list.expr()).is_some_and(|own| list.list().iter().all(|item| value(item).as_ref() == Some(&own)));
    }
    if let Some(like) = expr.downcast_ref::<LikeExpr>() {
        let pattern = like.pattern().downcast_ref::<Literal>().map(Literal::value).filter(|value| is_pattern(value));
        return !like.case_insensitive()
            && own(like.expr()).is_some_and(|own| pattern.map(ScalarValue::data_type) == Some(own));
    }
    // What joins and sorts make of the rows that they saw: bounds, lists and hash tables of the columns below.
    if expr.is::<DynamicFilterPhysicalExpr>() {
        return expr.children().into_iter().all(|child| own(child).is_some());
    }
    false
}

/// The expression with other columns in place of its own.
pub(super) fn with_columns(
    expr: Arc<dyn PhysicalExpr>,
    column: &dyn Fn(&Column) -> Option<Column>,
) -> Result<Arc<dyn PhysicalExpr>> {
    let moved = expr.transform_down(|expr| {
        Ok(match expr.downcast_ref::<Column>().and_then(column) {
            Some(column) => Transformed::yes(Arc::new(column) as Arc<dyn PhysicalExpr>),
            None => Transformed::no(expr),
        })
    });
    moved.data()
}
