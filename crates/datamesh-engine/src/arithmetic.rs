//! Whole numbers in SQL that do not wrap around: a sum, difference or product out of its type's range is an error.
//!
//! DataFusion adds, subtracts and multiplies whole numbers modulo the width of their type, in expressions and in `sum`.
//! PostgreSQL and DuckDB refuse what does not fit, and so do decimals and casts here.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array};
use datafusion::arrow::compute::kernels::numeric::{add, mul, sub};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Int64Type, UInt64Type};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, ScalarValue, plan_err};
use datafusion::error::Result;
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::expr::{AggregateFunction, ScalarFunction};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, BinaryExpr, Cast, ColumnarValue, EmitTo, Expr, ExprSchemable,
    GroupsAccumulator, Operator, ReversedUDAF, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, SetMonotonicity,
    Signature, Volatility,
};
use datafusion::physical_expr_common::datum::apply;

/// The same expression, whose differences of numbers without a sign have one: those of row numbers, ranks and lengths are
/// often negative. Types are not brought together yet.
pub(crate) fn sign_differences(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| {
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else { return Ok(Transformed::no(expr)) };
        let unsigned = |expr: &Expr| expr.get_type(schema).is_ok_and(|own| own.is_unsigned_integer());
        let is_difference = op == Operator::Minus && unsigned(&left) && unsigned(&right);
        let signed = |expr| Box::new(Expr::Cast(Cast::new(expr, DataType::Int64)));
        let (left, right) = if is_difference { (signed(left), signed(right)) } else { (left, right) };
        let difference = Expr::BinaryExpr(BinaryExpr { left, op, right });
        Ok(if is_difference { Transformed::yes(difference) } else { Transformed::no(difference) })
    })
}

/// The same expression, whose whole numbers do not wrap around.
pub(crate) fn check_arithmetic(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| {
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else { return Ok(Transformed::no(expr)) };
        let whole = |expr: &Expr| expr.get_type(schema).ok().filter(DataType::is_integer);
        match CHECKED.iter().find(|(checked, _)| *checked == op) {
            Some((_, function)) if whole(&left).is_some() && whole(&left) == whole(&right) => {
                let args = vec![*left, *right];
                Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(function.clone(), args))))
            }
            _ => Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
        }
    })
}

static CHECKED: LazyLock<[(Operator, Arc<ScalarUDF>); 3]> = LazyLock::new(|| {
    [(Operator::Plus, "checked_add"), (Operator::Minus, "checked_sub"), (Operator::Multiply, "checked_mul")].map(
        |(op, name)| {
            let signature = Signature::any(2, Volatility::Immutable);
            (op, Arc::new(ScalarUDF::from(Checked { op, name, signature })))
        },
    )
});

/// An operator on two whole numbers of one type, which fails where the result is out of range.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    op: Operator,
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [left, right] if left == right && left.is_integer() => Ok(left.clone()),
            other => plan_err!("{} takes two whole numbers of one type, not {other:?}", self.name),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = args.args.as_slice() else {
            return plan_err!("{} takes two arguments, not {}", self.name, args.args.len());
        };
        match self.op {
            Operator::Plus => apply(left, right, add),
            Operator::Minus => apply(left, right, sub),
            _ => apply(left, right, mul),
        }
    }

    /// The operator's own, so that columns keep their names.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(match args {
            [left, right] => format!("{} {} {}", left.schema_name(), self.op, right.schema_name()),
            _ => self.name.to_owned(),
        })
    }
}

