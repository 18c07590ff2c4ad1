//! Servers that tests read from and write to: an S3 server, and web servers that behave as told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

use datamesh_iceberg::Storage;
use tokio::runtime::Runtime;

/// The bucket that tests use, each below a prefix of its own.
pub(crate) const BUCKET: &str = "tests";

/// Serves S3 until its standard input ends, which it does when the test's process ends however it ends.
const SCRIPT: &str = "import os, sys\n\
    from moto.server import ThreadedMotoServer\n\
    server = ThreadedMotoServer('127.0.0.1', 0, verbose=False)\n\
    server.start()\n\
    print(server.get_host_and_port()[1], flush=True)\n\
    sys.stdin.read()\n\
    os._exit(0)\n";

/// A real S3 server in a process of its own.
pub(crate) struct S3 {
    port: u16,
    storage: Storage,
    runtime: Runtime,
    _server: Mutex<Child>,
}

/// The S3 server of this test process, started when it is first asked for. `None`, said aloud, where the Python packages
/// are not installed; `make test` installs them and says so by DATAMESH_TEST_PYTHON, and then they must be there.
pub(crate) fn s3() -> Option<&'static S3> {
    static SERVER: OnceLock<Option<S3>> = OnceLock::new();
    SERVER.get_or_init(S3::start).as_ref()
}

impl S3 {
    fn start() -> Option<Self> {
        let told = std::env::var_os("DATAMESH_TEST_PYTHON").map(PathBuf::from);
        let python =
            told.clone().unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv/bin/python"));
        let mut command = Command::new(&python);
        command.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let started = command.spawn().ok().and_then(|mut server| {
            let mut line = String::new();
            BufReader::new(server.stdout.take()?).read_line(&mut line).ok()?;
            line.trim().parse().ok().map(|port| (port, server))
        });
        let Some((port, server)) = started else {
            assert!(told.is_none(), "`{}` cannot start an S3 server: is `moto[server]` installed?", python.display());
            eprintln!(
                "SKIPPED everything on an object store: `{}` has no `moto[server]`; run `make test-rust`",
                python.display()
            );
            return None;
        };
        let runtime = Runtime::new().unwrap();
        let storage = Storage::new(settings(port).into_iter().map(|(name, value)| (name.to_owned(), value)));
        let s3 = Self { port, storage, runtime, _server: Mutex::new(server) };
        s3.request("PUT", &format!("/{BUCKET}"), b"");
        Some(s3)
    }

    /// What a process needs to know in its environment.
    pub(crate) fn environment(&self) -> [(&'static str, String); 5] {
        settings(self.port)
    }

    /// A plain HTTP request; the answer's whole text.
    pub(crate) fn request(&self, method: &str, path: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let length = body.len();
        write!(stream, "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n").unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 2") || answer.starts_with("HTTP/1.0 2"), "{method} {path}: {answer}");
        answer
    }

    /// Puts a file into the bucket and returns its URL.
    pub(crate) fn put(&self, key: &str, bytes: impl AsRef<[u8]>) -> String {
        let url = format!("s3://{BUCKET}/{key}");
        let bytes = bytes.as_ref().to_vec().into();
        self.runtime.block_on(self.storage.write(&url, bytes)).unwrap();
        url
    }

    /// Every file below a URL with its size, by its path relative to the URL.
    pub(crate) fn files(&self, url: &str) -> Vec<(String, u64)> {
        let files = self.runtime.block_on(self.storage.walk(url)).unwrap();
        let relative = |file: &str| file[url.len()..].trim_start_matches('/').to_owned();
        files.into_iter().map(|file| (relative(&file.url), file.bytes)).collect()
    }
}

fn settings(port: u16) -> [(&'static str, String); 5] {
    [
        ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}")),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_ACCESS_KEY_ID", "test".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "not-so-secret".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
    ]
}

/// A web server that answers each request with what a function makes of it, and then closes the connection.
pub(crate) struct Web {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Web {
    /// `answer` gets the request's head and the connection.
    pub(crate) fn start(answer: impl Fn(&str, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (requests.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, answer) = (seen.clone(), answer.clone());
                std::thread::spawn(move || -> std::io::Result<()> {
                    let mut stream = stream?;
                    let mut head = String::new();
                    let mut reader = BufReader::new(stream.try_clone()?);
                    while reader.read_line(&mut head)? > 2 {}
                    seen.lock().unwrap().push(head.clone());
                    // A client may go away before it has read the answer.
                    answer(&head, &mut stream)
                });
            }
        });
        Self { port, requests }
    }

    /// Serves one file under any name: whole, its head alone, or a part.
    pub(crate) fn serving(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::start(move |head, stream| {
            let range =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
            let (status, part, extra) = match range.as_deref().and_then(|range| range.trim().split_once('-')) {
                Some((start, end)) => {
                    let (start, end): (usize, usize) = (start.parse().unwrap(), end.parse().unwrap());
                    let end = end.min(bytes.len() - 1);
                    let extra = format!("Content-Range: bytes {start}-{end}/{}\r\n", bytes.len());
                    ("206 Partial Content", &bytes[start..=end], extra)
                }
                None => ("200 OK", &bytes[..], String::new()),
            };
            let length = part.len();
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{extra}Connection: close\r\n\r\n")?;
            if head.starts_with("HEAD") { Ok(()) } else { stream.write_all(part) }
        })
    }

    /// The URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// The heads of all requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}
