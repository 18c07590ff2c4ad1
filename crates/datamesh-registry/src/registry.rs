//! The port, on either database.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datamesh_core::access::{Governance, Grant};
use datamesh_core::access_request::{
    AccessCommand, AccessOutcome, AccessRequest, GrantFilter, Membership, RequestFilter,
};
use datamesh_core::audit::{AuditEntry, AuditQuery, AuditVerification, Checkpoint, ReadRecord, Signer, Verifier};
use datamesh_core::decision::DecisionRecord;
use datamesh_core::domain::Domain;
use datamesh_core::history::History;
use datamesh_core::identity::MeshIdentity;
use datamesh_core::ids::{AttemptId, ProductKey};
use datamesh_core::lineage::Edge;
use datamesh_core::outbox::{Consumer, Outbox, OutboxBatch};
use datamesh_core::ports::{
    AppliedState, ApplyOutcome, ApplyRequest, CatalogProduct, CommitOutcome, CommitRequest, HeldBack, Lease,
    MaintenanceCommit, ProductState, Publication, PublishStep, QuarantineFile, QuarantineResolution, RecordedRun,
    Registry, Revisions, Rollback, ServedTable, StepObserver, UnreferencedFile,
};
use datamesh_core::transform::TransformRun;
use datamesh_core::{Error, ErrorCode, Result};

use crate::location::{Location, PostgresUrl};
use crate::store::{Store, Uncommitted};
use crate::{
    access, apply, audit, history, identity, leases, lineage, maintenance, outbox, postgres, publications, receipts,
    sqlite, state,
};

/// A mesh's registry in SQLite or PostgreSQL.
#[derive(Clone, Debug)]
pub struct SqlRegistry {
    store: Store,
    signer: Option<Arc<dyn Signer>>,
}

impl SqlRegistry {
    /// Opens the registry at a location, making it and bringing its format up to date where needed.
    ///
    /// # Errors
    /// `registry` where it cannot be opened or written, `registry-too-new` where a newer datamesh wrote it.
    pub async fn open(location: &Location) -> Result<Self> {
        match location {
            Location::Sqlite(path) => Self::open_sqlite(path).await,
            Location::Postgres(url) => Self::open_postgres(url).await,
        }
    }

    /// Opens the registry in a SQLite file.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub async fn open_sqlite(path: &Path) -> Result<Self> {
        Ok(Self { store: sqlite::open(path).await?, signer: None })
    }

    /// Opens the registry in a schema of a PostgreSQL database.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub async fn open_postgres(url: &PostgresUrl) -> Result<Self> {
        Ok(Self { store: postgres::open(url).await?, signer: None })
    }

    /// The registry with somebody who signs. Without, the audit log is a chain that nobody has signed, publications get no
    /// receipts, and [`Registry::checkpoint`] is refused.
    #[must_use]
    pub fn with_signer(mut self, signer: Arc<dyn Signer>) -> Self {
        self.signer = Some(signer);
        self
    }

    fn signer(&self) -> Option<&dyn Signer> {
        self.signer.as_deref()
    }

    /// What became of an attempt whose COMMIT was not answered. `None`: it was taken back.
    async fn settle(&self, attempt: &AttemptId, lost: &Error) -> Result<Option<u64>> {
        let look = async {
            // Writers come one after the other: where this one has its turn, the lost one has ended.
            let mut session = self.store.write().await?;
            let found = publications::find_attempt(&mut session, attempt).await?;
            session.rollback().await?;
            Ok::<_, Error>(found)
        };
        look.await.map_err(|_| {
            Error::new(ErrorCode::Registry, format!("nobody knows yet whether attempt {attempt} was committed: {lost}"))
                .with_help(
                    "once the registry answers, `datamesh publications PRODUCT` lists the attempt if it was committed; \
                 running the same command again is safe, what was published is not published twice",
                )
        })
    }
}

/// The connection was lost, and what was asked for did not happen.
fn taken_back(lost: &Error) -> Error {
    Error::new(ErrorCode::Registry, format!("nothing was committed: {lost}")).with_help("run the same command again")
}

