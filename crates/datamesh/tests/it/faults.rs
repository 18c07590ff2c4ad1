//! What must hold when things go wrong: crashes between any two steps and at random, two publishers at once, full disks,
//! read-only folders, Ctrl-C. Real processes throughout: a test waits for a state, never for a time.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use datamesh_core::ports::PublishStep;
use serde_json::Value;

use crate::support::{BINARY, Outcome, Running, TestMesh, finish, start};

mod trace;

use trace::{Call, FILE_CALLS, calls, can_trace};

const PRODUCT: &str = "shop/sales";
/// The tables of the usual mesh, and where the keys of each begin.
const TABLES: [(&str, i64); 2] = [("orders", 0), ("items", 1_000_000)];
const SIGKILL: i32 = 9;

/// A mesh whose product has these tables, all with the same columns.
fn mesh(tables: &[&str], write: &str, limit: &str, rest: &str) -> TestMesh {
    TestMesh::new().with_product(PRODUCT, &manifest(tables, write, limit, rest))
}

fn manifest(tables: &[&str], write: &str, limit: &str, rest: &str) -> String {
    let mut text = "dataProduct:\n  name: sales\n  version: 1.0.0\n  owner: shop-team\n  schema:\n".to_owned();
    for table in tables {
        text.push_str(&format!(
            "    - name: {table}
      type: table
      write: {write}
      columns:
        - {{name: id, type: int, primaryKey: true}}
        - {{name: amount, type: int, minimum: 0}}
        - {{name: note, type: string}}
      quarantine: {{limit: {limit}}}
{rest}"
        ));
    }
    text
}

fn csv(rows: impl IntoIterator<Item = (i64, i64)>) -> String {
    let rows = rows.into_iter().map(|(id, amount)| format!("{id},{amount},\n"));
    std::iter::once("id,amount,note\n".to_owned()).chain(rows).collect()
}

/// Faultless rows with these keys.
fn rows(ids: RangeInclusive<i64>) -> String {
    csv(ids.map(|id| (id, id)))
}

fn publish(mesh: &TestMesh, inputs: &[String]) -> Command {
    let mut command = mesh.command(&["publish", PRODUCT, "--format", "json"]);
    command.args(inputs);
    command
}

fn fault(mut command: Command, fault: &str) -> Command {
    command.env("DATAMESH_FAULT", fault);
    command
}

/// Publishes these rows as table `orders`.
fn publish_orders(mesh: &TestMesh, name: &str, text: &str) -> Outcome {
    finish(publish(mesh, &orders(mesh, name, text)))
}

/// Writes the rows to a file and names it as the data of table `orders`.
fn orders(mesh: &TestMesh, name: &str, text: &str) -> [String; 1] {
    mesh.write(&format!("data/{name}.csv"), text);
    [format!("orders=data/{name}.csv")]
}

#[track_caller]
fn status(outcome: &Outcome) -> String {
    outcome.json()["status"].as_str().unwrap_or_else(|| panic!("no status: {outcome}")).to_owned()
}

/// The keys that tables serve, in order.
fn served(mesh: &TestMesh, tables: &[&str]) -> Vec<i64> {
    let selects: Vec<_> = tables.iter().map(|table| format!("SELECT id FROM shop.sales.{table}")).collect();
    let rows = mesh.query(&format!("{} ORDER BY id", selects.join(" UNION ALL ")));
    rows.iter().map(|row| row["id"].as_i64().unwrap()).collect()
}

fn leases(mesh: &TestMesh) -> usize {
    mesh.registry("SELECT attempt FROM leases").len()
}

fn expire_leases(mesh: &TestMesh) {
    mesh.registry("UPDATE leases SET expires_at = '2000-01-01T00:00:00.000000Z'");
}

fn maintain(mesh: &TestMesh) -> u64 {
    mesh.run(&["maintain", "--no-compact", "--format", "json"]).expect_code(0).json()["deletedFiles"].as_u64().unwrap()
}

/// Files that an attempt has in the warehouse.
fn files_of(mesh: &TestMesh, attempt: &str) -> Vec<String> {
    mesh.warehouse().into_keys().filter(|path| path.contains(attempt)).collect()
}

/// What a mesh serves and has recorded: equal before and after whatever must change nothing.
fn state(mesh: &TestMesh) -> (Vec<i64>, Vec<Value>) {
    (served(mesh, &["orders"]), mesh.publications(PRODUCT))
}

/// Numbered batches for both tables. Each has every kind of bad row: one out of bounds, a key doubled within the batch,
/// and, but for the first, a key of the batch before, which an append must hold back and a replace must not.
struct Batches {
    mesh: TestMesh,
    append: bool,
    last: i64,
}

impl Batches {
    const SIZE: i64 = 100;

    /// A mesh with nothing published.
    fn new(write: &str) -> Self {
        let names = TABLES.map(|(table, _)| table);
        Self { mesh: mesh(&names, write, "50%", ""), append: write == "append", last: 0 }
    }

    /// A mesh with batch 0 published.
    fn published(write: &str) -> Self {
        let batches = Self::new(write);
        let outcome = finish(batches.publish()).expect_code(0);
        batches.check_report(&outcome.json());
        batches
    }

