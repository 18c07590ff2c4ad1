//! From data to a published product: init, new, check, explain, publish, profile.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampNanosecondArray};
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

use crate::support::{Outcome, TestMesh};

fn flights(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/flights/domains").join(file).canonicalize().unwrap()
}

/// A mesh with one domain, as `init` makes it.
fn mesh() -> TestMesh {
    let mesh = TestMesh::new();
    mesh.write("domains/lab/domain.yaml", "name: lab\nowner: lab-team\n");
    mesh
}

fn manifest(mesh: &TestMesh, product: &str) -> String {
    std::fs::read_to_string(mesh.path(&format!("domains/lab/products/{product}/product.yaml"))).unwrap()
}

/// Names the owner, as a reviewer would.
fn fill(mesh: &TestMesh, product: &str) {
    let text = manifest(mesh, product);
    assert_eq!(text.matches("owner: TODO").count(), 1, "{text}");
    mesh.write(&format!("domains/lab/products/{product}/product.yaml"), text.replace("owner: TODO", "owner: lab-team"));
}

fn draft(mesh: &TestMesh, product: &str, from: &Path) -> Outcome {
    mesh.run(&["new", &format!("lab/{product}"), "--from", from.to_str().unwrap()]).expect_code(0)
}

/// Drafts, checks that only the owner is missing, fills it in, explains and publishes; the published table's report.
fn publish_draft(mesh: &TestMesh, product: &str, from: &Path) -> Value {
    draft(mesh, product, from);
    let found = mesh.run(&["check", "--format", "json"]).expect_code(4).json();
    let errors: Vec<&str> = found["diagnostics"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|diagnostic| diagnostic["level"] != "note")
        .map(|diagnostic| diagnostic["id"].as_str().unwrap())
        .collect();
    assert_eq!(errors, ["owner-missing"], "{}", manifest(mesh, product));
    fill(mesh, product);
    mesh.run(&["check"]).expect_code(0);
    let id = format!("lab/{product}");
    let before = mesh.warehouse();
    let explained = mesh.run(&["explain", &id, "--format", "json"]).expect_code(0).json();
    assert_eq!(explained["status"], "would-publish");
    assert_eq!(mesh.warehouse(), before, "explain touches nothing");
    let report = mesh.run(&["publish", &id, "--format", "json"]).expect_code(0).json();
    let (table, seen) = (&report["tables"][0], &explained["tables"][0]);
    for key in ["in", "published", "quarantined", "reasons"] {
        assert_eq!(table[key], seen[key], "explain said what publish did");
    }
    // Nothing is published that typed rows could repeat, so that they are not hashed.
    assert!(seen["content"] == table["content"] || seen["content"] == "", "{seen}");
    let again = mesh.run(&["explain", &id, "--format", "json"]).expect_code(0).json();
    assert_eq!((&again["status"], &again["tables"][0]["content"]), (&json!("repeat"), &table["content"]));
    table.clone()
}

#[test]
fn init_makes_a_mesh_and_overwrites_nothing() {
    let mesh = TestMesh::new();
    mesh.run(&["init", "fresh", "--domain", "sales", "--owner", "sales-team"]).expect_code(0);
    for file in ["mesh.yaml", "domains/sales/domain.yaml", ".gitignore", "README.md"] {
        assert!(mesh.path("fresh").join(file).is_file(), "{file}");
    }
    mesh.run(&["check", "fresh"]).expect_code(0);
    mesh.write("fresh/README.md", "mine");
    mesh.write("fresh/mesh.yaml", "name: other\n");
    let again = mesh.run(&["init", "fresh", "--domain", "web", "--format", "json"]).expect_code(0).json();
    assert_eq!(again["created"], json!(["domains/web/domain.yaml"]));
    assert_eq!(std::fs::read_to_string(mesh.path("fresh/README.md")).unwrap(), "mine");
    assert_eq!(std::fs::read_to_string(mesh.path("fresh/mesh.yaml")).unwrap(), "name: other\n");
    mesh.run(&["init", "fresh", "--domain", "1x"]).expect_code(2);
    mesh.run(&["--mesh", "told", "init"]).expect_code(0);
    assert!(mesh.path("told/mesh.yaml").is_file() && !mesh.path("domains/main").exists(), "--mesh is the folder");
}

