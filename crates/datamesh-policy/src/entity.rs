//! The resources as Cedar's entities: what policies can know of them.
//!
//! A resource has many facts, and policies look at few of them: only those are built, and resources that are alike in them
//! are asked about once.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::LazyLock;

use cedar_policy::{Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression};
use datamesh_core::access::PrincipalKind;
use datamesh_core::decision::Action;

/// A type of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    User,
    Service,
    Team,
    Role,
    Mesh,
    Domain,
    Product,
    Table,
    Column,
    Port,
    Request,
}

impl Kind {
    pub(crate) const RESOURCES: [Self; 7] =
        [Self::Mesh, Self::Domain, Self::Product, Self::Table, Self::Column, Self::Port, Self::Request];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::User => "User",
            Self::Service => "Service",
            Self::Team => "Team",
            Self::Role => "Role",
            Self::Mesh => "Mesh",
            Self::Domain => "Domain",
            Self::Product => "Product",
            Self::Table => "Table",
            Self::Column => "Column",
            Self::Port => "Port",
            Self::Request => "Request",
        }
    }

    pub(crate) fn of_principal(kind: PrincipalKind) -> Self {
        match kind {
            PrincipalKind::User => Self::User,
            PrincipalKind::Service => Self::Service,
            PrincipalKind::Team => Self::Team,
            PrincipalKind::Role => Self::Role,
        }
    }

    pub(crate) fn of_resource(name: &str) -> Option<Self> {
        Self::RESOURCES.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Whether something of this kind can lie in something of the other kind, or be it.
    pub(crate) fn can_be_in(self, other: Self) -> bool {
        let rank = |kind: Self| match kind {
            Self::Mesh => 0,
            Self::Domain => 1,
            Self::Product => 2,
            Self::Table | Self::Port | Self::Request => 3,
            Self::Column => 4,
            Self::User | Self::Service | Self::Team | Self::Role => 9,
        };
        self == other
            || match other {
                Self::Mesh | Self::Domain | Self::Product => rank(self) > rank(other) && rank(self) < 9,
                Self::Table => self == Self::Column,
                _ => false,
            }
    }
}

/// The kinds of resources that an action is about; the same as in the schema.
pub(crate) fn resources_of(action: Action) -> &'static [Kind] {
    use Kind::{Column, Domain, Mesh, Port, Product, Request, Table};
    match action {
        Action::Discover | Action::Describe | Action::Apply => &[Mesh, Domain, Product, Table, Column, Port],
        Action::Read | Action::ReadUnmasked => &[Table, Column, Port],
        Action::Publish => &[Product, Table, Column, Port],
        Action::Deprecate => &[Product],
        Action::Approve => &[Product, Request],
        Action::Administer => &[Mesh, Domain],
    }
}

#[expect(clippy::expect_used, reason = "the names are identifiers, which a test walks")]
static TYPES: LazyLock<HashMap<Kind, EntityTypeName>> = LazyLock::new(|| {
    let principals = PrincipalKind::ALL.map(Kind::of_principal);
    let kinds = Kind::RESOURCES.into_iter().chain(principals);
    kinds.map(|kind| (kind, kind.as_str().parse().expect("a type's name"))).collect()
});

#[expect(clippy::expect_used, reason = "the name is an identifier")]
static ACTION: LazyLock<EntityTypeName> = LazyLock::new(|| "Action".parse().expect("a type's name"));

/// The id of something of a type.
pub(crate) fn uid(kind: Kind, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(TYPES[&kind].clone(), EntityId::new(id))
}

