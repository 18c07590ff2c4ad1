//! SQLite's own.

use std::path::Path;

use datamesh_core::ErrorCode;
use datamesh_core::ports::Registry;
use datamesh_registry::{Location, SqlRegistry};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, Executor, SqliteConnection};

use crate::audit::tampering_is_found;
use crate::outbox::a_registry_from_before_begins_with_what_is_current;
use crate::requests::{Key, contract, decision, key, publish};
use crate::suite;

/// What the migrations of released formats are known by: their files must never change.
const RELEASED: [(&str, &str); 6] = [
    (
        "0001_registry",
        "1b71aa910ce13663343968953313b45a5e64d1e152a2d384b52650a2d04711d7adedea0db0b4d6110b59a5cf900f142e",
    ),
    (
        "0002_watermarks",
        "c5901f0891d77d1447e50ce45fd07a5730c288c2dc01c73b2a1e48c600c4b0f674acdb8dcb38283e6423761a1970412b",
    ),
    (
        "0003_rollbacks_and_retries",
        "b5aa8b31aaa6a0090aa8236cd8a534b361dd1bcfbe55631da5143b22d5366e5e5f307d410ac654bf0a261c36f632659e",
    ),
    (
        "0004_publication_inputs",
        "86c8531cb0167e7e822e0f505f3f6efaf4d078ffbd363501b774909f46c1fdf5130ed36ae6cc03c15d2db7359e205f05",
    ),
    (
        "0005_lineage",
        "c0ecaa792301496db8ba73549527f0e1f62c925a7f5ee87e52887cd0d649e148053f30352ec22e4be0d8318fff950faa",
    ),
    (
        "0006_maintenance",
        "8cf755a60ef157b22a2096d88aa7b28cdddf009f98ce485f413a17a0bc2edb8efa9fb9186700c2107534789881db6ec2",
    ),
];

async fn connect(path: &Path) -> SqliteConnection {
    SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path).create_if_missing(true)).await.unwrap()
}

#[test]
fn sqlite_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let number = std::cell::Cell::new(0);
    suite::run(|| {
        number.set(number.get() + 1);
        Location::Sqlite(folder.path().join(format!("made/{}/registry.db", number.get())))
    });
}

#[tokio::test]
async fn a_registry_of_an_older_format_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    let mut old = connect(&path).await;
    old.execute(
        "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL,
         installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL, checksum BLOB NOT NULL,
         execution_time BIGINT NOT NULL)",
    )
    .await
    .unwrap();
    for (version, (name, checksum)) in (1..).zip(RELEASED) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/sqlite").join(format!("{name}.sql"));
        old.execute(std::fs::read_to_string(file).unwrap().as_str()).await.unwrap();
        let description = name[5..].replace('_', " ");
        let insert =
            format!("INSERT INTO _sqlx_migrations VALUES ({version}, '{description}', '', TRUE, x'{checksum}', 1)");
        old.execute(insert.as_str()).await.unwrap();
    }
    old.execute(
        "INSERT INTO decisions VALUES (7, 1, '2026-01-01T00:00:00.000000Z', 'user:a', 'publish', 'r', 'allow', '{}');
         INSERT INTO leases VALUES ('01890a5d-ac96-774b-bcce-b302099a8057', '{\"attempt\":
         \"01890a5d-ac96-774b-bcce-b302099a8057\", \"product\": {\"domain\": \"a\", \"product\": \"b\", \"major\": 1},
         \"tables\": [], \"expiresAt\": \"2026-01-01T00:00:00Z\"}', '2026-01-01T00:00:00.000000Z', 0)",
    )
    .await
    .unwrap();
    old.close().await.unwrap();

    let registry = SqlRegistry::open_sqlite(&path).await.unwrap();
    assert_eq!(registry.leases().await.unwrap().len(), 1);
    assert_eq!(registry.record_decision(&decision()).await.unwrap(), 8);
    assert_eq!(publish(&registry, &key("shop", "sales"), "m1").await, 1);
    // The chain commits to what was decided before there was one.
    let verified = registry.verify_audit(&Key::new(1), None).await.unwrap();
    assert!(verified.is_sound() && verified.legacy == 1, "{verified:?}");
    let mut tampered = connect(&path).await;
    tampered
        .execute(
            "DROP TRIGGER decisions_no_update;
                  DROP TRIGGER decisions_no_delete",
        )
        .await
        .unwrap();
    tampered.execute("UPDATE decisions SET resource = 's' WHERE number = 7").await.unwrap();
    assert_eq!(registry.verify_audit(&Key::new(1), None).await.unwrap().flaws[0].sequence, Some(1));
    let identity = registry.mesh_identity().await.unwrap();
    assert_eq!(SqlRegistry::open_sqlite(&path).await.unwrap().mesh_identity().await.unwrap(), identity);
}

