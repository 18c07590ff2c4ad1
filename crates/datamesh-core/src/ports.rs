//! Ports without data: what the use cases need of a registry.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::access::{Governance, Grant};
use crate::access_request::{AccessCommand, AccessOutcome, AccessRequest, GrantFilter, Membership, RequestFilter};
use crate::audit::{AuditEntry, AuditQuery, AuditVerification, Checkpoint, ReadRecord, Verifier};
use crate::contract::{DataProduct, WriteMode};
use crate::decision::DecisionRecord;
use crate::domain::Domain;
use crate::error::Result;
use crate::history::History;
use crate::identity::MeshIdentity;
use crate::ids::{AttemptId, ProductKey};
use crate::lineage::{ColumnLineage, Edge, TableLineage};
use crate::outbox::Outbox;
use crate::transform::TransformRun;
use crate::watermark::Watermark;

/// The steps of a publish, in order. Each is a place where a crash must do no harm: the crash tests walk
/// [`PublishStep::ALL`], so a new step gets its test by being listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PublishStep {
    /// The plan is made.
    Planned,
    /// The decision is recorded.
    Authorized,
    /// The staging prefix is leased.
    Leased,
    /// One table's pass has ended; its files are staged.
    Staged,
    /// Doubled keys are out of one table's staged files.
    Settled,
    /// The verdict is known.
    Judged,
    /// One table's manifests are written.
    ManifestsWritten,
    /// One table's metadata document is written and synced.
    MetadataWritten,
    /// The transaction is open and everything is written in it.
    TransactionWritten,
    /// The transaction is committed.
    Committed,
    /// Leftover staged files are deleted and the lease is closed.
    Cleaned,
}

impl PublishStep {
    /// Every step, in order.
    pub const ALL: [Self; 11] = [
        Self::Planned,
        Self::Authorized,
        Self::Leased,
        Self::Staged,
        Self::Settled,
        Self::Judged,
        Self::ManifestsWritten,
        Self::MetadataWritten,
        Self::TransactionWritten,
        Self::Committed,
        Self::Cleaned,
    ];

    /// The step's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Authorized => "authorized",
            Self::Leased => "leased",
            Self::Staged => "staged",
            Self::Settled => "settled",
            Self::Judged => "judged",
            Self::ManifestsWritten => "manifests-written",
            Self::MetadataWritten => "metadata-written",
            Self::TransactionWritten => "transaction-written",
            Self::Committed => "committed",
            Self::Cleaned => "cleaned",
        }
    }
}

impl fmt::Display for PublishStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Told of each step as it is reached; progress displays and crash tests listen.
pub trait StepObserver: Send + Sync {
    /// `step` is reached.
    fn reached(&self, step: PublishStep);
}

/// A published table's pointer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TablePointer {
    /// The table's normalised name.
    pub table: String,
    /// Where the current metadata document is.
    pub metadata_location: String,
    /// The document itself.
    #[serde(skip)]
    pub metadata: String,
    /// Content of the publication that last wrote it.
    pub content: String,
    /// Sequence number of that publication.
    pub publication: u64,
    /// Rows in the current snapshot.
    pub rows: u64,
    /// Number of the outbox's entry that told of it last: of two places of one pointer the greater is the newer.
    pub sequence: u64,
}

impl TablePointer {
    /// URL of the table's folder. A product that moved has its files where they were.
    pub fn folder(&self) -> Option<&str> {
        self.metadata_location.rsplit_once("/metadata/").map(|(folder, _)| folder)
    }
}

/// A contract revision as the registry keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// Number within the major version, from 1.
    pub number: u64,
    /// The contract.
    pub contract: DataProduct,
    /// When it was registered.
    pub created_at: DateTime<Utc>,
    /// Who registered it.
    pub created_by: String,
}