#[test]
fn a_draft_is_never_written_over() {
    let mesh = mesh();
    let data = mesh.write("a.csv", "id,v\n1,x\n2,y\n");
    draft(&mesh, "a", &data);
    let text = manifest(&mesh, "a");
    let outcome = mesh.run(&["new", "lab/a", "--from", "a.csv"]).expect_code(2);
    assert!(outcome.stderr.contains("is there already"), "{outcome}");
    assert_eq!(manifest(&mesh, "a"), text);
    mesh.run(&["new", "lab/b", "--from", "none.csv"]).expect_code(7);
    mesh.run(&["new", "lab/b", "--from", "-"]).expect_code(2);
    assert!(!mesh.path("domains/lab/products/b").exists());
    assert_eq!(mesh.run(&["new", "lab/a", "--from", "a.csv", "--print"]).expect_code(0).stdout, text);
}

#[test]
fn a_new_domain_needs_its_owner_too() {
    let mesh = mesh();
    mesh.write("a.csv", "id,v\n1,x\n2,y\n");
    mesh.run(&["new", "other/a", "--from", "a.csv"]).expect_code(0);
    let found = mesh.run(&["check", "--format", "json"]).expect_code(4).json();
    assert_eq!(found["errors"], 2);
}

#[test]
fn every_flights_file_is_published_whole_under_its_draft() {
    let files = [
        ("weather/products/observations/weather.parquet", 26_115),
        ("operations/products/departures/flights.parquet", 336_776),
        ("operations/products/network/airports.parquet", 1_458),
        ("fleet/products/registry/planes.parquet", 3_322),
        ("fleet/products/registry/airlines.parquet", 16),
        ("customer/products/customer-360/customers.csv", 40),
    ];
    let mesh = mesh();
    for (file, rows) in files {
        let path = flights(file);
        let product = path.file_stem().unwrap().to_str().unwrap();
        let report = publish_draft(&mesh, product, &path);
        assert_eq!(report["in"], rows, "{file}");
        assert_eq!(report["published"], rows, "{file}: {report}");
    }
}

#[test]
fn the_draft_of_the_weather_is_stable() {
    let mesh = mesh();
    let bytes = std::fs::read(flights("weather/products/observations/weather.parquet")).unwrap();
    let data = mesh.write("data/weather.parquet", bytes);
    draft(&mesh, "observations", &data);
    let expected = include_str!("start/weather.yaml");
    let found = manifest(&mesh, "observations");
    if found != expected {
        let path = std::env::temp_dir().join("datamesh-weather.yaml.new");
        std::fs::write(&path, &found).unwrap();
        panic!("the draft differs from tests/it/start/weather.yaml; see {}\n{found}", path.display());
    }
}

/// Rows of text as CSV in a dialect.
fn csv(header: &[&str], rows: &[Vec<String>], delimiter: char) -> String {
    let quote = |cell: &str| {
        if cell.contains([delimiter, '"', '\n', '\r']) || cell.starts_with(' ') {
            format!("\"{}\"", cell.replace('"', "\"\""))
        } else {
            cell.to_owned()
        }
    };
    let line = |cells: Vec<String>| format!("{}\n", cells.join(&delimiter.to_string()));
    let mut text = line(header.iter().map(|name| quote(name)).collect());
    rows.iter().for_each(|row| text.push_str(&line(row.iter().map(|cell| quote(cell)).collect())));
    text
}

