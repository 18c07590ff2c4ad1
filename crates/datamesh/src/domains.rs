//! `datamesh domains`: who is in the mesh, what they mean by their words, and how they lean on each other.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use datamesh_core::context_map::{
    ContextMap, Finding, MapDomain, MapInput, SourceClaim, context_map, mermaid, source_claims, svg, text, to_json,
};
use datamesh_core::decision::Action;
use datamesh_core::domain::{Domain, Relationship, Team};
use datamesh_core::ids::ProductKey;
use datamesh_core::lineage::{Dataset, Edge};
use datamesh_core::ownership::{OwnedPath, Ownership, named_owners};
use datamesh_core::{DataProduct, Error, ErrorCode, Result};
use datamesh_manifest::domain::check_domains;
use datamesh_manifest::{Mesh, load_mesh};
use serde_json::{Value, json};

use crate::cli::ReportFormat;
use crate::{EXIT_REJECTED, home, output};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct DomainsArguments {
    #[command(subcommand)]
    command: Option<DomainsCommand>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

#[derive(Debug, Subcommand)]
enum DomainsCommand {
    /// Show a domain: purpose, responsibilities, language, relationships, teams and products
    #[command(after_help = "Examples:\n  datamesh domains show weather\n  datamesh domains show weather --format json")]
    Show {
        /// The domain
        domain: String,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: ReportFormat,
    },
    /// Draw the context map from declared relationships and what products really read, and name what disagrees
    #[command(
        after_help = "Examples:\n  datamesh domains map\n  datamesh domains map --out context-map.svg\n  datamesh domains map --format mermaid\n  datamesh domains map --strict --format json\n\nWhat products really read are inputs, references, `from` of columns, and the lineage of what is published.\nMarks: U upstream, D downstream, C/S customer-supplier, OHS open host service, PL published language, CF conformist,\nACL anticorruption layer, SK shared kernel, P partnership, SW separate ways.\nWith --strict the exit code is 3 where something disagrees at warning level."
    )]
    Map {
        /// How to draw (default: by the name of --out, else text)
        #[arg(long, value_enum)]
        format: Option<MapFormat>,
        /// Write to a file
        #[arg(long, short, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Exit with 3 where there is a finding at warning level
        #[arg(long)]
        strict: bool,
    },
}

/// How a context map is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MapFormat {
    /// Links and findings for people.
    Text,
    /// Links and findings for machines.
    Json,
    /// A drawing.
    Svg,
    /// A Mermaid flow chart.
    Mermaid,
}

impl MapFormat {
    fn of_name(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "svg" => Some(Self::Svg),
            "mmd" | "mermaid" => Some(Self::Mermaid),
            "json" => Some(Self::Json),
            "txt" => Some(Self::Text),
            _ => None,
        }
    }
}

impl DomainsArguments {
    /// Whether errors are to be printed as JSON too.
    pub(crate) fn wants_json(&self) -> bool {
        match &self.command {
            None => self.format == ReportFormat::Json,
            Some(DomainsCommand::Show { format, .. }) => *format == ReportFormat::Json,
            Some(DomainsCommand::Map { format, .. }) => *format == Some(MapFormat::Json),
        }
    }
}

/// The manifests of a mesh beside what its registry knows.
struct Known {
    mesh: Mesh,
    domains: Vec<Domain>,
    ownership: Ownership,
    /// One contract for each major version: the manifest's where there is one, else the registry's.
    contracts: Vec<DataProduct>,
    lineage: Vec<Edge>,
    sources: Vec<SourceClaim>,
}

impl Known {
    async fn load(told: Option<&Path>) -> Result<Self> {
        let root = home::find(told)?;
        let mut mesh = load_mesh(&root)?;
        let (registered, lineage) = registered(&root, &mut mesh).await?;
        check_domains(&mut mesh, &registered)?;
        if mesh.has_errors() {
            output::print_problems(&mesh.diagnostics, &mesh.sources);
            return Err(Error::new(
                ErrorCode::InvalidManifest,
                "the domains cannot be told: there are files with errors",
            )
            .with_help("mend them; `datamesh check` lists all problems"));
        }
        let mut contracts: Vec<DataProduct> = mesh.products.iter().map(|loaded| loaded.contract.clone()).collect();
        let own: Vec<_> = contracts.iter().map(DataProduct::key).collect();
        contracts.extend(registered.into_iter().filter(|contract| !own.contains(&contract.key())));
        let folder = |path: &Path| path.parent().map(Path::to_owned).unwrap_or_default();
        let sources =
            mesh.products.iter().flat_map(|loaded| source_claims(&loaded.contract, &folder(&loaded.path))).collect();
        let domains = mesh.domains.iter().map(|(_, domain)| domain.clone()).collect();
        Ok(Self { ownership: mesh.ownership(), domains, contracts, lineage, sources, mesh })
    }