    fn rows(&self, first: i64) -> Vec<(i64, i64)> {
        let mut rows: Vec<_> = (1..=Self::SIZE).map(|at| (first + at, if at == 5 { -1 } else { at })).collect();
        rows.push((first + 50, 7));
        if self.last > 0 {
            rows.push((first - Self::SIZE + 1, 1));
        }
        rows
    }

    fn good(&self, batch: i64, start: i64) -> Vec<i64> {
        let first = start + batch * Self::SIZE;
        let again = (!self.append && batch > 0).then_some(first - Self::SIZE + 1);
        again.into_iter().chain((1..=Self::SIZE).filter(|at| ![5, 50].contains(at)).map(|at| first + at)).collect()
    }

    /// Writes the last batch, and names it as the tables' data.
    fn inputs(&self) -> [String; 2] {
        TABLES.map(|(table, start)| {
            let text = csv(self.rows(start + self.last * Self::SIZE));
            self.mesh.write(&format!("data/{table}-{}.csv", self.last), text);
            format!("{table}=data/{table}-{}.csv", self.last)
        })
    }

    /// The command that publishes the last batch.
    fn publish(&self) -> Command {
        publish(&self.mesh, &self.inputs())
    }

    /// The keys that must be served once `last` is the newest batch.
    fn expected(&self, last: i64) -> Vec<i64> {
        let batches = if self.append { 0..=last } else { last..=last };
        TABLES.iter().flat_map(|(_, start)| batches.clone().flat_map(move |batch| self.good(batch, *start))).collect()
    }

    fn serves(&self) -> Vec<i64> {
        served(&self.mesh, &TABLES.map(|(table, _)| table))
    }

    /// Every row is accounted for, in both tables.
    fn check_report(&self, report: &Value) {
        let rows_in = self.rows(0).len() as i64;
        let published = self.good(self.last, 0).len() as i64;
        let tables = report["tables"].as_array().unwrap();
        assert_eq!(tables.len(), TABLES.len(), "{report}");
        for table in tables {
            let counts = ["in", "published", "quarantined"].map(|key| table[key].as_i64().unwrap());
            assert_eq!(counts, [rows_in, published, rows_in - published], "{report}");
        }
    }

    /// The newest batch is committed exactly once, and so is every earlier one.
    fn check_committed(&self) {
        let publications = self.mesh.publications(PRODUCT);
        assert_eq!(publications.len() as i64, self.last + 1, "{publications:#?}");
        assert!(publications.iter().all(|publication| publication["status"] == "published"), "{publications:#?}");
        self.check_report(&publications[0]["report"]);
        assert_eq!(self.serves(), self.expected(self.last));
    }

    /// Others are told of what was committed, each table once, and of nothing else.
    fn check_told(&self) {
        let told = "SELECT publication FROM outbox WHERE kind = 'published' ORDER BY sequence";
        let told: Vec<_> = self.mesh.registry(told).into_iter().map(|row| row[0].as_i64().unwrap()).collect();
        let committed = 1..=self.last + 1;
        assert_eq!(told, committed.flat_map(|number| [number; TABLES.len()]).collect::<Vec<_>>());
        check_told(&self.mesh);
    }
}

/// Each pointer has the entry that told where it is, as long as entries are kept.
pub(crate) fn check_told(mesh: &TestMesh) {
    let silent = "SELECT t.table_name FROM tables t WHERE t.sequence > (SELECT outbox_trimmed FROM mesh)
        AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.sequence = t.sequence AND o.table_name = t.table_name
        AND o.metadata_location = t.metadata_location)";
    assert_eq!(mesh.registry(silent), Vec::<Vec<Value>>::new(), "nobody is told");
    let gaps = "SELECT count(*) AS kept, (SELECT outbox_sequence - outbox_trimmed FROM mesh) AS told FROM outbox";
    let counted = &mesh.registry(gaps)[0];
    assert_eq!(counted[0], counted[1], "numbers have no gaps");
}

/// Whether a process that dies at `step` has committed before.
fn is_committed(step: PublishStep) -> bool {
    let at = |wanted| PublishStep::ALL.iter().position(|step| *step == wanted);
    at(step) >= at(PublishStep::Committed)
}

/// Kills a publish at every step, every time the step is reached, and runs the same command again. All on one mesh, so
/// that each attempt also meets what the crashed ones before it left.
fn check_kills(write: &str) {
    let mut batches = Batches::published(write);
    for step in PublishStep::ALL {
        let mut deaths = 0;
        loop {
            batches.last += 1;
            let command = fault(batches.publish(), &format!("kill:{step}:{}", deaths + 1));
            let outcome = finish(command);
            if outcome.signal().is_none() {
                // The step is not reached so often.
                assert_eq!(status(&outcome.expect_code(0)), "published");
                batches.check_committed();
                break;
            }
            assert_eq!(outcome.signal(), Some(SIGKILL), "{outcome}");
            deaths += 1;

            let committed = is_committed(step);
            let serves = batches.expected(if committed { batches.last } else { batches.last - 1 });
            assert_eq!(batches.serves(), serves, "after a crash at `{step}`");
            check_told(&batches.mesh);
            let retry = finish(batches.publish()).expect_code(0);
            assert_eq!(status(&retry), if committed { "repeat" } else { "published" }, "after a crash at `{step}`");
            batches.check_committed();
            batches.check_told();
        }
        let per_table =
            [PublishStep::Staged, PublishStep::Settled, PublishStep::ManifestsWritten, PublishStep::MetadataWritten];
        let least = if per_table.contains(&step) { TABLES.len() } else { 1 };
        assert!(deaths >= least, "`{step}` was reached {deaths} times");
    }

    expire_leases(&batches.mesh);
    assert!(maintain(&batches.mesh) > 0, "the crashes left files");
    assert_eq!(leases(&batches.mesh), 0);
    batches.check_committed();
}

