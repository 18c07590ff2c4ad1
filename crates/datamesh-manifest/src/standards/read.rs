//! Documents of standards as manifests that our reader accepts, as far as they can be.

use datamesh_core::{DataProduct, Diagnostic, Location};

use super::datacontract;
use super::names;
use super::odcs::{self, Unread};
use super::odps;
use super::tree::{self, Map, Tree};
use crate::read::product;
use crate::yaml::{Document, Kind, Node};

/// A standard that documents are imported from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standard {
    /// Open Data Contract Standard, 3.0 to 3.2.
    Odcs,
    /// Data Contract Specification, up to 1.2.1.
    DataContract,
    /// Open Data Product Standard of Bitol, 1.0 and 1.1.
    Odps,
}

/// What a document became.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The manifest.
    pub manifest: Tree,
    /// What our reader still refuses in the manifest's text: what the document does not tell.
    pub open: Vec<Diagnostic>,
}

/// Reads a document of a standard into a manifest. `file` is what the user calls it.
///
/// # Errors
/// What is wrong with the document by its own standard, with places.
pub fn import(standard: Standard, file: &str, bytes: &[u8]) -> Result<Imported, Vec<Diagnostic>> {
    let (mut document, node, tree) = tree::read(file, bytes)?;
    match standard {
        Standard::Odcs => {
            let Some(version) = odcs::check_document(&mut document, &node) else { return Err(document.finish()) };
            Ok(settle(|unread| odcs::import(&tree, version, unread)))
        }
        Standard::DataContract => {
            if !datacontract::check(&mut document, &node) {
                return Err(document.finish());
            }
            let contract = datacontract::to_odcs(&tree);
            Ok(settle(|unread| odcs::forget_version(odcs::import(&contract, odcs::Version::V3_2_0, unread))))
        }
        Standard::Odps => {
            odps::check_document(&mut document, &node, &tree);
            if document.has_errors() {
                return Err(document.finish());
            }
            Ok(settle(|_| odps::import(&tree)))
        }
    }
}

/// Reads the text of a product's manifest, or of a contract of any standard that is imported, into the types that are
/// compared. What a contract does not tell and a manifest must is filled in: owner `unknown`, version 0.0.0, type string.
///
/// # Errors
/// What is wrong with the document, with places.
pub fn read_contract(file: &str, bytes: &[u8]) -> Result<DataProduct, Vec<Diagnostic>> {
    let (mut document, node, tree) = tree::read(file, bytes)?;
    let standard = if tree.get("dataProduct").is_some_and(|product| product.as_map().is_some()) {
        None
    } else if odcs::is_contract(&tree) {
        Some(Standard::Odcs)
    } else if datacontract::is_contract(&tree) {
        Some(Standard::DataContract)
    } else {
        let help =
            "a manifest starts with `dataProduct:`, a contract of ODCS has `apiVersion:` and `kind: DataContract`";
        document.error("unknown-document", node.span, "this is neither a manifest nor a contract", help);
        return Err(document.finish());
    };
    let Some(standard) = standard else {
        return product(&mut document, &node, None).ok_or_else(|| document.finish());
    };
    let Imported { mut manifest, .. } = import(standard, file, bytes)?;
    fill_in(&mut manifest);
    let text = manifest.to_yaml();
    let mut document = Document::new(file, text.as_bytes()).map_err(|diagnostic| vec![*diagnostic])?;
    let found = document.parse().and_then(|node| product(&mut document, &node, None));
    found.ok_or_else(|| {
        // The places are those of a text that nobody has seen.
        let mut diagnostics = document.finish();
        diagnostics.retain(Diagnostic::is_error);
        for diagnostic in &mut diagnostics {
            diagnostic.location = Location { file: file.to_owned(), ..Location::default() };
        }
        diagnostics
    })
}

/// How often a manifest is read again without what was refused. Each round leaves at least one thing out.
const MOST_ROUNDS: usize = 64;

/// Reads a document, and reads it again without what our reader refuses, until only what must be there is refused.
pub(crate) fn settle(build: impl Fn(&Unread) -> Tree) -> Imported {
    let mut unread = Unread::default();
    let mut round = 0;
    loop {
        let manifest = build(&unread);
        let text = manifest.to_yaml();
        let open = match Document::new("product.yaml", text.as_bytes()) {
            Ok(mut document) => {
                let node = document.parse();
                if let Some(node) = &node {
                    product(&mut document, node, None);
                }
                let refused: Vec<_> = document.finish().into_iter().filter(Diagnostic::is_error).collect();
                let mut progress = false;
                // A status says something even where the end of support that goes with it is still to be written.
                for diagnostic in refused.iter().filter(|diagnostic| diagnostic.id != "end-of-support-missing") {
                    let path = node.as_ref().and_then(|node| path_to(node, &diagnostic.location)).unwrap_or_default();
                    progress |= leave_out(&mut unread, &manifest, &path);
                }
                if progress && round < MOST_ROUNDS {
                    round += 1;
                    continue;
                }
                refused
            }
            Err(diagnostic) => vec![*diagnostic],
        };
        return Imported { manifest, open };
    }
}

