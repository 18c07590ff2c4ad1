//! A document of the standard to a manifest.

use datamesh_core::transform::ProductInput;

use super::super::tree::{Map, Tree};
use super::{
    ABSENT, DERIVED, OURS, THEIRS, TODO_NAME, TODO_OWNER, TODO_SCHEMA, TODO_TYPE, TODO_VERSION, contract_id,
    default_port, default_status, email_channel, fill, input_contract, product_id, to_kind, to_name, to_status,
    to_version, words,
};
use crate::shape::DATA_PRODUCT;

/// The manifest of a document whose structure was checked. What a manifest needs and the document does not have is
/// left as a TODO that `check` refuses.
pub fn import(document: &Tree) -> Tree {
    let mut rest = document.as_map().cloned().unwrap_or_default();
    rest.take("apiVersion");
    rest.take("kind");
    let mut properties = Properties::split(rest.take("customProperties"));
    let derived: Vec<String> = words(properties.ours.get(DERIVED)).into_iter().map(str::to_owned).collect();
    let derived = |word: &str| derived.iter().any(|other| other == word);

    let text = |key: &str| document.get(key).and_then(Tree::as_text);
    let contract = contract_id(text("domain"), text("name"), Some(&properties.custom));
    if derived("status") && text("status") == Some(default_status(text("version"))) {
        rest.take("status");
    }
    if derived("id") && text("id") == Some(&product_id(text("domain"), text("name"))) {
        rest.take("id");
        if derived("domain") {
            rest.take("domain");
        }
    }
    if derived("outputPorts")
        && rest.get("outputPorts").is_some_and(|ports| *ports == derived_ports(&contract, text("version")))
    {
        rest.take("outputPorts");
    }

    let mut product = Map::new();
    let mut theirs = Map::new();
    for scalar in &SCALARS {
        let value = rest.take_text(scalar.theirs);
        let ours = (scalar.read)(value.as_deref());
        if let Some(value) = value.filter(|value| ours.as_deref().map(scalar.spell) != Some(value)) {
            theirs.put(scalar.theirs, value);
        }
        product.put_some(scalar.ours, ours);
    }
    let team = rest.take_map("team");
    let (owner, team) = part(team, "name");
    product.put("owner", owner.unwrap_or_else(|| TODO_OWNER.into()));
    theirs.put_some("team", team);
    let (description, others) = part(rest.take_map("description"), "purpose");
    product.put_some("description", description);
    theirs.put_some("description", others);
    product.put_some("tags", rest.take("tags"));
    if let Some(ports) = rest.take_list("inputPorts") {
        let (inputs, ports) = inputs(ports);
        product.put_some("inputs", inputs);
        theirs.put_some("inputPorts", ports);
    }
    product.put("schema", TODO_SCHEMA);
    if let Some(ports) = rest.take_list("outputPorts") {
        let own = derived("contracts").then_some((contract.as_str(), text("version")));
        product.put("ports", ports.into_iter().map(|port| import_port(port, own)).collect::<Vec<_>>());
    }
    product.put_some("contact", contact(rest.take_list("support"), properties.ours.take("contact")));

    let mut all = Map::new();
    all.put_some("id", rest.take("id"));
    theirs = all.into_iter().chain(theirs).chain(rest).collect();
    Tree::Map(
        [("dataProduct".to_owned(), Tree::Map(in_order(properties.finish(product, theirs))))].into_iter().collect(),
    )
}

/// The ports of a product whose manifest names none.
pub(super) fn derived_ports(contract: &str, version: Option<&str>) -> Tree {
    Tree::List(vec![default_port(contract, version).into()])
}

/// A scalar that both sides have, though not with the same words.
pub(super) struct Scalar {
    pub(super) ours: &'static str,
    pub(super) theirs: &'static str,
    /// Our value for theirs, or for none.
    pub(super) read: fn(Option<&str>) -> Option<String>,
    /// Their value for ours.
    pub(super) spell: fn(&str) -> &str,
}