/// A crash between any two steps loses nothing and doubles nothing: appended rows are where a double commit would show.
#[test]
fn an_append_killed_at_any_step_commits_once() {
    check_kills("append");
}

/// As above; a replace must also never serve a mix of two batches, nor one table of each.
#[test]
fn a_replace_killed_at_any_step_commits_once() {
    check_kills("replace");
}

/// Knuth's linear congruential generator: the same "random" numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// Evenly spread over 0 to 1.
    fn share(&mut self) -> f64 {
        self.next() as f64 / (1_u64 << 31) as f64
    }

    /// Text that hardly compresses.
    fn text(&mut self, length: usize) -> String {
        const SYMBOLS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
        (0..length).map(|_| char::from(SYMBOLS[(self.next() % 64) as usize])).collect()
    }
}

/// The enumerated steps are where we expect a crash to hurt; here it comes wherever it comes, in the midst of a write too.
#[test]
fn a_publish_killed_at_random_moments_commits_once() {
    const ROUNDS: usize = 15;
    const ROWS: i64 = 200_000;
    let mesh = mesh(&["orders"], "append", "5%", "");
    // One row in a thousand is out of bounds.
    let batch = |number: i64| csv((1..=ROWS).map(|at| (number * ROWS + at, if at % 1000 == 0 { -1 } else { at })));
    let command = |number: i64| publish(&mesh, &orders(&mesh, &format!("batch-{number}"), &batch(number)));
    let check = |committed: i64| {
        let rows = committed * (ROWS - ROWS / 1000);
        assert_eq!(mesh.count("shop.sales.orders"), rows);
        assert_eq!(mesh.number("SELECT count(DISTINCT id) FROM shop.sales.orders"), rows);
    };

    let first = command(0);
    let begun = Instant::now();
    finish(first).expect_code(0);
    let duration = begun.elapsed();

    let (mut random, mut deaths, mut committed) = (Random(20_240_229), 0, 1);
    for _ in 0..ROUNDS {
        // Later batches take longer, since their keys are looked up among those published.
        let delay = duration.mul_f64(random.share() * 1.5);
        let mut running = start(command(committed));
        let begun = Instant::now();
        while running.is_running() && begun.elapsed() < delay {
            std::thread::sleep(Duration::from_millis(1));
        }
        if running.is_running() {
            running.kill();
        }
        let outcome = running.wait();
        assert!(outcome.signal() == Some(SIGKILL) || outcome.code() == Some(0), "{outcome}");
        deaths += usize::from(outcome.signal().is_some());

        let recorded = mesh.publications(PRODUCT).len() as i64;
        if recorded > committed {
            let again = finish(command(committed)).expect_code(0);
            assert_eq!(status(&again), "repeat");
            committed += 1;
        }
        assert_eq!(mesh.publications(PRODUCT).len() as i64, committed);
        check(committed);
    }
    assert!(deaths > 0, "no round was killed");

    assert_eq!(status(&finish(command(committed)).expect_code(0)), "published");
    check(committed + 1);
    expire_leases(&mesh);
    maintain(&mesh);
    assert!(!mesh.files("").keys().any(|path| path.starts_with(".datamesh/scratch/")), "{:?}", mesh.files(".datamesh"));
    check(committed + 1);
    assert_eq!(mesh.publications(PRODUCT).len() as i64, committed + 1);
}

