//! Ports that carry data.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datamesh_core::access::{AttributeType, TableAccess};
use datamesh_core::contract::{DataProduct, DatabaseSource, FileSource, IcebergSource, Table};
use datamesh_core::decision::Principal;
use datamesh_core::history::{AsOf, History};
use datamesh_core::ids::{AttemptId, ProductKey};
use datamesh_core::lineage::ColumnLineage;
use datamesh_core::ports::{CatalogProduct, Lease, QuarantineFile, Registry, StepObserver, TablePointer};
use datamesh_core::profile::TableProfile;
use datamesh_core::reference::TableReference;
use datamesh_core::transform::{InputPin, TableRead, TransformRun, TransformSpec};
use datamesh_core::verdict::{MetricResult, TableReport};
use datamesh_core::{Error, ErrorCode, Result};
use futures::stream::BoxStream;
use uuid::Uuid;

use crate::govern::{DecidedRead, RulesCache};

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Now, UTC.
    fn now(&self) -> DateTime<Utc>;
}

/// Makes unique identifiers.
pub trait Ids: Send + Sync {
    /// A fresh UUID v7.
    fn attempt(&self) -> Uuid;
    /// A fresh positive snapshot id.
    fn snapshot(&self) -> i64;
}

/// Hears how far a long operation is.
pub trait Progress: StepObserver {
    /// `bytes` more were read for `table`, of a total where it is known.
    fn read(&self, table: &str, bytes: u64, total: Option<u64>);
}

/// Who acts, when, and on which registry.
#[derive(Clone)]
pub struct Context {
    /// The mesh's registry.
    pub registry: Arc<dyn Registry>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Identifiers.
    pub ids: Arc<dyn Ids>,
    /// Who acts.
    pub principal: Principal,
    /// Whether who acts owns the mesh that the program is embedded in: whoever can open its folder does.
    pub owns_mesh: bool,
    /// Who acts in the principal's name, where that is somebody else.
    pub impersonated_by: Option<String>,
    /// What for.
    pub purpose: Option<String>,
    /// The door the request came through, such as `command-line`.
    pub door: String,
    /// The applied policies, as they were last read.
    pub rules: Arc<RulesCache>,
}

/// Files with the folder that their relative path starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundSource {
    /// How to read.
    pub spec: FileSource,
    /// What to read: files, folders, globs, or `-` alone for standard input. Secrets are references still.
    pub paths: Vec<String>,
    /// Where a relative path starts.
    pub folder: PathBuf,
    /// Whether this is the manifest's source, of which a watermark tells what is new.
    pub pulled: bool,
}

/// A database with the folder that a relative path to it starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundDatabase {
    /// What to read. Secrets are references still.
    pub spec: DatabaseSource,
    /// Where a relative path starts.
    pub folder: PathBuf,
}

/// An Iceberg table with the folder that a relative path to it starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundIceberg {
    /// What to read. Secrets are references still.
    pub spec: IcebergSource,
    /// Where a relative path starts.
    pub folder: PathBuf,
}

/// Batches that somebody in this process hands over. They are read once, on a thread that may block.
#[derive(Clone)]
pub struct ArrowInput {
    /// What they are called: in lineage, and as the source of quarantined rows.
    pub name: String,
    schema: SchemaRef,
    reader: Arc<Mutex<Option<Box<dyn RecordBatchReader + Send>>>>,
}

impl ArrowInput {
    /// Batches that `reader` yields.
    pub fn new(name: impl Into<String>, reader: Box<dyn RecordBatchReader + Send>) -> Self {
        Self { name: name.into(), schema: reader.schema(), reader: Arc::new(Mutex::new(Some(reader))) }
    }

    /// The schema of every batch.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The batches.
    ///
    /// # Errors
    /// `invalid-argument` where they were taken before.
    pub fn take(&self) -> Result<Box<dyn RecordBatchReader + Send>> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or_else(|| {
            Error::new(ErrorCode::InvalidArgument, format!("the stream of `{}` was read before", self.name))
                .with_help("a stream is read once: hand over a new one, or a table")
        })
    }
}

