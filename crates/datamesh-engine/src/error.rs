//! Failures of DataFusion, Arrow and Parquet in the user's words.

use std::path::Path;

use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datamesh_core::{Error, ErrorCode};

/// Brings an [`Error`] of ours through DataFusion.
pub(crate) fn wrap(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Takes our own error back out where there is one, else describes DataFusion's.
pub(crate) fn unwrap(code: ErrorCode, doing: &str, error: DataFusionError) -> Error {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = source {
        if let Some(own) = inner.downcast_ref::<Error>() {
            return own.restate();
        }
        source = match inner.downcast_ref::<DataFusionError>() {
            Some(DataFusionError::External(inner)) => Some(inner.as_ref()),
            Some(DataFusionError::Shared(inner)) => Some(inner.as_ref()),
            _ => inner.source(),
        };
    }
    let text = match error.find_root() {
        DataFusionError::SQL(inner, _) => inner.to_string(),
        DataFusionError::Plan(text) | DataFusionError::Execution(text) => text.clone(),
        other => other.strip_backtrace(),
    };
    Error::new(code, format!("{doing}: {text}")).with_source(error)
}

/// An Arrow failure that a checked contract cannot cause.
pub(crate) fn arrow(error: ArrowError) -> Error {
    Error::new(ErrorCode::Internal, format!("a batch cannot be processed: {error}")).with_source(error)
}

/// A failed write of a Parquet file. Full disks and permissions keep their own message.
pub(crate) fn parquet_write(path: &Path, error: datafusion::parquet::errors::ParquetError) -> Error {
    use datafusion::parquet::errors::ParquetError;
    match error {
        ParquetError::External(inner) => match inner.downcast::<std::io::Error>() {
            Ok(io) => Error::io(ErrorCode::WriteFailed, "write", path, *io),
            Err(inner) => Error::new(ErrorCode::WriteFailed, format!("cannot write `{}`: {inner}", path.display())),
        },
        error => {
            Error::new(ErrorCode::WriteFailed, format!("cannot write `{}`: {error}", path.display())).with_source(error)
        }
    }
}

/// A failed read of the Parquet file that is shown as `name`.
pub(crate) fn parquet_read(name: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = source {
        if let Some(own) = inner.downcast_ref::<Error>() {
            return own.restate();
        }
        let io = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        source = io.map(|inner| inner as &(dyn std::error::Error + 'static)).or_else(|| inner.source());
    }
    Error::new(ErrorCode::SourceUnreadable, format!("cannot read `{name}`: {error}"))
        .with_help("check that the file is a whole Parquet file")
        .with_source(error)
}
