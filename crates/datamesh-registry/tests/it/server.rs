//! A real PostgreSQL of a test process's own: a cluster in a temporary folder, run by somebody who is not root, gone when
//! the process ends however it ends. The tests of the binary include this file too.

#![allow(dead_code, reason = "each of the two crates uses a part")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// The role that owns everything, and its password, of which no message may show a part.
const USER: &str = "datamesh";
const PASSWORD: &str = "s3cret-Pa55-ö/@";
const ENCODED_PASSWORD: &str = "s3cret-Pa55-%C3%B6%2F%40";

/// What must never be shown.
pub(crate) const SECRET: &str = "s3cret";

/// How long a server may take to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs the server until standard input ends, which it does with the test's process, and leaves nothing behind.
const SCRIPT: &str = r#"
"$1/postgres" -D "$2/data" -p "$3" -c listen_addresses=127.0.0.1 -c unix_socket_directories="$2" -c fsync=off \
    -c max_connections=200 >"$2/log" 2>&1 &
read -r _
kill -QUIT $!
wait
rm -rf "$2"
"#;

/// A running server.
pub(crate) struct Postgres {
    folder: PathBuf,
    programs: PathBuf,
    pub(crate) port: u16,
    schemas: AtomicUsize,
    server: Mutex<Child>,
}

/// The server of this test process, started when it is first asked for. `None`, said aloud, where PostgreSQL is not
/// installed.
pub(crate) fn postgres() -> Option<&'static Postgres> {
    static SERVER: OnceLock<Option<Postgres>> = OnceLock::new();
    SERVER.get_or_init(Postgres::start).as_ref()
}

/// The folder with `initdb`, where PostgreSQL is installed.
fn programs() -> Option<PathBuf> {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(found) = std::env::split_paths(&on_path).find(|folder| folder.join("initdb").is_file()) {
        return found.join("initdb").canonicalize().ok()?.parent().map(Path::to_owned);
    }
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let number = |path: &Path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let newest = versions.flatten().map(|entry| entry.path()).filter(|path| path.join("bin/initdb").is_file());
    newest.max_by_key(|path| number(path)).map(|path| path.join("bin"))
}

/// Somebody who is not root, for root: user and group.
fn somebody_else() -> Option<(u32, u32)> {
    let root = fs::metadata("/proc/self").ok()?.uid() == 0;
    let line = fs::read_to_string("/etc/passwd").ok()?.lines().find(|line| line.starts_with("nobody:"))?.to_owned();
    let mut fields = line.split(':').skip(2);
    let ids = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    root.then_some(ids)
}

impl Postgres {
    fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            assert!(
                std::env::var_os("DATAMESH_TEST_POSTGRES").is_none(),
                "PostgreSQL (initdb, postgres, psql) is not on this machine"
            );
            eprintln!("SKIPPED everything on PostgreSQL: it is not on this machine; install `postgresql`");
            return None;
        };
        let user = somebody_else();
        let folder = tempfile::Builder::new().prefix("datamesh-pg-").tempdir().unwrap().keep();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(folder.join("password"), PASSWORD).unwrap();
        if let Some((user, group)) = user {
            chown(&folder, Some(user), Some(group)).unwrap();
        }
        let as_user = |program: &Path| {
            let mut command = Command::new(program);
            command.current_dir(&folder).env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8");
            if let Some((user, group)) = user {
                command.uid(user).gid(group);
            }
            command
        };
        let mut initdb = as_user(&programs.join("initdb"));
        initdb.args([
            "--auth=scram-sha-256",
            "--auth-local=trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
            "-U",
            USER,
        ]);
        initdb.arg("-D").arg(folder.join("data")).arg("--pwfile").arg(folder.join("password"));
        let made = initdb.output().unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        // Somebody else may take the port before the server does; then it is tried again with another one.
        for _ in 0..3 {
            let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
            let mut command = as_user(Path::new("/bin/sh"));
            command.args(["-c", SCRIPT, "sh"]).arg(&programs).arg(&folder).arg(port.to_string());
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            let server = Mutex::new(command.spawn().unwrap());
            let postgres =
                Self { folder: folder.clone(), programs: programs.clone(), port, schemas: AtomicUsize::new(0), server };
            if postgres.wait() {
                return Some(postgres);
            }
        }
        let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
        panic!("PostgreSQL does not start: {log}")
    }

    /// Waits until it answers; `false` where it ended.
    fn wait(&self) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let ready = Command::new(self.programs.join("pg_isready"))
                .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
                .status()
                .unwrap();
            if ready.success() {
                return true;
            }
            let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            if log.contains("shut down") || self.server.lock().unwrap().try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("PostgreSQL does not answer")
    }

    /// The URL of a schema of its own for a mesh, made or not.
    pub(crate) fn url(&self) -> String {
        let number = self.schemas.fetch_add(1, Ordering::SeqCst);
        self.url_with(&format!("?schema=mesh_{number}&sslmode=disable"))
    }

    /// The URL of the database, with these parameters.
    pub(crate) fn url_with(&self, parameters: &str) -> String {
        self.url_at(self.port, USER, parameters)
    }

    /// The URL of the database through another port, for another role with the same password.
    pub(crate) fn url_at(&self, port: u16, user: &str, parameters: &str) -> String {
        format!("postgres://{user}:{ENCODED_PASSWORD}@127.0.0.1:{port}/postgres{parameters}")
    }

    /// Runs SQL in the schema that a URL names, as the owner; the answer's lines.
    pub(crate) fn sql(&self, url: &str, text: &str) -> Vec<String> {
        let schema = url.split("schema=").nth(1).and_then(|rest| rest.split('&').next()).unwrap_or("public");
        let output = Command::new(self.programs.join("psql"))
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", USER, "-d", "postgres", "-qAt"])
            .args(["-v", "ON_ERROR_STOP=1", "-c", &format!("SET search_path = \"{schema}\""), "-c", text])
            .env("PGPASSWORD", PASSWORD)
            .output()
            .unwrap();
        assert!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// Makes a role with the same password.
    pub(crate) fn add_role(&self, name: &str) {
        self.sql("", &format!("CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'"));
    }

    /// Whether something listens there.
    pub(crate) fn is_up(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.port)).is_ok()
    }
}
