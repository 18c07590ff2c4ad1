//! Expressions over a table's columns as expressions over a data file's: columns are found by field id, never by name.
//!
//! A column that was added later is null or its default in older files; one that was renamed, moved or promoted is read
//! from where it was. Files without field ids get them by the table's name mapping, else by position. A column that a file
//! lacks and that its partition gives is that value (specification, "Column projection").

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::ColumnarValue;
use datafusion::parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column, Literal};
use datafusion::physical_expr_adapter::{PhysicalExprAdapter, PhysicalExprAdapterFactory};
use datamesh_iceberg::read::{LiveFile, TableView};
use datamesh_iceberg::spec::{Literal as Value, MappedField, NameMapping, Transform};

use super::convert::{Conversion, Lookup, field_id, position};
use super::schema::scalar;

/// The columns that the partition of a file gives (identity fields), by id.
#[derive(Debug, Default)]
pub(crate) struct PartitionValues(pub(crate) HashMap<i32, Option<Value>>);

impl PartitionValues {
    pub(crate) fn of(view: &TableView, file: &LiveFile) -> Self {
        let Some(spec) = view.spec(file.spec_id) else { return Self::default() };
        let fields = spec.fields().iter().zip(file.entry.data_file().partition().iter());
        let fields = fields.filter(|(field, _)| field.transform == Transform::Identity);
        Self(fields.map(|(field, value)| (field.source_id, value.cloned())).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn has(&self, id: i32) -> bool {
        self.0.contains_key(&id)
    }

    /// The value of a column; `None` where the partition does not give it.
    pub(crate) fn get(&self, id: i32, name: &str, data_type: &DataType) -> Result<Option<ScalarValue>> {
        let value = match self.0.get(&id) {
            None => return Ok(None),
            Some(None) => return ScalarValue::try_new_null(data_type).map(Some),
            Some(Some(Value::Primitive(value))) => scalar(value, data_type),
            Some(Some(_)) => None,
        };
        let unreadable = || {
            let why =
                format!("a data file has column `{name}` as partition value, which cannot be read as {data_type}");
            DataFusionError::Execution(why)
        };
        value.map(Some).ok_or_else(unreadable)
    }
}

/// How a table's files name their fields, and what fields that they lack are.
#[derive(Debug, Default)]
pub(crate) struct FieldIds {
    /// Ids for files without any.
    pub(crate) mapping: Option<NameMapping>,
    /// Values of fields that a file does not have, by id; null where there is none.
    pub(crate) defaults: HashMap<i32, ScalarValue>,
}

impl FieldIds {
    fn missing(&self, field: &Field, partition: &PartitionValues) -> Result<ScalarValue> {
        let id = field_id(field);
        if let Some(id) = id
            && let Some(value) = partition.get(id, field.name(), field.data_type())?
        {
            return Ok(value);
        }
        match id.and_then(|id| self.defaults.get(&id)) {
            Some(value) => value.cast_to(field.data_type()),
            None => ScalarValue::try_new_null(field.data_type()),
        }
    }

    /// The schema of a file with field ids on every field that has one.
    pub(crate) fn label(&self, schema: &Schema) -> (Schema, Lookup) {
        if schema.fields().iter().any(has_ids) {
            return (schema.clone(), Lookup::OwnIds);
        }
        let with_id =
            |(at, field): (usize, &FieldRef)| labelled(field, i32::try_from(at + 1).ok(), field.data_type().clone());
        match &self.mapping {
            Some(mapping) => {
                let roots: Vec<&MappedField> = mapping.fields().iter().collect();
                let fields = schema.fields().iter().map(|field| map_field(field, field.name(), &roots));
                (Schema::new(fields.collect::<Vec<_>>()), Lookup::GivenIds)
            }
            None => (Schema::new(schema.fields().iter().enumerate().map(with_id).collect::<Vec<_>>()), Lookup::Names),
        }
    }

    /// For a column of the table: where a file has it, and how it is converted. `None`: the file lacks it.
    fn resolve(
        &self,
        file: &Schema,
        lookup: Lookup,
        wanted: &Field,
        partition: &PartitionValues,
    ) -> Result<Option<(usize, Conversion)>> {
        // The partition goes before ids that a file was given.
        if lookup != Lookup::OwnIds && field_id(wanted).is_some_and(|id| partition.has(id)) {
            return Ok(None);
        }
        // Columns have ids, also where what is in them has none.
        let Some(at) = position(file.fields(), wanted, Lookup::OwnIds) else { return Ok(None) };
        let missing = |field: &Field| self.missing(field, partition);
        Ok(Some((at, Conversion::plan(file.field(at), wanted, lookup, &missing)?)))
    }

    fn adapter(
        &self,
        logical: &Schema,
        physical: &Schema,
        partition: &PartitionValues,
    ) -> Arc<dyn PhysicalExprAdapter> {
        let (labelled, lookup) = self.label(physical);
        let mut columns = HashMap::new();
        for field in logical.fields() {
            let source = match self.resolve(&labelled, lookup, field, partition) {
                Ok(Some((at, conversion))) => {
                    let column = Arc::new(Column::new(physical.field(at).name(), at)) as Arc<dyn PhysicalExpr>;
                    match conversion {
                        Conversion::Same => Ok(column),
                        // The simplifier knows casts: it moves them to the literals that a column is compared with.
                        Conversion::Cast(_) if conversion.is_primitive() => {
                            Ok(Arc::new(CastExpr::new_with_target_field(column, field.clone(), None)) as _)
                        }
                        conversion => Ok(Arc::new(Convert { column, field: field.clone(), conversion }) as _),
                    }
                }
                Ok(None) => {
                    let metadata = Some(FieldMetadata::from(field.as_ref()));
                    self.missing(field, partition)
                        .map(|value| Arc::new(Literal::new_with_metadata(value, metadata)) as _)
                }
                Err(error) => Err(DataFusionError::Execution(error.to_string())),
            };
            columns.insert(field.name().clone(), source);
        }
        Arc::new(FileColumns { columns })
    }
}

fn has_ids(field: &FieldRef) -> bool {
    field_id(field).is_some()
        || match field.data_type() {
            DataType::Struct(fields) => fields.iter().any(has_ids),
            DataType::List(field)
            | DataType::LargeList(field)
            | DataType::FixedSizeList(field, _)
            | DataType::Map(field, _) => has_ids(field),
            _ => false,
        }
}

fn labelled(field: &Field, id: Option<i32>, data_type: DataType) -> FieldRef {
    let mut metadata = field.metadata().clone();
    if let Some(id) = id {
        metadata.insert(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string());
    }
    Arc::new(field.clone().with_data_type(data_type).with_metadata(metadata))
}

/// A field with the ids that a name mapping gives it. Elements, keys and values go by those names.
fn map_field(field: &Field, name: &str, siblings: &[&MappedField]) -> FieldRef {
    let Some(mapped) = siblings.iter().find(|mapped| mapped.names().iter().any(|own| own == name)) else {
        return Arc::new(field.clone());
    };
    let children: Vec<&MappedField> = mapped.fields().iter().map(AsRef::as_ref).collect();
    let data_type = match field.data_type() {
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(|field| map_field(field, field.name(), &children)).collect())
        }
        DataType::List(element) => DataType::List(map_field(element, "element", &children)),
        DataType::LargeList(element) => DataType::LargeList(map_field(element, "element", &children)),
        DataType::FixedSizeList(element, size) => {
            DataType::FixedSizeList(map_field(element, "element", &children), *size)
        }
        DataType::Map(entries, sorted) => match entries.data_type() {
            DataType::Struct(fields) => {
                let named = fields.iter().zip(["key", "value"]);
                let fields = named.map(|(field, name)| map_field(field, name, &children)).collect();
                let entries = entries.as_ref().clone().with_data_type(DataType::Struct(fields));
                DataType::Map(Arc::new(entries), *sorted)
            }
            _ => field.data_type().clone(),
        },
        other => other.clone(),
    };
    labelled(field, mapped.field_id(), data_type)
}