#[test]
fn a_nasty_file_is_read_for_what_it_is() {
    let mesh = mesh();
    let rows: Vec<Vec<String>> = (0..1000_u32)
        .map(|row| {
            vec![
                (row + 1).to_string(),
                format!("u{row}@example.com"),
                format!("{:05}", row * 7),
                if row % 500 == 3 { "n/a".into() } else { format!("{}.{:02}", row, row % 100) },
                if row == 17 { "oops".into() } else { (row % 90).to_string() },
                format!("+49 30 {:06}", 100_000 + row),
                ["red", "green", "blue"][row as usize % 3].to_owned(),
                if row % 10 == 0 { "two\nlines; \"quoted\"".into() } else { String::new() },
                format!("2020-01-{:02}T10:00:00+01:00", row % 28 + 1),
                format!("{:02}.{:02}.2020", row % 28 + 1, row % 12 + 1),
            ]
        })
        .collect();
    let header = ["id", "mail", "zip", "price", "age", "phone", "colour", "note", "at", "day"];
    let mut bytes = b"\xef\xbb\xbf".to_vec();
    bytes.extend(csv(&header, &rows, ';').bytes());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &bytes).unwrap();
    let data = mesh.write("nasty.csv.gz", gzip.finish().unwrap());
    let report = publish_draft(&mesh, "nasty", &data);
    assert_eq!((&report["in"], &report["quarantined"]), (&json!(1000), &json!(1)));
    assert_eq!(report["reasons"]["type:age"]["rows"], 1);
    let text = manifest(&mesh, "nasty");
    let column = |name: &str| {
        text.split("        - name: ").find(|part| part.starts_with(&format!("{name}\n"))).unwrap().to_owned()
    };
    for (name, expected) in [
        ("id", "type: long"),
        ("id", "primaryKey: true"),
        ("mail", "format: email"),
        ("mail", "pii: true"),
        ("zip", "type: string"),
        ("price", "type: 'decimal(18,2)'"),
        ("age", "1 value does not fit and would be quarantined: \"oops\" at "),
        ("phone", "pii: true"),
        ("colour", "enum: [blue, green, red]"),
        ("at", "type: timestamp "),
        ("day", "looks like dates"),
    ] {
        assert!(column(name).contains(expected), "{name}: {expected}\n{text}");
    }
    assert!(text.contains("delimiter: ';', nullText: ['', n/a]"), "{text}");
    assert!(
        !text.contains("example.com") && !text.contains("+49 30"),
        "personal data stays out of the manifest\n{text}"
    );
}

#[test]
fn json_is_drafted_with_its_nested_types() {
    let mesh = mesh();
    let lines: String = (0..200)
        .map(|row| {
            format!(
                "{{\"id\": {row}, \"place\": {{\"city\": \"c{}\", \"pos\": {{\"x\": {row}.5}}}}, \"tags\": [\"a\"], \"items\": [{{\"sku\": \"s\", \"n\": 2}}], \"mixed\": {}, \"day\": \"2020-01-01\"}}\n",
                row % 5,
                if row % 2 == 0 { "1".to_owned() } else { "\"x\"".to_owned() }
            )
        })
        .collect();
    let data = mesh.write("events.ndjson", lines);
    let report = publish_draft(&mesh, "events", &data);
    assert_eq!(report["published"], 200);
    let text = manifest(&mesh, "events");
    for expected in ["type: struct", "type: array<string>", "type: array<struct>", "type: json", "type: date"] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    let row = &mesh.query("SELECT place, items, mixed FROM lab.events.events WHERE id = 3")[0];
    assert_eq!(row["place"], json!({"city": "c3", "pos": {"x": 3.5}}));
    assert_eq!(row["items"], json!([{"n": 2, "sku": "s"}]));
    assert_eq!(row["mixed"], "\"x\"");
}

