//! Tests of transforms, beside the manifest: `product.tests.yaml`, or files in `tests/`. Fixture rows in, rows out.

use std::path::{Path, PathBuf};

use datamesh_core::scalar::{self, Scalar};
use datamesh_core::transform::TableRead;
use datamesh_core::{DataProduct, DataType, Location, Name, Result, Table};
use serde_json::Value;

use crate::mesh::{LoadedProduct, Mesh};
use crate::shape::{self, closest};
use crate::yaml::{Document, Kind, Node, Span};

/// One test of a product's transforms.
#[derive(Clone, Debug, PartialEq)]
pub struct TransformTest {
    /// What it shows.
    pub name: String,
    /// Where it stands.
    pub location: Location,
    /// What `now()` answers, in microseconds since 1970; a fixed moment where absent.
    pub now: Option<i64>,
    /// The tables that the transforms read; those that are not given are empty.
    pub given: Vec<GivenFixture>,
    /// The tables that the transforms must make.
    pub expect: Vec<ExpectedFixture>,
}

/// A table of an input.
#[derive(Clone, Debug, PartialEq)]
pub struct GivenFixture {
    /// The table. With `changes`, what `{changes(…)}` reads; without, both.
    pub table: TableRead,
    /// Its rows.
    pub rows: FixtureRows,
}

/// A table of the product.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpectedFixture {
    /// The table's name.
    pub table: String,
    /// Its rows. Columns that no row names are not compared.
    pub rows: FixtureRows,
    /// Whether the order counts.
    pub ordered: bool,
}

/// Rows of a fixture.
#[derive(Clone, Debug, PartialEq)]
pub enum FixtureRows {
    /// Objects by column; a column that a row does not name is null.
    Inline(Vec<Value>),
    /// A CSV, NDJSON or Parquet file, relative to the test's file.
    File(PathBuf),
}

/// The files with a product's tests, in order.
pub fn test_files(product: &LoadedProduct) -> Result<Vec<PathBuf>> {
    let folder = product.path.parent().unwrap_or(Path::new(""));
    let mut files = Vec::new();
    let single = folder.join("product.tests.yaml");
    if single.is_file() {
        files.push(single);
    }
    let several = folder.join("tests");
    if several.is_dir() {
        let fail = |error| {
            datamesh_core::Error::io(datamesh_core::ErrorCode::InvalidManifest, "read the folder", &several, error)
        };
        for entry in std::fs::read_dir(&several).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            if path.is_file() && path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Reads a product's tests. Problems go to the mesh; a file with errors has no tests.
///
/// # Errors
/// A file that cannot be read.
pub fn load_tests(mesh: &mut Mesh, product: &LoadedProduct) -> Result<Vec<TransformTest>> {
    let mut tests = Vec::new();
    for path in test_files(product)? {
        let contracts: Vec<DataProduct> = mesh.products.iter().map(|loaded| loaded.contract.clone()).collect();
        let read = |document: &mut Document<'_>, root: &Node| {
            Some(read_tests(document, root, &product.contract, &contracts, path.parent().unwrap_or(Path::new(""))))
        };
        tests.extend(mesh.read(&path, read)?.unwrap_or_default());
    }
    Ok(tests)
}

fn read_tests(
    document: &mut Document<'_>,
    root: &Node,
    product: &DataProduct,
    contracts: &[DataProduct],
    folder: &Path,
) -> Vec<TransformTest> {
    shape::check(document, root, &shape::TESTS, "tests file");
    let mut tests: Vec<TransformTest> = Vec::new();
    for entry in root.get("tests").and_then(Node::items).unwrap_or_default() {
        let Some(name) = entry.get("name").and_then(Node::text) else { continue };
        let at = entry.get("name").map_or(entry.span, |name| name.span);
        if tests.iter().any(|test| test.name == name) {
            document.error(
                "duplicate-test",
                at,
                format!("test `{name}` is there already"),
                "give each test a name of its own",
            );
        }
        let now = entry.get("now").and_then(|now| read_time(document, now));
        let mut test = TransformTest {
            name: name.to_owned(),
            location: document.location(at),
            now,
            given: Vec::new(),
            expect: Vec::new(),
        };
        for (key, value) in entries(document, entry.get("given"), "given") {
            if let Some(table) = read_given(document, key, product) {
                let contract = input_table(product, contracts, &table);
                if contract.is_none() && contracts.iter().any(|other| is_input(product, other, &table)) {
                    let message = format!("`{table}`: its product has no such table");
                    document.error("unknown-table", key.span, message, "name a table of the input's contract");
                    continue;
                }
                if let Some(rows) = read_rows(document, value, contract, folder) {
                    test.given.push(GivenFixture { table, rows });
                }
            }
        }
        for (key, value) in entries(document, entry.get("expect"), "expect") {
            let text = key.text().unwrap_or_default();
            let Some(table) = product.table(text) else {
                let names: Vec<&str> = product.tables.iter().map(|table| table.name.as_str()).collect();
                let help = match closest(text, names.iter().copied()) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => format!("its tables: {}", names.join(", ")),
                };
                document.error("unknown-table", key.span, format!("`{}` has no table `{text}`", product.id), help);
                continue;
            };
            if table.transform.is_none() {
                let message = format!("table `{text}` has no transform that could be tested");
                document.error("no-transform", key.span, message, "expect rows of a table with `transform:`");
                continue;
            }
            let ordered = value.get("ordered").and_then(Node::boolean).unwrap_or(false);
            let rows = match value.get("rows").filter(|_| matches!(value.kind, Kind::Mapping(_))) {
                Some(rows) => read_rows(document, rows, Some(table), folder),
                None => read_rows(document, value, Some(table), folder),
            };
            if let Some(rows) = rows {
                test.expect.push(ExpectedFixture { table: table.name.to_string(), rows, ordered });
            }
        }
        if test.expect.is_empty() {
            document.error(
                "no-expectation",
                at,
                format!("test `{name}` expects nothing"),
                "add rows of a table below `expect:`",
            );
        }
        tests.push(test);
    }
    tests
}

