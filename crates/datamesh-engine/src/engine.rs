//! The engine port on DataFusion.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{SessionConfig, SessionContext};
use datamesh_app::ports::{
    BoundDatabase, BoundSource, CarriedTable, Engine, EvolutionJob, FilterProblem, MaintainJob, MaintenancePlan,
    NamedTables, PinnedInput, PreparedMaintenance, PreparedTable, ProductFile, Progress, QueryRequest, RestoreJob,
    Rows, Sight, StageInput, StageJob, TransformInput, TransformReads, Visibility,
};
use datamesh_core::access::AttributeType;
use datamesh_core::contract::{DataProduct, TransformSpec, WriteMode};
use datamesh_core::history::History;
use datamesh_core::ids::AttemptId;
use datamesh_core::lineage::ColumnLineage;
use datamesh_core::ports::{CatalogProduct, Lease, QuarantineFile, TablePointer};
use datamesh_core::profile::TableProfile;
use datamesh_core::quality::{KeyRule, Metric, MetricRule, value_constraints};
use datamesh_core::reference::{PinnedTable, RULE_REFERENCES, Reference};
use datamesh_core::secret::{NoSecrets, Redactor, SecretResolver};
use datamesh_core::verdict::{MetricResult, TableReport};
use datamesh_core::{Column, Error, ErrorCode, Name, ProductKey, Result, Table};
use datamesh_iceberg::storage::join;
use datamesh_iceberg::{OpenTable, Storage, TableCache, TableDraft};
use datamesh_quality::rows::compile_all;
use datamesh_quality::{MetricPlan, RowFilter};
use futures::{StreamExt, TryStreamExt};

use crate::arithmetic::checked_sum;
use crate::audit::{AuditPlan, PartitionResult};
use crate::candidate::Candidates;
use crate::compact::CompactedFiles;
use crate::conditions::{Filter, SqlProblem};
use crate::error::unwrap;
use crate::examine::{examine_database, examine_rows, examine_source};
use crate::files::{FilesTable, ScanFile};
use crate::govern::{self, Governor, MaskKey};
use crate::keys::KeyReader;
use crate::query::{self, PlannedQuery};
use crate::references::ReferenceCheck;
use crate::scan;
use crate::settle::{LateReference, SettledTable, StagedTable, settle};
use crate::source::{
    Database, MissingRequired, OpenSource, Own, RawFields, SourceFacts, TableLayout, WatermarkExec, WatermarkPlan,
    held_rows,
};
use crate::stores::Stores;
use crate::writer::{Durability, PartWriter};
use crate::{analyze, candidate, conditions, quarantine, stage, standing, times, transform};

/// Bytes of manifests that are kept in memory.
const TABLE_CACHE: usize = 64 << 20;

/// How the engine uses the machine.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// URL of the folder of all tables.
    pub warehouse: String,
    /// Reads and writes files, in the warehouse and elsewhere.
    pub storage: Storage,
    /// Local folder of what an attempt needs on the disk for a while.
    pub scratch: PathBuf,
    /// What else is the mesh's own: its private folder, the registry's file. No source but for who administers the mesh.
    pub private: Vec<PathBuf>,
    /// Partitions worked on side by side.
    pub parallelism: usize,
    /// Bytes that sorts and aggregations may hold before they spill.
    pub memory: usize,
    /// Rows in a batch.
    pub batch_size: usize,
}

/// Reads, audits, stages and queries on DataFusion.
pub struct DataEngine {
    options: EngineOptions,
    runtime: Arc<RuntimeEnv>,
    secrets: Arc<dyn SecretResolver>,
    tables: Arc<TableCache>,
    mask_key: Option<MaskKey>,
}

impl std::fmt::Debug for DataEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataEngine").field("options", &self.options).finish_non_exhaustive()
    }
}

