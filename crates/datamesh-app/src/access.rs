//! Asking for access, and answering: each step is decided by the policies and kept with its evidence.

use std::collections::{BTreeMap, BTreeSet};

use datamesh_core::access::{AccessOffer, Grant, parse_principal};
use datamesh_core::access_request::{
    AccessAction, AccessCommand, AccessOutcome, AccessRequest, GrantFilter, Membership, RequestFilter, RequestState,
};
use datamesh_core::contract::DataProduct;
use datamesh_core::decision::Action;
use datamesh_core::ids::ProductKey;
use datamesh_core::ports::CatalogProduct;
use datamesh_core::{Error, ErrorCode, Result};
use datamesh_policy::RequestFacts;
use serde_json::json;

use crate::govern::{Resource, Rules};
use crate::ports::Context;

/// Who is in which team, by the applied rules.
struct Members<'r>(&'r Rules);

impl Membership for Members<'_> {
    fn is_member(&self, principal: &str, team: &str) -> bool {
        self.0.policies.principal_of(principal, false).is_ok_and(|found| found.teams.contains(team))
    }
}

fn unknown(what: &str, number: u64) -> Error {
    Error::new(ErrorCode::NotFound, format!("there is no {what} {number}"))
        .with_help("`datamesh access list` lists requests and grants")
}

async fn find_request(context: &Context, number: u64) -> Result<AccessRequest> {
    let filter = RequestFilter { number: Some(number), ..RequestFilter::all(context.clock.now()) };
    context.registry.access_requests(&filter).await?.into_iter().next().ok_or_else(|| unknown("request", number))
}

async fn find_grant(context: &Context, number: u64) -> Result<Grant> {
    let filter = GrantFilter { number: Some(number), ..GrantFilter::default() };
    context.registry.grants(&filter).await?.into_iter().next().ok_or_else(|| unknown("grant", number))
}

async fn product(context: &Context, key: &ProductKey) -> Result<CatalogProduct> {
    let found = context.registry.catalog().await?.into_iter().find(|product| product.key == *key);
    found.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("`{key}` is not applied any more")))
}

/// The offers of a role that a request falls under.
fn offers_for(contract: &DataProduct, request: &AccessRequest) -> Result<Vec<AccessOffer>> {
    let offers = datamesh_core::access::offers(contract)
        .map_err(|why| Error::new(ErrorCode::InvalidManifest, format!("`{}`: {why}", contract.id)))?;
    let covers = |offer: &AccessOffer| {
        offer.tables.is_empty() || request.tables.is_empty() || !offer.tables.is_disjoint(&request.tables)
    };
    Ok(offers.into_iter().filter(|offer| offer.role == request.role && covers(offer)).collect())
}

fn facts(contract: &DataProduct, request: &AccessRequest) -> Result<RequestFacts> {
    let offers = offers_for(contract, request)?;
    let mut approvers: BTreeSet<String> = BTreeSet::new();
    let mut unmasked = BTreeSet::new();
    for offer in &offers {
        approvers.extend(offer.approvers.iter().cloned());
        unmasked.extend(offer.unmasked.iter().cloned());
    }
    Ok(RequestFacts {
        number: request.number,
        requester: request.requested_by.clone(),
        principal: request.principal.clone(),
        role: request.role.clone(),
        purpose: request.purpose.clone(),
        approvers: approvers.into_iter().collect(),
        unmasked,
    })
}

