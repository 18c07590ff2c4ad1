//! What manifests say of files, and manifest lists of manifests: enough to leave those out that no row of an answer is in.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray, UInt64Array};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, ColumnStatistics, ScalarValue, Statistics};
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::PruningPredicate;
use datamesh_iceberg::projection::{buckets, source_range};
use datamesh_iceberg::read::{LiveFile, TableView};
use datamesh_iceberg::spec::{
    Datum, ManifestFile, PartitionField, PrimitiveLiteral, PrimitiveType, Schema, Transform, Type,
};

use super::convert::field_id;
use super::schema::scalar;

/// What is known of one column of a file, or of all files of a manifest.
#[derive(Clone, Debug, Default)]
pub(crate) struct ColumnFacts {
    lower: Option<ScalarValue>,
    upper: Option<ScalarValue>,
    /// Whether a row has the lower, and another the upper bound: bounds of texts may be cut off.
    exact: bool,
    nulls: Option<u64>,
    /// Number of buckets, and the least and the greatest bucket of its values.
    buckets: Vec<(u32, i32, i32)>,
    /// Values are not ordered with NaN, and bounds leave it out.
    may_be_nan: bool,
}

/// What is known of a file, or of all files of a manifest: columns by their position in the schema.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    rows: Option<u64>,
    columns: HashMap<usize, ColumnFacts>,
}

/// A table's columns, for looking facts up.
pub(crate) struct Columns<'a> {
    view: &'a TableView,
    schema: &'a SchemaRef,
    by_id: HashMap<i32, usize>,
}

impl<'a> Columns<'a> {
    pub(crate) fn new(view: &'a TableView, schema: &'a SchemaRef) -> Self {
        let ids = schema.fields().iter().enumerate();
        let by_id = ids.filter_map(|(at, field)| Some((field_id(field)?, at))).collect();
        Self { view, schema, by_id }
    }

    /// The position, type here and type there of a partition field's column, where SQL can see it.
    fn source(&self, field: &PartitionField) -> Option<(usize, &DataType, PrimitiveType)> {
        let at = *self.by_id.get(&field.source_id)?;
        Some((at, self.schema.field(at).data_type(), primitive(self.view.schema(), field.source_id)?))
    }

    /// What a file's partition values and column metrics say.
    pub(crate) fn file(&self, file: &LiveFile) -> Facts {
        let data_file = file.entry.data_file();
        let rows = data_file.record_count();
        let mut columns: HashMap<usize, ColumnFacts> = HashMap::new();
        for (id, at) in &self.by_id {
            let data_type = self.schema.field(*at).data_type();
            if data_type.is_nested() {
                continue;
            }
            let floating = data_type.is_floating();
            let may_be_nan = floating && data_file.nan_value_counts().get(id) != Some(&0);
            let bound =
                |bounds: &HashMap<i32, Datum>| bounds.get(id).and_then(|bound| scalar(bound.literal(), data_type));
            let (mut lower, mut upper) = (bound(data_file.lower_bounds()), bound(data_file.upper_bounds()));
            if may_be_nan {
                (lower, upper) = (None, None);
            }
            columns.insert(
                *at,
                ColumnFacts {
                    // Zero equals its negative, but sorts after it.
                    lower: lower.map(|value| signed_zero(value, true)),
                    upper: upper.map(|value| signed_zero(value, false)),
                    exact: !floating && !truncates(data_type),
                    nulls: data_file.null_value_counts().get(id).copied(),
                    buckets: Vec::new(),
                    may_be_nan,
                },
            );
        }
        if let Some(spec) = self.view.spec(file.spec_id) {
            for (field, value) in spec.fields().iter().zip(data_file.partition().iter()) {
                let Some((at, data_type, source)) = self.source(field) else { continue };
                if field.transform == Transform::Void || field.transform == Transform::Unknown {
                    continue;
                }
                let facts = columns.entry(at).or_default();
                match value.and_then(|value| value.as_primitive_literal()) {
                    None => facts.nulls = Some(rows),
                    Some(value) => {
                        facts.nulls = Some(0);
                        facts.narrow(field, &source, data_type, Some(&value), Some(&value));
                    }
                }
            }
        }
        Facts { rows: Some(rows), columns }
    }