impl DataEngine {
    /// Starts an engine. Nothing is written before the first publish.
    pub fn new(options: EngineOptions) -> Result<Self> {
        let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::OsTmpDirectory);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(options.memory)))
            .with_disk_manager_builder(disk)
            .with_object_store_registry(Arc::new(Stores::new(options.storage.clone())))
            .build_arc()
            .map_err(|error| unwrap(ErrorCode::Internal, "cannot start the engine", error))?;
        let tables = Arc::new(TableCache::new(TABLE_CACHE));
        Ok(Self { options, runtime, secrets: Arc::new(NoSecrets), tables, mask_key: None })
    }

    /// The same engine, which looks the secrets of sources up with `secrets`.
    #[must_use]
    pub fn with_secrets(mut self, secrets: Arc<dyn SecretResolver>) -> Self {
        self.secrets = secrets;
        self
    }

    /// The same engine, which hashes masked values with a secret of the mesh's key.
    #[must_use]
    pub fn with_mask_key(mut self, mesh: &[u8; 32]) -> Self {
        self.mask_key = Some(MaskKey::derive(mesh));
        self
    }

    /// A published table as it is now, and as whoever reads it sees it; `name` is what errors call it.
    pub(crate) async fn open_seen(
        &self,
        name: &str,
        table: &OpenTable,
        sight: &Sight,
    ) -> Result<Arc<dyn TableProvider>> {
        let provider = scan::open_table(&self.tables, table, None).await?;
        self.seen(name, table, provider, sight)
    }

    /// Rows of a published table as whoever reads them sees them.
    pub(crate) fn seen(
        &self,
        name: &str,
        table: &OpenTable,
        provider: Arc<dyn TableProvider>,
        sight: &Sight,
    ) -> Result<Arc<dyn TableProvider>> {
        let current = scan::current_schema(table)?;
        let context = sight.access.ways.iter().any(|way| way.rows.is_some()).then(|| self.context());
        let (context, key) = (context.as_ref(), self.mask_key.as_ref());
        let governor = Governor { context, key, table: name, current, measured: false };
        governor.govern(provider, sight)
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.options.storage
    }

    pub(crate) fn batch_size(&self) -> usize {
        self.options.batch_size
    }

    pub(crate) fn context(&self) -> SessionContext {
        let mut config = SessionConfig::new()
            .with_target_partitions(self.options.parallelism)
            .with_batch_size(self.options.batch_size)
            .with_create_default_catalog_and_schema(true)
            .with_information_schema(true);
        let options = config.options_mut();
        options.execution.time_zone = Some(times::UTC.into());
        options.execution.parquet.schema_force_view_types = false;
        options.sql_parser.map_string_types_to_utf8view = false;
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(self.runtime.clone())
            .with_default_features()
            .with_type_planner(Arc::new(times::Microseconds))
            .with_analyzer_rules(analyze::analyzer_rules())
            .build();
        let context = SessionContext::new_with_state(state);
        context.register_udaf(checked_sum());
        context
    }

    pub(crate) fn table_location(&self, product: &ProductKey, table: &str) -> String {
        let table = Name::new(table).map_or_else(|_| table.to_owned(), |name| name.sql());
        [&product.domain, &product.namespace(), &table]
            .into_iter()
            .fold(self.options.warehouse.clone(), |folder, name| join(&folder, name))
    }

    /// Starts a data file of an attempt.
    pub(crate) fn part_writer(&self, attempt: &AttemptId, url: &str, schema: &SchemaRef) -> Result<PartWriter> {
        PartWriter::create(&self.options.storage, &self.scratch(attempt), url, schema, Durability::Published)
    }

    fn scratch(&self, attempt: &AttemptId) -> PathBuf {
        self.options.scratch.join(attempt.as_str())
    }

    pub(crate) fn open(&self, pointer: Option<&TablePointer>) -> Result<Option<OpenTable>> {
        let parse = |pointer: &TablePointer| {
            OpenTable::parse(&self.options.storage, &pointer.metadata, &pointer.metadata_location)
        };
        pointer.map(parse).transpose()
    }

    /// A table is written where the warehouse is. One that lies elsewhere was published when the warehouse was another,
    /// and a table whose files are here and there would be lost with either.
    fn check_inside(&self, table: &Table, base: &OpenTable) -> Result<()> {
        let (location, warehouse) = (base.table_location(), &self.options.warehouse);
        if location.strip_prefix(warehouse.as_str()).is_some_and(|rest| rest.starts_with('/')) {
            return Ok(());
        }
        Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("table `{}` lies in `{location}`, outside the warehouse `{warehouse}`", table.name),
        )
        .with_help("set the warehouse to where the table was published, or publish under a new major version"))
    }

    /// Profiles an Iceberg table that this mesh did not publish, by its metadata document or its folder; `folder` is where
    /// a path begins.
    pub async fn examine_iceberg(&self, location: &str, folder: &Path) -> Result<TableProfile> {
        examine_rows(crate::source::iceberg_rows(&self.options.storage, location, folder, &self.context()).await?).await
    }

    /// Profiles a table of a database that no contract describes yet, and tells its columns with the contract types that
    /// hold them and what the database says of these.
    ///
    /// # Errors
    /// `source-unreadable` where a secret, the database or the table is not there.
    pub async fn examine_database(
        &self,
        bound: &BoundDatabase,
        progress: Arc<dyn Progress>,
    ) -> Result<(TableProfile, Vec<(Column, String)>)> {
        let mut redactor = Redactor::default();
        let examined = match Database::open(bound, None, self.secrets.as_ref(), &mut redactor) {
            Ok(database) => {
                let context = self.context().task_ctx();
                examine_database(database, self.options.batch_size, context, progress).await
            }
            Err(error) => Err(error),
        };
        examined.map_err(|error| redactor.redact_error(error))
    }

    /// Checks the SQL of a table's rules: conditions on rows, `completeIf`, `where`.
    pub fn check_conditions(&self, table: &Table) -> Vec<SqlProblem> {
        let fields: Vec<_> = table.columns.iter().map(datamesh_quality::arrow_types::arrow_field).collect();
        let schema = Schema::new(fields);
        let context = self.context();
        let (_, mut problems) = conditions::compile_all(&context, table, &schema);
        let metrics = table.metrics.iter().map(|rule| (format!("rule `{}`: `where`", rule.name), rule.filter.as_ref()));
        let failing = table.metrics.iter().filter_map(|rule| match &rule.metric {
            Metric::FailedRows { condition } => Some((format!("rule `{}`", rule.name), Some(condition))),
            _ => None,
        });
        let references = table
            .references
            .iter()
            .map(|reference| (format!("reference of `{}`: `where`", reference.path()), reference.filter.as_ref()));
        for (place, condition) in metrics.chain(failing).chain(references) {
            let Some(condition) = condition else { continue };
            if let Err(why) = Filter::compile(&context, condition, &schema, false) {
                problems.push(SqlProblem { place, text: condition.clone(), why });
            }
        }
        if let Some(condition) = &table.delete_when
            && let Err(why) = conditions::compile(&context, condition, &schema)
        {
            problems.push(SqlProblem { place: "condition `deleteWhen`".to_owned(), text: condition.clone(), why });
        }
        problems
    }

    /// Reads the keys of every reference whose table is published already.
    async fn load_references(&self, job: &StageJob, schema: &Schema) -> Result<Vec<ReferenceCheck>> {
        let context = self.context();
        let mut checks = Vec::new();
        for (index, reference) in job.table.references.iter().enumerate() {
            let Some(pinned) = job.pinned.iter().find(|pinned| pinned.reference == reference.to) else { continue };
            let Some(open) = self.open(Some(&pinned.pointer))? else { continue };
            let provider = self.open_seen(&reference.to.to_string(), &open, &pinned.sight).await?;
            let limit = self.key_memory();
            checks.push(ReferenceCheck::load(&context, index, reference, schema, provider, limit).await?);
        }
        Ok(checks)
    }

    /// Bytes that the keys of one reference may take.
    fn key_memory(&self) -> usize {
        self.options.memory / 2
    }

    async fn audit_plan(
        &self,
        job: &StageJob,
        draft: &TableDraft,
        files: Vec<String>,
        raw_fields: Arc<RawFields>,
    ) -> Result<AuditPlan> {
        let broken = |why: String| Error::new(ErrorCode::InvalidManifest, format!("table `{}`: {why}", job.table.name));
        let schema = draft.arrow_schema().clone();
        let context = self.context();
        let (conditions, problems) = conditions::compile_all(&context, &job.table, &schema);
        if let Some(problem) = problems.into_iter().next() {
            return Err(broken(format!("{}: {}", problem.place, problem.why)).with_help("see `datamesh check`"));
        }
        let quiet = job.table.has_protected_columns();
        let metrics = MetricPlan::compile(&job.table, |condition| {
            Ok(Arc::new(Filter::compile(&context, condition, &schema, quiet)?))
        });
        let filter = |reference: &Reference| {
            let Some(filter) = &reference.filter else { return Ok(None) };
            let compiled = Filter::compile(&context, filter, &schema, quiet);
            compiled.map(Some).map_err(|why| {
                let place = format!("reference of `{}`: `where`", reference.path());
                broken(format!("{place}: {why}")).with_help("see `datamesh check`")
            })
        };
        let reference_filters = job.table.references.iter().map(filter).collect::<Result<Vec<_>>>()?;
        let references = self.load_references(job, &schema).await?;
        let delete_when =
            job.table.delete_when.as_ref().map(|condition| conditions::compile(&context, condition, &schema));
        let delete_when = delete_when.transpose().map_err(|why| broken(format!("`deleteWhen`: {why}")))?;
        let keys = KeyRule::of(&job.table).iter().map(|rule| KeyReader::new(rule, &schema)).collect::<Result<_>>()?;
        let attempt = job.attempt.as_str();
        let metrics = metrics.map_err(|why| broken(why).with_help("see `datamesh check`"))?;
        let file_schema = match job.rehearsal.as_ref().and_then(|rehearsal| rehearsal.columns.clone()) {
            Some(mut columns) => {
                columns.extend(metrics.columns().into_iter().chain(metrics.named_columns()).map(str::to_owned));
                columns.extend(reference_filters.iter().flatten().flat_map(RowFilter::columns).cloned());
                narrow(&schema, &columns)
            }
            None => schema.clone(),
        };
        let whole_quarantine = job.rehearsal.as_ref().is_none_or(|rehearsal| rehearsal.whole_quarantine);
        let location = match &job.rehearsal {
            Some(rehearsal) => join(&datamesh_iceberg::local::to_url(&rehearsal.scratch), &job.table.name.sql()),
            None => draft.location().to_owned(),
        };
        Ok(AuditPlan {
            checks: compile_all(&value_constraints(&job.table)).map_err(broken)?,
            conditions,
            references,
            reference_filters,
            key_memory: self.key_memory(),
            metrics,
            delete_when,
            keys,
            partition_fields: draft.partition_fields(),
            storage: self.options.storage.clone(),
            data_folder: join(&join(&location, "data"), attempt),
            quarantine_folder: join(&join(&location, "quarantine"), attempt),
            scratch: match &job.rehearsal {
                Some(rehearsal) => rehearsal.scratch.join("work").join(job.table.name.sql()),
                None => self.scratch(&job.attempt).join(job.table.name.sql()),
            },
            quarantine_schema: quarantine::schema(if whole_quarantine { &schema } else { &file_schema }),
            whole_quarantine,
            file_schema,
            durability: if job.rehearsal.is_some() { Durability::Scratch } else { Durability::Published },
            source_schema: schema.clone(),
            schema,
            files,
            raw_fields,
            table: job.table.clone(),
            watermark: None,
            next_file: AtomicU32::new(0),
        })
    }

    /// One table's pass. The values of the secrets it needs go to `redactor`, for whoever shows its error.
    async fn stage_source(
        &self,
        job: StageJob,
        progress: Arc<dyn Progress>,
        redactor: &mut Redactor,
    ) -> Result<Arc<StagedTable>> {
        let location = self.table_location(&job.product, job.table.name.as_str());
        let base = self.open(job.base.as_ref())?;
        if let Some(base) = &base {
            self.check_inside(&job.table, base)?;
        }
        let draft = Arc::new(TableDraft::evolved(&job.table, &location, base, job.drops)?);
        let context = self.context();
        let secrets = self.secrets.as_ref();
        let source = OpenSource::open(&job, secrets, redactor, &self.options.storage, &context).await?;
        let mut facts = SourceFacts::new(job.table.name.as_str(), source.total, progress);
        if job.rehearsal.is_some() && job.base.is_none() {
            facts = facts.without_row_hashes();
        }
        let facts = Arc::new(facts);
        let mut audit = self.audit_plan(&job, &draft, source.names.clone(), facts.raw_fields().clone()).await?;
        if let Some(pull) = &job.pull {
            let (storage, schema) = (self.options.storage.clone(), draft.arrow_schema().clone());
            let files: Vec<String> = pull.held_back.iter().map(|file| file.path.clone()).collect();
            let held = tokio::task::spawn_blocking(move || held_rows(&storage, &schema, &files))
                .await
                .map_err(|error| Error::new(ErrorCode::Internal, "reading stopped").with_source(error))??;
            audit.watermark = Some(Arc::new(WatermarkPlan::new(&job.table, draft.arrow_schema(), pull, held)?));
        }
        audit.take_encoded(&source.encoded(audit.only_checked()).await?);
        let audit = Arc::new(audit);
        for folder in [&audit.data_folder, &audit.quarantine_folder] {
            self.options.storage.make_folder(folder)?;
        }
        let layout = Arc::new(TableLayout {
            table: job.table.clone(),
            schema: audit.source_schema.clone(),
            csv: source.csv.clone(),
            facts: facts.clone(),
            batch_size: self.options.batch_size,
        });
        let fail = |error| match &job.input {
            StageInput::Query(_) => {
                unwrap(ErrorCode::InvalidQuery, &format!("the transform of table `{}` failed", job.table.name), error)
            }
            _ => unwrap(ErrorCode::SourceUnreadable, "the source cannot be read", error),
        };
        let reader = match &job.input {
            StageInput::Query(query) => transform::source(self, query, layout).await?,
            _ => Ok(source.plan(layout, self.options.parallelism)),
        };
        let absent;
        let mut result = PartitionResult::default();
        match reader {
            Err(missing) => absent = missing.0,
            Ok(mut reader) => {
                if let Some(watermark) = &audit.watermark {
                    reader = Arc::new(WatermarkExec::new(reader, watermark.clone()));
                }
                let parallelism = self.options.parallelism;
                let pass = stage::pass(reader, &draft, &job.table, audit.clone(), parallelism).map_err(fail)?;
                match run(&pass, &self.context()).await {
                    Ok(()) => absent = facts.never_seen(&job.table),
                    Err(error) => absent = missing_required(&error).ok_or_else(|| fail(error))?,
                }
                if absent.is_empty() {
                    result = pass.take();
                }
            }
        }
        let (ignored_columns, missing_columns) = facts.columns();
        Ok(Arc::new(StagedTable {
            audit,
            draft,
            result,
            content: facts.content(),
            bytes_read: facts.bytes_read(),
            ignored_columns,
            missing_columns,
            missing_required: absent,
        }))
    }
}

