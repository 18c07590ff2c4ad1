//! Deletes as row selections: the rows of a data file that position and equality deletes leave.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, new_null_array};
use datafusion::arrow::compute::{cast, nullif};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::common::ScalarValue;
use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess};
use datafusion::error::{DataFusionError, Result};
use datafusion::parquet::arrow::ProjectionMask;
use datafusion::parquet::arrow::arrow_reader::RowSelection;
use datafusion::parquet::arrow::async_reader::{ParquetObjectReader, ParquetRecordBatchStreamBuilder};
use datafusion::parquet::file::metadata::ParquetMetaData;
use datamesh_core::{Error, ErrorCode};
use datamesh_iceberg::read::{LiveFile, TableView};
use datamesh_iceberg::spec::DataContentType;
use datamesh_iceberg::storage;
use futures::TryStreamExt;
use tokio::sync::OnceCell;

use super::adapter::{FieldIds, PartitionValues};
use super::convert::{Conversion, Lookup, field_id};
use super::schema::{default_value, read_field};
use crate::error::wrap;

/// Field ids of a position delete file (specification, "Position delete files").
const FILE_PATH: i32 = 2_147_483_546;
const POSITION: i32 = 2_147_483_545;

/// Deleted rows by the URL of their data file, in one spelling.
type Positions = HashMap<String, Vec<u64>>;
/// The rows of an equality delete file, as bytes that compare like the rows.
type DeletedRows = HashSet<Box<[u8]>>;

/// The delete files of one scan; each is read once.
pub(crate) struct DeleteFiles {
    view: TableView,
    field_ids: Arc<FieldIds>,
    positions: Once<Positions>,
    equality: Once<DeletedRows>,
}

impl fmt::Debug for DeleteFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeleteFiles").field("table", &self.view.location()).finish_non_exhaustive()
    }
}

/// Values that are made once each, by the location of their file.
struct Once<T>(Mutex<HashMap<String, Arc<OnceCell<Arc<T>>>>>);

impl<T> Once<T> {
    fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    async fn get(&self, location: &str, make: impl Future<Output = Result<T>>) -> Result<Arc<T>> {
        let cell = {
            let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            cells.entry(location.to_owned()).or_default().clone()
        };
        cell.get_or_try_init(|| async { make.await.map(Arc::new) }).await.cloned()
    }
}

/// A data file and the deletes that apply to it.
#[derive(Debug)]
pub(crate) struct FileDeletes {
    files: Arc<DeleteFiles>,
    data: LiveFile,
    deletes: Vec<LiveFile>,
    plan: OnceCell<ParquetAccessPlan>,
}

impl FileDeletes {
    pub(crate) fn new(files: Arc<DeleteFiles>, data: LiveFile, deletes: Vec<LiveFile>) -> Self {
        Self { files, data, deletes, plan: OnceCell::new() }
    }

    /// The rows that are left, by row group. Read once, also where the file is read in several parts.
    pub(crate) async fn access_plan(&self) -> Result<ParquetAccessPlan> {
        self.plan.get_or_try_init(|| self.select()).await.cloned()
    }

    async fn select(&self) -> Result<ParquetAccessPlan> {
        let path = storage::spelled(self.data.entry.data_file().file_path());
        let footer = self.files.open(&self.data).await?.metadata().clone();
        let mut deleted: Vec<u64> = Vec::new();
        let mut by_columns: HashMap<Vec<i32>, Vec<&LiveFile>> = HashMap::new();
        for delete in &self.deletes {
            let file = delete.entry.data_file();
            match file.content_type() {
                DataContentType::EqualityDeletes => {
                    let mut ids = file.equality_ids().unwrap_or_default();
                    ids.sort_unstable();
                    ids.dedup();
                    by_columns.entry(ids).or_default().push(delete);
                }
                _ => {
                    let positions =
                        self.files.positions.get(file.file_path(), self.files.read_positions(delete)).await?;
                    deleted.extend(positions.get(path).into_iter().flatten());
                }
            }
        }
        for (ids, deletes) in by_columns {
            deleted.extend(self.files.matching(&self.data, &ids, &deletes).await?);
        }
        deleted.sort_unstable();
        deleted.dedup();
        Ok(plan_without(&deleted, &footer))
    }
}