    fn map(&self) -> ContextMap {
        let products: Vec<&DataProduct> = self.contracts.iter().collect();
        context_map(&MapInput {
            domains: &self.domains,
            ownership: &self.ownership,
            products: &products,
            lineage: &self.lineage,
            sources: &self.sources,
        })
    }
}

/// The registry's contracts and lineage, where there is a registry: of products that whoever asks may find. Others are taken
/// out of the manifests too.
async fn registered(root: &Path, mesh: &mut Mesh) -> Result<(Vec<DataProduct>, Vec<Edge>)> {
    if !crate::registry::location(root)?.has_registry().await? {
        return Ok((Vec::new(), Vec::new()));
    }
    let context = home::context(root).await?;
    context.authorize_mesh(Action::Describe, json!({ "operation": "domains" })).await?;
    let catalog = context.registry.catalog().await?;
    let mut lineage = context.registry.lineage(None).await?;
    let rules = context.rules().await?;
    let actor = context.actor(&rules)?;
    let finds = |contract: &DataProduct| context.discovers(&rules, &actor, contract);
    let mut contracts: Vec<DataProduct> = catalog.into_iter().map(|product| product.revision.contract).collect();
    let hidden: BTreeSet<ProductKey> =
        contracts.iter().filter(|contract| !finds(contract)).map(DataProduct::key).collect();
    // What is applied decides, not a manifest that somebody may have changed since.
    let is_hidden = |contract: &DataProduct| hidden.contains(&contract.key()) || !finds(contract);
    mesh.products.retain(|loaded| !is_hidden(&loaded.contract));
    contracts.retain(|contract| !is_hidden(contract));
    lineage.retain(|edge| {
        [&edge.output, &edge.input].into_iter().all(|node| match &node.dataset {
            Dataset::Table { product, .. } => !hidden.contains(product),
            _ => true,
        })
    });
    Ok((contracts, lineage))
}

/// Runs the command.
pub(crate) async fn run(arguments: DomainsArguments, told: Option<&Path>) -> Result<u8> {
    let known = Known::load(told).await?;
    match arguments.command {
        None => list(&known.map(), arguments.format),
        Some(DomainsCommand::Show { domain, format }) => show(&known, &domain, format),
        Some(DomainsCommand::Map { format, out, strict }) => {
            let map = known.map();
            let format = format.or_else(|| MapFormat::of_name(out.as_deref()?)).unwrap_or(MapFormat::Text);
            let drawn = match format {
                MapFormat::Text => text(&map),
                MapFormat::Json => pretty(&to_json(&map))?,
                MapFormat::Svg => svg(&map, known.mesh.name.as_deref().unwrap_or("the mesh")),
                MapFormat::Mermaid => mermaid(&map),
            };
            match out {
                Some(path) => write(&path, &drawn)?,
                None => output::print(&drawn),
            }
            Ok(if strict && map.has_warnings() { EXIT_REJECTED } else { 0 })
        }
    }
}

fn pretty(value: &Value) -> Result<String> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::new(ErrorCode::Internal, "the map cannot be written").with_source(error))?;
    Ok(format!("{text}\n"))
}

/// Writes a file that appears whole or not at all.
fn write(path: &Path, text: &str) -> Result<()> {
    let failed = |error| Error::io(ErrorCode::WriteFailed, "write", path, error);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir()) {
        // Nothing can take the place of a device or a pipe.
        let mut file = std::fs::OpenOptions::new().write(true).open(path).map_err(failed)?;
        return file.write_all(text.as_bytes()).map_err(failed);
    }
    let mut options = tempfile::Builder::new();
    options.prefix(".context-map");
    // A temporary file is for its owner alone; this one is for everybody, as far as the user's mask allows.
    #[cfg(unix)]
    options.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = options.tempfile_in(folder).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

