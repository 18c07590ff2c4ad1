//! What can be told of domains only when the whole mesh is known.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use datamesh_core::domain::{Domain, Term, contradiction, folded_term};
use datamesh_core::ownership::named_owners;
use datamesh_core::{DataProduct, Diagnostic, Level, Result};

use super::{contradiction_text, entries, items};
use crate::from::problem;
use crate::mesh::{Mesh, locate_by};
use crate::shape::closest;
use crate::yaml::{Node, Span};

/// Where something stands in a document.
type Place<'m> = Box<dyn Fn(&Node) -> Option<Span> + 'm>;
/// A domain in its folder, and one of its relationships.
type Declared<'m> = (&'m PathBuf, &'m Domain, usize);

/// A problem and where it stands.
struct Found<'m> {
    id: &'static str,
    level: Level,
    message: String,
    help: String,
    file: PathBuf,
    place: Place<'m>,
}

/// Checks what the domains of a whole mesh say of each other, of products and of teams, and adds what is wrong to the
/// mesh's problems. `known` are contracts of products that have no manifest here, such as the registry's.
///
/// # Errors
/// Manifests that can no longer be read.
pub fn check_domains(mesh: &mut Mesh, known: &[DataProduct]) -> Result<()> {
    for (diagnostic, source) in domain_problems(mesh, known)? {
        mesh.report(diagnostic, source);
    }
    Ok(())
}

/// What [`check_domains`] adds, each with the text of its file.
///
/// # Errors
/// Manifests that can no longer be read.
pub fn domain_problems(mesh: &Mesh, known: &[DataProduct]) -> Result<Vec<(Diagnostic, String)>> {
    let mut found = teams(mesh);
    found.extend(owners(mesh));
    found.extend(links(mesh, known));
    found.extend(relationships(mesh, known));
    found.extend(meanings(mesh));
    let mut located = Vec::new();
    for problem in found {
        let (location, source) = locate_by(&problem.file, |root| (problem.place)(root))?;
        let help = Some(problem.help).filter(|help| !help.is_empty());
        let diagnostic = Diagnostic { id: problem.id, level: problem.level, message: problem.message, help, location };
        located.push((diagnostic, source));
    }
    Ok(located)
}

fn file_of(folder: &Path) -> PathBuf {
    folder.join("domain.yaml")
}

fn did_you_mean(wanted: &str, names: &BTreeSet<String>, otherwise: &str) -> String {
    match closest(wanted, names.iter().map(String::as_str)) {
        Some(name) => format!("did you mean `{name}`?"),
        None => otherwise.to_owned(),
    }
}

/// The files that declare teams, with the names: the mesh's first.
fn declared_teams(mesh: &Mesh) -> Vec<(PathBuf, usize, &str)> {
    let own = mesh.settings.iter().map(|(file, settings)| (file.clone(), &settings.teams));
    let files = own.chain(mesh.domains.iter().map(|(folder, domain)| (file_of(folder), &domain.teams)));
    files
        .flat_map(|(file, teams)| {
            teams.iter().enumerate().map(move |(index, team)| (file.clone(), index, team.name.as_str()))
        })
        .collect()
}

/// Teams that two files declare.
fn teams(mesh: &Mesh) -> Vec<Found<'_>> {
    let mut first: BTreeMap<&str, PathBuf> = BTreeMap::new();
    let mut found = Vec::new();
    for (file, index, name) in declared_teams(mesh) {
        match first.get(name) {
            None => {
                first.insert(name, file);
            }
            Some(other) => found.push(Found {
                id: "duplicate-team",
                level: Level::Error,
                message: format!("team `{name}` is declared in `{}` too", other.display()),
                help: "declare each team once; an `owner` may name the teams of any domain".to_owned(),
                file,
                place: Box::new(move |root| Some(items(root, "teams").get(index)?.get("name")?.span)),
            }),
        }
    }
    found
}

