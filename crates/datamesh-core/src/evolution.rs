//! How a contract changes: what differs between two of them, what each difference does to those who rely on the
//! contract, and how large a step of the version it needs. Pure.
//!
//! [`compare`] names the changes, each by a rule of the one table in [`rules`]; [`judge`] says whether a version is far
//! enough from the one before. The direction is that of the promise: what consumers were promised and no longer are is
//! *loosened* and needs a new major version, what they are promised in addition is *tightened* and needs a minor one.
//!
//! INVARIANT: every field of the contract is compared. The comparing functions take the contract's types apart
//! without `..`, so that a new field does not compile until it has its rule.

mod access;
mod change;
mod columns;
mod constraints;
mod declared;
mod keys;
mod path;
mod product;
mod quality;
pub mod rules;
mod sla;
mod table;
#[cfg(test)]
mod tests;
mod thresholds;
mod version;

pub use change::{ChangeKind, ContractChange};
pub use path::ContractPath;
pub use product::compare;
pub use rules::{Bump, Direction, Rule};
pub use version::{Judgement, TooSmall, Why, judge, least_version, needed_bump};
