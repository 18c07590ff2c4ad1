//! Requests for access and grants. The rules are `datamesh_core::access_request`'s; here they are applied to what the
//! registry holds, and what comes of them is written with the audit entry that tells of it.

use datamesh_core::access::Grant;
use datamesh_core::access_request::{
    self as rules, AccessAction, AccessCommand, AccessOutcome, AccessRequest, Approved, GrantFilter, Membership,
    RequestFilter,
};
use datamesh_core::audit::{AuditEntry, AuditKind, Signer};
use datamesh_core::canonical;
use datamesh_core::contract::DataProduct;
use datamesh_core::ids::ProductKey;
use datamesh_core::{Error, ErrorCode, Result};
use serde_json::json;

use crate::store::{Row, Session, Value, sql};
use crate::text::{from_json, read_key, time, to_json};
use crate::{audit, identity, state};

/// What a command that was done before has led to.
pub(crate) async fn find(session: &mut Session, command: &AccessCommand) -> Result<Option<AccessOutcome>> {
    let row = sql("SELECT request, grant_number FROM access_events WHERE id = $1")
        .bind(command.id.to_string())
        .fetch_optional(session)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let request = find_request(session, row.number("request")?).await?;
    let grant = match row.optional_number("grant_number")? {
        Some(number) => Some(find_grant(session, number).await?),
        None => None,
    };
    let grant_revision = identity::revisions(session).await?.grants;
    Ok(Some(AccessOutcome { request, grant, grant_revision }))
}

/// Does what a command says.
pub(crate) async fn write(
    session: &mut Session,
    command: &AccessCommand,
    members: &dyn Membership,
    signer: Option<&dyn Signer>,
) -> Result<AccessOutcome> {
    let done = match &command.action {
        AccessAction::Request(draft) => {
            let contract = contract(session, &draft.product).await?;
            let pending = pending(session, &draft.product).await?;
            let mut request = rules::request(draft, command, &contract, &pending)?;
            request.number = next(session, "access_requests").await?;
            insert_request(session, &request).await?;
            Done { kind: AuditKind::AccessRequested, contract, request, grant: None, word: Some(&draft.reason) }
        }
        AccessAction::Approve { request, note } => {
            let request = find_request(session, *request).await?;
            let contract = contract(session, &request.product).await?;
            let (request, grant) = match rules::approve(&request, note.as_deref(), command, &contract, members)? {
                Approved::Waiting(request) => (request, None),
                Approved::Granted(request, mut grant) => {
                    grant.number = next(session, "grants").await?;
                    insert_grant(session, &grant).await?;
                    (request, Some(*grant))
                }
            };
            update_request(session, &request).await?;
            let kind = if grant.is_some() { AuditKind::AccessGranted } else { AuditKind::AccessApproved };
            Done { kind, contract, request, grant, word: note.as_ref() }
        }
        AccessAction::Deny { request, reason } => {
            let request = find_request(session, *request).await?;
            let contract = contract(session, &request.product).await?;
            let request = rules::deny(&request, reason, command, &contract, members)?;
            update_request(session, &request).await?;
            Done { kind: AuditKind::AccessDenied, contract, request, grant: None, word: Some(reason) }
        }
        AccessAction::Withdraw { request, reason } => {
            let request = find_request(session, *request).await?;
            let contract = contract(session, &request.product).await?;
            let request = rules::withdraw(&request, reason.as_deref(), command, members)?;
            update_request(session, &request).await?;
            Done { kind: AuditKind::AccessWithdrawn, contract, request, grant: None, word: reason.as_ref() }
        }
        AccessAction::Revoke { grant, reason } => {
            let grant = find_grant(session, *grant).await?;
            let request = find_request(session, grant.request).await?;
            let contract = contract(session, &grant.product).await?;
            let grant = rules::revoke(&grant, &request, reason.as_deref(), command, &contract, members)?;
            sql("UPDATE grants SET revoked = 1, document = $1 WHERE number = $2")
                .bind(to_json(&grant)?)
                .bind(grant.number)
                .execute(session)
                .await?;
            Done { kind: AuditKind::AccessRevoked, contract, request, grant: Some(grant), word: reason.as_ref() }
        }
    };
    let grant_revision = match &done.grant {
        Some(_) => identity::next_grant_revision(session).await?,
        None => identity::revisions(session).await?.grants,
    };
    log(session, command, &done, signer).await?;
    Ok(AccessOutcome { request: done.request, grant: done.grant, grant_revision })
}

/// What was done, and what it was done to.
struct Done<'c> {
    kind: AuditKind,
    contract: DataProduct,
    request: AccessRequest,
    grant: Option<Grant>,
    word: Option<&'c String>,
}

