//! What can be told of waivers and tests only when the whole mesh is known: whether what they are about exists.

use std::collections::BTreeSet;
use std::path::PathBuf;

use datamesh_core::policy_test::ResourceName;
use datamesh_core::{DataProduct, Diagnostic, Level, Result, access};

use crate::governance::meant;
use crate::mesh::{Mesh, locate_by};
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
    let teams: BTreeSet<&str> = mesh
        .settings
        .iter()
        .flat_map(|(_, settings)| &settings.teams)
        .chain(mesh.domains.iter().flat_map(|(_, domain)| &domain.teams))
        .map(|team| team.name.as_str())
        .collect();
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
        let problem = ResourceName::parse(&waiver.resource).ok().and_then(|resource| unknown(mesh, &resource));
        if let Some((message, help)) = problem {
            tell("unknown-resource", "resource", message, help);
        }
    }
    for (file, entry, case) in located(&mesh.policy_cases, &mesh.case_files) {
        let mut tell = |id, key, message, help| {
            found.push(Found { id, level: Level::Error, message, help, file: file.clone(), list: "tests", entry, key });
        };
        if let Some((message, help)) = unknown(mesh, &case.resource) {
            tell("unknown-resource", "resource", message, help);
            continue;
        }
        let offered: BTreeSet<String> = of(mesh, &case.resource)
            .filter_map(|contract| access::offers(contract).ok())
            .flatten()
            .map(|offer| offer.role)
            .collect();
        for grant in case.grants.iter().filter(|grant| !offered.contains(&grant.role)) {
            let message = format!("the product offers nothing to a role `{}`", grant.role);
            let names = offered.iter().map(String::as_str);
            tell("unknown-role", "grants", message, meant(&grant.role, names, "name a role of its `access:`"));
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

/// The major versions of the product that a resource is or lies in.
fn of<'m>(mesh: &'m Mesh, resource: &ResourceName) -> impl Iterator<Item = &'m DataProduct> {
    let wanted = resource.product().map(|product| product.key(0));
    let contracts = mesh.products.iter().map(|loaded| &loaded.contract);
    contracts.filter(move |contract| wanted.as_ref().is_some_and(|wanted| contract.id.key(0) == *wanted))
}

/// Why there is no such resource, and what helps.
fn unknown(mesh: &Mesh, resource: &ResourceName) -> Option<(String, String)> {
    let contracts = || mesh.products.iter().map(|loaded| &loaded.contract);
    let domain = resource.domain()?;
    let domains: BTreeSet<&str> = mesh
        .domains
        .iter()
        .map(|(_, domain)| domain.name.as_str())
        .chain(contracts().map(|contract| contract.id.domain.as_str()))
        .collect();
    let same = |name: &&str| name.to_ascii_lowercase().replace('-', "_") == domain.sql();
    if !domains.iter().any(same) {
        let help = meant(domain.as_str(), domains.iter().copied(), "name a domain of this mesh");
        return Some((format!("there is no domain `{domain}` in this mesh"), help));
    }
    let product = resource.product()?;
    let majors: Vec<&DataProduct> = of(mesh, resource).collect();
    if majors.is_empty() {
        let ids: Vec<String> = contracts().map(|contract| contract.id.to_string()).collect();
        let help = meant(&product.to_string(), ids.iter().map(String::as_str), "name a product of this mesh");
        return Some((format!("there is no product `{product}` in this mesh"), help));
    }
    let (ResourceName::Table(_, table) | ResourceName::Column(_, table, _)) = resource else { return None };
    let all = || majors.iter().flat_map(|contract| &contract.tables);
    let tables: Vec<_> = all().filter(|known| known.name.sql() == table.sql()).collect();
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
