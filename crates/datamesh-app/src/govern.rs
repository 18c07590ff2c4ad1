//! Decisions: everything is asked of the policies, and the answer is recorded before anything happens.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use datamesh_core::access::{SeparationOfDuties, TableAccess};
use datamesh_core::access_request::GrantFilter;
use datamesh_core::audit::{ReadOutcome, ReadRecord};
use datamesh_core::contract::{DataProduct, Table};
use datamesh_core::decision::{Action, DECISION_FORMAT, DecisionRecord, Outcome};
use datamesh_core::domain::Domain;
use datamesh_core::ids::ProductKey;
use datamesh_core::inheritance::Inheritance;
use datamesh_core::lineage::{ColumnLineage, Dataset, Edge};
use datamesh_core::mask::Mask;
use datamesh_core::ports::{CatalogProduct, Revisions};
use datamesh_core::protection::{Inherited, Protection, protections};
use datamesh_core::{Error, ErrorCode, Result};
pub use datamesh_policy::{
    Change, Context as Circumstances, Decision, Finding, Grants, Policies, PolicyProblem, ResolvedPrincipal, Resource,
    Severity, TableDecision,
};
use serde_json::{Value, json};

use crate::ports::{Context, Rows, TableKey, Visibility};

/// The applied policies with who there is, at one moment.
#[derive(Debug)]
pub struct Rules {
    /// The policies.
    pub policies: Policies,
    /// Who counts as one where duties are separated.
    pub separation: SeparationOfDuties,
    /// The domains.
    pub domains: Vec<Domain>,
    revisions: Revisions,
    /// Whether a policy looks at the time; then no answer is good for later.
    timed: bool,
    decided: Mutex<HashMap<Question, Decided>>,
}

/// A decision, and until when it is good.
type Decided = (TableDecision, Option<DateTime<Utc>>);

/// What a decision on a table depends on, beside the rules. Lineage and contract of what was published stay as they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question {
    principal: String,
    owns_mesh: bool,
    product: ProductKey,
    table: String,
    revision: u64,
    publication: u64,
    purpose: Option<String>,
    door: String,
}

/// How many decisions are kept.
const MAX_DECIDED: usize = 100_000;

/// The rules as they were last read.
#[derive(Debug, Default)]
pub struct RulesCache(tokio::sync::Mutex<Option<Arc<Rules>>>);

/// Who reads.
#[derive(Clone, Copy, Debug)]
pub enum Reader<'a> {
    /// Who asks.
    Asker,
    /// The domain of a product, as the team that owns it.
    Product(&'a DataProduct),
}

/// A table that is to be read.
#[derive(Clone, Copy, Debug)]
pub struct ReadTable<'a> {
    /// Its product.
    pub product: &'a CatalogProduct,
    /// Its contract.
    pub table: &'a Table,
    /// The moment that it is read as of, in words; `None`: now.
    pub moment: Option<&'a str>,
}

impl<'a> ReadTable<'a> {
    /// A table as it is now.
    pub fn now(product: &'a CatalogProduct, table: &'a Table) -> Self {
        Self { product, table, moment: None }
    }

    /// As the log names it.
    fn resource(&self) -> String {
        let name = sql(&self.key());
        self.moment.map_or(name.clone(), |moment| format!("{name} as of {moment}"))
    }

    pub(crate) fn key(&self) -> TableKey {
        (self.product.key.clone(), self.table.name.sql())
    }

    fn publication(&self) -> u64 {
        let name = self.table.name.sql();
        self.product.tables.iter().find(|pointer| pointer.table == name).map_or(0, |pointer| pointer.publication)
    }
}

/// What the record of a read refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecidedRead {
    /// The decision's number.
    pub decision: u64,
    /// The tables, as the log names them.
    pub resource: String,
}

/// A read that was decided and recorded.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The decision's number.
    pub decision: u64,
    /// Who reads.
    pub principal: String,
    /// What is seen of each table.
    pub tables: BTreeMap<TableKey, TableAccess>,
    /// The tables, as the log names them.
    pub resource: String,
}

