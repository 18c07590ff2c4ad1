//! What can be told of waivers and tests only when the whole mesh is known: whether what they are about exists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use datamesh_core::access::{PrincipalKind, PrincipalProfile, parse_principal};
use datamesh_core::domain::Team;
use datamesh_core::policy_test::ResourceName;
use datamesh_core::{DataProduct, Diagnostic, Level, ProductId, ProductKey, Result, Table, access};

use crate::governance::meant;
use crate::mesh::{Mesh, locate_by};
use crate::shape::closest;
use crate::yaml::Node;

/// A problem with an entry of a list in a file.
struct Found {
    id: &'static str,
    level: Level,
    message: String,
    help: String,
    file: PathBuf,
    list: &'static str,
    entry: usize,
    key: &'static str,
}

/// Checks what waivers and tests are about. In a mesh with errors nobody can tell what exists.
pub(crate) fn check(mesh: &mut Mesh) -> Result<()> {
    if mesh.has_errors() {
        return Ok(());
    }
    let mut found = Vec::new();
    let known = Known::of(mesh);
    let teams = &known.teams;
    for (file, entry, waiver) in located(&mesh.waivers, &mesh.waiver_files) {
        let mut tell = |id, key, message, help| {
            found.push(Found {
                id,
                level: Level::Warning,
                message,
                help,
                file: file.clone(),
                list: "waivers",
                entry,
                key,
            });
        };
        if !teams.is_empty() && !teams.contains(waiver.owner.as_str()) {
            let message = format!("the waiver's owner is `{}`, which is no declared team", waiver.owner);
            let help = "declare it below `teams:` in mesh.yaml or in a domain.yaml";
            tell("unknown-team", "owner", message, meant(&waiver.owner, teams.iter().copied(), help));
        }
        let problem = ResourceName::parse(&waiver.resource).ok().and_then(|resource| known.unknown(&resource));
        if let Some((message, help)) = problem {
            tell("unknown-resource", "resource", message, help);
        }
    }
    for (file, entry, case) in located(&mesh.policy_cases, &mesh.case_files) {
        let mut tell = |id, level, key, message, help| {
            found.push(Found { id, level, message, help, file: file.clone(), list: "tests", entry, key });
        };
        if let Some((message, help)) = known.nobody(&case.test.principal) {
            tell("unknown-principal", Level::Warning, "principal", message, help);
        }
        let Ok(resource) = ResourceName::parse(&case.test.resource) else { continue };
        if let Some((message, help)) = known.unknown(&resource) {
            tell("unknown-resource", Level::Error, "resource", message, help);
            continue;
        }
        let majors = resource.product().map(|product| known.majors(product)).unwrap_or_default();
        let offered: BTreeSet<String> = majors
            .iter()
            .filter_map(|contract| access::offers(contract).ok())
            .flatten()
            .map(|offer| offer.role)
            .collect();
        for grant in case.test.context.grants.iter().filter(|grant| !offered.contains(&grant.role)) {
            let message = format!("the product offers nothing to a role `{}`", grant.role);
            let help = meant(&grant.role, offered.iter().map(String::as_str), "name a role of its `access:`");
            tell("unknown-role", Level::Error, "grants", message, help);
        }
    }
    for problem in found {
        let Found { id, level, message, help, file, list, entry, key } = problem;
        let (location, source) = locate_by(&file, |root: &Node| {
            let entry = root.get(list)?.items()?.get(entry)?;
            Some(entry.get(key).unwrap_or(entry).span)
        })?;
        mesh.report(Diagnostic { id, level, message, help: Some(help), location }, source);
    }
    Ok(())
}

/// What was read of several files, each with its file and its place there. In files without errors nothing was left out.
fn located<'m, T>(all: &'m [T], files: &'m [(PathBuf, usize)]) -> impl Iterator<Item = (&'m PathBuf, usize, &'m T)> {
    let places = files.iter().flat_map(|(file, count)| (0..*count).map(move |entry| (file, entry)));
    places.zip(all).map(|((file, entry), item)| (file, entry, item))
}

/// What there is in a mesh.
struct Known<'m> {
    /// Names of domains as written, by how SQL spells them.
    domains: BTreeMap<String, &'m str>,
    /// The major versions of each product.
    products: BTreeMap<ProductKey, Vec<&'m DataProduct>>,
    teams: BTreeSet<&'m str>,
    /// Users and services with their kind before a colon.
    people: BTreeSet<String>,
    /// Roles that the mesh declares or a contract names.
    roles: BTreeSet<String>,
}