/// Publishes under `strace` and checks that the commit comes last. The commit is the write to the registry's log that
/// holds `mark`, in which `{attempt}` stands for the attempt.
fn check_order(mesh: &TestMesh, inputs: &[String], code: i32, mark: &str) {
    let before = mesh.warehouse();
    let trace = mesh.path("trace.txt");
    let mut command = mesh.wrapped("strace", &["-f", "-y", "-s", "4194304", "-e", FILE_CALLS, "-o"]);
    command.arg(&trace).args([BINARY, "publish", PRODUCT, "--format", "json"]).args(inputs);
    let outcome = finish(command).expect_code(code);
    let report = outcome.json();
    let attempt = report["attempt"].as_str().unwrap();
    let calls = calls(&String::from_utf8_lossy(&fs::read(&trace).unwrap()));

    let log = mesh.path(".datamesh/registry.db-wal");
    let mark = mark.replace("{attempt}", attempt);
    let commit = calls.iter().find(|call| call.writes() && Path::new(&call.path) == log && call.text.contains(&mark));
    let commit = commit.unwrap_or_else(|| panic!("no write to the registry's log holds `{mark}`"));
    assert!(calls.iter().any(|call| call.syncs(&log) && call.begun > commit.ended), "the commit is not synced");

    let check_synced = |path: &Path, since: usize, what: &str| {
        let synced = calls.iter().any(|call| call.syncs(path) && call.begun > since && call.ended < commit.begun);
        assert!(synced, "`{}` is not synced between {what} and the commit", path.display());
    };
    let warehouse = mesh.path("warehouse");
    let inside: Vec<&Call> = calls.iter().filter(|call| Path::new(&call.path).starts_with(&warehouse)).collect();
    let added: Vec<PathBuf> =
        mesh.warehouse().into_keys().filter(|path| !before.contains_key(path)).map(|path| mesh.path(&path)).collect();
    assert!(!added.is_empty());
    for file in &added {
        let own = inside.iter().filter(|call| Path::new(&call.path) == file.as_path());
        let written = own.clone().filter(|call| call.writes() || call.creates()).map(|call| call.ended).max();
        let created = own.filter(|call| call.creates()).map(|call| call.ended).min();
        let (Some(written), Some(created)) = (written, created) else {
            panic!("`{}` is not in the trace", file.display())
        };
        check_synced(file, written, "its last write");
        check_synced(file.parent().unwrap(), created, "making a file in it");
    }
    for folder in inside.iter().filter(|call| call.name.starts_with("mkdir")) {
        let path = Path::new(&folder.path);
        // A folder that is gone again held nothing that was committed.
        if path.exists() {
            check_synced(path.parent().unwrap(), folder.ended, "making a folder in it");
        }
    }
    for call in inside.iter().filter(|call| call.writes() || call.creates()) {
        assert!(call.ended < commit.begun, "`{}` is written after the commit: {}", call.path, call.name);
    }
}

/// A kill cannot lose what the kernel has, so only the order of system calls shows that a power cut would do no harm.
#[test]
fn everything_is_synced_before_the_commit() {
    if !can_trace() {
        eprintln!("SKIPPED everything_is_synced_before_the_commit: `strace` is not installed or may not trace here");
        return;
    }
    const METADATA: &str = "{attempt}.metadata.json";
    for write in ["append", "replace"] {
        let mut batches = Batches::new(write);
        // The first publication also makes every folder, the second one writes beside published files.
        for last in 0..2 {
            batches.last = last;
            check_order(&batches.mesh, &batches.inputs(), 0, METADATA);
            batches.check_committed();
        }
    }
    let mesh = mesh(&["orders"], "append", "5%", "");
    let inputs = orders(&mesh, "bad", &csv((1..=100).map(|id| (id, -id % 2))));
    check_order(&mesh, &inputs, 3, "quarantine/{attempt}/");
}

/// How many files of each kind a mesh has.
fn shape(mesh: &TestMesh) -> BTreeMap<String, usize> {
    let mut shape = BTreeMap::new();
    for path in mesh.warehouse().keys() {
        let parts: Vec<_> = path.split('/').collect();
        let kind = path.rsplit('.').next().unwrap();
        *shape.entry(format!("{} {kind}", parts[3..5].join("/"))).or_default() += 1;
    }
    shape
}

/// What a crash leaves is reclaimed when the lease has expired: not before, not more, and not less.
#[test]
fn maintain_removes_exactly_what_a_crash_left() {
    let mut twin = Batches::published("append");
    twin.last += 1;
    finish(twin.publish()).expect_code(0);
    for step in PublishStep::ALL {
        let mut batches = Batches::published("append");
        let mesh = &batches.mesh;
        assert_eq!((maintain(mesh), leases(mesh)), (0, 0), "a publish that ends well leaves nothing");
        let before = mesh.warehouse();
        batches.last += 1;
        let killed = finish(fault(batches.publish(), &format!("kill:{step}")));
        assert_eq!(killed.signal(), Some(SIGKILL), "{killed}");

        let mesh = &batches.mesh;
        let (left, serves) = (mesh.warehouse(), batches.serves());
        assert_eq!(maintain(mesh), 0, "the lease of an attempt killed at `{step}` runs");
        assert_eq!(mesh.warehouse(), left);

        expire_leases(mesh);
        let deleted = maintain(mesh);
        assert_eq!(deleted, (left.len() - mesh.warehouse().len()) as u64, "after a crash at `{step}`");
        if is_committed(step) {
            assert_eq!(shape(mesh), shape(&twin.mesh), "after a crash at `{step}`");
        } else {
            assert_eq!(mesh.warehouse(), before, "after a crash at `{step}`");
        }
        if matches!(step, PublishStep::Staged | PublishStep::MetadataWritten | PublishStep::Committed) {
            assert!(deleted > 0, "a crash at `{step}` leaves files");
        }
        assert_eq!(leases(mesh), 0);
        assert_eq!(batches.serves(), serves);
        finish(batches.publish()).expect_code(0);
        batches.check_committed();
    }
}

/// A publisher that waits at a step until it is released.
struct Held {
    running: Running,
    file: PathBuf,
}

impl Held {
    fn at(mesh: &TestMesh, step: PublishStep, inputs: &[String]) -> Self {
        let file = mesh.path("held");
        let mut running = start(fault(publish(mesh, inputs), &format!("hold:{step}:{}", file.display())));
        running.until("it was held", || file.exists());
        Self { running, file }
    }

