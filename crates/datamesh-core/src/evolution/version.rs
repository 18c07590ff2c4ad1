//! Whether a version is far enough from the one before (Semantic Versioning 2.0.0).

use std::fmt;

use semver::{Prerelease, Version};

use super::change::ContractChange;
use super::rules::Bump;
use crate::error::{Error, ErrorCode};

/// The step that changes need: the largest of any; `None` without changes. What needs a review counts as major, or, once
/// it was acknowledged, as minor: it breaks nobody then, but it is a change of the promise.
pub fn needed_bump<'c>(changes: impl IntoIterator<Item = &'c ContractChange>, acknowledged: bool) -> Option<Bump> {
    changes.into_iter().map(ContractChange::bump).max().map(|bump| settled(bump, acknowledged))
}

fn settled(bump: Bump, acknowledged: bool) -> Bump {
    match bump {
        Bump::Review if acknowledged => Bump::Minor,
        Bump::Review => Bump::Major,
        other => other,
    }
}

/// A version that is far enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The step that the changes need, before the rule for versions below 1.0.0; `None` without changes.
    pub needed: Option<Bump>,
    /// The step that the version takes; `None` where it is the same.
    pub taken: Option<Bump>,
}

/// Why a version is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The contract changed, the version did not.
    SameVersion,
    /// The version is lower than the one before.
    LowerVersion,
    /// The step is smaller than the changes need.
    SmallStep,
}

/// A version that is not far enough from the one before.
#[derive(Clone, Debug, PartialEq)]
pub struct TooSmall {
    /// Why it is refused.
    pub why: Why,
    /// The version before.
    pub before: Version,
    /// The version that is refused.
    pub after: Version,
    /// The step that the changes need, before the rule for versions below 1.0.0.
    pub needed: Bump,
    /// The least version that is enough.
    pub least: Version,
    /// The changes that need more than the step that was taken; none where the version is lower.
    pub changes: Vec<ContractChange>,
    /// Whether acknowledging the changes that need a review would make the version enough.
    pub acknowledging_helps: bool,
}

impl fmt::Display for TooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { before, after, needed, .. } = self;
        match self.why {
            Why::LowerVersion => write!(f, "version {after} is lower than {before}"),
            Why::SameVersion => write!(f, "the contract changed, but its version is still {before}"),
            Why::SmallStep if before.major == 0 && *needed > Bump::Minor => {
                write!(
                    f,
                    "{before} to {after} is too small a step: below 1.0.0 a breaking change needs a new minor version"
                )
            }
            Why::SmallStep => write!(f, "{before} to {after} is too small a step: the changes need a {needed} one"),
        }
    }
}

impl From<TooSmall> for Error {
    fn from(refused: TooSmall) -> Self {
        let acknowledge = if refused.acknowledging_helps {
            ", or add `--acknowledge` where the changes to review break nobody"
        } else {
            ""
        };
        let help = format!("set `version: {}` or higher{acknowledge}", refused.least);
        Self::new(ErrorCode::IncompatibleChange, refused.to_string()).with_help(help)
    }
}

/// Judges the version of a changed contract.
///
/// A new major version is always enough. Below 1.0.0 what needs a major version needs a minor one. A pre-release promises
/// nothing beyond the release before it: from `2.0.0-rc.1` on, everything may change until 2.0.0, from `1.2.0-rc.1` what a
/// minor version may change. Build metadata is no step.
///
/// # Errors
/// A version that is lower, the same although something changed, or too close.
pub fn judge(
    before: &Version,
    after: &Version,
    changes: &[ContractChange],
    acknowledged: bool,
) -> Result<Judgement, Box<TooSmall>> {
    let taken = step(before, after);
    let refuse = |why, changes: Vec<ContractChange>| {
        let needed = needed_bump(&changes, acknowledged).unwrap_or(Bump::Patch);
        let enough = |acknowledged| {
            let needed = needed_bump(&changes, acknowledged);
            matches!(taken, Some(Some(taken)) if needed.is_none_or(|needed| cap(before, needed) <= taken))
        };
        Box::new(TooSmall {
            why,
            before: before.clone(),
            after: after.clone(),
            needed,
            least: least_version(before, needed),
            acknowledging_helps: !acknowledged && enough(true),
            changes,
        })
    };
    let needed = needed_bump(changes, acknowledged);
    match (taken, needed) {
        (None, needed) => {
            let mut refused = refuse(Why::LowerVersion, Vec::new());
            refused.least = needed.map_or_else(|| before.clone(), |needed| least_version(before, needed));
            Err(refused)
        }
        (Some(None), Some(_)) => Err(refuse(Why::SameVersion, changes.to_vec())),
        (Some(Some(taken)), Some(needed)) if cap(before, needed) > taken => {
            let too_large = |change: &&ContractChange| cap(before, settled(change.bump(), acknowledged)) > taken;
            Err(refuse(Why::SmallStep, changes.iter().filter(too_large).cloned().collect()))
        }
        (Some(taken), needed) => Ok(Judgement { needed, taken }),
    }
}

/// What a needed step comes down to from this version on.
fn cap(before: &Version, needed: Bump) -> Bump {
    if before.major == 0 { needed.min(Bump::Minor) } else { needed }
}

/// The step from a version to another, `Some(None)` where they are the same; `None` where the other is lower.
fn step(before: &Version, after: &Version) -> Option<Option<Bump>> {
    match after.cmp_precedence(before) {
        std::cmp::Ordering::Less => return None,
        std::cmp::Ordering::Equal => return Some(None),
        std::cmp::Ordering::Greater => {}
    }
    let core = |version: &Version| (version.major, version.minor, version.patch);
    let step = if core(after) == core(before) {
        // From a pre-release: to what its release may change.
        match core(after) {
            (_, 0, 0) => Bump::Major,
            (_, _, 0) => Bump::Minor,
            _ => Bump::Patch,
        }
    } else if after.major > before.major {
        Bump::Major
    } else if after.minor > before.minor {
        Bump::Minor
    } else {
        Bump::Patch
    };
    Some(Some(step))
}

/// The least release that is enough for a step of this size.
pub fn least_version(before: &Version, needed: Bump) -> Version {
    let release = Version { pre: Prerelease::EMPTY, build: semver::BuildMetadata::EMPTY, ..before.clone() };
    if !before.pre.is_empty() && matches!(step(before, &release), Some(Some(step)) if step >= cap(before, needed)) {
        return release;
    }
    match cap(before, needed) {
        Bump::Patch => Version::new(before.major, before.minor, before.patch.saturating_add(1)),
        Bump::Minor => Version::new(before.major, before.minor.saturating_add(1), 0),
        Bump::Review | Bump::Major => Version::new(before.major.saturating_add(1), 0, 0),
    }
}
