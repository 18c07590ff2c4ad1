//! Meshes in temporary folders, and the real binary run on them.
//!
//! `TestMesh::command` gives a plain `std::process::Command`, so that a test adds what it needs (environment, standard
//! input, a user) with the standard library's words, then `finish`es it or `start`s it in the background.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::postgres::{Postgres, postgres};
use crate::servers::{BUCKET, S3, s3};

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_datamesh");

/// Pause between two looks at something awaited.
const POLL: Duration = Duration::from_millis(2);

thread_local! {
    static ON_OBJECT_STORE: Cell<bool> = const { Cell::new(false) };
    static ON_POSTGRES: Cell<bool> = const { Cell::new(false) };
}

/// Where meshes with their registry in PostgreSQL look its URL up.
const REGISTRY_VARIABLE: &str = "DATAMESH_TEST_REGISTRY";

/// Runs a test whose meshes keep their registry in PostgreSQL.
pub(crate) fn on_postgres(test: impl FnOnce()) {
    if postgres().is_none() {
        return;
    }
    ON_POSTGRES.set(true);
    test();
    ON_POSTGRES.set(false);
}

/// Runs a test whose meshes keep their tables on an S3 server.
pub(crate) fn on_object_store(test: impl FnOnce()) {
    if s3().is_none() {
        return;
    }
    ON_OBJECT_STORE.set(true);
    test();
    ON_OBJECT_STORE.set(false);
}

/// A mesh directory that is deleted when the test ends.
pub(crate) struct TestMesh {
    root: PathBuf,
    /// The S3 server that has the warehouse, and the warehouse's URL; `None` where it is a folder of the mesh.
    store: Option<(&'static S3, String)>,
    /// The server that has the registry, and the registry's URL; `None` where it is a file of the mesh.
    database: Option<(&'static Postgres, String)>,
    /// Keeps the temporary folder; `None` where the test owns the folder.
    _folder: Option<TempDir>,
    /// Whether manifests that are written over are given a greater version, and applied before the next publish.
    keeps_up: AtomicBool,
    /// Whether a manifest was written since the last apply.
    outdated: AtomicBool,
}

impl TestMesh {
    /// An empty mesh in a temporary folder.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut mesh = Self::at(&folder.path().join("mesh"));
        mesh._folder = Some(folder);
        mesh
    }

    /// An empty mesh in a folder that the test looks after.
    pub(crate) fn at(root: &Path) -> Self {
        fs::create_dir_all(root).unwrap();
        let root = root.canonicalize().unwrap();
        let server = if ON_OBJECT_STORE.get() { s3() } else { None };
        let store = server.map(|server| {
            // A temporary folder's name is unique, and so is the prefix.
            let prefix = root.to_str().unwrap().trim_matches('/').replace('/', "-");
            (server, format!("s3://{BUCKET}/{prefix}/warehouse"))
        });
        let warehouse = store.as_ref().map_or_else(String::new, |(_, url)| format!("warehouse: {url}\n"));
        let server = if ON_POSTGRES.get() { postgres() } else { None };
        let database = server.map(|server| (server, server.url()));
        let registry =
            database.as_ref().map_or_else(String::new, |_| format!("registry: ${{env:{REGISTRY_VARIABLE}}}\n"));
        let (keeps_up, outdated) = (AtomicBool::new(true), AtomicBool::new(false));
        let mesh = Self { root, store, database, _folder: None, keeps_up, outdated };
        mesh.write("mesh.yaml", format!("name: test\nowner: test-team\n{warehouse}{registry}"));
        mesh
    }

    /// Adds `domains/<domain>/products/<product>/product.yaml`, where `id` is `domain/product`.
    pub(crate) fn with_product(self, id: &str, manifest: &str) -> Self {
        let folder = product_folder(id);
        self.write(&format!("{folder}/product.yaml"), manifest);
        self
    }

    /// Adds a data file beside a product's manifest.
    pub(crate) fn with_data(self, id: &str, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        self.write(&format!("{}/{name}", product_folder(id)), bytes);
        self
    }

    /// The URL of its registry, where that is in PostgreSQL.
    pub(crate) fn registry_url(&self) -> Option<&str> {
        self.database.as_ref().map(|(_, url)| url.as_str())
    }

    /// The mesh directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A path below the mesh directory.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// Writes a file below the mesh directory, with its folders, and returns its path.
    pub(crate) fn write(&self, relative: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut bytes = bytes.as_ref().to_vec();
        let is_contract = relative.ends_with("product.yaml") || relative.ends_with(".sql");
        if is_contract && self.keeps_up.load(Ordering::Relaxed) && self.is_used() {
            self.outdated.store(true, Ordering::Relaxed);
            let before = fs::read_to_string(&path).ok();
            if let (Some(before), Ok(text)) = (before, std::str::from_utf8(&bytes)) {
                bytes = bumped(&before, text).into_bytes();
            }
        }
        let manifest = path.with_file_name("product.yaml");
        if self.outdated.load(Ordering::Relaxed) && relative.ends_with(".sql") && path.exists() {
            // Another query is another version of the product.
            let text = fs::read_to_string(&manifest).unwrap();
            fs::write(&manifest, bumped(&text, &format!("{text}\n"))).unwrap();
        }
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Whether a command may have made a registry.
    fn is_used(&self) -> bool {
        self.database.is_some() || self.path(".datamesh").exists()
    }

    /// From here on the test says itself when it applies, and which versions its manifests have.
    pub(crate) fn by_hand(self) -> Self {
        self.keeps_up.store(false, Ordering::Relaxed);
        self
    }

    /// Applies manifests that were written since the last publish, as whoever changes one does.
    fn keep_up(&self, arguments: &[&str]) {
        let publishes = match arguments {
            ["publish" | "run", ..] => true,
            ["quarantine", rest @ ..] => rest.first() == Some(&"retry"),
            _ => false,
        };
        if publishes && self.outdated.swap(false, Ordering::Relaxed) {
            let mut command = self.wrapped(BINARY, &["apply", "--acknowledge", "--allow-retire"]);
            command.stdout(Stdio::null());
            let _ = command.status();
        }
    }

    /// Every file below a folder of the mesh with its size, by path relative to the mesh.
    pub(crate) fn files(&self, relative: &str) -> BTreeMap<String, u64> {
        files(&self.root, &self.path(relative))
    }

    /// The binary with these arguments, in the mesh directory, deaf to the environment of whoever runs the tests.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.keep_up(arguments);
        let mut command = self.wrapped(BINARY, &[]);
        command.args(arguments);
        command
    }

    /// Another program with these arguments, in the same circumstances: `strace`, `sh`, a copy of the binary.
    pub(crate) fn wrapped(&self, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.root).stdin(Stdio::null());
        for name in [
            "DATAMESH_HOME",
            "DATAMESH_FAULT",
            "DATAMESH_MEMORY",
            "DATAMESH_WAREHOUSE",
            "DATAMESH_REGISTRY",
            "NO_COLOR",
        ] {
            command.env_remove(name);
        }
        let foreign = std::env::vars_os().map(|(name, _)| name);
        for name in foreign.filter(|name| name.to_str().is_some_and(|name| name.starts_with("AWS_"))) {
            command.env_remove(name);
        }
        if let Some((server, _)) = &self.store {
            command.envs(server.environment());
        }
        if let Some((_, url)) = &self.database {
            command.env(REGISTRY_VARIABLE, url);
        }
        command
    }