    fn release(self) -> Outcome {
        fs::remove_file(&self.file).unwrap();
        self.running.wait()
    }
}

/// A lease that runs protects a publisher from `maintain`; one that was taken away must keep it from committing, since
/// its files are gone. Nor may it then leave new files that no lease covers.
#[test]
fn a_publisher_without_its_lease_commits_nothing() {
    for expired in [false, true] {
        let mesh = mesh(&["orders"], "append", "5%", "");
        publish_orders(&mesh, "first", &rows(1..=100)).expect_code(0);
        let before = state(&mesh);
        let held = Held::at(&mesh, PublishStep::Judged, &orders(&mesh, "second", &rows(101..=200)));
        let attempt = mesh.registry("SELECT attempt FROM leases")[0][0].as_str().unwrap().to_owned();
        assert!(!files_of(&mesh, &attempt).is_empty());
        if expired {
            expire_leases(&mesh);
        }
        assert_eq!(maintain(&mesh) > 0, expired);
        let outcome = held.release();
        if !expired {
            outcome.expect_code(0);
            assert_eq!(served(&mesh, &["orders"]), (1..=200).collect::<Vec<_>>());
            continue;
        }
        let error = outcome.expect_code(12).json();
        assert_eq!(error["error"]["code"], "lease-lost");
        assert_eq!(state(&mesh), before);
        assert_eq!(files_of(&mesh, &attempt), Vec::<String>::new(), "files without a lease stay for ever");
        publish_orders(&mesh, "second", &rows(101..=200)).expect_code(0);
        assert_eq!(served(&mesh, &["orders"]), (1..=200).collect::<Vec<_>>());
    }
}

/// What the publisher that lost a race must do.
struct Loser<'a> {
    write: &'a str,
    /// More lines of the table's manifest.
    rest: &'a str,
    /// Its rows; those of the winner are 101 to 200.
    rows: RangeInclusive<i64>,
    code: i32,
    status: &'a str,
    /// Text in the reasons.
    because: &'a str,
    reaudits: Option<u64>,
    quarantined: u64,
    serves: Vec<i64>,
}

/// Two publishers at once: one is held when its verdict is known, the other publishes, then the first goes on. Once with
/// a publication before, once as the first ones ever.
fn check_race(loser: &Loser<'_>) {
    for published in [false, true] {
        let mesh = mesh(&["orders"], loser.write, "5%", loser.rest);
        // Within every limit and no key of either.
        let old = 901..=910;
        if published {
            publish_orders(&mesh, "old", &rows(old.clone())).expect_code(0);
        }
        let held = Held::at(&mesh, PublishStep::Judged, &orders(&mesh, "loser", &rows(loser.rows.clone())));
        let winner = publish_orders(&mesh, "winner", &rows(101..=200)).expect_code(0);
        assert_eq!(status(&winner), "published");
        let outcome = held.release().expect_code(loser.code);
        let report = outcome.json();

        assert_eq!(status(&outcome), loser.status, "{outcome}");
        assert!(report["because"].to_string().contains(loser.because), "{outcome}");
        if loser.reaudits.is_some() {
            assert_eq!(report["reaudits"].as_u64(), loser.reaudits, "{outcome}");
        }
        assert_eq!(report["tables"][0]["quarantined"].as_u64(), Some(loser.quarantined), "{outcome}");
        let mut serves = loser.serves.clone();
        if published && loser.write == "append" {
            serves.extend(old);
        }
        assert_eq!(served(&mesh, &["orders"]), serves);

        let recorded = mesh.publications(PRODUCT);
        let kept = matches!(loser.status, "published" | "rejected");
        assert_eq!(recorded.len(), usize::from(published) + 1 + usize::from(kept), "{recorded:#?}");
        let attempt = report["attempt"].as_str().unwrap();
        let files = files_of(&mesh, attempt);
        if loser.status != "published" {
            assert!(files.iter().all(|path| path.contains("/quarantine/")), "{files:?}");
            assert_eq!(files.is_empty(), loser.quarantined == 0 || !kept, "{files:?}");
        }
        assert_eq!((leases(&mesh), maintain(&mesh)), (0, 0));
    }
}

/// Appends of different rows do not exclude each other: the loser is audited anew and commits.
#[test]
fn racing_appends_of_different_rows_both_commit() {
    check_race(&Loser {
        write: "append",
        rest: "",
        rows: 1..=100,
        code: 0,
        status: "published",
        because: "",
        reaudits: Some(1),
        quarantined: 0,
        serves: (1..=200).collect(),
    });
}

/// The loser's keys were unique when it was audited; the published row stays, and its own is held back.
#[test]
fn a_racing_append_quarantines_the_keys_that_the_winner_took() {
    check_race(&Loser {
        write: "append",
        rest: "",
        rows: 5..=104,
        code: 0,
        status: "published",
        because: "",
        reaudits: Some(1),
        quarantined: 4,
        serves: (5..=200).collect(),
    });
}