/// The columns of `schema` that a rehearsal keeps: at least one, since a file without columns has no rows.
fn narrow(schema: &SchemaRef, columns: &BTreeSet<String>) -> SchemaRef {
    let kept = schema.fields().iter().enumerate().filter(|(_, field)| columns.contains(field.name()));
    let mut kept: Vec<usize> = kept.map(|(at, _)| at).collect();
    if kept.is_empty() && !schema.fields().is_empty() {
        kept.push(0);
    }
    Arc::new(Schema::new_with_metadata(
        kept.into_iter().map(|at| schema.fields()[at].clone()).collect::<Vec<_>>(),
        schema.metadata().clone(),
    ))
}

/// The missing required columns that stopped a pass, where that is what stopped it.
fn missing_required(error: &DataFusionError) -> Option<Vec<String>> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(missing) = error.downcast_ref::<MissingRequired>() {
            return Some(missing.0.clone());
        }
        if let Some(DataFusionError::External(inner)) = error.downcast_ref::<DataFusionError>()
            && let Some(missing) = inner.downcast_ref::<MissingRequired>()
        {
            return Some(missing.0.clone());
        }
        if let Some(DataFusionError::Shared(inner)) = error.downcast_ref::<DataFusionError>() {
            return missing_required(inner);
        }
        source = error.source();
    }
    None
}

