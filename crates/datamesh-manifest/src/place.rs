//! Where in a document a change of the contract stands, and documents that are read by themselves, to be compared.

use std::path::Path;

use datamesh_core::contract::DataProduct;
use datamesh_core::evolution::ContractPath;
use datamesh_core::{Diagnostic, Location, Name, Result};

use crate::mesh::{Mesh, nearest_domain, read_bounded};
use crate::yaml::{Document, Kind, Node, Span};

/// Where changes stand in a manifest or a data contract, one place a path, with the document's text. What is not there
/// stands where the nearest thing around it does: a column that is gone at its table.
///
/// # Errors
/// A file that cannot be read.
pub fn locate_changes<'p>(
    path: &Path,
    wanted: impl IntoIterator<Item = &'p ContractPath>,
) -> Result<(Vec<Location>, String)> {
    let file = path.display().to_string();
    let bytes = read_bounded(path)?;
    let whole = Location { file: file.clone(), ..Location::default() };
    let document = Document::new(&file, &bytes).ok();
    let parsed = document.and_then(|mut document| document.parse().map(|root| (document, root)));
    let places = wanted.into_iter().map(|wanted| match &parsed {
        Some((document, root)) => document.location(span_of(root, wanted)),
        None => whole.clone(),
    });
    let places = places.collect();
    Ok((places, String::from_utf8_lossy(&bytes).trim_start_matches('\u{feff}').to_owned()))
}

fn span_of(root: &Node, wanted: &ContractPath) -> Span {
    let (mut node, mut place) = match root.get("dataProduct").filter(|node| matches!(node.kind, Kind::Mapping(_))) {
        Some(product) => (product, entry(root, "dataProduct")),
        None => (root, None),
    };
    for segment in wanted.segments() {
        // Words of the manifest that other documents leave out, or write otherwise, are steps without a place.
        let Some((next, span)) = step(node, segment) else {
            match segment.as_str() {
                "schema" | "columns" | "quality" | "custom" | "odcs" => continue,
                _ => break,
            }
        };
        (node, place) = (next, Some(span));
    }
    place.unwrap_or(Span { start: root.span.start, end: root.span.start })
}

/// The span of a key's name.
fn entry(node: &Node, key: &str) -> Option<Span> {
    let Kind::Mapping(entries) = &node.kind else { return None };
    entries.iter().find(|(name, _)| name.text() == Some(key)).map(|(name, _)| name.span)
}

/// What an item is known by, and where that stands.
fn name_of(node: &Node) -> Option<Span> {
    ["name", "role", "property", "server", "channel", "username"]
        .iter()
        .find_map(|key| node.get(key))
        .map(|name| name.span)
}

fn is_called(node: &Node, wanted: &str) -> bool {
    let keys = ["name", "role", "property", "server", "channel", "username", "condition"];
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    keys.iter().any(|key| node.get(key).and_then(Node::text).is_some_and(|text| squeezed(text) == wanted))
        || node.text().is_some_and(|text| squeezed(text) == wanted)
}

/// One step down: a key, or an item by its name. The span is the key's value where it is a short one, else its name.
fn step<'n>(node: &'n Node, segment: &str) -> Option<(&'n Node, Span)> {
    match &node.kind {
        Kind::Mapping(_) => {
            // The words of the Open Data Contract Standard for the same things.
            let other = match segment {
                "columns" => &["properties"][..],
                "owner" => &["team"],
                "sla" => &["slaProperties"],
                "access" => &["roles"],
                "contact" => &["support"],
                "type" => &["physicalType", "logicalType"],
                "from" => &["transformSourceObjects"],
                "references" => &["relationships"],
                "partitionBy" => &["properties"],
                _ => &[],
            };
            let found = std::iter::once(segment).chain(other.iter().copied()).find_map(|key| {
                let value = node.get(key)?;
                Some((value, place(value).or_else(|| entry(node, key))?))
            });
            found.or_else(|| {
                let options = ["logicalTypeOptions", "custom", "odcs", "items"];
                options.iter().find_map(|key| {
                    let value = node.get(key)?.get(segment)?;
                    Some((value, place(value).or_else(|| entry(node.get(key)?, segment))?))
                })
            })
        }
        Kind::Sequence(items) => {
            let item = items.iter().find(|item| is_called(item, segment))?;
            Some((item, name_of(item).unwrap_or(item.span)))
        }
        Kind::Scalar { .. } => None,
    }
}

/// The place of a scalar's value; others are pointed at by their key.
fn place(node: &Node) -> Option<Span> {
    matches!(node.kind, Kind::Scalar { .. }).then_some(node.span)
}

/// Reads one manifest as [`crate::load_product`] does; where neither the manifest nor a folder above it tells the
/// product's domain, it is `domain`: a copy of a manifest from another revision is still of its domain.
///
/// # Errors
/// A file that cannot be read.
pub fn load_product_in(path: &Path, domain: &Name) -> Result<Mesh> {
    let path = if path.is_dir() { path.join("product.yaml") } else { path.to_owned() };
    let mut mesh = Mesh::default();
    let nearest = nearest_domain(&mut mesh, &path)?;
    if mesh.has_errors() {
        return Ok(mesh);
    }
    let said = mesh.read(&path, |_, root| root.get("dataProduct")?.get("domain").map(|_| ()))?.is_some();
    // Read for that alone: it is read again, and told once.
    let mut mesh = Mesh::default();
    let domain = nearest.or_else(|| (!said).then(|| domain.clone()));
    mesh.read_product(&path, domain.as_ref())?;
    Ok(mesh)
}

/// Reads the text of a manifest that lies in no folder; where it does not tell the product's domain, it is `domain`.
/// Transforms in files of their own are not read.
///
/// # Errors
/// Everything that is wrong with it, with places in `file`.
pub fn read_product(file: &str, text: &str, domain: &Name) -> Result<DataProduct, Vec<Diagnostic>> {
    let mut document = Document::new(file, text.as_bytes()).map_err(|diagnostic| vec![*diagnostic])?;
    let contract = document.parse().and_then(|root| {
        let said = root.get("dataProduct").is_some_and(|product| product.get("domain").is_some());
        crate::read::product(&mut document, &root, (!said).then_some(domain))
    });
    let failed = document.has_errors();
    match contract.filter(|_| !failed) {
        Some(contract) => Ok(contract),
        None => Err(document.finish()),
    }
}
