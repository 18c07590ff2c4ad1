//! What `mesh.yaml` says of principals: attributes, roles, users and services; and what is checked of them across a mesh.

mod check;

use std::collections::{BTreeMap, BTreeSet};

use datamesh_core::access::{
    AttributeType, AttributeValue, PrincipalKind, PrincipalProfile, Role, SeparationOfDuties, parse_principal,
};

pub(crate) use check::check;

use crate::read::{text, texts};
use crate::shape::closest;
use crate::yaml::{Document, Kind, Node};

/// What a `mesh.yaml` says of who there is, and which policies hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Principals {
    /// The attributes that principals have.
    pub attributes: BTreeMap<String, AttributeType>,
    /// The roles.
    pub roles: Vec<Role>,
    /// Users and services.
    pub principals: Vec<PrincipalProfile>,
    /// Ids of policies of the default pack that do not hold.
    pub disabled: BTreeSet<String>,
    /// Who counts as one where duties are separated.
    pub separation_of_duties: SeparationOfDuties,
}

/// Reads what a `mesh.yaml` says of principals.
pub(crate) fn read(document: &mut Document<'_>, root: &Node) -> Principals {
    let attributes = read_attributes(document, root);
    let roles = read_roles(document, root);
    let principals = read_principals(document, root, &attributes, &roles);
    let disabled = root.get("policies").map(|policies| distinct(document, policies, "disable")).unwrap_or_default();
    // The reader has refused other words.
    let separation_of_duties = root.get("separationOfDuties").and_then(|node| SeparationOfDuties::parse(node.text()?));
    let separation_of_duties = separation_of_duties.unwrap_or_default();
    Principals { attributes, roles, principals, disabled, separation_of_duties }
}

/// The entries of a list, or the one value that stands in place of it.
pub(crate) fn entries<'n>(node: &'n Node, key: &str) -> &'n [Node] {
    match node.get(key) {
        Some(value) => value.items().unwrap_or(std::slice::from_ref(value)),
        None => &[],
    }
}

/// Texts that say something, each once.
pub(crate) fn distinct(document: &mut Document<'_>, node: &Node, key: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in entries(node, key) {
        let Some(text) = entry.text().map(str::trim) else { continue };
        if text.is_empty() {
            document.error(
                "empty-text",
                entry.span,
                format!("a text of `{key}` is empty"),
                "write a name, or remove it",
            );
        } else if !found.insert(text.to_owned()) {
            document.error("duplicate-name", entry.span, format!("`{text}` is named twice"), "keep one of them");
        }
    }
    found
}

/// `did you mean`, or what else helps.
pub(crate) fn meant<'a>(wanted: &str, names: impl Iterator<Item = &'a str>, otherwise: &str) -> String {
    match closest(wanted, names) {
        Some(name) => format!("did you mean `{name}`?"),
        None => otherwise.to_owned(),
    }
}

/// A name that can be written after `principal.`.
fn is_attribute_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn read_attributes(document: &mut Document<'_>, root: &Node) -> BTreeMap<String, AttributeType> {
    let mut attributes = BTreeMap::new();
    let Some(Kind::Mapping(declared)) = root.get("attributes").map(|node| &node.kind) else { return attributes };
    for (key, value) in declared {
        let name = key.text().unwrap_or_default();
        if !is_attribute_name(name) {
            document.error(
                "invalid-name",
                key.span,
                format!("`{}` cannot be the name of an attribute", name.escape_default()),
                "use letters, digits and `_`, starting with a letter: policies and row filters write `principal.<name>`",
            );
            continue;
        }
        // Other words were reported by the table of keys.
        let known = AttributeType::ALL.into_iter().find(|known| Some(known.as_str()) == value.text());
        if let Some(known) = known {
            attributes.insert(name.to_owned(), known);
        }
    }
    attributes
}

fn read_roles(document: &mut Document<'_>, root: &Node) -> Vec<Role> {
    let declared = root.get("roles").and_then(Node::items).unwrap_or_default();
    let mut roles: Vec<Role> = Vec::new();
    for entry in declared {
        let at = entry.get("name").unwrap_or(entry);
        let Some(name) = at.text().map(str::trim) else { continue };
        if let Err(why) = principal_name(PrincipalKind::Role, name) {
            document.error("invalid-name", at.span, why, "write a name without spaces");
            continue;
        }
        if roles.iter().any(|other| other.name == name) {
            let message = format!("role `{name}` is declared twice");
            document.error("duplicate-role", at.span, message, "give each role a name of its own");
            continue;
        }
        let includes = distinct(document, entry, "includes");
        roles.push(Role { name: name.to_owned(), description: text(entry, "description"), includes });
    }
    for entry in declared {
        let Some(name) = text(entry, "name") else { continue };
        for include in entries(entry, "includes") {
            let Some(other) = include.text().map(str::trim).filter(|other| !other.is_empty()) else { continue };
            if !known_role(document, include, other, &roles) {
                continue;
            }
            if other == name || included(&roles, other).contains(name.as_str()) {
                document.error(
                    "role-cycle",
                    include.span,
                    format!("role `{name}` would include itself, by way of `{other}`"),
                    "take one `includes` out: of two roles one is the wider",
                );
            }
        }
    }
    roles
}