/// What the registry knows of one major version of a product, read at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProductState {
    /// The newest revision, if any.
    pub revision: Option<Revision>,
    /// The published tables.
    pub tables: Vec<TablePointer>,
    /// How far the pulls of each table have come, by normalised name.
    pub watermarks: BTreeMap<String, Watermark>,
}

impl ProductState {
    /// The pointer of a table.
    pub fn table(&self, name: &str) -> Option<&TablePointer> {
        self.tables.iter().find(|pointer| pointer.table == name)
    }
}

/// A promise that an attempt still writes below its prefixes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// The attempt.
    pub attempt: AttemptId,
    /// The product it publishes.
    pub product: ProductKey,
    /// The normalised names of the tables whose folders may hold files of the attempt.
    pub tables: Vec<String>,
    /// URLs of their folders, where they are published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub folders: Vec<String>,
    /// Until when nobody may touch the files.
    pub expires_at: DateTime<Utc>,
}

/// One table's part of a commit.
#[derive(Clone, Debug)]
pub struct TableCommit {
    /// The table.
    pub table: String,
    /// How it was written.
    pub write: WriteMode,
    /// The pointer that must still be current; `None`: the table must not exist.
    pub expected: Option<String>,
    /// Where the new metadata document is.
    pub metadata_location: String,
    /// The document, whole.
    pub metadata: String,
    /// The new snapshot.
    pub snapshot_id: i64,
    /// Content identity.
    pub content: String,
    /// Rows read.
    pub rows_in: u64,
    /// Rows added by this publication.
    pub published: u64,
    /// Rows held back.
    pub quarantined: u64,
    /// Rows in the new snapshot.
    pub total_rows: u64,
    /// How far this pull came; `None` leaves what is kept as it is.
    pub watermark: Option<Watermark>,
}

/// What maintenance changes of one table: its files and snapshots, and not a row.
#[derive(Clone, Debug)]
pub struct MaintenanceCommit {
    /// The attempt; its lease must still be open.
    pub attempt: AttemptId,
    /// The product's major version.
    pub product: ProductKey,
    /// The table.
    pub table: String,
    /// The pointer that must still be current.
    pub expected: String,
    /// Where the new metadata document is.
    pub metadata_location: String,
    /// The document, whole.
    pub metadata: String,
    /// When.
    pub at: DateTime<Utc>,
    /// Files that the old document references and the new one does not. They are deleted later: somebody may be reading.
    pub unreferenced: Vec<String>,
}

/// A file that no table references any more, and that is to be deleted once nobody can be reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreferencedFile {
    /// The product that it belonged to.
    pub product: ProductKey,
    /// The table.
    pub table: String,
    /// URL.
    pub path: String,
}

/// A quarantine file of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineFile {
    /// The table.
    pub table: String,
    /// Absolute path or URL.
    pub path: String,
    /// Rows in it.
    pub rows: u64,
}

/// Everything a publication changes, for one transaction.
#[derive(Clone, Debug)]
pub struct CommitRequest {
    /// The attempt; its lease must still be open.
    pub attempt: AttemptId,
    /// The product's major version.
    pub product: ProductKey,
    /// The contract to register, where it differs from the newest revision.
    pub contract: DataProduct,
    /// Number of the newest revision the plan was made from; 0 for none.
    pub expected_revision: u64,
    /// Who publishes.
    pub principal: String,
    /// When.
    pub at: DateTime<Utc>,
    /// A key set by hand; unique per major version.
    pub idempotency_key: Option<String>,
    /// The decision that allowed it.
    pub decision: u64,
    /// The tables that change. Empty for a rejection.
    pub tables: Vec<TableCommit>,
    /// Rows held back.
    pub quarantine: Vec<QuarantineFile>,
    /// Where the columns of the tables that change come from. Empty for a rejection.
    pub lineage: Vec<TableLineage>,
    /// How tables were made of other products.
    pub transforms: Vec<TransformRun>,
    /// The report, as JSON.
    pub report: Value,
    /// The publication whose tables this one brings back.
    pub rollback_to: Option<u64>,
    /// Pointers that must not have moved, of tables that stay as they are; `None`: the table must not exist.
    pub pinned: Vec<(String, Option<String>)>,
    /// Quarantined rows that are settled by this publication; each can be settled once.
    pub resolves: Vec<QuarantineResolution>,
}

