//! A Glue server of the Python packages, and a proxy before it that fails as told.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

use serde_json::{Value, json};

/// Serves Glue until its standard input ends, which it does when the test's process ends however it ends.
const SCRIPT: &str = "import os, sys\n\
    from moto.server import ThreadedMotoServer\n\
    server = ThreadedMotoServer('127.0.0.1', 0, verbose=False)\n\
    server.start()\n\
    print(server.get_host_and_port()[1], flush=True)\n\
    sys.stdin.read()\n\
    os._exit(0)\n";

/// The port of this test process's server. `None`, said aloud, where the Python packages are not installed; `make test`
/// installs them and says so by DATAMESH_TEST_PYTHON, and then they must be there.
fn server() -> Option<u16> {
    static SERVER: OnceLock<Option<(u16, Mutex<Child>)>> = OnceLock::new();
    let start = || {
        let told = std::env::var_os("DATAMESH_TEST_PYTHON").map(PathBuf::from);
        let python =
            told.clone().unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv/bin/python"));
        let mut command = Command::new(&python);
        command.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let started = command.spawn().ok().and_then(|mut server| {
            let mut line = String::new();
            BufReader::new(server.stdout.take()?).read_line(&mut line).ok()?;
            line.trim().parse().ok().map(|port| (port, Mutex::new(server)))
        });
        assert!(
            started.is_some() || told.is_none(),
            "`{}` cannot start a Glue server: is `moto[server]` installed?",
            python.display()
        );
        if started.is_none() {
            eprintln!("SKIPPED everything on Glue: `{}` has no `moto[server]`; run `make test-rust`", python.display());
        }
        started
    };
    SERVER.get_or_init(start).as_ref().map(|(port, _)| *port)
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is refused: too many calls.
    Throttled,
    /// It is carried out, and the connection ends before the answer.
    AnswerLost,
    /// The connection ends before anything is done.
    RequestLost,
    /// A gateway answers that the service is not there.
    Unavailable,
    /// It is refused: the input is wrong.
    Failed,
    /// Somebody else changes the table first.
    Overtaken,
}

#[derive(Default)]
struct Script {
    /// The call that fails next, by operation, and how.
    faults: VecDeque<(&'static str, Fault)>,
    /// Every operation that came.
    calls: Vec<String>,
}

/// A proxy before the server.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    script: Arc<Mutex<Script>>,
}

impl Proxy {
    /// A proxy before this process's server.
    pub(crate) fn start() -> Option<Self> {
        let server = server()?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = Arc::new(Mutex::new(Script::default()));
        let shared = script.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = shared.clone();
                std::thread::spawn(move || serve(stream?, server, &shared));
            }
            std::io::Result::Ok(())
        });
        Some(Self { port, script })
    }

    /// The next calls of these operations fail, in this order.
    pub(crate) fn fail(&self, faults: impl IntoIterator<Item = (&'static str, Fault)>) {
        self.script.lock().unwrap().faults.extend(faults);
    }

    /// The faults that did not happen.
    pub(crate) fn left(&self) -> usize {
        self.script.lock().unwrap().faults.len()
    }

    /// The operations since it was last asked.
    pub(crate) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.script.lock().unwrap().calls)
    }
}

/// Answers one connection's calls until the client has no more.
fn serve(mut client: TcpStream, server: u16, script: &Mutex<Script>) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    loop {
        let Some((head, body)) = message(&mut reader)? else { return Ok(()) };
        let operation = header(&head, "x-amz-target").and_then(|target| target.split('.').nth(1).map(str::to_owned));
        let operation = operation.unwrap_or_default();
        let fault = {
            let mut script = script.lock().unwrap();
            script.calls.push(operation.clone());
            let next = script.faults.front().is_some_and(|(wanted, _)| *wanted == operation || *wanted == "*");
            if next { script.faults.pop_front().map(|(_, fault)| fault) } else { None }
        };
        let answer = match fault {
            Some(Fault::Throttled) => error(400, "ThrottlingException", "Rate exceeded"),
            Some(Fault::Unavailable) => b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy".to_vec(),
            Some(Fault::Failed) => error(400, "InvalidInputException", "it is wrong"),
            Some(Fault::RequestLost) => return Ok(()),
            Some(Fault::AnswerLost) => {
                checked(server, &head, &body, &operation)?;
                return Ok(());
            }
            Some(Fault::Overtaken) => {
                overtake(server, &head, &body)?;
                checked(server, &head, &body, &operation)?
            }
            None => checked(server, &head, &body, &operation)?,
        };
        client.write_all(&answer)?;
    }
}

