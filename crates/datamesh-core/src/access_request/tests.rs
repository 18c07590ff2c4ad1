use proptest::prelude::*;
use serde_json::json;

use super::*;

fn at(days: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000, 0).expect("a time") + TimeDelta::days(days)
}

fn contract(access: serde_json::Value) -> DataProduct {
    serde_json::from_value(json!({
        "format": 1, "id": {"domain": "shop", "product": "sales"}, "version": "1.2.0", "owner": "shop-team",
        "tables": [{"name": "orders", "columns": []}, {"name": "order-items", "columns": []}],
        "declared": {"access": access},
    }))
    .expect("it is a contract")
}

fn offered() -> DataProduct {
    contract(json!([
        {"role": "analyst", "approvers": ["stewards", "user:eve"], "approvals": 2, "expires": "90d", "purpose": ["billing", "fraud"]},
        {"role": "support", "tables": ["orders"]},
        {"role": "both", "tables": ["orders"], "approvers": ["stewards"], "expires": "30d"},
        {"role": "both", "tables": ["order-items"], "approvers": ["keepers"], "expires": "10d"},
    ]))
}

/// `stewards` are sam and sue, `keepers` kim and sam, `shop-team` is olga, `fleet` finn and sue.
fn members(principal: &str, team: &str) -> bool {
    let list: &[&str] = match team {
        "stewards" => &["user:sam", "user:sue"],
        "keepers" => &["user:kim", "user:sam"],
        "shop-team" => &["user:olga"],
        "fleet" => &["user:finn", "user:sue"],
        _ => &[],
    };
    list.contains(&principal)
}

fn command(by: &str, day: i64, action: AccessAction) -> AccessCommand {
    AccessCommand {
        id: Uuid::from_u128(1),
        at: at(day),
        by: by.to_owned(),
        impersonated_by: None,
        door: None,
        decision: None,
        administers: false,
        separation: SeparationOfDuties::People,
        action,
    }
}

fn acts(by: &str, day: i64) -> AccessCommand {
    command(by, day, AccessAction::Approve { request: 1, note: None })
}

fn draft(role: &str) -> AccessDraft {
    AccessDraft {
        principal: "alice".to_owned(),
        product: offered().key(),
        tables: BTreeSet::new(),
        role: role.to_owned(),
        purpose: (role == "analyst").then(|| "billing".to_owned()),
        duration: None,
        reason: "to work".to_owned(),
    }
}

fn asked(draft: &AccessDraft) -> AccessRequest {
    let request = request(draft, &acts("user:alice", 0), &offered(), &[]).expect("it is offered");
    AccessRequest { number: 1, ..request }
}

fn approve_by(request: &AccessRequest, by: &str, day: i64) -> Result<Approved> {
    approve(request, None, &acts(by, day), &offered(), &members)
}

fn waiting(approved: Result<Approved>) -> AccessRequest {
    match approved.expect("it is approved") {
        Approved::Waiting(request) => request,
        Approved::Granted(..) => panic!("it was granted"),
    }
}

fn granted(approved: Result<Approved>) -> Grant {
    match approved.expect("it is approved") {
        Approved::Granted(request, grant) => {
            assert_eq!(request.state, RequestState::Approved);
            *grant
        }
        Approved::Waiting(_) => panic!("it waits"),
    }
}

