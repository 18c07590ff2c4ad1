//! PostgreSQL's own: meshes side by side, roles, refusals, and connections that break.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use datamesh_core::ports::{CommitOutcome, Registry};
use datamesh_core::{Error, ErrorCode};
use datamesh_registry::{Location, PostgresUrl, SqlRegistry};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, Executor, PgConnection};

use crate::access::{approve, ask};
use crate::audit::tampering_is_found;
use crate::outbox::a_registry_from_before_begins_with_what_is_current;
use crate::requests::{Deaf, Key, attempt, decision, key, lease, maintenance, publish, request, table};
use crate::server::{Postgres, SECRET, postgres};
use crate::suite;

fn location(url: &str) -> Location {
    Location::Postgres(PostgresUrl::parse(url).unwrap())
}

async fn open(url: &str) -> Result<SqlRegistry, Error> {
    SqlRegistry::open(&location(url)).await
}

/// What somebody sees of an error, which must not be a secret.
fn words(error: &Error) -> String {
    let told = format!("{error} | {}", error.help().unwrap_or_default());
    assert!(!format!("{told} {error:?}").contains(SECRET), "{error:?}");
    told
}

async fn refusal(url: &str, code: ErrorCode) -> String {
    let error = open(url).await.unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    words(&error)
}

#[test]
fn postgres_conforms() {
    let Some(server) = postgres() else { return };
    suite::run(|| location(&server.url()));
}

type Case = fn(&'static Postgres) -> Pin<Box<dyn Future<Output = ()>>>;

macro_rules! cases {
    ($($name:ident),* $(,)?) => { [$((stringify!($name), (|server| Box::pin($name(server))) as Case)),*] };
}

/// One server serves all of them.
#[test]
fn postgres_of_its_own() {
    let Some(server) = postgres() else { return };
    let cases = cases![
        meshes_lie_side_by_side,
        a_registry_is_made_once,
        decisions_cannot_be_changed,
        a_registry_of_a_newer_format_is_left_alone,
        the_schema_of_another_application_is_left_alone,
        a_role_needs_few_rights,
        what_cannot_be_opened_is_told,
        text_without_null_characters,
        a_broken_connection_is_replaced,
        an_answer_to_commit_that_is_lost_is_looked_up,
    ];
    for (name, case) in cases {
        eprintln!("case {name}");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(case(server));
    }
    assert!(server.is_up());
}

#[test]
fn tampering_is_found_in_postgres() {
    let Some(server) = postgres() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let url = server.url();
    let registry = runtime.block_on(open(&url)).unwrap().with_signer(Arc::new(Key::new(1)));
    let schema = url.split("schema=").nth(1).and_then(|rest| rest.split('&').next()).unwrap();
    let options = PgConnectOptions::from_str(&server.url_with("")).unwrap().options([("search_path", schema)]);
    let execute = |text: &str| {
        runtime.block_on(async {
            let mut connection = PgConnection::connect_with(&options).await.unwrap();
            connection.execute(text).await.map(|_| ()).map_err(|error| error.to_string())
        })
    };
    let refused = execute("TRUNCATE audit CASCADE").unwrap_err();
    assert!(refused.contains("never changed or deleted"), "{refused}");
    let disarm = "ALTER TABLE audit DISABLE TRIGGER USER; ALTER TABLE receipts DISABLE TRIGGER USER;
                  ALTER TABLE decisions DISABLE TRIGGER USER; ALTER TABLE governance DISABLE TRIGGER USER";
    tampering_is_found(&runtime, &registry, &execute, disarm);
}

#[test]
fn a_registry_from_before_the_outbox_in_postgres() {
    let Some(server) = postgres() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let url = server.url();
    let execute = |text: &str| {
        server.sql(&url, text);
        Ok(())
    };
    let registry = || runtime.block_on(open(&url)).unwrap();
    a_registry_from_before_begins_with_what_is_current(&runtime, &registry, &execute);
}

async fn meshes_lie_side_by_side(server: &'static Postgres) {
    let urls = [server.url(), server.url_with("?schema=Größe%20%22a%22"), server.url_with("")];
    let mut identities = Vec::new();
    for url in &urls {
        assert!(!location(url).has_registry().await.unwrap());
        let registry = open(url).await.unwrap();
        assert!(location(url).has_registry().await.unwrap());
        assert_eq!(publish(&registry, &key("shop", "sales"), "m1").await, 1);
        identities.push(registry.mesh_identity().await.unwrap().id);
    }
    identities.sort();
    identities.dedup();
    assert_eq!(identities.len(), 3);
    // Without a name it is the first schema of the role's search path.
    assert_eq!(server.sql("?schema=public", "SELECT count(*) FROM tables"), ["1"]);
    server.sql("?schema=public", "DROP SCHEMA public CASCADE; CREATE SCHEMA public");
}

async fn a_registry_is_made_once(server: &'static Postgres) {
    let url = server.url();
    let opening: Vec<_> = (0..8)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { open(&url).await.unwrap().mesh_identity().await.unwrap().id })
        })
        .collect();
    let mut ids = Vec::new();
    for opening in opening {
        ids.push(opening.await.unwrap());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
}

