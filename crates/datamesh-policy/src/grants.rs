//! Grants, by product and by whom they are for.

use std::collections::HashMap;

use datamesh_core::access::{Grant, PrincipalKind};
use datamesh_core::ids::ProductKey;

use crate::principal::{ResolvedPrincipal, folded};

/// The grants of a mesh, to be asked many times.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    by_product: HashMap<ProductKey, HashMap<String, Vec<Grant>>>,
}

impl Grants {
    /// Sorts grants by what they are for. Order does not matter.
    pub fn new(grants: impl IntoIterator<Item = Grant>) -> Self {
        let mut by_product: HashMap<ProductKey, HashMap<String, Vec<Grant>>> = HashMap::new();
        for grant in grants {
            let of_product = by_product.entry(grant.product.clone()).or_default();
            of_product.entry(key(&grant.principal)).or_default().push(grant);
        }
        for grants in by_product.values_mut().flat_map(HashMap::values_mut) {
            grants.sort_by_key(|grant| grant.number);
        }
        Self { by_product }
    }

    /// The grants for a major version that are a principal's, its teams' or its roles', expired and revoked ones too; by
    /// number.
    pub fn of<'g>(&'g self, principal: &ResolvedPrincipal, product: &ProductKey) -> Vec<&'g Grant> {
        let Some(of_product) = self.by_product.get(product) else { return Vec::new() };
        let mut ids: Vec<String> = vec![principal.id.clone()];
        ids.extend(principal.teams.iter().map(|team| format!("team:{team}")));
        ids.extend(principal.roles.iter().map(|role| format!("role:{role}")));
        ids.sort_unstable();
        ids.dedup();
        let mut found: Vec<&Grant> = ids.iter().filter_map(|id| of_product.get(id)).flatten().collect();
        found.sort_by_key(|grant| grant.number);
        found
    }
}

/// A grantee's id as it is compared.
fn key(id: &str) -> String {
    match id.split_once(':') {
        Some(("user", name)) => format!("user:{}", folded(PrincipalKind::User, name)),
        Some(_) => id.to_owned(),
        None => format!("user:{}", folded(PrincipalKind::User, id)),
    }
}