impl PartialEq for ArrowInput {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.reader, &other.reader)
    }
}

impl fmt::Debug for ArrowInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArrowInput").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A table of an input, pinned to what one registry read saw.
#[derive(Clone, Debug, PartialEq)]
pub struct PinnedTable {
    /// What is recorded of it.
    pub pin: InputPin,
    /// Its pointer.
    pub pointer: TablePointer,
    /// What whoever runs the transform sees of it.
    pub sight: Sight,
}

/// A query over pinned tables of other products.
#[derive(Clone, Debug, PartialEq)]
pub struct TransformInput {
    /// The query.
    pub transform: TransformSpec,
    /// What is recorded of this run.
    pub run: TransformRun,
    /// The tables it reads.
    pub tables: Vec<PinnedTable>,
    /// The metadata document of the table that is made, when the inputs were pinned; `None`: it was not published.
    pub base: Option<String>,
    /// Whether the rows take the place of all that the table holds, however it is written otherwise.
    pub full_refresh: bool,
    /// What `now()` answers.
    pub now: DateTime<Utc>,
    /// The decision on reading its tables; `None`: it was not asked for yet.
    pub decided: Option<DecidedRead>,
}

/// What a transform's text says that it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransformReads {
    /// The tables, each once.
    pub tables: Vec<TableRead>,
    /// Identity of the text.
    pub hash: String,
}

/// Where the rows of one table's pass come from.
#[derive(Clone, Debug, PartialEq)]
pub enum StageInput {
    /// Files outside the mesh.
    Source(BoundSource),
    /// A table or query of a database.
    Database(BoundDatabase),
    /// An Iceberg table outside the mesh.
    Iceberg(BoundIceberg),
    /// Batches of whoever embeds the mesh.
    Arrow(ArrowInput),
    /// Rows that were held back before.
    Quarantine(QuarantineInput),
    /// Other products of the mesh.
    Query(Box<TransformInput>),
}

impl StageInput {
    /// Whether a watermark tells which of its rows are new. Data named by hand is read whole.
    pub fn is_pulled(&self) -> bool {
        match self {
            Self::Source(source) => source.pulled,
            Self::Database(_) | Self::Iceberg(_) => true,
            Self::Arrow(_) | Self::Quarantine(_) | Self::Query(_) => false,
        }
    }
}

/// Quarantine files to read, each with the publication that held its rows back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuarantineInput {
    /// The files.
    pub files: Vec<(u64, QuarantineFile)>,
}

/// An incremental pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pull {
    /// The watermark column.
    pub column: String,
    /// Only greater values are read; `None`: everything is.
    pub after: Option<String>,
    /// Whether nothing was pulled before, or all of it is pulled again: rows without a value are read only then.
    pub first: bool,
    /// What earlier pulls held back and may meet again.
    pub held_back: Vec<QuarantineFile>,
}

impl Pull {
    /// Whether it goes on from an earlier pull.
    pub fn goes_on(&self) -> bool {
        self.after.is_some() || !self.first
    }
}

/// One table's pass: what to read, audit and stage.
#[derive(Clone, Debug)]
pub struct StageJob {
    /// The product.
    pub product: ProductKey,
    /// The table's contract.
    pub table: Table,
    /// Its data.
    pub input: StageInput,
    /// Where the table has a watermark and the data is pulled: how far the last pull came.
    pub pull: Option<Pull>,
    /// The published table, where there is one.
    pub base: Option<TablePointer>,
    /// Whether columns that the contract no longer has may go from the published table.
    pub drops: bool,
    /// Published tables that its references and comparisons read, as they are now.
    pub pinned: Vec<PinnedInput>,
    /// The attempt.
    pub attempt: AttemptId,
    /// Where nothing shall be published: where staged files go instead of the table's folder, and what they hold.
    pub rehearsal: Option<Rehearsal>,
}