#[async_trait]
impl Engine for DataEngine {
    type Staged = Arc<StagedTable>;
    type Settled = SettledTable;
    type Query = PlannedQuery;
    type Compacted = CompactedFiles;

    async fn own_places(&self, input: &StageInput) -> Result<Vec<String>> {
        let own = Own { warehouse: &self.options.warehouse, private: &self.options.private };
        own.places(&self.options.storage, self.secrets.as_ref(), input).await
    }

    async fn stage(&self, job: StageJob, progress: Arc<dyn Progress>) -> Result<Arc<StagedTable>> {
        let mut redactor = Redactor::default();
        let staged = self.stage_source(job, progress, &mut redactor).await;
        staged.map_err(|error| redactor.redact_error(error))
    }

    fn content(staged: &Arc<StagedTable>) -> Option<String> {
        staged.content.clone().filter(|_| staged.missing_required.is_empty())
    }

    fn rows_read(staged: &Arc<StagedTable>) -> u64 {
        staged.result.rows_in
    }

    fn held_before(staged: &Arc<StagedTable>) -> u64 {
        staged.audit.watermark.as_ref().map_or(0, |watermark| watermark.count_held_before())
    }

    async fn settle(
        &self,
        staged: &Arc<StagedTable>,
        base: Option<&TablePointer>,
        settled: &[SettledTable],
        carried: &[CarriedTable],
    ) -> Result<SettledTable> {
        let base = self.open(base)?;
        let files = match &base {
            Some(base) => base.live_files(None).await?,
            None => Vec::new(),
        };
        let location = |table: &Option<OpenTable>| table.as_ref().map(|table| table.metadata_location().to_owned());
        let before = staged.draft.base().cloned();
        let planned = match &before {
            Some(before) if location(&base) != Some(before.metadata_location().to_owned()) => {
                Some(before.live_files(None).await?)
            }
            None if base.is_some() => Some(Vec::new()),
            _ => None,
        };
        let late = self.late_references(staged, settled, carried).await?;
        let staged = staged.clone();
        let task = tokio::task::spawn_blocking(move || settle(&staged, base, files, planned.as_deref(), late));
        task.await.map_err(|error| Error::new(ErrorCode::Internal, "settling stopped").with_source(error))?
    }

