//! What the readers' tests share: a file, a layout, and the rows that a reader makes of it.

use std::io::Write;
use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::Schema;
use datafusion::error::DataFusionError;
use datamesh_app::Progress;
use datamesh_core::contract::{CsvOptions, SourceFormat};
use datamesh_core::ports::{PublishStep, StepObserver};
use datamesh_core::{Column, DataType, Table};
use datamesh_quality::arrow_types::arrow_field;
use datamesh_quality::values::show;

use super::{Hidden, SourceFacts, SourceFile, TableLayout};

struct Quiet;

impl StepObserver for Quiet {
    fn reached(&self, _: PublishStep) {}
}

impl Progress for Quiet {
    fn read(&self, _: &str, _: u64, _: Option<u64>) {}
}

/// A file with known bytes.
pub(super) struct TestSource {
    pub(super) file: SourceFile,
    _folder: tempfile::TempDir,
}

impl TestSource {
    pub(super) fn new(name: &str, bytes: &[u8]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(name);
        std::fs::File::create(&path).and_then(|mut file| file.write_all(bytes)).expect("a file");
        let format = SourceFormat::of_name(name).expect("a format");
        let file = SourceFile::local(name, path, format);
        Self { file, _folder: folder }
    }

    /// A table of the columns in `columns`, written as `name: type, name: type`.
    pub(super) fn layout(&self, columns: &str) -> TableLayout {
        let columns: Vec<Column> = columns
            .split(", ")
            .map(|column| {
                let (name, data_type) = column.split_once(": ").expect("a column");
                Column::anonymous(name, DataType::parse(data_type).expect("a type"))
            })
            .collect();
        let schema = Schema::new(columns.iter().map(arrow_field).collect::<Vec<_>>());
        let bare = serde_json::json!({ "name": "rows", "columns": [] });
        let table = Table { columns, ..serde_json::from_value(bare).expect("a table") };
        TableLayout {
            facts: Arc::new(SourceFacts::new("rows", None, Arc::new(Quiet))),
            table,
            schema: Arc::new(schema),
            csv: CsvOptions::default(),
            batch_size: 7,
        }
    }
}

type Read = fn(&TableLayout, &SourceFile, u32, &mut dyn FnMut(RecordBatch) -> bool) -> Result<(), DataFusionError>;

/// A row's first column as text, and the row's faults.
type ReadRow = (Option<String>, Option<String>);

/// The first column of every row as text, with the row's faults.
pub(super) fn read_with(source: &TestSource, columns: &str, read: Read) -> Result<Vec<ReadRow>, String> {
    let layout = source.layout(columns);
    let mut rows = Vec::new();
    let mut emit = |batch: RecordBatch| {
        let faults = batch.column_by_name(Hidden::FAULTS).expect("faults").as_string::<i32>().clone();
        for row in 0..batch.num_rows() {
            let fault = faults.is_valid(row).then(|| faults.value(row).to_owned());
            rows.push((show(batch.column(0), row), fault));
        }
        true
    };
    read(&layout, &source.file, 0, &mut emit).map_err(|error| error.to_string())?;
    Ok(rows)
}