/// The rows of a file without the deleted ones (sorted, distinct).
fn plan_without(deleted: &[u64], footer: &ParquetMetaData) -> ParquetAccessPlan {
    let mut first = 0_u64;
    let mut groups = Vec::with_capacity(footer.num_row_groups());
    for group in footer.row_groups() {
        let rows = group.num_rows().max(0) as u64;
        let start = deleted.partition_point(|row| *row < first);
        let end = deleted.partition_point(|row| *row < first + rows);
        let gone = &deleted[start..end];
        groups.push(if gone.is_empty() {
            RowGroupAccess::Scan
        } else if gone.len() as u64 == rows {
            RowGroupAccess::Skip
        } else {
            let mut left = Vec::with_capacity(gone.len() + 1);
            let mut next = 0;
            for row in gone {
                let at = (row - first) as usize;
                if at > next {
                    left.push(next..at);
                }
                next = at + 1;
            }
            if next < rows as usize {
                left.push(next..rows as usize);
            }
            RowGroupAccess::Selection(RowSelection::from_consecutive_ranges(left.into_iter(), rows as usize))
        });
        first += rows;
    }
    ParquetAccessPlan::new(groups)
}

impl DeleteFiles {
    pub(crate) fn new(view: TableView, field_ids: Arc<FieldIds>) -> Self {
        Self { view, field_ids, positions: Once::new(), equality: Once::new() }
    }

    async fn open(&self, file: &LiveFile) -> Result<ParquetRecordBatchStreamBuilder<ParquetObjectReader>> {
        let file = file.entry.data_file();
        let (_, path) = storage::split(file.file_path()).map_err(wrap)?;
        let store = self.view.storage().object_store(file.file_path()).map_err(wrap)?;
        let reader = ParquetObjectReader::new(store, path).with_file_size(file.file_size_in_bytes());
        ParquetRecordBatchStreamBuilder::new(reader).await.map_err(|error| unreadable(file.file_path(), error))
    }

    /// Whole columns of a file by field id; `None` for those it does not have, or that only its partition gives.
    async fn read(
        &self,
        file: &LiveFile,
        ids: &[i32],
        partition: &PartitionValues,
        mut each: impl FnMut(Vec<Option<ArrayRef>>, usize) -> Result<()>,
    ) -> Result<()> {
        let builder = self.open(file).await?;
        let (labelled, lookup) = self.field_ids.label(builder.schema());
        let roots: Vec<usize> =
            (0..labelled.fields().len()).filter(|at| ids.iter().any(|id| holds(labelled.field(*at), *id))).collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots.clone());
        let location = file.entry.data_file().file_path().to_owned();
        let mut batches = builder.with_projection(mask).build().map_err(|error| unreadable(&location, error))?;
        while let Some(batch) = batches.try_next().await.map_err(|error| unreadable(&location, error))? {
            let columns = ids.iter().map(|id| {
                if lookup != Lookup::OwnIds && partition.has(*id) {
                    return Ok(None);
                }
                let found = roots.iter().enumerate().find(|(_, root)| holds(labelled.field(**root), *id));
                found
                    .map(|(at, root)| descend(batch.column(at), labelled.field(*root), *id))
                    .transpose()
                    .map(Option::flatten)
            });
            each(columns.collect::<Result<_>>()?, batch.num_rows())?;
        }
        Ok(())
    }

    async fn read_positions(&self, delete: &LiveFile) -> Result<Positions> {
        let location = delete.entry.data_file().file_path();
        let broken = || broken(location, "it has no columns `file_path` and `pos`");
        let mut positions = Positions::new();
        let builder = self.open(delete).await?;
        // Some writers leave the ids out: the names are fixed as well.
        let (path, position) = {
            let fields = builder.schema().fields();
            let find = |id: i32, name: &str| {
                let by_id = fields.iter().position(|field| field_id(field) == Some(id));
                by_id.or_else(|| fields.iter().position(|field| field.name() == name)).ok_or_else(broken)
            };
            (find(FILE_PATH, "file_path")?, find(POSITION, "pos")?)
        };
        // Batches have the columns in the order of the file.
        let (path_at, position_at) = if path < position { (0, 1) } else { (1, 0) };
        let mask = ProjectionMask::roots(builder.parquet_schema(), [path, position]);
        let mut batches = builder.with_projection(mask).build().map_err(|error| unreadable(location, error))?;
        while let Some(batch) = batches.try_next().await.map_err(|error| unreadable(location, error))? {
            let paths = cast(batch.column(path_at), &DataType::Utf8)?;
            let rows = cast(batch.column(position_at), &DataType::Int64)?;
            for (path, row) in paths.as_string::<i32>().iter().zip(rows.as_primitive::<Int64Type>()) {
                let (Some(path), Some(row)) = (path, row.and_then(|row| u64::try_from(row).ok())) else {
                    return Err(broken());
                };
                let path = storage::spelled(path);
                match positions.get_mut(path) {
                    Some(rows) => rows.push(row),
                    None => drop(positions.insert(path.to_owned(), vec![row])),
                }
            }
        }
        Ok(positions)
    }

    /// The rows of a data file that any of the deletes, all over the same columns, names.
    async fn matching(&self, data: &LiveFile, ids: &[i32], deletes: &[&LiveFile]) -> Result<Vec<u64>> {
        let partition = PartitionValues::of(&self.view, data);
        let keys = Keys::new(&self.view, ids, data, &partition)?;
        let mut sets = Vec::new();
        for delete in deletes {
            let location = delete.entry.data_file().file_path();
            let read = async {
                let mut rows = DeletedRows::new();
                let partition = PartitionValues::default();
                let own = Keys::new(&self.view, ids, delete, &partition)?;
                self.read(delete, ids, &partition, |columns, rows_read| {
                    if columns.iter().any(Option::is_none) {
                        return Err(broken(location, "it lacks a column that it deletes by"));
                    }
                    own.each(columns, rows_read, |_, row| {
                        rows.insert(row.into());
                    })
                })
                .await?;
                Ok(rows)
            };
            sets.push(self.equality.get(location, read).await?);
        }
        let mut deleted = Vec::new();
        let mut first = 0_u64;
        self.read(data, ids, &partition, |columns, rows| {
            keys.each(columns, rows, |at, row| {
                if sets.iter().any(|set| set.contains(row)) {
                    deleted.push(first + at as u64);
                }
            })?;
            first += rows as u64;
            Ok(())
        })
        .await?;
        Ok(deleted)
    }
}

