//! How access is asked for and given: requests, their approvals, and the grants that come of them.
//!
//! A state machine without IO: each step takes what is known and returns what becomes of it, or why not. The contract says
//! who approves, how many must, for which purposes and how long. Where a contract offers a role several times, all offers
//! that a request falls under must agree: nobody gives what another offer's approvers guard.

use std::collections::BTreeSet;
use std::fmt;

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::access::{AccessOffer, Grant, PrincipalKind, Revocation, SeparationOfDuties, offers, parse_principal};
use crate::contract::DataProduct;
use crate::error::{Error, ErrorCode, Result};
use crate::ids::ProductKey;
use crate::period::Period;

/// How many days a request waits for its approvers.
pub const REQUEST_DAYS: i64 = 30;

/// Longest text of a principal's id, a role or a purpose, in bytes.
const LONGEST_NAME: usize = 256;

/// Longest reason or note, in bytes.
const LONGEST_REASON: usize = 4096;

/// Knows who belongs to which team.
pub trait Membership: Send + Sync {
    /// Whether a principal, such as `user:alice`, is a member of a team, by its name.
    fn is_member(&self, principal: &str, team: &str) -> bool;
}

impl<F: Fn(&str, &str) -> bool + Send + Sync> Membership for F {
    fn is_member(&self, principal: &str, team: &str) -> bool {
        self(principal, team)
    }
}

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestState {
    /// It waits for approvers.
    Pending,
    /// It was granted.
    Approved,
    /// It was refused.
    Denied,
    /// It was taken back.
    Withdrawn,
    /// Nobody decided in time.
    Expired,
}

impl RequestState {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Approved, Self::Denied, Self::Withdrawn, Self::Expired];

    /// The state's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Withdrawn => "withdrawn",
            Self::Expired => "expired",
        }
    }

    /// The state that a word means.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

impl fmt::Display for RequestState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessDraft {
    /// Whose the grant will be: `user:alice`, `service:etl`, `team:fleet-team`.
    pub principal: String,
    /// The product's major version.
    pub product: ProductKey,
    /// Names of tables; empty: all that the role is offered.
    pub tables: BTreeSet<String>,
    /// The role.
    pub role: String,
    /// What for.
    pub purpose: Option<String>,
    /// How long, as a contract writes it; `None`: as long as is offered.
    pub duration: Option<String>,
    /// Why.
    pub reason: String,
}

/// One approver's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// Who.
    pub by: String,
    /// Who acted in that one's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impersonated_by: Option<String>,
    /// When.
    pub at: DateTime<Utc>,
    /// What they had to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// How a request ended, other than by a grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// By whom.
    pub by: String,
    /// When.
    pub at: DateTime<Utc>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A request for access.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessRequest {
    /// Its number.
    pub number: u64,
    /// Whose the grant will be.
    pub principal: String,
    /// Who asked.
    pub requested_by: String,
    /// Who asked in that one's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impersonated_by: Option<String>,
    /// The product's major version.
    pub product: ProductKey,
    /// Normalised names of the tables; empty: all that the role is offered.
    pub tables: BTreeSet<String>,
    /// The role.
    pub role: String,
    /// What for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// How long; `None`: as long as is offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Why.
    pub reason: String,
    /// Since when.
    pub at: DateTime<Utc>,
    /// Where it is. [`Self::state_at`] knows of its end by time too.
    pub state: RequestState,
    /// Who has approved.
    pub approvals: Vec<Approval>,
    /// How it ended, where it was denied or withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ending>,
}

impl AccessRequest {
    /// Where it is at a moment: one that nobody decided for [`REQUEST_DAYS`] has expired.
    pub fn state_at(&self, now: DateTime<Utc>) -> RequestState {
        match self.state {
            RequestState::Pending if now >= self.expires_at() => RequestState::Expired,
            state => state,
        }
    }