#[test]
fn only_what_is_offered_is_asked_for() {
    let analyst = draft("analyst");
    let refused = |change: &dyn Fn(&mut AccessDraft), words: &str| {
        let mut draft = analyst.clone();
        change(&mut draft);
        let error = request(&draft, &acts("user:alice", 0), &offered(), &[]).expect_err(words);
        let told = format!("{error} | {}", error.help().unwrap_or_default());
        assert!(told.contains(words), "{told}");
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
    };
    refused(&|draft| draft.role = "boss".to_owned(), "it offers access to `analyst`, `both`, `support`");
    refused(&|draft| draft.purpose = None, "for `billing`, `fraud`");
    refused(&|draft| draft.purpose = Some("fun".to_owned()), "for the purpose `fun`");
    refused(&|draft| draft.duration = Some("91d".to_owned()), "for 90d at most");
    refused(&|draft| draft.duration = Some("0d".to_owned()), "no time at all");
    refused(&|draft| draft.duration = Some("soon".to_owned()), "no length of time");
    refused(&|draft| draft.tables = BTreeSet::from(["x".to_owned()]), "no table `x`");
    refused(&|draft| draft.principal = "role:analyst".to_owned(), "not to a role");
    refused(&|draft| draft.principal = "user:".to_owned(), "names no principal");
    refused(&|draft| draft.reason = " ".to_owned(), "needs a reason");
    refused(&|draft| draft.role = "x".repeat(300), "may have 256");
    refused(&|draft| draft.product.major = 2, "is that of");
    let tables = AccessDraft { tables: BTreeSet::from(["order-items".to_owned()]), ..draft("support") };
    let error = request(&tables, &acts("user:alice", 0), &offered(), &[]).expect_err("it is not offered");
    assert!(error.to_string().contains("not to the role `support`"), "{error}");
    let fine =
        AccessDraft { tables: BTreeSet::from(["order-items".to_owned()]), duration: Some("90d".to_owned()), ..analyst };
    assert_eq!(asked(&fine).tables, BTreeSet::from(["order_items".to_owned()]));
    assert_eq!(asked(&fine).principal, "user:alice");
}

#[test]
fn the_same_is_asked_for_once_at_a_time() {
    let first = asked(&draft("analyst"));
    let again = |day| request(&draft("analyst"), &acts("user:bob", day), &offered(), std::slice::from_ref(&first));
    assert_eq!(again(1).expect_err("it waits").code(), ErrorCode::Conflict);
    assert!(again(REQUEST_DAYS).is_ok(), "the first has expired");
    let other = AccessDraft { purpose: Some("fraud".to_owned()), ..draft("analyst") };
    assert!(request(&other, &acts("user:bob", 1), &offered(), &[first]).is_ok());
}

#[test]
fn two_different_approvers_make_a_grant() {
    let request = asked(&draft("analyst"));
    let once = waiting(approve_by(&request, "user:sam", 1));
    assert_eq!(approve_by(&once, "user:sam", 2).expect_err("twice").code(), ErrorCode::Denied);
    let grant = granted(approve_by(&once, "user:eve", 2));
    assert_eq!(grant.approved_by, ["user:sam", "user:eve"]);
    assert_eq!((grant.product.major, grant.expires_at), (1, Some(at(92))));
    assert_eq!(approve_by(&request, "user:olga", 1).expect_err("not the owner").code(), ErrorCode::Denied);
    assert_eq!(approve_by(&once, "user:eve", REQUEST_DAYS).expect_err("too late").code(), ErrorCode::Conflict);
    // One person in two names is one person.
    let hidden = AccessCommand { impersonated_by: Some("user:sam".to_owned()), ..acts("user:sue", 2) };
    assert_eq!(approve(&once, None, &hidden, &offered(), &members).expect_err("twice").code(), ErrorCode::Denied);
    // Unless the mesh has but one: then names count.
    let alone = AccessCommand { separation: SeparationOfDuties::Names, ..hidden };
    assert!(matches!(approve(&once, None, &alone, &offered(), &members), Ok(Approved::Granted(..))));
    // Who is no approver any more does not count any more.
    let without = |principal: &str, team: &str| principal != "user:sam" && members(principal, team);
    let later = approve(&once, None, &acts("user:eve", 2), &offered(), &without);
    assert_eq!(waiting(later).approvals.len(), 2);
}