impl Reading {
    /// What its record refers to.
    pub fn decided(&self) -> DecidedRead {
        DecidedRead { decision: self.decision, resource: self.resource.clone() }
    }

    /// What is seen of a table; nothing where it was not asked about.
    pub fn access(&self, product: &ProductKey, table: &str) -> TableAccess {
        self.tables.get(&(product.clone(), table.to_owned())).cloned().unwrap_or_default()
    }
}

fn sql(name: &TableKey) -> String {
    format!("{}.{}", name.0, name.1)
}

fn resource_name(resource: &Resource<'_>) -> String {
    match resource {
        Resource::Mesh => "mesh".to_owned(),
        Resource::Domain(name) => name.to_string(),
        Resource::Product(contract) => contract.id.to_string(),
        Resource::Table(contract, table) => format!("{}.{}", contract.id, table.name),
        Resource::Column(contract, table, path) => format!("{}.{}.{}", contract.id, table.name, path.join(".")),
        Resource::Port(contract, port) => format!("{} port {port}", contract.id),
        Resource::Request(contract, request) => format!("{} request {}", contract.id, request.number),
    }
}

/// The error of policies that were applied and cannot be used.
fn unusable(problems: &[PolicyProblem]) -> Error {
    let first = problems.first().map(ToString::to_string).unwrap_or_default();
    Error::new(ErrorCode::InvalidPolicy, format!("the applied policies cannot be used: {first}"))
        .with_help("mend them, and run `datamesh apply`")
}

impl Context {
    /// The applied rules. They are read anew only where something was applied or granted since.
    ///
    /// # Errors
    /// A registry that cannot be read; policies that cannot be used.
    pub async fn rules(&self) -> Result<Arc<Rules>> {
        let mut cached = self.rules.0.lock().await;
        let revisions = self.registry.revisions().await?;
        if let Some(rules) = cached.as_ref().filter(|rules| rules.revisions == revisions) {
            return Ok(rules.clone());
        }
        let (_, governance) = self.registry.governance().await?;
        let governance = governance.unwrap_or_default();
        let domains = self.registry.domains().await?;
        let separation = governance.separation_of_duties;
        let policies = Policies::load(&governance, &domains).map_err(|problems| unusable(&problems))?;
        let timed = policies.rules().iter().any(|rule| rule.text.contains("time"));
        let rules = Arc::new(Rules { policies, separation, domains, revisions, timed, decided: Mutex::default() });
        *cached = Some(rules.clone());
        Ok(rules)
    }

    /// Who acts, with what the rules know of them.
    ///
    /// # Errors
    /// A name that is none.
    pub fn actor(&self, rules: &Rules) -> Result<ResolvedPrincipal> {
        rules
            .policies
            .principal_of(&self.principal.id, self.owns_mesh)
            .map_err(|why| Error::new(ErrorCode::InvalidArgument, why).with_help("write `user:NAME` or `service:NAME`"))
    }

    /// What is known beside principal, action and resource.
    pub fn circumstances(&self) -> Circumstances {
        Circumstances { purpose: self.purpose.clone(), ..Circumstances::new(self.clock.now(), &self.door) }
    }

    async fn record(
        &self,
        action: Action,
        resource: &str,
        outcome: Outcome,
        reasons: Vec<String>,
        mut details: Value,
    ) -> Result<u64> {
        if let Some(details) = details.as_object_mut() {
            details.insert("door".to_owned(), self.door.clone().into());
            for (key, value) in [("purpose", &self.purpose), ("impersonatedBy", &self.impersonated_by)] {
                details.extend(value.as_ref().map(|value| (key.to_owned(), Value::from(value.clone()))));
            }
        }
        let decision = DecisionRecord {
            format: DECISION_FORMAT,
            at: self.clock.now(),
            principal: self.principal.clone(),
            action,
            resource: resource.to_owned(),
            outcome,
            reasons,
            context: details,
        };
        self.registry.record_decision(&decision).await
    }

    /// Decides, records the decision, and only then goes on.
    ///
    /// # Errors
    /// `denied`; a registry that cannot record it.
    pub async fn authorize(&self, action: Action, resource: Resource<'_>, details: Value) -> Result<u64> {
        self.authorize_all(action, &[resource], details).await
    }