/// A publication that brought back what an earlier one served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollback {
    /// The rollback's own number.
    pub publication: u64,
    /// The publication it went back to.
    pub target: u64,
}

/// Of `numbers`, the newest publication whose rows no rollback has taken out; `rollbacks` come newest first. What a rollback brought back counts again.
pub fn newest_effective(numbers: &[u64], rollbacks: &[Rollback]) -> Option<u64> {
    let mut upper = u64::MAX;
    let mut best = None;
    let mut lower_bounds = rollbacks.iter();
    loop {
        // The newest rollback that itself counts cuts off everything after its target.
        let cut = lower_bounds.find(|rollback| rollback.publication <= upper);
        let lower = cut.map_or(0, |rollback| rollback.publication);
        let found = numbers.iter().copied().filter(|number| *number > lower && *number <= upper).max();
        best = best.max(found);
        match cut {
            Some(rollback) if best.is_none() => upper = rollback.target,
            _ => return best,
        }
    }
}

/// A table as a publication left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedTable {
    /// The table's normalised name.
    pub table: String,
    /// The publication that wrote it last.
    pub publication: u64,
    /// The snapshot it served.
    pub snapshot_id: i64,
    /// Content of that publication.
    pub content: String,
    /// Rows in the snapshot.
    pub total_rows: u64,
}

/// How quarantined rows were settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResolutionKind {
    /// They were judged again, as they were.
    Retried,
    /// Mended rows took their place.
    Mended,
}

impl ResolutionKind {
    /// The kind's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retried => "retried",
            Self::Mended => "mended",
        }
    }

    /// The kind that a word means.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Retried, Self::Mended].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Quarantined rows of one table of one publication that a later publication settled: those of them that failed again
/// are in that one's quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuarantineResolution {
    /// The publication whose quarantine it is.
    pub publication: u64,
    /// The table's normalised name.
    pub table: String,
    /// The publication that settled it; `None` while that one is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_by: Option<u64>,
    /// How.
    pub how: ResolutionKind,
}

/// A quarantine file of a publication that no rollback has taken out.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldBack {
    /// The publication.
    pub publication: u64,
    /// Its report.
    pub report: Value,
    /// The file.
    pub file: QuarantineFile,
}

/// What became of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// It is durable, under this publication number.
    Committed(u64),
    /// Somebody else changed a pointer or the contract first; nothing was written.
    Conflict,
}

/// Whether a recorded attempt published or was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PublicationStatus {
    /// It serves, or served.
    Published,
    /// Only its report and quarantine were kept.
    Rejected,
}

/// A recorded attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Publication {
    /// Number in the registry, rising.
    pub number: u64,
    /// Published or rejected.
    pub status: PublicationStatus,
    /// The contract's version.
    pub version: String,
    /// When it was committed.
    pub at: DateTime<Utc>,
    /// Who published.
    pub principal: String,
    /// The attempt.
    pub attempt: AttemptId,
    /// The contract it was judged by.
    #[serde(skip)]
    pub contract: Option<DataProduct>,
    /// The key set by hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// The whole report.
    pub report: Value,
}

/// A product in the catalog.
#[derive(Clone, Debug, PartialEq)]
pub struct CatalogProduct {
    /// Its major version's key.
    pub key: ProductKey,
    /// Its newest revision.
    pub revision: Revision,
    /// Its published tables.
    pub tables: Vec<TablePointer>,
}

/// A table that a run outside the mesh made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedTable {
    /// Its product's major version.
    pub product: ProductKey,
    /// Its normalised name.
    pub table: String,
    /// Where its columns come from.
    pub lineage: ColumnLineage,
}