    async fn measure(
        &self,
        settled: &mut [SettledTable],
        carried: &[CarriedTable],
        pinned: &[PinnedInput],
        now: DateTime<Utc>,
    ) -> Result<BTreeMap<String, Vec<MetricResult>>> {
        let context = self.context();
        let mut lost = Vec::new();
        for table in settled.iter() {
            let files = table.standing();
            lost.push(if files.is_empty() {
                Vec::new()
            } else {
                let rows = Arc::new(FilesTable::new(table.audit.file_schema.clone(), files));
                standing::references(&context, &table.audit.table, rows, settled, &self.tables, self.key_memory())
                    .await?
            });
        }
        let bound: Vec<(&CarriedTable, &Table, Vec<MetricRule>)> = carried
            .iter()
            .filter_map(|other| {
                let table = other.rules.as_ref()?;
                Some((other, table, standing::rules(&context, table, settled)))
            })
            .collect();
        let needed = settled.iter().any(|table| table.audit.metrics.deferred(&table.states).next().is_some())
            || bound.iter().any(|(_, _, rules)| !rules.is_empty());
        let mut others = HashMap::new();
        if needed {
            for table in settled.iter() {
                let candidate = FilesTable::new(table.audit.file_schema.clone(), table.candidate());
                candidate::register(&context, &table.audit.table.name.sql(), Arc::new(candidate))?;
            }
            for table in carried {
                if let Some(open) = self.open(Some(&table.pointer))? {
                    let name = Name::new(&table.table).map_or_else(|_| table.table.clone(), |name| name.sql());
                    candidate::register(&context, &name, scan::open_table(&self.tables, &open, None).await?)?;
                }
            }
            for other in pinned.iter().filter(|other| other.reference.product.is_some()) {
                if let Some(open) = self.open(Some(&other.pointer))? {
                    let seen = self.open_seen(&other.reference.to_string(), &open, &other.sight).await?;
                    others.insert(other.reference.clone(), seen);
                }
            }
        }
        let quiet = settled.iter().any(|table| table.audit.table.has_protected_columns())
            || carried.iter().any(|table| table.protected)
            || pinned.iter().any(|other| other.protected);
        let now = now.timestamp_micros();
        let candidates = Candidates { context: &context, others: &others, now, quiet };
        let mut stay: BTreeMap<String, Vec<MetricResult>> = BTreeMap::new();
        for (other, table, rules) in bound {
            let Some(open) = self.open(Some(&other.pointer))? else { continue };
            let rows = scan::open_table(&self.tables, &open, None).await?;
            let mut results = standing::measure(&candidates, table, rules, &rows.schema()).await?;
            results
                .extend(standing::references(&context, table, rows, settled, &self.tables, self.key_memory()).await?);
            stay.insert(other.table.clone(), results);
        }
        for (table, lost) in settled.iter_mut().zip(lost) {
            let audit = table.audit.clone();
            let measured = candidates.measure(&audit.table, &candidate::deferred(table)).await;
            table.report.metrics = audit.metrics.judge(&table.states, now, |name| measured.get(name).cloned());
            table.report.metrics.extend(counted_references(table));
            table.report.metrics.extend(lost);
            table.report.pinned = pinned_by(&audit.table, pinned);
        }
        Ok(stay)
    }