    /// From when on nobody can approve it any more.
    pub fn expires_at(&self) -> DateTime<Utc> {
        self.at.checked_add_signed(TimeDelta::days(REQUEST_DAYS)).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// Whether it asks for the same as another one.
    fn is_like(&self, other: &Self) -> bool {
        (&self.principal, &self.product, &self.tables, &self.role, &self.purpose)
            == (&other.principal, &other.product, &other.tables, &other.role, &other.purpose)
    }

    /// Whether it is somebody's own: theirs to withdraw, and not theirs to approve.
    fn concerns(&self, actor: &str, members: &dyn Membership) -> bool {
        [&self.principal, &self.requested_by].into_iter().any(|own| own == actor)
            || self.principal.strip_prefix("team:").is_some_and(|team| members.is_member(actor, team))
    }
}

/// Something that is done about access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessCommand {
    /// A fresh id: by it a lost answer is looked up, and what was done once is not done again.
    pub id: Uuid,
    /// When.
    pub at: DateTime<Utc>,
    /// Who acts.
    pub by: String,
    /// Who acts in that one's name.
    pub impersonated_by: Option<String>,
    /// The door.
    pub door: Option<String>,
    /// The number of the decision that allowed it.
    pub decision: Option<u64>,
    /// Whether policies let them administer the product: they may deny and revoke, whoever approves.
    pub administers: bool,
    /// Who counts as one and the same.
    pub separation: SeparationOfDuties,
    /// What is done.
    pub action: AccessAction,
}

/// Who acts, and, where people count, who acts in that one's name.
fn actors<'a>(
    by: &'a str,
    impersonated_by: Option<&'a str>,
    separation: SeparationOfDuties,
) -> impl Iterator<Item = &'a str> {
    std::iter::once(by).chain(impersonated_by.filter(|_| separation == SeparationOfDuties::People))
}

/// What is done about access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessAction {
    /// Somebody asks.
    Request(AccessDraft),
    /// An approver agrees.
    Approve {
        /// The request's number.
        request: u64,
        /// What they have to say.
        note: Option<String>,
    },
    /// An approver refuses.
    Deny {
        /// The request's number.
        request: u64,
        /// Why.
        reason: String,
    },
    /// Whoever asked does so no longer.
    Withdraw {
        /// The request's number.
        request: u64,
        /// Why.
        reason: Option<String>,
    },
    /// A grant is ended.
    Revoke {
        /// The grant's number.
        grant: u64,
        /// Why.
        reason: Option<String>,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessOutcome {
    /// The request, as it is now.
    pub request: AccessRequest,
    /// The grant that came of it, as it is now.
    pub grant: Option<Grant>,
    /// The mesh's revision of grants.
    pub grant_revision: u64,
}

/// Which requests are asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestFilter {
    /// Now: requests expire.
    pub now: DateTime<Utc>,
    /// Whose, or asked for by whom; empty: anybody's.
    pub principals: Vec<String>,
    /// For which product.
    pub product: Option<ProductKey>,
    /// In which state.
    pub state: Option<RequestState>,
    /// Which one.
    pub number: Option<u64>,
    /// How many at most, the newest.
    pub limit: Option<u64>,
}

impl RequestFilter {
    /// All of them.
    pub fn all(now: DateTime<Utc>) -> Self {
        Self { now, principals: Vec::new(), product: None, state: None, number: None, limit: None }
    }
}

/// Which grants are asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GrantFilter {
    /// Whose; empty: anybody's.
    pub principals: Vec<String>,
    /// For which product.
    pub product: Option<ProductKey>,
    /// Those that count at a moment.
    pub effective_at: Option<DateTime<Utc>>,
    /// Which one.
    pub number: Option<u64>,
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidArgument, message)
}

fn denied(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::Denied, message)
}

fn check_text(what: &str, text: &str, longest: usize) -> Result<()> {
    if text.len() > longest {
        return Err(invalid(format!("the {what} has {} bytes, and may have {longest}", text.len())));
    }
    match text.chars().find(|character| character.is_control() && *character != '\n') {
        Some(character) => Err(invalid(format!("the {what} has the character `{}`", character.escape_default()))),
        None => Ok(()),
    }
}