async fn decisions_cannot_be_changed(server: &'static Postgres) {
    let url = server.url();
    let registry = open(&url).await.unwrap();
    registry.record_decision(&decision()).await.unwrap();
    let schema = url.split("schema=").nth(1).and_then(|rest| rest.split('&').next()).unwrap();
    let options = PgConnectOptions::from_str(&server.url_with("")).unwrap().options([("search_path", schema)]);
    let mut connection = PgConnection::connect_with(&options).await.unwrap();
    for statement in ["UPDATE decisions SET outcome = 'deny'", "DELETE FROM decisions", "TRUNCATE decisions CASCADE"] {
        let refused = connection.execute(statement).await.unwrap_err().to_string();
        assert!(refused.contains("decisions are never changed or deleted"), "{statement}: {refused}");
    }
    assert_eq!(registry.record_decision(&decision()).await.unwrap(), 2);
}

async fn a_registry_of_a_newer_format_is_left_alone(server: &'static Postgres) {
    let url = server.url();
    drop(open(&url).await.unwrap());
    server.sql(&url, "INSERT INTO _sqlx_migrations VALUES (9999, 'later', now(), true, '', 1)");
    let told = refusal(&url, ErrorCode::RegistryTooNew).await;
    assert!(told.contains("has format 9999") && told.ends_with("| use a newer datamesh"), "{told}");
}

async fn the_schema_of_another_application_is_left_alone(server: &'static Postgres) {
    for foreign in [
        "CREATE TABLE _sqlx_migrations (version BIGINT, checksum BYTEA, success BOOLEAN);
         INSERT INTO _sqlx_migrations VALUES (1, '', true)",
        "CREATE TABLE publications (title TEXT)",
    ] {
        let url = server.url();
        let schema = url.split("schema=").nth(1).and_then(|rest| rest.split('&').next()).unwrap().to_owned();
        server.sql(&url, &format!("CREATE SCHEMA {schema}"));
        server.sql(&url, foreign);
        let told = refusal(&url, ErrorCode::Registry).await;
        assert!(told.contains("belongs to another application"), "{told}");
        let tables = format!("SELECT count(*) FROM pg_tables WHERE schemaname = '{schema}'");
        assert_eq!(server.sql(&url, &tables), ["1"]);
    }
}

async fn a_role_needs_few_rights(server: &'static Postgres) {
    server.add_role("worker");
    let url = server.url();
    let schema = url.split("schema=").nth(1).and_then(|rest| rest.split('&').next()).unwrap().to_owned();
    let as_worker = server.url_at(server.port, "worker", &format!("?schema={schema}"));
    // Nobody has made it, and this role may not.
    let told = refusal(&as_worker, ErrorCode::Registry).await;
    assert!(told.contains("permission denied") && told.contains("grant the role USAGE and CREATE"), "{told}");
    drop(open(&url).await.unwrap());
    server.sql(
        &url,
        &format!("GRANT USAGE ON SCHEMA {schema} TO worker; GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO worker"),
    );
    // Reading does for reading, and a refusal says what is missing.
    let registry = open(&as_worker).await.unwrap();
    assert!(registry.catalog().await.unwrap().is_empty());
    let told = words(&registry.record_decision(&decision()).await.unwrap_err());
    assert!(told.contains("permission denied") && told.contains("grant the role SELECT, INSERT"), "{told}");
    server.sql(&url, &format!("GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO worker"));
    assert_eq!(publish(&open(&as_worker).await.unwrap(), &key("shop", "sales"), "m1").await, 1);
}

