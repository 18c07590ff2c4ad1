use datamesh_core::contract::{
    CsvOptions, DatabaseRows, DatabaseSource, FileSource, IcebergSource, SourceFormat, SourceSpec,
};
use datamesh_core::{DataProduct, Level};

use crate::read_manifest;

const COLUMNS: &str = "columns: [{name: id, type: int}, {name: at, type: timestamp, required: true}, {name: x, type: double}, {name: who, type: string, pii: true}]";

fn manifest(lines: &str) -> String {
    let indented: String = format!("{lines}\n{COLUMNS}").lines().map(|line| format!("      {line}\n")).collect();
    format!("dataProduct:\n  name: orders\n  version: 1.0.0\n  owner: sales\n  schema:\n    - name: orders\n{indented}")
}

fn read(lines: &str) -> DataProduct {
    let (product, diagnostics) = read_manifest(manifest(lines).as_bytes());
    product.unwrap_or_else(|| panic!("{lines}: {diagnostics:?}"))
}

/// Checks a source, and that the registry gives it back.
fn check(lines: &str, expected: SourceSpec) {
    let product = read(lines);
    assert_eq!(product.tables[0].source, Some(expected), "{lines}");
    let kept = serde_json::to_string(&product).unwrap();
    assert_eq!(serde_json::from_str::<DataProduct>(&kept).unwrap(), product, "{kept}");
}

#[test]
fn a_source_is_files_a_database_or_iceberg() {
    let files =
        |path: &str, format| SourceSpec::Files(FileSource { path: path.into(), format, csv: CsvOptions::default() });
    check("source: a/*.json", files("a/*.json", None));
    check("source: {path: a.txt, format: ipc}", files("a.txt", Some(SourceFormat::Arrow)));
    check(
        "source: {path: '${env:FOLDER}/a.json', format: json}",
        files("${env:FOLDER}/a.json", Some(SourceFormat::Json)),
    );
    let database = |rows, condition: Option<&str>| {
        SourceSpec::Database(DatabaseSource {
            database: "${env:CRM_URL}".into(),
            rows,
            condition: condition.map(str::to_owned),
        })
    };
    check(
        "source: {database: '${env:CRM_URL}', table: public.orders, where: 'id > 5'}",
        database(DatabaseRows::Table("public.orders".into()), Some("id > 5")),
    );
    check(
        "source: {database: '${env:CRM_URL}', query: 'SELECT * FROM orders ; '}",
        database(DatabaseRows::Query("SELECT * FROM orders".into()), None),
    );
    let iceberg = IcebergSource { iceberg: "../orders".into(), condition: Some("id > 5".into()) };
    check("source: {iceberg: ../orders, where: id > 5}", SourceSpec::Iceberg(iceberg));
}

#[test]
fn contracts_of_earlier_registries_are_read() {
    let old = serde_json::json!({ "path": "a.csv", "format": "csv", "csv": { "delimiter": ";", "header": true, "quote": "\"", "nullText": [""] } });
    let Ok(SourceSpec::Files(files)) = serde_json::from_value::<SourceSpec>(old) else { panic!("an old source") };
    assert_eq!((files.path.as_str(), files.format, files.csv.delimiter), ("a.csv", Some(SourceFormat::Csv), ';'));
}

#[test]
fn each_mistake_in_a_source_has_its_diagnostic() {
    for (lines, id) in [
        ("source: {format: csv}", "missing-key"),
        ("source: {path: a.csv, database: 'sqlite:a.db', table: t}", "mixed-source"),
        ("source: {path: a.csv, table: t}", "misplaced-key"),
        ("source: {database: 'sqlite:a.db', table: t, delimiter: ';'}", "misplaced-key"),
        ("source: {iceberg: a, table: t}", "misplaced-key"),
        ("source: {database: 'sqlite:a.db'}", "missing-key"),
        ("source: {database: 'sqlite:a.db', table: t, query: SELECT 1}", "mixed-source"),
        ("source: {database: 'sqlite:a.db', query: DROP TABLE t}", "invalid-query"),
        ("source: {database: 'sqlite:a.db', table: t, where: ''}", "empty-condition"),
        ("source: {database: 'mysql://db/a', table: t}", "unknown-database"),
        ("source: {database: 'postgres://a:b@db/a', table: t}", "literal-secret"),
        ("source: {database: '${env:A', table: t}", "invalid-reference"),
        ("source: {database: '${vault:a}', table: t}", "invalid-reference"),
        ("source: 'https://a:b@host/x.csv'", "literal-secret"),
        ("source: 'https://token@host/x.csv'", "literal-secret"),
        ("source: 'https://host/x.csv?api_key=a'", "literal-secret"),
        ("source: 'https://host/x.csv#token=a'", "literal-secret"),
        ("source: 'https://anna:${env:PASSWORD}@host/x.csv'", "login-in-address"),
        ("source: {iceberg: 'https://${env:USER}@host/m.json'}", "login-in-address"),
        ("source: {path: a.csv, format: jsn}", "unknown-word"),
        ("source: {database: '${env:A}', tabel: t}", "unknown-key"),
        ("source: a.csv\nwatermark: att", "unknown-column"),
        ("source: a.csv\nwatermark: x", "invalid-watermark"),
        ("source: a.csv\nwatermark: who", "invalid-watermark"),
        ("watermark: at", "invalid-watermark"),
        ("source: a.csv\nwatermark: at\nwrite: replace", "invalid-watermark"),
        ("source: a.csv\nwatermark: at\nwrite: replacePartitions\npartitionBy: [day(at)]", "invalid-watermark"),
    ] {
        let (product, diagnostics) = read_manifest(manifest(lines).as_bytes());
        let found = diagnostics.iter().find(|diagnostic| diagnostic.id == id);
        let found = found.unwrap_or_else(|| panic!("{lines}: {diagnostics:?}"));
        assert!(found.is_error() && product.is_none(), "{lines}");
        assert!(
            found.location.line >= 7 && found.help.as_ref().is_some_and(|help| !help.is_empty()),
            "{lines}: {found}"
        );
        assert!(!found.message.contains("a:b@"), "{found}");
    }
}

#[test]
fn a_watermark_that_may_be_null_is_warned_of() {
    assert_eq!(read("source: a.csv\nwatermark: at").tables[0].watermark.as_deref(), Some("at"));
    let (product, diagnostics) = read_manifest(manifest("source: a.csv\nwatermark: id").as_bytes());
    assert!(product.is_some());
    assert!(diagnostics.iter().any(|found| found.id == "nullable-watermark" && found.level == Level::Warning));
}

#[test]
fn suggestions_are_made() {
    for (lines, help) in [
        ("source: {database: '${env:A}', tabel: t}", "did you mean `table`?"),
        ("source: {path: a.csv, format: jsno}", "did you mean `json`?"),
        ("source: a.csv\nwatermark: att", "did you mean `at`?"),
    ] {
        let (_, diagnostics) = read_manifest(manifest(lines).as_bytes());
        assert!(diagnostics.iter().any(|found| found.help.as_deref() == Some(help)), "{lines}: {diagnostics:?}");
    }
}
