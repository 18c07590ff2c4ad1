//! Metric rules: counts that are updated batch by batch, merged, and taken back for rows that leave the candidate.

use arrow::array::{Array, RecordBatch};
use arrow::buffer::BooleanBuffer;
use datamesh_core::Table;
use datamesh_core::quality::{Metric, MetricRule, Unit};
use datamesh_core::verdict::MetricResult;
use regex::Regex;

use crate::values::{ValueSet, test_texts, valid};

/// The metric rules of a table, ready to run.
#[derive(Debug)]
pub struct MetricPlan {
    rules: Vec<(MetricRule, Count)>,
}

#[derive(Debug)]
enum Count {
    /// The number of rows says it.
    Rows,
    /// Rows where the column is null.
    Null(String),
    /// Rows where the value means missing.
    Missing { column: String, null: bool, set: ValueSet },
    /// Rows where the value is there and not valid.
    Invalid { column: String, valid: Option<ValueSet>, pattern: Option<Regex> },
    /// Not a sum over rows: measured on the candidate table.
    Candidate,
}

/// Counts of one or more batches. Merging is addition: associative, commutative, and invertible.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricStates {
    /// Rows counted.
    pub rows: i64,
    counts: Vec<i64>,
}

impl MetricStates {
    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.combine(other, 1);
    }

    /// Takes the counts of `other` back.
    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, -1);
    }

    fn combine(&mut self, other: &Self, sign: i64) {
        self.rows += sign * other.rows;
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        for (count, other) in self.counts.iter_mut().zip(&other.counts) {
            *count += sign * other;
        }
    }
}

impl MetricPlan {
    /// Prepares the metric rules of `table`.
    ///
    /// # Errors
    /// A pattern or column that cannot be used; a checked manifest has none.
    pub fn compile(table: &Table) -> Result<Self, String> {
        let set = |column: &str, values: &mut dyn Iterator<Item = &str>| {
            let column = table.column(column).ok_or_else(|| format!("no column `{column}`"))?;
            Ok::<_, String>(ValueSet::new(values, &column.data_type))
        };
        let mut rules = Vec::new();
        for rule in &table.metrics {
            let count = match &rule.metric {
                Metric::RowCount => Count::Rows,
                Metric::NullValues { column } => Count::Null(column.clone()),
                Metric::MissingValues { column, missing } => Count::Missing {
                    column: column.clone(),
                    null: missing.iter().any(Option::is_none),
                    set: set(column, &mut missing.iter().flatten().map(String::as_str))?,
                },
                Metric::InvalidValues { column, valid, pattern } => Count::Invalid {
                    column: column.clone(),
                    valid: match valid {
                        Some(values) => Some(set(column, &mut values.iter().map(String::as_str))?),
                        None => None,
                    },
                    pattern: match pattern {
                        Some(pattern) => Some(Regex::new(pattern).map_err(|error| error.to_string())?),
                        None => None,
                    },
                },
                Metric::DuplicateValues { .. } | Metric::Sql { .. } => Count::Candidate,
            };
            rules.push((rule.clone(), count));
        }
        Ok(Self { rules })
    }

