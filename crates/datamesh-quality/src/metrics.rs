//! Metric rules: states that are updated batch by batch, merged, and taken back for rows that leave the candidate.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::{
    DataType as Arrow, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use datamesh_core::Table;
use datamesh_core::quality::{Metric, MetricRule, Statistic, Threshold, Unit};
use datamesh_core::verdict::{GroupResult, GroupResults, MetricResult};

use crate::exact::{ExactSum, standard_deviation, take};
use crate::pattern::Pattern;
use crate::values::{ValueSet, valid};

/// How many groups a result names.
const GROUPS_SHOWN: usize = 5;
const MICROS_PER_DAY: i128 = 86_400_000_000;

/// An SQL condition on rows: a rule's `where`, which says which rows of a batch are measured, or what they must meet.
pub trait RowFilter: fmt::Debug + Send + Sync {
    /// The columns it looks at.
    fn columns(&self) -> &[String];

    /// The rows where the condition is true.
    ///
    /// # Errors
    /// Why the condition cannot be computed.
    fn select(&self, batch: &RecordBatch) -> Result<BooleanBuffer, String>;

    /// The rows where the condition is false.
    ///
    /// # Errors
    /// Why the condition cannot be computed.
    fn fails(&self, batch: &RecordBatch) -> Result<BooleanBuffer, String>;
}

/// The metric rules of a table, ready to run.
#[derive(Debug)]
pub struct MetricPlan {
    rules: Vec<PlannedRule>,
}

#[derive(Debug)]
struct PlannedRule {
    rule: MetricRule,
    measure: Measure,
    filter: Option<Arc<dyn RowFilter>>,
    /// What the rule's SQL conditions look at, wherever they are computed.
    named: Vec<String>,
    masked: bool,
}

#[derive(Debug)]
enum Measure {
    /// The number of rows says it.
    Rows,
    /// Rows that a test hits.
    Hits(Hits),
    /// Rows where a condition is false.
    Failed(Arc<dyn RowFilter>),
    /// A statistic of a column, whose decimals have this scale.
    Statistic(String, Summary, u8),
    /// Not a sum over rows: measured on the candidate table.
    Candidate,
}

/// Which rows a count counts. The same test serves the pass and the groups of a candidate.
#[derive(Debug)]
pub struct Hits {
    column: String,
    test: Test,
}

#[derive(Debug)]
enum Test {
    /// Rows where the column is null.
    Null,
    /// Rows where the value means missing.
    Missing { null: bool, set: ValueSet },
    /// Rows where the value is there and not valid.
    Invalid { valid: Option<ValueSet>, pattern: Option<Pattern> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Summary {
    Extremes,
    Sum,
    SumAndSquares,
}

/// States of the rules of one or more batches. Merging is associative and commutative, and what was merged can be taken
/// back: sums and counts exactly, extremes unless the least or greatest value itself goes; then the rule says that it
/// has to be measured anew.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetricStates {
    /// Rows counted.
    pub rows: i64,
    rules: Vec<RuleState>,
}

/// What is known of one rule.
#[derive(Clone, Debug, Default, PartialEq)]
struct RuleState {
    /// Rows that the rule's `where` selects.
    rows: i64,
    /// Rows that are hit, or that have a value.
    hits: i64,
    nan: i64,
    infinite: i64,
    negative_infinite: i64,
    sum: Option<Box<ExactSum>>,
    squares: Option<Box<ExactSum>>,
    least: Option<Number>,
    greatest: Option<Number>,
    stale: bool,
    error: Option<String>,
}

/// A number of a column: a whole or unscaled one, microseconds, or a double that is no NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Number {
    Whole(i128),
    Double(f64),
}

impl Number {
    fn compare(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) => a.cmp(&b),
            _ => self.double().total_cmp(&other.double()),
        }
    }

    fn double(self) -> f64 {
        match self {
            Self::Whole(value) => value as f64,
            Self::Double(value) => value,
        }
    }
}

/// The one of two numbers that is further on `side`.
fn extreme(a: Option<Number>, b: Option<Number>, side: Ordering) -> Option<Number> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.compare(a) == side { b } else { a }),
        (a, b) => a.or(b),
    }
}