/// Does one step: asks, approves, denies, takes back, revokes.
///
/// # Errors
/// `denied` where the policies do not allow it; what the rules of the workflow refuse.
pub async fn act(context: &Context, action: AccessAction) -> Result<AccessOutcome> {
    let rules = context.rules().await?;
    let mut action = action;
    let number = match &action {
        AccessAction::Request(_) => None,
        AccessAction::Approve { request, .. } | AccessAction::Deny { request, .. } => Some(("request", *request)),
        AccessAction::Withdraw { request, .. } => Some(("request", *request)),
        AccessAction::Revoke { grant, .. } => Some(("grant", *grant)),
    };
    let decision = decide(context, &rules, &mut action).await;
    let decision = match (decision, number) {
        // A number must not tell what may not be found.
        (Err(error), Some((what, number))) if error.code() == ErrorCode::Denied => {
            let key = match what {
                "grant" => find_grant(context, number).await?.product,
                _ => find_request(context, number).await?.product,
            };
            let product = product(context, &key).await?;
            let known = context.discovers(&rules, &context.actor(&rules)?, &product.revision.contract);
            return Err(if known { error } else { unknown(what, number) });
        }
        // Nor the name of what was applied once.
        (Err(error), Some((what, number))) if error.code() == ErrorCode::NotFound => {
            return Err(if context.actor(&rules)?.owns_mesh() { error } else { unknown(what, number) });
        }
        (decision, _) => decision?,
    };
    let actor = context.actor(&rules)?;
    let command = AccessCommand {
        id: context.ids.attempt(),
        at: context.clock.now(),
        by: actor.id.clone(),
        impersonated_by: context.impersonated_by.clone(),
        door: Some(context.door.clone()),
        decision: Some(decision),
        administers: actor.owns_mesh(),
        separation: rules.separation,
        action,
    };
    context.registry.access(&command, &Members(&rules)).await
}

/// Asks the policies about a step, and records the answer: the decision's number.
async fn decide(context: &Context, rules: &Rules, action: &mut AccessAction) -> Result<u64> {
    Ok(match action {
        AccessAction::Request(draft) => {
            let given = draft.principal.clone();
            let (kind, name) = parse_principal(&given).map_err(|why| Error::new(ErrorCode::InvalidArgument, why))?;
            let grantee = rules
                .policies
                .principal_of(&draft.principal, false)
                .map_err(|why| Error::new(ErrorCode::InvalidArgument, why))?;
            let product = product(context, &draft.product).await?;
            let contract = &product.revision.contract;
            let is_personal = matches!(kind.as_str(), "user" | "service");
            let offered = datamesh_core::access::offers(contract).unwrap_or_default();
            // A role that is not offered is told by the workflow's own rules.
            if is_personal && !grantee.has_role(&draft.role) && offered.iter().any(|offer| offer.role == draft.role) {
                let message = format!("`{}` does not have the role `{}`", grantee.id, draft.role);
                let help = format!(
                    "roles are given in mesh.yaml: `principals: [{{{}: {name}, roles: [{}]}}]`",
                    kind.as_str(),
                    draft.role
                );
                // The grantee is told of the product only where who asks may know it.
                context.authorize_product(Action::Describe, contract, json!({ "operation": "access request" })).await?;
                let resource = Resource::Product(contract);
                return context.deny(Action::Read, resource, "role-not-held", message, help).await;
            }
            draft.principal = grantee.id;
            let details = json!({ "operation": "access request", "role": draft.role, "for": draft.principal });
            context.authorize_product(Action::Describe, contract, details).await?
        }
        AccessAction::Approve { request, .. } | AccessAction::Deny { request, .. } => {
            let found = find_request(context, *request).await?;
            let product = product(context, &found.product).await?;
            let contract = &product.revision.contract;
            let facts = facts(contract, &found)?;
            let details = json!({ "operation": "access answer", "request": found.number });
            context.authorize(Action::Approve, Resource::Request(contract, &facts), details).await?
        }
        AccessAction::Withdraw { request, .. } => {
            let found = find_request(context, *request).await?;
            let product = product(context, &found.product).await?;
            let details = json!({ "operation": "access withdraw", "request": found.number });
            context.authorize_product(Action::Describe, &product.revision.contract, details).await?
        }
        AccessAction::Revoke { grant, .. } => {
            let found = find_grant(context, *grant).await?;
            let product = product(context, &found.product).await?;
            let contract = &product.revision.contract;
            let details = json!({ "operation": "access revoke", "grant": found.number });
            let actor = context.actor(rules)?;
            let request = find_request(context, found.request).await?;
            // Whoever has a grant may give it back, and who asked for it, as a service's.
            if actor.id == found.principal || actor.id == request.requested_by {
                context.authorize_product(Action::Describe, contract, details).await?
            } else {
                let facts = facts(contract, &request)?;
                context.authorize(Action::Approve, Resource::Request(contract, &facts), details).await?
            }
        }
    })
}