/// A run outside the mesh that somebody records.
#[derive(Clone, Debug)]
pub struct RecordedRun {
    /// Its identity.
    pub id: Uuid,
    /// What ran.
    pub job: String,
    /// When it is recorded.
    pub at: DateTime<Utc>,
    /// Who records it.
    pub principal: String,
    /// The number of the decision that allowed it.
    pub decision: u64,
    /// What it made.
    pub tables: Vec<RecordedTable>,
    /// Its OpenLineage event.
    pub event: Value,
    /// Its entry of the audit log.
    pub entry: AuditEntry,
}

/// A contract that becomes the newest revision of its major version.
#[derive(Clone, Debug)]
pub struct NewRevision {
    /// Number of the newest revision that the plan was made from; 0 for none.
    pub expected: u64,
    /// The contract.
    pub contract: DataProduct,
}

/// A product that gets another domain or name, in every major version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductMove {
    /// What it was: any of its keys.
    pub from: ProductKey,
    /// What it will be: any of its keys.
    pub to: ProductKey,
}

/// A published table whose schema changes.
#[derive(Clone, Debug)]
pub struct TableEvolution {
    /// The product's major version, as it will be called.
    pub product: ProductKey,
    /// The table.
    pub table: String,
    /// The pointer that must still be current.
    pub expected: String,
    /// Where the new metadata document is.
    pub metadata_location: String,
    /// The document, whole.
    pub metadata: String,
}

/// Everything that applying a plan changes, for one transaction.
#[derive(Clone, Debug)]
pub struct ApplyRequest {
    /// The attempts that files were written for; their leases must still be open.
    pub attempts: Vec<AttemptId>,
    /// The generation that the plan was made from.
    pub expected_generation: u64,
    /// Who applies.
    pub principal: String,
    /// When.
    pub at: DateTime<Utc>,
    /// The decision that allowed it.
    pub decision: u64,
    /// Domains that are made or changed.
    pub domains: Vec<Domain>,
    /// Domains that are removed, by normalised name.
    pub removed_domains: Vec<String>,
    /// Products that move, before anything else is done to them.
    pub moves: Vec<ProductMove>,
    /// New revisions.
    pub revisions: Vec<NewRevision>,
    /// Tables whose schema changes.
    pub tables: Vec<TableEvolution>,
    /// Pointers that must not have moved, of tables that were looked at: key, table, metadata document.
    pub pinned: Vec<(ProductKey, String, String)>,
    /// The plan, as JSON.
    pub plan: Value,
    /// What the whole mesh agreed on, where it changes.
    pub governance: Option<Governance>,
}

/// What became of an apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApplyOutcome {
    /// It is durable; the registry's generation now.
    Applied(u64),
    /// Something that the plan was made from has changed; nothing was written.
    Moved,
}

/// The applied state, read at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AppliedState {
    /// How often the registry was applied to.
    pub generation: u64,
    /// The applied domains, by name.
    pub domains: Vec<Domain>,
    /// The products with their tables. The metadata documents themselves are left out.
    pub products: Vec<CatalogProduct>,
    /// What the whole mesh agreed on, with its revision; `None`: nothing was applied.
    pub governance: Option<(u64, Governance)>,
}

/// What decisions depend on: where none of these has moved, an earlier decision still holds, time aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Revisions {
    /// How often what is applied has changed.
    pub generation: u64,
    /// The revision of what the whole mesh agreed on; 0: nothing was applied.
    pub governance: u64,
    /// How often a grant was written or ended.
    pub grants: u64,
}

/// The product of a catalog that a bare name means: of those that are not retired one that serves something, then an
/// active one before a deprecated one before a draft, then the newest.
pub fn preferred<'c>(majors: impl Iterator<Item = &'c CatalogProduct>) -> Option<&'c CatalogProduct> {
    let rank = |product: &&CatalogProduct| {
        (!product.tables.is_empty(), product.revision.contract.preference(), product.key.major)
    };
    majors.filter(|product| product.revision.contract.preference().is_some()).max_by_key(rank)
}