/// Rows of some columns as bytes that are equal where the rows are: null equals null, NaN equals NaN.
struct Keys {
    fields: Vec<FieldRef>,
    missing: Vec<ScalarValue>,
    converter: RowConverter,
}

impl Keys {
    fn new(view: &TableView, ids: &[i32], file: &LiveFile, partition: &PartitionValues) -> Result<Self> {
        let location = file.entry.data_file().file_path();
        let mut fields = Vec::new();
        let mut missing = Vec::new();
        for id in ids {
            let field =
                view.any_field(*id).ok_or_else(|| broken(location, &format!("the table never had a field {id}")))?;
            let read = read_field(&field).map_err(wrap)?;
            missing.push(match partition.get(*id, &field.name, read.data_type())? {
                Some(value) => value,
                None => default_value(&field, read.data_type())?,
            });
            fields.push(read);
        }
        let sort = fields.iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let converter = RowConverter::new(sort)?;
        Ok(Self { fields, missing, converter })
    }

    fn each(&self, columns: Vec<Option<ArrayRef>>, rows: usize, mut each: impl FnMut(usize, &[u8])) -> Result<()> {
        let mut arrays = Vec::with_capacity(columns.len());
        for ((array, field), missing) in columns.into_iter().zip(&self.fields).zip(&self.missing) {
            arrays.push(match array {
                None if missing.is_null() => new_null_array(field.data_type(), rows),
                None => missing.to_array_of_size(rows)?,
                Some(array) => {
                    let from = Field::new(field.name(), array.data_type().clone(), true);
                    let conversion = Conversion::plan(&from, field, Lookup::OwnIds, &|field| {
                        ScalarValue::try_new_null(field.data_type())
                    })?;
                    conversion.apply(&array)?
                }
            });
        }
        let converted = self.converter.convert_columns(&arrays)?;
        for (at, row) in converted.iter().enumerate() {
            each(at, row.data());
        }
        Ok(())
    }
}

/// Whether a field is, or is a struct that has, the field with this id.
fn holds(field: &Field, id: i32) -> bool {
    field_id(field) == Some(id)
        || matches!(field.data_type(), DataType::Struct(fields) if fields.iter().any(|field| holds(field, id)))
}

/// The field with this id within a column; null where a struct around it is.
fn descend(array: &ArrayRef, field: &Field, id: i32) -> Result<Option<ArrayRef>> {
    if field_id(field) == Some(id) {
        return Ok(Some(array.clone()));
    }
    let DataType::Struct(fields) = field.data_type() else { return Ok(None) };
    let Some(at) = fields.iter().position(|field| holds(field, id)) else { return Ok(None) };
    let parent = array.as_struct();
    let Some(child) = descend(parent.column(at), &fields[at], id)? else { return Ok(None) };
    let Some(nulls) = parent.nulls() else { return Ok(Some(child)) };
    let gone = BooleanArray::new(!nulls.inner(), None);
    Ok(Some(nullif(&child, &gone)?))
}

fn unreadable(location: &str, error: datafusion::parquet::errors::ParquetError) -> DataFusionError {
    let message = format!("cannot read `{location}`: {error}");
    wrap(
        Error::new(ErrorCode::SourceUnreadable, message)
            .with_help("a published file was changed or removed from outside; restore it")
            .with_source(error),
    )
}

fn broken(location: &str, why: &str) -> DataFusionError {
    wrap(Error::new(ErrorCode::SourceUnreadable, format!("the delete file `{location}` cannot be used: {why}")))
}
