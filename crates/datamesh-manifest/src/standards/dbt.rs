//! A dbt project's `manifest.json` to a manifest: a table for each model, its columns, and its tests as rules.
//!
//! What has no counterpart is kept below `custom: {dbt: …}` at its node, and told in a warning. What a contract needs
//! and dbt does not say (the owner, the type of a column) is a TODO that `check` refuses.
//!
//! Source: <https://schemas.getdbt.com>, manifest v10 to v12; the documentation of dbt, dbt_utils and dbt_expectations.

mod checks;
mod json;
mod table;
mod types;

use datamesh_core::{Diagnostic, Level, Location, Name};

use super::tree::{Map, Tree};
use json::Document;
use table::TableDraft;

/// Where a manifest keeps what it does not model.
const THEIRS: &str = "dbt";

/// Largest `manifest.json`, in bytes.
pub const MAX_BYTES: usize = 512 << 20;

/// An imported project.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The drafted manifest.
    pub manifest: Tree,
    /// What was not mapped.
    pub remarks: Vec<Diagnostic>,
    /// What our reader refuses in the manifest's text: what the project does not tell.
    pub open: Vec<Diagnostic>,
}

/// Drafts a manifest from `bytes`, a `manifest.json` that the user calls `file`. `select` names models by name or
/// unique id; without any all models of the project itself are taken, but those that are never built.
///
/// # Errors
/// What keeps it from being read: no JSON, another version, a model that is not there.
pub fn import(file: &str, bytes: &[u8], select: &[String]) -> Result<Imported, Vec<Diagnostic>> {
    let mut report = Report { file: file.to_owned(), remarks: Vec::new() };
    let document = read(&report, bytes).map_err(|diagnostic| vec![*diagnostic])?;
    let models = chosen(&mut report, &document, select)?;
    let text = |key: &str| document.metadata.get(key).and_then(Tree::as_text);
    let adapter = text("adapter_type").unwrap_or_default().to_owned();
    let mut tables: Vec<TableDraft> =
        models.iter().map(|(id, model)| TableDraft::new(&mut report, id, model, &adapter)).collect();
    for index in 0..tables.len() {
        if tables[..index].iter().any(|other| other.name.eq_ignore_ascii_case(&tables[index].name)) {
            let message = format!("two models become table `{}`", tables[index].name);
            return Err(vec![report.error("duplicate-table", message, "choose one of them with --select")]);
        }
    }
    table::add_constraints(&mut report, &mut tables);
    let kept = checks::add(&mut report, &mut tables, &document.nodes);
    if document.unit_tests > 0 {
        let message = format!("{} unit tests are not imported: they test models, not data", document.unit_tests);
        report.warn("not-imported", message, "write them into product.tests.yaml, see `datamesh test`");
    }

    let mut product = Map::new();
    let project =
        text("project_name").or_else(|| models.first().and_then(|(_, model)| model.get("package_name")?.as_text()));
    product.put("name", project.and_then(to_name).unwrap_or_else(|| "TODO name of the product".to_owned()));
    product.put("version", "0.1.0");
    product.put("owner", owner(&document, &models).unwrap_or_else(|| "TODO the accountable team".to_owned()));
    product.put("schema", tables.into_iter().map(TableDraft::finish).collect::<Vec<_>>());
    let mut theirs = Map::new();
    for key in ["project_name", "dbt_schema_version", "dbt_version", "adapter_type"] {
        theirs.put_some(key, document.metadata.get(key).filter(|value| value.as_text().is_some()).cloned());
    }
    if !kept.is_empty() {
        theirs.put("tests", kept);
    }
    let mut custom = Map::new();
    custom.put_filled(THEIRS, theirs);
    product.put_filled("custom", custom);
    let manifest = Tree::Map([("dataProduct".to_owned(), Tree::Map(product))].into_iter().collect());
    let super::Imported { manifest, open } = super::read::settle(|_| manifest.clone());
    Ok(Imported { manifest, remarks: report.remarks, open })
}

/// The models that an import takes, by unique id.
type Models<'d> = Vec<(&'d str, &'d Map)>;

struct Report {
    file: String,
    remarks: Vec<Diagnostic>,
}

impl Report {
    fn diagnostic(
        &self,
        level: Level,
        id: &'static str,
        message: String,
        help: &str,
        line: usize,
        column: usize,
    ) -> Diagnostic {
        let help = (!help.is_empty()).then(|| help.to_owned());
        let location = Location { file: self.file.clone(), line, column, ..Location::default() };
        Diagnostic { id, level, message, help, location }
    }

    fn error(&self, id: &'static str, message: String, help: &str) -> Diagnostic {
        self.diagnostic(Level::Error, id, message, help, 0, 0)
    }

    fn warn(&mut self, id: &'static str, message: String, help: &str) {
        let diagnostic = self.diagnostic(Level::Warning, id, message, help, 0, 0);
        self.remarks.push(diagnostic);
    }
}