async fn log(
    session: &mut Session,
    command: &AccessCommand,
    done: &Done<'_>,
    signer: Option<&dyn Signer>,
) -> Result<()> {
    let Done { kind, contract, request, grant, word } = done;
    let action = match &command.action {
        AccessAction::Request(_) => "requestAccess",
        AccessAction::Approve { .. } => "approve",
        AccessAction::Deny { .. } => "deny",
        AccessAction::Withdraw { .. } => "withdraw",
        AccessAction::Revoke { .. } => "revoke",
    };
    let outcome = match kind {
        AuditKind::AccessRevoked => "revoked",
        AuditKind::AccessGranted => "granted",
        _ => request.state.as_str(),
    };
    let mut details = json!({
        "request": request.number,
        "for": request.principal,
        "product": request.product.to_string(),
        "role": request.role,
        "tables": request.tables,
    });
    if let Some(word) = word {
        details["reason"] = word.as_str().into();
    }
    if let Some(grant) = grant {
        details["grant"] = grant.number.into();
        details["grantHash"] = canonical::sha256(to_json(grant)?.as_bytes()).into();
        details["approvedBy"] = json!(grant.approved_by);
        details["expiresAt"] = json!(grant.expires_at);
    }
    let resource = contract.id.to_string();
    let mut head = audit::begin(session, command.at).await?;
    let entry = AuditEntry {
        impersonated_by: command.impersonated_by.clone(),
        purpose: request.purpose.clone(),
        door: command.door.clone(),
        decision: command.decision,
        details,
        ..AuditEntry::new(command.at, *kind, &command.by, action, &resource, outcome)
    };
    let sequence = audit::push(session, &mut head, entry).await?;
    sql("INSERT INTO access_events (id, request, grant_number, entry) VALUES ($1, $2, $3, $4)")
        .bind(command.id.to_string())
        .bind(request.number)
        .bind(grant.as_ref().map(|grant| grant.number))
        .bind(sequence)
        .execute(session)
        .await?;
    audit::end(session, head, command.at, signer, true).await
}

async fn contract(session: &mut Session, product: &ProductKey) -> Result<DataProduct> {
    let revision = state::newest_revision(session, product).await?;
    revision.map(|revision| revision.contract).ok_or_else(|| {
        Error::new(ErrorCode::NotFound, format!("there is no product `{product}`"))
            .with_help("`datamesh apply` applies a product's contract")
    })
}

/// Numbers are given by the one transaction that writes.
async fn next(session: &mut Session, table: &str) -> Result<u64> {
    let text = format!("SELECT coalesce(max(number), 0) + 1 AS number FROM {table}");
    sql(&text).fetch_one(session).await?.number("number")
}

async fn pending(session: &mut Session, product: &ProductKey) -> Result<Vec<AccessRequest>> {
    let rows = sql("SELECT * FROM access_requests WHERE domain = $1 AND product = $2 AND major = $3
                    AND state = 'pending' ORDER BY number")
    .bind(&product.domain)
    .bind(&product.product)
    .bind(product.major)
    .fetch_all(session)
    .await?;
    rows.iter().map(read_request).collect()
}

async fn insert_request(session: &mut Session, request: &AccessRequest) -> Result<()> {
    sql("INSERT INTO access_requests (number, domain, product, major, principal, requested_by, state, document)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)")
    .bind(request.number)
    .bind(&request.product.domain)
    .bind(&request.product.product)
    .bind(request.product.major)
    .bind(&request.principal)
    .bind(&request.requested_by)
    .bind(request.state.as_str())
    .bind(to_json(request)?)
    .execute(session)
    .await?;
    Ok(())
}

async fn update_request(session: &mut Session, request: &AccessRequest) -> Result<()> {
    sql("UPDATE access_requests SET state = $1, document = $2 WHERE number = $3")
        .bind(request.state.as_str())
        .bind(to_json(request)?)
        .bind(request.number)
        .execute(session)
        .await?;
    Ok(())
}

async fn insert_grant(session: &mut Session, grant: &Grant) -> Result<()> {
    sql("INSERT INTO grants (number, request, domain, product, major, principal, expires_at, document)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)")
    .bind(grant.number)
    .bind(grant.request)
    .bind(&grant.product.domain)
    .bind(&grant.product.product)
    .bind(grant.product.major)
    .bind(&grant.principal)
    .bind(&grant.expires_at.map(time))
    .bind(to_json(grant)?)
    .execute(session)
    .await?;
    Ok(())
}

async fn find_request(session: &mut Session, number: u64) -> Result<AccessRequest> {
    let row = sql("SELECT * FROM access_requests WHERE number = $1").bind(number).fetch_optional(session).await?;
    let row = row.ok_or_else(|| {
        Error::new(ErrorCode::NotFound, format!("there is no request {number}"))
            .with_help("`datamesh access list` lists them")
    })?;
    read_request(&row)
}

async fn find_grant(session: &mut Session, number: u64) -> Result<Grant> {
    let row = sql("SELECT * FROM grants WHERE number = $1").bind(number).fetch_optional(session).await?;
    let row = row.ok_or_else(|| {
        Error::new(ErrorCode::NotFound, format!("there is no grant {number}"))
            .with_help("`datamesh access list` lists them")
    })?;
    read_grant(&row)
}

/// The product may have moved since the document was written.
fn read_request(row: &Row) -> Result<AccessRequest> {
    let request: AccessRequest = from_json("a request for access", &row.text("document")?)?;
    Ok(AccessRequest { product: read_key(row)?, ..request })
}

fn read_grant(row: &Row) -> Result<Grant> {
    let grant: Grant = from_json("a grant", &row.text("document")?)?;
    Ok(Grant { product: read_key(row)?, ..grant })
}

/// Conditions that are put together, with their values.
#[derive(Default)]
struct Conditions<'v> {
    texts: Vec<String>,
    values: Vec<Value<'v>>,
}

