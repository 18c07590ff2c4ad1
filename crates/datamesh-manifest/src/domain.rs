//! `domain.yaml`: a domain's language, relationships and teams; and what is checked across a mesh's domains.

mod check;

use datamesh_core::domain::{
    Contradiction, Domain, KindEnd, Member, Relationship, RelationshipKind, Role, Team, Term, contradiction,
    folded_term,
};
use datamesh_core::lineage::ColumnReference;
use datamesh_core::{Level, Name, ProductId};

pub use check::{check_domains, domain_problems};

use crate::read::{read_name, read_owner, text, texts};
use crate::shape;
use crate::yaml::{Document, Node};

/// Reads a `domain.yaml`. Whether what it names exists can be told in a whole mesh only: see [`check_domains`].
///
/// `None` where an error was reported.
pub fn read(document: &mut Document<'_>, root: &Node) -> Option<Domain> {
    shape::check(document, root, &shape::DOMAIN, "domain");
    let name = read_name(document, root, "name");
    let owner = read_owner(document, root);
    let terms = name.as_ref().map(|name| read_terms(document, root, name)).unwrap_or_default();
    let relationships = name.as_ref().map(|name| read_relationships(document, root, name)).unwrap_or_default();
    let teams = read_teams(document, root);
    if document.has_errors() {
        return None;
    }
    Some(Domain {
        name: name?,
        owner: owner?,
        description: text(root, "description"),
        purpose: text(root, "purpose"),
        responsibilities: texts(root.get("responsibilities")),
        terms,
        relationships,
        teams,
    })
}

/// The entries of a list, or the one value that stands in place of it.
fn entries<'n>(node: &'n Node, key: &str) -> &'n [Node] {
    match node.get(key) {
        Some(value) => value.items().unwrap_or(std::slice::from_ref(value)),
        None => &[],
    }
}

fn items<'n>(node: &'n Node, key: &str) -> &'n [Node] {
    node.get(key).and_then(Node::items).unwrap_or_default()
}

/// A text that says something; an empty one is reported.
fn said(document: &mut Document<'_>, node: &Node, key: &str) -> Option<String> {
    let found = text(node, key)?;
    if found.is_empty() {
        let at = node.get(key).unwrap_or(node);
        document.error("empty-text", at.span, format!("`{key}` is empty"), format!("write a text for `{key}`"));
        return None;
    }
    Some(found)
}

fn read_terms(document: &mut Document<'_>, root: &Node, domain: &Name) -> Vec<Term> {
    // Each word that is taken, with the term that it belongs to.
    let mut taken: Vec<(String, String)> = Vec::new();
    let mut terms = Vec::new();
    for entry in items(root, "terms") {
        let (Some(term), Some(definition)) = (said(document, entry, "term"), said(document, entry, "definition"))
        else {
            continue;
        };
        let synonyms = entries(entry, "synonyms");
        for word in entry.get("term").into_iter().chain(synonyms) {
            let Some(found) = word.text() else { continue };
            let folded = folded_term(found);
            match taken.iter().find(|(taken, _)| *taken == folded) {
                Some((_, other)) => document.error(
                    "duplicate-term",
                    word.span,
                    format!("`{}` is a word for `{other}` already", found.trim()),
                    "give each meaning one word, and each word one meaning within a domain",
                ),
                None => taken.push((folded, term.clone())),
            }
        }
        let columns = entries(entry, "columns").iter().filter_map(|node| read_link(document, node, domain)).collect();
        let synonyms = synonyms.iter().filter_map(Node::text).map(|text| text.trim().to_owned()).collect();
        terms.push(Term { term, definition, synonyms, columns });
    }
    terms
}

/// A column that a term is linked to; without a domain it is one of this domain.
fn read_link(document: &mut Document<'_>, node: &Node, domain: &Name) -> Option<ColumnReference> {
    let text = node.text()?.trim();
    let full = if text.contains('/') { text.to_owned() } else { format!("{domain}/{text}") };
    match ColumnReference::parse(&full) {
        Ok(reference) => Some(reference),
        Err(error) => {
            document.error(
                "invalid-column-link",
                node.span,
                error.to_string(),
                "write `product.table.column`, or `domain/product.table.column`",
            );
            None
        }
    }
}

fn read_relationships(document: &mut Document<'_>, root: &Node, own: &Name) -> Vec<Relationship> {
    let mut relationships: Vec<Relationship> = Vec::new();
    for entry in items(root, "relationships") {
        let Some(relationship) = read_relationship(document, entry, own) else { continue };
        let at = entry.get("domain").unwrap_or(entry).span;
        let same = |other: &Relationship| {
            (&other.domain, other.kind, other.role, &other.products)
                == (&relationship.domain, relationship.kind, relationship.role, &relationship.products)
        };
        if relationships.iter().any(same) {
            document.error(
                "duplicate-relationship",
                at,
                format!("this relationship to `{}` is declared twice", relationship.domain),
                "keep one of them",
            );
            continue;
        }
        let clash = relationships.iter().find_map(|other| contradiction((own, other), (own, &relationship)));
        if let Some(clash) = clash {
            let (message, help) = contradiction_text(clash, own, &relationship.domain);
            document.error("contradictory-relationship", at, message, help);
            continue;
        }
        relationships.push(relationship);
    }
    relationships
}

/// What is wrong with two declarations about these domains, and how to mend it.
fn contradiction_text(contradiction: Contradiction, own: &Name, other: &Name) -> (String, &'static str) {
    match contradiction {
        Contradiction::Direction => (
            format!("`{own}` and `{other}` are each said to be upstream of the other"),
            "say which one supplies; where both do, name the products that each relationship is about",
        ),
        Contradiction::SeparateWays => (
            format!("`{own}` and `{other}` are said to go separate ways, and to be related all the same"),
            "keep one of the two",
        ),
    }
}