fn read(report: &Report, bytes: &[u8]) -> Result<Document, Box<Diagnostic>> {
    const USAGE: &str = "name the target/manifest.json that `dbt parse` or `dbt build` of dbt 1.6 or later writes";
    if bytes.len() > MAX_BYTES {
        let message = format!("the file has {} bytes; a dbt manifest has at most {MAX_BYTES} here", bytes.len());
        return Err(Box::new(report.error("file-too-large", message, USAGE)));
    }
    let document: Document = serde_json::from_slice(bytes).map_err(|error| {
        let message = format!("this is no dbt manifest: {error}");
        Box::new(report.diagnostic(Level::Error, "not-dbt", message, USAGE, error.line(), error.column()))
    })?;
    let schema = document.metadata.get("dbt_schema_version").and_then(Tree::as_text).unwrap_or_default();
    let version =
        schema.strip_prefix("https://schemas.getdbt.com/dbt/manifest/v").and_then(|rest| rest.strip_suffix(".json"));
    match version.map(str::parse::<u32>) {
        Some(Ok(10..=12)) if document.has_nodes => Ok(document),
        Some(Ok(10..=12)) => Err(Box::new(report.error("not-dbt", "the manifest has no `nodes`".into(), USAGE))),
        Some(Ok(version)) => {
            let message = format!("this is version {version} of dbt's manifest; 10 to 12 can be read");
            Err(Box::new(report.error("unsupported-version", message, USAGE)))
        }
        _ => {
            let message = if schema.is_empty() {
                "this is no dbt manifest: it has no `metadata.dbt_schema_version`".to_owned()
            } else {
                format!("`{schema}` is no dbt manifest")
            };
            Err(Box::new(report.error("not-dbt", message, USAGE)))
        }
    }
}

fn chosen<'d>(report: &mut Report, document: &'d Document, select: &[String]) -> Result<Models<'d>, Vec<Diagnostic>> {
    let text = |model: &'d Map, key: &str| model.get(key).and_then(Tree::as_text);
    let models: Models<'_> = document
        .nodes
        .iter()
        .filter(|(_, node)| text(node, "resource_type") == Some("model"))
        .map(|(id, node)| (id.as_str(), node))
        .collect();
    if !select.is_empty() {
        let mut found: Models<'_> = Vec::new();
        let mut problems = Vec::new();
        for wanted in select {
            let named = |(id, model): &&(&str, &Map)| {
                *id == wanted || id.strip_prefix("model.") == Some(wanted) || text_of(model, "name") == Some(wanted)
            };
            let mut matches: Models<'_> = models.iter().filter(named).copied().collect();
            if matches.len() > 1 {
                matches.retain(|(_, model)| is_latest(model));
            }
            if matches.is_empty() {
                let names = models.iter().filter_map(|(_, model)| text(model, "name"));
                let help = match crate::shape::closest(wanted, names) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => "name a model, or its unique id".to_owned(),
                };
                problems.push(report.error("unknown-model", format!("there is no model `{wanted}`"), &help));
            }
            for model in matches {
                if !found.iter().any(|(id, _)| *id == model.0) {
                    found.push(model);
                }
            }
        }
        return if problems.is_empty() { Ok(found) } else { Err(problems) };
    }
    let project = document.metadata.get("project_name").and_then(Tree::as_text);
    let mut found: Models<'_> = Vec::new();
    for (id, model) in models {
        if project.is_some_and(|project| text(model, "package_name") != Some(project)) {
            continue;
        }
        let left_out = if table::config(model, "materialized").and_then(Tree::as_text) == Some("ephemeral") {
            Some("is never built (ephemeral)")
        } else if !is_latest(model) {
            Some("is not the latest version")
        } else {
            None
        };
        match left_out {
            Some(why) => {
                let message = format!("model `{id}` {why}, and is left out");
                report.warn("model-left-out", message, "name it with --select to have it");
            }
            None => found.push((id, model)),
        }
    }
    if found.is_empty() {
        return Err(vec![report.error(
            "no-models",
            "the project has no model that is built".into(),
            "add models to it",
        )]);
    }
    Ok(found)
}

fn text_of<'m>(map: &'m Map, key: &str) -> Option<&'m str> {
    map.get(key).and_then(Tree::as_text)
}

/// Whether a model has no versions, or is the latest one.
fn is_latest(model: &Map) -> bool {
    let version = |key: &str| model.get(key).and_then(Tree::scalar);
    version("version").is_none() || version("latest_version").is_none_or(|latest| version("version") == Some(latest))
}

/// The owner that all models agree on: `meta.owner`, or the owner of their group.
fn owner(document: &Document, models: &Models<'_>) -> Option<String> {
    let mut owners = models.iter().map(|(_, model)| {
        let meta = table::meta(model).and_then(|meta| meta.get("owner"));
        let named = meta.and_then(|owner| owner.as_text().or_else(|| owner.get("name").and_then(Tree::as_text)));
        let group = || {
            let group = text_of(model, "group").or_else(|| table::config(model, "group").and_then(Tree::as_text))?;
            let (_, group) = document.groups.iter().find(|(_, other)| text_of(other, "name") == Some(group))?;
            let owner = group.get("owner")?;
            owner.get("name").or_else(|| owner.get("email")).and_then(Tree::as_text)
        };
        named.or_else(group).map(|owner| owner.trim().trim_start_matches('@').to_owned())
    });
    let first = owners.next()??;
    owners.all(|other| other.as_ref() == Some(&first)).then_some(first).filter(|owner| !owner.is_empty())
}

/// A name by our rules that is as near to dbt's as it gets.
fn to_name(text: &str) -> Option<String> {
    if Name::new(text).is_ok() {
        return Some(text.to_owned());
    }
    let plain: String = text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    let plain = plain.trim_matches(['_', '-']).to_owned();
    // `_v2` is reserved for major versions.
    let plain = match plain.to_ascii_lowercase().rfind("_v") {
        Some(at) if Name::new(&plain).is_err() => format!("{}_{}", &plain[..at], &plain[at + 2..]),
        _ => plain,
    };
    Name::new(&plain).ok().map(|_| plain)
}
