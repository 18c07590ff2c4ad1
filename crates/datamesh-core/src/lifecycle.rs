//! Where a product is in its life, and which of several majors a bare name means.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A product's status: draft -> active -> deprecated -> retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lifecycle {
    /// Nobody should rely on it yet.
    Draft,
    /// It keeps its promises.
    Active,
    /// It keeps them until its end of support.
    Deprecated,
    /// It is gone: neither published nor read.
    Retired,
}

impl Lifecycle {
    /// Every status, in the order of a life.
    pub const ALL: [Self; 4] = [Self::Draft, Self::Active, Self::Deprecated, Self::Retired];

    /// The status of a contract that says none: draft below 1.0.0.
    pub fn of_version(version: &semver::Version) -> Self {
        if version.major == 0 { Self::Draft } else { Self::Active }
    }

    /// The manifest's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Active => "active",
            Self::Deprecated => "deprecated",
            Self::Retired => "retired",
        }
    }

    /// The status that a word means.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// How much a bare name means a major of this status; greater is better, `None`: never.
    pub fn preference(self) -> Option<u8> {
        match self {
            Self::Active => Some(2),
            Self::Deprecated => Some(1),
            Self::Draft => Some(0),
            Self::Retired => None,
        }
    }
}

impl fmt::Display for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