fn entries<'n>(document: &mut Document<'_>, node: Option<&'n Node>, key: &str) -> &'n [(Node, Node)] {
    match node.map(|node| (&node.kind, node)) {
        Some((Kind::Mapping(entries), _)) => entries,
        Some((_, node)) => {
            let message = format!("`{key}` is an object of tables, but this is {}", node.describe());
            document.error("wrong-shape", node.span, message, "write `table: [rows]`");
            &[]
        }
        None => &[],
    }
}

fn read_time(document: &mut Document<'_>, node: &Node) -> Option<i64> {
    let text = node.text()?;
    match scalar::parse(text, &DataType::Timestamp) {
        Ok(Scalar::Integer(micros)) => Some(micros),
        _ => {
            let message = format!("`{text}` is no time");
            document.error("invalid-time", node.span, message, "write it as 2013-01-01T12:00:00Z");
            None
        }
    }
}

/// `domain.product.table`, or `changes(domain.product.table)`.
fn read_given(document: &mut Document<'_>, key: &Node, product: &DataProduct) -> Option<TableRead> {
    let text = key.text().unwrap_or_default().trim();
    let inner = text.strip_prefix("changes(").and_then(|inner| inner.strip_suffix(')'));
    let parts: Vec<&str> = inner.unwrap_or(text).split('.').map(str::trim).collect();
    let names: Option<Vec<String>> = parts.iter().map(|part| Name::new(part).ok().map(|name| name.sql())).collect();
    let Some([domain, name, table]) = names.as_deref() else {
        let message = format!("`{text}` names no table");
        document.error("wrong-shape", key.span, message, "write `domain.product.table: [rows]`");
        return None;
    };
    if !product.inputs.iter().any(|input| input.is_named(domain, name)) {
        let message = format!("`{text}` is given, but `inputs:` of `{}` does not name `{domain}/{name}`", product.id);
        document.error("undeclared-input", key.span, message, "give tables of the product's inputs");
        return None;
    }
    Some(TableRead { domain: domain.clone(), product: name.clone(), table: table.clone(), changes: inner.is_some() })
}

fn is_input(product: &DataProduct, other: &DataProduct, read: &TableRead) -> bool {
    let input = product.inputs.iter().find(|input| input.is_named(&read.domain, &read.product));
    input.is_some_and(|input| input.names(&other.id) && input.admits(&other.version))
}

/// The contract of a table that a product's transforms read.
pub fn input_table<'c>(product: &DataProduct, contracts: &'c [DataProduct], read: &TableRead) -> Option<&'c Table> {
    let input = product.inputs.iter().find(|input| input.is_named(&read.domain, &read.product))?;
    input.choose(contracts.iter())?.table(&read.table)
}

fn read_rows(document: &mut Document<'_>, node: &Node, table: Option<&Table>, folder: &Path) -> Option<FixtureRows> {
    if let Some(file) = node.get("file") {
        let path = folder.join(file.text()?.trim());
        if !path.is_file() {
            document.error(
                "missing-file",
                file.span,
                format!("there is no `{}`", path.display()),
                "name it relative to this file",
            );
            return None;
        }
        return Some(FixtureRows::File(path));
    }
    let Some(items) = node.items() else {
        let message = format!("rows are a list of objects, but this is {}", node.describe());
        document.error("wrong-shape", node.span, message, "write `[{column: value}]`, or `{file: rows.csv}`");
        return None;
    };
    for item in items {
        let Kind::Mapping(cells) = &item.kind else {
            let message = format!("a row is an object by column, but this is {}", item.describe());
            document.error("wrong-shape", item.span, message, "write `{column: value}`");
            return None;
        };
        let Some(table) = table else { continue };
        for (name, _) in cells {
            let text = name.text().unwrap_or_default();
            if table.column(text).is_none() {
                unknown_column(document, name.span, table, text);
            }
        }
    }
    Some(FixtureRows::Inline(items.iter().map(Node::to_json).collect()))
}

fn unknown_column(document: &mut Document<'_>, at: Span, table: &Table, name: &str) {
    let help = match closest(name, table.columns.iter().map(|column| column.name.as_str())) {
        Some(column) => format!("did you mean `{column}`?"),
        None => "name columns of the table's contract".to_owned(),
    };
    document.error("unknown-column", at, format!("table `{}` has no column `{name}`", table.name), help);
}
