//! Measures decisions over a made-up mesh of 10,000 products, 200 policies and 100,000 grants, and prints JSON.
//!
//! `bench_decide [PRODUCTS] [POLICIES] [GRANTS] [QUESTIONS]`

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Instant;

use chrono::{DateTime, Utc};
use datamesh_core::access::{Governance, Grant, PolicyFile};
use datamesh_core::contract::DataProduct;
use datamesh_core::decision::{Action, Outcome};
use datamesh_core::domain::Domain;
use datamesh_core::protection::protections;
use datamesh_policy::{Change, Context, Grants, Policies, Resource};
use serde_json::{Value, json};

const DOMAINS: usize = 50;
const USERS: usize = 1000;
const ROLES: usize = 20;

/// Numbers that look random and are the same each time (Vigna, SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

fn governance(policies: usize) -> Result<Governance, serde_json::Error> {
    let roles: Vec<Value> = (0..ROLES)
        .map(|at| json!({"name": format!("role-{at}"), "includes": if at > 10 { vec![format!("role-{}", at - 10)] } else { vec![] }}))
        .collect();
    let principals: Vec<Value> = (0..USERS)
        .map(|at| {
            json!({"kind": "user", "name": format!("user-{at}"),
                   "roles": [format!("role-{}", at % ROLES), format!("role-{}", (at / 7) % ROLES)],
                   "attributes": {"country": {"string": "NO"}, "level": {"long": at % 5}}})
        })
        .collect();
    let mut governance: Governance = serde_json::from_value(json!({
        "format": 1, "owner": "platform", "roles": roles, "principals": principals,
        "attributes": {"country": "string", "level": "long"},
    }))?;
    // A quarter binds the mesh, the others are the domains'.
    governance.policies = (0..policies)
        .map(|at| {
            let domain = (at % 4 != 0).then(|| format!("domain_{}", at % DOMAINS));
            let text = match at % 8 {
                0 => format!("permit (principal in Role::\"role-{}\", action == Action::\"describe\", resource) when {{ context.door == \"door-{at}\" }};", at % ROLES),
                1 => format!("permit (principal, action == Action::\"read\", resource is Table) when {{ principal has level && principal.level > {} }};", at % 7),
                2 => "forbid (principal, action == Action::\"read\", resource is Column) when { resource.pii && resource.tags.contains(\"secret\") };".to_owned(),
                3 => format!("permit (principal in Role::\"role-{}\", action == Action::\"readUnmasked\", resource is Column) when {{ resource.sensitivity < 4 }};", at % ROLES),
                4 => format!("forbid (principal, action in [Action::\"read\", Action::\"readUnmasked\"], resource) when {{ context has purpose && context.purpose == \"p{at}\" }};"),
                5 => format!("@severity(\"warn\") forbid (principal, action in [Action::\"publish\", Action::\"apply\"], resource is Column) when {{ resource.name == \"bad{at}\" }};"),
                6 => "@severity(\"advise\") forbid (principal, action in [Action::\"publish\", Action::\"apply\"], resource is Table) unless { resource.hasKey };".to_owned(),
                _ => "forbid (principal, action == Action::\"read\", resource is Table) when { context.time > datetime(\"2099-01-01\") };".to_owned(),
            };
            PolicyFile { domain, path: format!("policies/{at}.cedar"), text: format!("@id(\"p{at}\") {text}") }
        })
        .collect();
    Ok(governance)
}

fn product(at: usize) -> Result<DataProduct, serde_json::Error> {
    let columns: Vec<Value> = (0..16)
        .map(|column| match column {
            0 => json!({"name": "id", "type": "long", "primary_key": true, "description": "The key."}),
            1 => json!({"name": "email", "type": "string", "pii": true, "mask": "hash", "description": "The address."}),
            2 => json!({"name": "phone", "type": "string", "pii": true, "description": "The number."}),
            3 => json!({"name": "secret", "type": "string", "declared": {"classification": "restricted"}}),
            _ => json!({"name": format!("column_{column}"), "type": if column % 2 == 0 { "double" } else { "string" },
                        "description": format!("Column {column} of product {at}.")}),
        })
        .collect();
    let tables: Vec<Value> = (0..2)
        .map(|table| json!({"name": format!("table-{table}"), "description": "One row a thing.", "columns": columns}))
        .collect();
    let offers: Vec<Value> = (0..4)
        .map(|offer| {
            let role = format!("role-{}", (at + offer * 3) % ROLES);
            match offer {
                0 => json!({"role": role, "rows": "column_5 = principal.country"}),
                1 => json!({"role": role, "unmasked": ["email"]}),
                2 => json!({"role": role, "columns": ["id", "email", "column_4"]}),
                _ => json!({"role": role, "tables": ["table-1"]}),
            }
        })
        .collect();
    let domain = format!("domain-{}", at % DOMAINS);
    serde_json::from_value(json!({
        "format": 1, "id": {"domain": domain, "product": format!("product-{at}")}, "version": "1.2.0",
        "owner": format!("{domain}-team"), "status": "active", "description": "A product.", "tables": tables,
        "declared": {"access": offers, "sla": {"freshness": "1d"}, "classification": "internal",
                     "ports": [{"name": "files", "type": "parquet", "description": "Files."}]},
    }))
}