/// The server's answer. Glue refuses an update of another version than the current one; moto does not, so it is done here.
fn checked(server: u16, head: &str, body: &[u8], operation: &str) -> std::io::Result<Vec<u8>> {
    // Checking and writing are one step in Glue.
    static UPDATES: Mutex<()> = Mutex::new(());
    let _one_at_a_time = UPDATES.lock().unwrap();
    if operation == "UpdateTable" {
        let request: Value = serde_json::from_slice(body)?;
        let found = call(server, head, "GetTable", &table_of(&request))?;
        if let (Some(expected), Some(current)) = (request["VersionId"].as_str(), found["Table"]["VersionId"].as_str())
            && expected != current
        {
            return Ok(error(
                400,
                "ConcurrentModificationException",
                "Update table failed due to concurrent modifications.",
            ));
        }
    }
    forward(server, head, body)
}

fn table_of(request: &Value) -> Value {
    json!({"DatabaseName": request["DatabaseName"], "Name": request["TableInput"]["Name"]})
}

/// Somebody else notes something on the table of an update.
fn overtake(server: u16, head: &str, body: &[u8]) -> std::io::Result<()> {
    let request: Value = serde_json::from_slice(body)?;
    let found = call(server, head, "GetTable", &table_of(&request))?;
    let mut input = json!({"Name": found["Table"]["Name"]});
    for key in ["Description", "Owner", "StorageDescriptor", "PartitionKeys", "TableType", "Parameters"] {
        if !found["Table"][key].is_null() {
            input[key] = found["Table"][key].clone();
        }
    }
    input["Parameters"]["numRows"] = json!("7");
    call(server, head, "UpdateTable", &json!({"DatabaseName": request["DatabaseName"], "TableInput": input}))?;
    Ok(())
}

/// A call with the credentials of another.
fn call(server: u16, head: &str, operation: &str, request: &Value) -> std::io::Result<Value> {
    let authorization = header(head, "authorization").unwrap_or_default();
    let body = request.to_string();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-amz-json-1.1\r\n\
         X-Amz-Target: AWSGlue.{operation}\r\nAuthorization: {authorization}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let answer = forward(server, &head, body.as_bytes())?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{text}");
    Ok(serde_json::from_str(body)?)
}

fn forward(server: u16, head: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", server))?;
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut reader = BufReader::new(stream);
    let (head, body) = message(&mut reader)?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    // The client keeps its connection whatever the server does with this one.
    let kept = head.lines().filter(|line| !line.to_lowercase().starts_with("connection:"));
    let mut answer = kept.map(|line| format!("{line}\r\n")).collect::<String>().into_bytes();
    answer.extend(body);
    Ok(answer)
}

/// A head with its empty line, and the body that it announces.
fn message(reader: &mut impl BufRead) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let mut head = String::new();
    loop {
        let before = head.len();
        if reader.read_line(&mut head)? == 0 {
            return Ok(None);
        }
        if &head[before..] == "\r\n" {
            break;
        }
    }
    let length = header(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some((head, body)))
}

fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

fn error(status: u16, code: &str, message: &str) -> Vec<u8> {
    let body = json!({"__type": code, "Message": message}).to_string();
    format!(
        "HTTP/1.1 {status} Bad Request\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
