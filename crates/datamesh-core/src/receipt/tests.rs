use serde_json::json;
use sha2::{Digest, Sha256};

use super::*;
use crate::contract::WriteMode;
use crate::ids::{AttemptId, ProductKey};
use crate::transform::TransformRun;

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

fn request() -> CommitRequest {
    let product = ProductKey { domain: "shop".to_owned(), product: "sales".to_owned(), major: 1 };
    let pin = InputPin {
        product: product.clone(),
        version: "1.2.3".parse().expect("a version"),
        table: "raw".to_owned(),
        publication: 3,
        snapshot_id: i64::MIN + 1,
        changes: true,
        since: Some(i64::MAX),
    };
    CommitRequest {
        attempt: AttemptId::new(uuid::Uuid::from_u128(1)),
        contract: serde_json::from_value(json!({
            "format": 1, "id": {"domain": "shop", "product": "sales"}, "version": "1.0.0", "owner": "team",
            "tables": [], "declared": {"sla": {"availability": 99.9}},
        }))
        .expect("it is a contract"),
        product,
        expected_revision: 0,
        principal: "user:anna".to_owned(),
        at: DateTime::from_timestamp(1_700_000_000, 0).expect("it is a time"),
        idempotency_key: None,
        decision: 5,
        tables: vec![TableCommit {
            table: "orders".to_owned(),
            write: WriteMode::Append,
            expected: None,
            metadata_location: "file:///m1".to_owned(),
            metadata: "{}".to_owned(),
            snapshot_id: i64::MAX,
            content: "c".to_owned(),
            rows_in: 10,
            published: 8,
            quarantined: 2,
            total_rows: 8,
            watermark: None,
        }],
        quarantine: Vec::new(),
        lineage: Vec::new(),
        transforms: vec![TransformRun { table: "orders".to_owned(), sql_hash: "h".to_owned(), inputs: vec![pin] }],
        report: json!({}),
        rollback_to: None,
        pinned: Vec::new(),
        resolves: Vec::new(),
    }
}

fn facts(status: PublicationStatus) -> CommitFacts {
    CommitFacts {
        mesh: "m".to_owned(),
        publication: 7,
        status,
        policies: 2,
        audit: AuditPlace { sequence: 41, hash: "ab".to_owned() },
    }
}

#[test]
fn a_receipt_says_what_was_published() {
    let text = sign(&request(), facts(PublicationStatus::Published), &KEY).expect("it is written");
    let receipt = verify(&text, &KEY).expect("it is sound");
    assert_eq!((receipt.publication, receipt.policies, receipt.decision, receipt.audit.sequence), (7, 2, 5, 41));
    let table = &receipt.tables[0];
    assert_eq!((table.rows_in, table.published, table.quarantined), (10, 8, 2));
    assert_eq!(table.snapshot, i64::MAX.to_string());
    assert_eq!(table.metadata_hash, canonical::sha256(b"{}"));
    assert_eq!(receipt.inputs[0].snapshot, (i64::MIN + 1).to_string());
    let pretty = serde_json::to_string_pretty(&canonical::parse(&text).expect("JSON")).expect("it is written");
    assert_eq!(verify(&pretty, &KEY), Ok(receipt));
    let rejected = sign(&request(), facts(PublicationStatus::Rejected), &KEY).expect("it is written");
    assert!(verify(&rejected, &KEY).expect("it is sound").tables.is_empty());
}

/// Every place of a document where a value stands.
fn places(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| places(value, &format!("{path}/{key}"), found)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, item)| places(item, &format!("{path}/{at}"), found))
        }
        _ => found.push(path.to_owned()),
    }
}

#[test]
fn every_forgery_is_found() {
    let text = sign(&request(), facts(PublicationStatus::Published), &KEY).expect("it is written");
    let document = canonical::parse(&text).expect("it is JSON");
    let mut all = Vec::new();
    places(&document, "", &mut all);
    assert!(all.len() > 30);
    for path in all {
        let mut forged = document.clone();
        let value = forged.pointer_mut(&path).expect("it is there");
        *value = match &*value {
            Value::Number(number) => json!(number.as_u64().unwrap_or_default() + 1),
            Value::Bool(flag) => json!(!flag),
            Value::String(text) => json!(format!("{text}0")),
            other => panic!("{other}"),
        };
        assert!(verify(&forged.to_string(), &KEY).is_err(), "{path}");
        if let Some((parent, key)) = path.rsplit_once('/')
            && let Some(fields) = forged.pointer_mut(parent).and_then(Value::as_object_mut)
        {
            fields.remove(key);
            assert!(verify(&forged.to_string(), &KEY).is_err(), "without {path}");
        }
    }
    assert_eq!(verify(&text.replacen("\"published\":8", "\"published\":9", 1), &KEY), Err(ReceiptFlaw::Forged));
    assert_eq!(verify(&text, &Secret("theirs")), Err(ReceiptFlaw::UnknownKey("ours".to_owned())));
    let theirs = sign(&request(), facts(PublicationStatus::Published), &Secret("theirs")).expect("it is written");
    assert_eq!(verify(&theirs.replace("\"keyId\":\"theirs\"", "\"keyId\":\"ours\""), &KEY), Err(ReceiptFlaw::Forged));
    assert_eq!(verify(&text.replace("\"format\":1", "\"format\":2"), &KEY), Err(ReceiptFlaw::TooNew(2)));
    let doubled = text.replacen("\"publication\":7", "\"publication\":9,\"publication\":7", 1);
    for bad in ["", "{}", "[1]", &doubled, &text.replacen('{', "{\"more\":1,", 1), &text[..text.len() / 2]] {
        assert!(matches!(verify(bad, &KEY), Err(ReceiptFlaw::Unreadable(_))), "{bad}");
    }
    let mut wrong = request();
    wrong.tables[0].published = 9;
    let text = sign(&wrong, facts(PublicationStatus::Published), &KEY).expect("it is written");
    assert!(matches!(verify(&text, &KEY), Err(ReceiptFlaw::Contradiction(_))));
}
