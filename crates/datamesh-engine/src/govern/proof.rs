//! Row filters that statistics settle: where no row that is read can fail one, it need not be evaluated, and what is known of
//! the files is known of the rows that are seen.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray, UInt64Array};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, ColumnStatistics, ScalarValue, Statistics};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::PruningPredicate;

/// Whether no row can meet a predicate, nor make it null: `columns` are those that could. Bounds, exact or not, must hold for
/// every row; floats are left out, as bounds do not speak of NaN.
pub(super) fn never(
    predicate: &Arc<dyn PhysicalExpr>,
    columns: &[usize],
    schema: &SchemaRef,
    statistics: &Statistics,
) -> bool {
    let settled = columns.iter().all(|at| {
        let floating = schema.fields().get(*at).is_none_or(|field| field.data_type().is_floating());
        let known = statistics.column_statistics.get(*at);
        !floating && known.is_some_and(|known| known.null_count.get_value() == Some(&0))
    });
    if !settled || columns.is_empty() {
        return false;
    }
    let Ok(predicate) = PruningPredicate::try_new(predicate.clone(), schema.clone()) else { return false };
    let pruned = predicate.prune(&Whole { schema, statistics });
    !predicate.always_true() && pruned.is_ok_and(|kept| kept == [false])
}

/// All that is scanned, as one container.
struct Whole<'a> {
    schema: &'a SchemaRef,
    statistics: &'a Statistics,
}

impl Whole<'_> {
    fn column(&self, column: &Column) -> Option<&ColumnStatistics> {
        self.statistics.column_statistics.get(self.schema.index_of(column.name()).ok()?)
    }
}

impl PruningStatistics for Whole<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        ScalarValue::iter_to_array([self.column(column)?.min_value.get_value()?.clone()]).ok()
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        ScalarValue::iter_to_array([self.column(column)?.max_value.get_value()?.clone()]).ok()
    }

    fn num_containers(&self) -> usize {
        1
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let count = *self.column(column)?.null_count.get_value()?;
        Some(Arc::new(UInt64Array::from(vec![count as u64])))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        None
    }

    #[allow(clippy::mutable_key_type, reason = "the trait's signature")]
    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