    fn report(settled: &SettledTable) -> &TableReport {
        &settled.report
    }

    fn quarantine(settled: &SettledTable) -> &[QuarantineFile] {
        &settled.quarantine
    }

    async fn prepare(
        &self,
        settled: &SettledTable,
        attempt: &AttemptId,
        now: DateTime<Utc>,
        snapshot_id: i64,
        between: &(dyn Fn() + Send + Sync),
    ) -> Result<PreparedTable> {
        let files = settled.new_files();
        let (storage, now) = (&self.options.storage, now.timestamp_millis());
        let (change, attempt) = (settled.change(), attempt.as_str());
        let commit = settled.draft.write(storage, change, &files, attempt, now, snapshot_id, between).await?;
        Ok(PreparedTable {
            metadata_location: commit.metadata_location,
            metadata: commit.metadata,
            snapshot_id: commit.snapshot_id,
            total_rows: commit.total_rows,
            files: commit.files,
        })
    }

    fn kept(settled: &SettledTable) -> Vec<String> {
        let data = settled.files.iter().map(|file| file.part.url.clone());
        let rewritten = settled.rewritten.iter().map(|file| file.url.clone());
        data.chain(rewritten).chain(settled.quarantine.iter().map(|file| file.path.clone())).collect()
    }

    fn check_carried(&self, table: &Table, pointer: &TablePointer) -> Result<()> {
        let Some(open) = self.open(Some(pointer))? else { return Ok(()) };
        let location = open.table_location().to_owned();
        TableDraft::new(table, &location, Some(open)).map(|_| ())
    }

    fn evolved(&self, job: &EvolutionJob<'_>) -> Result<Option<TablePointer>> {
        let Some(draft) = self.evolution_draft(job)? else { return Ok(None) };
        let Some(metadata) = draft.evolution()? else { return Ok(None) };
        // Caches know documents by their places: this one lies nowhere.
        let metadata_location = format!("{}#{}", job.pointer.metadata_location, job.table.name);
        Ok(Some(TablePointer { metadata, metadata_location, ..job.pointer.clone() }))
    }

    async fn prepare_evolution(&self, job: &EvolutionJob<'_>, attempt: &AttemptId) -> Result<PreparedTable> {
        let missing = || Error::new(ErrorCode::Internal, "a published table has no metadata");
        let draft = self.evolution_draft(job)?.ok_or_else(missing)?;
        let commit = draft.write_evolution(&self.options.storage, attempt.as_str()).await?;
        Ok(PreparedTable {
            metadata_location: commit.metadata_location,
            metadata: commit.metadata,
            snapshot_id: commit.snapshot_id,
            total_rows: commit.total_rows,
            files: commit.files,
        })
    }

    async fn check_restore(
        &self,
        table: &Table,
        then: Option<&Table>,
        pointer: &TablePointer,
        snapshot: i64,
    ) -> Result<()> {
        match self.open(Some(pointer))? {
            Some(open) => {
                let snapshot = open.kept(snapshot).unwrap_or(snapshot);
                crate::restore::check(table, then, open, snapshot).await
            }
            None => Ok(()),
        }
    }

    async fn restore(
        &self,
        job: RestoreJob<'_>,
        attempt: &AttemptId,
        now: DateTime<Utc>,
        snapshot_id: i64,
        between: &(dyn Fn() + Send + Sync),
    ) -> Result<PreparedTable> {
        let open = self.open(Some(job.pointer))?;
        if let Some(open) = &open {
            self.check_inside(job.table, open)?;
        }
        let location = open.as_ref().map(|open| open.table_location().to_owned()).unwrap_or_default();
        let wanted = job.snapshot.map(|id| open.as_ref().and_then(|open| open.kept(id)).unwrap_or(id));
        let draft = TableDraft::new(job.table, &location, open)?;
        let (attempt, now) = (attempt.as_str(), now.timestamp_millis());
        let commit = draft.restore(wanted, attempt, now, snapshot_id, between).await?.commit;
        Ok(PreparedTable {
            metadata_location: commit.metadata_location,
            metadata: commit.metadata,
            snapshot_id: commit.snapshot_id,
            total_rows: commit.total_rows,
            files: commit.files,
        })
    }

    async fn referenced(&self, pointer: &TablePointer) -> Result<HashSet<String>> {
        match self.open(Some(pointer))? {
            Some(table) => table.referenced_files().await,
            None => Ok(HashSet::new()),
        }
    }

    async fn plan_maintenance(&self, job: &MaintainJob, pointer: &TablePointer) -> Result<MaintenancePlan> {
        self.plan_maintenance_of(job, pointer).await
    }

    async fn compact(&self, job: &MaintainJob, pointer: &TablePointer) -> Result<Option<CompactedFiles>> {
        self.compact_files(job, pointer).await
    }