    /// The columns that [`MetricPlan::update`] needs.
    pub fn columns(&self) -> Vec<&str> {
        let mut columns: Vec<&str> = self
            .rules
            .iter()
            .filter_map(|(_, count)| match count {
                Count::Rows | Count::Candidate => None,
                Count::Null(column) | Count::Missing { column, .. } | Count::Invalid { column, .. } => {
                    Some(column.as_str())
                }
            })
            .collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// The rules that have to be measured on the candidate table itself, by name.
    pub fn deferred(&self) -> impl Iterator<Item = &MetricRule> {
        self.rules.iter().filter(|(_, count)| matches!(count, Count::Candidate)).map(|(rule, _)| rule)
    }

    /// Counts the rows of `batch` that `rows` selects, all where it is `None`. Columns are found by name.
    pub fn update(&self, states: &mut MetricStates, batch: &RecordBatch, rows: Option<&BooleanBuffer>) {
        states.counts.resize(self.rules.len(), 0);
        states.rows += rows.map_or(batch.num_rows(), BooleanBuffer::count_set_bits) as i64;
        for ((_, count), state) in self.rules.iter().zip(&mut states.counts) {
            if let Some(hits) = count.hits(batch) {
                let hits = match rows {
                    Some(rows) => &hits & rows,
                    None => hits,
                };
                *state += hits.count_set_bits() as i64;
            }
        }
    }

    /// Compares every rule's measurement with its threshold. `candidate` answers the deferred rules by name.
    pub fn judge(
        &self,
        states: &MetricStates,
        candidate: impl Fn(&str) -> Option<Result<f64, String>>,
    ) -> Vec<MetricResult> {
        let mut results = Vec::new();
        for (index, (rule, count)) in self.rules.iter().enumerate() {
            let measured = match count {
                Count::Rows => Ok(states.rows as f64),
                Count::Candidate => candidate(&rule.name).unwrap_or_else(|| Err("was not measured".into())),
                _ => Ok(states.counts.get(index).copied().unwrap_or(0) as f64),
            };
            let (value, error) = match measured {
                Ok(value) if rule.unit == Unit::Percent => (Some(percent(value, states.rows)), None),
                Ok(value) => (Some(value), None),
                Err(error) => (None, Some(error)),
            };
            let sign = if rule.unit == Unit::Percent { "%" } else { "" };
            results.push(MetricResult {
                rule: rule.name.clone(),
                metric: rule.metric.word().to_owned(),
                value,
                expected: format!("{}{sign}", rule.threshold),
                passed: value.is_some_and(|value| rule.threshold.holds(value)),
                severity: rule.severity,
                dimension: rule.dimension,
                error,
            });
        }
        results
    }
}

fn percent(count: f64, rows: i64) -> f64 {
    if rows == 0 { 0.0 } else { count * 100.0 / rows as f64 }
}

impl Count {
    fn hits(&self, batch: &RecordBatch) -> Option<BooleanBuffer> {
        match self {
            Self::Rows | Self::Candidate => None,
            Self::Null(column) => Some(!&valid(batch.column_by_name(column)?)),
            Self::Missing { column, null, set } => {
                let array = batch.column_by_name(column)?;
                let hits = set.contains(array);
                Some(if *null { &hits | &!&valid(array) } else { hits })
            }
            Self::Invalid { column, valid: set, pattern } => {
                let array = batch.column_by_name(column)?;
                let mut good = BooleanBuffer::new_set(array.len());
                if let Some(set) = set {
                    good = &good & &set.contains(array);
                }
                if let Some(pattern) = pattern
                    && let Some(matches) = test_texts(array, |text| pattern.is_match(text))
                {
                    good = &good & &matches;
                }
                Some(&valid(array) & &!&good)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn states(rows: i64, counts: Vec<i64>) -> MetricStates {
        MetricStates { rows, counts }
    }

    proptest! {
        #[test]
        fn merge_is_associative_commutative_and_invertible(
            a in (0..100_i64, prop::collection::vec(0..100_i64, 3)),
            b in (0..100_i64, prop::collection::vec(0..100_i64, 3)),
            c in (0..100_i64, prop::collection::vec(0..100_i64, 3)),
        ) {
            let (a, b, c) = (states(a.0, a.1), states(b.0, b.1), states(c.0, c.1));
            let merged = |parts: &[&MetricStates]| parts.iter().fold(MetricStates::default(), |mut sum, part| { sum.merge(part); sum });
            let mut bc = b.clone();
            bc.merge(&c);
            prop_assert_eq!(merged(&[&merged(&[&a, &b]), &c]), merged(&[&a, &bc]));
            prop_assert_eq!(merged(&[&a, &b]), merged(&[&b, &a]));
            let mut back = merged(&[&a, &b]);
            back.subtract(&b);
            prop_assert_eq!(back, a);
        }
    }
}