/// `sum` of DataFusion, which adds whole numbers with 128 bits and fails where the result does not fit its type.
pub(crate) fn checked_sum() -> AggregateUDF {
    AggregateUDF::from(CheckedSum { inner: Sum::new() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CheckedSum {
    inner: Sum,
}

/// What whole numbers are added as: no number of them that a machine can count leaves its range.
const WIDE: DataType = DataType::Decimal128(38, 0);

fn is_whole(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int64 | DataType::UInt64)
}

/// The field of the wide sum.
fn wide(field: &FieldRef) -> FieldRef {
    Arc::new(Field::new(field.name(), WIDE, true))
}

/// Whole numbers as wide ones.
fn widen(values: &ArrayRef) -> Result<ArrayRef> {
    let wide: Decimal128Array = match values.data_type() {
        DataType::Int64 => values.as_primitive::<Int64Type>().unary::<_, Decimal128Type>(i128::from),
        DataType::UInt64 => values.as_primitive::<UInt64Type>().unary::<_, Decimal128Type>(i128::from),
        other => return plan_err!("sum takes 64-bit whole numbers here, not {other}"),
    };
    Ok(Arc::new(wide.with_data_type(WIDE)))
}

fn widen_all(values: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
    values.iter().map(widen).collect()
}

/// Wide sums as those of the type, where they fit.
fn narrow(sums: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(sums, to, &strict)
        .map_err(|_| DataFusionError::Execution(format!("a sum of whole numbers does not fit {to}")))
}

impl AggregateUDFImpl for CheckedSum {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let to = args.return_field.data_type().clone();
        if !is_whole(&to) {
            return self.inner.accumulator(args);
        }
        let sums = self.inner.accumulator(AccumulatorArgs { return_field: wide(&args.return_field), ..args })?;
        Ok(Box::new(Narrowed { sums, to }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        if !is_whole(args.return_field.data_type()) {
            return self.inner.state_fields(args);
        }
        self.inner.state_fields(StateFieldsArgs { return_field: wide(&args.return_field), ..args })
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let to = args.return_field.data_type().clone();
        if !is_whole(&to) {
            return self.inner.create_groups_accumulator(args);
        }
        let args = AccumulatorArgs { return_field: wide(&args.return_field), ..args };
        Ok(Box::new(NarrowedGroups { sums: self.inner.create_groups_accumulator(args)?, to }))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let to = args.return_field.data_type().clone();
        // DataFusion slides over distinct values of `bigint` alone.
        if !is_whole(&to) || args.is_distinct {
            return self.inner.create_sliding_accumulator(args);
        }
        let args = AccumulatorArgs { return_field: wide(&args.return_field), ..args };
        Ok(Box::new(Narrowed { sums: self.inner.create_sliding_accumulator(args)?, to }))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.inner.set_monotonicity(data_type)
    }

    fn simplify_expr_op_literal(
        &self,
        function: &AggregateFunction,
        arg: &Expr,
        op: Operator,
        literal: &Expr,
        arg_is_left: bool,
    ) -> Result<Option<Expr>> {
        self.inner.simplify_expr_op_literal(function, arg, op, literal, arg_is_left)
    }
}

/// A wide sum that is told in a narrower type.
#[derive(Debug)]
struct Narrowed {
    sums: Box<dyn Accumulator>,
    to: DataType,
}

impl Accumulator for Narrowed {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.sums.update_batch(&widen_all(values)?)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sum = self.sums.evaluate()?.to_array()?;
        ScalarValue::try_from_array(&narrow(&sum, &self.to)?, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.sums.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.sums.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.sums.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.sums.retract_batch(&widen_all(values)?)
    }

    fn supports_retract_batch(&self) -> bool {
        self.sums.supports_retract_batch()
    }
}

/// Wide sums of groups that are told in a narrower type.
struct NarrowedGroups {
    sums: Box<dyn GroupsAccumulator>,
    to: DataType,
}

impl GroupsAccumulator for NarrowedGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        groups: usize,
    ) -> Result<()> {
        self.sums.update_batch(&widen_all(values)?, group_indices, filter, groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        narrow(&self.sums.evaluate(emit_to)?, &self.to)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.sums.state(emit_to)
    }

    fn merge_batch(
        &mut self,
        states: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        groups: usize,
    ) -> Result<()> {
        self.sums.merge_batch(states, group_indices, filter, groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.sums.convert_to_state(&widen_all(values)?, filter)
    }

    fn supports_convert_to_state(&self) -> bool {
        self.sums.supports_convert_to_state()
    }

    fn size(&self) -> usize {
        self.sums.size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::analyzer_rules;
    use datafusion::arrow::util::display::array_value_to_string;
    use datafusion::execution::SessionStateBuilder;
    use datafusion::prelude::SessionContext;

    fn context() -> SessionContext {
        let state = SessionStateBuilder::new().with_default_features().with_analyzer_rules(analyzer_rules()).build();
        let context = SessionContext::new_with_state(state);
        context.register_udaf(checked_sum());
        context
    }

    /// The only value, or what is wrong; and the column's name.
    async fn value(sql: &str) -> (String, Result<String, String>) {
        let frame = context().sql(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let name = frame.schema().field(0).name().clone();
        let answer = frame.collect().await.map_err(|error| error.strip_backtrace()).map(|batches| {
            let rows = batches.iter().flat_map(|batch| {
                (0..batch.num_rows()).map(|row| array_value_to_string(batch.column(0), row).expect("shown"))
            });
            rows.collect::<Vec<_>>().join(" ")
        });
        (name, answer)
    }

    #[tokio::test]
    async fn what_leaves_its_range_is_an_error() {
        const INTS: &str = "(VALUES (CAST(2147483647 AS INT)), (CAST(1 AS INT))) AS t(i)";
        const LONGS: &str = "(VALUES (1, 9223372036854775807), (1, 1), (2, -5)) AS t(g, i)";
        for (sql, found) in [
            (format!("SELECT i * i FROM {INTS}"), None),
            (format!("SELECT i + i FROM {INTS}"), None),
            (format!("SELECT -2 - i FROM {LONGS}"), None),
            (format!("SELECT count(*) FROM {LONGS} WHERE i + 1 > 0"), None),
            (
                format!(
                    "SELECT count(*) FROM (SELECT * FROM {LONGS}) a JOIN (SELECT * FROM {LONGS}) b ON a.i + 1 = b.i"
                ),
                None,
            ),
            ("SELECT 9223372036854775807 + 1".to_owned(), None),
            ("SELECT array_length([1]) - array_length([1, 2, 3])".to_owned(), Some("-2")),
            (
                format!(
                    "SELECT row_number() OVER (ORDER BY i DESC) - row_number() OVER (ORDER BY i) AS d FROM {LONGS} ORDER BY d"
                ),
                Some("-2 0 2"),
            ),
            (format!("SELECT i - 1 FROM {INTS}"), Some("2147483646 0")),
            (format!("SELECT i * 2 FROM {LONGS} WHERE g = 2"), Some("-10")),
            (format!("SELECT sum(i) FROM {LONGS}"), Some("9223372036854775803")),
            (format!("SELECT sum(i) FROM {LONGS} WHERE i > 0"), None),
            (format!("SELECT sum(i) FROM {LONGS} GROUP BY g ORDER BY g"), None),
            (format!("SELECT sum(i) FROM {LONGS} WHERE g = 2 GROUP BY g"), Some("-5")),
            (format!("SELECT sum(i) FROM {LONGS} WHERE g = 3"), Some("")),
            (format!("SELECT sum(DISTINCT i) FROM {LONGS} WHERE i > 0"), None),
            (format!("SELECT sum(i) FILTER (WHERE i < 9) FROM {LONGS}"), Some("-4")),
            (format!("SELECT sum(i) OVER (ORDER BY i ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM {LONGS}"), None),
            (
                format!(
                    "SELECT sum(i) OVER (ORDER BY i ROWS BETWEEN CURRENT ROW AND CURRENT ROW) FROM {LONGS} ORDER BY 1"
                ),
                Some("-5 1 9223372036854775807"),
            ),
            ("SELECT sum(i) FROM (VALUES (CAST(1.5 AS DOUBLE)), (2)) AS t(i)".to_owned(), Some("3.5")),
        ] {
            let (_, answer) = value(&sql).await;
            match found {
                Some(found) => assert_eq!(answer.as_deref(), Ok(found), "{sql}"),
                None => {
                    let why = answer.expect_err(&sql).to_lowercase();
                    assert!(why.contains("overflow") || why.contains("does not fit"), "{sql}: {why}");
                }
            }
        }
    }

    #[tokio::test]
    async fn names_of_columns_stay() {
        for (sql, name) in [
            ("SELECT a + 1 FROM (VALUES (1)) AS t(a)", "t.a + Int64(1)"),
            ("SELECT sum(a * 2) FROM (VALUES (1)) AS t(a)", "sum(t.a * Int64(2))"),
            ("SELECT a + 1 FROM (VALUES (1)) AS t(a) GROUP BY a + 1", "t.a + Int64(1)"),
            (
                "SELECT a + 1, count(*) FROM (VALUES (1)) AS t(a) GROUP BY ROLLUP (a + 1) HAVING a + 1 > 0",
                "t.a + Int64(1)",
            ),
        ] {
            let frame = context().sql(sql).await.expect("planned");
            assert_eq!(frame.schema().field(0).name(), name);
            let batches = frame.collect().await.expect("answered");
            assert_eq!(batches[0].schema().field(0).name(), name);
        }
    }
}
