//! A catalog in memory that fails as told, and clocks that do not wait.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use datamesh_core::{Error, ErrorCode};
use datamesh_provision::provision::{Change, FoundDatabase, FoundTable, Scope, State, Target, TargetError, Timer};

/// What happens to a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// It is refused, for a while.
    Throttled,
    /// It is done, and nobody hears of it.
    AnswerLost,
    /// It is not done, and nobody hears of it.
    RequestLost,
    /// It cannot be done.
    Failed,
}

/// What somebody else does.
type Meanwhile = Box<dyn FnOnce(&mut State) + Send>;

/// A catalog in memory.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) state: Mutex<State>,
    pub(crate) faults: Mutex<VecDeque<Fault>>,
    /// How many changes were asked for.
    pub(crate) asked: Mutex<u64>,
    /// How often everything was read.
    pub(crate) described: Mutex<u64>,
    /// Done once, before the next update of a table: what somebody else does.
    pub(crate) meanwhile: Mutex<Option<Meanwhile>>,
}

impl Memory {
    fn version(&self) -> Option<String> {
        Some(self.asked.lock().unwrap().to_string())
    }

    fn carry_out(&self, change: &Change) -> Result<(), TargetError> {
        let mut state = self.state.lock().unwrap();
        let databases = &mut state.databases;
        match change {
            Change::CreateDatabase { database } => {
                if databases.contains_key(&database.name) {
                    return Err(TargetError::Exists);
                }
                let found = FoundDatabase { database: database.clone(), tables: BTreeMap::new() };
                databases.insert(database.name.clone(), found);
            }
            Change::UpdateDatabase { database, .. } => {
                databases.get_mut(&database.name).ok_or(TargetError::Missing)?.database = database.clone();
            }
            Change::CreateTable { database, table } => {
                let tables = &mut databases.get_mut(database).ok_or(TargetError::Missing)?.tables;
                if tables.contains_key(&table.name) {
                    return Err(TargetError::Exists);
                }
                tables.insert(table.name.clone(), FoundTable { table: table.clone(), version: self.version() });
            }
            Change::UpdateTable { database, table, expected, .. } => {
                let tables = &mut databases.get_mut(database).ok_or(TargetError::Missing)?.tables;
                let found = tables.get_mut(&table.name).ok_or(TargetError::Missing)?;
                if *expected != found.version {
                    return Err(TargetError::Conflict);
                }
                *found = FoundTable { table: table.clone(), version: self.version() };
            }
            Change::DeleteTable { database, table } => {
                let tables = &mut databases.get_mut(database).ok_or(TargetError::Missing)?.tables;
                tables.remove(table).ok_or(TargetError::Missing)?;
            }
            Change::DeleteDatabase { database } => {
                databases.remove(database).ok_or(TargetError::Missing)?;
            }
        }
        Ok(())
    }
}

fn error(text: &str) -> Error {
    Error::new(ErrorCode::WriteFailed, text)
}

#[async_trait]
impl Target for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn place(&self) -> String {
        "test".to_owned()
    }

    async fn describe(&self, scope: &Scope) -> Result<State, TargetError> {
        *self.described.lock().unwrap() += 1;
        let mut state = self.state.lock().unwrap().clone();
        state.databases.retain(|_, found| scope.covers(&found.database));
        Ok(state)
    }

    async fn database(&self, name: &str) -> Result<Option<FoundDatabase>, TargetError> {
        Ok(self.state.lock().unwrap().databases.get(name).cloned())
    }

    async fn table(&self, database: &str, name: &str) -> Result<Option<FoundTable>, TargetError> {
        let state = self.state.lock().unwrap();
        Ok(state.databases.get(database).and_then(|found| found.tables.get(name)).cloned())
    }

    async fn execute(&self, change: &Change) -> Result<(), TargetError> {
        *self.asked.lock().unwrap() += 1;
        if matches!(change, Change::UpdateTable { .. })
            && let Some(meanwhile) = self.meanwhile.lock().unwrap().take()
        {
            meanwhile(&mut self.state.lock().unwrap());
        }
        match self.faults.lock().unwrap().pop_front().unwrap_or(Fault::None) {
            Fault::None => self.carry_out(change),
            Fault::Throttled => Err(TargetError::Throttled(error("too much at once"))),
            Fault::RequestLost => Err(TargetError::Unanswered(error("no answer"))),
            Fault::AnswerLost => {
                self.carry_out(change)?;
                Err(TargetError::Unanswered(error("no answer")))
            }
            Fault::Failed => Err(TargetError::Failed(error("it cannot be done"))),
        }
    }
}

/// Notes how long it would have waited, and takes the longest wait.
#[derive(Default)]
pub(crate) struct Waits(pub(crate) Mutex<Vec<Duration>>);

#[async_trait]
impl Timer for Waits {
    async fn sleep(&self, duration: Duration) {
        self.0.lock().unwrap().push(duration);
    }

    fn random(&self) -> f64 {
        1.0
    }
}
