//! From a URL to a place: a local path, or a key in an object store.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datamesh_core::{Error, ErrorCode, Result};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::path::Path as Key;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

/// How long a server may stay silent where nothing else is said, in seconds.
const PATIENCE: u64 = 30;

/// What is said of an answer of status 204.
const NO_CONTENT: &str = "the server answers without content";

/// Where a URL leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Local(PathBuf),
    Remote(Remote),
}

/// A place in an object store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remote {
    kind: Kind,
    /// Scheme and authority: one connection each. For a web server with the query, which may sign the request.
    pub(super) base: String,
    authority: String,
    pub(super) key: Key,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    S3,
    Google,
    Azure,
    Web,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self> {
        if let Some(path) = file_path(url) {
            return Ok(Self::Local(PathBuf::from(path)));
        }
        let Some((scheme, rest)) = url.split_once("://") else { return Ok(Self::Local(PathBuf::from(url))) };
        let kind = match scheme.to_ascii_lowercase().as_str() {
            "s3" | "s3a" => Kind::S3,
            "gs" => Kind::Google,
            "az" => Kind::Azure,
            "http" | "https" => Kind::Web,
            _ => {
                return Err(invalid(url, "its scheme is not known")
                    .with_help("known are file://, s3://, gs://, az://, http:// and https://"));
            }
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains('@') {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                format!(
                    "the address `{scheme}://…@{}` holds a user or a password",
                    authority.rsplit('@').next().unwrap_or("")
                ),
            )
            .with_help(match kind {
                Kind::Web => {
                    "web servers are asked without a user: give a token in the query, or download the file and name \
                     the local copy"
                }
                _ => "addresses are kept in reports; give credentials by the environment, such as AWS_ACCESS_KEY_ID",
            }));
        }
        if authority.is_empty() {
            return Err(invalid(url, "it names no bucket or server"));
        }
        let (base, key) = if kind == Kind::Web {
            let path = path.split('#').next().unwrap_or("");
            let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
            let base = format!("{scheme}://{authority}");
            (query.map_or_else(|| base.clone(), |query| format!("{base}/?{query}")), Key::from_url_path(path))
        } else {
            (format!("{scheme}://{authority}"), Key::parse(path))
        };
        let key = key.map_err(|error| invalid(url, &error.to_string()))?;
        Ok(Self::Remote(Remote { kind, base, authority: authority.to_owned(), key }))
    }
}

/// The path that a `file` URL names: `file:///path`, with `localhost` too, or `file:/path`, as Hadoop writes it.
fn file_path(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once(':')?;
    if !scheme.eq_ignore_ascii_case("file") {
        return None;
    }
    match rest.strip_prefix("//") {
        Some(rest) => Some(rest.strip_prefix("localhost").filter(|path| path.starts_with('/')).unwrap_or(rest)),
        None => rest.starts_with('/').then_some(rest),
    }
}

fn invalid(url: &str, why: &str) -> Error {
    Error::new(ErrorCode::InvalidArgument, format!("the address `{}` cannot be used: {why}", shown(url)))
        .with_help("write `s3://bucket/path` or `https://server/path`, without `//` or `..` within the path")
}

pub(super) fn patience(options: &BTreeMap<String, String>) -> Duration {
    let seconds = options.get("DATAMESH_TIMEOUT").and_then(|seconds| seconds.trim().parse().ok());
    Duration::from_secs(seconds.unwrap_or(PATIENCE).max(1))
}

impl Remote {
    /// Connects as far as that needs no network.
    pub(super) fn connect(&self, options: &BTreeMap<String, String>) -> Result<Arc<dyn ObjectStore>> {
        let patience = patience(options);
        let retry = RetryConfig { retry_timeout: patience, ..RetryConfig::default() };
        // A request may carry a whole part of a file over a slow line.
        let client =
            ClientOptions::new().with_timeout(patience * 4).with_connect_timeout(patience.min(Duration::from_secs(10)));
        let named = |prefix: &str| {
            let prefix = prefix.to_owned();
            options.iter().filter(move |(name, _)| name.starts_with(&prefix))
        };
        let store: Result<Arc<dyn ObjectStore>, object_store::Error> = match self.kind {
            Kind::S3 => {
                let mut builder = AmazonS3Builder::new().with_client_options(client).with_retry(retry);
                for (name, value) in named("AWS_") {
                    if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
                        builder = builder.with_config(key, value);
                    }
                }
                builder.with_bucket_name(&self.authority).build().map(|store| Arc::new(store) as _)
            }
            Kind::Google => {
                let mut builder = GoogleCloudStorageBuilder::new().with_client_options(client).with_retry(retry);
                if let Some(path) = options.get("SERVICE_ACCOUNT") {
                    builder = builder.with_service_account_path(path);
                }
                for (name, value) in named("GOOGLE_") {
                    if let Ok(key) = name.to_ascii_lowercase().parse::<GoogleConfigKey>() {
                        builder = builder.with_config(key, value);
                    }
                }
                builder.with_bucket_name(&self.authority).build().map(|store| Arc::new(store) as _)
            }
            Kind::Azure => {
                let mut builder = MicrosoftAzureBuilder::new().with_client_options(client).with_retry(retry);
                for (name, value) in named("AZURE_") {
                    if let Ok(key) = name.to_ascii_lowercase().parse::<AzureConfigKey>() {
                        builder = builder.with_config(key, value);
                    }
                }
                builder.with_container_name(&self.authority).build().map(|store| Arc::new(store) as _)
            }
            // A file comes in one answer, however long that takes: what must not last is silence.
            Kind::Web => HttpBuilder::new()
                .with_url(&self.base)
                .with_http_connector(WebConnector)
                .with_client_options(client.with_timeout_disabled().with_allow_http(true))
                .with_retry(retry)
                .build()
                .map(|store| Arc::new(store) as _),
        };
        store.map_err(|error| {
            let base = shown(&self.base);
            Error::new(ErrorCode::InvalidArgument, format!("cannot connect to `{base}`: {}", innermost(&error)))
                .with_help(help(&base))
        })
    }

    /// Whether the place is on a plain web server, which has no folders and may not know ranges.
    pub(super) fn is_web(&self) -> bool {
        self.kind == Kind::Web
    }
}

