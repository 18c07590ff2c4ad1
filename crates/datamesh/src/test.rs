//! `datamesh test`: transforms over fixture rows, compared with the rows they must make.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use chrono::DateTime;
use datamesh_app::ports::{BoundSource, Engine, StageInput};
use datamesh_core::contract::{CsvOptions, DataProduct, FileSource};
use datamesh_core::transform::TableRead;
use datamesh_core::{Error, ErrorCode, Result, Table};
use datamesh_engine::{DataEngine, GivenRows, GivenTable};
use datamesh_manifest::transform_tests::{ExpectedFixture, FixtureRows, TransformTest, input_table, load_tests};
use datamesh_manifest::{LoadedProduct, Mesh, load_mesh};
use serde_json::{Map, Value, json};

use crate::cli::{ReportFormat, TestArguments};
use crate::commands::find_manifest;
use crate::{EXIT_REJECTED, home, output};

/// What `now()` answers in a test that does not say: midnight of 1 January 2000.
const NOW: i64 = 946_684_800_000_000;
/// Rows of a difference that are shown.
const MAX_SHOWN: usize = 20;

pub(crate) async fn run(arguments: &TestArguments, told: Option<&Path>, memory: usize) -> Result<u8> {
    let root = home::find(told)?;
    let mut mesh = load_mesh(&root)?;
    let products: Vec<LoadedProduct> = match &arguments.product {
        Some(wanted) => vec![find_manifest(&root, wanted)?],
        None => mesh.products.clone(),
    };
    let engine = home::engine(&root, memory)?;
    let mut suites: Vec<(LoadedProduct, Vec<TransformTest>)> = Vec::new();
    for product in products {
        let tests = load_tests(&mut mesh, &product)?;
        suites.push((product, tests));
    }
    if mesh.has_errors() {
        output::print_problems(&mesh.diagnostics, &mesh.sources);
        return Err(Error::new(ErrorCode::InvalidManifest, "nothing is tested: there are documents with errors")
            .with_help("mend them; `datamesh check` lists all problems"));
    }
    for fixture in suites.iter().flat_map(|(_, tests)| tests).flat_map(fixture_files) {
        // A fixture is a file of its author; what the mesh keeps is read as a table. One that cannot be read fails its test.
        let places = engine.own_places(&StageInput::Source(fixture)).await.unwrap_or_default();
        if let Some(place) = places.first() {
            home::read_location(told, place, "test").await?;
        }
    }
    let mut results = Vec::new();
    for (product, tests) in &suites {
        for test in tests {
            let result = run_test(&engine, &mesh, product, test).await;
            if arguments.format == ReportFormat::Text {
                output::print(&result.text());
            }
            results.push(result);
        }
    }
    let failed = results.iter().filter(|result| !result.passed()).count();
    match arguments.format {
        ReportFormat::Json => output::print_json(&json!({
            "tests": results.iter().map(TestResult::to_json).collect::<Vec<_>>(),
            "passed": results.len() - failed,
            "failed": failed,
        }))?,
        ReportFormat::Text => {
            output::print(&format!("{} passed, {failed} failed\n", results.len() - failed));
        }
    }
    Ok(if failed > 0 { EXIT_REJECTED } else { 0 })
}

struct TestResult {
    product: String,
    name: String,
    file: String,
    line: usize,
    /// Why the test could not be run.
    error: Option<Error>,
    differences: Vec<Difference>,
    /// A table differs whose transform asks for the time, which the test does not say.
    timeless: bool,
}

type Row = Map<String, Value>;

/// What one table has otherwise than expected.
struct Difference {
    table: String,
    columns: Vec<String>,
    expected: usize,
    actual: usize,
    /// Rows that should be there, each with the row that stands in its place, where one is similar.
    missing: Vec<(Row, Option<Row>)>,
    unexpected: Vec<Map<String, Value>>,
}

impl TestResult {
    fn passed(&self) -> bool {
        self.error.is_none() && self.differences.is_empty()
    }

