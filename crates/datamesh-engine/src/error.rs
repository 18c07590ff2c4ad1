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
    fn own(error: DataFusionError) -> Result<Error, DataFusionError> {
        match error {
            DataFusionError::External(inner) => match inner.downcast::<Error>() {
                Ok(own) => Ok(*own),
                Err(inner) => match inner.downcast::<DataFusionError>() {
                    Ok(inner) => own(*inner),
                    Err(inner) => Err(DataFusionError::External(inner)),
                },
            },
            DataFusionError::Context(context, inner) => {
                own(*inner).map_err(|inner| DataFusionError::Context(context, Box::new(inner)))
            }
            DataFusionError::ArrowError(inner, trace) => match *inner {
                ArrowError::ExternalError(inner) => match inner.downcast::<Error>() {
                    Ok(own) => Ok(*own),
                    Err(inner) => Err(DataFusionError::ArrowError(Box::new(ArrowError::ExternalError(inner)), trace)),
                },
                inner => Err(DataFusionError::ArrowError(Box::new(inner), trace)),
            },
            DataFusionError::Shared(shared) => match std::sync::Arc::try_unwrap(shared) {
                Ok(inner) => own(inner),
                Err(shared) => Err(DataFusionError::Shared(shared)),
            },
            other => Err(other),
        }
    }
    match own(error) {
        Ok(own) => own,
        Err(error) => {
            let root = error.find_root();
            let text = match root {
                DataFusionError::SQL(inner, _) => inner.to_string(),
                DataFusionError::Plan(text) | DataFusionError::Execution(text) => text.clone(),
                other => other.strip_backtrace(),
            };
            let code =
                if matches!(root, DataFusionError::ResourcesExhausted(_)) { ErrorCode::InvalidQuery } else { code };
            Error::new(code, format!("{doing}: {text}")).with_source(error)
        }
    }
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

/// A failed read of a Parquet file.
pub(crate) fn parquet_read(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorCode::SourceUnreadable, format!("cannot read `{}`: {error}", path.display()))
        .with_help("check that the file is a whole Parquet file")
        .with_source(error)
}