#[test]
fn a_product_is_drafted_from_a_published_table_and_what_is_protected_stays_so() {
    let mesh = mesh();
    let rows: String =
        (0..500).map(|row| format!("{row},u{row}@example.com,{}\n", ["gold", "silver"][row % 2])).collect();
    let data = mesh.write("people.csv", format!("id,email,tier\n{rows}"));
    publish_draft(&mesh, "people", &data);
    mesh.run(&["new", "lab/copy", "--from", "lab.people.people", "--name", "persons"]).expect_code(0);
    let text = manifest(&mesh, "copy");
    for expected in [
        "inputs: ['lab/people@^0.1']",
        "transform: 'SELECT * FROM lab.people.people'",
        "name: persons",
        "enum: [gold, silver]",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert!(text.contains("pii: true") && !text.contains("@example.com"), "{text}");

    let outcome = mesh.run(&["profile", "lab.people.people", "--format", "json"]).expect_code(0);
    assert!(!outcome.stdout.contains("@example.com"), "{outcome}");
    assert!(!mesh.run(&["profile", "lab.people.people"]).expect_code(0).stdout.contains("@example.com"));
    let decisions = mesh.registry("SELECT count(*) FROM decisions WHERE document LIKE '%\"operation\":\"profile\"%'");
    assert_eq!(decisions, [[json!(3)]]);
    mesh.run(&["profile", "lab.people.nothing"]).expect_code(6);
}

#[test]
fn a_profile_tells_exact_facts() {
    let mesh = mesh();
    mesh.write("n.csv", "n,word\n1,a\n2,b\n3,a\n4,\n10,a\n");
    mesh.write("even.csv", "n,one\n1,7\n2,\n3,\n10,\n");
    let profile = mesh.run(&["profile", "n.csv", "--format", "json"]).expect_code(0).json();
    assert_eq!(profile["rows"], 5);
    let (n, word) = (&profile["columns"][0], &profile["columns"][1]);
    assert_eq!(n["type"], "int");
    assert_eq!(n["numbers"]["mean"], 4.0);
    assert_eq!(n["numbers"]["quantiles"][3], 3.0);
    assert!((n["numbers"]["deviation"].as_f64().unwrap() - 12.5_f64.sqrt()).abs() < 1e-9, "of a sample, as the rule's");
    assert_eq!(n["unique"], true);
    assert_eq!((&word["nulls"], &word["distinct"], &word["distinctExact"]), (&json!(1), &json!(2), &json!(true)));
    assert_eq!(word["top"], json!([["a", 3], ["b", 1]]));
    let even = mesh.run(&["profile", "even.csv", "--format", "json"]).expect_code(0).json();
    let (n, one) = (&even["columns"][0], &even["columns"][1]);
    assert_eq!(n["numbers"]["quantiles"][2], 1.75, "interpolated, as the rule's");
    assert_eq!((&n["numbers"]["quantiles"][3], &n["numbers"]["quantiles"][4]), (&json!(2.5), &json!(4.75)));
    assert_eq!((&one["numbers"]["mean"], &one["numbers"]["deviation"]), (&json!(7.0), &Value::Null));
    assert!(mesh.run(&["profile", "even.csv"]).expect_code(0).stdout.contains("mean 7, deviation none"));
}

#[test]
fn a_draft_never_shows_personal_data() {
    let mesh = mesh();
    let rows: String = (0..400)
        .map(|row| {
            let even = row % 2 == 0;
            let note = if even { "please write to bob@example.com" } else { "call later" };
            let spoken = if even { "ring +49 30 901820 first" } else { "no" };
            let grouped = ["4111 1111 1111 1111", "n/k", "5500 0000 0000 0004"][row % 3];
            let plain = if even { "4111111111111111" } else { "5500000000000004" };
            let size = if row == 7 { "ann@example.com".to_owned() } else { (row % 9).to_string() };
            let (version, opt_in) = if even { ("1.2.3.4", "true") } else { ("1.2.3.5", "false") };
            format!("{row},{note},{spoken},{grouped},{plain},{size},{version},{opt_in}\n")
        })
        .collect();
    let header = "row,note,spoken,paid,payment,size,version,email_opt_in\n";
    let data = mesh.write("notes.csv", format!("{header}{rows}"));
    let report = publish_draft(&mesh, "notes", &data);
    assert_eq!((&report["in"], &report["quarantined"]), (&json!(400), &json!(1)));
    let text = manifest(&mesh, "notes");
    for personal in ["example.com", "901820", "4111", "5500", "call later", "n/k"] {
        assert!(!text.contains(personal), "{personal}\n{text}");
    }
    for told in [
        "200 values contain an e-mail address",
        "200 values contain a telephone, card or account number",
        "267 values look like a payment card number",
        "400 values look like a payment card number",
        "would be quarantined: *** at 9",
        "enum: ['1.2.3.4', '1.2.3.5']",
    ] {
        assert!(text.contains(told), "{told}\n{text}");
    }
    assert!(!text.contains("pii: true"), "neither a version nor a yes or no is an address\n{text}");
}

#[test]
fn a_header_is_taken_for_what_it_is() {
    let mesh = mesh();
    let cases = [
        (",name,amount\n0,Anna,1.5\n1,Bob,2.5\n", vec!["name", "amount"], "left out: \"column 1\""),
        (",name,city\n0,Anna,Berlin\n1,Bob,Paris\n", vec!["name", "city"], "left out: \"column 1\""),
        ("id,amount,amount\n1,2,3\n4,5,6\n", vec!["id"], "left out: \"amount\""),
        ("ID,id\n1,2\n3,4\n", vec!["ID"], "left out: \"id\""),
        ("a,b,\n1,2,\n3,4,\n", vec!["a", "b"], "left out: \"column 3\""),
        ("country,2020,2021\nDE,1,2\nFR,3,4\n", vec!["country", "'2020'", "'2021'"], ""),
        ("id,__faults\n1,x\n2,y\n", vec!["id"], "left out: \"__faults\""),
    ];
    for (at, (bytes, names, told)) in cases.into_iter().enumerate() {
        let product = format!("h{at}");
        let data = mesh.write(&format!("{product}.csv"), bytes);
        let report = publish_draft(&mesh, &product, &data);
        assert_eq!((&report["in"], &report["published"]), (&json!(2), &json!(2)), "{bytes}");
        let text = manifest(&mesh, &product);
        let columns: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("        - name: ")).collect();
        assert_eq!(columns, names, "{text}");
        assert!(text.contains(told) && !text.contains("header: false"), "{told}\n{text}");
    }
    let data = mesh.write("bare.csv", "1,a\n2,b\n");
    let report = publish_draft(&mesh, "bare", &data);
    assert_eq!(report["published"], 2);
    let text = manifest(&mesh, "bare");
    assert!(text.contains("header: false") && text.contains("# the first record was taken for data"), "{text}");
}