/// Connects to web servers. An answer without content (204) is a failure, not a file of no bytes.
#[derive(Debug)]
struct WebConnector;

impl HttpConnector for WebConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(WebClient(ReqwestConnector::default().connect(options)?)))
    }
}

#[derive(Debug)]
struct WebClient(HttpClient);

#[async_trait]
impl HttpService for WebClient {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = self.0.execute(request).await?;
        if answer.status().as_u16() == 204 {
            return Err(HttpError::new(HttpErrorKind::Unknown, std::io::Error::other(NO_CONTENT)));
        }
        Ok(answer)
    }
}

/// The path of a local file.
///
/// # Errors
/// A URL that cannot be used.
pub fn local_path(url: &str) -> Result<Option<PathBuf>> {
    Ok(match Address::parse(url)? {
        Address::Local(path) => Some(path),
        Address::Remote(_) => None,
    })
}

/// Where an object store's URL lies: the URL of the store's root, and the key.
///
/// # Errors
/// A URL that cannot be used.
pub fn split(url: &str) -> Result<(String, Key)> {
    match Address::parse(url)? {
        Address::Local(path) => {
            let key = Key::from_absolute_path(&path).map_err(|error| invalid(url, &error.to_string()))?;
            Ok(("file:///".to_owned(), key))
        }
        Address::Remote(remote) => Ok((remote.base, remote.key)),
    }
}

/// Whether a text is a URL, and no path.
pub fn is_url(text: &str) -> bool {
    text.contains("://") || file_path(text).is_some()
}

/// A URL such that two of the same local file are equal, however they are spelled: of a local file its path.
pub fn spelled(url: &str) -> &str {
    file_path(url).unwrap_or(url)
}

/// The URL as it may be shown and kept: a local one as path, others without a query, which may hold a signature.
pub fn shown(url: &str) -> String {
    if let Some(path) = file_path(url) {
        return path.to_owned();
    }
    match url.split_once("://") {
        Some(("http" | "https" | "HTTP" | "HTTPS", rest)) => {
            let end = rest.find(['?', '#']).unwrap_or(rest.len());
            let cut = if rest[end..].starts_with('?') { "?…" } else { "" };
            format!("{}{cut}", &url[..url.len() - rest.len() + end])
        }
        _ => url.to_owned(),
    }
}

/// The URL of `name` within a folder.
pub fn join(folder: &str, name: &str) -> String {
    format!("{}/{name}", folder.trim_end_matches('/'))
}