    /// Decides on the mesh itself: see [`Self::authorize`].
    ///
    /// # Errors
    /// As [`Self::authorize`].
    pub async fn authorize_mesh(&self, action: Action, details: Value) -> Result<u64> {
        self.authorize(action, Resource::Mesh, details).await
    }

    /// Decides on a product: see [`Self::authorize`].
    ///
    /// # Errors
    /// As [`Self::authorize`].
    pub async fn authorize_product(&self, action: Action, contract: &DataProduct, details: Value) -> Result<u64> {
        self.authorize(action, Resource::Product(contract), details).await
    }

    /// Decides on several resources at once; one denial denies. It is one entry of the log.
    ///
    /// # Errors
    /// As [`Self::authorize`].
    pub async fn authorize_all(&self, action: Action, resources: &[Resource<'_>], details: Value) -> Result<u64> {
        let rules = self.rules().await?;
        let actor = self.actor(&rules)?;
        let circumstances = self.circumstances();
        let mut reasons = BTreeSet::new();
        let mut denied: Option<(String, Decision)> = None;
        for resource in resources {
            let decision = rules.policies.decide(&actor, action, *resource, &circumstances);
            let is_first = denied.is_none();
            match decision.is_allowed() {
                true if is_first => reasons.extend(decision.policy_ids()),
                false if is_first => {
                    reasons = decision.policy_ids().into_iter().collect();
                    denied = Some((resource_name(resource), decision));
                }
                _ => {}
            }
        }
        let names: BTreeSet<String> = resources.iter().map(resource_name).collect();
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        let outcome = if denied.is_some() { Outcome::Deny } else { Outcome::Allow };
        let number = self.record(action, &names, outcome, reasons.into_iter().collect(), details).await?;
        match denied {
            None => Ok(number),
            Some((resource, decision)) => {
                // What may not be found is not named beside what was asked about.
                let hidden = |resource: &&Resource<'_>| match resource {
                    Resource::Product(contract) => !self.discovers(&rules, &actor, contract),
                    _ => false,
                };
                let found = resources.iter().find(|own| resource_name(own) == resource);
                let resource = match found.filter(|_| resources.len() > 1).filter(hidden) {
                    Some(_) => "a product that it has to do with".to_owned(),
                    None => resource,
                };
                Err(self.denial(action, &resource, &because(&decision), None, number))
            }
        }
    }

    fn denial(&self, action: Action, resource: &str, because: &str, help: Option<&str>, number: u64) -> Error {
        let message = format!("`{}` may not {} `{resource}`: {because}", self.principal.id, action.as_str());
        let help = help.map_or_else(String::new, |help| format!("{help}; "));
        Error::new(ErrorCode::Denied, message).with_help(format!("{help}see decision {number} in `datamesh audit`"))
    }

    /// Whether somebody may find a product at all.
    pub fn discovers(&self, rules: &Rules, actor: &ResolvedPrincipal, contract: &DataProduct) -> bool {
        rules.policies.decide(actor, Action::Discover, Resource::Product(contract), &self.circumstances()).is_allowed()
    }

    /// Whether whoever asks may find a product that a manifest describes: by its contract, and by what is applied of it.
    ///
    /// # Errors
    /// A registry that cannot be read.
    pub async fn may_find(&self, contract: &DataProduct) -> Result<bool> {
        let rules = self.rules().await?;
        let actor = self.actor(&rules)?;
        let catalog = self.registry.catalog().await?;
        let applied = catalog.iter().filter(|product| product.revision.contract.id == contract.id);
        let contracts = applied.map(|product| &product.revision.contract).chain([contract]);
        Ok(contracts.into_iter().all(|contract| self.discovers(&rules, &actor, contract)))
    }