#[test]
fn data_without_a_column_is_refused() {
    let mesh = mesh();
    for (name, bytes) in [("a.csv", ""), ("b.csv", "\n"), ("c.json", "[]"), ("d.ndjson", ""), ("e.csv", "__a\nx\n")] {
        mesh.write(name, bytes);
        let outcome = mesh.run(&["new", "lab/none", "--from", name]).expect_code(7);
        assert!(outcome.stderr.contains("there is no column to draft"), "{name}: {outcome}");
        assert!(!mesh.path("domains/lab/products/none").exists(), "{name}");
    }
}

#[test]
fn lines_that_end_with_carriage_returns_are_refused() {
    let mesh = mesh();
    let data = mesh.write("old.csv", "a,b\r1,2\r3,4\r");
    let outcome = mesh.run(&["new", "lab/old", "--from", data.to_str().unwrap()]).expect_code(7);
    assert!(outcome.stderr.contains("carriage return alone"), "{outcome}");
    mesh.write(
        "domains/lab/products/old/product.yaml",
        "dataProduct:\n  name: old\n  version: 1.0.0\n  owner: lab-team\n  schema:\n    - name: t\n      source: ../../../../old.csv\n      columns: [{name: a, type: int}]\n",
    );
    let outcome = mesh.run(&["publish", "lab/old"]).expect_code(7);
    assert!(outcome.stderr.contains("carriage return alone"), "{outcome}");
    mesh.write("old.csv", "a,b\r\n\"1\",\"x\ry\"\r\n");
    assert_eq!(
        mesh.run(&["publish", "lab/old", "--format", "json"]).expect_code(0).json()["tables"][0]["published"],
        1
    );
}

