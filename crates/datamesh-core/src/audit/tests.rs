use serde_json::json;

use super::*;
use crate::decision::{Action, DECISION_FORMAT, DecisionRecord, Outcome, Principal};

/// A decision that allows something.
fn decide(
    at: DateTime<Utc>,
    principal: &Principal,
    action: Action,
    resource: &str,
    context: serde_json::Value,
) -> DecisionRecord {
    DecisionRecord {
        format: DECISION_FORMAT,
        at,
        principal: principal.clone(),
        action,
        resource: resource.to_owned(),
        outcome: Outcome::Allow,
        reasons: vec!["mesh-owner".to_owned()],
        context,
    }
}

/// A key that anybody could have: what it signs is a hash with a secret.
#[derive(Debug)]
struct Secret(&'static str);

impl Signer for Secret {
    fn key_id(&self) -> &str {
        self.0
    }

    fn public_key(&self) -> String {
        format!("secret:{}", self.0)
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        Sha256::new().chain_update(self.0).chain_update(message).finalize().to_vec()
    }
}

impl Verifier for Secret {
    fn knows(&self, key_id: &str) -> bool {
        key_id == self.0
    }

    fn verify(&self, key_id: &str, message: &[u8], signature: &[u8]) -> bool {
        self.knows(key_id) && self.sign(message) == signature
    }
}

const KEY: Secret = Secret("ours");

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + second, 123_456_000).expect("it is a time")
}

/// Adds entries as the registry does.
#[derive(Default)]
struct Log(Vec<StoredEntry>);

impl Log {
    fn push(&mut self, entry: AuditEntry) -> &mut StoredEntry {
        let entry = AuditEntry { sequence: self.0.len() as u64 + 1, ..entry };
        let previous = self.0.last().map_or(ORIGIN.to_owned(), |last| last.hash.clone());
        self.0.push(StoredEntry::new(&entry, &previous).expect("it is written"));
        self.0.last_mut().expect("it was added")
    }

    fn decide(&mut self, number: u64) {
        let principal = Principal { id: "user:anna".to_owned() };
        let context = json!({"door": "test", "number": number, "large": u64::MAX});
        let record = decide(at(number as i64), &principal, Action::Read, "shop/sales", context);
        let row = StoredDecision {
            number,
            format: 1,
            at: record.at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
            principal: record.principal.id.clone(),
            action: "read".to_owned(),
            resource: record.resource.clone(),
            outcome: "allow".to_owned(),
            document: serde_json::to_string(&record).expect("it is written"),
        };
        self.push(AuditEntry::of_decision(&record, number)).record = Some(row);
    }

    fn sign(&mut self, signer: &Secret) -> Checkpoint {
        let last = self.0.last().expect("something is signed");
        let checkpoint = Checkpoint::sign("mesh", last.sequence, &last.hash, at(900), signer).expect("it is written");
        self.push(checkpoint.entry().expect("it is written"));
        checkpoint
    }

    fn verify_against(&self, anchor: Option<&Checkpoint>) -> AuditVerification {
        let mut verification = Verification::new("mesh", &KEY, anchor);
        self.0.iter().for_each(|entry| verification.push(entry));
        verification.finish(self.0.last().map(|last| (last.sequence, last.hash.clone())))
    }

    fn flaws(&self) -> Vec<u64> {
        self.verify_against(None).flaws.iter().filter_map(|flaw| flaw.sequence).collect()
    }
}

/// Ten entries: the first, decisions 1 to 4, a checkpoint, decisions 5 to 7, a checkpoint. Then one more.
fn log() -> Log {
    let mut log = Log::default();
    log.push(Legacy::default().entry(at(0), "mesh"));
    (1..=4).for_each(|number| log.decide(number));
    log.sign(&KEY);
    (5..=7).for_each(|number| log.decide(number));
    log.sign(&KEY);
    log.decide(8);
    log
}

#[test]
fn a_log_is_sound_as_it_was_written() {
    let found = log().verify_against(None);
    assert!(found.is_sound(), "{:?}", found.flaws);
    assert_eq!((found.entries, found.checkpoints, found.uncovered, found.legacy), (11, 2, 1, 0));
    assert!(Log::default().verify_against(None).is_sound());
}

