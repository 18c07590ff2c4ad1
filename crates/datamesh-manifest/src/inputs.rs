//! What a product is made of: `inputs`, `trigger` and `transform`, and how products lean on each other in a mesh.

use std::path::Path;

use datamesh_core::contract::WriteMode;
use datamesh_core::transform::{ProductInput, TransformSpec, cycle, dependencies, expand_changes};
use datamesh_core::{DataProduct, Diagnostic, Level, Location, ProductId, ProductKey, Result};

use crate::mesh::{LoadedProduct, Mesh, locate_by, read_bounded};
use crate::shape::closest;
use crate::yaml::{Document, Node, Span};

/// Reads `inputs`, and checks `trigger` and `type` against them.
pub(crate) fn read_inputs(document: &mut Document<'_>, node: &Node) -> Vec<ProductInput> {
    let mut inputs: Vec<ProductInput> = Vec::new();
    for entry in node.get("inputs").and_then(Node::items).unwrap_or_default() {
        let Some(text) = entry.text() else { continue };
        match ProductInput::parse(text) {
            Ok(input) => {
                if let Some(other) = inputs.iter().find(|other| other.names(&input.product)) {
                    let message = format!("`{}` is an input already, as `{other}`", input.product);
                    document.error("duplicate-input", entry.span, message, "keep one entry for each product");
                } else {
                    inputs.push(input);
                }
            }
            Err(why) => document.error(
                "invalid-input",
                entry.span,
                why,
                "write `domain/product` or `domain/product@range`, such as sales/crm@^2",
            ),
        }
    }
    if let Some(trigger) = node.get("trigger") {
        check_trigger(document, trigger, !inputs.is_empty());
    }
    if let Some(kind) = node.get("type").filter(|kind| kind.text() == Some("source-aligned") && !inputs.is_empty()) {
        document.report(
            Level::Warning,
            "type-mismatch",
            kind.span,
            "a source-aligned product takes its data from its own domain's systems, but this one reads other products",
            "say `aggregate` or `consumer-aligned`, or leave `inputs` out",
        );
    }
    inputs
}

fn check_trigger(document: &mut Document<'_>, node: &Node, has_inputs: bool) {
    let Some(text) = node.text().map(str::trim) else { return };
    if text == "inputs" {
        if !has_inputs {
            document.error(
                "invalid-trigger",
                node.span,
                "`trigger: inputs` waits for inputs, but there are none",
                "name them below `inputs:`, or write a cron line",
            );
        }
        return;
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    let allowed = |field: &&str| field.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '*' | '/' | ',' | '-'));
    if fields.len() != 5 || !fields.iter().all(allowed) {
        document.error(
            "invalid-trigger",
            node.span,
            format!("`{text}` is neither `inputs` nor a cron line"),
            "a cron line has five fields: minute, hour, day of month, month, day of week, such as \"0 * * * *\"",
        );
    }
}

/// Reads a table's `transform`. The text of a file is read later, when the manifest's folder is known.
pub(crate) fn read_transform(document: &mut Document<'_>, node: &Node) -> Option<TransformSpec> {
    let transform = node.get("transform")?;
    let text = transform.text()?.trim();
    if let Some(source) = node.get("source") {
        document.error(
            "source-and-transform",
            source.span,
            "a table has either a source or a transform",
            "remove one of them; what comes from outside the mesh is a product of its own",
        );
    }
    if text.is_empty() {
        document.error("empty-transform", transform.span, "the transform is empty", "write a SELECT, or name a file");
        return None;
    }
    let is_file = !text.contains(char::is_whitespace) && text.to_ascii_lowercase().ends_with(".sql");
    Some(if is_file {
        TransformSpec { sql: String::new(), file: Some(text.to_owned()) }
    } else {
        TransformSpec { sql: text.to_owned(), file: None }
    })
}

/// Where a transform's text stands.
#[derive(Clone, Debug)]
pub struct SqlText {
    /// The file, for display.
    pub file: String,
    /// The file's whole text.
    pub source: String,
    /// The bytes of it that are the query.
    pub span: Span,
}