/// The offers of a contract that a request falls under: each of them for one of its tables at least, and for its purpose.
fn offers_for(
    contract: &DataProduct,
    role: &str,
    tables: &BTreeSet<String>,
    purpose: Option<&str>,
) -> Result<Vec<AccessOffer>> {
    let name = &contract.id;
    let all = offers(contract)
        .map_err(|why| Error::new(ErrorCode::InvalidManifest, format!("the contract of `{name}`: {why}")))?;
    let list = |words: BTreeSet<&str>| words.into_iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    let roles: BTreeSet<&str> = all.iter().map(|offer| offer.role.as_str()).collect();
    if !roles.contains(role) {
        let help = match roles.is_empty() {
            true => "its contract has no `access:`".to_owned(),
            false => format!("it offers access to {}", list(roles)),
        };
        return Err(invalid(format!("`{name}` offers nothing to the role `{role}`")).with_help(help));
    }
    for table in tables {
        if contract.table(table).is_none() {
            let known = contract.tables.iter().map(|table| table.name.as_str()).collect();
            return Err(
                invalid(format!("`{name}` has no table `{table}`")).with_help(format!("it has {}", list(known)))
            );
        }
    }
    let reaches = |offer: &AccessOffer| {
        offer.role == role && (tables.is_empty() || offer.tables.is_empty() || !offer.tables.is_disjoint(tables))
    };
    let admits = |offer: &AccessOffer| {
        offer.purposes.is_empty() || purpose.is_some_and(|purpose| offer.purposes.contains(purpose))
    };
    let reached: Vec<AccessOffer> = all.iter().filter(|offer| reaches(offer)).cloned().collect();
    let admitted: Vec<AccessOffer> = reached.iter().filter(|offer| admits(offer)).cloned().collect();
    let covers = |offers: &[AccessOffer], table: &String| {
        offers.iter().any(|offer| offer.tables.is_empty() || offer.tables.contains(table))
    };
    if let Some(table) = tables.iter().find(|table| !covers(&reached, table)) {
        return Err(invalid(format!("`{name}` offers the table `{table}` not to the role `{role}`")));
    }
    if admitted.is_empty() || tables.iter().any(|table| !covers(&admitted, table)) {
        let purposes = reached.iter().flat_map(|offer| &offer.purposes).map(String::as_str).collect();
        let what = match purpose {
            Some(purpose) => format!("`{name}` is not offered to the role `{role}` for the purpose `{purpose}`"),
            None => format!("`{name}` is offered to the role `{role}` for a purpose only"),
        };
        return Err(invalid(what).with_help(format!("it is offered for {}", list(purposes))));
    }
    Ok(admitted)
}

