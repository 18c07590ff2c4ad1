//! Failures of an operation: one at a time, with a code that decides what a caller sees.

use std::fmt;

/// The result of an operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed. The one table below maps each code to its stable word and exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// An argument makes no sense.
    InvalidArgument,
    /// A manifest or mesh file has errors.
    InvalidManifest,
    /// Something named does not exist.
    NotFound,
    /// Data could not be read.
    SourceUnreadable,
    /// Data could not be written: no space, no permission.
    WriteFailed,
    /// The query is wrong or cannot be answered.
    InvalidQuery,
    /// The registry cannot be opened or read.
    Registry,
    /// The registry was written by a newer version.
    RegistryTooNew,
    /// Somebody else changed the same thing first.
    Conflict,
    /// The staging lease ran out before the commit.
    LeaseLost,
    /// The change to a published table is not possible within its major version.
    IncompatibleChange,
    /// The manifest differs from the applied revision.
    NotApplied,
    /// The plan breaks rules that keep consumers safe.
    PlanRefused,
    /// The plan file was changed after it was written.
    PlanEdited,
    /// The plan file was made for another mesh.
    PlanOfAnotherMesh,
    /// The plan file was written by a newer version.
    PlanTooNew,
    /// What the plan was made from has changed since.
    PlanStale,
    /// The principal may not do this.
    Denied,
    /// The applied policies cannot be used.
    InvalidPolicy,
    /// The user stopped it.
    Interrupted,
    /// A defect of datamesh itself.
    Internal,
}

impl ErrorCode {
    /// Every code, for the generated documentation.
    pub const ALL: [Self; 21] = [
        Self::InvalidArgument,
        Self::InvalidManifest,
        Self::NotFound,
        Self::SourceUnreadable,
        Self::WriteFailed,
        Self::InvalidQuery,
        Self::Registry,
        Self::RegistryTooNew,
        Self::Conflict,
        Self::LeaseLost,
        Self::IncompatibleChange,
        Self::NotApplied,
        Self::PlanRefused,
        Self::PlanEdited,
        Self::PlanOfAnotherMesh,
        Self::PlanTooNew,
        Self::PlanStale,
        Self::Denied,
        Self::InvalidPolicy,
        Self::Interrupted,
        Self::Internal,
    ];

    /// The stable word in JSON output.
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The process's exit code.
    pub fn exit_code(self) -> u8 {
        self.row().1
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(self) -> bool {
        self.row().2
    }

    fn row(self) -> (&'static str, u8, bool) {
        match self {
            Self::InvalidArgument => ("invalid-argument", 2, false),
            Self::InvalidManifest => ("invalid-manifest", 4, false),
            Self::NotFound => ("not-found", 6, false),
            Self::SourceUnreadable => ("source-unreadable", 7, true),
            Self::WriteFailed => ("write-failed", 8, true),
            Self::InvalidQuery => ("invalid-query", 9, false),
            Self::Registry => ("registry", 10, true),
            Self::RegistryTooNew => ("registry-too-new", 11, false),
            Self::Conflict => ("conflict", 5, true),
            Self::LeaseLost => ("lease-lost", 12, true),
            Self::IncompatibleChange => ("incompatible-change", 13, false),
            Self::Interrupted => ("interrupted", 130, true),
            Self::Denied => ("denied", 14, false),
            Self::InvalidPolicy => ("invalid-policy", 22, false),
            Self::NotApplied => ("not-applied", 15, false),
            Self::PlanRefused => ("plan-refused", 16, false),
            Self::PlanEdited => ("plan-edited", 17, false),
            Self::PlanOfAnotherMesh => ("plan-of-another-mesh", 18, false),
            Self::PlanTooNew => ("plan-too-new", 19, false),
            Self::PlanStale => ("plan-stale", 20, true),
            Self::Internal => ("internal", 1, false),
        }
    }
}

/// A failed operation.
#[derive(Debug)]
pub struct Error {
    code: ErrorCode,
    message: String,
    help: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error with a message: what went wrong, in the user's words.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: None, source: None }
    }

    /// Adds how to mend it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error again, for several listeners; the cause stays with the original.
    #[must_use]
    pub fn restate(&self) -> Self {
        Self { code: self.code, message: self.message.clone(), help: self.help.clone(), source: None }
    }

    /// Why it failed.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// How to mend it.
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// A failed read or write of `path`.
    pub fn io(code: ErrorCode, doing: &str, path: &std::path::Path, error: std::io::Error) -> Self {
        let help = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded | std::io::ErrorKind::FileTooLarge => {
                Some("free some space, then run the same command again: nothing was committed")
            }
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                Some("check the permissions of the folder and who runs the command")
            }
            std::io::ErrorKind::NotFound => Some("check the path"),
            _ => None,
        };
        let new = Self::new(code, format!("cannot {doing} `{}`: {error}", path.display()));
        let new = match help {
            Some(help) => new.with_help(help),
            None => new,
        };
        new.with_source(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_code_has_its_own_word_and_exit_code() {
        let words: HashSet<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        let exits: HashSet<_> = ErrorCode::ALL.iter().map(|code| code.exit_code()).collect();
        assert_eq!(words.len(), ErrorCode::ALL.len());
        assert_eq!(exits.len(), ErrorCode::ALL.len());
        assert!(!exits.contains(&0) && !exits.contains(&3), "0 is success and 3 a rejected publication");
    }
}