/// As above, but with more keys taken than the circuit breaker lets pass.
#[test]
fn a_racing_append_is_rejected_when_the_winner_took_too_many_keys() {
    check_race(&Loser {
        write: "append",
        rest: "",
        rows: 51..=150,
        code: 3,
        status: "rejected",
        because: "more than the limit of 5%",
        reaudits: Some(1),
        quarantined: 50,
        serves: (101..=200).collect(),
    });
}

/// Two schedulers that start the same job: one publication, and no error for the other.
#[test]
fn a_racing_append_of_the_same_content_is_a_repeat() {
    check_race(&Loser {
        write: "append",
        rest: "",
        rows: 101..=200,
        code: 0,
        status: "repeat",
        because: "",
        reaudits: None,
        quarantined: 0,
        serves: (101..=200).collect(),
    });
}

/// A replace would undo what it has not seen, so it reports the conflict.
#[test]
fn a_racing_replace_reports_the_conflict() {
    check_race(&Loser {
        write: "replace",
        rest: "",
        rows: 1..=100,
        code: 5,
        status: "conflict",
        because: "somebody else published",
        reaudits: None,
        quarantined: 0,
        serves: (101..=200).collect(),
    });
}

/// Each append alone keeps the rule, both together break it: the verdict must be on what would be served.
#[test]
fn a_racing_append_is_judged_with_the_winners_rows() {
    check_race(&Loser {
        write: "append",
        rest: "      quality: [rowCount < 150]\n",
        rows: 1..=100,
        code: 3,
        status: "rejected",
        because: "rowCount",
        reaudits: Some(1),
        quarantined: 0,
        serves: (101..=200).collect(),
    });
}

/// Rows that take up more than `bytes` in one Parquet file.
fn bulk(bytes: usize) -> String {
    let mut random = Random(7);
    let rows = (1000..2000).map(|id| format!("{id},{id},{}\n", random.text(bytes / 500)));
    std::iter::once("id,amount,note\n".to_owned()).chain(rows).collect()
}

/// An error that tells what to do, and a mesh as it was before.
fn check_failed(
    mesh: &TestMesh,
    outcome: &Outcome,
    codes: &[i32],
    before: &(Vec<i64>, Vec<Value>),
    files: &BTreeMap<String, u64>,
) {
    assert!(outcome.code().is_some_and(|code| codes.contains(&code)), "{outcome}");
    assert!(outcome.stderr.starts_with("error: ") && outcome.stderr.contains("help: "), "{outcome}");
    assert!(!outcome.stderr.contains("panicked"), "{outcome}");
    assert_eq!(&state(mesh), before, "{outcome}");
    assert_eq!(&mesh.warehouse(), files, "{outcome}");
}

/// Publishes with no file larger than so many blocks of 512 bytes (1024 in some shells), then tidies up without a limit:
/// what could not be deleted or unregistered is covered by the lease.
fn publish_limited(mesh: &TestMesh, blocks: usize, inputs: &[String]) -> Outcome {
    // Closing the last connection empties the registry's log, so that every publish starts alike.
    mesh.registry("PRAGMA wal_checkpoint(TRUNCATE)");
    let mut command = mesh.wrapped("sh", &["-c", "ulimit -f \"$0\" && exec \"$@\"", &blocks.to_string(), BINARY]);
    command.args(["publish", PRODUCT, "--format", "json"]).args(inputs);
    let outcome = finish(command);
    expire_leases(mesh);
    maintain(mesh);
    outcome
}

/// A file-size limit stands for a disk that is full from some point on. It grows until a publish gets through, so that it
/// strikes while the registry opens, in its decision, its lease and its commit; a last one strikes in the data.
#[test]
fn a_file_size_limit_is_an_error_that_commits_nothing() {
    let mesh = mesh(&["orders"], "append", "5%", "");
    publish_orders(&mesh, "first", &rows(1..=100)).expect_code(0);
    let inputs = orders(&mesh, "second", &rows(101..=200));
    let (before, files) = (state(&mesh), mesh.warehouse());
    let mut blocks = 0;
    loop {
        let outcome = publish_limited(&mesh, blocks, &inputs);
        if outcome.code() == Some(0) {
            break;
        }
        check_failed(&mesh, &outcome, &[8, 10], &before, &files);
        blocks += 16;
    }
    assert!(blocks > 0, "no limit was too small");
    assert_eq!(served(&mesh, &["orders"]), (1..=200).collect::<Vec<_>>());

    let inputs = orders(&mesh, "bulk", &bulk(2 << 20));
    let (before, files) = (state(&mesh), mesh.warehouse());
    let outcome = publish_limited(&mesh, 512, &inputs);
    check_failed(&mesh, &outcome, &[8], &before, &files);
    assert!(outcome.stderr.contains("too large") && outcome.stderr.contains("free some space"), "{outcome}");
    finish(publish(&mesh, &inputs)).expect_code(0);
    assert_eq!(served(&mesh, &["orders"]).len(), 1200);
}

/// A small file system in memory, unmounted at the end.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).output();
        output.is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// A disk that is really full, where file systems differ from limits: space is missed late, and freed by deleting.
