//! Carrying changes out, whatever the target answers.
//!
//! A change whose answer was lost is tried again and meets its own traces: an object that exists, is marked and is as it
//! should be was made; one that is gone was removed. An object that somebody else changed meanwhile is read and planned
//! anew. What was done stays done, so that the next run goes on where this one stopped.

use std::collections::{BTreeMap, BTreeSet};

use datamesh_core::{Error, ErrorCode, Result};
use serde::Serialize;

use super::{
    Change, Desired, Ownership, Plan, Refusal, Retry, Scope, State, Target, TargetError, Timer, compare, leftovers,
    ownership, plan,
};
use crate::catalog;

/// How to carry a plan out.
#[derive(Clone, Copy, Debug)]
pub struct ApplyOptions {
    /// Whether what is this mesh's and no longer wanted goes.
    pub prune: bool,
    /// How often a call is tried.
    pub retry: Retry,
    /// How often to read and plan anew where somebody else changes things meanwhile.
    pub rounds: u32,
}

impl Default for ApplyOptions {
    fn default() -> Self {
        Self { prune: false, retry: Retry::default(), rounds: 5 }
    }
}

/// What became of a plan.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// The changes that were carried out.
    pub done: Vec<Change>,
    /// Those that were not, and why.
    pub failed: Vec<Failure>,
}

/// A change that was not carried out.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The change.
    pub change: Change,
    /// Why.
    #[serde(serialize_with = "as_text")]
    pub error: Error,
}

fn as_text<S: serde::Serializer>(error: &Error, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(error)
}

impl Applied {
    /// An error where a change was not carried out.
    ///
    /// # Errors
    /// The first failure, with how many there are.
    pub fn check(&self) -> Result<()> {
        let Some(first) = self.failed.first() else { return Ok(()) };
        let (object, count) = (first.change.object(), self.failed.len());
        let more = if count > 1 { format!(" and {} more changes failed", count - 1) } else { String::new() };
        Err(Error::new(first.error.code(), format!("`{object}`: {}{more}", first.error))
            .with_help(first.error.help().unwrap_or("run the same command again: it goes on where this one stopped")))
    }
}

/// What became of one change.
enum Outcome {
    Done,
    /// The world is another than the plan was made for.
    Moved,
    Failed(Error),
    /// The target does not answer: nothing more is tried.
    Unavailable(Error),
}

/// A failure of a target as that of an operation.
pub(super) fn failure(target: &dyn Target, error: TargetError) -> Error {
    let name = target.name();
    match error {
        TargetError::Throttled(error) | TargetError::Unanswered(error) | TargetError::Failed(error) => error,
        TargetError::Conflict => {
            Error::new(ErrorCode::Conflict, format!("somebody else changes `{name}` at the same time"))
                .with_help("run the same command again")
        }
        TargetError::Exists | TargetError::Missing => {
            Error::new(ErrorCode::Conflict, format!("`{name}` changed while it was read"))
                .with_help("run the same command again")
        }
    }
}

/// What is there, of everything that is wanted or this mesh's.
///
/// # Errors
/// Where the target cannot be read.
pub async fn describe(target: &dyn Target, desired: &Desired, retry: Retry, timer: &dyn Timer) -> Result<State> {
    let scope = Scope { mesh: Some(desired.mesh.clone()), databases: desired.databases.keys().cloned().collect() };
    retry.run(timer, || target.describe(&scope)).await.map_err(|error| failure(target, error))
}

/// Makes the target what it should be. Applying twice changes nothing the second time.
///
/// # Errors
/// `plan-refused` where something is in the way: nothing is changed then. `conflict` where others kept changing the same
/// things. Changes that failed by themselves are in the answer.
pub async fn apply(
    target: &dyn Target,
    desired: &Desired,
    options: &ApplyOptions,
    timer: &dyn Timer,
) -> Result<Applied> {
    let mut applied = Applied::default();
    for _ in 0..options.rounds.max(1) {
        let state = describe(target, desired, options.retry, timer).await?;
        let plan = plan(desired, &state, options.prune);
        plan.check(&desired.mesh)?;
        if execute(target, &desired.mesh, &plan, options.retry, timer, &mut applied).await {
            return Ok(applied);
        }
    }
    Err(failure(target, TargetError::Conflict))
}