impl SqlText {
    /// Finds the text of a table's transform.
    ///
    /// # Errors
    /// A manifest that can no longer be read.
    pub fn of(product: &LoadedProduct, table: &str) -> Result<Self> {
        let spec = product.contract.table(table).and_then(|table| table.transform.as_ref());
        if let Some((file, spec)) = spec.and_then(|spec| Some((spec.file.as_ref()?, spec))) {
            let path = product.path.parent().unwrap_or(Path::new("")).join(file);
            let span = Span { start: 0, end: spec.sql.len() };
            return Ok(Self { file: path.display().to_string(), source: spec.sql.clone(), span });
        }
        let (location, source) =
            locate_by(&product.path, |root| Some(table_node(root, table)?.get("transform")?.span))?;
        let span = Span { start: location.offset, end: location.offset + location.length };
        Ok(Self { file: location.file, source, span })
    }

    /// The place of a line and column of `sql`, both from 1; the whole query without one.
    pub fn locate(&self, sql: &str, place: Option<(usize, usize)>) -> Location {
        let whole = self.location(self.span.start, self.span.end.min(self.source.len()));
        let Some((line, column)) = place else { return whole };
        let text = sql.lines().nth(line.saturating_sub(1)).unwrap_or_default();
        let trimmed = text.trim();
        let within = self.source.get(self.span.start..self.span.end.min(self.source.len())).unwrap_or_default();
        // In a manifest the query is indented, and folded text has other lines: its line is looked for by what it says.
        let Some(at) = within.find(trimmed).filter(|_| !trimmed.is_empty()) else { return whole };
        let indent = text.len() - text.trim_start().len();
        let characters = column.saturating_sub(1).saturating_sub(indent);
        let skip: usize = trimmed.chars().take(characters).map(char::len_utf8).sum();
        let start = self.span.start + at + skip;
        let rest = &trimmed[skip.min(trimmed.len())..];
        let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).unwrap_or(rest.len()).max(1);
        self.location(start, start + length.min(rest.len().max(1)))
    }

    fn location(&self, start: usize, end: usize) -> Location {
        let start = start.min(self.source.len());
        let before = &self.source[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Location {
            file: self.file.clone(),
            line: before.matches('\n').count() + 1,
            column: self.source[line_start..start].chars().count() + 1,
            offset: start,
            length: end.saturating_sub(start).min(self.source.len() - start),
        }
    }
}

fn table_node<'n>(root: &'n Node, table: &str) -> Option<&'n Node> {
    let tables = root.get("dataProduct")?.get("schema")?.items()?;
    tables.iter().find(|entry| entry.get("name").and_then(Node::text).map(str::trim) == Some(table))
}

/// Where a column of a table is declared.
///
/// # Errors
/// A manifest that can no longer be read.
pub fn locate_column(path: &Path, table: &str, column: &str) -> Result<(Location, String)> {
    locate_by(path, |root| {
        let columns = table_node(root, table)?.get("columns")?.items()?;

        columns.iter().find_map(|entry| {
            let name = entry.get("name")?;
            (name.text().map(str::trim) == Some(column)).then_some(name.span)
        })
    })
}

/// Where an input is declared.
///
/// # Errors
/// A manifest that can no longer be read.
pub fn locate_input(path: &Path, input: &ProductInput) -> Result<(Location, String)> {
    locate_by(path, |root| {
        let inputs = root.get("dataProduct")?.get("inputs")?.items()?;
        let same = |entry: &&Node| entry.text().and_then(|text| ProductInput::parse(text).ok()).as_ref() == Some(input);
        inputs.iter().find(same).map(|entry| entry.span)
    })
}

/// Reads the files that transforms name, and checks what can be told of their texts without planning them.
pub(crate) fn load_transforms(mesh: &mut Mesh, path: &Path, contract: &mut DataProduct) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new(""));
    for table in &mut contract.tables {
        let Some(transform) = &mut table.transform else { continue };
        let mut problem = None;
        let mut place = None;
        if let Some(file) = &transform.file {
            let file = folder.join(file);
            match read_bounded(&file).map(String::from_utf8) {
                Ok(Ok(text)) => transform.sql = text.trim_start_matches('\u{feff}').trim_end().to_owned(),
                Ok(Err(_)) => {
                    problem = Some(("not-utf8", format!("`{}` is not UTF-8 text", file.display()), "save it as UTF-8"))
                }
                Err(error) => {
                    problem = Some((
                        "missing-file",
                        error.to_string(),
                        "a transform's file is named relative to the manifest",
                    ))
                }
            }
            if problem.is_none() && transform.sql.trim().is_empty() {
                problem = Some(("empty-transform", format!("`{}` is empty", file.display()), "write a SELECT"));
            }
        }
        if problem.is_none() {
            match expand_changes(&transform.sql) {
                Err(why) => problem = Some(("invalid-changes", why, "the table is one of an input")),
                Ok(expanded)
                    if expanded != transform.sql
                        && matches!(table.write, WriteMode::Replace | WriteMode::ReplacePartitions) =>
                {
                    place = Some(table.name.clone());
                    problem = Some((
                        "invalid-changes",
                        format!("table `{}` reads only changes, but each run replaces its rows", table.name),
                        "add `write: append`, or read the whole table",
                    ));
                }
                Ok(_) => {}
            }
        }
        let Some((id, message, help)) = problem else { continue };
        let name = place.unwrap_or_else(|| table.name.clone());
        let (location, source) = locate_by(path, |root| Some(table_node(root, name.as_str())?.get("transform")?.span))?;
        mesh.report(Diagnostic { id, level: Level::Error, message, help: Some(help.to_owned()), location }, source);
    }
    Ok(())
}