/// Owners that are no declared team, where any is declared.
fn owners(mesh: &Mesh) -> Vec<Found<'_>> {
    let names: BTreeSet<String> = declared_teams(mesh).into_iter().map(|(_, _, name)| name.to_owned()).collect();
    if names.is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut unknown = |owner: &str, of: String, file: PathBuf, path: Vec<String>| {
        if names.contains(owner) {
            return;
        }
        found.push(Found {
            id: "unknown-team",
            level: Level::Warning,
            message: format!("the owner of {of} is `{owner}`, which is no declared team"),
            help: did_you_mean(owner, &names, "declare it below `teams:` in mesh.yaml or in a domain.yaml"),
            file,
            place: Box::new(move |root| owner_span(root, &path)),
        });
    };
    if let Some((file, settings)) = &mesh.settings
        && let Some(owner) = &settings.owner
    {
        unknown(owner, "the mesh".to_owned(), file.clone(), Vec::new());
    }
    for (folder, domain) in &mesh.domains {
        unknown(&domain.owner, format!("domain `{}`", domain.name), file_of(folder), Vec::new());
    }
    for loaded in &mesh.products {
        let contract = &loaded.contract;
        unknown(&contract.owner, format!("`{}`", contract.id), loaded.path.clone(), Vec::new());
        // The same name on many columns is one mistake.
        let mut told = BTreeSet::from([contract.owner.as_str()]);
        for (path, owner) in named_owners(contract) {
            if told.insert(owner) {
                let parts = path.split('.').map(str::to_owned).collect();
                unknown(owner, format!("`{}.{path}`", contract.id), loaded.path.clone(), parts);
            }
        }
    }
    found
}

/// Where the owner of a document, or of the table and column at `path` in a manifest, stands.
fn owner_span(root: &Node, path: &[String]) -> Option<Span> {
    let named = |entries: &[Node], name: &str| {
        entries.iter().position(|entry| entry.get("name").and_then(Node::text).map(str::trim) == Some(name))
    };
    let mut node = root.get("dataProduct").unwrap_or(root);
    for (depth, name) in path.iter().enumerate() {
        let entries = if depth == 0 {
            items(node, "schema")
        } else {
            // Fields stand below a struct's columns, or below those of an array's items.
            let mut holder = node;
            while let (None, Some(inner)) = (holder.get("columns"), holder.get("items")) {
                holder = inner;
            }
            items(holder, "columns")
        };
        node = &entries[named(entries, name)?];
    }
    Some(node.get("owner")?.span)
}

/// Columns of terms that are not there.
fn links<'m>(mesh: &'m Mesh, known: &[DataProduct]) -> Vec<Found<'m>> {
    let complete = !mesh.has_errors();
    let products: Vec<&DataProduct> = mesh.products.iter().map(|loaded| &loaded.contract).chain(known).collect();
    let mut found = Vec::new();
    for (folder, domain) in &mesh.domains {
        for (term_index, term) in domain.terms.iter().enumerate() {
            for (column_index, column) in term.columns.iter().enumerate() {
                let Some((message, help)) = problem(column, &products, complete) else { continue };
                found.push(Found {
                    id: "unknown-column-link",
                    level: Level::Error,
                    message: format!("the term `{}` is linked to {message}", term.term),
                    help,
                    file: file_of(folder),
                    place: Box::new(move |root| {
                        let term = items(root, "terms").get(term_index)?;
                        entries(term, "columns").get(column_index).map(|node| node.span)
                    }),
                });
            }
        }
    }
    found
}