/// Makes databases what they should be and reads nothing else; those that are not there only where `make` says so. Nothing
/// is removed. What is not this mesh's stays as it is, and is in the second answer.
///
/// # Errors
/// `conflict` where others kept changing the same things. Changes that failed by themselves are in the answer.
pub async fn refresh(
    target: &dyn Target,
    desired: &Desired,
    make: bool,
    options: &ApplyOptions,
    timer: &dyn Timer,
) -> Result<(Applied, Vec<Refusal>)> {
    let (mut refreshed, mut refusals) = (Applied::default(), Vec::new());
    for (name, wanted) in &desired.databases {
        let desired =
            Desired { mesh: desired.mesh.clone(), databases: BTreeMap::from([(name.clone(), wanted.clone())]) };
        let mut applied = Applied::default();
        let mut rounds = 0..options.rounds.max(1);
        loop {
            if rounds.next().is_none() {
                return Err(failure(target, TargetError::Conflict));
            }
            let found = options.retry.run(timer, || target.database(name)).await;
            let found = found.map_err(|error| failure(target, error))?;
            if found.is_none() && !make {
                break;
            }
            let state = State { databases: found.map(|found| (name.clone(), found)).into_iter().collect() };
            let plan = plan(&desired, &state, false);
            if execute(target, &desired.mesh, &plan, options.retry, timer, &mut applied).await {
                refusals.extend(plan.refusals);
                break;
            }
        }
        refreshed.done.extend(applied.done);
        refreshed.failed.extend(applied.failed);
    }
    Ok((refreshed, refusals))
}

/// Whether a database, or a table in it, is this mesh's to remove.
///
/// # Errors
/// The target's own.
pub async fn holds(
    target: &dyn Target,
    mesh: &str,
    database: &str,
    options: &ApplyOptions,
    timer: &dyn Timer,
) -> Result<bool> {
    let found = options.retry.run(timer, || target.database(database)).await;
    let Some(found) = found.map_err(|error| failure(target, error))? else { return Ok(false) };
    let mut parameters = found.tables.values().map(|table| &table.table.parameters).chain([&found.database.parameters]);
    Ok(parameters.any(|parameters| ownership(parameters, mesh) == Ownership::Ours))
}

/// Removes what this mesh made in a database and nobody wants there, and the database, where nobody wants it and nothing
/// else is in it. Files of tables are not touched.
///
/// # Errors
/// As [`apply`].
pub async fn clear(
    target: &dyn Target,
    desired: &Desired,
    database: &str,
    options: &ApplyOptions,
    timer: &dyn Timer,
) -> Result<Applied> {
    let mut applied = Applied::default();
    for _ in 0..options.rounds.max(1) {
        let found = options.retry.run(timer, || target.database(database)).await;
        let Some(found) = found.map_err(|error| failure(target, error))? else { return Ok(applied) };
        let state = State { databases: BTreeMap::from([(database.to_owned(), found)]) };
        let mut plan = Plan::default();
        leftovers(&mut plan, desired, &state, true);
        if execute(target, &desired.mesh, &plan, options.retry, timer, &mut applied).await {
            return Ok(applied);
        }
    }
    Err(failure(target, TargetError::Conflict))
}

/// Removes what this mesh made, of some databases or of all. A database that holds somebody else's table stays. Files of
/// tables are not touched.
///
/// # Errors
/// As [`apply`].
pub async fn destroy(
    target: &dyn Target,
    mesh: &str,
    only: Option<&BTreeSet<String>>,
    options: &ApplyOptions,
    timer: &dyn Timer,
) -> Result<Applied> {
    let mut applied = Applied::default();
    let nothing = Desired { mesh: mesh.to_owned(), databases: BTreeMap::new() };
    for _ in 0..options.rounds.max(1) {
        let mut state = describe(target, &nothing, options.retry, timer).await?;
        state.databases.retain(|name, _| only.is_none_or(|only| only.contains(name)));
        let plan = plan(&nothing, &state, true);
        if execute(target, mesh, &plan, options.retry, timer, &mut applied).await {
            return Ok(applied);
        }
    }
    Err(failure(target, TargetError::Conflict))
}