    fn text(&self) -> String {
        let word = if self.passed() { "ok  " } else { "FAIL" };
        let mut text = format!("{word} {}: {}", self.product, self.name);
        if self.passed() {
            return text + "\n";
        }
        text.push_str(&format!("  ({}:{})\n", self.file, self.line));
        if let Some(error) = &self.error {
            text.push_str(&format!("  {error}\n"));
            if let Some(help) = error.help() {
                text.push_str(&format!("  help: {help}\n"));
            }
        }
        for difference in &self.differences {
            text.push_str(&difference.text());
        }
        if self.timeless {
            text.push_str(
                "  help: the transform asks for the time, which is 2000-01-01T00:00:00Z here; say `now:` in the test\n",
            );
        }
        text
    }

    fn to_json(&self) -> Value {
        json!({
            "product": self.product,
            "name": self.name,
            "file": self.file,
            "line": self.line,
            "passed": self.passed(),
            "error": self.error.as_ref().map(ToString::to_string),
            "differences": self.differences.iter().map(|difference| json!({
                "table": difference.table,
                "expectedRows": difference.expected,
                "actualRows": difference.actual,
                "missing": difference.missing.iter().map(|(row, _)| row).collect::<Vec<_>>(),
                "unexpected": difference.missing.iter().filter_map(|(_, row)| row.as_ref())
                    .chain(&difference.unexpected).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
        })
    }
}

impl Difference {
    fn text(&self) -> String {
        let mut lines: Vec<(char, Vec<String>, Vec<bool>)> = Vec::new();
        let cells = |row: &Map<String, Value>| -> Vec<String> {
            self.columns.iter().map(|column| show(row.get(column).unwrap_or(&Value::Null))).collect()
        };
        for (missing, instead) in &self.missing {
            let marks = match instead {
                Some(instead) => {
                    self.columns.iter().map(|column| !same(missing.get(column), instead.get(column))).collect()
                }
                None => vec![false; self.columns.len()],
            };
            lines.push(('-', cells(missing), marks.clone()));
            lines.extend(instead.iter().map(|instead| ('+', cells(instead), marks.clone())));
        }
        lines.extend(self.unexpected.iter().map(|row| ('+', cells(row), vec![false; self.columns.len()])));
        let left = lines.len().saturating_sub(MAX_SHOWN);
        lines.truncate(MAX_SHOWN);
        // A cell that differs from the one above it is set between » and «.
        let shown: Vec<(char, Vec<String>)> = lines
            .into_iter()
            .map(|(sign, cells, marks)| {
                let cells = cells.into_iter().zip(marks);
                (sign, cells.map(|(cell, mark)| if mark { format!("»{cell}«") } else { cell }).collect())
            })
            .collect();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|at| {
                let cells = shown.iter().map(|(_, cells)| cells[at].chars().count());
                cells.max().unwrap_or(0).max(self.columns[at].chars().count())
            })
            .collect();
        let line = |sign: char, cells: &[String]| {
            let cells: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            format!("    {sign} {}\n", cells.join("  ")).trim_end().to_owned() + "\n"
        };
        let instead = self.missing.iter().filter(|(_, instead)| instead.is_some()).count();
        let mut text = format!(
            "  {}: expected {} rows, found {}; {} missing (-), {} unexpected (+)\n",
            self.table,
            self.expected,
            self.actual,
            self.missing.len(),
            self.unexpected.len() + instead
        );
        text.push_str(&line(' ', &self.columns));
        for (sign, cells) in &shown {
            text.push_str(&line(*sign, cells));
        }
        if left > 0 {
            text.push_str(&format!("    … and {left} more\n"));
        }
        text
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

async fn run_test(engine: &DataEngine, mesh: &Mesh, product: &LoadedProduct, test: &TransformTest) -> TestResult {
    let mut result = TestResult {
        product: product.contract.id.to_string(),
        name: test.name.clone(),
        file: test.location.file.clone(),
        line: test.location.line,
        error: None,
        differences: Vec::new(),
        timeless: false,
    };
    for expected in &test.expect {
        match compare(engine, mesh, &product.contract, test, expected).await {
            Ok(difference) => {
                let table = product.contract.table(&expected.table).filter(|_| difference.is_some());
                result.timeless |= test.now.is_none() && table.is_some_and(asks_for_time);
                result.differences.extend(difference);
            }
            Err(error) => result.error = result.error.or(Some(error)),
        }
    }
    result
}

/// Whether the text of a table's transform asks for the time.
fn asks_for_time(table: &Table) -> bool {
    let sql = table.transform.as_ref().map(|transform| transform.sql.to_ascii_lowercase()).unwrap_or_default();
    ["now(", "today(", "current_timestamp", "current_date", "current_time"].iter().any(|word| sql.contains(word))
}

/// The files that a test reads.
fn fixture_files(test: &TransformTest) -> Vec<BoundSource> {
    let given = test.given.iter().map(|given| &given.rows);
    let fixtures = given.chain(test.expect.iter().map(|expected| &expected.rows)).map(rows);
    let files = fixtures.filter_map(|fixture| match fixture {
        GivenRows::File(source) => Some(source),
        GivenRows::Inline(_) => None,
    });
    files.collect()
}

fn rows(rows: &FixtureRows) -> GivenRows {
    let bind = |path: &PathBuf| {
        let path = path.display().to_string();
        let spec = FileSource { path: path.clone(), format: None, csv: CsvOptions::default() };
        BoundSource { spec, paths: vec![path], folder: PathBuf::from("."), pulled: false }
    };
    match rows {
        FixtureRows::Inline(rows) => GivenRows::Inline(rows.clone()),
        FixtureRows::File(path) => GivenRows::File(bind(&std::path::absolute(path).unwrap_or_else(|_| path.clone()))),
    }
}

/// The tables that a test gives a query: what it says, and empty ones for what it leaves out.
fn given(mesh: &Mesh, product: &DataProduct, test: &TransformTest, reads: &[TableRead]) -> Result<Vec<GivenTable>> {
    let contracts: Vec<DataProduct> = mesh.products.iter().map(|loaded| loaded.contract.clone()).collect();
    let mut tables = Vec::new();
    for read in reads {
        let Some(table) = input_table(product, &contracts, read) else {
            return Err(Error::new(ErrorCode::NotFound, format!("the contract of `{read}` is not in this mesh"))
                .with_help("a test reads its rows by the contract of the input's manifest"));
        };
        let plain = TableRead { changes: false, ..read.clone() };
        let own = test.given.iter().find(|given| given.table == *read);
        let found = own.or_else(|| test.given.iter().find(|given| given.table == plain));
        let rows = found.map_or(GivenRows::Inline(Vec::new()), |given| rows(&given.rows));
        tables.push(GivenTable { read: read.clone(), table: table.clone(), rows });
    }
    Ok(tables)
}

async fn compare(
    engine: &DataEngine,
    mesh: &Mesh,
    product: &DataProduct,
    test: &TransformTest,
    expected: &ExpectedFixture,
) -> Result<Option<Difference>> {
    let not_found = || Error::new(ErrorCode::NotFound, format!("`{}` has no table `{}`", product.id, expected.table));
    let table: &Table = product.table(&expected.table).ok_or_else(not_found)?;
    let inputs: Vec<&DataProduct> = mesh.products.iter().map(|loaded| &loaded.contract).collect();
    let (problems, reads) = engine.check_transform(product, table, &inputs).await;
    if let Some(problem) = problems.into_iter().find(|problem| problem.level == datamesh_core::Level::Error) {
        return Err(Error::new(ErrorCode::InvalidQuery, problem.message).with_help("`datamesh check` shows the place"));
    }
    let given = given(mesh, product, test, &reads)?;
    let now = DateTime::from_timestamp_micros(test.now.unwrap_or(NOW)).unwrap_or_default();
    let actual = objects(engine.transform_rows(table, &given, now).await?);
    let wanted = rows(&expected.rows);
    let named: BTreeSet<&String> = match &wanted {
        GivenRows::Inline(rows) => rows.iter().filter_map(Value::as_object).flat_map(Map::keys).collect(),
        GivenRows::File(_) => table.columns.iter().map(|column| &column.name).collect(),
    };
    let columns: Vec<String> = table
        .columns
        .iter()
        .map(|column| column.name.clone())
        .filter(|name| named.is_empty() || named.contains(name))
        .collect();
    let wanted = objects(
        engine
            .fixture_rows(table, &wanted)
            .await
            .map_err(|error| Error::new(error.code(), format!("expected `{}`: {error}", expected.table)))?,
    );
    Ok(difference(&expected.table, columns, wanted, actual, expected.ordered))
}

fn objects(rows: Vec<Value>) -> Vec<Map<String, Value>> {
    rows.into_iter()
        .filter_map(|row| match row {
            Value::Object(row) => Some(row),
            _ => None,
        })
        .collect()
}

/// Whether two cells are the same; doubles up to what their sums can differ by in another order.
fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a.unwrap_or(&Value::Null), b.unwrap_or(&Value::Null)) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0),
            _ => a == b,
        },
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(Some(a), Some(b)))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| same(Some(value), b.get(key)))
        }
        (a, b) => a == b,
    }
}