    /// What a manifest's summaries of partition values say.
    pub(crate) fn manifest(&self, manifest: &ManifestFile) -> Facts {
        let mut facts = Facts::default();
        let (Some(spec), Some(summaries)) = (self.view.spec(manifest.partition_spec_id), &manifest.partitions) else {
            return facts;
        };
        for (field, summary) in spec.fields().iter().zip(summaries) {
            let Some((at, data_type, source)) = self.source(field) else { continue };
            if field.transform == Transform::Void || field.transform == Transform::Unknown {
                continue;
            }
            let Ok(result) = field.transform.result_type(&Type::Primitive(source.clone())) else { continue };
            let Some(result) = result.as_primitive_type() else { continue };
            let value = |bytes: Option<&[u8]>| {
                let datum = Datum::try_from_bytes(bytes?, result.clone()).ok()?;
                (!datum.is_nan()).then(|| datum.literal().clone())
            };
            let column = facts.columns.entry(at).or_default();
            column.may_be_nan = data_type.is_floating() && summary.contains_nan != Some(false);
            if !summary.contains_null {
                column.nulls = Some(0);
            }
            let (lower, upper) = (
                value(summary.lower_bound.as_deref().map(Vec::as_slice)),
                value(summary.upper_bound.as_deref().map(Vec::as_slice)),
            );
            column.narrow(field, &source, data_type, lower.as_ref(), upper.as_ref());
        }
        facts
    }

    /// The value a file has in a column throughout, by an identity partition field.
    pub(crate) fn constant(&self, file: &LiveFile, column: usize) -> Option<ScalarValue> {
        let spec = self.view.spec(file.spec_id)?;
        let partition = file.entry.data_file().partition();
        let at = spec.fields().iter().position(|field| {
            field.transform == Transform::Identity && self.by_id.get(&field.source_id) == Some(&column)
        })?;
        let data_type = self.schema.field(column).data_type();
        match partition.fields().get(at)? {
            None => ScalarValue::try_new_null(data_type).ok(),
            Some(value) => scalar(&value.as_primitive_literal()?, data_type),
        }
    }

    /// Whether every file with one of these partition specs has one value in a column throughout.
    pub(crate) fn is_constant(&self, specs: &HashSet<i32>, column: usize) -> bool {
        !self.schema.field(column).data_type().is_floating()
            && specs.iter().all(|id| {
                self.view.spec(*id).is_some_and(|spec| {
                    spec.fields().iter().any(|field| {
                        field.transform == Transform::Identity && self.by_id.get(&field.source_id) == Some(&column)
                    })
                })
            })
    }
}

impl ColumnFacts {
    /// Adds what partition values between two bounds say of the column.
    fn narrow(
        &mut self,
        field: &PartitionField,
        source: &PrimitiveType,
        data_type: &DataType,
        lower: Option<&PrimitiveLiteral>,
        upper: Option<&PrimitiveLiteral>,
    ) {
        if let Transform::Bucket(count) = field.transform {
            // A UUID is text here, and hashed as bytes there.
            if let (Some(PrimitiveLiteral::Int(lower)), Some(PrimitiveLiteral::Int(upper))) = (lower, upper)
                && *source != PrimitiveType::Uuid
            {
                self.buckets.push((count, *lower, *upper));
            }
            return;
        }
        if self.may_be_nan {
            return;
        }
        let range = source_range(&field.transform, source, lower, upper);
        let (lower, upper) = (
            range.lower.and_then(|value| scalar(&value, data_type)),
            range.upper.and_then(|value| scalar(&value, data_type)),
        );
        let tighter = |own: &Option<ScalarValue>, other: &Option<ScalarValue>, less: bool| match (own, other) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(own), Some(other)) => {
                other.partial_cmp(own).is_some_and(|order| if less { order.is_gt() } else { order.is_lt() })
            }
        };
        let identity = field.transform == Transform::Identity && lower == upper && lower.is_some();
        if identity {
            (self.lower, self.upper, self.exact) = (lower, upper, !data_type.is_floating());
            return;
        }
        if tighter(&self.lower, &lower, true) {
            (self.lower, self.exact) = (lower, false);
        }
        if tighter(&self.upper, &upper, false) {
            (self.upper, self.exact) = (upper, false);
        }
    }

    /// Whether no value of the column is among `values`, by their buckets: one flag for each pair of `hashed`.
    fn excludes(&self, hashed: &[(u32, Vec<i32>)]) -> bool {
        self.buckets.iter().any(|(count, lower, upper)| {
            let found = hashed.iter().find(|(other, _)| other == count);
            found.is_some_and(|(_, buckets)| buckets.iter().all(|bucket| bucket < lower || bucket > upper))
        })
    }
}

