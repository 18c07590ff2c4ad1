//! What can be told of principals only when the products are known: what contracts offer, and to whom.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use datamesh_core::access::{self, AccessOffer};
use datamesh_core::row_condition;
use datamesh_core::{Diagnostic, Level, Result};

use super::{Principals, included, meant};
use crate::mesh::{LoadedProduct, Mesh, locate_by};
use crate::yaml::{Node, Span};

/// A problem, its file, and where in it.
struct Found {
    id: &'static str,
    level: Level,
    message: String,
    help: String,
    file: PathBuf,
    place: Place,
}

/// Where something stands.
enum Place {
    /// A key of an entry of a product's `access:`; the entry where it has none.
    Offer(usize, &'static str),
    /// An item of a list of an entry of a product's `access:`.
    OfferItem(usize, &'static str, usize),
    /// The `user` or `service` of a principal of the mesh.
    Principal(usize),
}

impl Place {
    fn span(&self, root: &Node) -> Option<Span> {
        let offer = |at: usize| root.get("dataProduct")?.get("access")?.items()?.get(at);
        match self {
            Self::Offer(at, key) => offer(*at).map(|entry| entry.get(key).unwrap_or(entry).span),
            Self::OfferItem(at, key, item) => Some(offer(*at)?.get(key)?.items()?.get(*item)?.span),
            Self::Principal(at) => {
                let entry = root.get("principals")?.items()?.get(*at)?;
                Some(entry.get("user").or_else(|| entry.get("service")).unwrap_or(entry).span)
            }
        }
    }
}

/// Checks what contracts offer against the roles, attributes, principals and teams that the mesh declares.
pub(crate) fn check(mesh: &mut Mesh) -> Result<()> {
    let Some((file, settings)) = &mesh.settings else { return Ok(()) };
    let declared = &settings.principals;
    let mut found = Vec::new();
    // Who needs which attribute: the first offer of each role is told.
    let mut needed: BTreeMap<(String, String), String> = BTreeMap::new();
    let approvers = Approvers::of(mesh);
    for product in &mesh.products {
        // What is wrong with an entry itself was told when the product was read.
        let Ok(offers) = access::offers(&product.contract) else { continue };
        for (at, offer) in offers.iter().enumerate() {
            found.extend(unknown_role(declared, product, offer, at));
            found.extend(approvers.unknown(product, offer, at));
            let Some(rows) = &offer.rows else { continue };
            for name in row_condition::attributes(rows) {
                if declared.attributes.contains_key(&name) {
                    let key = (offer.role.clone(), name);
                    needed.entry(key).or_insert_with(|| product.contract.id.to_string());
                    continue;
                }
                found.push(Found {
                    id: "unknown-attribute",
                    level: Level::Error,
                    message: format!("principals of this mesh have no attribute `{name}`"),
                    help: meant(
                        &name,
                        declared.attributes.keys().map(String::as_str),
                        "declare it with its type below `attributes:` in mesh.yaml",
                    ),
                    file: product.path.clone(),
                    place: Place::Offer(at, "rows"),
                });
            }
        }
    }
    for (at, principal) in declared.principals.iter().enumerate() {
        let roles: BTreeSet<&str> = principal.roles.iter().flat_map(|role| included(&declared.roles, role)).collect();
        let lacks = needed
            .iter()
            .filter(|((role, name), _)| roles.contains(role.as_str()) && !principal.attributes.contains_key(name));
        found.extend(lacks.map(|((role, name), product)| Found {
            id: "missing-attribute",
            level: Level::Error,
            message: format!(
                "`{}` has no `{name}`, by which `{product}` chooses the rows of role `{role}`",
                principal.id()
            ),
            help: format!("add `{name}` to its `attributes:`, or take the role away"),
            file: file.clone(),
            place: Place::Principal(at),
        }));
    }
    for problem in found {
        let (location, source) = locate_by(&problem.file, |root| problem.place.span(root))?;
        let Found { id, level, message, help, .. } = problem;
        mesh.report(Diagnostic { id, level, message, help: Some(help), location }, source);
    }
    Ok(())
}

fn unknown_role(declared: &Principals, product: &LoadedProduct, offer: &AccessOffer, at: usize) -> Option<Found> {
    let roles = &declared.roles;
    if roles.is_empty() || roles.iter().any(|role| role.name == offer.role) {
        return None;
    }
    let names = roles.iter().map(|role| role.name.as_str());
    Some(Found {
        id: "unknown-role",
        level: Level::Warning,
        message: format!("the mesh declares no role `{}`", offer.role),
        help: meant(&offer.role, names, "declare it below `roles:` in mesh.yaml"),
        file: product.path.clone(),
        place: Place::Offer(at, "role"),
    })
}

/// Who may be named as an approver: teams, and the users that the mesh knows.
struct Approvers {
    teams: BTreeSet<String>,
    users: BTreeSet<String>,
}

impl Approvers {
    fn of(mesh: &Mesh) -> Self {
        let settings = mesh.settings.as_ref().map(|(_, settings)| settings);
        let teams = settings.iter().flat_map(|settings| &settings.teams);
        let teams: Vec<_> = teams.chain(mesh.domains.iter().flat_map(|(_, domain)| &domain.teams)).collect();
        let members = teams.iter().flat_map(|team| &team.members);
        let members = members.flat_map(|member| [&member.username, &member.email]).flatten().cloned();
        let principals = settings.iter().flat_map(|settings| &settings.principals.principals);
        Self {
            users: members.chain(principals.map(|principal| principal.name.clone())).collect(),
            teams: teams.iter().map(|team| team.name.clone()).collect(),
        }
    }

    /// Approvers that are nobody, where any team is declared.
    fn unknown(&self, product: &LoadedProduct, offer: &AccessOffer, at: usize) -> Vec<Found> {
        if self.teams.is_empty() {
            return Vec::new();
        }
        let unknown = offer.approvers.iter().enumerate().filter_map(|(item, approver)| {
            let (name, is_known) = match approver.split_once(':') {
                Some(("user", name)) => (name, self.users.contains(name)),
                Some(("team", name)) => (name, self.teams.contains(name)),
                _ => (approver.as_str(), self.teams.contains(approver) || self.users.contains(approver)),
            };
            let names = self.teams.iter().chain(&self.users).map(String::as_str);
            (!is_known).then(|| Found {
                id: "unknown-approver",
                level: Level::Warning,
                message: format!("the approver `{approver}` is no declared team, and nobody of one"),
                help: meant(name, names, "declare the team below `teams:` in mesh.yaml or in a domain.yaml"),
                file: product.path.clone(),
                place: Place::OfferItem(at, "approvers", item),
            })
        });
        unknown.collect()
    }
}