/// The registry: one per mesh. Every method that changes something is one transaction.
#[async_trait]
pub trait Registry: Outbox {
    /// Which mesh this is the registry of.
    async fn mesh_identity(&self) -> Result<MeshIdentity>;

    /// How often what is applied has changed: equal generations have equal revisions.
    async fn generation(&self) -> Result<u64>;

    /// What is known of one major version.
    async fn product_state(&self, product: &ProductKey) -> Result<ProductState>;

    /// Every product and pointer, in one read: a consistent view of the mesh.
    async fn catalog(&self) -> Result<Vec<CatalogProduct>>;

    /// The applied state, in one read.
    async fn applied_state(&self) -> Result<AppliedState>;

    /// Which majors of a product were applied, least first.
    async fn majors(&self, product: &ProductKey) -> Result<Vec<u64>>;

    /// Applies all of a plan, or nothing of it. `observer` hears of `TransactionWritten`.
    async fn apply(&self, request: &ApplyRequest, observer: &dyn StepObserver) -> Result<ApplyOutcome>;

    /// What the whole mesh agreed on, with its revision: 0 and nothing before the first.
    async fn governance(&self) -> Result<(u64, Option<Governance>)>;

    /// What decisions depend on, in one read of one row.
    async fn revisions(&self) -> Result<Revisions>;

    /// The applied domains, by name.
    async fn domains(&self) -> Result<Vec<Domain>>;

    /// Records a decision, in the audit log too, and returns its number. Durable before it returns.
    async fn record_decision(&self, decision: &DecisionRecord) -> Result<u64>;

    /// Adds the end of a governed read to the audit log; the entry's number. Durable before it returns.
    async fn record_read(&self, read: &ReadRecord) -> Result<u64>;

    /// Entries of the audit log, newest first.
    async fn audit_entries(&self, query: &AuditQuery) -> Result<Vec<AuditEntry>>;

    /// Reads all of the audit log and tells what is not as it was written. `anchor` is a checkpoint that was kept elsewhere:
    /// only such a one shows that the end is missing.
    async fn verify_audit(&self, verifier: &dyn Verifier, anchor: Option<&Checkpoint>) -> Result<AuditVerification>;

    /// Signs how far the audit log has come. An error with code `invalid-argument` where nobody can sign.
    async fn checkpoint(&self, at: DateTime<Utc>) -> Result<Checkpoint>;

    /// The newest checkpoint.
    async fn latest_checkpoint(&self) -> Result<Option<Checkpoint>>;

    /// A publication's receipt. `None`: there is none, since nobody could sign.
    async fn receipt(&self, publication: u64) -> Result<Option<String>>;

    /// Does something about access, all of it or nothing: the contract is read, the rules of
    /// [`access_request`](crate::access_request) are applied, and state, grant, and audit entry are written in one
    /// transaction. A command whose id was done before answers what it led to.
    async fn access(&self, command: &AccessCommand, members: &dyn Membership) -> Result<AccessOutcome>;

    /// Requests for access, newest first.
    async fn access_requests(&self, filter: &RequestFilter) -> Result<Vec<AccessRequest>>;

    /// Grants, by number.
    async fn grants(&self, filter: &GrantFilter) -> Result<Vec<Grant>>;

    /// Registers a staging prefix before anything is written there.
    async fn open_lease(&self, lease: &Lease) -> Result<()>;

    /// Moves a lease's end. An error with code `lease-lost` where it is gone.
    async fn renew_lease(&self, attempt: &AttemptId, expires_at: DateTime<Utc>) -> Result<()>;

    /// Forgets a lease: nothing of the attempt is left but what is referenced.
    async fn close_lease(&self, attempt: &AttemptId) -> Result<()>;