    /// Runs the binary to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome {
        finish(self.command(arguments))
    }

    /// Runs the binary to its end with these bytes as standard input.
    pub(crate) fn run_with_input(&self, arguments: &[&str], input: impl AsRef<[u8]>) -> Outcome {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped());
        let mut running = start(command);
        // A reader that ends early closes the pipe: what it did with that is the test's business.
        let _ = running.input().write_all(input.as_ref());
        running.close_input();
        running.wait()
    }

    /// The answer to a query, as JSON rows.
    pub(crate) fn query(&self, sql: &str) -> Vec<Value> {
        let outcome = self.run(&["query", "--format", "json", sql]).expect_code(0);
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome}"))
    }

    /// The single number that a query answers.
    pub(crate) fn number(&self, sql: &str) -> i64 {
        let rows = self.query(sql);
        let value = rows.first().and_then(Value::as_object).and_then(|row| row.values().next()).and_then(Value::as_i64);
        value.unwrap_or_else(|| panic!("`{sql}` answers {rows:?}, which is no number"))
    }

    /// How many rows a published table has.
    pub(crate) fn count(&self, table: &str) -> i64 {
        self.number(&format!("SELECT count(*) AS n FROM {table}"))
    }

    /// The recorded attempts of a product, newest first; none where it was never published.
    pub(crate) fn publications(&self, product: &str) -> Vec<Value> {
        let outcome = self.run(&["publications", product, "--limit", "1000", "--format", "json"]).expect_code(0);
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome}"))
    }

    /// Runs SQL on the registry's database, with Python's sqlite3 or psql, and returns the rows. For what no command shows.
    pub(crate) fn registry(&self, sql: &str) -> Vec<Vec<Value>> {
        if let Some((server, url)) = &self.database {
            if !sql.starts_with("SELECT") {
                server.sql(url, sql);
                return Vec::new();
            }
            let rows = format!(
                "SELECT coalesce(json_agg((SELECT json_agg(value) FROM json_each(row_to_json(q)))), '[]') FROM ({sql}) q"
            );
            return serde_json::from_str(&server.sql(url, &rows).join("\n")).unwrap();
        }
        const SCRIPT: &str = "import json, sqlite3, sys\n\
            connection = sqlite3.connect(sys.argv[1], timeout=60)\n\
            rows = connection.execute(sys.argv[2]).fetchall()\n\
            connection.commit()\n\
            print(json.dumps(rows))\n";
        let database = self.path(".datamesh/registry.db");
        let mut command = Command::new("python3");
        command.args(["-c", SCRIPT]).arg(database).arg(sql);
        let outcome = finish(command).expect_code(0);
        serde_json::from_str(&outcome.stdout).unwrap()
    }

    /// Every file below the warehouse with its size, by path relative to the mesh; on an object store as if the warehouse
    /// were a folder of the mesh.
    pub(crate) fn warehouse(&self) -> BTreeMap<String, u64> {
        match &self.store {
            None => files(&self.root, &self.path("warehouse")),
            Some((server, url)) => {
                server.files(url).into_iter().map(|(path, bytes)| (format!("warehouse/{path}"), bytes)).collect()
            }
        }
    }
}