fn read_relationship(document: &mut Document<'_>, node: &Node, own: &Name) -> Option<Relationship> {
    let domain = read_name(document, node, "domain")?;
    let kind = RelationshipKind::parse(node.get("kind")?.text()?)?;
    if domain.sql() == own.sql() {
        let at = node.get("domain").unwrap_or(node).span;
        document.error("own-relationship", at, format!("`{own}` is this domain"), "name another domain");
        return None;
    }
    let told = match node.get("role").and_then(Node::text) {
        Some("upstream") => Some(Role::Upstream),
        Some("downstream") => Some(Role::Downstream),
        _ => None,
    };
    let role = match (kind.end(), told) {
        (KindEnd::Symmetric, None) => None,
        (KindEnd::Symmetric, Some(_)) => {
            document.error(
                "unexpected-role",
                node.get("role").unwrap_or(node).span,
                format!("in a `{kind}` neither domain is upstream of the other"),
                "leave `role` out, or choose another kind",
            );
            return None;
        }
        (KindEnd::Both, None) => {
            document.error(
                "missing-role",
                node.get("kind").unwrap_or(node).span,
                format!("a `{kind}` relationship needs to know which of the two `{own}` is"),
                "add `role: upstream` for the supplier, or `role: downstream` for the customer",
            );
            return None;
        }
        (_, Some(told)) => Some(told),
        (KindEnd::Upstream, None) => Some(Role::Upstream),
        (KindEnd::Downstream, None) => Some(Role::Downstream),
    };
    let upstream = if role == Some(Role::Downstream) { &domain } else { own };
    let mut products: Vec<ProductId> = Vec::new();
    for entry in entries(node, "products") {
        let Some(text) = entry.text().map(str::trim) else { continue };
        let full = if text.contains('/') { text.to_owned() } else { format!("{upstream}/{text}") };
        let product = match ProductId::parse(&full) {
            Ok(product) => product,
            Err(error) => {
                document.error("invalid-product", entry.span, error.to_string(), "write `product` or `domain/product`");
                continue;
            }
        };
        let of = |name: &Name| product.domain.sql() == name.sql();
        if !of(upstream) && (role.is_some() || !of(&domain)) {
            let (message, help) = match role {
                Some(_) => (
                    format!("`{product}` is not a product of `{upstream}`, which is upstream here"),
                    format!("name products of `{upstream}`, or turn the role around"),
                ),
                None => (
                    format!("`{product}` is a product of neither `{own}` nor `{domain}`"),
                    "name products of these two".to_owned(),
                ),
            };
            document.error("foreign-product", entry.span, message, help);
        } else if products.contains(&product) {
            document.error(
                "duplicate-product-name",
                entry.span,
                format!("`{product}` is named twice"),
                "keep one of them",
            );
        } else {
            products.push(product);
        }
    }
    Some(Relationship { domain, kind, role, products, description: text(node, "description") })
}

/// Reads the `teams:` of a `mesh.yaml` or `domain.yaml`.
pub(crate) fn read_teams(document: &mut Document<'_>, root: &Node) -> Vec<Team> {
    let mut teams: Vec<Team> = Vec::new();
    for entry in items(root, "teams") {
        let Some(name) = said(document, entry, "name") else { continue };
        let at = entry.get("name").unwrap_or(entry).span;
        if teams.iter().any(|other| other.name == name) {
            let message = format!("team `{name}` is declared twice");
            document.error("duplicate-team", at, message, "give each team a name of its own");
            continue;
        }
        let members = read_members(document, entry, &name);
        if items(entry, "members").is_empty() {
            let help = "name people below `members:`, by user name or e-mail address";
            document.report(Level::Note, "empty-team", at, format!("team `{name}` has no members"), help);
        }
        let contact = entry.get("contact").filter(|node| !node.is_null()).map(Node::to_json);
        teams.push(Team { name, description: text(entry, "description"), members, contact });
    }
    teams
}

fn read_members(document: &mut Document<'_>, team: &Node, name: &str) -> Vec<Member> {
    let mut members: Vec<Member> = Vec::new();
    for entry in items(team, "members") {
        let short = entry.text().map(|text| text.trim().to_owned());
        let member = match short {
            Some(text) if text.contains('@') => Member { email: Some(text), ..Member::default() },
            Some(text) => Member { username: Some(text).filter(|text| !text.is_empty()), ..Member::default() },
            None => {
                let given = |key| text(entry, key).filter(|text| !text.is_empty());
                Member { name: given("name"), username: given("username"), email: given("email"), role: given("role") }
            }
        };
        if member.name.is_none() && member.username.is_none() && member.email.is_none() {
            let help = "give a `username`, an `email` or at least a `name`";
            document.error("nobody", entry.span, format!("this member of team `{name}` is nobody"), help);
            continue;
        }
        if let Some(email) = member.email.as_ref().filter(|email| !is_address(email)) {
            let at = entry.get("email").unwrap_or(entry).span;
            let help = "write an address such as ada@example.org";
            document.error("invalid-email", at, format!("`{email}` is not an e-mail address"), help);
            continue;
        }
        if let Some(other) = members.iter().find(|other| other.is_same(&member)) {
            let message = format!("{member} is in team `{name}` already, as {other}");
            document.error("duplicate-member", entry.span, message, "keep one of the two");
            continue;
        }
        members.push(member);
    }
    members
}

/// Whether it could be an e-mail address: something, one `@`, something, and no space.
fn is_address(text: &str) -> bool {
    text.split_once('@').is_some_and(|(user, host)| {
        !user.is_empty() && !host.is_empty() && !host.contains('@') && !text.contains(char::is_whitespace)
    })
}