    /// Takes a lease, so that its attempt can no longer commit. Waits for a commit that is under way.
    async fn claim_lease(&self, attempt: &AttemptId) -> Result<()>;

    /// Takes the leases that ended before `now`, so that their attempts can no longer commit.
    async fn claim_expired_leases(&self, now: DateTime<Utc>) -> Result<Vec<Lease>>;

    /// Commits all tables of a publication, or none. `observer` hears of `TransactionWritten`.
    async fn commit(&self, request: &CommitRequest, observer: &dyn StepObserver) -> Result<CommitOutcome>;

    /// Keeps a rejected attempt's report and quarantine; returns its publication number.
    async fn record_rejection(&self, request: &CommitRequest) -> Result<u64>;

    /// The publication with this key set by hand.
    async fn find_idempotency_key(&self, product: &ProductKey, key: &str) -> Result<Option<u64>>;

    /// The tables as a publication left them.
    async fn served_tables(&self, product: &ProductKey, publication: u64) -> Result<Vec<ServedTable>>;

    /// The rollbacks of this major version, newest first.
    async fn rollbacks(&self, product: &ProductKey) -> Result<Vec<Rollback>>;

    /// The quarantined rows of this major version that later publications settled.
    async fn quarantine_resolutions(&self, product: &ProductKey) -> Result<Vec<QuarantineResolution>>;

    /// What publications of this major version that no rollback has taken out held back from `table`, settled or not, in
    /// their order.
    async fn held_back(&self, product: &ProductKey, table: &str) -> Result<Vec<HeldBack>>;

    /// The newest publication of this major version that published `content` into `table` and was not rolled back.
    async fn find_content(&self, product: &ProductKey, table: &str, content: &str) -> Result<Option<u64>>;

    /// For each table that a transform made, the newest publication that did, and how.
    async fn last_transforms(&self, product: &ProductKey) -> Result<Vec<(u64, TransformRun)>>;

    /// The recorded attempts, newest first.
    async fn publications(&self, product: &ProductKey, limit: u64) -> Result<Vec<Publication>>;

    /// The lineage of every table, as of the publication that last wrote it and the newest recorded run of each job; with
    /// `publication`, of those up to it.
    async fn lineage(&self, publication: Option<u64>) -> Result<Vec<Edge>>;

    /// Keeps a run outside the mesh, its edges and its entry of the audit log, or nothing of it.
    async fn record_run(&self, run: &RecordedRun) -> Result<()>;

    /// Every edge that any publication of these products, or any recorded run that made them, ever had, in one read.
    async fn lineage_of(&self, products: &[ProductKey]) -> Result<Vec<Edge>>;

    /// What was published when, of products named `(domain, product)`, every major version, in one read.
    async fn history(&self, products: &[(String, String)]) -> Result<History>;

    /// The quarantine files of one recorded attempt.
    async fn quarantine_files(&self, publication: u64) -> Result<Vec<QuarantineFile>>;

    /// Moves one table's pointer to a document with the same rows, and notes what is no longer referenced. `false`: somebody
    /// else moved it first; nothing was written.
    async fn commit_maintenance(&self, commit: &MaintenanceCommit) -> Result<bool>;

    /// The files that were no longer referenced before `before`, and are not deleted yet.
    async fn unreferenced_files(&self, before: DateTime<Utc>) -> Result<Vec<UnreferencedFile>>;

    /// Forgets files that were deleted.
    async fn forget_unreferenced(&self, paths: &[String]) -> Result<()>;

    /// Every lease, claimed or not.
    async fn leases(&self) -> Result<Vec<Lease>>;

    /// Every file that the registry itself knows of for one major version: quarantine files, and files that wait to be
    /// deleted.
    async fn known_files(&self, product: &ProductKey) -> Result<Vec<String>>;

    /// The quarantine files that a recorded attempt kept; empty where the attempt was never recorded.
    async fn attempt_quarantine(&self, attempt: &AttemptId) -> Result<Vec<String>>;
}