#[test]
fn what_a_draft_leaves_out_or_holds_back_is_told() {
    let mesh = mesh();
    mesh.write("many/1.csv", "id,a\n1,2\n");
    mesh.write("many/2.csv", "id,b\n3,4\n");
    draft(&mesh, "many", &mesh.path("many/*.csv"));
    fill(&mesh, "many");
    let text = manifest(&mesh, "many");
    assert!(text.contains("left out: \"b\": the header of "), "{text}");

    draft(&mesh, "broken", &mesh.write("broken.ndjson", "{\"a\": 1}\nnot json\n"));
    fill(&mesh, "broken");
    let text = manifest(&mesh, "broken");
    assert!(text.contains("up to 1 of 2 rows would be quarantined"), "{text}");

    // No number type holds it, so it is kept as it is written.
    let report = publish_draft(&mesh, "huge", &mesh.write("huge.ndjson", "{\"v\": 1e400}\n{\"v\": \"x\"}\n"));
    assert_eq!(report["published"], 2);
    assert!(manifest(&mesh, "huge").contains("type: json"), "{}", manifest(&mesh, "huge"));

    let times =
        TimestampNanosecondArray::from_iter_values((0..300).map(|row| if row == 4 { 1001 } else { row * 1000 }));
    let batch = RecordBatch::try_from_iter([("at", Arc::new(times) as ArrayRef)]).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    let report = publish_draft(&mesh, "fine", &mesh.write("fine.parquet", writer.into_inner().unwrap()));
    assert_eq!((&report["in"], &report["quarantined"]), (&json!(300), &json!(1)));
    let text = manifest(&mesh, "fine");
    assert!(text.contains("1 value is finer than the type") && text.contains("up to 1 of 300 rows"), "{text}");
}

#[test]
fn the_next_steps_of_a_draft_from_a_table_work() {
    let mesh = mesh();
    publish_draft(&mesh, "t", &mesh.write("t.csv", "id,v\n1,2\n3,4\n"));
    let drafted = mesh.run(&["new", "lab/copy", "--from", "lab.t.t"]).expect_code(0).stdout;
    assert!(drafted.contains("\n  datamesh run lab/copy\n") && !drafted.contains("publish lab/copy"), "{drafted}");
    fill(&mesh, "copy");
    mesh.run(&["check"]).expect_code(0);
    let before = mesh.warehouse();
    let explained = mesh.run(&["explain", "lab/copy", "--format", "json"]).expect_code(0).json();
    assert_eq!(explained["status"], "would-publish");
    assert_eq!(mesh.warehouse(), before, "explain touches nothing");
    assert!(mesh.publications("lab/copy").is_empty(), "nothing is recorded but the decisions");
    let report = mesh.run(&["run", "lab/copy", "--format", "json"]).expect_code(0).json();
    for key in ["in", "published", "quarantined", "reasons"] {
        assert_eq!(report["tables"][0][key], explained["tables"][0][key], "explain said what run did");
    }
    assert_eq!(report["tables"][0]["published"], 2);
    let again = mesh.run(&["explain", "lab/copy"]).expect_code(0).stdout;
    assert!(again.contains("is published already: nothing would change"), "{again}");
}

#[test]
fn an_address_of_a_database_names_a_table_and_no_password() {
    let mesh = mesh();
    let table = "does not say which table of the database is meant";
    let password = "a password must not stand in a command";
    for (address, why) in [
        ("sqlite:shop.db", table),
        ("postgres://db/shop#", table),
        ("postgresql://ada:s3cret@db/shop", password),
        ("postgresql://ada:s3cret@db/shop#t", password),
        ("postgresql://ada:x#s3cret@db/shop#t", password),
        ("postgresql://ada:5432#s3cret@db/shop", password),
        ("postgresql://ada:x#s3cret@db/shop", password),
    ] {
        for arguments in [&["new", "lab/shop", "--from", address][..], &["profile", address]] {
            let outcome = mesh.run(arguments).expect_code(2);
            assert!(outcome.stderr.contains(why), "{address}: {outcome}");
            assert!(!outcome.stderr.contains("s3cret"), "{outcome}");
        }
    }
}