#[async_trait]
impl Outbox for SqlRegistry {
    async fn outbox(&self, after: u64, limit: u64) -> Result<OutboxBatch> {
        outbox::read(&mut self.store.read().await?, after, limit).await
    }

    async fn outbox_head(&self) -> Result<u64> {
        outbox::head(&mut self.store.single().await?).await
    }

    async fn consumers(&self) -> Result<Vec<Consumer>> {
        outbox::consumers(&mut self.store.single().await?).await
    }

    async fn advance_consumer(&self, name: &str, to: u64, at: DateTime<Utc>) -> Result<()> {
        outbox::advance(&mut self.store.single().await?, name, to, at).await
    }

    async fn forget_consumer(&self, name: &str) -> Result<bool> {
        outbox::forget(&mut self.store.single().await?, name).await
    }

    async fn trim_outbox(&self, before: DateTime<Utc>) -> Result<u64> {
        let mut session = self.store.write().await?;
        let trimmed = outbox::trim(&mut session, before).await?;
        session.commit().await?;
        Ok(trimmed)
    }
}

#[async_trait]
impl Registry for SqlRegistry {
    async fn mesh_identity(&self) -> Result<MeshIdentity> {
        identity::read(&mut self.store.single().await?).await
    }

    async fn generation(&self) -> Result<u64> {
        identity::generation(&mut self.store.single().await?).await
    }

    async fn product_state(&self, product: &ProductKey) -> Result<ProductState> {
        state::product(&mut self.store.read().await?, product).await
    }

    async fn catalog(&self) -> Result<Vec<CatalogProduct>> {
        state::catalog(&mut self.store.read().await?).await
    }

    async fn applied_state(&self) -> Result<AppliedState> {
        apply::read(&mut self.store.read().await?).await
    }

    async fn majors(&self, product: &ProductKey) -> Result<Vec<u64>> {
        apply::majors(&mut self.store.single().await?, product).await
    }

    async fn apply(&self, request: &ApplyRequest, observer: &dyn StepObserver) -> Result<ApplyOutcome> {
        let mut session = self.store.write().await?;
        let Some(generation) = apply::write(&mut session, request, self.signer()).await? else {
            session.rollback().await?;
            return Ok(ApplyOutcome::Moved);
        };
        observer.reached(PublishStep::TransactionWritten);
        let lost = match session.commit().await {
            Ok(()) => return Ok(ApplyOutcome::Applied(generation)),
            Err(Uncommitted::Failed(error)) => return Err(error),
            Err(Uncommitted::Unknown(lost)) => lost,
        };
        // Writers come one after the other: where this one has its turn, the lost one has ended.
        let mut session = self.store.write().await?;
        let found = apply::find_decision(&mut session, request.decision).await?;
        session.rollback().await?;
        found.map(ApplyOutcome::Applied).ok_or_else(|| taken_back(&lost))
    }

    async fn governance(&self) -> Result<(u64, Option<Governance>)> {
        apply::governance(&mut self.store.single().await?).await
    }

    async fn revisions(&self) -> Result<Revisions> {
        identity::revisions(&mut self.store.single().await?).await
    }

    async fn record_decision(&self, decision: &DecisionRecord) -> Result<u64> {
        let mut session = self.store.log().await?;
        let number = audit::record_decision(&mut session, decision, self.signer()).await?;
        // Where the answer is lost the decision may be recorded: that nothing followed from it does no harm.
        session.commit().await?;
        Ok(number)
    }

    async fn record_read(&self, read: &ReadRecord) -> Result<u64> {
        let mut session = self.store.log().await?;
        let sequence = audit::record_read(&mut session, read, self.signer()).await?;
        session.commit().await?;
        Ok(sequence)
    }

    async fn audit_entries(&self, query: &AuditQuery) -> Result<Vec<AuditEntry>> {
        audit::entries(&mut self.store.single().await?, query).await
    }

    async fn verify_audit(&self, verifier: &dyn Verifier, anchor: Option<&Checkpoint>) -> Result<AuditVerification> {
        audit::verify(&mut self.store.read().await?, verifier, anchor).await
    }