pub(super) const SCALARS: [Scalar; 5] = [
    Scalar {
        ours: "name",
        theirs: "name",
        read: |text| Some(text.and_then(to_name).unwrap_or_else(|| TODO_NAME.to_owned())),
        spell: |text| text,
    },
    Scalar {
        ours: "version",
        theirs: "version",
        read: |text| Some(text.and_then(to_version).unwrap_or_else(|| TODO_VERSION.to_owned())),
        spell: |text| text,
    },
    Scalar { ours: "domain", theirs: "domain", read: |text| text.and_then(to_name), spell: |text| text },
    Scalar {
        ours: "type",
        theirs: "type",
        read: |text| text.and_then(to_kind).map(str::to_owned),
        spell: |text| super::KINDS.into_iter().find(|(ours, _)| *ours == text).map_or(text, |(_, theirs)| theirs),
    },
    Scalar {
        ours: "status",
        theirs: "status",
        read: |text| text.and_then(to_status).map(str::to_owned),
        spell: |text| text,
    },
];

/// Takes one key that is ours out of an object of theirs. The rest is `None` where nothing else was there.
fn part(object: Option<Map>, key: &str) -> (Option<Tree>, Option<Map>) {
    let Some(mut object) = object else { return (None, None) };
    let ours = object.take(key);
    let rest = if ours.is_some() && object.is_empty() { None } else { Some(object) };
    (ours, rest)
}

/// Input ports that name a product are inputs; how the others stand among them is kept.
pub(super) fn inputs(ports: Vec<Tree>) -> (Option<Tree>, Option<Tree>) {
    let name = |port: &Tree| port.get("name").and_then(Tree::as_text).map(str::to_owned);
    let names: Vec<_> = ports.iter().map(name).collect();
    let unique = |name: &str| names.iter().flatten().filter(|other| *other == name).count() == 1;
    let mut inputs = Vec::new();
    let mut kept = Vec::new();
    let mut plain = true;
    for port in &ports {
        let version = port.get("version").and_then(Tree::as_text);
        let text = name(port)
            .filter(|name| unique(name) && !name.contains('@'))
            .map(|name| (version.map_or_else(|| name.clone(), |version| format!("{name}@{version}")), name));
        match (port, text) {
            (Tree::Map(port), Some((text, name))) if ProductInput::parse(&text).is_ok() => {
                let mut rest = port.clone();
                rest.take("name");
                rest.take("version");
                match rest.get("contractId").and_then(Tree::as_text) {
                    Some(contract) if contract == input_contract(&name) => drop(rest.take("contractId")),
                    Some(_) => {}
                    None => rest.put("contractId", Tree::Null),
                }
                plain &= rest.is_empty();
                inputs.push(Tree::Text(text));
                kept.push(Tree::Map(std::iter::once(("input".to_owned(), Tree::Text(name))).chain(rest).collect()));
            }
            _ => {
                plain = false;
                kept.push(port.clone());
            }
        }
    }
    let inputs = (!inputs.is_empty() || ports.is_empty()).then_some(Tree::List(inputs));
    (inputs, (!plain).then_some(Tree::List(kept)))
}

/// An output port. `own` are contract and version of the product, where a port that names these says nothing new.
pub(super) fn import_port(port: Tree, own: Option<(&str, Option<&str>)>) -> Tree {
    let Tree::Map(mut rest) = port else { return port };
    let properties = Properties::split(rest.take("customProperties"));
    let mut ours = Map::new();
    ours.put_some("name", rest.take("name"));
    ours.put("type", rest.take("type").unwrap_or_else(|| TODO_TYPE.into()));
    ours.put_some("description", rest.take("description"));
    let text = |key: &str| rest.get(key).and_then(Tree::as_text);
    let plain = own.is_some_and(|(contract, version)| {
        text("contractId") == Some(contract) && text("version") == version && !properties.has_foreign()
    });
    if plain {
        rest.take("contractId");
        rest.take("version");
    }
    let bare = plain && rest.is_empty();
    let mut ours = properties.finish(ours, rest);
    if !bare && ours.get("custom").and_then(|custom| custom.get(THEIRS)).is_none() {
        // Says that the port's contract is not to be derived.
        let mut custom = ours.take_map("custom").unwrap_or_default();
        custom.put(THEIRS, Map::new());
        ours.put("custom", custom);
    }
    ours.into()
}