impl PhysicalExprAdapterFactory for FieldIds {
    fn create(&self, logical: SchemaRef, physical: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        Ok(self.adapter(&logical, &physical, &PartitionValues::default()))
    }
}

/// The columns of a table in one file, some of which its partition gives.
#[derive(Debug)]
pub(crate) struct FileFields {
    pub(crate) field_ids: Arc<FieldIds>,
    pub(crate) partition: Arc<PartitionValues>,
}

impl PhysicalExprAdapterFactory for FileFields {
    fn create(&self, logical: SchemaRef, physical: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        Ok(self.field_ids.adapter(&logical, &physical, &self.partition))
    }
}

/// The columns of a table, read from one file.
struct FileColumns {
    columns: HashMap<String, Result<Arc<dyn PhysicalExpr>>>,
}

impl fmt::Debug for FileColumns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.columns.keys()).finish()
    }
}

impl PhysicalExprAdapter for FileColumns {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        let replaced = expr.transform_up(|expr| {
            let Some(column) = expr.downcast_ref::<Column>() else { return Ok(Transformed::no(expr)) };
            match self.columns.get(column.name()) {
                Some(Ok(source)) => Ok(Transformed::yes(source.clone())),
                // A column that cannot be read harms only those who read it.
                Some(Err(error)) => Err(DataFusionError::Execution(error.strip_backtrace())),
                None => Err(DataFusionError::Internal(format!("the table has no column `{}`", column.name()))),
            }
        });
        replaced.data()
    }
}

/// A column of a file in the table's shape.
#[derive(Debug, Clone)]
struct Convert {
    column: Arc<dyn PhysicalExpr>,
    field: FieldRef,
    conversion: Conversion,
}

impl PartialEq for Convert {
    fn eq(&self, other: &Self) -> bool {
        self.column.eq(&other.column) && self.field == other.field && self.conversion == other.conversion
    }
}

impl Eq for Convert {}

impl Hash for Convert {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.column.hash(state);
        self.field.hash(state);
        self.conversion.hash(state);
    }
}

impl fmt::Display for Convert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "by_field_id({})", self.column)
    }
}

impl PhysicalExpr for Convert {
    fn return_field(&self, _schema: &Schema) -> Result<FieldRef> {
        Ok(self.field.clone())
    }

    fn data_type(&self, _schema: &Schema) -> Result<DataType> {
        Ok(self.field.data_type().clone())
    }

    fn nullable(&self, _schema: &Schema) -> Result<bool> {
        Ok(self.field.is_nullable())
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let array = self.column.evaluate(batch)?.into_array(batch.num_rows())?;
        self.conversion.apply(&array).map(ColumnarValue::Array)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.column]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let [column] = <[_; 1]>::try_from(children)
            .map_err(|_| DataFusionError::Internal("a conversion has one column".to_owned()))?;
        Ok(Arc::new(Self { column, field: self.field.clone(), conversion: self.conversion.clone() }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.column.fmt_sql(f)
    }
}
