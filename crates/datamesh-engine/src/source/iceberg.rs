//! Iceberg tables that this mesh did not publish, by their metadata: columns and rows are pruned by the scan.

use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, ident, lit};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
    SendableRecordBatchStream,
};
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;
use datamesh_app::ports::{BoundIceberg, Pull, Rows};
use datamesh_core::{DataType, Error, ErrorCode, Result, Table};
use datamesh_iceberg::local::to_url;
use datamesh_iceberg::storage::{is_url, join, local_path};
use datamesh_iceberg::{OpenTable, Storage, TableCache};

use datamesh_quality::arrow_types::arrow_field;
use flate2::read::MultiGzDecoder;
use futures::{StreamExt, TryStreamExt};

use super::arrow_batches::ArrowBatches;
use super::exec::QUEUE;
use super::typed::from_text;
use super::{TableLayout, source_schema};
use crate::error::unwrap;
use crate::scan;

/// The plan that scans the contract's columns of a table, in the table's own types, and the columns it leaves out.
pub(super) async fn plan(
    storage: &Storage,
    location: &str,
    bound: &BoundIceberg,
    table: &Table,
    pull: Option<&Pull>,
    context: &SessionContext,
) -> Result<(Arc<dyn ExecutionPlan>, Vec<String>)> {
    let shown = &bound.spec.iceberg;
    let open = open(storage, location, &bound.folder, shown).await?;
    let fail = |error| unwrap(ErrorCode::SourceUnreadable, &format!("cannot read the Iceberg table `{shown}`"), error);
    // A source is read once: nothing of it is kept.
    let provider = scan::open_table(&Arc::new(TableCache::new(0)), &open, None).await?;
    let mut frame = context.read_table(provider).map_err(fail)?;
    if let Some(condition) = &bound.spec.condition {
        let bad = |error| {
            unwrap(ErrorCode::InvalidManifest, &format!("`where` of the Iceberg table `{shown}`"), error)
                .with_help("write an SQL condition over the table's columns; names with capitals need double quotes")
        };
        let condition = frame.parse_sql_expr(condition).map_err(bad)?;
        frame = frame.filter(condition).map_err(bad)?;
    }
    let schema = frame.schema().as_arrow().clone();
    if let Some(newer) = newer(table, pull, &schema)? {
        frame = frame.filter(newer).map_err(fail)?;
    }
    let named = schema.fields().iter().filter(|field| table.column(field.name()).is_some());
    let mut wanted: Vec<Expr> = named.map(|field| ident(field.name().as_str())).collect();
    if wanted.is_empty() {
        // Rows without a column of the contract are counted all the same.
        wanted = schema.fields().first().map(|field| ident(field.name().as_str())).into_iter().collect();
    }
    let others = schema.fields().iter().filter(|field| table.column(field.name()).is_none());
    let ignored = others.map(|field| field.name().clone()).collect();
    let frame = frame.select(wanted).map_err(fail)?;
    Ok((frame.create_physical_plan().await.map_err(fail)?, ignored))
}

/// The rows of a table, all of them; `folder` is where a path begins.
pub(crate) async fn rows(storage: &Storage, location: &str, folder: &Path, context: &SessionContext) -> Result<Rows> {
    let fail = reading(location);
    let table = open(storage, location, folder, location).await?;
    let provider = scan::open_table(&Arc::new(TableCache::new(0)), &table, None).await?;
    let stream = context.read_table(provider).map_err(&fail)?.execute_stream().await.map_err(&fail)?;
    Ok(Rows { schema: stream.schema(), batches: stream.map_err(fail).boxed() })
}

fn reading(location: &str) -> impl Fn(DataFusionError) -> Error + use<> {
    let doing = format!("cannot read the Iceberg table `{location}`");
    move |error| unwrap(ErrorCode::SourceUnreadable, &doing, error)
}

/// The condition that leaves out what was read before, where the column's own type can tell.
fn newer(table: &Table, pull: Option<&Pull>, schema: &Schema) -> Result<Option<Expr>> {
    let Some((pull, after)) = pull.and_then(|pull| Some((pull, pull.after.as_ref()?))) else { return Ok(None) };
    let (Some(column), Ok(field)) = (table.column(&pull.column), schema.field_with_name(&pull.column)) else {
        return Ok(None);
    };
    let target = arrow_field(column);
    let same = field.data_type() == target.data_type()
        || (matches!(column.data_type, DataType::Long) && field.data_type().is_integer());
    if !same {
        // A column that is cast row by row is filtered row by row.
        return Ok(None);
    }
    let text: datafusion::arrow::array::ArrayRef =
        Arc::new(datafusion::arrow::array::StringArray::from(vec![after.as_str()]));
    let (value, broken) = from_text(&text, &column.data_type, target.data_type())?;
    if broken.value(0) {
        return Ok(None);
    }
    let value = ScalarValue::try_from_array(&value, 0)
        .map_err(|error| unwrap(ErrorCode::Internal, "the watermark cannot be used", error))?;
    Ok(Some(ident(pull.column.as_str()).gt(lit(value))))
}

