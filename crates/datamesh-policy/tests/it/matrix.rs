//! Who may do what in the demo mesh: role × action × resource, against the checked-in answers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use datamesh_core::access::Grant;
use datamesh_core::contract::DataProduct;
use datamesh_core::decision::Action;
use datamesh_core::protection::protections;
use datamesh_manifest::Mesh;
use datamesh_policy::{Context, Grants, Policies, RequestFacts, ResolvedPrincipal, Resource};

/// Set, the answers are written anew; look at what changed before it is committed.
const WRITE: &str = "DATAMESH_WRITE_MATRIX";

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/flights")
}

fn now() -> DateTime<Utc> {
    "2026-05-04T10:00:00Z".parse().expect("a time")
}

/// Those who ask, each with what it is, whether the mesh's folder is theirs, and the role of their grant of customer-360.
const ASKERS: &[(&str, &str, bool, Option<&str>)] = &[
    ("user:olive", "owns the folder of the embedded mesh", true, None),
    ("user:imarchetti", "platform team", false, None),
    ("user:mokafor", "customer team: owns customer-360, approves", false, None),
    ("user:glindqvist", "fleet team", false, None),
    ("user:amira", "analyst, nothing granted", false, None),
    ("user:amira", "analyst, granted", false, Some("analyst")),
    ("user:jonas", "crm-support, granted", false, Some("crm-support")),
    ("user:jonas", "crm-support, with a grant for a role that he does not have", false, Some("analyst")),
    ("team:punctuality", "a domain that reads its inputs", false, None),
    ("user:stranger", "nobody that the mesh knows", false, None),
    ("service:crawler", "a service that the mesh knows nothing of", false, None),
];

fn grants(principal: &ResolvedPrincipal, contract: &DataProduct, role: Option<&str>) -> Grants {
    let granted = role.map(|role| Grant {
        number: 1,
        request: 1,
        principal: principal.id.clone(),
        product: contract.key(),
        tables: BTreeSet::new(),
        role: role.to_owned(),
        purpose: None,
        granted_at: now(),
        approved_by: vec!["user:mokafor".to_owned()],
        expires_at: None,
        revoked: None,
    });
    Grants::new(granted)
}

/// The resources, each with what it is called: the mesh, all domains and products, customer-360 with all of its parts, and
/// a table and a column of a product that is open.
fn resources<'a>(mesh: &'a Mesh, request: &'a RequestFacts, paths: &'a [Vec<String>]) -> Vec<(String, Resource<'a>)> {
    let mut all = vec![("mesh".to_owned(), Resource::Mesh)];
    all.extend(mesh.domains.iter().map(|(_, domain)| (domain.name.to_string(), Resource::Domain(&domain.name))));
    let contracts: Vec<&DataProduct> = mesh.products.iter().map(|product| &product.contract).collect();
    all.extend(contracts.iter().map(|contract| (contract.id.to_string(), Resource::Product(contract))));
    for contract in contracts {
        let whole = contract.id.product.as_str() == "customer-360";
        for table in contract.tables.iter().take(if whole { usize::MAX } else { 1 }) {
            let name = format!("{}.{}", contract.id, table.name);
            all.push((name.clone(), Resource::Table(contract, table)));
            let columns = table.columns.iter().take(if whole { usize::MAX } else { 1 });
            all.extend(columns.filter_map(|column| {
                let path = paths.iter().find(|path| path[..] == [column.name.clone()])?;
                Some((format!("{name}.{}", column.name), Resource::Column(contract, table, path)))
            }));
        }
        if whole {
            all.push((format!("{} request 1 of user:amira", contract.id), Resource::Request(contract, request)));
        }
    }
    all
}

fn matrix(mesh: &Mesh) -> String {
    let domains: Vec<_> = mesh.domains.iter().map(|(_, domain)| domain.clone()).collect();
    let policies = match Policies::compile(&mesh.governance(), &domains) {
        Ok(policies) => policies,
        Err(problems) => panic!("the demo's policies do not compile: {problems:?}"),
    };
    let paths: BTreeSet<Vec<String>> = mesh
        .products
        .iter()
        .flat_map(|product| &product.contract.tables)
        .flat_map(|table| table.columns.iter().map(|column| vec![column.name.clone()]))
        .collect();
    let paths: Vec<Vec<String>> = paths.into_iter().collect();
    let request = RequestFacts {
        number: 1,
        requester: "user:amira".to_owned(),
        principal: "user:amira".to_owned(),
        role: "analyst".to_owned(),
        approvers: vec!["customer-domain".to_owned()],
        ..RequestFacts::default()
    };
    let resources = resources(mesh, &request, &paths);
    let context = Context::new(now(), "query");
    let mut text = String::from(
        "# Who may do what in the demo mesh. For each who asks: the resources and, for each action that is allowed, the\n\
         # policies that allow it; what is not written is denied. `sees` is what a query shows of a table.\n\
         # A test compares it; with DATAMESH_WRITE_MATRIX=1 it writes it anew.\n",
    );
    for (id, what, owns, role) in ASKERS {
        let principal = policies.principal_of(id, *owns).expect("a principal");
        writeln!(text, "\n{id}: {what}").expect("memory");
        for (name, resource) in &resources {
            let mut allowed = Vec::new();
            for action in Action::ALL {
                let decision = policies.decide(&principal, action, *resource, &context);
                if decision.is_allowed() {
                    allowed.push(format!("{} ({})", action.as_str(), decision.policy_ids().join(", ")));
                }
            }
            let allowed = if allowed.is_empty() { "-".to_owned() } else { allowed.join(", ") };
            writeln!(text, "  {name}: {allowed}").expect("memory");
            if let Resource::Table(contract, table) = resource {
                let protections = protections(contract, table, &BTreeMap::new());
                let grants = grants(&principal, contract, *role);
                let seen = policies.read_table(&principal, contract, table, &protections, &grants, &context);
                writeln!(text, "    sees {}", seen.access).expect("memory");
            }
        }
    }
    text
}

#[test]
fn the_demo_answers_as_it_is_written_down() {
    let mesh = datamesh_manifest::load_mesh(&demo()).expect("the demo");
    assert!(!mesh.has_errors(), "{:?}", mesh.diagnostics);
    let found = matrix(&mesh);
    let path = demo().join("access-matrix.txt");
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, &found).expect("it is written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    for (at, (found, kept)) in found.lines().zip(kept.lines()).enumerate() {
        assert_eq!(found, kept, "line {} of {}", at + 1, path.display());
    }
    assert_eq!(found.lines().count(), kept.lines().count());
}
