//! Domains: bounded contexts with an owner, responsibilities, a language of their own, and relationships to others.
//!
//! The kinds of relationship and their names are those of domain-driven design's context maps (Evans, *Domain-Driven
//! Design*, chapter 14, and the *DDD Reference*).

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{DomainName, Name, ProductId};
use crate::lineage::ColumnReference;

/// The domain of a mesh, from its `domain.yaml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Domain {
    /// The domain's name.
    pub name: Name,
    /// The accountable team.
    pub owner: String,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// What it is responsible for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub responsibilities: Vec<String>,
    /// Its ubiquitous language.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub terms: Vec<Term>,
    /// How it leans on other domains, as it sees it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relationships: Vec<Relationship>,
    /// The teams that work in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub teams: Vec<Team>,
}

/// A word of a domain's ubiquitous language.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Term {
    /// The word.
    pub term: String,
    /// What it means in this domain.
    pub definition: String,
    /// Other words for the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub synonyms: Vec<String>,
    /// The columns that hold it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<ColumnReference>,
}

/// A word as it is compared: letters lower case, runs of spaces, hyphens and underscores as one space.
pub fn folded_term(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || matches!(c, '-' | '_')).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join(" ")
}

/// A kind of relationship between two bounded contexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RelationshipKind {
    /// The downstream's needs are planned for by the upstream.
    CustomerSupplier,
    /// The upstream offers what it has to whoever needs it, by one protocol.
    OpenHostService,
    /// The upstream publishes in a documented language that all share.
    PublishedLanguage,
    /// The downstream takes the upstream's model as it is.
    Conformist,
    /// The downstream translates the upstream's model into its own.
    AnticorruptionLayer,
    /// Both share a part of their model and change it together.
    SharedKernel,
    /// Both succeed or fail together, and plan together.
    Partnership,
    /// They have decided to have nothing to do with each other.
    SeparateWays,
}

/// Where a kind's mark stands on a context map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KindEnd {
    /// At the supplying end.
    Upstream,
    /// At the receiving end.
    Downstream,
    /// It is about both ends, which have roles.
    Both,
    /// There is no upstream and no downstream.
    Symmetric,
}

impl RelationshipKind {
    /// Every kind, in the order in which they are listed.
    pub const ALL: [Self; 8] = [
        Self::CustomerSupplier,
        Self::OpenHostService,
        Self::PublishedLanguage,
        Self::Conformist,
        Self::AnticorruptionLayer,
        Self::SharedKernel,
        Self::Partnership,
        Self::SeparateWays,
    ];

    /// The word of `domain.yaml`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CustomerSupplier => "customer-supplier",
            Self::OpenHostService => "open-host-service",
            Self::PublishedLanguage => "published-language",
            Self::Conformist => "conformist",
            Self::AnticorruptionLayer => "anticorruption-layer",
            Self::SharedKernel => "shared-kernel",
            Self::Partnership => "partnership",
            Self::SeparateWays => "separate-ways",
        }
    }

    /// The abbreviation that context maps use.
    pub fn mark(self) -> &'static str {
        match self {
            Self::CustomerSupplier => "C/S",
            Self::OpenHostService => "OHS",
            Self::PublishedLanguage => "PL",
            Self::Conformist => "CF",
            Self::AnticorruptionLayer => "ACL",
            Self::SharedKernel => "SK",
            Self::Partnership => "P",
            Self::SeparateWays => "SW",
        }
    }

    /// The kind that a word of `domain.yaml` means.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Where its mark stands.
    pub fn end(self) -> KindEnd {
        match self {
            Self::CustomerSupplier => KindEnd::Both,
            Self::OpenHostService | Self::PublishedLanguage => KindEnd::Upstream,
            Self::Conformist | Self::AnticorruptionLayer => KindEnd::Downstream,
            Self::SharedKernel | Self::Partnership | Self::SeparateWays => KindEnd::Symmetric,
        }
    }
}

impl fmt::Display for RelationshipKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The part that a domain has in a relationship.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It supplies.
    Upstream,
    /// It receives.
    Downstream,
}

impl Role {
    /// The word of `domain.yaml`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Downstream => "downstream",
        }
    }
}

/// A relationship as one domain declares it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Relationship {
    /// The other domain.
    pub domain: DomainName,
    /// Its kind.
    pub kind: RelationshipKind,
    /// What the declaring domain is in it; `None` for the symmetric kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// The products it is about; all where empty. In a relationship with roles they are the upstream's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub products: Vec<ProductId>,
    /// What there is to know about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

impl Relationship {
    /// Whether it is about a product.
    pub fn covers(&self, product: &ProductId) -> bool {
        self.products.is_empty() || self.products.iter().any(|named| is_same_product(named, product))
    }
}

fn is_same_product(a: &ProductId, b: &ProductId) -> bool {
    a.domain.sql() == b.domain.sql() && a.product.sql() == b.product.sql()
}

/// Why two relationships cannot both hold. Each comes with the domain that declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contradiction {
    /// Each of the two domains is said to be the other's upstream, for the same products.
    Direction,
    /// They go separate ways and are related all the same.
    SeparateWays,
}