fn list(map: &ContextMap, format: ReportFormat) -> Result<u8> {
    if format == ReportFormat::Json {
        output::print_json(&to_json(map)["domains"])?;
        return Ok(0);
    }
    if map.domains.is_empty() {
        output::print("no domains yet; `datamesh init` starts a mesh with one\n");
        return Ok(0);
    }
    let heading =
        ["domain", "owner", "products", "tables", "responsibilities", "upstream", "downstream"].map(str::to_owned);
    let rows = map.domains.iter().map(|domain| {
        [
            domain.name.clone(),
            domain.owner.clone().unwrap_or_else(|| "-".to_owned()),
            domain.products.len().to_string(),
            domain.tables.to_string(),
            domain.responsibilities.len().to_string(),
            domain.upstream.to_string(),
            domain.downstream.to_string(),
        ]
    });
    let rows: Vec<[String; 7]> = std::iter::once(heading).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    let mut out = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            // Names stand left, numbers right.
            if column < 2 { format!("{cell:width$}") } else { format!("{cell:>width$}") }
        });
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    output::print(&out);
    Ok(0)
}

/// The place of the domain that `wanted` means on the map.
fn find(map: &ContextMap, wanted: &str) -> Result<usize> {
    if let Some(index) = map.domain(wanted) {
        return Ok(index);
    }
    let names: Vec<&str> = map.domains.iter().map(|domain| domain.name.as_str()).collect();
    let help = match datamesh_manifest::shape::closest(wanted, names.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None if names.is_empty() => "there are none".to_owned(),
        None => format!("domains here: {}", names.join(", ")),
    };
    Err(Error::new(ErrorCode::NotFound, format!("no domain `{wanted}` in this mesh")).with_help(help))
}

fn show(known: &Known, wanted: &str, format: ReportFormat) -> Result<u8> {
    let map = known.map();
    let index = find(&map, wanted)?;
    let sql = map.domains[index].sql();
    let domain = known.domains.iter().find(|domain| domain.name.sql() == sql);
    let mut products: Vec<&DataProduct> =
        known.contracts.iter().filter(|contract| contract.id.domain.sql() == sql).collect();
    products.sort_by(|a, b| (&a.id, &a.version).cmp(&(&b.id, &b.version)));
    match format {
        ReportFormat::Json => output::print_json(&show_json(known, &map, index, domain, &products))?,
        ReportFormat::Text => output::print(&show_text(known, &map, index, domain, &products)),
    }
    Ok(0)
}

/// What others declare about a domain.
fn declared_by_others<'k>(known: &'k Known, on_map: &MapDomain) -> Vec<(&'k Domain, &'k Relationship)> {
    let sql = on_map.sql();
    known
        .domains
        .iter()
        .flat_map(|domain| domain.relationships.iter().map(move |relationship| (domain, relationship)))
        .filter(|(_, relationship)| relationship.domain.sql() == sql)
        .collect()
}

/// The team that answers for a product, and the owners that its tables and columns name.
fn owners(known: &Known, product: &DataProduct) -> (String, Vec<(String, String)>) {
    let owner = known.ownership.owner_of(OwnedPath::Product(product)).map(|owner| owner.team.to_owned());
    let own = owner.unwrap_or_default();
    let named = named_owners(product).into_iter().filter(|(_, owner)| *owner != own);
    let named = named.map(|(path, owner)| (path, owner.to_owned())).collect();
    (own, named)
}

fn show_json(
    known: &Known,
    map: &ContextMap,
    index: usize,
    domain: Option<&Domain>,
    products: &[&DataProduct],
) -> Value {
    let on_map = &map.domains[index];
    let mut document = to_json(map)["domains"][index].clone();
    let products = products.iter().map(|product| {
        let (owner, named) = owners(known, product);
        json!({
            "product": product.id.to_string(),
            "version": product.version.to_string(),
            "owner": owner,
            "description": product.description,
            "tables": product.tables.iter().map(|table| table.name.to_string()).collect::<Vec<_>>(),
            "owners": named.iter().map(|(path, owner)| json!({ "of": path, "owner": owner })).collect::<Vec<_>>(),
        })
    });
    let relationship = |by: &str, other: &str, relationship: &Relationship| {
        json!({
            "by": by,
            "with": other,
            "kind": relationship.kind,
            "role": relationship.role,
            "products": relationship.products.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "description": relationship.description,
        })
    };
    let own = domain.into_iter().flat_map(|domain| {
        domain
            .relationships
            .iter()
            .map(|declared| relationship(domain.name.as_str(), declared.domain.as_str(), declared))
    });
    let others = declared_by_others(known, on_map);
    let others = others.iter().map(|(by, declared)| relationship(by.name.as_str(), &on_map.name, declared));
    document["description"] = json!(domain.and_then(|domain| domain.description.as_ref()));
    document["terms"] = json!(domain.map(|domain| &domain.terms));
    document["teams"] = json!(domain.map(|domain| &domain.teams));
    document["relationships"] = own.chain(others).collect();
    document["products"] = products.collect();
    document["findings"] = json!(findings(map, index));
    document
}