/// Relationships to domains and about products that nobody knows, and those that contradict each other.
fn relationships<'m>(mesh: &'m Mesh, known: &[DataProduct]) -> Vec<Found<'m>> {
    let complete = !mesh.has_errors();
    let products = || mesh.products.iter().map(|loaded| &loaded.contract).chain(known);
    let domains: BTreeMap<String, String> = mesh
        .domains
        .iter()
        .map(|(_, domain)| &domain.name)
        .chain(products().map(|contract| &contract.id.domain))
        .map(|name| (name.sql(), name.to_string()))
        .collect();
    let names: BTreeSet<String> = domains.values().cloned().collect();
    let ids: BTreeMap<(String, String), String> = products()
        .map(|contract| ((contract.id.domain.sql(), contract.id.product.sql()), contract.id.to_string()))
        .collect();
    let id_names: BTreeSet<String> = ids.values().cloned().collect();
    let mut found = Vec::new();
    let mut by_pair: BTreeMap<(String, String), Vec<Declared<'_>>> = BTreeMap::new();
    for (folder, domain) in &mesh.domains {
        for (index, relationship) in domain.relationships.iter().enumerate() {
            let other = relationship.domain.sql();
            if !domains.contains_key(&other) {
                if complete {
                    let wanted = relationship.domain.as_str();
                    found.push(Found {
                        id: "unknown-domain",
                        level: Level::Error,
                        message: format!("there is no domain `{wanted}` in this mesh"),
                        help: did_you_mean(wanted, &names, "relationships are to domains of this mesh"),
                        file: file_of(folder),
                        place: Box::new(move |root| at_relationship(root, index, "domain")),
                    });
                }
                continue;
            }
            for (product_index, product) in relationship.products.iter().enumerate() {
                if complete && !ids.contains_key(&(product.domain.sql(), product.product.sql())) {
                    found.push(Found {
                        id: "unknown-product",
                        level: Level::Error,
                        message: format!("there is no product `{product}` in this mesh"),
                        help: did_you_mean(&product.to_string(), &id_names, "name a product of the upstream domain"),
                        file: file_of(folder),
                        place: Box::new(move |root| {
                            let relationship = items(root, "relationships").get(index)?;
                            entries(relationship, "products").get(product_index).map(|node| node.span)
                        }),
                    });
                }
            }
            let own = domain.name.sql();
            let pair = if own <= other { (own, other) } else { (other, own) };
            let earlier = by_pair.entry(pair).or_default();
            // Within one file contradictions are told when it is read.
            let clash = earlier.iter().filter(|(file, ..)| *file != folder).find_map(|(_, by, at)| {
                let clash = contradiction((&by.name, &by.relationships[*at]), (&domain.name, relationship));
                clash.map(|clash| (clash, by))
            });
            if let Some((clash, by)) = clash {
                let (message, help) = contradiction_text(clash, &domain.name, &by.name);
                found.push(Found {
                    id: "contradictory-relationship",
                    level: Level::Error,
                    message: format!("{message}: the domain.yaml of `{}` says otherwise", by.name),
                    help: help.to_owned(),
                    file: file_of(folder),
                    place: Box::new(move |root| at_relationship(root, index, "domain")),
                });
            }
            earlier.push((folder, domain, index));
        }
    }
    found
}

fn at_relationship(root: &Node, index: usize, key: &str) -> Option<Span> {
    Some(items(root, "relationships").get(index)?.get(key)?.span)
}

/// Words that two domains define differently: that is what bounded contexts are for, and worth knowing.
fn meanings(mesh: &Mesh) -> Vec<Found<'_>> {
    let mut first: BTreeMap<String, (&Domain, &Term)> = BTreeMap::new();
    let mut found = Vec::new();
    for (folder, domain) in &mesh.domains {
        for (index, term) in domain.terms.iter().enumerate() {
            let folded = folded_term(&term.term);
            match first.get(&folded) {
                None => {
                    first.insert(folded, (domain, term));
                }
                Some((other, known)) if known.definition != term.definition => found.push(Found {
                    id: "term-differs",
                    level: Level::Note,
                    message: format!("`{}` means something else in `{}`: {}", term.term, other.name, known.definition),
                    help: String::new(),
                    file: file_of(folder),
                    place: Box::new(move |root| Some(items(root, "terms").get(index)?.get("term")?.span)),
                }),
                Some(_) => {}
            }
        }
    }
    found
}