#[test]
fn explain_says_why_and_what_to_do() {
    let mesh = mesh();
    let good: String = (0..100).map(|row| format!("{row},{}\n", row % 7)).collect();
    mesh.write("domains/lab/products/p/t.csv", format!("id,v\n{good}"));
    let manifest = |most: u32| {
        format!(
            "dataProduct:\n  name: p\n  version: 1.0.0\n  owner: lab-team\n  schema:\n    - name: t\n      write: replace\n      source: t.csv\n      columns:\n        - {{name: id, type: long, primaryKey: true}}\n        - {{name: v, type: int, maximum: {most}}}\n      quality: [rowCount > 50]\n"
        )
    };
    mesh.write("domains/lab/products/p/product.yaml", manifest(10));
    let first = mesh.run(&["explain", "lab/p"]).expect_code(0).stdout;
    assert!(
        first.contains("100 would be published, the table's first rows") && first.contains("first publication"),
        "{first}"
    );
    assert!(mesh.publications("lab/p").is_empty(), "nothing is recorded but the decision");
    assert_eq!(mesh.registry("SELECT count(*) FROM leases"), [[json!(0)]]);
    mesh.run(&["publish", "lab/p"]).expect_code(0);
    assert!(mesh.run(&["explain", "lab/p"]).expect_code(0).stdout.contains("published already"));
    mesh.write("domains/lab/products/p/product.yaml", manifest(5));
    let before = mesh.warehouse();
    let outcome = mesh.run(&["explain", "lab/p"]).expect_code(3);
    for expected in [
        "would be refused",
        "the last good publication would go on serving",
        "14 × maximum:v",
        "t.csv:8",
        "→ check the unit",
        "ok rowCount > 50: rowCount is 86, must be > 50",
        "~ schema.t.columns.v.maximum: `maximum` was `10` and is `5` now (minor)",
    ] {
        assert!(outcome.stdout.contains(expected), "{expected}\n{outcome}");
    }
    let json = mesh.run(&["explain", "lab/p", "--format", "json"]).expect_code(3).json();
    assert_eq!(json["tables"][0]["publishedNow"], 100);
    assert_eq!(json["changes"][0]["after"], "5");
    assert_eq!(mesh.warehouse(), before);
    assert_eq!(mesh.publications("lab/p").len(), 1);
    mesh.write("domains/lab/products/p/product.yaml", "dataProduct: {name: p}");
    let invalid = mesh.run(&["explain", "lab/p", "--format", "json"]).expect_code(4).json();
    assert_eq!(invalid["status"], "invalid");
    assert!(!invalid["diagnostics"].as_array().unwrap().is_empty());
}

/// A small source of the same numbers every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn cell(kind: u64, numbers: &mut Numbers) -> String {
    let n = numbers.below(1 << 40);
    match kind {
        0 => (n as i64 % 2000 - 1000).to_string(),
        1 => n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_string(),
        2 => format!("{}.{:02}", n % 1000, n % 97),
        3 => format!("{}.{}e-{}", n % 9 + 1, n % 10_000_000, n % 20),
        4 => format!("{:04}-{:02}-{:02}", 1900 + n % 200, n % 12 + 1, n % 28 + 1),
        5 => format!("2013-01-{:02}T{:02}:00:00Z", n % 28 + 1, n % 24),
        6 => format!("2013-01-{:02} {:02}:30:00", n % 28 + 1, n % 24),
        7 => ["true", "FALSE"][n as usize % 2].to_owned(),
        8 => format!("{:06}", n % 100_000),
        9 => format!("{:08x}-0000-4000-8000-{:012x}", n as u32, n),
        10 => [
            "x",
            "y, z",
            "a;b|c\td",
            "line\nbreak",
            "say \"hi\"",
            "é ü 漢",
            " padded ",
            "-",
            "NULL",
            "1e5",
            "+5",
            "5.",
            "0x1",
        ][n as usize % 13]
            .to_owned(),
        11 => ["1", "x", "2013-01-01", "true", "0.5"][n as usize % 5].to_owned(),
        12 => format!("{}.{}", n, n.wrapping_mul(7919)),
        _ => format!("{{\"k\": {n}}}"),
    }
}