/// How a pass is staged that is judged and then forgotten.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    /// Local folder of the staged files, the caller's to remove.
    pub scratch: PathBuf,
    /// The columns that are read once the rows are staged; `None`: all of them.
    pub columns: Option<BTreeSet<String>>,
    /// Whether rows that are held back keep all columns.
    pub whole_quarantine: bool,
}

/// A published table that its contract changes.
#[derive(Clone, Copy, Debug)]
pub struct EvolutionJob<'a> {
    /// The table's new contract.
    pub table: &'a Table,
    /// Where it is now.
    pub pointer: &'a TablePointer,
    /// Whether columns that the contract no longer has may go.
    pub drops: bool,
}

/// A metadata document that waits for its pointer.
#[derive(Clone, Debug)]
pub struct PreparedTable {
    /// Where it is.
    pub metadata_location: String,
    /// The document.
    pub metadata: String,
    /// The snapshot it adds.
    pub snapshot_id: i64,
    /// Rows in that snapshot.
    pub total_rows: u64,
    /// Every file that was written for it.
    pub files: Vec<String>,
}

/// What maintenance is to do to one table.
#[derive(Clone, Debug)]
pub struct MaintainJob {
    /// The product.
    pub product: ProductKey,
    /// The table's contract.
    pub table: Table,
    /// The attempt, which the names of new files carry.
    pub attempt: AttemptId,
    /// Bytes that a merged data file should have; `None`: files are not merged.
    pub target_bytes: Option<u64>,
    /// Snapshots that others took the place of before this expire; `None`: none do.
    pub expire_before: Option<DateTime<Utc>>,
    /// Snapshots where the next increments of other products begin: neither they nor younger ones expire.
    pub pinned: Vec<i64>,
}

/// What maintenance would change of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MaintenancePlan {
    /// Data files that would be merged.
    pub compacted_files: usize,
    /// Snapshots that would expire.
    pub expired_snapshots: usize,
}

impl MaintenancePlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A metadata document of the same rows, waiting for its pointer.
#[derive(Clone, Debug)]
pub struct PreparedMaintenance {
    /// Where it is.
    pub metadata_location: String,
    /// The document.
    pub metadata: String,
    /// Every file that was written for it, data files included.
    pub files: Vec<String>,
    /// Files that the document before it references and it does not.
    pub unreferenced: Vec<String>,
    /// Data files that were merged.
    pub compacted_files: usize,
    /// Data files that they became.
    pub into_files: usize,
    /// Snapshots that it no longer has.
    pub expired_snapshots: usize,
}

/// A file in a product's folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductFile {
    /// URL.
    pub url: String,
    /// When it was last written.
    pub modified: DateTime<Utc>,
}

/// A table of a product as SQL rules see it beside the candidates: published, unchanged by this attempt.
#[derive(Clone, Debug)]
pub struct CarriedTable {
    /// Its name.
    pub table: String,
    /// Its pointer.
    pub pointer: TablePointer,
    /// Whether it has columns that must not be shown in clear.
    pub protected: bool,
    /// Its contract, where what its rules say of tables that this attempt changes is to be judged.
    pub rules: Option<Table>,
}

/// A published table that goes back to an earlier snapshot.
#[derive(Clone, Copy, Debug)]
pub struct RestoreJob<'a> {
    /// The table's contract.
    pub table: &'a Table,
    /// Where it is now.
    pub pointer: &'a TablePointer,
    /// The snapshot; `None` leaves the table without rows.
    pub snapshot: Option<i64>,
}

/// A table outside the mesh that a query may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenTable {
    /// Its name in the query.
    pub name: String,
    /// URL of its Iceberg metadata document.
    pub location: String,
}

/// A query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryRequest {
    /// The statement.
    pub sql: String,
    /// The moment that every table is read as of, unless the statement says another; `None`: now.
    pub as_of: Option<AsOf>,
    /// Tables beside those of the mesh.
    pub tables: Vec<GivenTable>,
}

/// A table of a product: the product and the table's normalised name.
pub type TableKey = (ProductKey, String);