/// 50th and 99th percentile and the largest, in microseconds.
fn percentiles(mut nanos: Vec<u128>) -> Value {
    nanos.sort_unstable();
    let at = |share: f64| {
        let place = ((nanos.len() as f64 * share) as usize).min(nanos.len().saturating_sub(1));
        nanos.get(place).map_or(0.0, |nanos| *nanos as f64 / 1000.0)
    };
    json!({"p50": at(0.5), "p99": at(0.99), "max": at(1.0)})
}

fn main() -> Result<(), Box<dyn Error>> {
    let numbers: Vec<usize> = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
    let number = |at: usize, otherwise: usize| numbers.get(at).copied().unwrap_or(otherwise);
    let (products, policy_count, grant_count, questions) =
        (number(0, 10_000), number(1, 200), number(2, 100_000), number(3, 20_000));
    let now: DateTime<Utc> = "2026-05-04T10:00:00Z".parse()?;
    let mut random = Random(7);

    let domains: Vec<Domain> = (0..DOMAINS)
        .map(|at| {
            let members: Vec<Value> =
                (0..10).map(|member| json!({"username": format!("user-{}", at * 10 + member)})).collect();
            let owner = format!("domain-{at}-team");
            json!({"name": format!("domain-{at}"), "owner": owner, "teams": [{"name": owner, "members": members}]})
        })
        .map(serde_json::from_value)
        .collect::<Result<_, _>>()?;
    let governance = governance(policy_count)?;
    let contracts: Vec<DataProduct> = (0..products).map(product).collect::<Result<_, _>>()?;
    let grants = Grants::new((0..grant_count).map(|at| {
        let contract = &contracts[random.below(products)];
        Grant {
            number: at as u64,
            request: at as u64,
            principal: format!("user:user-{}", random.below(USERS)),
            product: contract.key(),
            tables: Default::default(),
            role: format!("role-{}", random.below(ROLES)),
            purpose: None,
            granted_at: now,
            approved_by: Vec::new(),
            expires_at: None,
            revoked: None,
        }
    }));

    let started = Instant::now();
    let policies = Policies::compile(&governance, &domains)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    let compiled = started.elapsed();
    let started = Instant::now();
    Policies::load(&governance, &domains).map_err(|problems| format!("{} problems", problems.len()))?;
    let loaded = started.elapsed();

    let context = Context::new(now, "query");
    let nothing = BTreeMap::new();
    let (mut decide, mut read, mut allowed, mut seen, mut most) = (Vec::new(), Vec::new(), 0, 0, 0);
    let actions = [Action::Describe, Action::Publish, Action::Apply, Action::Discover];
    // Whoever holds a grant asks for what it is for in every second question, so that reads have several ways.
    for question in 0..questions {
        let contract = &contracts[random.below(products)];
        let table = &contract.tables[random.below(2)];
        let id = format!("user-{}", random.below(USERS));
        let started = Instant::now();
        let principal = policies.principal_of(&id, false)?;
        let action = actions[question % actions.len()];
        let decision = policies.decide(&principal, action, Resource::Product(contract), &context);
        decide.push(started.elapsed().as_nanos());
        allowed += usize::from(decision.is_allowed());

        let held = if question % 2 == 0 {
            Grants::new((0..3).map(|offer| Grant {
                number: offer as u64,
                request: 0,
                principal: principal.id.clone(),
                product: contract.key(),
                tables: Default::default(),
                role: principal.roles.iter().nth(offer % principal.roles.len().max(1)).cloned().unwrap_or_default(),
                purpose: None,
                granted_at: now,
                approved_by: Vec::new(),
                expires_at: None,
                revoked: None,
            }))
        } else {
            Grants::default()
        };
        let grants = if question % 2 == 0 { &held } else { &grants };
        let started = Instant::now();
        let principal = policies.principal_of(&id, false)?;
        let protections = protections(contract, table, &nothing);
        let decision = policies.read_table(&principal, contract, table, &protections, grants, &context);
        read.push(started.elapsed().as_nanos());
        seen += usize::from(decision.outcome() == Outcome::Allow);
        most = most.max(decision.ways.len());
        if let Some(error) = decision.errors.first() {
            return Err(format!("{}: {}", error.id, error.message).into());
        }
    }

    let context = Context::new(now, "check");
    let principal = policies.principal_of("user-0", false)?;
    let started = Instant::now();
    let changes: Vec<(&DataProduct, Change)> = contracts.iter().map(|contract| (contract, Change::publish())).collect();
    let found = policies.judge_all(&principal, &changes, &context, std::thread::available_parallelism()?);
    let findings: usize = found.iter().map(Vec::len).sum();
    let judged = started.elapsed();

    let report = json!({
        "products": products, "policies": policies.rules().len(), "grants": grant_count, "questions": questions,
        "compileMillis": compiled.as_secs_f64() * 1e3, "loadMillis": loaded.as_secs_f64() * 1e3,
        "decideMicros": percentiles(decide), "decideAllowed": allowed,
        "readTableMicros": percentiles(read), "readTableAllowed": seen, "mostWays": most,
        "judgeSeconds": judged.as_secs_f64(), "findings": findings,
    });
    println!("{report:#}");
    Ok(())
}