/// Whether two declarations about the same two domains contradict each other.
///
/// Two domains may supply each other: then each declaration names the products it is about.
pub fn contradiction(
    (first_by, first): (&Name, &Relationship),
    (second_by, second): (&Name, &Relationship),
) -> Option<Contradiction> {
    let pair = |by: &Name, relationship: &Relationship| {
        let (own, other) = (by.sql(), relationship.domain.sql());
        if own <= other { (own, other) } else { (other, own) }
    };
    if pair(first_by, first) != pair(second_by, second) {
        return None;
    }
    let apart = |relationship: &Relationship| relationship.kind == RelationshipKind::SeparateWays;
    if apart(first) != apart(second) {
        return Some(Contradiction::SeparateWays);
    }
    let supplier = |by: &Name, relationship: &Relationship| {
        relationship.role.map(|role| if role == Role::Upstream { by.sql() } else { relationship.domain.sql() })
    };
    let (first_supplier, second_supplier) = (supplier(first_by, first)?, supplier(second_by, second)?);
    let overlap = first.products.is_empty()
        || second.products.is_empty()
        || first.products.iter().any(|product| second.covers(product));
    (first_supplier != second_supplier && overlap).then_some(Contradiction::Direction)
}

/// A team: what an `owner` names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Team {
    /// The name that an `owner` uses.
    pub name: String,
    /// What it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who is in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Member>,
    /// Where to reach it, as written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<Value>,
}

/// Somebody in a team.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// What people call them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the directory calls them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Their address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// What they do in the team.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

impl Member {
    /// Whether both are the same person: by user name or address, or by name where that is all there is.
    pub fn is_same(&self, other: &Self) -> bool {
        let same = |own: &Option<String>, other: &Option<String>| match (own, other) {
            (Some(own), Some(other)) => own.to_lowercase() == other.to_lowercase(),
            _ => false,
        };
        let bare = |member: &Self| member.username.is_none() && member.email.is_none();
        same(&self.username, &other.username)
            || same(&self.email, &other.email)
            || (bare(self) && bare(other) && same(&self.name, &other.name))
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.username.as_ref().or(self.email.as_ref());
        match (&self.name, id) {
            (Some(name), Some(id)) => write!(f, "{name} ({id})"),
            (Some(text), None) | (None, Some(text)) => f.write_str(text),
            (None, None) => f.write_str("somebody"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    fn relationship(other: &str, kind: RelationshipKind, role: Option<Role>, products: &[&str]) -> Relationship {
        let products = products.iter().map(|id| ProductId::parse(id).expect("an id")).collect();
        Relationship { domain: name(other), kind, role, products, description: None }
    }

    #[test]
    fn every_kind_is_read_back() {
        for kind in RelationshipKind::ALL {
            assert_eq!(RelationshipKind::parse(kind.as_str()), Some(kind));
            assert_eq!(serde_json::to_value(kind).expect("a word"), kind.as_str());
        }
    }

    #[test]
    fn opposite_directions_contradict_unless_products_differ() {
        use RelationshipKind::{Conformist, CustomerSupplier, Partnership, SeparateWays};
        let (a, b) = (name("a"), name("b"));
        let check = |first: Relationship, second: Relationship, expected: Option<Contradiction>| {
            assert_eq!(contradiction((&a, &first), (&b, &second)), expected);
            assert_eq!(contradiction((&b, &second), (&a, &first)), expected);
        };
        let down = Some(Role::Downstream);
        let up = Some(Role::Upstream);
        check(
            relationship("b", CustomerSupplier, down, &[]),
            relationship("A", Conformist, down, &[]),
            Some(Contradiction::Direction),
        );
        check(relationship("b", CustomerSupplier, down, &[]), relationship("a", CustomerSupplier, up, &[]), None);
        check(
            relationship("b", CustomerSupplier, down, &["b/x"]),
            relationship("a", CustomerSupplier, down, &["a/y"]),
            None,
        );
        check(
            relationship("b", CustomerSupplier, down, &["b/x"]),
            relationship("a", CustomerSupplier, down, &[]),
            Some(Contradiction::Direction),
        );
        check(
            relationship("b", SeparateWays, None, &[]),
            relationship("a", Partnership, None, &[]),
            Some(Contradiction::SeparateWays),
        );
        check(relationship("b", SeparateWays, None, &[]), relationship("a", SeparateWays, None, &[]), None);
        check(relationship("c", CustomerSupplier, down, &[]), relationship("a", CustomerSupplier, down, &[]), None);
    }

    #[test]
    fn members_are_told_apart() {
        let member = |name: Option<&str>, username: Option<&str>, email: Option<&str>| Member {
            name: name.map(str::to_owned),
            username: username.map(str::to_owned),
            email: email.map(str::to_owned),
            role: None,
        };
        assert!(member(Some("A"), Some("ada"), None).is_same(&member(None, Some("Ada"), None)));
        assert!(member(None, None, Some("a@b")).is_same(&member(None, Some("x"), Some("A@b"))));
        assert!(member(Some("Ada"), None, None).is_same(&member(Some("ada"), None, None)));
        assert!(!member(Some("Ada"), Some("ada1"), None).is_same(&member(Some("Ada"), Some("ada2"), None)));
        assert!(!member(Some("Ada"), Some("ada1"), None).is_same(&member(Some("Ada"), None, None)));
    }

    #[test]
    fn terms_are_compared_as_people_read_them() {
        assert_eq!(folded_term("Tail-Number "), folded_term("tail_number"));
        assert_ne!(folded_term("tail number"), folded_term("tailnumber"));
    }
}
