//! A manifest to a document of the standard.

use datamesh_core::Name;

use super::super::tree::{Map, Tree};
use super::import::{Properties, SCALARS, derived_ports, import, import_port, inputs, is_ours};
use super::{
    ABSENT, DERIVED, Edition, OURS, THEIRS, TODO_OWNER, TODO_TYPE, contract_id, default_status, edition, email_channel,
    fill, input_contract, is_placeholder, product_id, rules, same,
};

/// The document of a manifest that was checked, in the oldest edition that loses nothing. `domain` is that of the
/// nearest `domain.yaml` above the manifest, where there is one.
pub fn export(manifest: &Tree, domain: Option<&str>) -> Tree {
    let product = manifest.get("dataProduct").and_then(Tree::as_map).cloned().unwrap_or_default();
    let Draft { mut document, mut properties, mut ours, product } = draft(product, domain);
    let natural = with_properties(&document, &properties, &ours);
    let back = import(&natural);
    let back = back.get("dataProduct").and_then(Tree::as_map).cloned().unwrap_or_default();
    add_rest(&mut ours, &product, &back);
    add_properties(&mut properties, ours);
    document.put_some("customProperties", properties.map(Tree::List));
    let mut document = rules::in_order(document);
    let edition = edition(&Tree::Map(document.clone()));
    document.put("apiVersion", edition.as_str());
    document.into()
}

/// What of a node is not in its import goes into properties of our own.
fn add_rest(ours: &mut Map, node: &Map, back: &Map) {
    for (key, value) in node.iter() {
        let there = back.get(key);
        let spelled =
            TEXTS.contains(&key) && value.scalar().is_some() && value.scalar() == there.and_then(Tree::scalar);
        if !spelled && there.is_none_or(|there| !same(there, value)) {
            ours.put(key, value.clone());
        }
    }
    let absent: Vec<Tree> = back.keys().filter(|key| !node.contains(key)).map(Tree::text).collect();
    if !absent.is_empty() {
        ours.put(ABSENT, absent);
    }
}

/// Keys whose value is a text, however it is spelled.
const TEXTS: [&str; 7] = ["name", "version", "owner", "domain", "type", "status", "description"];

struct Draft {
    document: Map,
    properties: Option<Vec<Tree>>,
    ours: Map,
    /// The product without what an edit of the manifest superseded.
    product: Map,
}

fn with_properties(document: &Map, properties: &Option<Vec<Tree>>, ours: &Map) -> Tree {
    let (mut document, mut properties) = (document.clone(), properties.clone());
    add_properties(&mut properties, ours.clone());
    document.put_some("customProperties", properties.map(Tree::List));
    document.into()
}

fn add_properties(properties: &mut Option<Vec<Tree>>, ours: Map) {
    if !ours.is_empty() {
        properties.get_or_insert_default().push(property(OURS, ours.into()));
    }
}

fn property(name: &str, value: Tree) -> Tree {
    let mut property = Map::new();
    property.put("property", name);
    property.put("value", value);
    property.into()
}

