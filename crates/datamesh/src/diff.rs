//! `datamesh diff`: what differs between two contracts, and the version it needs.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use datamesh_app::read::find_product;
use datamesh_core::decision::Action;
use datamesh_core::evolution::{Bump, ContractChange, ContractPath, TooSmall, Why, compare, judge, needed_bump};
use datamesh_core::{DataProduct, Error, ErrorCode, Level, Location, Name, Result};
use datamesh_manifest::standards::read_contract;
use datamesh_manifest::yaml::{Document, MAX_BYTES};
use datamesh_manifest::{Mesh, load_product, load_product_in, locate_changes};
use serde_json::{Value, json};

use crate::findings::{Finding, FindingsFormat, to_github, to_sarif};
use crate::output::{colours, paint};
use crate::{EXIT_REJECTED, home, output};

#[derive(Debug, Args)]
pub(crate) struct DiffArguments {
    /// The contract before: a manifest, a data contract (ODCS), a product's folder, or a published product, `PRODUCT` or
    /// `PRODUCT@MAJOR`
    #[arg(value_name = "BEFORE")]
    pub(crate) before: String,
    /// The contract after, likewise
    #[arg(value_name = "AFTER")]
    pub(crate) after: String,
    /// Take changes whose direction the text does not tell for changes that break nobody
    #[arg(long)]
    pub(crate) acknowledge: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: FindingsFormat,
}

/// One side of the comparison.
struct Side {
    contract: DataProduct,
    /// The document it was read from; `None`: the registry.
    file: Option<PathBuf>,
}

pub(crate) async fn run(arguments: &DiffArguments, told: Option<&Path>) -> Result<u8> {
    let (before, after) = sides(arguments, told).await?;
    let changes = compare(&before.contract, &after.contract);
    let verdict = judge(&before.contract.version, &after.contract.version, &changes, arguments.acknowledge);
    let refused = verdict.as_ref().err().map(|refused| refused.as_ref());
    match arguments.format {
        FindingsFormat::Text => output::print(&text(&before, &after, &changes, arguments.acknowledge, refused)),
        FindingsFormat::Json => {
            output::print_json(&document(arguments, &before, &after, &changes, refused))?;
        }
        FindingsFormat::Sarif => {
            let (findings, sources) = findings(&after, &changes, refused)?;
            output::print_json(&to_sarif(&findings, &sources)?)?;
        }
        FindingsFormat::Github => {
            let (findings, sources) = findings(&after, &changes, refused)?;
            output::print(&to_github(&findings, &sources)?);
            output::print(&format!("{}\n", summary(&before, &after, &changes, arguments.acknowledge)));
        }
    }
    Ok(if refused.is_some() { EXIT_REJECTED } else { 0 })
}

async fn sides(arguments: &DiffArguments, told: Option<&Path>) -> Result<(Side, Side)> {
    let before = load(&arguments.before, told, None).await?;
    let after = load(&arguments.after, told, None).await?;
    if before.contract.id.domain == after.contract.id.domain {
        return Ok((before, after));
    }
    // A copy outside of its domain's folder is still of that domain, where it does not say otherwise itself.
    let (old, new) = (before.contract.id.domain.clone(), after.contract.id.domain.clone());
    let before = load(&arguments.before, told, Some(&new)).await?;
    if before.contract.id.domain == new {
        return Ok((before, after));
    }
    let after = load(&arguments.after, told, Some(&old)).await?;
    Ok((before, after))
}

/// Reads what is named: a file or folder, where there is one, else a published product.
async fn load(wanted: &str, told: Option<&Path>, domain: Option<&Name>) -> Result<Side> {
    let path = Path::new(wanted);
    if path.exists() {
        return read(path, domain);
    }
    let (name, major) = match wanted.rsplit_once('@') {
        Some((name, major)) => match major.trim_start_matches('v').parse::<u64>() {
            Ok(major) => (name, Some(major)),
            Err(_) => {
                let message = format!("`{wanted}`: `{major}` is no major version");
                return Err(Error::new(ErrorCode::InvalidArgument, message).with_help("write `PRODUCT@1`"));
            }
        },
        None => (wanted, None),
    };
    if name.contains(['.', '\\']) || name.matches('/').count() > 1 {
        return Err(Error::new(ErrorCode::NotFound, format!("there is no `{wanted}`"))
            .with_help("name a manifest, a data contract, a product's folder, or a published product"));
    }
    let root = home::find(told).map_err(|error| {
        Error::new(
            ErrorCode::NotFound,
            format!("there is no file `{wanted}`, and no mesh that could have published it"),
        )
        .with_help("name a manifest, a data contract or a product's folder; or a mesh directory with `--mesh`")
        .with_source(error)
    })?;
    let context = home::context(&root).await?;
    let product = find_product(&context, name, major).await?;
    context.authorize_product(Action::Describe, &product.revision.contract, json!({ "operation": "diff" })).await?;
    Ok(Side { contract: product.revision.contract, file: None })
}

