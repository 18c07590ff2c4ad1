//! How times and documents are written as text.

use chrono::{DateTime, SecondsFormat, Utc};
use datamesh_core::ids::ProductKey;
use datamesh_core::{Error, ErrorCode, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::Row;

/// A time as text that sorts as times do.
pub(crate) fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

pub(crate) fn read_time(text: &str) -> Result<DateTime<Utc>> {
    let parsed = DateTime::parse_from_rfc3339(text).map(|time| time.with_timezone(&Utc));
    parsed.map_err(|error| {
        Error::new(ErrorCode::Registry, format!("the registry holds `{text}`, which is no time")).with_source(error)
    })
}

pub(crate) fn to_json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|error| Error::new(ErrorCode::Internal, "a document cannot be written").with_source(error))
}

pub(crate) fn from_json<T: DeserializeOwned>(what: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        Error::new(ErrorCode::Registry, format!("the registry holds {what} that cannot be read: {error}"))
            .with_help("it was written by another version of datamesh, or changed by hand")
            .with_source(error)
    })
}

/// The columns `domain`, `product` and `major`.
pub(crate) fn read_key(row: &Row) -> Result<ProductKey> {
    Ok(ProductKey { domain: row.text("domain")?, product: row.text("product")?, major: row.number("major")? })
}