/// Channels of support as a contact. `rest` is what the manifest says beside them.
fn contact(support: Option<Vec<Tree>>, rest: Option<Tree>) -> Option<Tree> {
    let Some(support) = support else { return rest };
    let email = match support.as_slice() {
        [only] => only
            .get("channel")
            .and_then(Tree::as_text)
            .filter(|address| *only == Tree::Map(email_channel(address)))
            .map(str::to_owned),
        _ => None,
    };
    let mut contact = Map::new();
    match (email, rest) {
        (None, None) => return Some(Tree::List(support)),
        (Some(email), None) => contact.put("email", email),
        (email, Some(rest)) => {
            match email {
                Some(email) => contact.put("email", email),
                None => contact.put("support", support),
            }
            match rest {
                Tree::Map(rest) => fill(&mut contact, rest),
                rest => contact.put("other", rest),
            }
        }
    }
    Some(contact.into())
}

/// Whether a custom property holds keys of our manifest.
pub(super) fn is_ours(entry: &Tree) -> bool {
    entry.get("property").and_then(Tree::as_text) == Some(OURS)
        && entry.as_map().is_some_and(|map| map.len() == 2)
        && entry.get("value").is_some_and(|value| value.as_map().is_some())
}

/// The custom properties of a node.
pub(super) struct Properties {
    /// Keys of our manifest.
    pub(super) ours: Map,
    custom: Map,
    /// The properties that have more than a name and a value, and how the others stand among them.
    pub(super) kept: Option<Tree>,
}

impl Properties {
    pub(super) fn split(list: Option<Tree>) -> Self {
        let mut found = Self { ours: Map::new(), custom: Map::new(), kept: None };
        let Some(Tree::List(list)) = list else { return found };
        let mut kept = Vec::new();
        let mut plain = !list.is_empty();
        for entry in list {
            let name = entry.get("property").and_then(Tree::as_text).unwrap_or_default().to_owned();
            let simple = entry.as_map().is_some_and(|map| map.len() == 2) && entry.get("value").is_some();
            let value = entry.get("value").filter(|_| simple).cloned();
            match value {
                Some(Tree::Map(ours)) if is_ours(&entry) => found.ours = ours,
                Some(value) if name != THEIRS && name != OURS && !found.custom.contains(&name) => {
                    found.custom.put(name.clone(), value);
                    kept.push(Tree::Map([("property".to_owned(), Tree::Text(name))].into_iter().collect()));
                }
                _ => {
                    plain = false;
                    kept.push(entry);
                }
            }
        }
        found.kept = (!plain).then_some(Tree::List(kept));
        found
    }

    fn has_foreign(&self) -> bool {
        self.kept.is_some()
    }

    /// The node with our keys that were kept as properties, and with what we do not model below `custom`.
    pub(super) fn finish(self, mut node: Map, mut theirs: Map) -> Map {
        let Self { ours, mut custom, kept } = self;
        theirs.put_some("customProperties", kept);
        custom.put_filled(THEIRS, theirs);
        node.put_filled("custom", custom);
        let absent: Vec<String> = words(ours.get(ABSENT)).into_iter().map(str::to_owned).collect();
        for (name, value) in ours {
            if name != DERIVED && name != ABSENT {
                node.put(name, value);
            }
        }
        for key in absent {
            node.take(&key);
        }
        node
    }
}

/// The keys of a product in the order of our own manifests.
fn in_order(mut product: Map) -> Map {
    let known: Vec<_> =
        DATA_PRODUCT.keys.iter().filter_map(|key| Some((key.name.to_owned(), product.take(key.name)?))).collect();
    known.into_iter().chain(product).collect()
}