fn read(path: &Path, domain: Option<&Name>) -> Result<Side> {
    let file = if path.is_dir() { path.join("product.yaml") } else { path.to_owned() };
    if !file.is_file() {
        return Err(Error::new(ErrorCode::NotFound, format!("`{}` has no product.yaml", path.display()))
            .with_help("name a manifest, a data contract or a product's folder"));
    }
    if !is_manifest(&file)? {
        return read_document(&file);
    }
    let mesh: Mesh = match domain {
        Some(domain) => load_product_in(&file, domain)?,
        None => load_product(&file)?,
    };
    match mesh.products.first() {
        Some(product) if !mesh.has_errors() => Ok(Side { contract: product.contract.clone(), file: Some(file) }),
        _ => {
            output::print_problems(&mesh.diagnostics, &mesh.sources);
            Err(Error::new(
                ErrorCode::InvalidManifest,
                format!("`{}` cannot be compared: it has errors", file.display()),
            )
            .with_help("mend them; `datamesh check` lists all problems"))
        }
    }
}

/// Whether a document is a manifest, which may need the files beside it; what cannot be read as YAML is told as one.
fn is_manifest(file: &Path) -> Result<bool> {
    let bytes = read_file(file)?;
    let Ok(mut document) = Document::new("", &bytes) else { return Ok(true) };
    let root = document.parse();
    Ok(root.is_none_or(|root| root.get("apiVersion").is_none() && root.get("kind").is_none()))
}

/// Reads a contract of one of the field's standards.
fn read_document(file: &Path) -> Result<Side> {
    let bytes = read_file(file)?;
    let name = file.display().to_string();
    read_contract(&name, &bytes).map(|contract| Side { contract, file: Some(file.to_owned()) }).map_err(|problems| {
        let sources = BTreeMap::from([(name.clone(), String::from_utf8_lossy(&bytes).into_owned())]);
        output::print_problems(&problems, &sources);
        Error::new(ErrorCode::InvalidManifest, format!("`{name}` cannot be compared: it has errors"))
            .with_help("mend them, by the standard that the document follows")
    })
}