    async fn checkpoint(&self, at: DateTime<Utc>) -> Result<Checkpoint> {
        let signer = self.signer().ok_or_else(audit::unsigned)?;
        let mut session = self.store.log().await?;
        let checkpoint = audit::checkpoint(&mut session, at, signer).await?;
        session.commit().await?;
        Ok(checkpoint)
    }

    async fn latest_checkpoint(&self) -> Result<Option<Checkpoint>> {
        audit::latest_checkpoint(&mut self.store.read().await?).await
    }

    async fn receipt(&self, publication: u64) -> Result<Option<String>> {
        receipts::read(&mut self.store.single().await?, publication).await
    }

    async fn access(&self, command: &AccessCommand, members: &dyn Membership) -> Result<AccessOutcome> {
        let mut session = self.store.write().await?;
        if let Some(done) = access::find(&mut session, command).await? {
            session.rollback().await?;
            return Ok(done);
        }
        let outcome = access::write(&mut session, command, members, self.signer()).await?;
        match session.commit().await {
            Ok(()) => Ok(outcome),
            Err(Uncommitted::Failed(error)) => Err(error),
            Err(Uncommitted::Unknown(lost)) => {
                let mut session = self.store.write().await?;
                let done = access::find(&mut session, command).await?;
                session.rollback().await?;
                done.ok_or_else(|| taken_back(&lost))
            }
        }
    }

    async fn access_requests(&self, filter: &RequestFilter) -> Result<Vec<AccessRequest>> {
        access::requests(&mut self.store.single().await?, filter).await
    }

    async fn grants(&self, filter: &GrantFilter) -> Result<Vec<Grant>> {
        access::grants(&mut self.store.single().await?, filter).await
    }

    async fn open_lease(&self, lease: &Lease) -> Result<()> {
        leases::open(&mut self.store.single().await?, lease).await
    }

    async fn renew_lease(&self, attempt: &AttemptId, expires_at: DateTime<Utc>) -> Result<()> {
        leases::renew(&mut self.store.single().await?, attempt, expires_at).await
    }

    async fn close_lease(&self, attempt: &AttemptId) -> Result<()> {
        leases::close(&mut self.store.single().await?, attempt).await
    }

    async fn claim_lease(&self, attempt: &AttemptId) -> Result<()> {
        let mut session = self.store.write().await?;
        leases::claim(&mut session, attempt).await?;
        Ok(session.commit().await?)
    }

    async fn claim_expired_leases(&self, now: DateTime<Utc>) -> Result<Vec<Lease>> {
        let mut session = self.store.write().await?;
        let claimed = leases::claim_expired(&mut session, now).await?;
        session.commit().await?;
        Ok(claimed)
    }

    async fn commit(&self, request: &CommitRequest, observer: &dyn StepObserver) -> Result<CommitOutcome> {
        let mut session = self.store.write().await?;
        let Some(publication) = publications::write(&mut session, request, self.signer()).await? else {
            session.rollback().await?;
            return Ok(CommitOutcome::Conflict);
        };
        observer.reached(PublishStep::TransactionWritten);
        match session.commit().await {
            Ok(()) => Ok(CommitOutcome::Committed(publication)),
            Err(Uncommitted::Failed(error)) => Err(error),
            Err(Uncommitted::Unknown(lost)) => match self.settle(&request.attempt, &lost).await? {
                Some(publication) => Ok(CommitOutcome::Committed(publication)),
                None => Err(taken_back(&lost)),
            },
        }
    }

    async fn record_rejection(&self, request: &CommitRequest) -> Result<u64> {
        let mut session = self.store.write().await?;
        let publication = publications::write_rejection(&mut session, request, self.signer()).await?;
        match session.commit().await {
            Ok(()) => Ok(publication),
            Err(Uncommitted::Failed(error)) => Err(error),
            Err(Uncommitted::Unknown(lost)) => {
                self.settle(&request.attempt, &lost).await?.ok_or_else(|| taken_back(&lost))
            }
        }
    }

    async fn find_idempotency_key(&self, product: &ProductKey, key: &str) -> Result<Option<u64>> {
        publications::find_key(&mut self.store.single().await?, product, key).await
    }

    async fn find_content(&self, product: &ProductKey, table: &str, content: &str) -> Result<Option<u64>> {
        publications::find_content(&mut self.store.read().await?, product, table, content).await
    }