impl MetricStates {
    /// Adds the states of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.combine(other, 1);
    }

    /// Takes the states of `other`, which were merged before, back.
    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, -1);
    }

    fn combine(&mut self, other: &Self, sign: i64) {
        self.rows += sign * other.rows;
        self.rules.resize(self.rules.len().max(other.rules.len()), RuleState::default());
        for (mine, other) in self.rules.iter_mut().zip(&other.rules) {
            mine.combine(other, sign);
        }
    }
}

impl RuleState {
    fn combine(&mut self, other: &Self, sign: i64) {
        self.rows += sign * other.rows;
        self.hits += sign * other.hits;
        self.nan += sign * other.nan;
        self.infinite += sign * other.infinite;
        self.negative_infinite += sign * other.negative_infinite;
        for (mine, other, empty) in [
            (&mut self.sum, &other.sum, ExactSum::of_values as fn() -> ExactSum),
            (&mut self.squares, &other.squares, ExactSum::of_squares),
        ] {
            if let Some(other) = other {
                mine.get_or_insert_with(|| Box::new(empty())).combine(other, sign);
            }
        }
        if sign > 0 {
            self.least = extreme(self.least, other.least, Ordering::Less);
            self.greatest = extreme(self.greatest, other.greatest, Ordering::Greater);
        } else {
            let gone = |mine: Option<Number>, other: Option<Number>, side: Ordering| match (mine, other) {
                (Some(mine), Some(other)) => mine.compare(other) != side,
                _ => false,
            };
            self.stale |=
                gone(self.least, other.least, Ordering::Less) || gone(self.greatest, other.greatest, Ordering::Greater);
        }
        self.stale |= other.stale;
        if sign < 0 && (self.error.is_some() || other.error.is_some()) {
            // What could not be computed may be what leaves.
            self.error = None;
            self.stale = true;
            return;
        }
        // The smaller of two texts, so that the order of merging does not show.
        self.error = match (self.error.take(), other.error.clone()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    fn add(&mut self, summary: Summary, array: &dyn Array, rows: &BooleanBuffer) {
        match array.data_type() {
            Arrow::Int32 => {
                let values = array.as_primitive::<Int32Type>().values();
                self.add_whole(summary, rows, |row| values[row].into());
            }
            Arrow::Int64 => {
                let values = array.as_primitive::<Int64Type>().values();
                self.add_whole(summary, rows, |row| values[row].into());
            }
            Arrow::Decimal128(..) => {
                let values = array.as_primitive::<Decimal128Type>().values();
                self.add_whole(summary, rows, |row| values[row]);
            }
            Arrow::Date32 => {
                let values = array.as_primitive::<Date32Type>().values();
                self.add_whole(summary, rows, |row| i128::from(values[row]) * MICROS_PER_DAY);
            }
            Arrow::Timestamp(..) => {
                let values = array.as_primitive::<TimestampMicrosecondType>().values();
                self.add_whole(summary, rows, |row| values[row].into());
            }
            Arrow::Float32 => {
                let values = array.as_primitive::<Float32Type>().values();
                self.add_doubles(summary, rows, |row| values[row].into());
            }
            Arrow::Float64 => {
                let values = array.as_primitive::<Float64Type>().values();
                self.add_doubles(summary, rows, |row| values[row]);
            }
            other => self.error = Some(format!("a column of type {other} has no such statistic")),
        }
    }

    fn add_whole(&mut self, summary: Summary, rows: &BooleanBuffer, value: impl Fn(usize) -> i128) {
        /// Squares of smaller numbers can be summed in 128 bits, a batch at a time.
        const SMALL: i128 = 1 << 50;
        if summary == Summary::Extremes {
            let mut least: Option<i128> = None;
            let mut greatest: Option<i128> = None;
            for row in rows.set_indices() {
                let value = value(row);
                least = Some(least.map_or(value, |least| least.min(value)));
                greatest = Some(greatest.map_or(value, |greatest| greatest.max(value)));
            }
            self.least = extreme(self.least, least.map(Number::Whole), Ordering::Less);
            self.greatest = extreme(self.greatest, greatest.map(Number::Whole), Ordering::Greater);
            return;
        }
        let sum = self.sum.get_or_insert_with(|| Box::new(ExactSum::of_values()));
        let mut squares = (summary == Summary::SumAndSquares)
            .then(|| self.squares.get_or_insert_with(|| Box::new(ExactSum::of_squares())));
        let (mut total, mut total_squares) = (0_i128, 0_i128);
        for row in rows.set_indices() {
            let value = value(row);
            if value.abs() < SMALL {
                total += value;
            } else {
                sum.add_integer(value);
            }
            if let Some(squares) = &mut squares {
                if value.abs() < SMALL {
                    total_squares += value * value;
                } else {
                    squares.add_integer_squared(value);
                }
            }
        }
        sum.add_integer(total);
        sum.settle();
        if let Some(squares) = squares {
            squares.add_integer(total_squares);
            squares.settle();
        }
    }

    fn add_doubles(&mut self, summary: Summary, rows: &BooleanBuffer, value: impl Fn(usize) -> f64) {
        let sums = summary != Summary::Extremes;
        let mut sum = sums.then(|| self.sum.take().unwrap_or_else(|| Box::new(ExactSum::of_values())));
        let mut squares = (summary == Summary::SumAndSquares)
            .then(|| self.squares.take().unwrap_or_else(|| Box::new(ExactSum::of_squares())));
        for row in rows.set_indices() {
            let value = value(row);
            if value.is_nan() {
                self.nan += 1;
            } else if !sums {
                // Both zeros are one number.
                let number = Some(Number::Double(value + 0.0));
                self.least = extreme(self.least, number, Ordering::Less);
                self.greatest = extreme(self.greatest, number, Ordering::Greater);
            } else if value == f64::INFINITY {
                self.infinite += 1;
            } else if value == f64::NEG_INFINITY {
                self.negative_infinite += 1;
            } else {
                if let Some(sum) = &mut sum {
                    sum.add_double(value);
                }
                if let Some(squares) = &mut squares {
                    squares.add_double_squared(value);
                }
            }
        }
        for sum in [&mut sum, &mut squares].into_iter().flatten() {
            sum.settle();
        }
        self.sum = sum.or(self.sum.take());
        self.squares = squares.or(self.squares.take());
    }

    /// The sum where it is not a plain number: NaN, or one of the infinities.
    fn beyond(&self) -> Option<f64> {
        match (self.nan, self.infinite, self.negative_infinite) {
            (0, 0, 0) => None,
            (0, _, 0) => Some(f64::INFINITY),
            (0, 0, _) => Some(f64::NEG_INFINITY),
            _ => Some(f64::NAN),
        }
    }

    fn statistic(&self, statistic: Statistic, scale: u8) -> Result<f64, String> {
        let unit = 10_f64.powi(scale.into());
        let none = || Err(NO_VALUE.to_owned());
        let shown = |number: Option<Number>| match number {
            _ if self.nan > 0 => Ok(f64::NAN),
            Some(number) => Ok(number.double() / unit),
            None => none(),
        };
        match statistic {
            Statistic::Minimum => shown(self.least),
            Statistic::Maximum => shown(self.greatest),
            Statistic::Sum | Statistic::Mean => {
                let count = if statistic == Statistic::Sum { 1.0 } else { self.hits as f64 };
                match (self.beyond(), &self.sum) {
                    _ if self.hits == 0 && statistic == Statistic::Mean => none(),
                    (Some(value), _) => Ok(value),
                    (None, Some(sum)) => Ok(sum.divided_by(count * unit)),
                    (None, None) => Ok(0.0),
                }
            }
            Statistic::StandardDeviation => match (self.beyond(), &self.sum, &self.squares) {
                _ if self.hits < 2 => Err("a standard deviation needs two values".to_owned()),
                (Some(_), ..) => Ok(f64::NAN),
                (None, Some(sum), Some(squares)) => standard_deviation(sum, squares, self.hits.unsigned_abs())
                    .map(|deviation| deviation / unit)
                    .ok_or_else(|| NO_VALUE.to_owned()),
                _ => none(),
            },
            Statistic::Quantile(_) | Statistic::CountDistinct => Err("was not measured".to_owned()),
        }
    }
}

/// A sum, mean or standard deviation in the making, in few bytes: an engine keeps one for each group. The same values
/// make the same measurement as in [`MetricStates`], whatever the order and the parts they come in.
#[derive(Clone, Debug)]
pub struct PackedStatistic {
    statistic: Statistic,
    summary: Summary,
    scale: u8,
    packed: Vec<u8>,
}

impl PackedStatistic {
    /// That of no values yet, of a column of numbers; `None` where the statistic is not made of sums of such a column.
    pub fn new(statistic: Statistic, data_type: &Arrow) -> Option<Self> {
        let summary = match statistic {
            Statistic::Mean | Statistic::Sum => Summary::Sum,
            Statistic::StandardDeviation => Summary::SumAndSquares,
            _ => return None,
        };
        let scale = match data_type {
            Arrow::Int32 | Arrow::Int64 | Arrow::Float32 | Arrow::Float64 => 0,
            Arrow::Decimal128(_, scale) => u8::try_from(*scale).ok()?,
            _ => return None,
        };
        Some(Self { statistic, summary, scale, packed: Vec::new() })
    }

    /// Adds the values of a column, nulls left out.
    ///
    /// # Errors
    /// Another type of column than the one it was made for.
    pub fn update(&mut self, array: &dyn Array) -> Result<(), String> {
        let there = valid(array);
        let mut state = self.state()?;
        state.hits += there.count_set_bits() as i64;
        state.add(self.summary, array, &there);
        match state.error.take() {
            Some(why) => Err(why),
            None => {
                self.pack(&state);
                Ok(())
            }
        }
    }

    /// Adds what another one of the same kind has packed.
    ///
    /// # Errors
    /// Bytes that no such statistic has packed.
    pub fn merge(&mut self, packed: &[u8]) -> Result<(), String> {
        if packed.is_empty() {
            return Ok(());
        }
        let mut state = self.state()?;
        self.add_packed(&mut state, packed)?;
        self.pack(&state);
        Ok(())
    }

    /// What it has of the values; empty of no batch.
    pub fn packed(&self) -> &[u8] {
        &self.packed
    }

    /// The measurement, where there is one.
    ///
    /// # Errors
    /// None of bytes that were packed here.
    pub fn value(&self) -> Result<Option<f64>, String> {
        Ok(self.state()?.statistic(self.statistic, self.scale).ok())
    }

    fn state(&self) -> Result<RuleState, String> {
        let mut state = RuleState::default();
        self.add_packed(&mut state, &self.packed)?;
        Ok(state)
    }

    fn add_packed(&self, state: &mut RuleState, mut bytes: &[u8]) -> Result<(), String> {
        if bytes.is_empty() {
            return Ok(());
        }
        let bytes = &mut bytes;
        let mut add = || {
            for count in [&mut state.hits, &mut state.nan, &mut state.infinite, &mut state.negative_infinite] {
                *count += i64::from_le_bytes(take(bytes)?);
            }
            state.sum.get_or_insert_with(|| Box::new(ExactSum::of_values())).add_packed(bytes)?;
            if self.summary == Summary::SumAndSquares {
                state.squares.get_or_insert_with(|| Box::new(ExactSum::of_squares())).add_packed(bytes)?;
            }
            bytes.is_empty().then_some(())
        };
        add().ok_or_else(|| "the bytes are no packed statistic".to_owned())
    }

    fn pack(&mut self, state: &RuleState) {
        self.packed.clear();
        for count in [state.hits, state.nan, state.infinite, state.negative_infinite] {
            self.packed.extend(count.to_le_bytes());
        }
        for sum in [&state.sum, &state.squares].into_iter().flatten() {
            sum.pack(&mut self.packed);
        }
    }
}

/// Why a statistic cannot be told of no values.
pub const NO_VALUE: &str = "there is no value to measure";

/// What the candidate table itself says about a rule.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// The measurement, where the states do not have it.
    pub own: Option<Result<f64, String>>,
    /// The groups, with `groupBy`.
    pub groups: Option<Result<GroupResults, String>>,
    /// What the other table measures, with `compareTo`.
    pub other: Option<Result<f64, String>>,
}

impl MetricPlan {
    /// Prepares the metric rules of `table`; `filter` compiles a rule's `where`.
    ///
    /// # Errors
    /// A condition, pattern or column that cannot be used; a checked manifest has none.
    pub fn compile(
        table: &Table,
        mut filter: impl FnMut(&str) -> Result<Arc<dyn RowFilter>, String>,
    ) -> Result<Self, String> {
        let mut rules = Vec::new();
        for rule in &table.metrics {
            let statistic = |column: &String, summary| {
                let scale = match table.column(column).map(|column| &column.data_type) {
                    Some(datamesh_core::DataType::Decimal(_, scale)) => *scale,
                    Some(_) => 0,
                    None => return Err(format!("no column `{column}`")),
                };
                Ok(Measure::Statistic(column.clone(), summary, scale))
            };
            let failing = match &rule.metric {
                Metric::FailedRows { condition } => {
                    Some(filter(condition).map_err(|why| format!("rule `{}`: {why}", rule.name)))
                }
                _ => None,
            };
            let selecting = rule
                .filter
                .as_ref()
                .map(|condition| filter(condition).map_err(|why| format!("rule `{}`: `where`: {why}", rule.name)));
            let compiled = || [&failing, &selecting].into_iter().flatten().flatten();
            let named: Vec<String> = compiled().flat_map(|condition| condition.columns().to_vec()).collect();
            // The files of a table may have older forms of a nested type, and say nothing of a row without columns.
            let scalar = |name: &String| table.column(name).is_some_and(|column| column.data_type.is_scalar());
            let in_pass =
                compiled().all(|condition| !condition.columns().is_empty() && condition.columns().iter().all(scalar));
            let measure = match &rule.metric {
                _ if !rule.group_by.is_empty() || !in_pass => Measure::Candidate,
                Metric::FailedRows { .. } => Measure::Failed(failing.ok_or("it has no condition")??),
                Metric::RowCount => Measure::Rows,
                Metric::NullValues { .. } | Metric::MissingValues { .. } | Metric::InvalidValues { .. } => {
                    Measure::Hits(Hits::compile(table, &rule.metric)?.ok_or("the rule counts no rows")?)
                }
                Metric::Freshness { column } => statistic(column, Summary::Extremes)?,
                Metric::Statistic { column, statistic: kind } => match kind {
                    Statistic::Minimum | Statistic::Maximum => statistic(column, Summary::Extremes)?,
                    Statistic::Mean | Statistic::Sum => statistic(column, Summary::Sum)?,
                    Statistic::StandardDeviation => statistic(column, Summary::SumAndSquares)?,
                    Statistic::Quantile(_) | Statistic::CountDistinct => Measure::Candidate,
                },
                Metric::DuplicateValues { .. }
                | Metric::Sql { .. }
                | Metric::OutOfOrderValues { .. }
                | Metric::OrphanedRows { .. }
                | Metric::SequenceGaps { .. } => Measure::Candidate,
            };
            let filter = match selecting {
                // The candidate tells what is wrong with it.
                _ if matches!(measure, Measure::Candidate) => None,
                Some(selecting) => Some(selecting?),
                None => None,
            };
            let masked = rule.shows_protected(table);
            rules.push(PlannedRule { rule: rule.clone(), measure, filter, named, masked });
        }
        Ok(Self { rules })
    }