impl<'v> Conditions<'v> {
    fn place(&mut self, value: impl Into<Value<'v>>) -> String {
        self.values.push(value.into());
        format!("${}", self.values.len())
    }

    fn product(&mut self, product: &'v Option<ProductKey>) {
        let Some(product) = product else { return };
        let (domain, name) = (self.place(&product.domain), self.place(&product.product));
        let major = self.place(product.major);
        self.texts.push(format!("domain = {domain} AND product = {name} AND major = {major}"));
    }

    fn one_of(&mut self, columns: &[&str], values: &'v [String]) {
        if values.is_empty() {
            return;
        }
        let places: Vec<String> = values.iter().map(|value| self.place(value)).collect();
        let places = places.join(", ");
        let any: Vec<String> = columns.iter().map(|column| format!("{column} IN ({places})")).collect();
        self.texts.push(format!("({})", any.join(" OR ")));
    }

    async fn select(self, session: &mut Session, table: &str, end: &str) -> Result<Vec<Row>> {
        let filter = if self.texts.is_empty() { "1 = 1".to_owned() } else { self.texts.join(" AND ") };
        let text = format!("SELECT * FROM {table} WHERE {filter} {end}");
        let statement = self.values.into_iter().fold(sql(&text).once(), |statement, value| statement.bind(value));
        statement.fetch_all(session).await
    }
}

/// Requests, newest first.
pub(crate) async fn requests(session: &mut Session, filter: &RequestFilter) -> Result<Vec<AccessRequest>> {
    let mut conditions = Conditions::default();
    conditions.product(&filter.product);
    conditions.one_of(&["principal", "requested_by"], &filter.principals);
    if let Some(number) = filter.number {
        let place = conditions.place(number);
        conditions.texts.push(format!("number = {place}"));
    }
    let rows = conditions.select(session, "access_requests", "ORDER BY number DESC").await?;
    let limit = filter.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    let mut requests = Vec::new();
    for row in &rows {
        if requests.len() == limit {
            break;
        }
        let mut request = read_request(row)?;
        request.state = request.state_at(filter.now);
        if filter.state.is_none_or(|state| state == request.state) {
            requests.push(request);
        }
    }
    Ok(requests)
}

/// Grants, by number.
pub(crate) async fn grants(session: &mut Session, filter: &GrantFilter) -> Result<Vec<Grant>> {
    let mut conditions = Conditions::default();
    conditions.product(&filter.product);
    conditions.one_of(&["principal"], &filter.principals);
    if let Some(number) = filter.number {
        let place = conditions.place(number);
        conditions.texts.push(format!("number = {place}"));
    }
    if let Some(at) = filter.effective_at {
        let place = conditions.place(time(at));
        conditions.texts.push(format!("revoked = 0 AND (expires_at IS NULL OR expires_at >= {place})"));
    }
    let rows = conditions.select(session, "grants", "ORDER BY number").await?;
    let grants = rows.iter().map(read_grant).collect::<Result<Vec<_>>>()?;
    // The text is rounded.
    Ok(grants.into_iter().filter(|grant| filter.effective_at.is_none_or(|at| grant.is_effective(at))).collect())
}