#[test]
fn every_change_is_found_where_it_was_made() {
    type Change = fn(&mut StoredEntry);
    let changes: [(&str, Change); 14] = [
        ("at", |entry| entry.at.replace_range(..4, "1999")),
        ("kind", |entry| entry.kind = "read".to_owned()),
        ("principal", |entry| entry.principal.push('x')),
        ("impersonatedBy", |entry| entry.impersonated_by = Some("user:x".to_owned())),
        ("action", |entry| entry.action.push('x')),
        ("resource", |entry| entry.resource.push('x')),
        ("outcome", |entry| entry.outcome = "deny".to_owned()),
        ("decision", |entry| entry.decision = Some(99)),
        ("publication", |entry| entry.publication = Some(1)),
        ("hash", |entry| entry.hash.replace_range(..2, if entry.hash.starts_with("00") { "11" } else { "00" })),
        ("document", |entry| entry.text = entry.text.replace("anna", "otto").replace("mesh", "mush")),
        ("space", |entry| entry.text.push(' ')),
        ("previous", |entry| entry.previous = ORIGIN.replace('0', "1")),
        ("sequence in the text", |entry| entry.text = entry.text.replace("\"sequence\":", "\"sequence\":1")),
    ];
    for (what, change) in changes {
        for place in 0..log().0.len() {
            let mut tampered = log();
            change(&mut tampered.0[place]);
            assert!(tampered.flaws().contains(&(place as u64 + 1)), "{what} of entry {}", place + 1);
        }
    }
}

#[test]
fn the_list_of_decisions_is_compared() {
    type Change = fn(&mut StoredDecision);
    let changes: [Change; 8] = [
        |row| row.number += 1,
        |row| row.format = 2,
        |row| row.at.replace_range(..4, "1999"),
        |row| row.principal.push('x'),
        |row| row.action.push('x'),
        |row| row.resource.push('x'),
        |row| row.outcome = "deny".to_owned(),
        |row| row.document = row.document.replace("test", "tent"),
    ];
    for change in changes {
        let mut tampered = log();
        change(tampered.0[2].record.as_mut().expect("it is a decision"));
        assert_eq!(tampered.flaws(), [3]);
    }
    let mut tampered = log();
    tampered.0[2].record = None;
    assert_eq!(tampered.flaws(), [3]);
}

#[test]
fn what_is_missing_or_elsewhere_is_found() {
    for place in 0..log().0.len() - 1 {
        let mut tampered = log();
        tampered.0.remove(place);
        assert!(tampered.flaws().contains(&(place as u64 + 1)), "entry {}", place + 1);
        let mut tampered = log();
        tampered.0.swap(place, place + 1);
        assert!(!tampered.flaws().is_empty(), "entries {} and the next", place + 1);
        // With the numbers put right.
        let (first, second) = (place as u64 + 1, place as u64 + 2);
        (tampered.0[place].sequence, tampered.0[place + 1].sequence) = (first, second);
        assert!(tampered.flaws().contains(&first), "entries {first} and {second}");
    }
}

/// Writes the chain anew from an entry on, as somebody would who knows how it works.
fn rewrite(log: &mut Log, place: usize) {
    for at in place..log.0.len() {
        let previous = if at == 0 { ORIGIN.to_owned() } else { log.0[at - 1].hash.clone() };
        let stored = &mut log.0[at];
        stored.hash = chain(&previous, &stored.text).expect("it is a hash");
        stored.previous = previous;
    }
}

#[test]
fn a_chain_that_was_written_anew_does_not_fit_its_checkpoints() {
    let forge = |place: usize| {
        let mut log = log();
        let old = log.0[place].clone();
        let entry: AuditEntry = serde_json::from_str(&old.text).expect("it is an entry");
        let entry = AuditEntry { resource: "elsewhere".to_owned(), ..entry };
        log.0[place] =
            StoredEntry { record: old.record, ..StoredEntry::new(&entry, &old.previous).expect("it is written") };
        if let Some(row) = &mut log.0[place].record {
            row.resource = "elsewhere".to_owned();
            row.document = row.document.replace("shop/sales", "elsewhere");
        }
        rewrite(&mut log, place);
        log
    };
    assert_eq!(forge(2).flaws(), [6, 10]);
    assert_eq!(forge(7).flaws(), [10]);
    assert!(forge(10).flaws().is_empty(), "nothing has signed the last entry yet");
    // Whoever signs as well needs the key.
    let mut log = forge(7);
    log.0.truncate(9);
    log.sign(&Secret("theirs"));
    assert_eq!(log.flaws(), [10]);
    assert_eq!(log.verify_against(None).uncovered, 4);
}