/// The end of a grant that begins now: that of the shortest offer, or sooner.
fn end(offers: &[AccessOffer], duration: Option<&str>, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>> {
    let asked = duration.map(Period::parse).transpose().map_err(|why| invalid(format!("the duration: {why}")))?;
    if asked.is_some_and(|asked| asked == Period::default() || asked.after(now) <= now) {
        return Err(invalid("the duration: access for no time at all is none"));
    }
    for offer in offers {
        let (Some(asked), Some(longest)) = (asked, offer.expires) else { continue };
        if asked.after(now) > longest.after(now) {
            return Err(invalid(format!("access is offered for {longest} at most, and asked for {asked}"))
                .with_help("ask for less; it can be asked for again"));
        }
    }
    let offered = offers.iter().filter_map(|offer| offer.expires).map(|longest| longest.after(now)).min();
    let end = match asked {
        Some(asked) => Some(asked.after(now)),
        None => offered,
    };
    // Later years are not written with four digits, and nobody will mind.
    Ok(end.filter(|end| end.year() <= 9999))
}

/// A new request; its number is for the caller to give. `pending` are the requests that wait already.
///
/// # Errors
/// `invalid-argument` for what the contract does not offer, `conflict` where the same was asked for already.
pub fn request(
    draft: &AccessDraft,
    command: &AccessCommand,
    contract: &DataProduct,
    pending: &[AccessRequest],
) -> Result<AccessRequest> {
    let (kind, name) = parse_principal(&draft.principal).map_err(invalid)?;
    if kind == PrincipalKind::Role {
        return Err(invalid("access is granted to users, services and teams, and not to a role")
            .with_help("name who needs it, and the role that the contract offers it to"));
    }
    if contract.key() != draft.product {
        return Err(invalid(format!(
            "the contract is that of `{}`, and access is asked for `{}`",
            contract.key(),
            draft.product
        )));
    }
    let principal = format!("{}:{name}", kind.as_str());
    for (what, text) in
        [("principal", Some(&principal)), ("role", Some(&draft.role)), ("purpose", draft.purpose.as_ref())]
    {
        check_text(what, text.map_or("", String::as_str), LONGEST_NAME)?;
    }
    if draft.reason.trim().is_empty() {
        return Err(invalid("a request needs a reason: approvers decide by it"));
    }
    check_text("reason", &draft.reason, LONGEST_REASON)?;
    let tables: BTreeSet<String> = draft
        .tables
        .iter()
        .map(|table| contract.table(table).map_or_else(|| table.clone(), |found| found.name.sql()))
        .collect();
    let offers = offers_for(contract, &draft.role, &tables, draft.purpose.as_deref())?;
    end(&offers, draft.duration.as_deref(), command.at)?;
    let new = AccessRequest {
        number: 0,
        principal,
        requested_by: command.by.clone(),
        impersonated_by: command.impersonated_by.clone(),
        product: draft.product.clone(),
        tables,
        role: draft.role.clone(),
        purpose: draft.purpose.clone(),
        duration: draft.duration.clone(),
        reason: draft.reason.clone(),
        at: command.at,
        state: RequestState::Pending,
        approvals: Vec::new(),
        ended: None,
    };
    let waits = |other: &&AccessRequest| other.is_like(&new) && other.state_at(command.at) == RequestState::Pending;
    if let Some(other) = pending.iter().find(waits) {
        return Err(Error::new(
            ErrorCode::Conflict,
            format!("`{}` has asked for that already: request {} waits for its approvers", new.principal, other.number),
        )
        .with_help(format!("`datamesh access show {}` says who they are", other.number)));
    }
    Ok(new)
}

/// Whether somebody is an approver of an offer.
fn approves(actor: &str, offer: &AccessOffer, contract: &DataProduct, members: &dyn Membership) -> bool {
    let owner = [contract.owner.clone()];
    let approvers = if offer.approvers.is_empty() { &owner[..] } else { &offer.approvers[..] };
    approvers.iter().any(|approver| match approver.split_once(':') {
        Some(("team", team)) => members.is_member(actor, team),
        Some(_) => approver == actor,
        // A bare name is that of a team or of a user.
        None => members.is_member(actor, approver) || actor.strip_prefix("user:") == Some(approver),
    })
}

/// Who approves a request, in words.
///
/// # Errors
/// `invalid-argument` where the contract does not offer it any more.
pub fn approvers(request: &AccessRequest, contract: &DataProduct) -> Result<BTreeSet<String>> {
    let offers = offers_for(contract, &request.role, &request.tables, request.purpose.as_deref())?;
    Ok(offers
        .into_iter()
        .flat_map(|offer| if offer.approvers.is_empty() { vec![contract.owner.clone()] } else { offer.approvers })
        .collect())
}

fn check_pending(request: &AccessRequest, now: DateTime<Utc>) -> Result<()> {
    match request.state_at(now) {
        RequestState::Pending => Ok(()),
        RequestState::Expired => Err(Error::new(
            ErrorCode::Conflict,
            format!("request {} has expired: nobody decided for {REQUEST_DAYS} days", request.number),
        )
        .with_help("access can be asked for again")),
        state => Err(Error::new(
            ErrorCode::Conflict,
            format!("request {} was decided already: it is {state}", request.number),
        )),
    }
}

fn check_approver(
    command: &AccessCommand,
    offers: &[AccessOffer],
    contract: &DataProduct,
    number: u64,
    members: &dyn Membership,
) -> Result<()> {
    for offer in offers {
        if !approves(&command.by, offer, contract, members) {
            let who = if offer.approvers.is_empty() { contract.owner.clone() } else { offer.approvers.join(", ") };
            return Err(denied(format!("`{}` is no approver of request {number}", command.by))
                .with_help(format!("`{}` offers the role `{}` with the approvers {who}", contract.id, offer.role)));
        }
    }
    Ok(())
}

/// What an approval leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Approved {
    /// Others must approve too.
    Waiting(AccessRequest),
    /// It was the last one. The numbers of both are for the caller to give.
    Granted(AccessRequest, Box<Grant>),
}