/// What its reader sees of a published table.
#[derive(Clone, Debug, PartialEq)]
pub struct Sight {
    /// What was decided.
    pub access: TableAccess,
    /// The table's contract, of which the decision's names and types are; `None` only where everything is seen.
    pub contract: Option<Table>,
}

impl Sight {
    /// What was decided of a table with this contract.
    pub fn new(access: TableAccess, contract: Table) -> Self {
        Self { access, contract: Some(contract) }
    }

    /// Everything in clear.
    pub fn plain() -> Self {
        Self { access: TableAccess::plain(), contract: None }
    }
}

/// What a query names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedTables {
    /// The tables of products.
    pub tables: BTreeSet<TableKey>,
    /// Those that are read as they were, with the moments in words: `publication 3`.
    pub moments: BTreeMap<TableKey, String>,
    /// Whether it asks which tables and columns there are, so that it is planned over all that may be seen.
    pub lists: bool,
}

/// What whoever asks sees of the mesh. Decided before anything is planned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Visibility {
    /// What is seen of each table. For a query there are no others.
    pub tables: BTreeMap<TableKey, TableAccess>,
    /// The tables that errors may name.
    pub known: BTreeSet<TableKey>,
}

impl Visibility {
    /// Everything in clear.
    pub fn plain(catalog: &[CatalogProduct]) -> Self {
        let tables = catalog.iter().flat_map(|product| {
            let name = |pointer: &TablePointer| pointer.table.to_ascii_lowercase().replace('-', "_");
            product.tables.iter().map(move |pointer| (product.key.clone(), name(pointer)))
        });
        let known: BTreeSet<TableKey> = tables.collect();
        Self { tables: known.iter().map(|table| (table.clone(), TableAccess::plain())).collect(), known }
    }
}

/// What is wrong with a row filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterProblem {
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: Option<String>,
    /// Line and column within its text, both from 1, where they are known.
    pub place: Option<(usize, usize)>,
}

/// A published table that rules of another table read, in the state that one registry read saw.
#[derive(Clone, Debug)]
pub struct PinnedInput {
    /// As the contract names it.
    pub reference: TableReference,
    /// Version of its product's contract.
    pub version: String,
    /// Its pointer.
    pub pointer: TablePointer,
    /// Whether it has columns that must not be shown in clear.
    pub protected: bool,
    /// What the product that reads it sees of it.
    pub sight: Sight,
    /// The decision on reading it; `None`: it is the product's own.
    pub decided: Option<DecidedRead>,
}

/// Batches with their schema.
pub struct Rows {
    /// The schema of every batch.
    pub schema: SchemaRef,
    /// The batches.
    pub batches: BoxStream<'static, Result<RecordBatch>>,
}

/// Reads, audits, stages and queries data. The one implementation is on DataFusion.
#[async_trait]
pub trait Engine: Send + Sync {
    /// One table's staged pass. Stays valid while candidates are settled anew.
    type Staged: Send + Sync;
    /// A staged table judged against one base.
    type Settled: Send + Sync;
    /// A planned query.
    type Query: Send + Sync;
    /// Merged data files that wait for their commit.
    type Compacted: Send + Sync;

    /// The places of the mesh's own that an input reads, published files and the registry among them; empty: none.
    ///
    /// # Errors
    /// Secrets and files that are not there.
    async fn own_places(&self, input: &StageInput) -> Result<Vec<String>>;

    /// Reads the source once: good rows to staged files, bad rows to quarantine files, keys and metrics to states.
    async fn stage(&self, job: StageJob, progress: Arc<dyn Progress>) -> Result<Self::Staged>;

    /// The content identity of a staged table; `None` where its pass was not whole, or where a rehearsal has nothing to
    /// compare it with.
    fn content(staged: &Self::Staged) -> Option<String>;

    /// Rows that a staged table's pass read.
    fn rows_read(staged: &Self::Staged) -> u64;

    /// Rows that a pull left out because an earlier one held them back.
    fn held_before(staged: &Self::Staged) -> u64;