#[test]
fn nobody_approves_their_own_request() {
    let refused = |request: &AccessRequest, command: &AccessCommand| {
        let error = approve(request, None, command, &offered(), &members).expect_err("it is their own");
        assert!(
            error.code() == ErrorCode::Denied && error.to_string().contains("nobody approves their own"),
            "{error}"
        );
    };
    let own = AccessRequest { principal: "user:sam".to_owned(), ..asked(&draft("analyst")) };
    refused(&own, &acts("user:sam", 1));
    let for_another = AccessRequest { requested_by: "user:sam".to_owned(), ..asked(&draft("analyst")) };
    refused(&for_another, &acts("user:sam", 1));
    let hidden = AccessRequest { impersonated_by: Some("user:sam".to_owned()), ..asked(&draft("analyst")) };
    refused(&hidden, &acts("user:sam", 1));
    let both = AccessCommand { impersonated_by: Some("user:sam".to_owned()), ..acts("user:sue", 1) };
    refused(&hidden, &both);
    let alone = |command| AccessCommand { separation: SeparationOfDuties::Names, ..command };
    assert!(approve(&hidden, None, &alone(both), &offered(), &members).is_ok());
    refused(&own, &alone(acts("user:sam", 1)));
    let team = AccessRequest { principal: "team:fleet".to_owned(), ..asked(&draft("analyst")) };
    refused(&team, &acts("user:sue", 1));
    assert!(approve_by(&team, "user:sam", 1).is_ok());
    // Who acts in an approver's name is who acts.
    let behind = AccessCommand { impersonated_by: Some("user:alice".to_owned()), ..acts("user:sam", 1) };
    refused(&asked(&draft("analyst")), &behind);
}

#[test]
fn all_offers_that_a_request_falls_under_must_agree() {
    let both = asked(&draft("both"));
    assert_eq!(approve_by(&both, "user:sue", 1).expect_err("a steward only").code(), ErrorCode::Denied);
    assert_eq!(approve_by(&both, "user:kim", 1).expect_err("a keeper only").code(), ErrorCode::Denied);
    let grant = granted(approve_by(&both, "user:sam", 1));
    assert_eq!(grant.expires_at, Some(at(11)));
    let one = AccessDraft { tables: BTreeSet::from(["orders".to_owned()]), ..draft("both") };
    assert_eq!(granted(approve_by(&asked(&one), "user:sue", 1)).expires_at, Some(at(31)));
    // The owner approves where nobody is named, and without an end there is none.
    assert_eq!(granted(approve_by(&asked(&draft("support")), "user:olga", 1)).expires_at, None);
}

#[test]
fn a_request_ends_once() {
    let request = asked(&draft("analyst"));
    let code = |result: Result<AccessRequest>| result.expect_err("it is refused").code();
    assert_eq!(code(deny(&request, " ", &acts("user:sam", 1), &offered(), &members)), ErrorCode::InvalidArgument);
    assert_eq!(code(deny(&request, "no", &acts("user:bob", 1), &offered(), &members)), ErrorCode::Denied);
    assert_eq!(code(withdraw(&request, None, &acts("user:sam", 1), &members)), ErrorCode::Denied);
    let denied = deny(&request, "no", &acts("user:eve", 1), &offered(), &members).expect("an approver may");
    assert_eq!(
        (denied.state, denied.ended.as_ref().and_then(|end| end.reason.as_deref())),
        (RequestState::Denied, Some("no"))
    );
    let withdrawn = withdraw(&request, None, &acts("user:alice", 1), &members).expect("it is theirs");
    for ended in [denied, withdrawn] {
        assert_eq!(approve_by(&ended, "user:sam", 1).expect_err("it has ended").code(), ErrorCode::Conflict);
        assert_eq!(code(deny(&ended, "no", &acts("user:sam", 1), &offered(), &members)), ErrorCode::Conflict);
        assert_eq!(code(withdraw(&ended, None, &acts("user:alice", 1), &members)), ErrorCode::Conflict);
    }
    let administers = AccessCommand { administers: true, ..acts("user:root", 1) };
    assert!(deny(&request, "no", &administers, &offered(), &members).is_ok());
    assert!(approve(&request, None, &administers, &offered(), &members).is_err(), "approving is the approvers'");
}