/// An approver agrees to a request.
///
/// # Errors
/// `denied` for who may not approve it, `conflict` where it waits no longer, `invalid-argument` where the contract does not
/// offer it any more.
pub fn approve(
    request: &AccessRequest,
    note: Option<&str>,
    command: &AccessCommand,
    contract: &DataProduct,
    members: &dyn Membership,
) -> Result<Approved> {
    let number = request.number;
    check_pending(request, command.at)?;
    check_text("note", note.unwrap_or_default(), LONGEST_REASON)?;
    // Whoever is behind another's name has a part in what is done in it.
    let has_part = |actor: &str| {
        let behind = request.impersonated_by.as_deref().filter(|_| command.separation == SeparationOfDuties::People);
        behind == Some(actor) || request.concerns(actor, members)
    };
    let mut own = actors(&command.by, command.impersonated_by.as_deref(), command.separation);
    if let Some(own) = own.find(|actor| has_part(actor)) {
        return Err(denied(format!("`{own}` has a part in request {number}, and nobody approves their own request"))
            .with_help("another approver must do it"));
    }
    let offers = offers_for(contract, &request.role, &request.tables, request.purpose.as_deref())?;
    check_approver(command, &offers, contract, number, members)?;
    let persons = |approval: &Approval| -> Vec<String> {
        let all = actors(&approval.by, approval.impersonated_by.as_deref(), command.separation);
        all.map(str::to_owned).collect()
    };
    let earlier: BTreeSet<String> = request.approvals.iter().flat_map(persons).collect();
    let mut twice = actors(&command.by, command.impersonated_by.as_deref(), command.separation);
    if let Some(twice) = twice.find(|actor| earlier.contains(*actor)) {
        return Err(denied(format!("`{twice}` has approved request {number} already"))
            .with_help("a second, different approver must agree"));
    }
    let expires_at = end(&offers, request.duration.as_deref(), command.at)?;
    let mut approved = request.clone();
    approved.approvals.push(Approval {
        by: command.by.clone(),
        impersonated_by: command.impersonated_by.clone(),
        at: command.at,
        note: note.map(str::to_owned),
    });
    // Who approved earlier may be no approver any more, or have become a member of the team that it is for.
    let counts = |approval: &&Approval| {
        offers.iter().all(|offer| approves(&approval.by, offer, contract, members))
            && !persons(approval).iter().any(|actor| has_part(actor))
    };
    let approvers: Vec<String> = approved.approvals.iter().filter(counts).map(|approval| approval.by.clone()).collect();
    let needed = offers.iter().map(|offer| usize::from(offer.approvals)).max().unwrap_or(1);
    if approvers.len() < needed {
        return Ok(Approved::Waiting(approved));
    }
    approved.state = RequestState::Approved;
    let grant = Grant {
        number: 0,
        request: number,
        principal: request.principal.clone(),
        product: request.product.clone(),
        tables: request.tables.clone(),
        role: request.role.clone(),
        purpose: request.purpose.clone(),
        granted_at: command.at,
        approved_by: approvers,
        expires_at,
        revoked: None,
    };
    Ok(Approved::Granted(approved, Box::new(grant)))
}