impl<'m> Known<'m> {
    fn of(mesh: &'m Mesh) -> Self {
        let contracts = || mesh.products.iter().map(|loaded| &loaded.contract);
        let mut products: BTreeMap<ProductKey, Vec<&DataProduct>> = BTreeMap::new();
        for contract in contracts() {
            products.entry(contract.id.key(0)).or_default().push(contract);
        }
        let settings = mesh.settings.as_ref().map(|(_, settings)| settings);
        let teams = settings.iter().flat_map(|settings| &settings.teams);
        let teams: Vec<&Team> = teams.chain(mesh.domains.iter().flat_map(|(_, domain)| &domain.teams)).collect();
        let members = teams.iter().flat_map(|team| &team.members);
        let members = members.flat_map(|member| [&member.username, &member.email]).flatten();
        let principals = settings.map(|settings| &settings.principals);
        let people = principals.iter().flat_map(|known| known.principals.iter().map(PrincipalProfile::id));
        let roles = principals.iter().flat_map(|known| known.roles.iter().map(|role| role.name.clone()));
        let offered = contracts().filter_map(|contract| access::offers(contract).ok()).flatten();
        Self {
            domains: mesh
                .domains
                .iter()
                .map(|(_, domain)| &domain.name)
                .chain(contracts().map(|contract| &contract.id.domain))
                .map(|name| (name.sql(), name.as_str()))
                .collect(),
            products,
            people: people.chain(members.map(|member| format!("user:{member}"))).collect(),
            roles: roles.chain(offered.map(|offer| offer.role)).collect(),
            teams: teams.iter().map(|team| team.name.as_str()).collect(),
        }
    }

    fn majors(&self, product: &ProductId) -> &[&'m DataProduct] {
        self.products.get(&product.key(0)).map(Vec::as_slice).unwrap_or_default()
    }

    /// Why a principal may be meant for another one. A user whom nobody declares is an outsider, which a test may be about.
    fn nobody(&self, principal: &str) -> Option<(String, String)> {
        let (kind, name) = parse_principal(principal).ok()?;
        let (is_known, similar) = match kind {
            PrincipalKind::Role => (self.roles.contains(name), closest(name, self.roles.iter().map(String::as_str))),
            PrincipalKind::Team => (self.teams.contains(name), closest(name, self.teams.iter().copied())),
            PrincipalKind::User | PrincipalKind::Service => {
                let of_kind = self.people.iter().filter_map(|id| id.split_once(':'));
                let of_kind = of_kind.filter(|(known, _)| *known == kind.as_str()).map(|(_, name)| name);
                (self.people.contains(principal), closest(name, of_kind))
            }
        };
        let outsider = matches!(kind, PrincipalKind::User | PrincipalKind::Service) && similar.is_none();
        if is_known || outsider {
            return None;
        }
        let help = match similar {
            Some(similar) => format!("did you mean `{}:{similar}`?", kind.as_str()),
            None => format!("declare the {}, or name another principal", kind.as_str()),
        };
        Some((format!("nothing in this mesh declares `{principal}`"), help))
    }

    /// Why there is no such resource, and what helps.
    fn unknown(&self, resource: &ResourceName) -> Option<(String, String)> {
        let domain = resource.domain()?;
        if !self.domains.contains_key(&domain.sql()) {
            let help = meant(domain.as_str(), self.domains.values().copied(), "name a domain of this mesh");
            return Some((format!("there is no domain `{domain}` in this mesh"), help));
        }
        let product = resource.product()?;
        let majors = self.majors(product);
        if majors.is_empty() {
            let ids: Vec<String> = self.products.values().flatten().map(|contract| contract.id.to_string()).collect();
            let help = meant(&product.to_string(), ids.iter().map(String::as_str), "name a product of this mesh");
            return Some((format!("there is no product `{product}` in this mesh"), help));
        }
        let (ResourceName::Table(_, table) | ResourceName::Column(_, table, _)) = resource else { return None };
        let all = || majors.iter().flat_map(|contract| &contract.tables);
        let tables: Vec<&Table> = all().filter(|known| known.name.sql() == table.sql()).collect();
        if tables.is_empty() {
            let help = meant(table.as_str(), all().map(|known| known.name.as_str()), "name a table of the product");
            return Some((format!("`{product}` has no table `{table}`"), help));
        }
        let ResourceName::Column(_, _, path) = resource else { return None };
        let column = path.join(".");
        if tables.iter().any(|table| access::find_column(table, &column).is_some_and(|(found, _)| found == *path)) {
            return None;
        }
        let names = tables.iter().flat_map(|table| &table.columns).map(|column| column.name.as_str());
        let help = meant(&column, names, "name a column of the table");
        Some((format!("table `{product}.{table}` has no column `{column}`"), help))
    }
}
