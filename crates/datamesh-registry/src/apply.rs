//! Applying a plan, and the state that the next one is made from.

use std::collections::BTreeMap;

use datamesh_core::Result;
use datamesh_core::access::Governance;
use datamesh_core::audit::{AuditEntry, AuditKind, Signer};
use datamesh_core::canonical;
use datamesh_core::domain::Domain;
use datamesh_core::ids::ProductKey;
use datamesh_core::outbox::{MovedPointer, OutboxKind};
use datamesh_core::ports::{AppliedState, ApplyRequest, NewRevision, ProductMove, TableEvolution};
use serde_json::json;

use crate::outbox::{self, Event};
use crate::store::{Session, Value, insert_all, sql};
use crate::text::{from_json, read_key, time, to_json};
use crate::{audit, identity, leases, state};

/// The applied domains, by name.
pub(crate) async fn domains(session: &mut Session) -> Result<Vec<Domain>> {
    let rows = sql("SELECT document FROM domains ORDER BY name").fetch_all(session).await?;
    rows.iter().map(|row| from_json::<Domain>("a domain", &row.text("document")?)).collect()
}

/// The applied state. The metadata documents of tables are left out: there are many, and a plan only compares places.
pub(crate) async fn read(session: &mut Session) -> Result<AppliedState> {
    let generation = identity::generation(session).await?;
    let domains = domains(session).await?;
    let products = state::catalog_without_metadata(session).await?;
    let governance = match governance(session).await? {
        (revision, Some(governance)) => Some((revision, governance)),
        (_, None) => None,
    };
    Ok(AppliedState { generation, domains, products, governance })
}

pub(crate) async fn majors(session: &mut Session, product: &ProductKey) -> Result<Vec<u64>> {
    let rows = sql("SELECT DISTINCT major FROM revisions WHERE domain = $1 AND product = $2 ORDER BY major")
        .bind(&product.domain)
        .bind(&product.product)
        .fetch_all(session)
        .await?;
    rows.iter().map(|row| row.number("major")).collect()
}

/// Counts one more change of what is applied; the generation now.
pub(crate) async fn next_generation(session: &mut Session) -> Result<u64> {
    let row = sql("UPDATE mesh SET generation = generation + 1 RETURNING generation").fetch_optional(session).await?;
    row.ok_or_else(identity::missing)?.number("generation")
}