/// What has a place of its own in the standard.
fn draft(mut product: Map, domain: Option<&str>) -> Draft {
    let (properties, mut theirs) = split_custom(&mut product);
    let mut ours = Map::new();
    let mut derived: Vec<&str> = Vec::new();
    let mut document = Map::new();
    // The edition is known at the end.
    document.put("apiVersion", Edition::V1_0.as_str());
    document.put("kind", "DataProduct");
    let imported = theirs.contains("id");
    let text = |key: &str| product.get(key).and_then(Tree::scalar);
    let mut superseded: Vec<&str> = Vec::new();

    for scalar in &SCALARS {
        let (kept, own) = (theirs.take_text(scalar.theirs), text(scalar.ours));
        let still = kept.as_ref().filter(|kept| (scalar.read)(Some(kept)).as_deref() == own);
        if kept.is_some() && still.is_none() {
            superseded.push(scalar.theirs);
        }
        let value = match (still, own) {
            (Some(kept), _) => Some(kept.clone()),
            (None, own) if (scalar.read)(None).as_deref() == own => None,
            (None, own) => own.map(|own| (scalar.spell)(own).to_owned()),
        };
        document.put_some(scalar.theirs, value);
    }
    if !imported {
        if !document.contains("status") {
            document.put("status", default_status(text("version")));
            derived.push("status");
        }
        if !document.contains("domain")
            && let Some(domain) = domain.or_else(|| domain_of_owner(text("owner")))
        {
            document.put("domain", domain);
            derived.push("domain");
        }
    }
    let said = |document: &Map, key: &str| document.get(key).and_then(Tree::as_text).map(str::to_owned);
    let (own_domain, own_name) = (said(&document, "domain"), said(&document, "name"));
    let custom = product.get("custom").and_then(Tree::as_map);
    let contract = contract_id(own_domain.as_deref(), own_name.as_deref(), custom);
    let version = said(&document, "version");
    match theirs.take_text("id") {
        Some(id) => document.put("id", id),
        None => {
            document.put("id", product_id(own_domain.as_deref(), own_name.as_deref()));
            derived.push("id");
        }
    }

    let owner = text("owner").filter(|owner| *owner != TODO_OWNER);
    join(&mut document, "team", "name", owner, theirs.take_map("team"));
    join(&mut document, "description", "purpose", text("description"), theirs.take_map("description"));
    document.put_some("tags", product.get("tags").filter(|tags| is_texts(tags)).cloned());
    let kept = theirs.take_list("inputPorts");
    let keeps = kept.is_some();
    let ports = input_ports(product.get("inputs"), kept);
    document.put_some("inputPorts", ports.clone());
    match product.get("ports") {
        Some(Tree::List(ports)) if ports.iter().all(|port| port.get("name").and_then(Tree::as_text).is_some()) => {
            let own = (contract.as_str(), version.as_deref());
            let (ports, plain): (Vec<Tree>, Vec<bool>) = ports.iter().map(|port| output_port(port, own)).unzip();
            document.put("outputPorts", ports);
            if plain.contains(&true) {
                derived.push("contracts");
            }
        }
        Some(_) => {}
        None if imported => {}
        None => {
            document.put("outputPorts", derived_ports(&contract, version.as_deref()));
            derived.push("outputPorts");
        }
    }
    let (support, rest) = support(product.get("contact"));
    document.put_some("support", support);
    ours.put_some("contact", rest);
    for (key, value) in theirs {
        if !document.contains(&key) && rules::admits(&key, &value) {
            document.put(key, value);
        }
    }
    if !derived.is_empty() {
        ours.put(DERIVED, derived.into_iter().map(Tree::text).collect::<Vec<_>>());
    }
    for key in superseded {
        keep(&mut product, key, None);
    }
    if let Some(Tree::List(ports)) = ports.filter(|_| keeps) {
        let (_, kept) = inputs(ports);
        keep(&mut product, "inputPorts", kept);
    }
    Draft { document, properties, ours, product }
}

/// The domain that an owner tells, as the reader of manifests sees it.
fn domain_of_owner(owner: Option<&str>) -> Option<&str> {
    let owner = owner?.trim();
    let domain = owner.strip_suffix("-domain").unwrap_or(owner);
    (!is_placeholder(owner) && Name::new(domain).is_ok()).then_some(domain)
}

fn is_texts(list: &Tree) -> bool {
    list.as_list().is_some_and(|items| items.iter().all(|item| item.as_text().is_some()))
}

/// An object of theirs of which one key is ours.
fn join(document: &mut Map, key: &str, part: &str, ours: Option<&str>, rest: Option<Map>) {
    if ours.is_none() && rest.is_none() {
        return;
    }
    let mut object = Map::new();
    object.put_some(part, ours);
    let alone = object.clone();
    fill(&mut object, rest.unwrap_or_default());
    let object = Tree::Map(object);
    match rules::admits(key, &object) {
        true => document.put(key, object),
        false if ours.is_some() => document.put(key, alone),
        false => {}
    }
}

/// What of the standard a node keeps below `custom` at `key`, where it keeps anything there.
fn keep(node: &mut Map, key: &str, value: Option<Tree>) {
    let Some(Tree::Map(custom)) = node.get_mut("custom") else { return };
    let Some(Tree::Map(theirs)) = custom.get_mut(THEIRS) else { return };
    match value {
        Some(value) => theirs.put(key, value),
        None => drop(theirs.take(key)),
    }
    if theirs.is_empty() {
        custom.take(THEIRS);
    }
    if custom.is_empty() {
        node.take("custom");
    }
}

