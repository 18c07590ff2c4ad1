//! What every registry must do when access is asked for.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use datamesh_core::ErrorCode;
use datamesh_core::access_request::{
    AccessAction, AccessCommand, AccessDraft, GrantFilter, RequestFilter, RequestState,
};
use datamesh_core::audit::{AuditKind, AuditQuery};
use datamesh_core::ids::ProductKey;
use datamesh_core::ports::{ApplyOutcome, NewRevision, ProductMove, Registry};
use serde_json::json;
use uuid::Uuid;

use crate::apply::empty;
use crate::requests::{Deaf, Key, contract, key, now};
use crate::suite::Mesh;

/// `stewards` are sam and sue.
pub(crate) fn members(principal: &str, team: &str) -> bool {
    team == "stewards" && ["user:sam", "user:sue"].contains(&principal)
}

/// Applies a contract that offers access: `reader` with one approver, `writer` with two.
pub(crate) async fn offer(registry: &dyn Registry, product: &ProductKey) {
    let mut contract = contract(product, "1.0.0");
    let access = json!([
        {"role": "reader", "approvers": ["stewards"], "expires": "90d"},
        {"role": "pair", "approvers": ["stewards"], "approvals": 2},
    ]);
    contract.declared.insert("access".to_owned(), access);
    let mut request = empty(registry).await;
    request.revisions = vec![NewRevision { expected: 0, contract }];
    assert!(matches!(registry.apply(&request, &Deaf).await.unwrap(), ApplyOutcome::Applied(_)));
}

fn command(by: &str, action: AccessAction) -> AccessCommand {
    AccessCommand {
        id: Uuid::now_v7(),
        at: now(),
        by: by.to_owned(),
        impersonated_by: None,
        door: Some("test".to_owned()),
        decision: None,
        administers: false,
        separation: Default::default(),
        action,
    }
}

pub(crate) fn ask(product: &ProductKey, by: &str) -> AccessCommand {
    let draft = AccessDraft {
        principal: by.to_owned(),
        product: product.clone(),
        tables: BTreeSet::new(),
        role: "reader".to_owned(),
        purpose: None,
        duration: None,
        reason: "to work".to_owned(),
    };
    command(by, AccessAction::Request(draft))
}

pub(crate) fn approve(request: u64, by: &str) -> AccessCommand {
    command(by, AccessAction::Approve { request, note: None })
}

pub(crate) fn revoke(grant: u64, by: &str) -> AccessCommand {
    command(by, AccessAction::Revoke { grant, reason: None })
}

