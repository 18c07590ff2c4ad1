//! Times in SQL as our columns have them: microseconds.
//!
//! DataFusion takes `TIMESTAMP` and `TIME` for nanoseconds, which reach from 1677 to 2262 only, and brings columns to
//! nanoseconds that are compared with a date or a text. Here both are microseconds, as in the tables.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Between, InList, ScalarFunction};
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, ExprSchemable, Operator};
use datafusion::sql::sqlparser::ast::{DataType as SqlType, TimezoneInfo};

/// The zone of instants.
pub(crate) const UTC: &str = "+00:00";

/// Types of SQL without a precision.
#[derive(Debug)]
pub(crate) struct Microseconds;

impl TypePlanner for Microseconds {
    fn plan_type_field(&self, sql_type: &SqlType) -> Result<Option<FieldRef>> {
        let data_type = match sql_type {
            SqlType::Timestamp(None, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) | SqlType::Datetime(None) => {
                DataType::Timestamp(TimeUnit::Microsecond, None)
            }
            SqlType::Timestamp(None, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => {
                DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()))
            }
            SqlType::Time(None, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
                DataType::Time64(TimeUnit::Microsecond)
            }
            _ => return Ok(None),
        };
        Ok(Some(Arc::new(Field::new("", data_type, true))))
    }
}

fn is_comparison(op: Operator) -> bool {
    use Operator as O;
    matches!(op, O::Eq | O::NotEq | O::Lt | O::LtEq | O::Gt | O::GtEq | O::IsDistinctFrom | O::IsNotDistinctFrom)
}

/// The same expression, with comparisons of timestamps in microseconds.
pub(crate) fn keep_microseconds(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    // What has no type here, such as a column of a query around, is left as it is.
    let micros = |expr: &Expr| match expr.get_type(schema) {
        Ok(own @ DataType::Timestamp(TimeUnit::Microsecond, _)) => Some(own),
        _ => None,
    };
    let fits = |expr: &Expr| {
        let data_type = expr.get_type(schema);
        matches!(data_type, Ok(DataType::Date32 | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View))
    };
    let brought = |expr: Box<Expr>, to: &DataType| {
        if fits(&expr) { Box::new(Expr::Cast(Cast::new(expr, to.clone()))) } else { expr }
    };
    expr.transform_up(|expr| {
        Ok(match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(op) => {
                let (left, right) = match (micros(&left), micros(&right)) {
                    (Some(own), None) if fits(&right) => (left, brought(right, &own)),
                    (None, Some(own)) if fits(&left) => (brought(left, &own), right),
                    _ => return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
                };
                Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
            }
            Expr::Between(Between { expr, negated, low, high }) => match micros(&expr) {
                Some(own) => {
                    let (low, high) = (brought(low, &own), brought(high, &own));
                    Transformed::yes(Expr::Between(Between { expr, negated, low, high }))
                }
                None => Transformed::no(Expr::Between(Between { expr, negated, low, high })),
            },
            Expr::InList(InList { expr, list, negated }) => match micros(&expr) {
                Some(own) => {
                    let list = list.into_iter().map(|item| *brought(Box::new(item), &own)).collect();
                    Transformed::yes(Expr::InList(InList { expr, list, negated }))
                }
                None => Transformed::no(Expr::InList(InList { expr, list, negated })),
            },
            Expr::ScalarFunction(ScalarFunction { func, mut args })
                if func.name() == "date_trunc" && args.len() == 2 =>
            {
                match micros(&args[1]) {
                    // Of an instant the day's parts are cut off by way of nanoseconds, of a local time they are not.
                    Some(own @ DataType::Timestamp(_, Some(_)))
                        if own == DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())) =>
                    {
                        let local = DataType::Timestamp(TimeUnit::Microsecond, None);
                        let instant = std::mem::take(&mut args[1]);
                        args[1] = Expr::Cast(Cast::new(Box::new(instant), local));
                        let cut = Expr::ScalarFunction(ScalarFunction { func, args });
                        Transformed::yes(Expr::Cast(Cast::new(Box::new(cut), own)))
                    }
                    _ => Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args })),
                }
            }
            other => Transformed::no(other),
        })
    })
}