/// The custom keys of a node as properties, and what of the standard is kept below them. What was kept for a custom
/// key that is gone is forgotten.
fn split_custom(node: &mut Map) -> (Option<Vec<Tree>>, Map) {
    let mut custom = node.get("custom").and_then(Tree::as_map).cloned().unwrap_or_default();
    let mut theirs = custom.take_map(THEIRS).unwrap_or_default();
    let kept = theirs.take_list("customProperties");
    let keeps = kept.is_some();
    let mut sound = true;
    let mut properties = keeps.then(Vec::new);
    for entry in kept.unwrap_or_default() {
        let name = entry.get("property").and_then(Tree::as_text);
        match name {
            Some(name) if entry.as_map().is_some_and(|map| map.len() == 1) => {
                if let Some(value) = custom.take(name).filter(|_| name != OURS && name != THEIRS) {
                    properties.get_or_insert_default().push(property(name, value));
                }
            }
            Some(_) if rules::admits_item("customProperties", &entry) && !is_ours(&entry) => {
                properties.get_or_insert_default().push(entry);
            }
            _ => sound = false,
        }
    }
    for (name, value) in custom {
        if name != THEIRS && name != OURS {
            properties.get_or_insert_default().push(property(&name, value));
        }
    }
    if keeps && sound {
        let kept = Properties::split(properties.clone().map(Tree::List)).kept;
        keep(node, "customProperties", kept);
    }
    (properties, theirs)
}

/// The ports of a product's inputs, among those that are kept because they name no product.
fn input_ports(inputs: Option<&Tree>, kept: Option<Vec<Tree>>) -> Option<Tree> {
    let mut inputs: Vec<Option<Map>> = match inputs {
        Some(list) if is_texts(list) => list
            .as_list()
            .unwrap_or_default()
            .iter()
            .filter_map(Tree::as_text)
            .map(|text| Some(input_port(text)))
            .collect(),
        Some(_) if kept.is_none() => return None,
        Some(_) => Vec::new(),
        None if kept.is_none() => return None,
        None => Vec::new(),
    };
    let mut ports = Vec::new();
    for entry in kept.unwrap_or_default() {
        let Some(input) = entry.get("input") else {
            if rules::admits_item("inputPorts", &entry) {
                ports.push(entry);
            }
            continue;
        };
        let place = inputs.iter_mut().find(|port| port.as_ref().is_some_and(|port| port.get("name") == Some(input)));
        if let (Some(mut port), Tree::Map(rest)) = (place.and_then(Option::take), entry.clone()) {
            for (key, value) in rest {
                match value {
                    _ if key == "input" => {}
                    Tree::Null => drop(port.take(&key)),
                    value => port.put(key, value),
                }
            }
            let port = Tree::Map(port);
            if rules::admits_item("inputPorts", &port) {
                ports.push(port);
            }
        }
    }
    ports.extend(inputs.into_iter().flatten().map(Tree::Map));
    Some(Tree::List(ports))
}

/// The port of an input: `domain/product`, or `domain/product@range`.
fn input_port(input: &str) -> Map {
    let (name, version) = match input.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (input, None),
    };
    let mut port = Map::new();
    port.put("name", name);
    port.put_some("version", version);
    port.put("contractId", input_contract(name));
    port
}

/// A port, and whether contract and version are those of the product: `own`.
fn output_port(port: &Tree, own: (&str, Option<&str>)) -> (Tree, bool) {
    let mut node = port.as_map().cloned().unwrap_or_default();
    let kept = port.get("custom").and_then(|custom| custom.get(THEIRS)).is_some();
    let (mut properties, theirs) = split_custom(&mut node);
    let text = |key: &str| node.get(key).and_then(Tree::as_text);
    let mut document = Map::new();
    document.put_some("name", text("name"));
    document.put_some("description", text("description"));
    document.put_some("type", text("type").filter(|kind| *kind != TODO_TYPE));
    if !kept {
        document.put_some("version", own.1);
        document.put("contractId", own.0);
    }
    let plain = document.clone();
    fill(&mut document, theirs);
    if !rules::admits_item("outputPorts", &Tree::Map(document.clone())) {
        document = plain;
    }
    let natural = with_properties(&document, &properties, &Map::new());
    let back = import_port(natural, (!kept).then_some(own));
    let mut ours = Map::new();
    add_rest(&mut ours, &node, back.as_map().unwrap_or(&Map::new()));
    add_properties(&mut properties, ours);
    document.put_some("customProperties", properties.map(Tree::List));
    (document.into(), !kept)
}

/// The channels of a contact, and what has no place among them.
fn support(contact: Option<&Tree>) -> (Option<Tree>, Option<Tree>) {
    match contact {
        None => (None, None),
        Some(list @ Tree::List(_)) if rules::admits("support", list) => (Some(list.clone()), None),
        Some(Tree::Map(map)) => {
            let mut rest = map.clone();
            let given = rest.take_if("support", |list| !map.contains("email") && rules::admits("support", list));
            let email = rest.take_text("email").map(|address| Tree::List(vec![email_channel(&address).into()]));
            // An empty rest says that the channels are an object's.
            let alone = rest.is_empty() && given.is_none() && email.is_some();
            (given.or(email), (!alone).then_some(Tree::Map(rest)))
        }
        Some(other) => (None, Some(other.clone())),
    }
}