/// Writes all of a plan; the generation now. `None`: something is not as the plan saw it, and nothing may be committed.
pub(crate) async fn write(
    session: &mut Session,
    request: &ApplyRequest,
    signer: Option<&dyn Signer>,
) -> Result<Option<u64>> {
    for attempt in &request.attempts {
        leases::check(session, attempt).await?;
    }
    if identity::generation(session).await? != request.expected_generation {
        return Ok(None);
    }
    let mut moved = Vec::new();
    for product in &request.moves {
        rename(session, product).await?;
        moved.extend(self::moved(session, product).await?);
    }
    if !request.moves.is_empty() {
        identity::next_grant_revision(session).await?;
    }
    for (product, table, location) in &request.pinned {
        if !points_to(session, product, table, location).await? {
            return Ok(None);
        }
    }
    if !insert_revisions(session, request).await? {
        return Ok(None);
    }
    for domain in &request.domains {
        sql("INSERT INTO domains (name, document, applied_at, applied_by) VALUES ($1, $2, $3, $4)
             ON CONFLICT (name) DO UPDATE SET document = excluded.document, applied_at = excluded.applied_at,
             applied_by = excluded.applied_by")
        .bind(domain.name.sql())
        .bind(to_json(domain)?)
        .bind(time(request.at))
        .bind(&request.principal)
        .execute(session)
        .await?;
    }
    for name in &request.removed_domains {
        sql("DELETE FROM domains WHERE name = $1").bind(name).execute(session).await?;
    }
    if !tell(session, request, &moved).await? {
        return Ok(None);
    }
    let generation = next_generation(session).await?;
    sql("INSERT INTO applies (generation, at, principal, decision, plan) VALUES ($1, $2, $3, $4, $5)")
        .bind(generation)
        .bind(time(request.at))
        .bind(&request.principal)
        .bind(request.decision)
        .bind(to_json(&request.plan)?)
        .execute(session)
        .await?;
    let governance = match &request.governance {
        Some(governance) => Some(insert_governance(session, request, governance, generation).await?),
        None => None,
    };
    log(session, request, generation, governance, signer).await?;
    Ok(Some(generation))
}

/// What the whole mesh agreed on, with its revision.
pub(crate) async fn governance(session: &mut Session) -> Result<(u64, Option<Governance>)> {
    let newest = sql("SELECT revision, document FROM governance ORDER BY revision DESC LIMIT 1");
    match newest.fetch_optional(session).await? {
        None => Ok((0, None)),
        Some(row) => Ok((row.number("revision")?, Some(from_json("what the mesh agreed on", &row.text("document")?)?))),
    }
}

/// Its revision.
async fn insert_governance(
    session: &mut Session,
    request: &ApplyRequest,
    governance: &Governance,
    generation: u64,
) -> Result<u64> {
    let next = sql("UPDATE mesh SET governance_revision = governance_revision + 1 RETURNING governance_revision");
    let row = next.fetch_optional(session).await?;
    let revision = row.ok_or_else(identity::missing)?.number("governance_revision")?;
    sql("INSERT INTO governance (revision, document, applied_at, applied_by, generation) VALUES ($1, $2, $3, $4, $5)")
        .bind(revision)
        .bind(to_json(governance)?)
        .bind(time(request.at))
        .bind(&request.principal)
        .bind(generation)
        .execute(session)
        .await?;
    Ok(revision)
}

async fn log(
    session: &mut Session,
    request: &ApplyRequest,
    generation: u64,
    governance: Option<u64>,
    signer: Option<&dyn Signer>,
) -> Result<()> {
    let mut head = audit::begin(session, request.at).await?;
    let mut domains = serde_json::Map::new();
    for domain in &request.domains {
        domains.insert(domain.name.sql(), canonical::sha256(to_json(domain)?.as_bytes()).into());
    }
    domains.extend(request.removed_domains.iter().map(|name| (name.clone(), serde_json::Value::Null)));
    let mut contracts = serde_json::Map::new();
    for NewRevision { contract, .. } in &request.revisions {
        contracts.insert(contract.key().to_string(), canonical::sha256(to_json(contract)?.as_bytes()).into());
    }
    let plan = canonical::digest(&request.plan)?;
    let mut details = json!({"generation": generation, "plan": plan, "domains": domains, "contracts": contracts});
    if !request.moves.is_empty() {
        let named = |key: &ProductKey| format!("{}.{}", key.domain, key.product);
        let moved = |moved: &ProductMove| json!({"from": named(&moved.from), "to": named(&moved.to)});
        details["moved"] = request.moves.iter().map(moved).collect();
    }
    if let (Some(revision), Some(governance)) = (governance, &request.governance) {
        details["governance"] = json!({"revision": revision, "hash": canonical::digest(governance)?});
    }
    let entry = AuditEntry::new(request.at, AuditKind::Apply, &request.principal, "apply", "mesh", "applied");
    let entry = AuditEntry { decision: Some(request.decision), details, ..entry };
    audit::push(session, &mut head, entry).await?;
    audit::end(session, head, request.at, signer, true).await
}

/// The generation that the plan of a decision led to; `None`: it was not applied.
pub(crate) async fn find_decision(session: &mut Session, decision: u64) -> Result<Option<u64>> {
    let row = sql("SELECT generation FROM applies WHERE decision = $1").bind(decision).fetch_optional(session).await?;
    row.as_ref().map(|row| row.number("generation")).transpose()
}

/// Gives a product another domain or name wherever it is named, so that its history goes with it.
async fn rename(session: &mut Session, moved: &ProductMove) -> Result<()> {
    let majors = majors(session, &moved.from).await?;
    for table in [
        "revisions",
        "publications",
        "tables",
        "unreferenced_files",
        "access_requests",
        "grants",
        "outbox",
        "former_names",
        "recorded_edges",
    ] {
        let text = format!("UPDATE {table} SET domain = $1, product = $2 WHERE domain = $3 AND product = $4");
        sql(&text)
            .bind(&moved.to.domain)
            .bind(&moved.to.product)
            .bind(&moved.from.domain)
            .bind(&moved.from.product)
            .execute(session)
            .await?;
    }
    sql("UPDATE publication_inputs SET input_domain = $1, input_product = $2
         WHERE input_domain = $3 AND input_product = $4")
    .bind(&moved.to.domain)
    .bind(&moved.to.product)
    .bind(&moved.from.domain)
    .bind(&moved.from.product)
    .execute(session)
    .await?;
    for major in majors {
        // A dataset is named `domain.product_v1.table`.
        let dataset = |key: &ProductKey| format!("{}.", ProductKey { major, ..key.clone() });
        let (from, to) = (dataset(&moved.from), dataset(&moved.to));
        for table in ["lineage_edges", "recorded_edges"] {
            let text = format!(
                "UPDATE {table} SET input_name = $1 || substr(input_name, CAST($2 AS INTEGER))
                 WHERE input_namespace = 'datamesh' AND substr(input_name, 1, CAST($3 AS INTEGER)) = $4"
            );
            sql(&text)
                .bind(&to)
                .bind(from.len() as u64 + 1)
                .bind(from.len() as u64)
                .bind(&from)
                .execute(session)
                .await?;
        }
    }
    Ok(())
}

async fn points_to(session: &mut Session, product: &ProductKey, table: &str, location: &str) -> Result<bool> {
    let row = sql("SELECT metadata_location FROM tables
                   WHERE domain = $1 AND product = $2 AND major = $3 AND table_name = $4")
    .bind(&product.domain)
    .bind(&product.product)
    .bind(product.major)
    .bind(table)
    .fetch_optional(session)
    .await?;
    Ok(row.map(|row| row.text("metadata_location")).transpose()?.as_deref() == Some(location))
}

/// `false`: a contract is not the one that the plan saw.
async fn insert_revisions(session: &mut Session, request: &ApplyRequest) -> Result<bool> {
    if request.revisions.is_empty() {
        return Ok(true);
    }
    let rows = sql("SELECT domain, product, major, max(number) AS number FROM revisions
                    GROUP BY domain, product, major")
    .fetch_all(session)
    .await?;
    let newest: BTreeMap<ProductKey, u64> =
        rows.iter().map(|row| Ok((read_key(row)?, row.number("number")?))).collect::<Result<_>>()?;
    let at = time(request.at);
    let mut values: Vec<Vec<Value<'_>>> = Vec::with_capacity(request.revisions.len());
    for NewRevision { expected, contract } in &request.revisions {
        let key = contract.key();
        if newest.get(&key).copied().unwrap_or(0) != *expected {
            return Ok(false);
        }
        values.push(vec![
            key.domain.into(),
            key.product.into(),
            key.major.into(),
            (expected + 1).into(),
            contract.version.to_string().into(),
            to_json(contract)?.into(),
            (&at).into(),
            (&request.principal).into(),
        ]);
    }
    let insert = "INSERT INTO revisions (domain, product, major, number, version, contract, created_at, created_by)";
    insert_all(session, insert, values, "").await?;
    Ok(true)
}

/// What is told of a product that has moved: each pointer, or where a major version has none, the product.
struct Moved {
    product: ProductKey,
    former: ProductKey,
    pointer: Option<MovedPointer>,
}

/// What is to be told of a product that has moved.
async fn moved(session: &mut Session, moved: &ProductMove) -> Result<Vec<Moved>> {
    let told = |product: ProductKey, pointer| {
        let former = ProductKey { major: product.major, ..moved.from.clone() };
        Moved { product, former, pointer }
    };
    let pointers = pointers(session, &moved.to).await?;
    let mut majors = majors(session, &moved.to).await?;
    majors.retain(|major| pointers.iter().all(|(product, _)| product.major != *major));
    let mut all: Vec<Moved> = pointers.into_iter().map(|(product, pointer)| told(product, Some(pointer))).collect();
    all.extend(majors.into_iter().map(|major| told(ProductKey { major, ..moved.to.clone() }, None)));
    Ok(all)
}

/// The pointers of a product, in every major version.
async fn pointers(session: &mut Session, product: &ProductKey) -> Result<Vec<(ProductKey, MovedPointer)>> {
    let rows = sql("SELECT domain, product, major, table_name, metadata_location, publication FROM tables
                    WHERE domain = $1 AND product = $2 ORDER BY major, table_name")
    .bind(&product.domain)
    .bind(&product.product)
    .fetch_all(session)
    .await?;
    rows.iter().map(|row| Ok((read_key(row)?, outbox::read_pointer(row)?))).collect()
}

/// Moves the pointers of evolved tables, and tells of them, of `moved` ones and of new revisions. `false`: a pointer is not
/// where the plan saw it.
async fn tell(session: &mut Session, request: &ApplyRequest, moved: &[Moved]) -> Result<bool> {
    let keys: Vec<ProductKey> = request.revisions.iter().map(|revision| revision.contract.key()).collect();
    let count = moved.len() + keys.len() + request.tables.len();
    if count == 0 {
        return Ok(true);
    }
    let first = outbox::take(session, count).await?;
    let mut events = Vec::with_capacity(count);
    for (sequence, Moved { product, former, pointer }) in (first..).zip(moved) {
        let (kind, former) = (OutboxKind::Moved, Some(former));
        let Some(pointer) = pointer else {
            events.push(Event { kind, product, pointer: None, former });
            continue;
        };
        sql("UPDATE tables SET sequence = $1 WHERE domain = $2 AND product = $3 AND major = $4 AND table_name = $5")
            .bind(sequence)
            .bind(&product.domain)
            .bind(&product.product)
            .bind(product.major)
            .bind(&pointer.table)
            .execute(session)
            .await?;
        let pointer = Some((pointer.table.as_str(), pointer.metadata_location.as_str(), pointer.publication));
        events.push(Event { kind, product, pointer, former });
    }
    events.extend(keys.iter().map(|key| Event::of_product(OutboxKind::Applied, key)));
    let first_evolved = first + events.len() as u64;
    for (sequence, table) in (first_evolved..).zip(&request.tables) {
        let Some(publication) = swap(session, table, sequence).await? else { return Ok(false) };
        let pointer = Some((table.table.as_str(), table.metadata_location.as_str(), publication));
        events.push(Event { kind: OutboxKind::Evolved, product: &table.product, pointer, former: None });
    }
    outbox::write(session, request.at, first, events).await?;
    Ok(true)
}

/// The publication whose rows the pointer serves. `None`: it is not where the plan saw it.
async fn swap(session: &mut Session, table: &TableEvolution, sequence: u64) -> Result<Option<u64>> {
    let moved = sql("UPDATE tables SET metadata_location = $1, metadata = $2, sequence = $3
                     WHERE domain = $4 AND product = $5 AND major = $6 AND table_name = $7
                     AND metadata_location = $8 RETURNING publication")
    .bind(&table.metadata_location)
    .bind(&table.metadata)
    .bind(sequence)
    .bind(&table.product.domain)
    .bind(&table.product.product)
    .bind(table.product.major)
    .bind(&table.table)
    .bind(&table.expected)
    .fetch_optional(session)
    .await?;
    moved.map(|row| row.number("publication")).transpose()
}