#[test]
fn a_grant_is_ended_by_who_gave_it_or_has_it() {
    let request = asked(&draft("support"));
    let grant = granted(approve_by(&request, "user:olga", 1));
    let end = |command: &AccessCommand, contract: &DataProduct| {
        revoke(&grant, &request, Some("over"), command, contract, &members)
    };
    for by in ["user:olga", "user:alice"] {
        let ended = end(&acts(by, 2), &offered()).expect("they may");
        assert!(!ended.is_effective(at(2)) && ended.revoked.as_ref().is_some_and(|revoked| revoked.by == by));
        let again = revoke(&ended, &request, None, &acts(by, 3), &offered(), &members).expect_err("it has ended");
        assert_eq!(again.code(), ErrorCode::Conflict);
    }
    assert_eq!(end(&acts("user:sam", 2), &offered()).expect_err("no approver").code(), ErrorCode::Denied);
    let withdrawn = contract(json!([]));
    assert!(end(&acts("user:olga", 2), &withdrawn).is_ok(), "the owner, where nothing is offered any more");
    assert_eq!(end(&acts("user:sam", 2), &withdrawn).expect_err("no approver").code(), ErrorCode::Denied);
    assert_eq!(
        approve_by(&AccessRequest { role: "gone".to_owned(), ..request.clone() }, "user:olga", 2)
            .expect_err("gone")
            .code(),
        ErrorCode::InvalidArgument
    );
    let administers = AccessCommand { administers: true, ..acts("user:root", 2) };
    assert!(end(&administers, &offered()).is_ok());
}

proptest! {
    /// Whoever acts in whatever order: a grant has two different approvers, none of whom it concerns, and what has ended
    /// stays as it is.
    #[test]
    fn a_grant_is_never_ones_own(
        principal in prop::sample::select(vec!["user:alice", "user:sam", "user:sue", "team:fleet"]),
        steps in prop::collection::vec(
            (0..3_u8, prop::sample::select(vec!["alice", "sam", "sue", "eve", "finn", "olga"]), 0..40_i64,
             prop::option::of(prop::sample::select(vec!["alice", "sam", "eve"]))), 0..12),
    ) {
        let draft = AccessDraft { principal: principal.to_owned(), ..draft("analyst") };
        let mut request = asked(&draft);
        let mut day = 0;
        for (step, by, later, behind) in steps {
            day = day.max(later);
            let own = AccessCommand { impersonated_by: behind.map(|name| format!("user:{name}")), ..acts(&format!("user:{by}"), day) };
            let before = request.clone();
            let next = match step {
                0 => approve(&request, None, &own, &offered(), &members).map(|approved| match approved {
                    Approved::Waiting(request) => (request, None),
                    Approved::Granted(request, grant) => (request, Some(grant)),
                }),
                1 => deny(&request, "no", &own, &offered(), &members).map(|request| (request, None)),
                _ => withdraw(&request, None, &own, &members).map(|request| (request, None)),
            };
            let Ok((next, grant)) = next else { continue };
            prop_assert_eq!(before.state_at(own.at), RequestState::Pending);
            if let Some(grant) = grant {
                let names: BTreeSet<String> = next.approvals.iter()
                    .flat_map(|approval| [Some(approval.by.clone()), approval.impersonated_by.clone()]).flatten().collect();
                prop_assert!(grant.approved_by.len() >= 2);
                prop_assert!(names.len() >= grant.approved_by.len());
                prop_assert!(names.iter().all(|name| !next.concerns(name, &members)));
                prop_assert!(grant.approved_by.iter().all(|name| members(name, "stewards") || name == "user:eve"));
                prop_assert!(grant.expires_at.is_some_and(|end| end <= own.at + TimeDelta::days(90)));
                prop_assert!(own.at < next.expires_at());
            }
            request = next;
        }
    }
}