#[test]
fn a_checkpoint_elsewhere_shows_that_the_end_is_missing() {
    let mut log = log();
    let kept = log.sign(&KEY);
    let text = kept.to_text().expect("it is written");
    let kept = Checkpoint::parse(&text).expect("it is read");
    log.decide(9);
    assert!(log.verify_against(Some(&kept)).is_sound());
    log.0.truncate(6);
    assert!(log.verify_against(None).is_sound(), "it cannot be seen from within");
    let found = log.verify_against(Some(&kept));
    assert_eq!(found.flaws[0].sequence, Some(7));
    assert!(found.flaws[0].what.contains("entries 7 to 11 are missing"), "{:?}", found.flaws);
    // Written anew up to the same length.
    (20..26).for_each(|number| log.decide(number));
    assert_eq!(log.verify_against(Some(&kept)).flaws[0].sequence, Some(11));
    for (was, is) in [(":\"mesh\"", ":\"mash\""), ("\"sequence\":11", "\"sequence\":3"), ("ours", "mine")] {
        let forged = Checkpoint::parse(&text.replace(was, is)).expect("it can be read");
        assert!(forged.check(&KEY).is_err(), "{was}");
        let found = log.verify_against(Some(&forged));
        assert!(found.flaws.iter().any(|flaw| flaw.what.contains("not to be trusted")), "{was}");
    }
    for text in
        ["", "{}", "[]", &text.replace("datamesh-checkpoint", "x"), &text.replace("\"format\":1", "\"format\":2")]
    {
        assert!(Checkpoint::parse(text).is_err(), "{text}");
    }
}

#[test]
fn the_end_is_where_the_log_says() {
    let log = log();
    let mut verification = Verification::new("mesh", &KEY, None);
    log.0[..10].iter().for_each(|entry| verification.push(entry));
    let last = &log.0[10];
    let found = verification.finish(Some((last.sequence, last.hash.clone())));
    assert_eq!(found.flaw_count, 1);
}

#[test]
fn decisions_from_before_the_chain_are_committed_to() {
    let old = |number: u64| StoredDecision { number, principal: "user:a".to_owned(), ..StoredDecision::default() };
    let mut legacy = Legacy::default();
    (3..6).for_each(|number| legacy.push(&old(number)));
    let mut log = Log::default();
    log.push(legacy.entry(at(0), "mesh"));
    let verify = |decisions: &[StoredDecision]| {
        let mut verification = Verification::new("mesh", &KEY, None);
        decisions.iter().for_each(|decision| verification.legacy(decision));
        verification.push(&log.0[0]);
        verification.finish(Some((1, log.0[0].hash.clone())))
    };
    let sound = verify(&[old(3), old(4), old(5)]);
    assert_eq!((sound.is_sound(), sound.legacy), (true, 3));
    let changed = StoredDecision { outcome: "x".to_owned(), ..old(4) };
    let moved = StoredDecision { principal: "user:".to_owned(), action: "a".to_owned(), ..old(4) };
    for decisions in [vec![old(3), old(5)], vec![old(3), changed, old(5)], vec![old(3), moved, old(5)], vec![]] {
        assert_eq!(verify(&decisions).flaws[0].sequence, Some(1));
    }
}

#[test]
fn a_decision_says_what_its_context_says() {
    let context =
        json!({"door": "flight", "purpose": "billing", "impersonatedBy": "user:owner", "statement": "SELECT 1"});
    let principal = Principal { id: "user:anna".to_owned() };
    let entry = AuditEntry::of_decision(&decide(at(0), &principal, Action::Read, "a/b", context), 7);
    assert_eq!(
        (entry.door.as_deref(), entry.purpose.as_deref(), entry.impersonated_by.as_deref(), entry.decision),
        (Some("flight"), Some("billing"), Some("user:owner"), Some(7))
    );
    assert_eq!(entry.details, json!({"statement": "SELECT 1"}));
    // What is no text stays where it was.
    let entry = AuditEntry::of_decision(&decide(at(0), &principal, Action::Read, "a/b", json!({"door": 1})), 7);
    assert_eq!((entry.door, entry.details), (None, json!({"door": 1})));
}