    /// Takes doubled keys out, within the staged rows and against `base`, and rows that refer to what the tables of the
    /// attempt do not have; counts the metrics of the candidate. A table that others refer to is settled before them:
    /// `settled` are those so far, `carried` the ones that stay as they are.
    async fn settle(
        &self,
        staged: &Self::Staged,
        base: Option<&TablePointer>,
        settled: &[Self::Settled],
        carried: &[CarriedTable],
    ) -> Result<Self::Settled>;

    /// Measures the rules that need the candidate tables themselves, or tables beside them, and judges every metric
    /// rule. `now` is what freshness is measured against. Rows that are published already and stay must find in the
    /// candidates what they refer to. Returns what the `rules` of carried tables say of the candidates, by table.
    async fn measure(
        &self,
        settled: &mut [Self::Settled],
        carried: &[CarriedTable],
        pinned: &[PinnedInput],
        now: DateTime<Utc>,
    ) -> Result<BTreeMap<String, Vec<MetricResult>>>;

    /// The facts about a settled table.
    fn report(settled: &Self::Settled) -> &TableReport;

    /// The quarantine files of a settled table.
    fn quarantine(settled: &Self::Settled) -> &[QuarantineFile];

    /// Writes the metadata of a settled table's commit. `between` is called between manifests and document.
    async fn prepare(
        &self,
        settled: &Self::Settled,
        attempt: &AttemptId,
        now: DateTime<Utc>,
        snapshot_id: i64,
        between: &(dyn Fn() + Send + Sync),
    ) -> Result<PreparedTable>;

    /// Every staged and prepared file that a commit of these tables references, quarantine files included.
    fn kept(settled: &Self::Settled) -> Vec<String>;

    /// Checks that a published table still fits its contract, where a publication leaves it as it is.
    ///
    /// # Errors
    /// `incompatible-change` where it does not.
    fn check_carried(&self, table: &Table, pointer: &TablePointer) -> Result<()>;