/// Carries a plan out; `false`: something moved, and the rest is to be planned anew.
async fn execute(
    target: &dyn Target,
    mesh: &str,
    plan: &Plan,
    retry: Retry,
    timer: &dyn Timer,
    applied: &mut Applied,
) -> bool {
    let mut settled = true;
    let mut broken = BTreeSet::new();
    applied.failed.clear();
    for change in &plan.changes {
        // What stands in a database that could not be made cannot be made either.
        if broken.contains(change.database()) {
            continue;
        }
        match perform(target, mesh, change, retry, timer).await {
            Outcome::Done => applied.done.push(change.clone()),
            Outcome::Moved => settled = false,
            Outcome::Failed(error) => {
                if matches!(change, Change::CreateDatabase { .. }) {
                    broken.insert(change.database().to_owned());
                }
                applied.failed.push(Failure { change: change.clone(), error });
            }
            Outcome::Unavailable(error) => {
                applied.failed.push(Failure { change: change.clone(), error });
                return true;
            }
        }
    }
    settled
}

async fn perform(target: &dyn Target, mesh: &str, change: &Change, retry: Retry, timer: &dyn Timer) -> Outcome {
    // What is removed is read once more: it may have become somebody else's since the plan.
    match retry.run(timer, || may_remove(target, mesh, change)).await {
        Ok(Some(outcome)) => return outcome,
        Ok(None) => {}
        Err(error) => return unavailable(target, error),
    }
    match retry.run(timer, || target.execute(change)).await {
        Ok(()) => Outcome::Done,
        Err(TargetError::Missing) if matches!(change, Change::DeleteTable { .. } | Change::DeleteDatabase { .. }) => {
            Outcome::Done
        }
        Err(TargetError::Exists | TargetError::Conflict | TargetError::Missing) => {
            match retry.run(timer, || is_done(target, mesh, change)).await {
                Ok(true) => Outcome::Done,
                Ok(false) => Outcome::Moved,
                Err(error) => unavailable(target, error),
            }
        }
        Err(error) => unavailable(target, error),
    }
}

fn unavailable(target: &dyn Target, error: TargetError) -> Outcome {
    match error {
        TargetError::Failed(error) => Outcome::Failed(error),
        error => Outcome::Unavailable(failure(target, error)),
    }
}

/// Whether a removal may go on; the outcome where it may not, or need not.
async fn may_remove(target: &dyn Target, mesh: &str, change: &Change) -> Result<Option<Outcome>, TargetError> {
    let ours = |parameters: &BTreeMap<String, String>| ownership(parameters, mesh) == Ownership::Ours;
    Ok(match change {
        Change::DeleteTable { database, table } => match target.table(database, table).await? {
            None => Some(Outcome::Done),
            Some(found) if ours(&found.table.parameters) => None,
            Some(_) => Some(Outcome::Moved),
        },
        Change::DeleteDatabase { database } => match target.database(database).await? {
            None => Some(Outcome::Done),
            Some(found) if ours(&found.database.parameters) && found.tables.is_empty() => None,
            Some(_) => Some(Outcome::Moved),
        },
        Change::UpdateDatabase { database, .. } => match target.database(&database.name).await? {
            Some(found) if ours(&found.database.parameters) => None,
            _ => Some(Outcome::Moved),
        },
        _ => None,
    })
}