    /// The columns that [`MetricPlan::update`] needs.
    pub fn columns(&self) -> Vec<&str> {
        let mut columns: Vec<&str> = Vec::new();
        for rule in &self.rules {
            match &rule.measure {
                Measure::Candidate => continue,
                Measure::Rows | Measure::Failed(_) => {}
                Measure::Hits(hits) => columns.push(&hits.column),
                Measure::Statistic(column, ..) => columns.push(column),
            }
            columns.extend(rule.named.iter().map(String::as_str));
        }
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// The columns that the rules' SQL conditions name, those of rules that the candidate itself must answer included.
    pub fn named_columns(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().flat_map(|rule| rule.named.iter().map(String::as_str))
    }

    /// The rules that have to be measured on the candidate table itself, beside those whose extremes went away.
    pub fn deferred<'a>(&'a self, states: &'a MetricStates) -> impl Iterator<Item = &'a MetricRule> {
        self.rules.iter().enumerate().filter_map(|(at, rule)| {
            let stale = states.rules.get(at).is_some_and(|state| state.stale);
            let needed = matches!(rule.measure, Measure::Candidate) || rule.rule.compare_to.is_some() || stale;
            needed.then_some(&rule.rule)
        })
    }

    /// Whether the states alone do not tell the rule's own measurement.
    pub fn needs_candidate(&self, states: &MetricStates, name: &str) -> bool {
        self.rules.iter().enumerate().any(|(at, rule)| {
            let stale = states.rules.get(at).is_some_and(|state| state.stale);
            rule.rule.name == name && (matches!(rule.measure, Measure::Candidate) || stale)
        })
    }

    /// Measures the rows of `batch` that `rows` selects, all where it is `None`. Columns are found by name.
    pub fn update(&self, states: &mut MetricStates, batch: &RecordBatch, rows: Option<&BooleanBuffer>) {
        states.rules.resize(self.rules.len(), RuleState::default());
        states.rows += rows.map_or(batch.num_rows(), BooleanBuffer::count_set_bits) as i64;
        for (rule, state) in self.rules.iter().zip(&mut states.rules) {
            if matches!(rule.measure, Measure::Candidate) {
                continue;
            }
            let selected = match (&rule.filter, rows) {
                (None, None) => BooleanBuffer::new_set(batch.num_rows()),
                (None, Some(rows)) => rows.clone(),
                (Some(filter), rows) => match select_among(filter.as_ref(), batch, rows) {
                    Ok(selected) => selected,
                    Err(why) => {
                        state.error.get_or_insert(why);
                        continue;
                    }
                },
            };
            state.rows += selected.count_set_bits() as i64;
            match &rule.measure {
                Measure::Rows | Measure::Candidate => {}
                Measure::Failed(condition) => match failed(condition.as_ref(), batch, &selected) {
                    Ok(failed) => state.hits += failed as i64,
                    Err(why) => _ = state.error.get_or_insert(why),
                },
                Measure::Hits(hits) => {
                    if let Some(found) = hits.find(batch) {
                        state.hits += (&found & &selected).count_set_bits() as i64;
                    }
                }
                Measure::Statistic(column, summary, _) => {
                    if let Some(array) = batch.column_by_name(column) {
                        let there = &selected & &valid(array);
                        state.hits += there.count_set_bits() as i64;
                        state.add(*summary, array, &there);
                    }
                }
            }
        }
    }

    /// Compares every rule's measurement with its thresholds. `candidate` answers the deferred rules by name; `now` is
    /// in microseconds since the epoch.
    pub fn judge(
        &self,
        states: &MetricStates,
        now: i64,
        candidate: impl Fn(&str) -> Option<Measured>,
    ) -> Vec<MetricResult> {
        let empty = RuleState::default();
        let results = self.rules.iter().enumerate().map(|(at, planned)| {
            let (rule, state) = (&planned.rule, states.rules.get(at).unwrap_or(&empty));
            let measured = candidate(&rule.name).unwrap_or_default();
            let mut result = MetricResult {
                rule: rule.name.clone(),
                metric: rule.metric.word().to_owned(),
                expected: format!("{}{}", rule.threshold, rule.unit.suffix()),
                severity: rule.severity,
                dimension: rule.dimension,
                warn: rule.warn.map(|warn| format!("{warn}{}", rule.unit.suffix())),
                masked: planned.masked,
                ..MetricResult::default()
            };
            if let Some(groups) = measured.groups {
                match groups {
                    Ok(groups) => {
                        result.value = groups.worst.first().and_then(|group| group.value);
                        result.compared_to = groups.worst.first().and_then(|group| group.compared_to);
                        result.passed = groups.failed == 0;
                        result.warned = groups.warned > 0;
                        result.groups = Some(groups);
                    }
                    Err(why) => result.error = Some(why),
                }
                return result;
            }
            let own = match measured.own {
                Some(own) => own,
                None => planned.value(state, states.rows, now),
            };
            let value = match (own, measured.other) {
                (Ok(own), Some(Ok(other))) => {
                    result.compared_to = Some(other).filter(|_| !planned.masked);
                    Ok(difference(own, other, rule.unit))
                }
                (Ok(_), Some(Err(why))) => Err(format!("the other table cannot be measured: {why}")),
                (own, _) => own,
            };
            match value {
                Ok(value) => {
                    result.passed = rule.threshold.holds(value);
                    result.warned = rule.warn.is_some_and(|warn| !warn.holds(value));
                    result.value = Some(value).filter(|_| !planned.masked);
                }
                Err(why) => result.error = Some(why),
            }
            result
        });
        results.collect()
    }
}

impl PlannedRule {
    fn value(&self, state: &RuleState, rows: i64, now: i64) -> Result<f64, String> {
        if let Some(error) = &state.error {
            return Err(error.clone());
        }
        match (&self.measure, &self.rule.metric) {
            (Measure::Rows, _) if self.filter.is_none() => Ok(rows as f64),
            (Measure::Rows, _) => Ok(state.rows as f64),
            (Measure::Hits(_) | Measure::Failed(_), _)
                if self.rule.unit == Unit::Percent && self.rule.compare_to.is_none() =>
            {
                Ok(percent(state.hits as f64, state.rows as f64))
            }
            (Measure::Hits(_) | Measure::Failed(_), _) => Ok(state.hits as f64),
            (Measure::Statistic(_, _, scale), Metric::Statistic { statistic, .. }) => {
                state.statistic(*statistic, *scale)
            }
            (Measure::Statistic(..), Metric::Freshness { .. }) => match state.greatest {
                Some(Number::Whole(newest)) => Ok(age(now, newest, self.rule.unit)),
                _ => Err(NO_VALUE.to_owned()),
            },
            _ => Err("was not measured".to_owned()),
        }
    }
}

/// How many of the rows of a batch that `selected` names fail a condition, which is computed for no other row.
fn failed(condition: &dyn RowFilter, batch: &RecordBatch, selected: &BooleanBuffer) -> Result<usize, String> {
    if selected.count_set_bits() == batch.num_rows() {
        return Ok(condition.fails(batch)?.count_set_bits());
    }
    Ok(condition.fails(&narrowed(condition, batch, selected)?)?.count_set_bits())
}

/// The rows of a batch that `rows` names and `filter` selects. It may be impossible to compute for other rows.
fn select_among(
    filter: &dyn RowFilter,
    batch: &RecordBatch,
    rows: Option<&BooleanBuffer>,
) -> Result<BooleanBuffer, String> {
    match (filter.select(batch), rows) {
        (Ok(selected), Some(rows)) => Ok(&selected & rows),
        (Err(_), Some(rows)) => {
            let selected = filter.select(&narrowed(filter, batch, rows)?)?;
            let mut selected = selected.iter();
            let is_selected = |row| rows.value(row) && selected.next().unwrap_or(false);
            Ok(BooleanBuffer::collect_bool(batch.num_rows(), is_selected))
        }
        (selected, None) => selected,
    }
}

/// What a condition looks at of some rows of a batch.
fn narrowed(condition: &dyn RowFilter, batch: &RecordBatch, rows: &BooleanBuffer) -> Result<RecordBatch, String> {
    let schema = batch.schema();
    let named: Vec<usize> = condition.columns().iter().filter_map(|name| schema.index_of(name).ok()).collect();
    let rows = BooleanArray::new(rows.clone(), None);
    let found = batch.project(&named).and_then(|batch| filter_record_batch(&batch, &rows));
    found.map_err(|error| error.to_string())
}

/// The time from `newest` to `now`, both in microseconds, in a unit of time; seconds where it is none.
pub fn age(now: i64, newest: i128, unit: Unit) -> f64 {
    (i128::from(now) - newest) as f64 / 1e6 / unit.seconds().unwrap_or(1.0)
}

/// `count` in percent of `rows`; 0 of no rows.
pub fn percent(count: f64, rows: f64) -> f64 {
    if rows == 0.0 { 0.0 } else { count * 100.0 / rows }
}

/// What a comparison judges.
fn difference(own: f64, other: f64, unit: Unit) -> f64 {
    let difference = (own - other).abs();
    match unit {
        Unit::Percent if difference == 0.0 => 0.0,
        Unit::Percent => difference * 100.0 / other.abs(),
        _ => difference,
    }
}

impl Hits {
    /// The test of a metric that counts rows one by one; `None` for the others.
    ///
    /// # Errors
    /// A pattern or column that cannot be used.
    pub fn compile(table: &Table, metric: &Metric) -> Result<Option<Self>, String> {
        let set = |column: &str, values: &mut dyn Iterator<Item = &str>| {
            let column = table.column(column).ok_or_else(|| format!("no column `{column}`"))?;
            Ok::<_, String>(ValueSet::new(values, &column.data_type))
        };
        let (column, test) = match metric {
            Metric::NullValues { column } => (column, Test::Null),
            Metric::MissingValues { column, missing } => (
                column,
                Test::Missing {
                    null: missing.iter().any(Option::is_none),
                    set: set(column, &mut missing.iter().flatten().map(String::as_str))?,
                },
            ),
            Metric::InvalidValues { column, valid, pattern } => (
                column,
                Test::Invalid {
                    valid: match valid {
                        Some(values) => Some(set(column, &mut values.iter().map(String::as_str))?),
                        None => None,
                    },
                    pattern: match pattern {
                        Some(pattern) => Some(Pattern::new(pattern)?),
                        None => None,
                    },
                },
            ),
            _ => return Ok(None),
        };
        Ok(Some(Self { column: column.clone(), test }))
    }