    async fn prepare_maintenance(
        &self,
        job: &MaintainJob,
        pointer: &TablePointer,
        compacted: Option<&CompactedFiles>,
        now: DateTime<Utc>,
        snapshot_id: i64,
        between: &(dyn Fn() + Send + Sync),
    ) -> Result<Option<PreparedMaintenance>> {
        self.prepare_maintenance_of(job, pointer, compacted, now, snapshot_id, between).await
    }

    async fn product_files(&self, product: &ProductKey, tables: &[String]) -> Result<Vec<ProductFile>> {
        self.files_of(product, tables).await
    }

    async fn delete_files(&self, urls: Vec<String>) -> Result<u64> {
        self.options.storage.delete(urls).await
    }

    async fn reclaim(&self, lease: &Lease, keep: &HashSet<String>) -> Result<u64> {
        let scratch = self.scratch(&lease.attempt);
        match std::fs::remove_dir_all(&scratch) {
            Ok(()) => {}
            // A stopped attempt's last writer may still be at it.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {}
            Err(error) => return Err(Error::io(ErrorCode::WriteFailed, "delete the folder", &scratch, error)),
        }
        let (storage, attempt) = (&self.options.storage, lease.attempt.as_str());
        let mut deleted = 0;
        let own = lease.tables.iter().map(|table| self.table_location(&lease.product, table));
        let locations: BTreeSet<String> = own.chain(lease.folders.iter().cloned()).collect();
        for location in locations {
            for kind in ["data", "quarantine"] {
                deleted += reclaim(storage, &join(&join(&location, kind), attempt), keep, "").await?;
            }
            deleted += reclaim(storage, &join(&location, "metadata"), keep, attempt).await?;
        }
        Ok(deleted)
    }

    fn transform_reads(&self, transform: &TransformSpec) -> Result<TransformReads> {
        transform::reads(&self.context(), transform)
    }

    async fn transform_lineage(&self, table: &Table, input: &TransformInput) -> Result<ColumnLineage> {
        transform::lineage(self, table, input).await
    }

    fn snapshot(&self, pointer: &TablePointer) -> Result<Option<i64>> {
        Ok(self.open(Some(pointer))?.and_then(|table| table.snapshot_id()))
    }

    fn travels(&self, request: &QueryRequest) -> Result<Vec<(String, String)>> {
        query::travels(&self.context(), request)
    }

    async fn plan_request(
        &self,
        request: &QueryRequest,
        catalog: &[CatalogProduct],
        history: &History,
        visible: &Visibility,
    ) -> Result<PlannedQuery> {
        let compiler = query::filters(visible).then(|| self.context());
        let mesh = query::Mesh {
            storage: &self.options.storage,
            cache: &self.tables,
            catalog,
            history,
            visible,
            compiler: compiler.as_ref(),
            key: self.mask_key.as_ref(),
        };
        query::plan(&self.context(), &mesh, request).await
    }

    fn names(&self, request: &QueryRequest, catalog: &[CatalogProduct], history: &History) -> Result<NamedTables> {
        query::names(&self.context(), request, catalog, history)
    }

    fn check_row_filter(
        &self,
        table: &Table,
        attributes: &BTreeMap<String, AttributeType>,
        condition: &str,
    ) -> Result<(), FilterProblem> {
        govern::check_row_filter(&self.context(), table, attributes, condition)
    }

    fn tables(query: &PlannedQuery) -> Vec<String> {
        query.tables.clone()
    }

    fn query_lineage(query: &PlannedQuery) -> Result<ColumnLineage> {
        query::lineage(query)
    }

    async fn examine(&self, source: BoundSource, told: bool, progress: Arc<dyn Progress>) -> Result<TableProfile> {
        examine_source(source, told, &self.options.storage, self.options.batch_size, progress).await
    }

    async fn examine_rows(&self, rows: Rows) -> Result<TableProfile> {
        examine_rows(rows).await
    }

    async fn run_query(&self, query: PlannedQuery) -> Result<Rows> {
        let fail = |error| unwrap(ErrorCode::InvalidQuery, "the query failed", error);
        let stream = query.frame.execute_stream().await.map_err(fail)?;
        Ok(Rows { schema: stream.schema(), batches: stream.map_err(fail).boxed() })
    }

    async fn read_quarantine(
        &self,
        contract: &DataProduct,
        table: &str,
        files: &[QuarantineFile],
        reveal: bool,
    ) -> Result<Rows> {
        let table = contract
            .table(table)
            .ok_or_else(|| Error::new(ErrorCode::NotFound, format!("`{}` has no table `{table}`", contract.id)))?
            .clone();
        let urls: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
        let storage = self.options.storage.clone();
        let mut batches = urls.into_iter().flat_map(move |url| match quarantine::read(&storage, &url) {
            Ok(batches) => {
                let table = table.clone();
                let shown = batches.map(move |batch| quarantine::present(&table, &batch?, reveal));
                Box::new(shown) as Box<dyn Iterator<Item = Result<RecordBatch>> + Send>
            }
            Err(error) => Box::new(std::iter::once(Err(error))),
        });
        let first = batches.next().transpose()?;
        let schema = first.as_ref().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
        Ok(Rows { schema, batches: futures::stream::iter(first.map(Ok).into_iter().chain(batches)).boxed() })
    }
}