/// Whether the object is what the change would make it: then it was this change, whose answer was lost.
async fn is_done(target: &dyn Target, mesh: &str, change: &Change) -> Result<bool, TargetError> {
    let ours = |parameters: &BTreeMap<String, String>| ownership(parameters, mesh) != Ownership::Foreign;
    Ok(match change {
        Change::CreateDatabase { database } | Change::UpdateDatabase { database, .. } => {
            target.database(&database.name).await?.is_some_and(|found| {
                ours(&found.database.parameters) && compare::database(&found.database, database).1.is_empty()
            })
        }
        Change::CreateTable { database, table } | Change::UpdateTable { database, table, .. } => target
            .table(database, &table.name)
            .await?
            .is_some_and(|found| ours(&found.table.parameters) && compare::table(&found.table, table).1.is_empty()),
        Change::DeleteTable { database, table } => target.table(database, table).await?.is_none(),
        Change::DeleteDatabase { database } => target.database(database).await?.is_none(),
    })
}

/// A table whose metadata document is another now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointerChange {
    /// Its database.
    pub database: String,
    /// Its name.
    pub table: String,
    /// URL of the document.
    pub metadata_location: String,
    /// The publication that it is of.
    pub publication: u64,
    /// Number of the outbox's entry that tells of it.
    pub sequence: u64,
}

/// What became of changed pointers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Synced {
    /// Tables that follow now, `database.table`.
    pub moved: Vec<String>,
    /// Tables that had followed already, or gone further.
    pub current: Vec<String>,
    /// Tables that are not there.
    pub absent: Vec<String>,
}

/// Brings pointers up to date, and nothing else. Pointers only move on: an old change does nothing.
///
/// # Errors
/// `plan-refused` where a table is not this mesh's, `conflict`, or the target's own. Those before it have moved.
pub async fn sync(
    target: &dyn Target,
    mesh: &str,
    pointers: &[PointerChange],
    options: &ApplyOptions,
    timer: &dyn Timer,
) -> Result<Synced> {
    let mut synced = Synced::default();
    for pointer in pointers {
        let object = format!("{}.{}", pointer.database, pointer.table);
        match follow(target, mesh, pointer, options, timer).await? {
            Some(true) => synced.moved.push(object),
            Some(false) => synced.current.push(object),
            None => synced.absent.push(object),
        }
    }
    Ok(synced)
}

/// Moves one pointer; `Some(false)`: nothing was to do, `None`: there is no such table.
async fn follow(
    target: &dyn Target,
    mesh: &str,
    pointer: &PointerChange,
    options: &ApplyOptions,
    timer: &dyn Timer,
) -> Result<Option<bool>> {
    let wanted = BTreeMap::from([
        (catalog::TABLE_TYPE.to_owned(), "ICEBERG".to_owned()),
        (catalog::METADATA_LOCATION.to_owned(), pointer.metadata_location.clone()),
        (catalog::PUBLICATION.to_owned(), pointer.publication.to_string()),
        (catalog::SEQUENCE.to_owned(), pointer.sequence.to_string()),
    ]);
    for _ in 0..options.rounds.max(1) {
        let read = options.retry.run(timer, || target.table(&pointer.database, &pointer.table)).await;
        let Some(found) = read.map_err(|error| failure(target, error))? else { return Ok(None) };
        if ownership(&found.table.parameters, mesh) == Ownership::Foreign {
            let object = format!("{}.{}", pointer.database, pointer.table);
            return Err(Error::new(
                ErrorCode::PlanRefused,
                format!("`{object}` exists, and this mesh did not make it"),
            )
            .with_help("give this mesh's databases another prefix, or remove what is in the way"));
        }
        let (table, differences) = compare::pointer(&found.table, &wanted);
        if differences.is_empty() {
            return Ok(Some(false));
        }
        let change =
            Change::UpdateTable { database: pointer.database.clone(), table, expected: found.version, differences };
        match perform(target, mesh, &change, options.retry, timer).await {
            Outcome::Done => return Ok(Some(true)),
            Outcome::Moved => {}
            Outcome::Failed(error) | Outcome::Unavailable(error) => return Err(error),
        }
    }
    Err(failure(target, TargetError::Conflict))
}