    /// The published table as it would be under a changed contract, read from memory: no file is written. `None`: its
    /// schema, partition fields and sort order stay as they are.
    ///
    /// # Errors
    /// `incompatible-change` where a published table cannot become that.
    fn evolved(&self, job: &EvolutionJob<'_>) -> Result<Option<TablePointer>>;

    /// Writes the metadata of a published table under a changed contract; it has the rows and snapshots that it had.
    async fn prepare_evolution(&self, job: &EvolutionJob<'_>, attempt: &AttemptId) -> Result<PreparedTable>;

    /// Checks that an earlier snapshot's rows have the shape that the contract asks for now. `then` is the table's
    /// contract at that time.
    ///
    /// # Errors
    /// `incompatible-change` where a required column would be null, `not-found` where the snapshot has expired.
    async fn check_restore(
        &self,
        table: &Table,
        then: Option<&Table>,
        pointer: &TablePointer,
        snapshot: i64,
    ) -> Result<()>;

    /// Writes the metadata of a commit that brings back an earlier snapshot's files, or leaves the table without any.
    async fn restore(
        &self,
        job: RestoreJob<'_>,
        attempt: &AttemptId,
        now: DateTime<Utc>,
        snapshot_id: i64,
        between: &(dyn Fn() + Send + Sync),
    ) -> Result<PreparedTable>;

    /// Every file that any snapshot of a published table references.
    async fn referenced(&self, pointer: &TablePointer) -> Result<HashSet<String>>;

    /// Deletes the attempt's files below the lease's tables, but those in `keep`; returns how many were deleted.
    async fn reclaim(&self, lease: &Lease, keep: &HashSet<String>) -> Result<u64>;

    /// What maintenance would do to a table.
    async fn plan_maintenance(&self, job: &MaintainJob, pointer: &TablePointer) -> Result<MaintenancePlan>;

    /// Merges small data files of each partition into larger ones, in the table's sort order. `None`: there is nothing to
    /// gain.
    async fn compact(&self, job: &MaintainJob, pointer: &TablePointer) -> Result<Option<Self::Compacted>>;

    /// Writes the metadata of a table with merged files in place of the small ones, and without expired snapshots. `None`:
    /// nothing would change. `between` is called between manifests and document.
    ///
    /// # Errors
    /// `conflict` where somebody else removed one of the merged files.
    async fn prepare_maintenance(
        &self,
        job: &MaintainJob,
        pointer: &TablePointer,
        compacted: Option<&Self::Compacted>,
        now: DateTime<Utc>,
        snapshot_id: i64,
        between: &(dyn Fn() + Send + Sync),
    ) -> Result<Option<PreparedMaintenance>>;

    /// Every file in the folders of a product's tables.
    async fn product_files(&self, product: &ProductKey, tables: &[String]) -> Result<Vec<ProductFile>>;

    /// Deletes files of the warehouse; returns how many there were.
    async fn delete_files(&self, urls: Vec<String>) -> Result<u64>;

    /// The tables that a transform's text names.
    ///
    /// # Errors
    /// `invalid-query` where the text is not one SELECT.
    fn transform_reads(&self, transform: &TransformSpec) -> Result<TransformReads>;

    /// Where the columns of a table that a transform makes come from.
    ///
    /// # Errors
    /// `invalid-query` where the transform cannot be planned.
    async fn transform_lineage(&self, table: &Table, input: &TransformInput) -> Result<ColumnLineage>;

    /// The current snapshot of a published table.
    fn snapshot(&self, pointer: &TablePointer) -> Result<Option<i64>>;

    /// The products, `(domain, product)`, whose history a query needs: those it reads as of another moment than now.
    ///
    /// # Errors
    /// `invalid-query`.
    fn travels(&self, request: &QueryRequest) -> Result<Vec<(String, String)>>;

    /// The tables of the mesh that a query names, so that they can be decided on before it is planned. What the catalog does
    /// not have is left out.
    ///
    /// # Errors
    /// `invalid-query`.
    fn names(&self, request: &QueryRequest, catalog: &[CatalogProduct], history: &History) -> Result<NamedTables>;

    /// Plans a query over the catalog: all its tables are pinned here, and show what `visible` says. `history` is that of the
    /// products that [`Self::travels`] names.
    ///
    /// # Errors
    /// `denied` where a table is read of which nothing is seen.
    async fn plan_request(
        &self,
        request: &QueryRequest,
        catalog: &[CatalogProduct],
        history: &History,
        visible: &Visibility,
    ) -> Result<Self::Query>;

    /// Plans a query of what is published now.
    async fn plan_query(&self, sql: &str, catalog: &[CatalogProduct], visible: &Visibility) -> Result<Self::Query> {
        let request = QueryRequest { sql: sql.to_owned(), ..QueryRequest::default() };
        self.plan_request(&request, catalog, &History::default(), visible).await
    }

    /// Checks a row filter against a table's contract and the attributes that principals have.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    fn check_row_filter(
        &self,
        table: &Table,
        attributes: &BTreeMap<String, AttributeType>,
        condition: &str,
    ) -> Result<(), FilterProblem>;

    /// The published tables a query reads, as `domain.product_v1.table`.
    fn tables(query: &Self::Query) -> Vec<String>;

    /// Where each column of a planned query's result comes from.
    fn query_lineage(query: &Self::Query) -> Result<ColumnLineage>;

    /// Looks at a source without a contract, in one pass. `told`: how its text is written is known; else it is detected.
    async fn examine(&self, source: BoundSource, told: bool, progress: Arc<dyn Progress>) -> Result<TableProfile>;

    /// Looks at the rows of a query.
    async fn examine_rows(&self, rows: Rows) -> Result<TableProfile>;

    /// Runs a planned query.
    async fn run_query(&self, query: Self::Query) -> Result<Rows>;

    /// The rows of quarantine files, with every reason; protected values masked unless `reveal`.
    async fn read_quarantine(
        &self,
        contract: &DataProduct,
        table: &str,
        files: &[QuarantineFile],
        reveal: bool,
    ) -> Result<Rows>;
}