fn difference(
    table: &str,
    columns: Vec<String>,
    expected: Vec<Map<String, Value>>,
    actual: Vec<Map<String, Value>>,
    ordered: bool,
) -> Option<Difference> {
    let agreeing = |a: &Map<String, Value>, b: &Map<String, Value>| {
        columns.iter().filter(|column| same(a.get(*column), b.get(*column))).count()
    };
    let counts = (expected.len(), actual.len());
    let (mut missing, mut unexpected) = (Vec::new(), Vec::new());
    if ordered {
        let mut rows = actual.into_iter();
        for row in expected {
            match rows.next() {
                Some(found) if agreeing(&row, &found) == columns.len() => {}
                found => missing.push((row, found)),
            }
        }
        unexpected.extend(rows);
    } else {
        let mut left: Vec<Option<Map<String, Value>>> = actual.into_iter().map(Some).collect();
        let mut unmatched = Vec::new();
        for row in expected {
            let found = left
                .iter_mut()
                .find(|other| other.as_ref().is_some_and(|other| agreeing(&row, other) == columns.len()));
            match found {
                Some(found) => *found = None,
                None => unmatched.push(row),
            }
        }
        let mut left: Vec<Map<String, Value>> = left.into_iter().flatten().collect();
        for row in unmatched {
            // The most similar row that is left over is what probably stands in its place.
            let best = (0..left.len()).max_by_key(|at| (agreeing(&row, &left[*at]), std::cmp::Reverse(*at)));
            let instead = best.filter(|at| agreeing(&row, &left[*at]) > 0).map(|at| left.remove(at));
            missing.push((row, instead));
        }
        unexpected = left;
    }
    let differs = !missing.is_empty() || !unexpected.is_empty();
    differs.then(|| Difference {
        table: table.to_owned(),
        columns,
        expected: counts.0,
        actual: counts.1,
        missing,
        unexpected,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: &[(i64, f64)]) -> Vec<Map<String, Value>> {
        objects(values.iter().map(|(a, b)| json!({ "a": a, "b": b })).collect())
    }

    fn check(expected: &[(i64, f64)], actual: &[(i64, f64)], ordered: bool) -> Option<(usize, usize)> {
        let columns = vec!["a".to_owned(), "b".to_owned()];
        let found = difference("t", columns, rows(expected), rows(actual), ordered)?;
        Some((found.missing.len(), found.unexpected.len()))
    }

    #[test]
    fn rows_are_compared_as_bags_unless_ordered() {
        assert_eq!(check(&[(1, 1.0), (2, 2.0)], &[(2, 2.0), (1, 1.0 + 1e-12)], false), None);
        assert_eq!(check(&[(1, 1.0), (2, 2.0)], &[(2, 2.0), (1, 1.0)], true), Some((2, 0)));
        assert_eq!(check(&[(1, 1.0), (1, 1.0)], &[(1, 1.0)], false), Some((1, 0)));
        assert_eq!(check(&[(1, 1.0)], &[(1, 1.0), (1, 1.0)], false), Some((0, 1)));
        assert_eq!(check(&[(1, 1.0)], &[(1, 2.0)], false), Some((1, 0)), "the similar row is shown beside it");
    }
}