pub(crate) async fn access_is_asked_for_and_granted(mesh: Mesh) {
    let (registry, product) = (&*mesh.registry, key("shop", "sales"));
    let missing = registry.access(&ask(&product, "user:alice"), &members).await.unwrap_err();
    assert_eq!(missing.code(), ErrorCode::NotFound);
    offer(registry, &product).await;
    let asked = registry.access(&ask(&product, "user:alice"), &members).await.unwrap();
    assert_eq!((asked.request.number, asked.grant, asked.grant_revision), (1, None, 0));
    let again = registry.access(&ask(&product, "user:alice"), &members).await.unwrap_err();
    assert_eq!(again.code(), ErrorCode::Conflict);
    let own = registry.access(&approve(1, "user:alice"), &members).await.unwrap_err();
    assert_eq!(own.code(), ErrorCode::Denied);
    assert!(registry.grants(&GrantFilter::default()).await.unwrap().is_empty());

    let approving = approve(1, "user:sam");
    let granted = mesh.another().await.access(&approving, &members).await.unwrap();
    let grant = granted.grant.clone().unwrap();
    assert_eq!((grant.number, grant.request, granted.grant_revision), (1, 1, 1));
    assert_eq!(grant.expires_at, Some(now() + TimeDelta::days(90)));
    assert_eq!(registry.access(&approving, &members).await.unwrap(), granted, "what was done is not done again");
    assert_eq!(registry.revisions().await.unwrap().grants, 1);
    let find = |principals: &[&str], at| GrantFilter {
        principals: principals.iter().map(|&principal| principal.to_owned()).collect(),
        product: Some(product.clone()),
        effective_at: Some(at),
        number: None,
    };
    let found = |filter| async move { registry.grants(&filter).await.unwrap().len() };
    assert_eq!(registry.grants(&find(&["team:x", "user:alice"], now())).await.unwrap(), [grant]);
    assert_eq!(found(find(&["user:bob"], now())).await, 0);
    assert_eq!(found(find(&["user:alice"], now() + TimeDelta::days(90))).await, 0, "it has expired");
    let second = ProductKey { major: 2, ..product.clone() };
    assert_eq!(found(GrantFilter { product: Some(second), ..find(&["user:alice"], now()) }).await, 0);

    let requests = registry.access_requests(&RequestFilter::all(now())).await.unwrap();
    assert_eq!((requests.len(), requests[0].state), (1, RequestState::Approved));
    registry.access(&ask(&product, "user:bob"), &members).await.unwrap();
    let pending = |days| RequestFilter {
        state: Some(RequestState::Pending),
        ..RequestFilter::all(now() + TimeDelta::days(days))
    };
    assert_eq!(registry.access_requests(&pending(0)).await.unwrap()[0].principal, "user:bob");
    assert!(registry.access_requests(&pending(30)).await.unwrap().is_empty(), "it has expired");

    // A product that moves takes its requests and grants along.
    let to = key("depot", "sold");
    let mut moving = empty(registry).await;
    moving.moves = vec![ProductMove { from: product.clone(), to: to.clone() }];
    assert!(matches!(registry.apply(&moving, &Deaf).await.unwrap(), ApplyOutcome::Applied(_)));
    assert_eq!(registry.revisions().await.unwrap().grants, 2);
    let moved = registry.grants(&GrantFilter { product: Some(to.clone()), ..GrantFilter::default() }).await.unwrap();
    assert_eq!(moved[0].product, to);

    let revoke = command("user:sue", AccessAction::Revoke { grant: 1, reason: Some("over".to_owned()) });
    let revoked = registry.access(&revoke, &members).await.unwrap();
    assert!(!revoked.grant.unwrap().is_effective(now()) && revoked.grant_revision == 3);
    assert_eq!(found(GrantFilter { effective_at: Some(now()), ..GrantFilter::default() }).await, 0);
    let denied = command("user:sam", AccessAction::Deny { request: 2, reason: "no".to_owned() });
    assert_eq!(registry.access(&denied, &members).await.unwrap().request.state, RequestState::Denied);
    let kinds: Vec<AuditKind> = registry
        .audit_entries(&AuditQuery::default())
        .await
        .unwrap()
        .iter()
        .rev()
        .map(|entry| entry.kind)
        .filter(|kind| kind.as_str().starts_with("access"))
        .collect();
    let expected = [
        AuditKind::AccessRequested,
        AuditKind::AccessGranted,
        AuditKind::AccessRequested,
        AuditKind::AccessRevoked,
        AuditKind::AccessDenied,
    ];
    assert_eq!(kinds, expected);
    let verified = registry.verify_audit(&Key::new(1), None).await.unwrap();
    assert!(verified.is_sound() && verified.uncovered == 0, "{verified:?}");
}

pub(crate) async fn of_two_approvers_at_once_one_is_the_last(mesh: Mesh) {
    let product = key("shop", "sales");
    offer(&*mesh.registry, &product).await;
    let mut asking = ask(&product, "user:alice");
    if let AccessAction::Request(draft) = &mut asking.action {
        draft.role = "pair".to_owned();
    }
    mesh.registry.access(&asking, &members).await.unwrap();
    let mut running = Vec::new();
    for by in ["user:sam", "user:sue", "user:sam", "user:sue"] {
        let registry = mesh.another().await;
        running.push(tokio::spawn(async move { registry.access(&approve(1, by), &members).await }));
    }
    let (mut granted, mut waiting, mut refused) = (0, 0, 0);
    for approver in running {
        match approver.await.unwrap() {
            Ok(outcome) if outcome.grant.is_some() => granted += 1,
            Ok(_) => waiting += 1,
            Err(error) => {
                assert!([ErrorCode::Denied, ErrorCode::Conflict].contains(&error.code()), "{error}");
                refused += 1;
            }
        }
    }
    assert_eq!((granted, waiting, refused), (1, 1, 2));
    let grants = mesh.registry.grants(&GrantFilter::default()).await.unwrap();
    assert_eq!((grants.len(), grants[0].approved_by.len()), (1, 2));
}