/// The version that a manifest's text has.
fn version(text: &str) -> Option<semver::Version> {
    text.lines().find_map(|line| line.trim().strip_prefix("version: ")?.trim().parse().ok())
}

/// The text with a minor version after that of the text before, unless it has a later one itself.
fn bumped(before: &str, text: &str) -> String {
    match (version(before), version(text)) {
        (Some(old), Some(new)) if new <= old && new.major == old.major && before != text => {
            let next = format!("version: {}.{}.0", old.major, old.minor + 1);
            text.replacen(&format!("version: {new}"), &next, 1)
        }
        _ => text.to_owned(),
    }
}

fn product_folder(id: &str) -> String {
    let (domain, product) = id.split_once('/').expect("an id is domain/product");
    format!("domains/{domain}/products/{product}")
}

fn files(root: &Path, folder: &Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(root, &path));
        } else if let Ok(metadata) = path.metadata() {
            // A running publisher may delete a file between the two looks.
            found.insert(path.strip_prefix(root).unwrap().display().to_string(), metadata.len());
        }
    }
    found
}

/// How a process ended and what it said.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// The exit code, where it was not a signal that ended the process.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended the process.
    pub(crate) fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// Fails the test, with everything the process said, unless it ended with this exit code.
    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code(), Some(code), "{self}");
        self
    }

    /// Standard output as a JSON document.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self}"))
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n--- stdout\n{}\n--- stderr\n{}", self.status, self.stdout, self.stderr)
    }
}

/// Runs a command to its end.
#[track_caller]
pub(crate) fn finish(mut command: Command) -> Outcome {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    outcome(output)
}

fn outcome(output: std::process::Output) -> Outcome {
    Outcome {
        status: output.status,
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Starts a command in the background. Its standard input stays as the caller set it.
#[track_caller]
pub(crate) fn start(mut command: Command) -> Running {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Running { child: Some(child) }
}

/// A process in the background; killed when the test drops it unwaited.
pub(crate) struct Running {
    child: Option<Child>,
}

impl Running {
    fn child(&mut self) -> &mut Child {
        self.child.as_mut().expect("a process is waited for once")
    }

    /// The process's id.
    pub(crate) fn id(&mut self) -> u32 {
        self.child().id()
    }

    /// Its standard input, which the caller piped.
    pub(crate) fn input(&mut self) -> &mut std::process::ChildStdin {
        self.child().stdin.as_mut().expect("standard input is a pipe")
    }

    /// Ends its standard input.
    pub(crate) fn close_input(&mut self) {
        drop(self.child().stdin.take());
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child().try_wait().unwrap().is_none()
    }

    /// Waits until `condition` holds; fails the test where the process ends before.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, mut condition: impl FnMut() -> bool) {
        while !condition() {
            if !self.is_running() {
                let child = self.child.take().expect("a process is waited for once");
                panic!("it ended before {what}: {}", outcome(child.wait_with_output().unwrap()));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Kills it by SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child().kill().unwrap();
    }

    /// Waits for its end and leaves its standard input open.
    pub(crate) fn wait_with_open_input(mut self) -> Outcome {
        while self.is_running() {
            std::thread::sleep(POLL);
        }
        self.wait()
    }

    /// Waits for its end; standard input is closed first.
    pub(crate) fn wait(mut self) -> Outcome {
        let child = self.child.take().expect("a process is waited for once");
        outcome(child.wait_with_output().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