impl DataEngine {
    /// A published table under a changed contract.
    fn evolution_draft(&self, job: &EvolutionJob<'_>) -> Result<Option<TableDraft>> {
        let Some(open) = self.open(Some(job.pointer))? else { return Ok(None) };
        self.check_inside(job.table, &open)?;
        let location = open.table_location().to_owned();
        TableDraft::evolved(job.table, &location, Some(open), job.drops).map(Some)
    }

    /// The references of a staged table to others of the same attempt, with what these have become.
    async fn late_references(
        &self,
        staged: &StagedTable,
        settled: &[SettledTable],
        carried: &[CarriedTable],
    ) -> Result<Vec<LateReference>> {
        let audit = &staged.audit;
        let mut late = Vec::new();
        for (index, reference) in audit.table.references.iter().enumerate() {
            if audit.references.iter().any(|check| check.index == index) {
                continue;
            }
            let to = &reference.to;
            let fresh = settled.iter().find(|other| to.is_own(&other.audit.table.name));
            let kept = carried.iter().find(|other| other.table == to.table.as_str() || other.table == to.table.sql());
            let there = match (fresh, kept) {
                _ if to.is_own(&audit.table.name) => None,
                (Some(other), _) => Some((other.audit.file_schema.clone(), other.candidate())),
                (None, Some(other)) => match self.open(Some(&other.pointer))? {
                    Some(open) => Some((open.arrow_schema()?, scan_files(&open).await?)),
                    None => Some((audit.schema.clone(), Vec::new())),
                },
                (None, None) => {
                    let message = format!("`{to}`, which `{}` refers to, was not read", reference.path());
                    return Err(Error::new(ErrorCode::Internal, message));
                }
            };
            let mode = audit.table.write;
            let holds_back = reference.quarantines() && matches!(mode, WriteMode::Append | WriteMode::Replace);
            late.push(LateReference { index, there, holds_back });
        }
        Ok(late)
    }
}

/// The data files of a table's current snapshot.
async fn scan_files(table: &OpenTable) -> Result<Vec<ScanFile>> {
    let file = |file: datamesh_iceberg::DataFile| ScanFile { url: file.url, bytes: file.bytes, rows: file.rows };
    Ok(table.data_files().await?.into_iter().map(file).collect())
}

/// The references that hold no row back, as results beside those of the metric rules.
fn counted_references(table: &SettledTable) -> Vec<MetricResult> {
    let audit = &table.audit;
    let in_place = !matches!(audit.table.write, WriteMode::Append | WriteMode::Replace);
    let late = |index: usize| audit.references.iter().all(|check| check.index != index);
    let references = audit.table.references.iter().zip(&table.unmatched).enumerate();
    let counted = references.filter(|(index, (reference, _))| !reference.quarantines() || in_place && late(*index));
    counted.map(|(_, (reference, found))| standing::counted(reference, RULE_REFERENCES, found.clone())).collect()
}

/// The pinned tables that the rules of `table` read.
fn pinned_by(table: &Table, pinned: &[PinnedInput]) -> Vec<PinnedTable> {
    let reads = |wanted: &PinnedInput| {
        table.references.iter().any(|reference| reference.to == wanted.reference)
            || table.metrics.iter().filter_map(|rule| rule.compare_to.as_ref()).any(|to| to.table == wanted.reference)
    };
    let used = pinned.iter().filter(|pinned| reads(pinned)).map(|pinned| PinnedTable {
        table: pinned.reference.clone(),
        version: Some(pinned.version.clone()),
        publication: Some(pinned.pointer.publication),
        metadata_location: Some(pinned.pointer.metadata_location.clone()),
    });
    used.collect()
}

/// Runs every partition of a pass side by side. The first error stops the others.
async fn run(pass: &Arc<stage::AuditExec>, context: &SessionContext) -> Result<(), DataFusionError> {
    let mut tasks = tokio::task::JoinSet::new();
    for partition in 0..pass.properties().partitioning.partition_count() {
        let mut stream = pass.execute(partition, context.task_ctx())?;
        tasks.spawn(async move {
            while stream.try_next().await?.is_some() {}
            Ok::<(), DataFusionError>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        match done {
            Ok(Ok(())) => {}
            failed => {
                // The others must have stopped writing before anybody cleans up behind them.
                tasks.shutdown().await;
                return match failed {
                    Ok(result) => result,
                    Err(error) => Err(DataFusionError::External(Box::new(error))),
                };
            }
        }
    }
    Ok(())
}

/// Deletes the files of a folder whose names hold `mark` and which are not kept; then the folder, where it is empty.
async fn reclaim(storage: &Storage, folder: &str, keep: &HashSet<String>, mark: &str) -> Result<u64> {
    let name = |url: &str| url.rsplit('/').next().is_some_and(|name| name.contains(mark));
    let files = storage.list(folder).await?;
    let count = files.len();
    let urls = files.into_iter().map(|file| file.url);
    let gone: Vec<String> = urls.filter(|url| name(url) && !keep.contains(url)).collect();
    let empty = gone.len() == count;
    let deleted = storage.delete(gone).await?;
    if empty {
        storage.remove_folder(folder);
    }
    Ok(deleted)
}