/// Checks the inputs of every product of a mesh against the products of the mesh and those that are `known` otherwise.
///
/// `whole` tells whether the mesh was read whole: then an input that nobody knows is an error, else a warning.
///
/// # Errors
/// Manifests that can no longer be read.
pub fn check_inputs(mesh: &mut Mesh, known: &[DataProduct], whole: bool) -> Result<()> {
    let mut found = Vec::new();
    let own: Vec<&DataProduct> = mesh.products.iter().map(|product| &product.contract).collect();
    for product in &mesh.products {
        for input in &product.contract.inputs {
            let named: Vec<&DataProduct> =
                own.iter().copied().chain(known).filter(|contract| input.names(&contract.id)).collect();
            if input.choose(named.iter().copied()).is_some() {
                continue;
            }
            let (location, source) = locate_input(&product.path, input)?;
            let mut versions: Vec<_> = named.iter().map(|contract| contract.version.clone()).collect();
            versions.sort();
            versions.dedup();
            let (id, message, help) = if versions.is_empty() {
                let names: Vec<String> =
                    own.iter().copied().chain(known).map(|contract| contract.id.to_string()).collect();
                let help = match closest(&input.product.to_string(), names.iter().map(String::as_str)) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => "inputs are products of this mesh, by `domain/product`".to_owned(),
                };
                let place = if whole { "in this mesh" } else { "in the registry" };
                ("unknown-input", format!("there is no product `{}` {place}", input.product), help)
            } else {
                let versions: Vec<String> = versions.iter().map(ToString::to_string).collect();
                let message = format!("no version of `{}` is within `{}`", input.product, range_text(input));
                ("unsatisfied-input", message, format!("known versions: {}", versions.join(", ")))
            };
            let level = if whole || !versions.is_empty() { Level::Error } else { Level::Warning };
            found.push((Diagnostic { id, level, message, help: Some(help), location }, source));
        }
    }
    if let Some(cycle) = cycle(&dependencies(own.iter().copied())) {
        found.extend(cycle_diagnostic(mesh, &cycle)?);
    }
    for (diagnostic, source) in found {
        mesh.report(diagnostic, source);
    }
    Ok(())
}

fn range_text(input: &ProductInput) -> String {
    input.range.as_ref().map_or_else(|| "*".to_owned(), ToString::to_string)
}

fn cycle_diagnostic(mesh: &Mesh, cycle: &[ProductKey]) -> Result<Option<(Diagnostic, String)>> {
    let loaded = |key: &ProductKey| mesh.products.iter().find(|product| product.contract.key() == *key);
    let name =
        |key: &ProductKey| loaded(key).map_or_else(|| key.to_string(), |product| product.contract.id.to_string());
    let path = cycle.iter().map(name).collect::<Vec<_>>().join(" → ");
    let Some(first) = cycle.first().and_then(loaded) else { return Ok(None) };
    let next: Option<&ProductId> = cycle.get(1).and_then(loaded).map(|product| &product.contract.id);
    let input = first.contract.inputs.iter().find(|input| next.is_some_and(|next| input.names(next)));
    let Some(input) = input else { return Ok(None) };
    let (location, source) = locate_input(&first.path, input)?;
    let diagnostic = Diagnostic {
        id: "input-cycle",
        level: Level::Error,
        message: format!("products read each other in a circle: {path}"),
        help: Some("take one of these inputs out; what both need is a product of its own".to_owned()),
        location,
    };
    Ok(Some((diagnostic, source)))
}