/// Whether the published value is the cell.
fn same(cell: &str, value: &Value) -> bool {
    let time = |text: &str| text.replace(' ', "T").trim_end_matches('Z').to_owned();
    match value {
        Value::Null => cell.is_empty() || ["-", "NULL"].contains(&cell),
        Value::Bool(value) => cell.eq_ignore_ascii_case(&value.to_string()),
        // Reading JSON rounds, by a few units in the last place.
        Value::Number(number) => {
            let (Ok(cell), Some(number)) = (cell.parse::<f64>(), number.as_f64()) else { return false };
            (cell - number).abs() <= cell.abs() * 1e-15
        }
        Value::String(text) => {
            text == cell || time(text) == time(cell) || text.parse::<f64>().is_ok_and(|value| cell.parse() == Ok(value))
        }
        _ => false,
    }
}

#[test]
fn what_new_drafts_publish_accepts() {
    let mesh = mesh();
    for case in 0..24_u64 {
        let mut numbers = Numbers(0x2545_f491_4f6c_dd1d ^ (case + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let kinds: Vec<u64> = (0..numbers.below(6) + 2).map(|_| numbers.below(14)).collect();
        let count = [1, 2, 30, 250][case as usize % 4];
        let rows: Vec<Vec<String>> = (0..count)
            .map(|row| {
                let cells = kinds.iter().map(|kind| {
                    let kind = if numbers.below(400) == 0 { 10 } else { *kind };
                    if numbers.below(9) == 0 { String::new() } else { cell(kind, &mut numbers) }
                });
                std::iter::once(row.to_string()).chain(cells).collect()
            })
            .collect();
        let names: Vec<String> =
            std::iter::once("row".to_owned()).chain((0..kinds.len()).map(|at| format!("c{at}"))).collect();
        let header: Vec<&str> = names.iter().map(String::as_str).collect();
        let delimiter = [',', ';', '\t', '|'][numbers.below(4) as usize];
        let data = mesh.write(&format!("case{case}.csv"), csv(&header, &rows, delimiter));
        let report = publish_draft(&mesh, &format!("case{case}"), &data);
        assert_eq!(report["in"], count, "case {case}, kinds {kinds:?}");
        assert!(report["quarantined"].as_u64().unwrap() * 20 <= count as u64, "case {case}, kinds {kinds:?}: {report}");
        let columns: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        let published = mesh.query(&format!("SELECT {} FROM lab.case{case}.case{case}", columns.join(", ")));
        assert_eq!(published.len() as u64, report["published"].as_u64().unwrap());
        for row in published {
            let expected = &rows[row["row"].as_u64().unwrap() as usize];
            for (name, cell) in names.iter().zip(expected) {
                assert!(
                    same(cell, &row[name]),
                    "case {case}, kinds {kinds:?}: `{cell}` came back as {}\n{}",
                    row[name],
                    manifest(&mesh, &format!("case{case}"))
                );
            }
        }
    }
}

/// An Iceberg table that another mesh keeps: looked at, drafted from, and read where it is.
#[test]
fn an_iceberg_table_of_others_becomes_a_product() {
    let theirs = mesh();
    theirs.write("people.csv", "id,name\n1,Ada\n2,Grace\n");
    draft(&theirs, "people", &theirs.path("people.csv"));
    fill(&theirs, "people");
    theirs.run(&["publish", "lab/people"]).expect_code(0);
    let table = theirs.path("warehouse/lab/people_v0/people");

    let ours = mesh();
    let profile = ours.run(&["profile", table.to_str().unwrap(), "--format", "json"]).expect_code(0).json();
    assert_eq!((&profile["rows"], &profile["columns"][1]["name"]), (&json!(2), &json!("name")), "{profile}");
    let published = publish_draft(&ours, "copies", &table);
    assert_eq!((&published["table"], &published["published"]), (&json!("people"), &json!(2)), "{published}");
    assert!(manifest(&ours, "copies").contains("source: {iceberg: "), "{}", manifest(&ours, "copies"));
    let names = ours.query("SELECT name FROM lab.copies.people ORDER BY id");
    assert_eq!(names, [json!({ "name": "Ada" }), json!({ "name": "Grace" })]);
    let broken = ours.write("x.metadata.json", "{}");
    let outcome = ours.run(&["profile", broken.to_str().unwrap()]).expect_code(7);
    assert!(outcome.stderr.contains("no Iceberg metadata document"), "{outcome}");
}
