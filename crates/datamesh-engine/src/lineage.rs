//! Column lineage from a logical plan.
//!
//! It is read from the plan as SQL was planned, before the analyzer and the optimizer. The analyzer adds casts that
//! nobody wrote, which would turn columns that are passed on as they are into computed ones; the optimizer turns
//! subqueries into joins, drops columns and folds conditions, so that a query's lineage would depend on its rules and on
//! statistics. In the plan as written common table expressions stand at each place that names them, as subqueries.
//!
//! Each relation of the plan has a value for every column and the inputs that decide its rows. What decides rows flows up
//! to the result; where a subquery is an expression, it flows into that expression's value.

mod expression;
mod relation;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use datafusion::common::TableReference;
use datafusion::logical_expr::LogicalPlan;
use datamesh_core::lineage::{ColumnLineage, Dataset, FieldLineage, FieldPath, Inputs, Subtype};
use datamesh_core::{Error, ErrorCode, Result};

use relation::Walker;

/// The stack of the thread that walks a plan. Generated queries nest deeply; the memory is touched only where needed.
const STACK: usize = 256 << 20;

/// What a table of the plan is: a dataset, or, for tables that the engine makes up, nothing.
pub(crate) type Datasets<'d> = dyn Fn(&TableReference) -> Result<Option<Dataset>> + Sync + 'd;

/// Where every output column of a plan comes from. `datasets` says what the plan's tables are.
///
/// # Errors
/// Plans that are no queries, and nodes of kinds that this does not know: a missing edge must not look like none.
pub(crate) fn column_lineage(plan: &LogicalPlan, datasets: &Datasets<'_>) -> Result<ColumnLineage> {
    let walk = || {
        let mut walker = Walker::new(datasets);
        let relation = walker.relation(plan)?;
        let names = plan.schema().fields().iter().map(|field| FieldPath::column(field.name()));
        let fields = names.zip(relation.columns);
        Ok(ColumnLineage {
            fields: fields.map(|(field, value)| FieldLineage { field, inputs: value.inputs }).collect(),
            dataset: relation.rows,
            reads: walker.reads,
        })
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("lineage".to_owned()).stack_size(STACK);
        let thread = thread.spawn_scoped(scope, walk).map_err(|error| {
            Error::new(ErrorCode::Internal, format!("cannot start a thread to read the plan: {error}"))
        })?;
        thread.join().unwrap_or_else(|_| Err(Error::new(ErrorCode::Internal, "reading the plan's lineage failed")))
    })
}

/// A value's inputs; of a struct that was put together from values also each field's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Value {
    inputs: Inputs,
    fields: Option<BTreeMap<String, Value>>,
}

impl Value {
    fn flat(inputs: Inputs) -> Self {
        Self { inputs, fields: None }
    }

    /// A field of this struct.
    fn field(&self, name: &str) -> Self {
        match &self.fields {
            Some(fields) => fields.get(name).cloned().unwrap_or_default(),
            None => Self::flat(self.inputs.field(name)),
        }
    }

    /// The value of a row that `rows` have a part in choosing; they have it in each of its fields.
    fn decided_by(&mut self, rows: &Inputs) {
        self.inputs.merge(rows.clone());
        for field in self.fields.iter_mut().flat_map(BTreeMap::values_mut) {
            field.decided_by(rows);
        }
    }

    /// A value that is either of the two, as in a column of a union.
    fn or(self, other: Self) -> Self {
        let fields = match (self.fields, other.fields) {
            (Some(mut ours), Some(theirs)) if ours.keys().eq(theirs.keys()) => {
                for (name, value) in theirs {
                    let own = ours.remove(&name).unwrap_or_default();
                    ours.insert(name, own.or(value));
                }
                Some(ours)
            }
            _ => None,
        };
        let mut inputs = self.inputs;
        inputs.merge(other.inputs);
        Self { inputs, fields }
    }
}

/// A relation's values and what decides its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Relation {
    columns: Vec<Value>,
    rows: Inputs,
}

impl Relation {
    /// `inputs` have a part in which rows there are.
    fn decide(&mut self, inputs: &Inputs, subtype: Subtype) {
        self.rows.merge(inputs.through(subtype));
    }
}

/// A plan that cannot be what was planned from SQL.
fn broken(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::Internal, format!("the plan's lineage cannot be read: {what}"))
}