async fn what_cannot_be_opened_is_told(server: &'static Postgres) {
    let begun = Instant::now();
    let free = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let told = refusal(&server.url_at(free, "datamesh", "?schema=a"), ErrorCode::Registry).await;
    assert!(told.contains(&format!("127.0.0.1:{free}/postgres")) && told.contains("whether the server runs"), "{told}");
    let told = refusal(&server.url_at(server.port, "nobody", ""), ErrorCode::Registry).await;
    assert!(told.contains("password authentication failed") && told.contains("check user and password"), "{told}");
    let told = refusal(&server.url_with("?dbname=nowhere"), ErrorCode::Registry).await;
    assert!(told.contains("\"nowhere\" does not exist") && told.contains("make the database first"), "{told}");
    let told = refusal(&server.url_with("?sslmode=require"), ErrorCode::Registry).await;
    assert!(told.contains("check `sslmode`"), "{told}");
    server.sql("", "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
    let told = refusal(&server.url_with("?dbname=latin"), ErrorCode::Registry).await;
    assert!(told.contains("encoding is LATIN1"), "{told}");
    assert!(begun.elapsed() < Duration::from_secs(25), "a refusal waits for nothing");
}

async fn text_without_null_characters(server: &'static Postgres) {
    let registry = open(&server.url()).await.unwrap();
    let mut request = request(&registry, &key("shop", "sales"), vec![table("orders", None, "m1")]).await.unwrap();
    request.tables[0].content = "private\0text".to_owned();
    let error = registry.commit(&request, &Deaf).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Registry);
    assert!(words(&error).contains("null character") && !words(&error).contains("private"), "{error}");
    assert!(registry.catalog().await.unwrap().is_empty());
}

async fn a_broken_connection_is_replaced(server: &'static Postgres) {
    // Other cases use the same server; this role's connections are those of this one.
    server.add_role("breakable");
    server.sql("", "GRANT CREATE ON DATABASE postgres TO breakable");
    let url = server.url_at(server.port, "breakable", "?schema=breakable");
    let registry = open(&url).await.unwrap();
    publish(&registry, &key("shop", "sales"), "m1").await;
    const END: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                       WHERE usename = 'breakable'";
    assert_ne!(server.sql("", END), ["0"]);
    assert_eq!(publish(&registry, &key("shop", "sales"), "m2").await, 2);
}

/// What a proxy does when a COMMIT comes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// It is delivered, and its answer is not.
    LoseAnswer,
    /// It is not delivered, and both sides hear of it.
    LoseRequest,
    /// It is not delivered, and the server hears of it later.
    LoseRequestAndLinger,
    /// It is delivered, its answer is not, and from then on nobody gets through.
    LoseAnswerAndDie,
    /// Nobody gets through.
    Dead,
}

/// A way to the server that can break.
struct Proxy {
    port: u16,
    fault: Arc<Mutex<Fault>>,
}

impl Proxy {
    fn start(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let fault = Arc::new(Mutex::new(Fault::None));
        let shared = fault.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if *shared.lock().unwrap() == Fault::Dead {
                    continue;
                }
                let server = TcpStream::connect(("127.0.0.1", server)).unwrap();
                let (mut answers, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || {
                    // Either side may go away first.
                    let _ = std::io::copy(&mut answers, &mut to_client);
                    let _ = to_client.shutdown(Shutdown::Both);
                });
                let fault = shared.clone();
                std::thread::spawn(move || forward(client, server, &fault));
            }
        });
        Self { port, fault }
    }

    fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }
}

fn forward(mut client: TcpStream, mut server: TcpStream, fault: &Mutex<Fault>) {
    let mut buffer = [0; 65536];
    while let Ok(length @ 1..) = client.read(&mut buffer) {
        let commits = buffer[..length].windows(7).any(|window| window == b"COMMIT\0");
        let now = *fault.lock().unwrap();
        if now == Fault::Dead {
            break;
        }
        if !commits || now == Fault::None {
            if server.write_all(&buffer[..length]).is_err() {
                break;
            }
            continue;
        }
        *fault.lock().unwrap() = if now == Fault::LoseAnswerAndDie { Fault::Dead } else { Fault::None };
        client.shutdown(Shutdown::Both).unwrap();
        match now {
            Fault::LoseAnswer | Fault::LoseAnswerAndDie => {
                server.write_all(&buffer[..length]).unwrap();
                // The other thread takes the answer and finds nobody to give it to.
                std::thread::sleep(Duration::from_millis(300));
            }
            Fault::LoseRequestAndLinger => std::thread::sleep(Duration::from_secs(1)),
            _ => {}
        }
        break;
    }
    let _ = server.shutdown(Shutdown::Both);
}

