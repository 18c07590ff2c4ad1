//! The Open Data Product Standard of Bitol, versions 1.0 and 1.1, to and from our manifest.
//!
//! What both sides know is mapped to the key that means the same. What the manifest does not model lies below
//! `custom: {odps: …}` at its node; what the standard does not model travels in `customProperties` at its node, in
//! one property named `datamesh`. A product of the standard names contracts and has no columns, so an imported
//! manifest has none either: `check` refuses it until they are there.
//!
//! Source: <https://bitol-io.github.io/open-data-product-standard/>, JSON Schemas v1.0.0 and v1.1.0.

mod export;
mod import;
mod rules;

use datamesh_core::{Diagnostic, Name};
use semver::Version;

use super::tree::{self, Map, Tree};

pub use export::export;
pub use import::import;
pub(crate) use rules::check as check_document;
pub use rules::{Edition, edition};

/// Reads a document of the standard and checks its structure against the edition that its `apiVersion` names.
///
/// # Errors
/// Every problem, each with its place and how to mend it.
pub fn read(file: &str, bytes: &[u8]) -> Result<Tree, Vec<Diagnostic>> {
    let (mut document, node, tree) = tree::read(file, bytes)?;
    check_document(&mut document, &node, &tree);
    if document.has_errors() { Err(document.finish()) } else { Ok(tree) }
}

/// The custom property that holds keys of our manifest, as the other standards have it.
const OURS: &str = super::lens::OWN;
/// In it: what the document says although the manifest leaves it out, since it follows from the rest.
const DERIVED: &str = "derived";
/// In it: keys that the manifest does not have, although an import would write them.
const ABSENT: &str = "omit";
/// Where the manifest keeps what it does not model.
const THEIRS: &str = "odps";

const TODO_NAME: &str = "TODO name of the product";
const TODO_VERSION: &str = "TODO version of the contract";
const TODO_OWNER: &str = "TODO the accountable team";
const TODO_SCHEMA: &str = "TODO the tables, with the columns that the contracts of its ports describe";
const TODO_TYPE: &str = "TODO type of the port";

/// The kinds of product, in our words and in theirs.
const KINDS: [(&str, &str); 3] =
    [("source-aligned", "sourceAligned"), ("aggregate", "aggregate"), ("consumer-aligned", "consumerAligned")];

/// The words that a manifest's `status` can be.
const STATUSES: [&str; 4] = ["draft", "active", "deprecated", "retired"];

/// A name by our rules that is as near to `text` as it gets.
fn to_name(text: &str) -> Option<String> {
    if Name::new(text.trim()).is_ok() {
        return Some(text.trim().to_owned());
    }
    let words: Vec<String> = text
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    let name = words.join("-");
    Name::new(&name).ok().map(|_| name)
}

/// A semantic version as our reader takes it, from `1.2.0` or `v1.2.0`.
fn to_version(text: &str) -> Option<String> {
    let text = text.trim();
    let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
    parse_version(text).map(|_| text.to_owned())
}

fn parse_version(text: &str) -> Option<Version> {
    let padded = match text.split('.').count() {
        1 => format!("{text}.0.0"),
        2 => format!("{text}.0"),
        _ => text.to_owned(),
    };
    Version::parse(&padded).ok()
}

/// Our word for a status of theirs.
fn to_status(text: &str) -> Option<&'static str> {
    let text = text.trim().to_ascii_lowercase();
    if text == "proposed" {
        return Some("draft");
    }
    STATUSES.into_iter().find(|status| *status == text)
}

/// Our word for a kind of product.
fn to_kind(text: &str) -> Option<&'static str> {
    KINDS.into_iter().find(|(_, theirs)| *theirs == text).map(|(ours, _)| ours)
}

/// Whether an owner is nobody yet, as the reader of manifests sees it.
fn is_placeholder(owner: &str) -> bool {
    let first = owner.trim().split(' ').next().unwrap_or_default().to_ascii_lowercase();
    matches!(first.as_str(), "" | "todo" | "tbd" | "fixme")
}

/// What a product is if its manifest does not say.
fn default_status(version: Option<&str>) -> &'static str {
    match version.and_then(parse_version) {
        Some(version) if version.major > 0 => "active",
        _ => "draft",
    }
}

/// The product's own identifier, where nobody gave it another.
fn product_id(domain: Option<&str>, product: Option<&str>) -> String {
    let product = product.unwrap_or("unnamed");
    domain.map_or_else(|| product.to_owned(), |domain| format!("{domain}/{product}"))
}

/// The identifier of a product's contract as its ODCS export has it. `custom` are the product's custom keys: an
/// imported contract keeps its own.
fn contract_id(domain: Option<&str>, product: Option<&str>, custom: Option<&Map>) -> String {
    let own = custom.and_then(|custom| custom.get("odcs")).and_then(|odcs| odcs.get("id")).and_then(Tree::as_text);
    own.map_or_else(
        || format!("urn:datamesh:{}:{}", domain.unwrap_or_default(), product.unwrap_or("unnamed")),
        str::to_owned,
    )
}

/// The identifier of the contract of an input, which is written `domain/product`.
fn input_contract(input: &str) -> String {
    let (domain, product) = input.split_once('/').unwrap_or(("", input));
    contract_id(Some(domain), Some(product), None)
}

/// The port that a product has if its manifest names none.
fn default_port(contract: &str, version: Option<&str>) -> Map {
    let mut port = Map::new();
    port.put("name", "tables");
    port.put("type", "iceberg");
    port.put_some("version", version);
    port.put("contractId", contract);
    port
}

/// An address of the support of a product.
fn email_channel(address: &str) -> Map {
    let mut channel = Map::new();
    channel.put("channel", address);
    channel.put("url", format!("mailto:{address}"));
    channel.put("tool", "email");
    channel
}

/// Whether two values of a manifest say the same: the order of keys and the spelling of numbers do not matter.
fn same(one: &Tree, other: &Tree) -> bool {
    one == other || one.normalised() == other.normalised()
}

/// A list of texts.
fn words(list: Option<&Tree>) -> Vec<&str> {
    list.and_then(Tree::as_list).unwrap_or_default().iter().filter_map(Tree::as_text).collect()
}

/// Adds the keys that are not there.
fn fill(map: &mut Map, others: Map) {
    for (key, value) in others {
        if !map.contains(&key) {
            map.put(key, value);
        }
    }
}
