//! Failures of the `iceberg` crate in the user's words.

use datamesh_core::{Error, ErrorCode};

pub(crate) fn internal(doing: &str) -> impl FnOnce(iceberg::Error) -> Error + '_ {
    move |error| Error::new(ErrorCode::Internal, format!("cannot {doing}: {error}")).with_source(error)
}

pub(crate) fn unreadable(doing: &str, location: &str) -> impl FnOnce(iceberg::Error) -> Error {
    let message = format!("cannot {doing} `{location}`");
    move |error| {
        Error::new(ErrorCode::SourceUnreadable, format!("{message}: {error}"))
            .with_help("a published file was changed or removed from outside; restore it")
            .with_source(error)
    }
}