async fn an_answer_to_commit_that_is_lost_is_looked_up(server: &'static Postgres) {
    let url = server.url();
    let schema = url.split("schema=").nth(1).and_then(|rest| rest.split('&').next()).unwrap().to_owned();
    let proxy = Proxy::start(server.port);
    let broken =
        open(&server.url_at(proxy.port, "datamesh", &format!("?schema={schema}&sslmode=disable"))).await.unwrap();
    let direct = open(&url).await.unwrap();
    let sales = key("shop", "sales");
    publish(&direct, &sales, "m1").await;

    let mut at = "m1".to_owned();
    for (fault, committed) in [
        (Fault::LoseAnswer, true),
        (Fault::LoseRequest, false),
        (Fault::LoseRequestAndLinger, false),
        (Fault::LoseAnswer, true),
    ] {
        let before = direct.publications(&sales, 100).await.unwrap().len() as u64;
        let next = format!("m{before}-{fault:?}");
        let request = request(&broken, &sales, vec![table("orders", Some(&at), &next)]).await.unwrap();
        proxy.set(fault);
        let outcome = broken.commit(&request, &Deaf).await;
        let now = direct.product_state(&sales).await.unwrap().tables.remove(0).metadata_location;
        if committed {
            assert_eq!(outcome.unwrap(), CommitOutcome::Committed(before + 1), "{fault:?}");
            assert_eq!(now, next);
            at = next;
        } else {
            let told = words(&outcome.unwrap_err());
            assert!(told.contains("nothing was committed") && told.contains("run the same command again"), "{told}");
            assert_eq!(now, at);
        }
    }

    let rejected = request(&broken, &sales, Vec::new()).await.unwrap();
    proxy.set(Fault::LoseAnswer);
    assert_eq!(broken.record_rejection(&rejected).await.unwrap(), 4);

    let lease = lease(&attempt(), &sales, 5);
    direct.open_lease(&lease).await.unwrap();
    proxy.set(Fault::LoseAnswer);
    assert!(broken.commit_maintenance(&maintenance(&lease, &at, "kept", &[])).await.unwrap());
    proxy.set(Fault::LoseRequest);
    let error = broken.commit_maintenance(&maintenance(&lease, "kept", "lost", &[])).await.unwrap_err();
    assert!(words(&error).contains("nothing was committed"), "{error}");
    assert_eq!(direct.product_state(&sales).await.unwrap().tables[0].metadata_location, "kept");

    let offered = key("shop", "offered");
    crate::access::offer(&direct, &offered).await;
    let asking = ask(&offered, "user:alice");
    proxy.set(Fault::LoseAnswer);
    let asked = broken.access(&asking, &crate::access::members).await.unwrap();
    assert_eq!(asked.request.number, 1);
    let approving = approve(1, "user:sam");
    proxy.set(Fault::LoseRequest);
    let error = broken.access(&approving, &crate::access::members).await.unwrap_err();
    assert!(words(&error).contains("nothing was committed"), "{error}");
    assert!(direct.grants(&Default::default()).await.unwrap().is_empty());
    proxy.set(Fault::LoseAnswer);
    let granted = broken.access(&approving, &crate::access::members).await.unwrap();
    assert_eq!(granted.grant.as_ref().map(|grant| grant.number), Some(1));
    assert_eq!(direct.access(&approving, &crate::access::members).await.unwrap(), granted, "it is not done twice");
    assert!(direct.verify_audit(&Key::new(1), None).await.unwrap().is_sound());

    let request = request(&broken, &sales, vec![table("orders", Some("kept"), "unknown")]).await.unwrap();
    proxy.set(Fault::LoseAnswerAndDie);
    let error = broken.commit(&request, &Deaf).await.unwrap_err();
    let told = words(&error);
    assert_eq!(error.code(), ErrorCode::Registry);
    assert!(told.contains(&format!("nobody knows yet whether attempt {} was committed", request.attempt)), "{told}");
    assert!(told.contains("`datamesh publications PRODUCT`"), "{told}");
    // The server was given it when the client heard of the end; it may be at it still.
    let mut newest = direct.publications(&sales, 1).await.unwrap();
    for _ in 0..1000 {
        if newest[0].attempt == request.attempt {
            break;
        }
        newest = direct.publications(&sales, 1).await.unwrap();
    }
    assert_eq!(newest[0].attempt, request.attempt);
}