/// The URL of the folder that a file lies in.
pub fn folder_of(url: &str) -> &str {
    url.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn help(url: &str) -> String {
    let names = match url.split_once("://").map(|(scheme, _)| scheme) {
        Some("s3" | "s3a") => "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL, AWS_ALLOW_HTTP",
        Some("gs") => "GOOGLE_SERVICE_ACCOUNT, GOOGLE_APPLICATION_CREDENTIALS",
        Some("az") => "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY",
        _ => return "check the address, and that this machine reaches the server".to_owned(),
    };
    format!("check the address and the environment ({names}), and that this machine reaches the server")
}

/// The cause at the bottom, whose text is not repeated by those above.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

/// A failed request in the user's words. Neither queries nor headers of the request are shown.
pub(super) fn failed(code: ErrorCode, doing: &str, url: &str, error: object_store::Error) -> Error {
    use object_store::Error as Cause;
    let place = shown(url);
    let text = {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            text = format!("{text}: {inner}");
            source = inner.source();
        }
        text
    };
    let (why, help) = match &error {
        _ if text.contains("NoSuchBucket") => {
            ("there is no such bucket".to_owned(), "check the bucket's name, the region and the endpoint".to_owned())
        }
        Cause::NotFound { .. } => ("there is no such file".to_owned(), "check the address".to_owned()),
        Cause::PermissionDenied { .. } | Cause::Unauthenticated { .. } => (
            "access is denied".to_owned(),
            match url.split_once("://") {
                Some(("http" | "https", _)) => {
                    "check the address; the server does not serve it to everybody".to_owned()
                }
                _ => {
                    help(url).replace(", and that this machine reaches the server", ", and what the credentials may do")
                }
            },
        ),
        Cause::Precondition { .. } => {
            ("it was changed while it was read".to_owned(), "run the same command again".to_owned())
        }
        _ if text.contains(NO_CONTENT) => (
            format!("{NO_CONTENT} (status 204)"),
            "check the address, and whether the server has the file now; run the same command again then".to_owned(),
        ),
        _ if text.contains("Range request not supported") || text.contains("non-partial response") => (
            "the server does not serve parts of a file".to_owned(),
            "formats with an index need them; download the file and name the local copy".to_owned(),
        ),
        _ if text.contains("Content-Length") => (
            "the server does not tell the file's length".to_owned(),
            "without it a file that was cut off could pass as whole; download the file and name the local copy"
                .to_owned(),
        ),
        other => (innermost(other), help(url)),
    };
    // The cause is not kept: its texts may hold the query.
    Error::new(code, format!("cannot {doing} `{place}`: {}", redacted(&why, url))).with_help(help)
}

/// An answer that broke off with `left` bytes to come.
pub(super) fn cut_off(url: &str, left: u64, why: &dyn std::fmt::Display) -> Error {
    let why = redacted(&why.to_string(), url);
    let what = format!("cannot read `{}`: the answer broke off with {left} bytes to come: {why}", shown(url));
    Error::new(ErrorCode::SourceUnreadable, what)
        .with_help("nothing was committed; run the same command again, or download the file and name the local copy")
}

/// A server that took longer than it may.
pub(super) fn silent(url: &str, patience: Duration) -> Error {
    let what = format!("cannot read `{}`: the server was silent for {} seconds", shown(url), patience.as_secs());
    Error::new(ErrorCode::SourceUnreadable, what)
        .with_help("check that this machine reaches the server; DATAMESH_TIMEOUT sets how long it may take, in seconds")
}

/// A text without the query of `url`.
fn redacted(text: &str, url: &str) -> String {
    match url.split_once('?') {
        Some((_, query)) if !query.is_empty() => text.replace(query, "…"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(url: &str) -> Remote {
        match Address::parse(url) {
            Ok(Address::Remote(remote)) => remote,
            other => panic!("{url}: {other:?}"),
        }
    }

    #[test]
    fn urls_are_taken_verbatim() {
        for (url, path) in [
            ("file:///a b/c%20d", "/a b/c%20d"),
            ("/a/b", "/a/b"),
            ("file:/a/b", "/a/b"),
            ("FILE:///a/b", "/a/b"),
            ("file://localhost/a/b", "/a/b"),
            ("file:///localhost/b", "/localhost/b"),
            ("a/file:/b", "a/file:/b"),
        ] {
            assert_eq!(Address::parse(url).expect("local"), Address::Local(path.into()), "{url}");
            assert_eq!(spelled(url), path);
        }
        for (url, base, key) in [
            ("s3://bucket/a/b%20c.csv", "s3://bucket", "a/b%20c.csv"),
            ("s3://bucket", "s3://bucket", ""),
            ("s3://bucket/a/", "s3://bucket", "a"),
            ("gs://bucket/a?b#c", "gs://bucket", "a?b#c"),
            ("https://host:1/a%20b.csv?key=1#x", "https://host:1/?key=1", "a b.csv"),
        ] {
            let remote = remote(url);
            assert_eq!((remote.base.as_str(), remote.key.as_ref()), (base, key), "{url}");
        }
    }

    #[test]
    fn secrets_are_refused_or_hidden() {
        let error = Address::parse("https://me:secret@host/a.csv").expect_err("refused");
        assert!(!error.to_string().contains("secret") && !error.to_string().contains("me:"), "{error}");
        assert_eq!(shown("https://host/a.csv?signature=secret#x"), "https://host/a.csv?…");
        assert_eq!(shown("s3://bucket/a?b"), "s3://bucket/a?b");
        assert_eq!(
            redacted("GET https://host/a?b=secret failed", "https://host/a?b=secret"),
            "GET https://host/a?… failed"
        );
    }

    #[test]
    fn unusable_addresses_say_why() {
        for url in ["ftp://host/a", "s3:///key", "s3://bucket/a//b", "s3://bucket/../a"] {
            assert!(Address::parse(url).is_err(), "{url}");
        }
    }
}