fn findings(map: &ContextMap, index: usize) -> Vec<&Finding> {
    let name = &map.domains[index].name;
    map.findings.iter().filter(|finding| finding.domains.contains(name)).collect()
}

fn show_text(
    known: &Known,
    map: &ContextMap,
    index: usize,
    domain: Option<&Domain>,
    products: &[&DataProduct],
) -> String {
    let on_map = &map.domains[index];
    let owner = on_map.owner.as_deref().unwrap_or("nobody that is known");
    let mut out = format!("{}  owner {owner}\n", on_map.name);
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            out.push_str(&format!("\n{title}:\n"));
            lines.iter().for_each(|line| out.push_str(&format!("  {line}\n")));
        }
    };
    section("purpose", on_map.purpose.clone().into_iter().collect());
    section("description", domain.and_then(|domain| domain.description.clone()).into_iter().collect());
    section("responsibilities", on_map.responsibilities.iter().map(|text| format!("- {text}")).collect());
    section("teams", domain.map(|domain| domain.teams.iter().map(team_text).collect()).unwrap_or_default());
    let mut terms = Vec::new();
    for term in domain.into_iter().flat_map(|domain| &domain.terms) {
        let synonyms =
            if term.synonyms.is_empty() { String::new() } else { format!(" (also: {})", term.synonyms.join(", ")) };
        terms.push(format!("{}{synonyms}: {}", term.term, term.definition));
        terms.extend(term.columns.iter().map(|column| format!("    {column}")));
    }
    section("terms", terms);
    let mut relationships = Vec::new();
    for declared in domain.into_iter().flat_map(|domain| &domain.relationships) {
        relationships.push(relationship_text(&format!("with {}", declared.domain), declared));
    }
    for (by, declared) in declared_by_others(known, on_map) {
        relationships.push(relationship_text(&format!("{} declares", by.name), declared));
    }
    section("relationships", relationships);
    let mut texts = Vec::new();
    for product in products {
        let (owner, named) = owners(known, product);
        let owner =
            if Some(owner.as_str()) == on_map.owner.as_deref() { String::new() } else { format!("  owner {owner}") };
        let tables: Vec<String> = product.tables.iter().map(|table| table.name.to_string()).collect();
        texts.push(format!("{} {}{owner}: {}", product.id.product, product.version, tables.join(", ")));
        texts.extend(named.iter().map(|(path, owner)| format!("    {path}  owner {owner}")));
    }
    section("products", texts);
    section(
        "findings",
        findings(map, index).iter().map(|finding| format!("{} [{}]", finding.message, finding.id)).collect(),
    );
    out
}

fn team_text(team: &Team) -> String {
    let members = team.members.iter().map(|member| match &member.role {
        Some(role) => format!("{member}, {role}"),
        None => member.to_string(),
    });
    let members: Vec<String> = members.collect();
    let about = team.description.as_ref().map_or_else(String::new, |about| format!(": {about}"));
    let members = if members.is_empty() { "no members".to_owned() } else { members.join("; ") };
    format!("{}{about} [{members}]", team.name)
}

fn relationship_text(who: &str, relationship: &Relationship) -> String {
    let role = relationship.role.map_or_else(String::new, |role| format!(", as {}", role.as_str()));
    let products: Vec<String> = relationship.products.iter().map(ToString::to_string).collect();
    let products = if products.is_empty() { String::new() } else { format!(", about {}", products.join(", ")) };
    let about = relationship.description.as_ref().map_or_else(String::new, |about| format!(": {about}"));
    format!("{who}: {}{role}{products}{about}", relationship.kind)
}