    /// The products of a catalog that whoever asks may find.
    ///
    /// # Errors
    /// A registry that cannot be read.
    pub async fn discover(&self, mut catalog: Vec<CatalogProduct>) -> Result<Vec<CatalogProduct>> {
        let rules = self.rules().await?;
        let actor = self.actor(&rules)?;
        catalog.retain(|product| self.discovers(&rules, &actor, &product.revision.contract));
        Ok(catalog)
    }

    /// What protects the columns of published tables, their lineage included. Products that they are made of and `catalog`
    /// lacks are read.
    ///
    /// # Errors
    /// A registry that cannot be read.
    pub async fn protections(
        &self,
        catalog: &[CatalogProduct],
        tables: &[ReadTable<'_>],
    ) -> Result<Vec<Vec<Protection>>> {
        let wanted: BTreeSet<ProductKey> = tables.iter().map(|table| table.product.key.clone()).collect();
        let known = catalog.iter().map(|product| product.key.clone()).collect();
        let (edges, others) = self.made_of(known, wanted, Vec::new()).await?;
        let contracts = catalog.iter().chain(&others);
        let contracts = contracts.map(|product| (product.key.clone(), &product.revision.contract));
        let inheritance = Inheritance::new(contracts, &edges);
        let own = tables.iter().map(|read| {
            let inherited: BTreeMap<String, Inherited> = inheritance.of(&read.product.key, &read.table.name.sql());
            protections(&read.product.revision.contract, read.table, &inherited)
        });
        Ok(own.collect())
    }

    /// A table that is about to be published, with what its columns inherit declared: of what is published already, and of
    /// what its rows are made of now.
    ///
    /// # Errors
    /// A registry that cannot be read.
    pub async fn protect(
        &self,
        contract: &DataProduct,
        mut table: Table,
        made_of: Option<&ColumnLineage>,
    ) -> Result<Table> {
        let key = contract.key();
        let dataset = Dataset::Table { product: key.clone(), table: table.name.sql() };
        let edges = made_of.map(|lineage| lineage.edges(&dataset)).unwrap_or_default();
        let own = BTreeSet::from([key.clone()]);
        let (edges, others) = self.made_of(own.clone(), own, edges).await?;
        let others = others.iter().map(|product| (product.key.clone(), &product.revision.contract));
        let inheritance = Inheritance::new(others.chain([(key.clone(), contract)]), &edges);
        let found = protections(contract, &table, &inheritance.of(&key, &table.name.sql()));
        for protection in found.iter().filter(|protection| protection.mask != Mask::None) {
            let own = table.columns.iter_mut().find(|column| protection.path.first() == Some(&column.name));
            // A column with fields of their own masks is hidden field by field.
            if let Some(column) = own.filter(|_| protection.path.len() == 1) {
                column.pii = true;
            }
        }
        Ok(table)
    }

    /// What tables are made of, all the way up: the edges, and the products among them that are not `known`.
    async fn made_of(
        &self,
        known: BTreeSet<ProductKey>,
        mut wanted: BTreeSet<ProductKey>,
        mut edges: Vec<Edge>,
    ) -> Result<(Vec<Edge>, Vec<CatalogProduct>)> {
        let mut seen: BTreeSet<ProductKey> = BTreeSet::new();
        wanted.extend(Inheritance::reads(&edges));
        while !wanted.is_empty() {
            let batch: Vec<ProductKey> = std::mem::take(&mut wanted).into_iter().collect();
            let found = self.registry.lineage_of(&batch).await?;
            seen.extend(batch);
            wanted = Inheritance::reads(&found).difference(&seen).cloned().collect();
            edges.extend(found);
        }
        let missing: BTreeSet<&ProductKey> = seen.difference(&known).collect();
        if missing.is_empty() {
            return Ok((edges, Vec::new()));
        }
        let mut others = self.registry.catalog().await?;
        others.retain(|product| missing.contains(&product.key));
        Ok((edges, others))
    }

    /// Decides what a reader sees of tables; nothing is recorded.
    ///
    /// # Errors
    /// A registry that cannot be read.
    pub async fn decide_tables(
        &self,
        rules: &Rules,
        actor: &ResolvedPrincipal,
        catalog: &[CatalogProduct],
        tables: &[ReadTable<'_>],
    ) -> Result<Vec<TableDecision>> {
        let circumstances = self.circumstances();
        let question = |read: &ReadTable<'_>| Question {
            principal: actor.id.clone(),
            owns_mesh: actor.owns_mesh(),
            product: read.product.key.clone(),
            table: read.table.name.sql(),
            revision: read.product.revision.number,
            publication: read.publication(),
            purpose: self.purpose.clone(),
            door: self.door.clone(),
        };
        let known = |question: &Question| {
            let decided = rules.decided.lock().unwrap_or_else(PoisonError::into_inner);
            let (decision, until) = decided.get(question)?;
            until.is_none_or(|until| circumstances.time < until).then(|| decision.clone())
        };
        let mut found: Vec<Option<TableDecision>> = tables.iter().map(|read| known(&question(read))).collect();
        let open: Vec<usize> = (0..tables.len()).filter(|at| found[*at].is_none()).collect();
        if !open.is_empty() {
            let left: Vec<ReadTable<'_>> = open.iter().map(|at| tables[*at]).collect();
            let protected = self.protections(catalog, &left).await?;
            let mut principals = vec![actor.id.clone()];
            principals.extend(actor.teams.iter().map(|team| format!("team:{team}")));
            principals.extend(actor.roles.iter().map(|role| format!("role:{role}")));
            let products: BTreeSet<ProductKey> = left.iter().map(|read| read.product.key.clone()).collect();
            let mut grants = Vec::new();
            for product in products {
                let filter =
                    GrantFilter { principals: principals.clone(), product: Some(product), ..GrantFilter::default() };
                grants.extend(self.registry.grants(&filter).await?);
            }
            let until = grants.iter().filter(|grant| grant.is_effective(circumstances.time));
            let until = until.filter_map(|grant| grant.expires_at).min();
            let grants = Grants::new(grants);
            for (at, protections) in open.into_iter().zip(protected) {
                let read = &tables[at];
                let contract = &read.product.revision.contract;
                let decision =
                    rules.policies.read_table(actor, contract, read.table, &protections, &grants, &circumstances);
                if !rules.timed {
                    let mut decided = rules.decided.lock().unwrap_or_else(PoisonError::into_inner);
                    if decided.len() >= MAX_DECIDED {
                        decided.clear();
                    }
                    decided.insert(question(read), (decision.clone(), until));
                }
                found[at] = Some(decision);
            }
        }
        Ok(found.into_iter().flatten().collect())
    }

    /// Who a reader is.
    ///
    /// # Errors
    /// A name that is none.
    pub fn reader(&self, rules: &Rules, reader: Reader<'_>) -> Result<ResolvedPrincipal> {
        match reader {
            Reader::Asker => self.actor(rules),
            Reader::Product(contract) => rules.policies.domain_reader(contract).map_err(|why| {
                Error::new(ErrorCode::InvalidArgument, format!("`{}` has no owner who reads: {why}", contract.id))
            }),
        }
    }

    /// Decides on a read of tables, records it, and says what is seen. One table that is denied denies all.
    ///
    /// # Errors
    /// `denied`; a registry that cannot be read or written.
    pub async fn read_tables(
        &self,
        reader: Reader<'_>,
        catalog: &[CatalogProduct],
        tables: &[ReadTable<'_>],
        mut details: Value,
    ) -> Result<Reading> {
        let rules = self.rules().await?;
        let principal = self.reader(&rules, reader)?;
        let decisions = self.decide_tables(&rules, &principal, catalog, tables).await?;
        let mut reasons = BTreeSet::new();
        let mut shown = serde_json::Map::new();
        let mut denied = None;
        for (read, decision) in tables.iter().zip(&decisions) {
            let name = sql(&read.key());
            shown.insert(name.clone(), decision.access.to_string().into());
            match (decision.outcome(), &denied) {
                (Outcome::Allow, None) => reasons.extend(decision.policy_ids()),
                (Outcome::Deny, None) => {
                    reasons = decision.policy_ids().into_iter().collect();
                    denied = Some((name, decision));
                }
                _ => {}
            }
        }
        if let Some(details) = details.as_object_mut() {
            details.insert("tables".to_owned(), shown.into());
            if let Reader::Product(contract) = reader {
                details.insert(
                    "reader".to_owned(),
                    json!({ "principal": principal.id, "product": contract.id.to_string() }),
                );
            }
        }
        let resource: BTreeSet<String> = tables.iter().map(ReadTable::resource).collect();
        let resource = resource.into_iter().collect::<Vec<_>>().join(", ");
        let outcome = if denied.is_some() { Outcome::Deny } else { Outcome::Allow };
        let number = self.record(Action::Read, &resource, outcome, reasons.into_iter().collect(), details).await?;
        if let Some((name, decision)) = denied {
            let because = match (decision.errors.first(), decision.reasons.first()) {
                (Some(error), _) => format!("policy `{}` cannot be evaluated: {}", error.id, error.message),
                (None, Some(reason)) => {
                    reason.message.clone().unwrap_or_else(|| format!("policy `{}` forbids it", reason.id))
                }
                (None, None) => "no policy and no grant allows it".to_owned(),
            };
            let who = Self { principal: datamesh_core::decision::Principal { id: principal.id }, ..self.clone() };
            return Err(who.denial(Action::Read, &name, &because, decision.help.as_deref(), number));
        }
        let tables = tables.iter().zip(decisions).map(|(read, decision)| (read.key(), decision.access)).collect();
        Ok(Reading { decision: number, principal: principal.id, tables, resource })
    }

    /// Decides whether a product may begin in its domain, where nothing of it is applied: its manifest names owner and domain
    /// itself, so that only who may change the domain may begin one.
    ///
    /// # Errors
    /// As [`Self::authorize`].
    pub async fn authorize_first(&self, contract: &DataProduct, applied: Option<&DataProduct>) -> Result<()> {
        if applied.is_some() {
            return Ok(());
        }
        let details = json!({ "operation": "begin", "product": contract.id.to_string() });
        self.authorize(Action::Apply, Resource::Domain(&contract.id.domain), details).await.map(|_| ())
    }

    /// Judges a contract that data is published under. What policies only warn of, or are waived for, is not told here.
    ///
    /// # Errors
    /// `denied` where a policy forbids it.
    pub async fn judge_publish(&self, contract: &DataProduct) -> Result<()> {
        let rules = self.rules().await?;
        let actor = self.actor(&rules)?;
        let findings = rules.policies.judge(&actor, contract, &Change::publish(), &self.circumstances());
        let stopping: Vec<&Finding> = findings.iter().filter(|finding| finding.stops()).collect();
        let Some(first) = stopping.first() else { return Ok(()) };
        let more = if stopping.len() > 1 { format!(", and {} more", stopping.len() - 1) } else { String::new() };
        let message = format!("policy `{}` forbids it for `{}`: {}{more}", first.policy, first.resource, first.message);
        let help = first.help.clone().unwrap_or_else(|| "see `datamesh policy check`".to_owned());
        let reasons: BTreeSet<String> = stopping.iter().map(|finding| finding.policy.clone()).collect();
        let details = json!({ "operation": "judge" });
        let resource = contract.id.to_string();
        self.record(Action::Publish, &resource, Outcome::Deny, reasons.into_iter().collect(), details).await?;
        Err(Error::new(ErrorCode::Denied, message).with_help(help))
    }

    /// Records a denial for another reason than a policy's: `reason` is a word for it.
    ///
    /// # Errors
    /// `denied`, with this message; a registry that cannot record it.
    pub async fn deny<T>(
        &self,
        action: Action,
        resource: Resource<'_>,
        reason: &str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Result<T> {
        let (message, resource) = (message.into(), resource_name(&resource));
        let details = json!({ "why": message });
        self.record(action, &resource, Outcome::Deny, vec![reason.to_owned()], details).await?;
        Err(Error::new(ErrorCode::Denied, message).with_help(help))
    }

    /// Decides on reading what is not the mesh's: a file or a table by its place. Whoever may administer the mesh may.
    ///
    /// # Errors
    /// As [`Self::authorize`].
    pub async fn read_location(&self, location: &str, details: Value) -> Result<u64> {
        let rules = self.rules().await?;
        let actor = self.actor(&rules)?;
        let decision = rules.policies.decide(&actor, Action::Administer, Resource::Mesh, &self.circumstances());
        let outcome = if decision.is_allowed() { Outcome::Allow } else { Outcome::Deny };
        let number = self.record(Action::Read, location, outcome, decision.policy_ids(), details).await?;
        if decision.is_allowed() {
            return Ok(number);
        }
        let because = "files are read by their place only by who administers the mesh";
        Err(self.denial(Action::Read, location, because, Some("name a table of the mesh"), number))
    }

    /// Rows whose end is recorded: how many there were, of which columns.
    pub fn recorded(&self, rows: Rows, reading: &Reading, operation: &str) -> Rows {
        let columns = rows.schema.fields().iter().map(|field| field.name().clone()).collect();
        let record = self.read_record(reading.decision, &reading.resource, columns, operation);
        crate::recorded::rows(rows, record, self.clone())
    }

    /// The record of a read that has yielded nothing yet.
    fn read_record(&self, decision: u64, resource: &str, columns: Vec<String>, operation: &str) -> ReadRecord {
        ReadRecord {
            decision,
            at: self.clock.now(),
            principal: self.principal.id.clone(),
            impersonated_by: self.impersonated_by.clone(),
            resource: resource.to_owned(),
            columns,
            rows: 0,
            outcome: ReadOutcome::Cancelled,
            purpose: self.purpose.clone(),
            door: Some(self.door.clone()),
            details: json!({ "operation": operation }),
        }
    }

    /// Records a read that was carried out within the engine.
    ///
    /// # Errors
    /// A registry that cannot record it.
    pub async fn record_read(
        &self,
        read: &DecidedRead,
        columns: Vec<String>,
        rows: Option<u64>,
        operation: &str,
    ) -> Result<()> {
        let outcome = if rows.is_some() { ReadOutcome::Complete } else { ReadOutcome::Failed };
        let record = self.read_record(read.decision, &read.resource, columns, operation);
        let record = ReadRecord { rows: rows.unwrap_or_default(), outcome, ..record };
        self.registry.record_read(&record).await.map(|_| ())
    }

    /// What whoever asks sees of a whole catalog, where a statement lists tables.
    ///
    /// # Errors
    /// A registry that cannot be read.
    pub async fn visibility(&self, catalog: &[CatalogProduct]) -> Result<Visibility> {
        let rules = self.rules().await?;
        let actor = self.actor(&rules)?;
        let found: Vec<&CatalogProduct> =
            catalog.iter().filter(|product| self.discovers(&rules, &actor, &product.revision.contract)).collect();
        let tables: Vec<ReadTable<'_>> = found.iter().flat_map(|product| published(product)).collect();
        let decisions = self.decide_tables(&rules, &actor, catalog, &tables).await?;
        let known = tables.iter().map(ReadTable::key).collect();
        let tables = tables.iter().zip(decisions).filter(|(_, decision)| decision.outcome() == Outcome::Allow);
        Ok(Visibility { tables: tables.map(|(read, decision)| (read.key(), decision.access)).collect(), known })
    }
}

/// The published tables of a product that its contract has.
pub fn published(product: &CatalogProduct) -> impl Iterator<Item = ReadTable<'_>> {
    let contract = &product.revision.contract;
    product.tables.iter().filter_map(move |pointer| Some(ReadTable::now(product, contract.table(&pointer.table)?)))
}

/// Why something is denied.
fn because(decision: &Decision) -> String {
    if let Some(error) = decision.errors.first() {
        return format!("policy `{}` cannot be evaluated: {}", error.id, error.message);
    }
    match decision.reasons.first() {
        None => "no policy allows it".to_owned(),
        Some(reason) => match &reason.message {
            Some(message) => format!("{message} ({}, {}:{})", reason.id, reason.file, reason.line),
            None => format!("policy `{}` forbids it ({}:{})", reason.id, reason.file, reason.line),
        },
    }
}