#[test]
fn a_full_disk_is_an_error_that_commits_nothing() {
    let Some(disk) = Tmpfs::mount("4m") else {
        eprintln!("SKIPPED a_full_disk_is_an_error_that_commits_nothing: a tmpfs cannot be mounted here");
        return;
    };
    let mesh =
        TestMesh::at(&disk.0.path().join("mesh")).with_product(PRODUCT, &manifest(&["orders"], "append", "5%", ""));
    publish_orders(&mesh, "first", &rows(1..=100)).expect_code(0);
    let (before, files) = (state(&mesh), mesh.warehouse());
    let elsewhere = tempfile::tempdir().unwrap();
    let source = elsewhere.path().join("bulk.csv");
    fs::write(&source, bulk(8 << 20)).unwrap();
    let outcome = finish(publish(&mesh, &[format!("orders={}", source.display())]));
    check_failed(&mesh, &outcome, &[8], &before, &files);
    assert!(outcome.stderr.contains("No space left") && outcome.stderr.contains("free some space"), "{outcome}");
    publish_orders(&mesh, "second", &rows(101..=200)).expect_code(0);
    assert_eq!(served(&mesh, &["orders"]), (1..=200).collect::<Vec<_>>());
}

/// The user and group that nothing belongs to.
const NOBODY: u32 = 65534;

/// Sets the permissions of a whole tree.
fn permit(path: &Path, folders: u32, files: u32) {
    let folder = path.is_dir();
    // The mesh's key is its publisher's own.
    if path.ends_with("signing.key") {
        let owner = if files == 0o644 { None } else { Some(NOBODY) };
        std::os::unix::fs::chown(path, owner.or(Some(rustix::process::geteuid().as_raw())), None).unwrap();
        return;
    }
    // Whoever closes a folder must have been through it.
    fs::set_permissions(path, fs::Permissions::from_mode(if folder { 0o755 } else { files })).unwrap();
    if folder {
        for entry in fs::read_dir(path).unwrap() {
            permit(&entry.unwrap().path(), folders, files);
        }
        fs::set_permissions(path, fs::Permissions::from_mode(folders)).unwrap();
    }
}

/// A copy of the binary that everybody may run.
fn public_binary() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("datamesh");
    // By another process: a program that a process of ours holds open for writing cannot be run.
    let mut command = Command::new("cp");
    command.arg(BINARY).arg(&copy);
    finish(command).expect_code(0);
    permit(folder.path(), 0o755, 0o755);
    (folder, copy)
}

/// Publishes as somebody without privileges; root may write anywhere, so root becomes nobody.
fn publish_unprivileged(mesh: &TestMesh, binary: &Path, inputs: &[String]) -> Outcome {
    let mut command = mesh.wrapped(binary, &["publish", PRODUCT, "--format", "json"]);
    command.args(inputs);
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    finish(command)
}

/// What may be written when a publish fails for want of permission.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Writable {
    Nothing,
    Registry,
}

fn check_read_only(binary: &Path, published: bool, writable: Writable, codes: &[i32]) {
    let mesh = mesh(&["orders"], "append", "5%", "");
    // The temporary folder itself is closed to others.
    fs::set_permissions(mesh.root().parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    let inputs = orders(&mesh, "second", &rows(101..=200));
    if published {
        publish_orders(&mesh, "first", &rows(1..=100)).expect_code(0);
        // Closing the last connection empties the registry's log.
        mesh.registry("PRAGMA wal_checkpoint(TRUNCATE)");
    }
    let before = published.then(|| (state(&mesh), mesh.warehouse()));
    permit(mesh.root(), 0o555, 0o444);
    if writable == Writable::Registry {
        permit(&mesh.path(".datamesh"), 0o777, 0o666);
    }
    let outcome = publish_unprivileged(&mesh, binary, &inputs);
    permit(mesh.root(), 0o755, 0o644);

    match &before {
        Some((before, files)) => check_failed(&mesh, &outcome, codes, before, files),
        None => {
            assert!(outcome.code().is_some_and(|code| codes.contains(&code)), "{outcome}");
            assert!(outcome.stderr.contains("Permission denied") && outcome.stderr.contains("help: "), "{outcome}");
            assert!(!mesh.path(".datamesh").exists() && !mesh.path("warehouse").exists());
        }
    }
    finish(publish(&mesh, &inputs)).expect_code(0);
    assert_eq!(served(&mesh, &["orders"]), (if published { 1 } else { 101 }..=200).collect::<Vec<_>>());
}

/// Where a folder may not be written the error says so, whichever folder it is, and nothing is changed.
#[test]
fn a_read_only_mesh_is_an_error_that_changes_nothing() {
    let (_folder, binary) = public_binary();
    check_read_only(&binary, false, Writable::Nothing, &[10]);
    check_read_only(&binary, true, Writable::Nothing, &[8, 10]);
    check_read_only(&binary, true, Writable::Registry, &[8]);
}

/// Whether a process has a handler for SIGINT: before it has, Ctrl-C ends it as a kill would.
fn catches_interrupt(id: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 0b10 != 0)
}

