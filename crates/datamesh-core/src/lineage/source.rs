//! Names of datasets outside the mesh, as OpenLineage's naming convention makes them, without anything secret.

use std::path::{Component, Path, PathBuf};

use super::Dataset;

/// Schemes whose paths are keys of objects, without queries.
const OBJECT_STORES: [&str; 8] = ["s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss"];

/// The dataset at `location`, a URL or a path that starts from `folder`. User, password, query and fragment of a URL
/// are left out: they may hold secrets, and they do not name the data.
pub fn external_dataset(location: &str, folder: &Path) -> Dataset {
    let external = |namespace: &str, name: &str| Dataset::External { namespace: namespace.into(), name: name.into() };
    if location == "-" {
        return external("file", "/dev/stdin");
    }
    let Some((scheme, rest)) = location.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) else {
        return external("file", &absolute(&folder.join(location)).to_string_lossy());
    };
    let scheme = scheme.to_ascii_lowercase();
    // In the key of an object, or a pattern of keys, these are letters like others.
    let is_key = OBJECT_STORES.contains(&scheme.as_str());
    let rest = if is_key { rest } else { rest.split(['?', '#']).next().unwrap_or_default() };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    // A password may have an `@` of its own, so the last one ends it. Azure writes the container before an `@`.
    let host = match authority.rsplit_once('@') {
        Some((container, _)) if scheme.starts_with("abfs") && !container.contains(':') => authority,
        Some((_, host)) => host,
        None => authority,
    };
    match scheme.as_str() {
        "file" => external("file", &format!("/{path}")),
        "http" | "https" => external(&format!("{scheme}://{host}"), &format!("/{path}")),
        _ => external(&format!("{scheme}://{host}"), path),
    }
}

/// A table of the database at `location` (`postgres://…`, `sqlite:path`), or, without one, the result of a query in the
/// database's own words. An address that is a reference to a secret as a whole stands for itself.
pub fn database_dataset(location: &str, table: Option<&str>, folder: &Path) -> Dataset {
    let external = |namespace: String, name: String| Dataset::External { namespace, name };
    let rows = table.unwrap_or("query");
    if let Some(path) = location.strip_prefix("sqlite:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        let path = path.split('?').next().unwrap_or(path);
        return external(format!("sqlite:{}", absolute(&folder.join(path)).display()), rows.to_owned());
    }
    match external_dataset(location, folder) {
        Dataset::External { namespace, name } if location.contains("://") => {
            let (scheme, host) = namespace.split_once("://").unwrap_or((&namespace, ""));
            let scheme = if scheme == "postgresql" { "postgres" } else { scheme };
            let host = if scheme == "postgres" && !has_port(host) { format!("{host}:5432") } else { host.to_owned() };
            let name = if name.is_empty() { rows.to_owned() } else { format!("{name}.{rows}") };
            external(format!("{scheme}://{host}"), name)
        }
        _ => external(location.to_owned(), rows.to_owned()),
    }
}

fn has_port(host: &str) -> bool {
    host.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The Iceberg table at `location`, its folder or one of its metadata documents.
pub fn iceberg_dataset(location: &str, folder: &Path) -> Dataset {
    let table = match location.rsplit_once("/metadata/") {
        Some((table, document)) if document.ends_with(".json") => table,
        _ => location.trim_end_matches('/'),
    };
    external_dataset(table, folder)
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

/// The path without `.` and `..`, by its text alone: a pattern such as `data/*.csv` is no file that could be asked.
fn absolute(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}