/// Requests and grants, those that whoever asks may see: their own, and those of products that are theirs to answer for.
///
/// # Errors
/// A registry that cannot be read.
pub async fn list(
    context: &Context,
    product: Option<ProductKey>,
    principal: Option<String>,
    state: Option<RequestState>,
) -> Result<(Vec<AccessRequest>, Vec<Grant>)> {
    let rules = context.rules().await?;
    let actor = context.actor(&rules)?;
    context.authorize_mesh(Action::Describe, json!({ "operation": "access list" })).await?;
    let principals = match principal {
        None => Vec::new(),
        Some(text) => {
            let found = rules.policies.principal_of(&text, false);
            vec![found.map_err(|why| Error::new(ErrorCode::InvalidArgument, why))?.id]
        }
    };
    let now = context.clock.now();
    let filter =
        RequestFilter { product: product.clone(), principals: principals.clone(), state, ..RequestFilter::all(now) };
    let mut requests = context.registry.access_requests(&filter).await?;
    let filter = GrantFilter { product, principals, ..GrantFilter::default() };
    let mut grants = if state.is_none() { context.registry.grants(&filter).await? } else { Vec::new() };
    let catalog = context.registry.catalog().await?;
    let contracts: BTreeMap<&ProductKey, &DataProduct> =
        catalog.iter().map(|product| (&product.key, &product.revision.contract)).collect();
    let own = |principal: &str| {
        principal == actor.id || principal.strip_prefix("team:").is_some_and(|team| actor.teams.contains(team))
    };
    let circumstances = context.circumstances();
    let answers = |key: &ProductKey| {
        contracts.get(key).is_some_and(|contract| {
            let resource = Resource::Product(contract);
            rules.policies.decide(&actor, Action::Approve, resource, &circumstances).is_allowed()
        })
    };
    let approves = |request: &AccessRequest| {
        contracts.get(&request.product).is_some_and(|contract| {
            facts(contract, request).is_ok_and(|facts| {
                let resource = Resource::Request(contract, &facts);
                rules.policies.decide(&actor, Action::Approve, resource, &circumstances).is_allowed()
            })
        })
    };
    requests.retain(|request| {
        own(&request.principal) || request.requested_by == actor.id || answers(&request.product) || approves(request)
    });
    grants.retain(|grant| own(&grant.principal) || answers(&grant.product));
    Ok((requests, grants))
}

/// The grants that count now for whoever asks, of a product that they may see: their own and those of their teams.
///
/// # Errors
/// A registry that cannot be read.
pub async fn own_grants(context: &Context, product: &ProductKey) -> Result<Vec<Grant>> {
    let rules = context.rules().await?;
    let actor = context.actor(&rules)?;
    let teams = actor.teams.iter().map(|team| format!("team:{team}"));
    let principals = teams.chain([actor.id.clone()]).collect();
    let effective_at = Some(context.clock.now());
    let filter = GrantFilter { principals, product: Some(product.clone()), effective_at, ..GrantFilter::default() };
    context.registry.grants(&filter).await
}

/// One request, with its grant.
///
/// # Errors
/// `not-found` for one that is not there, or not to be seen.
pub async fn request(context: &Context, number: u64) -> Result<(AccessRequest, Option<Grant>)> {
    let (requests, grants) = list(context, None, None, None).await?;
    let request =
        requests.into_iter().find(|request| request.number == number).ok_or_else(|| unknown("request", number))?;
    let grant = grants.into_iter().find(|grant| grant.request == number);
    Ok((request, grant))
}

/// What a contract offers.
///
/// # Errors
/// `denied`; an `access:` that cannot be read.
pub async fn offers(context: &Context, contract: &DataProduct) -> Result<Vec<AccessOffer>> {
    context.authorize_product(Action::Describe, contract, json!({ "operation": "access show" })).await?;
    datamesh_core::access::offers(contract)
        .map_err(|why| Error::new(ErrorCode::InvalidManifest, format!("`{}`: {why}", contract.id)))
}