/// Ctrl-C while the source still flows: the process must not wait for the reader, and must tidy up.
#[test]
fn an_interrupted_publish_commits_nothing_and_tidies_up() {
    let mesh = mesh(&["orders"], "append", "5%", "");
    publish_orders(&mesh, "first", &rows(1..=100)).expect_code(0);
    let (before, files) = (state(&mesh), mesh.warehouse());

    let mut command = publish(&mesh, &["orders=-".to_owned(), "--input-format=csv".to_owned()]);
    command.stdin(Stdio::piped());
    let mut running = start(command);
    // Several batches for each of the writers, one a core. When each has its file, none is made any more.
    let writers = std::thread::available_parallelism().unwrap().get();
    let count = writers as i64 * 3 * 8192;
    running.input().write_all(rows(1000..=1000 + count).as_bytes()).unwrap();
    let id = running.id();
    // What an object store gets is written to the scratch folder first.
    let staged = || {
        let scratch = mesh.files("").into_keys().filter(|path| path.starts_with(".datamesh/scratch/"));
        let paths = mesh.warehouse().into_keys().chain(scratch);
        paths.filter(|path| path.ends_with(".parquet") && !files.contains_key(path)).count()
    };
    running.until("every writer had a file", || staged() >= writers && catches_interrupt(id));
    let process = rustix::process::Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();

    let outcome = running.wait_with_open_input();
    check_failed(&mesh, &outcome, &[130], &before, &files);
    assert_eq!(outcome.json()["error"]["code"], "interrupted");
    expire_leases(&mesh);
    assert_eq!((maintain(&mesh), leases(&mesh)), (0, 0));
    publish_orders(&mesh, "second", &rows(101..=200)).expect_code(0);
    assert_eq!(served(&mesh, &["orders"]), (1..=200).collect::<Vec<_>>());
}

/// The same on an S3 server: whatever can go wrong there too.
mod on_s3 {
    use crate::support::on_object_store;

    #[test]
    fn an_append_killed_at_any_step_commits_once() {
        on_object_store(super::an_append_killed_at_any_step_commits_once);
    }

    #[test]
    fn a_replace_killed_at_any_step_commits_once() {
        on_object_store(super::a_replace_killed_at_any_step_commits_once);
    }

    #[test]
    fn a_publish_killed_at_random_moments_commits_once() {
        on_object_store(super::a_publish_killed_at_random_moments_commits_once);
    }

    #[test]
    fn maintain_removes_exactly_what_a_crash_left() {
        on_object_store(super::maintain_removes_exactly_what_a_crash_left);
    }

    #[test]
    fn a_publisher_without_its_lease_commits_nothing() {
        on_object_store(super::a_publisher_without_its_lease_commits_nothing);
    }

    #[test]
    fn racing_appends_of_different_rows_both_commit() {
        on_object_store(super::racing_appends_of_different_rows_both_commit);
    }

    #[test]
    fn a_racing_append_quarantines_the_keys_that_the_winner_took() {
        on_object_store(super::a_racing_append_quarantines_the_keys_that_the_winner_took);
    }

    #[test]
    fn a_racing_append_is_rejected_when_the_winner_took_too_many_keys() {
        on_object_store(super::a_racing_append_is_rejected_when_the_winner_took_too_many_keys);
    }

    #[test]
    fn a_racing_append_of_the_same_content_is_a_repeat() {
        on_object_store(super::a_racing_append_of_the_same_content_is_a_repeat);
    }

    #[test]
    fn a_racing_replace_reports_the_conflict() {
        on_object_store(super::a_racing_replace_reports_the_conflict);
    }

    #[test]
    fn a_racing_append_is_judged_with_the_winners_rows() {
        on_object_store(super::a_racing_append_is_judged_with_the_winners_rows);
    }

    #[test]
    fn an_interrupted_publish_commits_nothing_and_tidies_up() {
        on_object_store(super::an_interrupted_publish_commits_nothing_and_tidies_up);
    }
}

/// The same with the registry in PostgreSQL.
mod on_postgres {
    use crate::support::on_postgres;

    #[test]
    fn an_append_killed_at_any_step_commits_once() {
        on_postgres(super::an_append_killed_at_any_step_commits_once);
    }

    #[test]
    fn a_replace_killed_at_any_step_commits_once() {
        on_postgres(super::a_replace_killed_at_any_step_commits_once);
    }

    #[test]
    fn a_publish_killed_at_random_moments_commits_once() {
        on_postgres(super::a_publish_killed_at_random_moments_commits_once);
    }

    #[test]
    fn maintain_removes_exactly_what_a_crash_left() {
        on_postgres(super::maintain_removes_exactly_what_a_crash_left);
    }

    #[test]
    fn a_publisher_without_its_lease_commits_nothing() {
        on_postgres(super::a_publisher_without_its_lease_commits_nothing);
    }

    #[test]
    fn racing_appends_of_different_rows_both_commit() {
        on_postgres(super::racing_appends_of_different_rows_both_commit);
    }

    #[test]
    fn a_racing_append_of_the_same_content_is_a_repeat() {
        on_postgres(super::a_racing_append_of_the_same_content_is_a_repeat);
    }

    #[test]
    fn a_racing_replace_reports_the_conflict() {
        on_postgres(super::a_racing_replace_reports_the_conflict);
    }

    #[test]
    fn an_interrupted_publish_commits_nothing_and_tidies_up() {
        on_postgres(super::an_interrupted_publish_commits_nothing_and_tidies_up);
    }
}