    /// The column it looks at.
    pub fn column(&self) -> &str {
        &self.column
    }

    fn find(&self, batch: &RecordBatch) -> Option<BooleanBuffer> {
        batch.column_by_name(&self.column).map(|array| self.test(array))
    }

    /// The rows that are hit.
    pub fn test(&self, array: &dyn Array) -> BooleanBuffer {
        match &self.test {
            Test::Null => !&valid(array),
            Test::Missing { null, set } => {
                let hits = set.contains(array);
                if *null { &hits | &!&valid(array) } else { hits }
            }
            Test::Invalid { valid: set, pattern } => {
                let mut good = BooleanBuffer::new_set(array.len());
                if let Some(set) = set {
                    good = &good & &set.contains(array);
                }
                if let Some(misses) = pattern.as_ref().and_then(|pattern| pattern.misses(array)) {
                    good = &good & &!&misses;
                }
                &valid(array) & &!&good
            }
        }
    }
}

/// Judges the groups of a rule as they come, and keeps the worst.
#[derive(Debug)]
pub struct GroupJudge {
    threshold: Threshold,
    warn: Option<Threshold>,
    unit: Unit,
    masked: bool,
    results: GroupResults,
    worst: Vec<(f64, GroupResult)>,
}

impl GroupJudge {
    /// Judges by the thresholds of `rule`; with `masked` no measurement is kept.
    pub fn new(rule: &MetricRule, masked: bool) -> Self {
        let results = GroupResults::default();
        Self { threshold: rule.threshold, warn: rule.warn, unit: rule.unit, masked, results, worst: Vec::new() }
    }