/// A role, and all that it includes.
pub(crate) fn included<'r>(roles: &'r [Role], role: &'r str) -> BTreeSet<&'r str> {
    let mut found = BTreeSet::new();
    let mut open = vec![role];
    while let Some(name) = open.pop() {
        if found.insert(name)
            && let Some(role) = roles.iter().find(|role| role.name == name)
        {
            open.extend(role.includes.iter().map(String::as_str));
        }
    }
    found
}

fn known_role(document: &mut Document<'_>, at: &Node, name: &str, roles: &[Role]) -> bool {
    let known = roles.iter().any(|role| role.name == name);
    if !known {
        let help = meant(name, roles.iter().map(|role| role.name.as_str()), "declare it below `roles:`");
        document.error("unknown-role", at.span, format!("there is no role `{name}`"), help);
    }
    known
}

/// What is wrong with the name of a principal or role.
fn principal_name(kind: PrincipalKind, name: &str) -> Result<(), String> {
    match parse_principal(&format!("{}:{name}", kind.as_str())) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("`{}` cannot be the name of a {}", name.escape_default(), kind.as_str())),
    }
}

fn read_principals(
    document: &mut Document<'_>,
    root: &Node,
    attributes: &BTreeMap<String, AttributeType>,
    roles: &[Role],
) -> Vec<PrincipalProfile> {
    let mut principals: Vec<PrincipalProfile> = Vec::new();
    let mut taken: BTreeSet<(PrincipalKind, String)> = BTreeSet::new();
    for entry in root.get("principals").and_then(Node::items).unwrap_or_default() {
        let (kind, at) = match (entry.get("user"), entry.get("service")) {
            (Some(user), None) => (PrincipalKind::User, user),
            (None, Some(service)) => (PrincipalKind::Service, service),
            (Some(_), Some(service)) => {
                let message = "a principal is a user or a service, not both";
                document.error("ambiguous-principal", service.span, message, "declare each by itself");
                continue;
            }
            (None, None) => {
                if matches!(entry.kind, Kind::Mapping(_)) {
                    let message = "this principal is nobody";
                    document.error("nobody", entry.span, message, "write `user: <name>` or `service: <name>`");
                }
                continue;
            }
        };
        let Some(name) = at.text().map(str::trim) else { continue };
        if let Err(why) = principal_name(kind, name) {
            let help = format!("write the name alone, such as `{}: alice`", kind.as_str());
            document.error("invalid-name", at.span, why, help);
            continue;
        }
        if !taken.insert((kind, name.to_owned())) {
            let message = format!("{} `{name}` is declared twice", kind.as_str());
            document.error("duplicate-principal", at.span, message, "put roles and attributes together");
            continue;
        }
        let own_roles = distinct(document, entry, "roles");
        for role in entries(entry, "roles") {
            if let Some(name) = role.text().map(str::trim).filter(|name| own_roles.contains(*name)) {
                known_role(document, role, name, roles);
            }
        }
        principals.push(PrincipalProfile {
            kind,
            name: name.to_owned(),
            description: text(entry, "description"),
            roles: own_roles,
            attributes: read_values(document, entry, attributes),
        });
    }
    principals
}

fn read_values(
    document: &mut Document<'_>,
    principal: &Node,
    attributes: &BTreeMap<String, AttributeType>,
) -> BTreeMap<String, AttributeValue> {
    let mut values = BTreeMap::new();
    let Some(Kind::Mapping(given)) = principal.get("attributes").map(|node| &node.kind) else { return values };
    for (key, value) in given {
        let name = key.text().unwrap_or_default();
        let Some(wanted) = attributes.get(name) else {
            let help = meant(
                name,
                attributes.keys().map(String::as_str),
                "declare it with its type below `attributes:` of the mesh",
            );
            let message = format!("there is no attribute `{}`", name.escape_default());
            document.error("unknown-attribute", key.span, message, help);
            continue;
        };
        match read_value(value, *wanted) {
            Some(value) => {
                values.insert(name.to_owned(), value);
            }
            // What is no text was reported by the table of keys.
            None if value.is_null() => {}
            None => {
                let (message, help) = wrong_value(name, value, *wanted);
                document.error("invalid-attribute", value.span, message, help);
            }
        }
    }
    values
}

fn read_value(node: &Node, wanted: AttributeType) -> Option<AttributeValue> {
    Some(match wanted {
        AttributeType::String => AttributeValue::String(node.text().filter(|_| !node.is_null())?.to_owned()),
        AttributeType::Long => AttributeValue::Long(node.text()?.trim().parse().ok()?),
        AttributeType::Boolean => AttributeValue::Boolean(node.boolean()?),
        AttributeType::Strings if matches!(node.kind, Kind::Mapping(_)) || node.is_null() => return None,
        AttributeType::Strings => AttributeValue::Strings(texts(Some(node)).into_iter().collect()),
    })
}

fn wrong_value(name: &str, node: &Node, wanted: AttributeType) -> (String, &'static str) {
    let given = node.text().map_or_else(|| node.describe().to_owned(), |text| format!("`{}`", text.escape_default()));
    let (what, help) = match wanted {
        AttributeType::String => ("a text", "write one text"),
        AttributeType::Long => ("a whole number of 64 bits", "write a whole number, such as 3"),
        AttributeType::Boolean => ("true or false", "write `true` or `false`, without quotes"),
        AttributeType::Strings => ("a list of texts", "write `[DE, FR]`"),
    };
    (format!("`{name}` is {what} ({}), but this is {given}", wanted.as_str()), help)
}