/// The path to the place of a diagnostic: to the outermost node that is exactly there, else to the innermost around it.
fn path_to(root: &Node, at: &Location) -> Option<Vec<String>> {
    fn walk(node: &Node, at: &Location, path: &mut Vec<String>) -> bool {
        let (start, end) = (at.offset, at.offset + at.length);
        if node.span.start == start && node.span.end == end {
            return true;
        }
        let mut descend = |name: String, child: &Node, exact: bool| {
            if exact || child.span.start <= start && end <= child.span.end.max(child.span.start + 1) {
                path.push(name);
                if exact || walk(child, at, path) {
                    return true;
                }
                path.pop();
            }
            false
        };
        match &node.kind {
            Kind::Scalar { .. } => {}
            Kind::Sequence(items) => {
                for (index, item) in items.iter().enumerate() {
                    if descend(index.to_string(), item, false) {
                        return true;
                    }
                }
            }
            Kind::Mapping(entries) => {
                for (key, value) in entries {
                    let exact = key.span.start == start && key.span.end == end;
                    if descend(key.text().unwrap_or_default().to_owned(), value, exact) {
                        return true;
                    }
                }
            }
        }
        node.span.start <= start && end <= node.span.end
    }
    let mut path = Vec::new();
    walk(root, at, &mut path).then_some(path)
}

/// Leaves out what stands at `path` in a manifest. Whether there is something to leave out that was not before is told.
fn leave_out(unread: &mut Unread, manifest: &Tree, path: &[String]) -> bool {
    let mut parts = path.iter().map(String::as_str).skip(1);
    let (mut at, mut place) = (manifest.get("dataProduct"), String::new());
    let index = |list: Option<&'_ Tree>, index: &str| -> Option<Tree> {
        list?.as_list()?.get(index.parse::<usize>().ok()?).cloned()
    };
    let mut held;
    while let Some(key) = parts.next() {
        match key {
            "schema" | "columns" | "quality" => {
                let Some(number) = parts.next() else {
                    return key == "quality" && unread.keys.entry(place).or_default().insert(key.to_owned());
                };
                let is_array =
                    at.and_then(|at| at.get("type")).and_then(Tree::scalar).is_some_and(|t| t.starts_with("array"));
                if key == "columns" && is_array {
                    place.push_str("/items");
                }
                let separator = if place.is_empty() { "" } else { "/" };
                place = format!("{place}{separator}{key}/{number}");
                if key == "quality" {
                    return unread.rules.insert(place);
                }
                held = index(at.and_then(|at| at.get(key)), number);
                at = held.as_ref();
            }
            "items" => {
                place.push_str("/items");
                at = at.and_then(|at| at.get("items"));
            }
            "name" | "type" | "owner" | "version" => return false,
            key => return unread.keys.entry(place).or_default().insert(key.to_owned()),
        }
    }
    false
}

/// Fills in what a document does not tell.
fn fill_in(manifest: &mut Tree) {
    let Tree::Map(root) = manifest else { return };
    let Some(Tree::Map(product)) = root.get_mut("dataProduct") else { return };
    let is_todo = |value: Option<&Tree>| value.and_then(Tree::as_text) == Some("TODO");
    if is_todo(product.get("owner")) {
        product.put("owner", "unknown");
    }
    if is_todo(product.get("version")) {
        product.put("version", "0.0.0");
    }
    if product.get("status").and_then(Tree::scalar) == Some("deprecated") {
        let mut sla = product.get("sla").and_then(Tree::as_map).cloned().unwrap_or_default();
        if !sla.contains("endOfSupport") {
            sla.put("endOfSupport", "9999-12-31");
            product.put("sla", sla);
        }
    }
    if !product.contains("domain") {
        let owner = product.get("owner").and_then(Tree::scalar).unwrap_or("unknown");
        let domain = names::name(owner.strip_suffix("-domain").unwrap_or(owner));
        product.put("domain", domain);
    }
    for_each_column(product, "schema", &mut |table| {
        for_each_column(table, "columns", &mut fill_type);
    });
}

fn fill_type(column: &mut Map) {
    if let Some(our_type) = column.get("type").and_then(Tree::as_text)
        && our_type.contains("TODO")
    {
        let our_type = our_type.replace("TODO", "string");
        column.put("type", our_type);
    }
    for_each_column(column, "columns", &mut fill_type);
    if let Some(Tree::Map(items)) = column.get_mut("items") {
        for_each_column(items, "columns", &mut fill_type);
    }
}

fn for_each_column(map: &mut Map, key: &str, change: &mut dyn FnMut(&mut Map)) {
    let Some(Tree::List(items)) = map.get_mut(key) else { return };
    for item in items {
        if let Tree::Map(item) = item {
            change(item);
        }
    }
}