    /// Adds a group's measurement. `None` as its name masks it; without a value to measure it fails.
    pub fn add(&mut self, group: Option<Vec<Option<String>>>, value: Option<f64>) {
        self.push(group, value, None);
    }

    /// Adds the measurements of a group in both tables of a comparison.
    pub fn add_compared(&mut self, group: Option<Vec<Option<String>>>, own: Option<f64>, other: Option<f64>) {
        let value = own.zip(other).map(|(own, other)| difference(own, other, self.unit));
        self.push(group, value, other.filter(|_| value.is_some()));
    }

    fn push(&mut self, group: Option<Vec<Option<String>>>, value: Option<f64>, compared_to: Option<f64>) {
        let passed = value.is_some_and(|value| self.threshold.holds(value));
        self.results.count += 1;
        self.results.failed += u64::from(!passed);
        let warned = self.warn.zip(value).is_some_and(|(warn, value)| !warn.holds(value));
        self.results.warned += u64::from(warned);
        let excess = value.map_or(f64::INFINITY, |value| self.threshold.excess(value));
        let shown = |value: Option<f64>| value.filter(|_| !self.masked);
        let result = GroupResult { group, value: shown(value), compared_to: shown(compared_to), passed };
        // Groups come in any order; equal ones are told apart by name, so that a report repeats.
        let before = |other: &(f64, GroupResult)| {
            (!other.1.passed)
                .cmp(&!passed)
                .then(other.0.total_cmp(&excess))
                .then(result.group.cmp(&other.1.group))
                .is_ge()
        };
        let at = self.worst.partition_point(before);
        if at < GROUPS_SHOWN {
            self.worst.insert(at, (excess, result));
            self.worst.truncate(GROUPS_SHOWN);
        }
    }

    /// What was found.
    pub fn finish(self) -> GroupResults {
        GroupResults { worst: self.worst.into_iter().map(|(_, group)| group).collect(), ..self.results }
    }
}

#[cfg(test)]
mod tests;