impl Facts {
    /// The facts as DataFusion's statistics of a file.
    pub(crate) fn statistics(&self, schema: &SchemaRef, deletes: bool) -> Statistics {
        let count =
            |value: u64| if deletes { Precision::Inexact(value as usize) } else { Precision::Exact(value as usize) };
        let mut statistics = Statistics::new_unknown(schema);
        statistics.num_rows = self.rows.map_or(Precision::Absent, count);
        for (at, facts) in &self.columns {
            let bound = |value: &Option<ScalarValue>| match value {
                None => Precision::Absent,
                Some(value) if facts.exact && !deletes => Precision::Exact(value.clone()),
                Some(value) => Precision::Inexact(value.clone()),
            };
            if let Some(column) = statistics.column_statistics.get_mut(*at) {
                *column = ColumnStatistics::new_unknown()
                    .with_min_value(bound(&facts.lower))
                    .with_max_value(bound(&facts.upper))
                    .with_null_count(facts.nulls.map_or(Precision::Absent, count));
            }
        }
        statistics
    }

    /// Whether a column may hold NaN.
    pub(crate) fn may_be_nan(&self, column: usize) -> bool {
        self.columns.get(&column).is_none_or(|facts| facts.may_be_nan)
    }
}

fn primitive(schema: &Schema, id: i32) -> Option<PrimitiveType> {
    schema.field_by_id(id)?.field_type.as_primitive_type().cloned()
}

fn truncates(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeBinary | DataType::FixedSizeBinary(_))
}

fn signed_zero(value: ScalarValue, negative: bool) -> ScalarValue {
    match value {
        ScalarValue::Float32(Some(0.0)) => ScalarValue::Float32(Some(if negative { -0.0 } else { 0.0 })),
        ScalarValue::Float64(Some(0.0)) => ScalarValue::Float64(Some(if negative { -0.0 } else { 0.0 })),
        value => value,
    }
}

/// Which containers, files or manifests, may hold a row that a predicate accepts.
pub(crate) fn prune(predicate: &Arc<dyn PhysicalExpr>, schema: &SchemaRef, containers: &[Facts]) -> Result<Vec<bool>> {
    if containers.is_empty() {
        return Ok(Vec::new());
    }
    let predicate = PruningPredicate::try_new(predicate.clone(), schema.clone())?;
    if predicate.always_true() {
        return Ok(vec![true; containers.len()]);
    }
    predicate.prune(&Containers { schema, containers })
}

struct Containers<'a> {
    schema: &'a SchemaRef,
    containers: &'a [Facts],
}

impl Containers<'_> {
    fn column(&self, column: &Column) -> Option<(usize, &DataType)> {
        let (at, field) = self.schema.column_with_name(column.name())?;
        Some((at, field.data_type()))
    }

    fn bounds(&self, column: &Column, bound: impl Fn(&ColumnFacts) -> &Option<ScalarValue>) -> Option<ArrayRef> {
        let (at, data_type) = self.column(column)?;
        let null = ScalarValue::try_new_null(data_type).ok()?;
        let values = self
            .containers
            .iter()
            .map(|facts| facts.columns.get(&at).and_then(|facts| bound(facts).clone()).unwrap_or_else(|| null.clone()));
        ScalarValue::iter_to_array(values).ok()
    }
}

impl PruningStatistics for Containers<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, |facts| &facts.lower)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, |facts| &facts.upper)
    }

    fn num_containers(&self) -> usize {
        self.containers.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let (at, _) = self.column(column)?;
        let counts = self.containers.iter().map(|facts| facts.columns.get(&at).and_then(|facts| facts.nulls));
        Some(Arc::new(counts.collect::<UInt64Array>()))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(self.containers.iter().map(|facts| facts.rows).collect::<UInt64Array>()))
    }

    #[allow(clippy::mutable_key_type, reason = "the trait's signature")]
    fn contained(&self, column: &Column, values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        let (at, data_type) = self.column(column)?;
        let mut counts: Vec<u32> = Vec::new();
        for facts in self.containers.iter().filter_map(|facts| facts.columns.get(&at)) {
            counts.extend(facts.buckets.iter().map(|(count, _, _)| *count));
        }
        counts.sort_unstable();
        counts.dedup();
        if counts.is_empty() {
            return None;
        }
        let values = values.iter().map(|value| value.cast_to(data_type)).collect::<Result<Vec<_>>>().ok()?;
        if values.iter().any(ScalarValue::is_null) {
            return None;
        }
        let array = ScalarValue::iter_to_array(values).ok()?;
        let hashed: Vec<(u32, Vec<i32>)> =
            counts.iter().filter_map(|count| Some((*count, buckets(*count, &array)?.values().to_vec()))).collect();
        let excluded = self.containers.iter().map(|facts| {
            // Only what is certain: that no value of the file is among them.
            facts.columns.get(&at).is_some_and(|facts| facts.excludes(&hashed)).then_some(false)
        });
        Some(excluded.collect())
    }
}