/// Opens the table whose metadata document, or folder, `location` names.
pub(super) async fn open(storage: &Storage, location: &str, folder: &Path, shown: &str) -> Result<OpenTable> {
    let url = if is_url(location) { location.to_owned() } else { to_url(&folder.join(location)) };
    let is_folder = match local_path(&url)? {
        Some(path) => path.is_dir(),
        None => !url.ends_with(".json") && !url.ends_with(".json.gz"),
    };
    let document = if is_folder { newest_metadata(storage, &url, shown).await? } else { url };
    let unfit = |why: String| {
        let what = format!("`{shown}` is no Iceberg metadata document that can be read: {why}");
        Error::new(ErrorCode::SourceUnreadable, what)
            .with_help("name a `….metadata.json` of format version 1, 2 or 3, or the table's folder")
    };
    let bytes = storage.read(&document).await?;
    let text = if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut text = String::new();
        let read = MultiGzDecoder::new(bytes.as_ref()).read_to_string(&mut text);
        read.map_err(|error| unfit(error.to_string()))?;
        text
    } else {
        String::from_utf8(bytes.to_vec()).map_err(|error| unfit(error.to_string()))?
    };
    OpenTable::read_document(storage, &text, &document).map_err(unfit)
}

/// The newest metadata document of a table's folder: what `version-hint.text` says, else the one of the highest version.
async fn newest_metadata(storage: &Storage, folder: &str, shown: &str) -> Result<String> {
    let mut metadata = join(folder, "metadata");
    let mut files = storage.list(&metadata).await?;
    if files.is_empty() {
        metadata = folder.trim_end_matches('/').to_owned();
        files = storage.list(&metadata).await?;
    }
    let names: Vec<&str> = files.iter().filter_map(|file| file.url.rsplit('/').next()).collect();
    if names.contains(&"version-hint.text") {
        let hint = storage.read(&join(&metadata, "version-hint.text")).await?;
        let hint = String::from_utf8_lossy(&hint).trim().to_owned();
        let wanted = [hint.clone(), format!("{hint}.metadata.json"), format!("v{hint}.metadata.json")];
        if let Some(found) = wanted.iter().find(|name| names.contains(&name.as_str())) {
            return Ok(join(&metadata, found));
        }
    }
    let version = |name: &&str| {
        let digits: String = name.trim_start_matches('v').chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u64>().ok()
    };
    let documents = names.iter().filter(|name| name.ends_with(".metadata.json") || name.ends_with(".metadata.json.gz"));
    let found: Vec<(u64, &str)> = documents.filter_map(|name| Some((version(name)?, *name))).collect();
    let newest = found.iter().map(|(version, _)| *version).max();
    let mut newest = found.iter().filter(|(version, _)| Some(*version) == newest);
    match (newest.next(), newest.next()) {
        (Some((_, name)), None) => Ok(join(&metadata, name)),
        (Some((version, _)), Some(_)) => Err(Error::new(
            ErrorCode::SourceUnreadable,
            format!("`{shown}` has several metadata documents of version {version}"),
        )
        .with_help("name the current one; the table's catalog knows it")),
        (None, _) => Err(Error::new(
            ErrorCode::SourceUnreadable,
            format!("`{shown}` is no Iceberg table: it has no metadata document"),
        )
        .with_help("name the folder that has `metadata/` in it, or a metadata document")),
    }
}

/// Brings a scan's batches to the contract's columns.
#[derive(Debug)]
pub(crate) struct IcebergExec {
    layout: Arc<TableLayout>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl IcebergExec {
    pub(crate) fn new(layout: Arc<TableLayout>, input: Arc<dyn ExecutionPlan>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(source_schema(&layout.schema)),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { layout, input, properties: Arc::new(properties) }
    }
}

impl DisplayAs for IcebergExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IcebergExec: table={}", self.layout.table.name)
    }
}

impl ExecutionPlan for IcebergExec {
    fn name(&self) -> &'static str {
        "IcebergExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(child), true) => Ok(Arc::new(Self::new(self.layout.clone(), child))),
            _ => Err(DataFusionError::Internal("expected one input".into())),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let mut input = self.input.execute(partition, context)?;
        let layout = self.layout.clone();
        let file = u32::try_from(partition).map_err(|error| DataFusionError::External(Box::new(error)))?;
        let mut builder = RecordBatchReceiverStream::builder(self.schema(), QUEUE);
        let sender = builder.tx();
        builder.spawn(async move {
            let mut batches = ArrowBatches::new(&layout, file, input.schema())?;
            while let Some(batch) = input.next().await {
                let batch = batch?;
                layout.facts.read(batch.get_array_memory_size() as u64);
                let mut out = Vec::new();
                batches.push(&batch, &mut |batch| {
                    out.push(batch);
                    true
                })?;
                for batch in out {
                    if sender.send(Ok(batch)).await.is_err() {
                        return Ok(());
                    }
                }
            }
            batches.finish();
            Ok(())
        });
        Ok(builder.build())
    }
}