/// The id of an action.
pub(crate) fn action_uid(action: Action) -> EntityUid {
    EntityUid::from_type_name_and_id(ACTION.clone(), EntityId::new(action.as_str()))
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fact<'a> {
    Text(Cow<'a, str>),
    Number(i64),
    Flag(bool),
    Texts(Vec<Cow<'a, str>>),
    One(Kind, Cow<'a, str>),
    Many(Kind, BTreeSet<Cow<'a, str>>),
}

impl Fact<'_> {
    pub(crate) fn into_owned(self) -> Fact<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        match self {
            Self::Text(text) => Fact::Text(owned(text)),
            Self::Number(number) => Fact::Number(number),
            Self::Flag(flag) => Fact::Flag(flag),
            Self::Texts(texts) => Fact::Texts(texts.into_iter().map(owned).collect()),
            Self::One(kind, id) => Fact::One(kind, owned(id)),
            Self::Many(kind, ids) => Fact::Many(kind, ids.into_iter().map(owned).collect()),
        }
    }

    fn expression(&self) -> RestrictedExpression {
        match self {
            Self::Text(text) => RestrictedExpression::new_string(text.to_string()),
            Self::Number(number) => RestrictedExpression::new_long(*number),
            Self::Flag(flag) => RestrictedExpression::new_bool(*flag),
            Self::Texts(texts) => RestrictedExpression::new_set(
                texts.iter().map(|text| RestrictedExpression::new_string(text.to_string())),
            ),
            Self::One(kind, id) => RestrictedExpression::new_entity_uid(uid(*kind, id)),
            Self::Many(kind, ids) => {
                RestrictedExpression::new_set(ids.iter().map(|id| RestrictedExpression::new_entity_uid(uid(*kind, id))))
            }
        }
    }
}

/// Named facts.
pub(crate) type Facts<'a> = Vec<(&'static str, Fact<'a>)>;

/// What policies look at of a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interest {
    /// The attributes that they name, of whatever they name them.
    pub(crate) attributes: BTreeSet<String>,
    /// Whether that is not known: every attribute, then.
    pub(crate) all: bool,
    /// Whether they name a product or what lies in one, so that the answer may depend on which resource it is.
    pub(crate) names_one: bool,
}

impl Interest {
    pub(crate) fn sees(&self, attribute: &str) -> bool {
        self.all || self.attributes.contains(attribute)
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.attributes.extend(other.attributes.iter().cloned());
        self.all |= other.all;
        self.names_one |= other.names_one;
    }
}

/// A resource, ready to be asked about.
#[derive(Clone, Debug)]
pub(crate) struct Node<'a> {
    pub(crate) kind: Kind,
    pub(crate) id: String,
    /// Everything it lies in.
    pub(crate) ancestors: Vec<(Kind, String)>,
    /// What policies can know of it.
    pub(crate) facts: Facts<'a>,
}

impl<'a> Node<'a> {
    pub(crate) fn uid(&self) -> EntityUid {
        uid(self.kind, &self.id)
    }

    /// The facts that policies look at.
    pub(crate) fn seen<'n>(
        &'n self,
        interest: &'n Interest,
    ) -> impl Iterator<Item = &'n (&'static str, Fact<'a>)> + Clone {
        self.facts.iter().filter(|(name, _)| interest.sees(name))
    }

    /// The entity with the attributes that policies look at.
    pub(crate) fn entity(&self, interest: &Interest) -> Result<Entity, String> {
        let seen = self.seen(interest).map(|(name, fact)| ((*name).to_owned(), fact.expression())).collect();
        let ancestors: HashSet<EntityUid> = self.ancestors.iter().map(|(kind, id)| uid(*kind, id)).collect();
        Entity::new(self.uid(), seen, ancestors).map_err(|error| error.to_string())
    }

    /// The teams that its facts name.
    pub(crate) fn teams(&self) -> BTreeSet<&str> {
        let mut teams = BTreeSet::new();
        for (_, fact) in &self.facts {
            match fact {
                Fact::One(Kind::Team, team) => {
                    teams.insert(team.as_ref());
                }
                Fact::Many(Kind::Team, names) => teams.extend(names.iter().map(AsRef::as_ref)),
                _ => {}
            }
        }
        teams
    }
}

#[cfg(test)]
#[path = "entity/tests.rs"]
mod tests;