/// An approver refuses a request.
///
/// # Errors
/// Those of [`approve`], and `invalid-argument` without a reason.
pub fn deny(
    request: &AccessRequest,
    reason: &str,
    command: &AccessCommand,
    contract: &DataProduct,
    members: &dyn Membership,
) -> Result<AccessRequest> {
    check_pending(request, command.at)?;
    if reason.trim().is_empty() {
        return Err(invalid("a request is not denied without a reason").with_help("say why: who asked will read it"));
    }
    check_text("reason", reason, LONGEST_REASON)?;
    if !command.administers {
        check_any_approver(command, request, contract, members)?;
    }
    Ok(ended(request, RequestState::Denied, command, Some(reason)))
}

/// Whoever asked takes a request back.
///
/// # Errors
/// `denied` for anybody else, `conflict` where it waits no longer.
pub fn withdraw(
    request: &AccessRequest,
    reason: Option<&str>,
    command: &AccessCommand,
    members: &dyn Membership,
) -> Result<AccessRequest> {
    check_pending(request, command.at)?;
    check_text("reason", reason.unwrap_or_default(), LONGEST_REASON)?;
    if !request.concerns(&command.by, members) {
        return Err(denied(format!(
            "`{}` has no part in request {}, and cannot withdraw it",
            command.by, request.number
        ))
        .with_help("an approver can deny it"));
    }
    Ok(ended(request, RequestState::Withdrawn, command, reason))
}

/// A grant is ended: by an approver, by whoever administers the product, or by who has it.
///
/// # Errors
/// `denied` for anybody else, `conflict` where it counts no longer.
pub fn revoke(
    grant: &Grant,
    request: &AccessRequest,
    reason: Option<&str>,
    command: &AccessCommand,
    contract: &DataProduct,
    members: &dyn Membership,
) -> Result<Grant> {
    check_text("reason", reason.unwrap_or_default(), LONGEST_REASON)?;
    if !grant.is_effective(command.at) {
        let how = if grant.revoked.is_some() { "was revoked already" } else { "has expired" };
        return Err(Error::new(ErrorCode::Conflict, format!("grant {} {how}", grant.number)));
    }
    if !command.administers && !request.concerns(&command.by, members) {
        check_any_approver(command, request, contract, members)?;
    }
    let revoked = Revocation { at: command.at, by: command.by.clone(), reason: reason.map(str::to_owned) };
    Ok(Grant { revoked: Some(revoked), ..grant.clone() })
}

/// Who approves one of the offers may refuse. Where nothing is offered any more, the product's owner may.
fn check_any_approver(
    command: &AccessCommand,
    request: &AccessRequest,
    contract: &DataProduct,
    members: &dyn Membership,
) -> Result<()> {
    let offers = offers_for(contract, &request.role, &request.tables, request.purpose.as_deref()).unwrap_or_default();
    let owns = members.is_member(&command.by, &contract.owner);
    if owns || offers.iter().any(|offer| approves(&command.by, offer, contract, members)) {
        return Ok(());
    }
    check_approver(command, &offers, contract, request.number, members)?;
    Err(denied(format!("`{}` is no approver of request {}", command.by, request.number))
        .with_help(format!("`{}` does not offer that any more: its owner, {}, may", contract.id, contract.owner)))
}

fn ended(request: &AccessRequest, state: RequestState, command: &AccessCommand, reason: Option<&str>) -> AccessRequest {
    let ending = Ending { by: command.by.clone(), at: command.at, reason: reason.map(str::to_owned) };
    AccessRequest { state, ended: Some(ending), ..request.clone() }
}

#[cfg(test)]
mod tests;