#[tokio::test]
async fn a_registry_of_a_newer_format_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    drop(SqlRegistry::open_sqlite(&path).await.unwrap());
    let mut newer = connect(&path).await;
    newer.execute("INSERT INTO _sqlx_migrations VALUES (9999, 'later', '', TRUE, x'00', 1)").await.unwrap();
    let error = SqlRegistry::open_sqlite(&path).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::RegistryTooNew);
    assert!(error.to_string().contains("has format 9999"), "{error}");
}

#[tokio::test]
async fn decisions_cannot_be_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    let registry = SqlRegistry::open_sqlite(&path).await.unwrap();
    registry.record_decision(&decision()).await.unwrap();
    let mut connection = connect(&path).await;
    for statement in ["UPDATE decisions SET outcome = 'deny'", "DELETE FROM decisions"] {
        let refused = connection.execute(statement).await.unwrap_err().to_string();
        assert!(refused.contains("decisions are never"), "{refused}");
    }
    assert_eq!(registry.record_decision(&decision()).await.unwrap(), 2);
}

#[tokio::test]
async fn what_is_no_registry_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    assert!(!Location::Sqlite(path.clone()).has_registry().await.unwrap());
    std::fs::write(&path, "this is a text and no database, and it is long enough to be seen as none".repeat(20))
        .unwrap();
    let error = SqlRegistry::open_sqlite(&path).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Registry);
    assert!(error.to_string().starts_with("cannot open the registry `"), "{error}");
}

#[tokio::test]
async fn a_large_mesh_has_a_catalog() {
    const PRODUCTS: usize = 10_000;
    const TABLES: usize = 5;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    let registry = SqlRegistry::open_sqlite(&path).await.unwrap();
    publish(&registry, &key("shop", "sales"), "m1").await;
    let contract = serde_json::to_string(&contract(&key("shop", "NAME"), "1.0.0")).unwrap();
    let numbers = |count| format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})");
    let revisions = format!(
        "{} INSERT INTO revisions SELECT 'shop', 'p' || i, 1, 1, '1.0.0', replace('{contract}', 'NAME', 'p' || i),
         '2026-01-01T00:00:00.000000Z', 'user:a' FROM n",
        numbers(PRODUCTS)
    );
    let tables = format!(
        "{} INSERT INTO tables (domain, product, major, table_name, metadata_location, metadata, content, total_rows,
         publication) SELECT 'shop', 'p' || (1 + i % {PRODUCTS}), 1, 't' || i, 'm' || i, '{{}}', 'c', 1, 1 FROM n",
        numbers(PRODUCTS * TABLES)
    );
    let mut connection = connect(&path).await;
    for statement in [revisions, tables] {
        connection.execute(statement.as_str()).await.unwrap();
    }
    let begun = std::time::Instant::now();
    let catalog = registry.catalog().await.unwrap();
    eprintln!("a catalog of {} products is read in {:?}", catalog.len(), begun.elapsed());
    assert_eq!(catalog.len(), PRODUCTS + 1);
    let odd = catalog.iter().find(|product| product.key.product != "sales" && product.tables.len() != TABLES);
    assert_eq!(odd, None);
}

#[test]
fn tampering_is_found_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let registry = runtime.block_on(SqlRegistry::open_sqlite(&path)).unwrap();
    let registry = registry.with_signer(std::sync::Arc::new(Key::new(1)));
    let execute = |text: &str| {
        runtime.block_on(async {
            let mut connection = connect(&path).await;
            connection.execute(text).await.map(|_| ()).map_err(|error| error.to_string())
        })
    };
    let disarm = "DROP TRIGGER audit_no_update; DROP TRIGGER audit_no_delete; DROP TRIGGER audit_no_replace;
                  DROP TRIGGER receipts_no_update; DROP TRIGGER receipts_no_delete; DROP TRIGGER decisions_no_update;
                  DROP TRIGGER decisions_no_delete; DROP TRIGGER governance_no_update; DROP TRIGGER governance_no_delete";
    tampering_is_found(&runtime, &registry, &execute, disarm);
}

#[test]
fn a_registry_from_before_the_outbox_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let execute = |text: &str| {
        runtime.block_on(async {
            let mut connection = connect(&path).await;
            connection.execute(text).await.map(|_| ()).map_err(|error| error.to_string())
        })
    };
    let open = || runtime.block_on(SqlRegistry::open_sqlite(&path)).unwrap();
    a_registry_from_before_begins_with_what_is_current(&runtime, &open, &execute);
}
