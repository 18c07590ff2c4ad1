//! Parquet files that are durable when they are closed.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Fields, SchemaRef};
use datafusion::parquet::arrow::{ArrowWriter, PARQUET_FIELD_ID_META_KEY};
use datafusion::parquet::basic::{Compression, Encoding, ZstdLevel};
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use datafusion::parquet::schema::types::ColumnPath;
use datamesh_core::{Error, ErrorCode, Result};
use datamesh_iceberg::Storage;
use datamesh_iceberg::storage::local_path;

use crate::error::parquet_write;

/// A data file is closed when it has about so many bytes.
const TARGET_BYTES: usize = 256 << 20;
/// A row group is closed at so many rows or encoded bytes, whatever comes first: what a writer holds in memory.
const GROUP_ROWS: usize = 1 << 19;
const GROUP_BYTES: usize = 32 << 20;

/// What becomes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// It is published: compressed, and on the disk when it is closed.
    Published,
    /// It is read back by this process, and deleted.
    Scratch,
}

/// A closed Parquet file.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) url: String,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) footer: Arc<ParquetMetaData>,
    /// NaN values by field id.
    pub(crate) nan_counts: HashMap<i32, u64>,
}

/// Writes one Parquet file. One of an object store is written to a local folder and uploaded when it is closed.
pub(crate) struct PartWriter {
    storage: Storage,
    url: String,
    path: PathBuf,
    /// Whether `path` is not the file itself.
    remote: bool,
    durability: Durability,
    writer: ArrowWriter<BufWriter<File>>,
    rows: u64,
    /// Float and double columns, those of structs too: the way to each, and its field id.
    floats: Vec<(Vec<usize>, i32)>,
    nan_counts: HashMap<i32, u64>,
}

impl PartWriter {
    /// Starts the file `url`; `scratch` is the folder of what is uploaded later.
    pub(crate) fn create(
        storage: &Storage,
        scratch: &Path,
        url: &str,
        schema: &SchemaRef,
        durability: Durability,
    ) -> Result<Self> {
        let (path, remote) = match local_path(url)? {
            Some(path) => (path, false),
            None => {
                std::fs::create_dir_all(scratch)
                    .map_err(|error| Error::io(ErrorCode::WriteFailed, "make the folder", scratch, error))?;
                (scratch.join(url.rsplit('/').next().unwrap_or(url)), true)
            }
        };
        let path = path.as_path();
        let file = File::create(path).map_err(|error| Error::io(ErrorCode::WriteFailed, "write", path, error))?;
        let properties = match durability {
            Durability::Published => {
                let level = ZstdLevel::try_new(1).map_err(|error| parquet_write(path, error))?;
                WriterProperties::builder()
                    .set_compression(Compression::ZSTD(level))
                    .set_statistics_enabled(EnabledStatistics::Page)
            }
            Durability::Scratch => scratch_properties(schema),
        };
        let properties = properties
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_max_row_group_bytes(Some(GROUP_BYTES))
            .set_created_by(concat!("datamesh ", env!("CARGO_PKG_VERSION")).into())
            .build();
        let writer = ArrowWriter::try_new(BufWriter::with_capacity(1 << 20, file), schema.clone(), Some(properties))
            .map_err(|error| parquet_write(path, error))?;
        let mut floats = Vec::new();
        if durability == Durability::Published {
            find_floats(schema.fields(), &mut Vec::new(), &mut floats);
        }
        let (storage, url, path) = (storage.clone(), url.to_owned(), path.to_owned());
        Ok(Self { storage, url, path, remote, durability, writer, rows: 0, floats, nan_counts: HashMap::new() })
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    pub(crate) fn is_full(&self) -> bool {
        self.writer.bytes_written() + self.writer.in_progress_size() >= TARGET_BYTES
    }

    /// Writes a batch whose columns are laid out like the schema.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        for (path, id) in &self.floats {
            *self.nan_counts.entry(*id).or_default() += nan_values(batch, path);
        }
        self.writer.write(batch).map_err(|error| parquet_write(&self.path, error))?;
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// Ends the file and makes it durable.
    pub(crate) fn close(mut self) -> Result<Part> {
        let fail = |error| Error::io(ErrorCode::WriteFailed, "write", &self.path, error);
        let footer = self.writer.finish().map_err(|error| parquet_write(&self.path, error))?;
        // `finish` has flushed everything through the buffer to the file.
        let file = self.writer.inner().get_ref();
        if !self.remote && self.durability == Durability::Published {
            file.sync_all().map_err(fail)?;
        }
        let bytes = file.metadata().map_err(fail)?.len();
        if self.remote {
            self.storage.wait(self.storage.upload(&self.path, &self.url))??;
            std::fs::remove_file(&self.path)
                .map_err(|error| Error::io(ErrorCode::WriteFailed, "delete", &self.path, error))?;
        }
        Ok(Part { url: self.url, rows: self.rows, bytes, footer: Arc::new(footer), nan_counts: self.nan_counts })
    }
}

/// As little work and as few bytes as it takes to read values back: whole numbers by their differences, nothing searched or
/// compressed.
fn scratch_properties(schema: &SchemaRef) -> WriterPropertiesBuilder {
    let plain = WriterProperties::builder()
        .set_compression(Compression::UNCOMPRESSED)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_dictionary_enabled(false);
    let numbers = schema.fields().iter().filter(|field| {
        let wide = matches!(field.data_type(), DataType::Int64 | DataType::Timestamp(..) | DataType::Time64(_));
        wide || matches!(field.data_type(), DataType::Int32 | DataType::Date32)
    });
    numbers.fold(plain, |properties, field| {
        let path = ColumnPath::new(vec![field.name().clone()]);
        properties.set_column_encoding(path, Encoding::DELTA_BINARY_PACKED)
    })
}

fn find_floats(fields: &Fields, path: &mut Vec<usize>, out: &mut Vec<(Vec<usize>, i32)>) {
    for (at, field) in fields.iter().enumerate() {
        path.push(at);
        match field.data_type() {
            DataType::Float32 | DataType::Float64 => {
                let id = field.metadata().get(PARQUET_FIELD_ID_META_KEY).and_then(|id| id.parse().ok());
                out.extend(id.map(|id| (path.clone(), id)));
            }
            DataType::Struct(children) => find_floats(children, path, out),
            _ => {}
        }
        path.pop();
    }
}

/// NaN values of a float column, which may lie in structs; what a null struct holds does not count.
fn nan_values(batch: &RecordBatch, path: &[usize]) -> u64 {
    let Some((first, rest)) = path.split_first() else { return 0 };
    let mut array = batch.column(*first).clone();
    let mut valid = datamesh_quality::values::valid(&array);
    for step in rest {
        let Some(fields) = array.as_struct_opt() else { return 0 };
        array = fields.column(*step).clone();
        valid = &valid & &datamesh_quality::values::valid(&array);
    }
    let nan = datamesh_quality::values::test_doubles(&array, f64::is_nan);
    nan.map_or(0, |nan| (&nan & &valid).count_set_bits() as u64)
}