    async fn served_tables(&self, product: &ProductKey, publication: u64) -> Result<Vec<ServedTable>> {
        history::served(&mut self.store.single().await?, product, publication).await
    }

    async fn rollbacks(&self, product: &ProductKey) -> Result<Vec<Rollback>> {
        history::rollbacks(&mut self.store.single().await?, product).await
    }

    async fn quarantine_resolutions(&self, product: &ProductKey) -> Result<Vec<QuarantineResolution>> {
        history::resolutions(&mut self.store.read().await?, product).await
    }

    async fn held_back(&self, product: &ProductKey, table: &str) -> Result<Vec<HeldBack>> {
        history::held_back(&mut self.store.read().await?, product, table).await
    }

    async fn last_transforms(&self, product: &ProductKey) -> Result<Vec<(u64, TransformRun)>> {
        publications::last_transforms(&mut self.store.read().await?, product).await
    }

    async fn publications(&self, product: &ProductKey, limit: u64) -> Result<Vec<Publication>> {
        publications::newest(&mut self.store.single().await?, product, limit).await
    }

    async fn domains(&self) -> Result<Vec<Domain>> {
        apply::domains(&mut self.store.single().await?).await
    }

    async fn lineage(&self, publication: Option<u64>) -> Result<Vec<Edge>> {
        lineage::edges(&mut self.store.read().await?, publication).await
    }

    async fn record_run(&self, run: &RecordedRun) -> Result<()> {
        let mut session = self.store.write().await?;
        lineage::record_run(&mut session, run, self.signer()).await?;
        match session.commit().await {
            Ok(()) => Ok(()),
            Err(Uncommitted::Failed(error)) => Err(error),
            Err(Uncommitted::Unknown(lost)) => match lineage::has_run(&mut self.store.single().await?, run).await? {
                true => Ok(()),
                false => Err(taken_back(&lost)),
            },
        }
    }

    async fn lineage_of(&self, products: &[ProductKey]) -> Result<Vec<Edge>> {
        lineage::edges_of(&mut self.store.read().await?, products).await
    }

    async fn history(&self, products: &[(String, String)]) -> Result<History> {
        let mut session = self.store.read().await?;
        let mut history = History::default();
        for (domain, product) in products {
            publications::history(&mut session, domain, product, &mut history).await?;
        }
        history.attempts.sort_by_key(|attempt| attempt.number);
        Ok(history)
    }

    async fn quarantine_files(&self, publication: u64) -> Result<Vec<QuarantineFile>> {
        publications::quarantine_files(&mut self.store.single().await?, publication).await
    }

    async fn commit_maintenance(&self, commit: &MaintenanceCommit) -> Result<bool> {
        let mut session = self.store.write().await?;
        if !maintenance::write(&mut session, commit).await? {
            session.rollback().await?;
            return Ok(false);
        }
        match session.commit().await {
            Ok(()) => Ok(true),
            Err(Uncommitted::Failed(error)) => Err(error),
            Err(Uncommitted::Unknown(lost)) => {
                let mut session = self.store.write().await?;
                let written = maintenance::is_written(&mut session, commit).await?;
                session.rollback().await?;
                if written { Ok(true) } else { Err(taken_back(&lost)) }
            }
        }
    }

    async fn unreferenced_files(&self, before: DateTime<Utc>) -> Result<Vec<UnreferencedFile>> {
        maintenance::unreferenced(&mut self.store.single().await?, before).await
    }

    async fn forget_unreferenced(&self, paths: &[String]) -> Result<()> {
        let mut session = self.store.write().await?;
        maintenance::forget(&mut session, paths).await?;
        Ok(session.commit().await?)
    }

    async fn leases(&self) -> Result<Vec<Lease>> {
        leases::all(&mut self.store.single().await?).await
    }

    async fn known_files(&self, product: &ProductKey) -> Result<Vec<String>> {
        maintenance::known_files(&mut self.store.single().await?, product).await
    }

    async fn attempt_quarantine(&self, attempt: &AttemptId) -> Result<Vec<String>> {
        publications::attempt_quarantine(&mut self.store.single().await?, attempt).await
    }
}