/// Reads a document, but not the rest of one that is far too large to be one.
fn read_file(file: &Path) -> Result<Vec<u8>> {
    let failed = |error| Error::io(ErrorCode::InvalidManifest, "read", file, error);
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(failed)?;
    opened.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// What is found, at the lines of the document after; nothing has a line in the registry.
fn findings(
    after: &Side,
    changes: &[ContractChange],
    refused: Option<&TooSmall>,
) -> Result<(Vec<Finding>, BTreeMap<String, String>)> {
    let version = ContractPath::root().join("version");
    let paths = std::iter::once(&version).chain(changes.iter().map(|change| &change.path));
    let (places, sources) = match &after.file {
        Some(file) => {
            let (places, source) = locate_changes(file, paths)?;
            (places, BTreeMap::from([(file.display().to_string(), source)]))
        }
        None => {
            let file = format!("{}@{}", after.contract.id, after.contract.version.major);
            let place = Location { file, ..Location::default() };
            (paths.map(|_| place.clone()).collect(), BTreeMap::new())
        }
    };
    let mut places = places.into_iter();
    let mut place = || places.next().unwrap_or_default();
    let at_version = place();
    let mut found = Vec::new();
    if let Some(refused) = refused {
        let error = Error::from(refused.clone());
        found.push(Finding {
            rule: "version-too-small".to_owned(),
            about: "the version is too close to the one before for what was changed".to_owned(),
            level: Level::Error,
            message: error.to_string(),
            help: error.help().map(str::to_owned),
            location: at_version,
            identity: Some("version".to_owned()),
        });
    }
    for change in changes {
        let level = match change.bump() {
            _ if refused.is_some_and(|refused| refused.why != Why::SameVersion && refused.changes.contains(change)) => {
                Level::Error
            }
            Bump::Major | Bump::Review => Level::Warning,
            Bump::Minor | Bump::Patch => Level::Note,
        };
        let binding =
            if change.protects() { "; it protects people, so it binds every major version at once" } else { "" };
        found.push(Finding {
            rule: change.rule.id.to_owned(),
            about: change.rule.about.to_owned(),
            level,
            message: format!("{}: {} (needs a {} version{binding})", change.path, change.message, change.bump()),
            help: None,
            location: place(),
            identity: Some(change.path.to_string()),
        });
    }
    Ok((found, sources))
}

fn summary(before: &Side, after: &Side, changes: &[ContractChange], acknowledged: bool) -> String {
    let (old, new) = (&before.contract, &after.contract);
    let title = if old.id == new.id {
        format!("{} {} to {}", new.id, old.version, new.version)
    } else {
        format!("{} {} to {} {}", old.id, old.version, new.id, new.version)
    };
    let count = match changes.len() {
        0 => return format!("{title}: the same"),
        1 => "1 change, which needs".to_owned(),
        count => format!("{count} changes, which need"),
    };
    let needed = needed_bump(changes, acknowledged).unwrap_or(Bump::Patch);
    let below = if old.version.major == 0 && needed > Bump::Minor { ", below 1.0.0 a minor one" } else { "" };
    format!("{title}: {count} a {needed} version{below}")
}

fn text(
    before: &Side,
    after: &Side,
    changes: &[ContractChange],
    acknowledged: bool,
    refused: Option<&TooSmall>,
) -> String {
    let on = colours(crate::caller::stdout_is_terminal());
    let mut text = format!("{}\n", summary(before, after, changes, acknowledged));
    let mut tables: Vec<Option<&str>> = Vec::new();
    for change in changes {
        if !tables.contains(&change.table()) {
            tables.push(change.table());
        }
    }
    let width = changes.iter().map(|change| change.rule.id.len()).max().unwrap_or(0);
    for table in tables {
        let title = table.map_or_else(|| "product".to_owned(), |table| format!("table {table}"));
        text.push_str(&format!("\n{}\n", paint(&title, "1", on)));
        for change in changes.iter().filter(|change| change.table() == table) {
            let colour = match change.bump() {
                Bump::Major => "31",
                Bump::Review => "33",
                Bump::Minor => "36",
                Bump::Patch => "2",
            };
            let bump = paint(&format!("{:6}", change.bump()), colour, on);
            let place = place_in_table(change);
            let place = if place.is_empty() { String::new() } else { format!("{place}: ") };
            text.push_str(&format!("  {bump}  {:width$}  {place}{}\n", change.rule.id, change.message));
        }
    }
    if changes.iter().any(ContractChange::protects) {
        text.push_str("\nwhat protects people binds every major version at once, so it needs no new one\n");
    }
    if let Some(refused) = refused {
        let error = Error::from(refused.clone());
        text.push_str(&format!("\n{} {error}\n", paint("refused:", "1;31", on)));
        if let Some(help) = error.help() {
            text.push_str(&format!("{} {help}\n", paint("help:", "36", on)));
        }
    }
    text
}

/// The place below its table, or below the product.
fn place_in_table(change: &ContractChange) -> String {
    let segments = change.path.segments();
    let below = match segments {
        [_, _, columns, rest @ ..] if change.table().is_some() && columns == "columns" => rest,
        [_, _, rest @ ..] if change.table().is_some() => rest,
        all => all,
    };
    below.iter().fold(ContractPath::root(), |path, segment| path.join(segment)).to_string()
}

fn document(
    arguments: &DiffArguments,
    before: &Side,
    after: &Side,
    changes: &[ContractChange],
    refused: Option<&TooSmall>,
) -> Value {
    let side = |name: &str, side: &Side| json!({ "source": name, "product": side.contract.id.to_string(), "version": side.contract.version.to_string() });
    let refusal = refused.map(|refused| {
        let error = Error::from(refused.clone());
        json!({
            "message": error.to_string(),
            "help": error.help(),
            "leastVersion": refused.least.to_string(),
            "acknowledgingHelps": refused.acknowledging_helps,
            "paths": refused.changes.iter().map(|change| change.path.to_string()).collect::<Vec<_>>(),
        })
    });
    json!({
        "before": side(&arguments.before, before),
        "after": side(&arguments.after, after),
        "needed": needed_bump(changes, arguments.acknowledge).map(Bump::as_str),
        "acknowledged": arguments.acknowledge,
        "accepted": refused.is_none(),
        "refusal": refusal,
        "changes": changes,
    })
}
