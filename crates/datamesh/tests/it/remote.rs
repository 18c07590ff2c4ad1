//! Sources in object stores and on web servers, and what is said when they cannot be read.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;

use crate::servers::{BUCKET, Web, s3};
use crate::support::{Outcome, TestMesh, finish};

const ID: &str = "sales/orders";
const ROWS: i64 = 5000;

fn mesh(source: Option<&str>) -> TestMesh {
    let source = source.map_or_else(String::new, |source| format!("      source: {source}\n"));
    TestMesh::new().with_product(
        ID,
        &format!(
            "dataProduct:\n  name: orders\n  version: 1.0.0\n  owner: sales\n  schema:\n    - name: orders\n{source}      \
             columns: [{{name: id, type: long, primaryKey: true}}, {{name: name, type: string}}]\n"
        ),
    )
}

fn name(id: i64) -> String {
    format!("name {}", id.wrapping_mul(0x9e37_79b9))
}

fn csv() -> Vec<u8> {
    let rows = (1..=ROWS).map(|id| format!("{id},{}\n", name(id)));
    std::iter::once("id,name\n".to_owned()).chain(rows).collect::<String>().into_bytes()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn ndjson() -> Vec<u8> {
    let rows = (1..=ROWS).map(|id| format!("{{\"id\":{id},\"name\":\"{}\"}}\n", name(id)));
    rows.collect::<String>().into_bytes()
}

fn json_array() -> Vec<u8> {
    let lines = String::from_utf8(ndjson()).unwrap();
    format!("[{}]", lines.trim_end().replace('\n', ",\n")).into_bytes()
}

fn batch() -> RecordBatch {
    let ids: ArrayRef = Arc::new((1..=ROWS).collect::<Int64Array>());
    let names: ArrayRef = Arc::new((1..=ROWS).map(|id| Some(name(id))).collect::<StringArray>());
    RecordBatch::try_from_iter([("id", ids), ("name", names)]).unwrap()
}

fn ipc() -> Vec<u8> {
    let batch = batch();
    let mut writer = arrow::ipc::writer::FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

fn avro() -> Vec<u8> {
    let batch = batch();
    let mut writer = arrow_avro::writer::AvroWriter::new(Vec::new(), batch.schema().as_ref().clone()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    writer.into_inner()
}

fn parquet() -> Vec<u8> {
    let batch = batch();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

/// Publishes with access to the S3 server, where there is one.
fn publish(mesh: &TestMesh, inputs: &[&str], environment: &[(&str, &str)]) -> Outcome {
    let mut command = mesh.command(&["publish", ID, "--format", "json"]);
    command.args(inputs);
    if let Some(server) = s3() {
        command.envs(server.environment());
    }
    command.env("DATAMESH_TIMEOUT", "2").envs(environment.iter().copied());
    finish(command)
}

/// Publishes these sources as one table and checks that each row came once, and how many bytes were read for them.
#[track_caller]
fn check(sources: &[&str], bytes: Option<usize>) {
    let mesh = mesh(None);
    let inputs: Vec<String> = sources.iter().map(|source| format!("orders={source}")).collect();
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let report = publish(&mesh, &inputs, &[]).expect_code(0).json();
    assert_eq!(report["tables"][0]["published"], ROWS, "{report:#}");
    if let Some(bytes) = bytes {
        assert_eq!(report["tables"][0]["bytesRead"], bytes, "{report:#}");
    }
    let rows = mesh.query("SELECT count(*) AS n, sum(id) AS total, max(name) AS last FROM sales.orders.orders");
    let last = (1..=ROWS).map(name).max().unwrap();
    assert_eq!(rows, [serde_json::json!({ "n": ROWS, "total": ROWS * (ROWS + 1) / 2, "last": last })]);
}

#[test]
fn every_format_is_read_from_an_object_store() {
    let Some(server) = s3() else { return };
    let prefix = uuid();
    for (name, bytes) in
        [("a.csv", csv()), ("a.csv.gz", gzip(&csv())), ("a.ndjson", ndjson()), ("a b=1/Ünï.ndjson.gz", gzip(&ndjson()))]
    {
        check(&[&server.put(&format!("{prefix}/{name}"), &bytes)], Some(bytes.len()));
    }
    check(&[&server.put(&format!("{prefix}/a.parquet"), parquet())], None);
    check(&[&server.put(&format!("{prefix}/a.arrow"), ipc())], None);
    check(&[&server.put(&format!("{prefix}/a.avro"), avro())], None);
    check(&[&server.put(&format!("{prefix}/a.json"), json_array())], Some(json_array().len()));
}

/// A prefix that no other test uses.
fn uuid() -> String {
    let folder = tempfile::tempdir().unwrap();
    folder.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.').to_owned()
}

#[test]
fn prefixes_and_patterns_name_several_files() {
    let Some(server) = s3() else { return };
    let prefix = format!("s3://{BUCKET}/{}", uuid());
    let header = "id,name\n";
    let part = |rows: std::ops::RangeInclusive<i64>| {
        header.to_owned() + &rows.map(|id| format!("{id},{}\n", name(id))).collect::<String>()
    };
    let key = |name: &str| format!("{}/{name}", prefix.rsplit('/').next().unwrap());
    let mut bytes = 0;
    for (name, text) in [("in/1.csv", part(1..=2000)), ("in/deep/2.csv", part(2001..=ROWS))] {
        bytes += text.len();
        server.put(&key(name), text);
    }
    for name in ["in/_temporary/3.csv", "in/.hidden.csv", "in/notes.txt", "in-other/4.csv"] {
        server.put(&key(name), part(1..=10));
    }
    check(&[&format!("{prefix}/in/")], Some(bytes));
    check(&[&format!("{prefix}/in")], Some(bytes));
    check(&[&format!("{prefix}/in/[0-9].csv"), &format!("{prefix}/in/d*/*.csv")], Some(bytes));
    check(&[&format!("{prefix}/in/**/[12].csv"), &format!("{prefix}/in/1.csv")], Some(bytes));
}

#[test]
fn files_of_web_servers_are_read() {
    let files = [("a.csv", csv()), ("a.csv.gz", gzip(&csv())), ("a%20b.ndjson", ndjson()), ("a.json", json_array())];
    for (name, bytes) in files {
        let web = Web::serving(bytes.clone());
        check(&[&web.url(name)], Some(bytes.len()));
        assert_eq!(web.requests().len(), 1, "one request serves one pass: {:?}", web.requests());
    }
    for (name, bytes) in [("a.arrow", ipc()), ("a.avro", avro())] {
        check(&[&Web::serving(bytes).url(name)], None);
    }
    let web = Web::serving(parquet());
    check(&[&web.url("a.parquet")], None);
    assert!(web.requests().iter().any(|head| head.to_lowercase().contains("range: bytes=")), "{:?}", web.requests());
}

/// What has no contract yet is looked at where it lies, and the draft names that place.
#[test]
fn remote_files_are_profiled_and_drafted() {
    let stored = s3().map(|server| server.put(&format!("{}/orders.csv", uuid()), csv()));
    let web = Web::serving(csv());
    for address in std::iter::once(web.url("orders.csv")).chain(stored) {
        let mesh = mesh(None);
        let run = |arguments: &[&str]| {
            let mut command = mesh.command(arguments);
            if let Some(server) = s3() {
                command.envs(server.environment());
            }
            finish(command).expect_code(0)
        };
        let profile = run(&["profile", &address, "--format", "json"]).json();
        assert_eq!(profile["rows"], ROWS, "{profile:#}");
        let draft = run(&["new", "sales/drafted", "--from", &address, "--name", "orders", "--print"]).stdout;
        assert!(draft.contains(&address) && draft.contains("primaryKey: true"), "{draft}");
    }
}

#[test]
fn a_manifest_names_remote_sources() {
    let web = Web::serving(csv());
    let mesh = mesh(Some(&web.url("orders.csv")));
    publish(&mesh, &[], &[]).expect_code(0);
    assert_eq!(mesh.count("sales.orders.orders"), ROWS);
}

/// A signature in a query reaches the server, and nobody else.
#[test]
fn what_a_query_signs_is_not_shown() {
    let web = Web::serving("id,name\n1,a\nx,b\n");
    let mesh = mesh(None);
    let source = format!("orders={}", web.url("a.csv?signature=sesame"));
    let outcome = publish(&mesh, &[&source], &[]);
    assert!(web.requests()[0].contains("?signature=sesame"), "{:?}", web.requests());
    let shown = mesh.run(&["quarantine", ID, "--format", "json"]);
    for text in [&outcome.stdout, &outcome.stderr, &shown.stdout, &shown.stderr] {
        assert!(!text.contains("sesame"), "{text}");
    }
    assert!(shown.stdout.contains("/a.csv?…"), "{}", shown.stdout);
    let stored = mesh.registry("SELECT report FROM publications");
    assert!(!format!("{stored:?}").contains("sesame"), "{stored:?}");
}

/// An error that says what is wrong with which file and how to mend it, and commits nothing.
#[track_caller]
fn check_unreadable(source: &str, environment: &[(&str, &str)], code: i32, says: &[&str]) -> Outcome {
    let mesh = mesh(None);
    let outcome = publish(&mesh, &[&format!("orders={source}")], environment).expect_code(code);
    for text in says.iter().chain(&["help: "]) {
        assert!(outcome.stderr.contains(text), "no `{text}` in: {outcome}");
    }
    assert!(!outcome.stderr.contains("panicked"), "{outcome}");
    assert_eq!(mesh.publications(ID).len(), 0, "{outcome}");
    outcome
}

#[test]
fn an_object_store_that_cannot_be_read_is_explained() {
    let Some(server) = s3() else { return };
    check_unreadable("s3://no-such-bucket/a.csv", &[], 7, &["s3://no-such-bucket/a.csv", "no such bucket"]);
    check_unreadable("s3://no-such-bucket/in/*.csv", &[], 7, &["no such bucket"]);
    check_unreadable(
        &format!("s3://{BUCKET}/none/a.csv"),
        &[],
        7,
        &["no such file", &format!("s3://{BUCKET}/none/a.csv")],
    );
    check_unreadable(&format!("s3://{BUCKET}/none/*.csv"), &[], 7, &["no such file"]);
    let damaged = server.put(&format!("{}/a.csv.gz", uuid()), &gzip(&csv())[..2000]);
    check_unreadable(&damaged, &[], 7, &["cannot read", "a.csv.gz"]);
    let not_parquet = server.put(&format!("{}/a.parquet", uuid()), csv());
    check_unreadable(&not_parquet, &[], 7, &["cannot read", "a.parquet"]);
    let denied = Web::start(|_, stream| write!(stream, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"));
    let endpoint = denied.url("");
    let environment = [("AWS_ENDPOINT_URL", endpoint.trim_end_matches('/')), ("AWS_SECRET_ACCESS_KEY", "sesame")];
    let outcome = check_unreadable("s3://bucket/a.csv", &environment, 7, &["access is denied", "AWS_ACCESS_KEY_ID"]);
    assert!(!outcome.stderr.contains("sesame") && !outcome.stdout.contains("sesame"), "{outcome}");
    let nobody = [("AWS_ENDPOINT_URL", "http://127.0.0.1:1")];
    check_unreadable("s3://bucket/a.csv", &nobody, 7, &["s3://bucket/a.csv", "AWS_ENDPOINT_URL"]);
}

#[test]
fn a_web_server_that_cannot_be_read_is_explained() {
    let status = |line: &'static str| {
        Web::start(move |_, stream| write!(stream, "HTTP/1.1 {line}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
    };
    let web = status("404 Not Found");
    check_unreadable(&web.url("a.csv?key=sesame"), &[], 7, &["no such file", "a.csv"]);
    check_unreadable(&status("403 Forbidden").url("a.csv"), &[], 7, &["access is denied"]);
    check_unreadable(&status("500 Oops").url("a.csv?key=1"), &[], 7, &["500"]);
    check_unreadable("http://127.0.0.1:1/a.csv", &[], 7, &["127.0.0.1:1"]);
    let plain = Web::serving(csv()).url("a.csv").replace("http://", "https://");
    check_unreadable(&plain, &[], 7, &["https://127.0.0.1"]);

    let cut = Web::start(|_, stream| {
        let text = csv();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", text.len())?;
        stream.write_all(&text[..text.len() / 2])
    });
    check_unreadable(&cut.url("a.csv"), &[], 7, &["broke off"]);
    let silent = Web::start(|_, stream| {
        let text = csv();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", text.len())?;
        stream.write_all(&text[..text.len() / 2])?;
        std::thread::sleep(std::time::Duration::from_secs(600));
        Ok(())
    });
    check_unreadable(&silent.url("a.csv"), &[("DATAMESH_TIMEOUT", "1")], 7, &["silent", "DATAMESH_TIMEOUT"]);
    let endless = Web::start(|_, stream| write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nid,name\n1,a\n"));
    check_unreadable(&endless.url("a.csv"), &[], 7, &["does not tell the file's length"]);
    let whole = Web::start(|head, stream| {
        let bytes = parquet();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len())?;
        if head.starts_with("HEAD") { Ok(()) } else { stream.write_all(&bytes) }
    });
    check_unreadable(&whole.url("a.parquet"), &[], 7, &["does not serve parts"]);
}

#[test]
fn addresses_that_make_no_sense_are_refused() {
    let outcome = check_unreadable("https://me:sesame@example.org/a.csv", &[], 2, &["user or a password"]);
    assert!(!outcome.stderr.contains("sesame"), "{outcome}");
    assert!(outcome.stderr.contains("without a user") && !outcome.stderr.contains("AWS"), "{outcome}");
    check_unreadable("ftp://example.org/a.csv", &[], 2, &["scheme", "s3://"]);
    check_unreadable("s3://", &[], 2, &["names no bucket"]);
    check_unreadable("s3://lake-*/a.csv", &[], 2, &["pattern in its bucket's name"]);
}

/// A server that stumbles is asked again.
#[test]
fn a_server_that_stumbles_is_asked_again() {
    let count = Arc::new(AtomicUsize::new(0));
    let seen = count.clone();
    let web = Web::start(move |_, stream| {
        if seen.fetch_add(1, Ordering::SeqCst) < 2 {
            return write!(stream, "HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        let text = csv();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", text.len())?;
        stream.write_all(&text)
    });
    check(&[&web.url("a.csv")], Some(csv().len()));
    assert_eq!(count.load(Ordering::SeqCst), 3);
}

/// A redirect, absolute or not, leads to another file of a web server, in few steps, and nowhere else.
#[test]
fn redirects_lead_to_web_servers_only() {
    let found = |location: &str, stream: &mut TcpStream| {
        write!(stream, "HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    };
    let to = |location: String| Web::start(move |_, stream| found(&location, stream));
    let target = Web::serving(csv());
    check(&[&to(target.url("deep/b.csv")).url("a.csv")], Some(csv().len()));
    assert!(target.requests()[0].starts_with("GET /deep/b.csv "), "{:?}", target.requests());

    let relative = Web::start(move |head, stream| {
        if head.starts_with("GET /in/a.csv ") {
            return found("../b.csv", stream);
        }
        let text = csv();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", text.len())?;
        stream.write_all(&text)
    });
    check(&[&relative.url("in/a.csv")], Some(csv().len()));
    assert!(relative.requests()[1].starts_with("GET /b.csv "), "{:?}", relative.requests());

    check_unreadable(&to("/a.csv".to_owned()).url("a.csv"), &[], 7, &["too many redirects", "/a.csv"]);
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("a.csv");
    std::fs::write(&local, csv()).unwrap();
    check_unreadable(&to(format!("file://{}", local.display())).url("a.csv"), &[], 7, &["302", "/a.csv"]);
}

/// An answer that says that it has no content is no file without rows, whatever length it tells.
#[test]
fn an_answer_without_content_is_no_file() {
    for length in ["", "Content-Length: 0\r\n"] {
        let web =
            Web::start(move |_, stream| write!(stream, "HTTP/1.1 204 No Content\r\n{length}Connection: close\r\n\r\n"));
        for name in ["a.csv", "a.ndjson"] {
            check_unreadable(&web.url(name), &[], 7, &["without content", name]);
        }
    }
}

/// Each of two sources is served once the other was asked for, so one after the other would wait for ever.
#[test]
fn independent_products_run_side_by_side() {
    if std::thread::available_parallelism().map_or(1, std::num::NonZero::get) < 2 {
        eprintln!("SKIPPED products side by side: this machine has one processor");
        return;
    }
    let asked = (Mutex::new(BTreeSet::new()), Condvar::new());
    let web = Web::start(move |head, stream| {
        let (paths, arrived) = &asked;
        let mut paths = paths.lock().unwrap();
        paths.insert(head.split(' ').nth(1).map(str::to_owned));
        arrived.notify_all();
        drop(arrived.wait_while(paths, |paths| paths.len() < 2).unwrap());
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nid\n1\n")
    });
    let product = |name: &str| {
        format!(
            "dataProduct:\n  name: {name}\n  version: 1.0.0\n  owner: sales\n  schema:\n    - name: rows\n      source: {}\n      \
             columns: [{{name: id, type: long}}]\n",
            web.url(&format!("{name}.csv"))
        )
    };
    let mesh = TestMesh::new().with_product("sales/one", &product("one")).with_product("sales/two", &product("two"));
    mesh.run(&["run", "--all"]).expect_code(0);
    assert_eq!((mesh.count("sales.one.rows"), mesh.count("sales.two.rows")), (1, 1));
    assert_eq!(web.requests().len(), 2, "{:?}", web.requests());
}
