//! `datamesh domains`, and who owns what, on the real binary.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{TestMesh, finish};

const MANIFEST: &str = "dataProduct:
  name: crm
  version: 1.0.0
  owner: sales-team
  schema:
    - name: customers
      write: replace
      source: customers.csv
      owner: customer-stewards
      columns:
        - {name: id, type: long, primaryKey: true}
        - {name: name, type: string, owner: privacy-team}
";

const SESSIONS: &str = "dataProduct:
  name: sessions
  version: 1.0.0
  owner: web-team
  inputs: [sales/crm@^1]
  schema:
    - name: visits
      transform: SELECT id, name FROM sales.crm.customers
      columns:
        - {name: id, type: long, primaryKey: true}
        - {name: name, type: string}
";

const SALES: &str = "name: sales
owner: sales-team
purpose: To sell.
responsibilities: [One record per customer]
teams:
  - {name: sales-team, members: [ada@example.org]}
  - {name: customer-stewards, members: [{name: Bo, username: bo, role: steward}]}
  - {name: privacy-team, members: [cy]}
terms:
  - {term: customer, definition: Who buys., synonyms: [client], columns: [crm.customers.id]}
";

const WEB: &str = "name: web
owner: web-team
responsibilities: [Every visit]
teams: [{name: web-team, members: [di]}]
";

fn mesh() -> TestMesh {
    let mesh = TestMesh::new()
        .with_product("sales/crm", MANIFEST)
        .with_data("sales/crm", "customers.csv", "id,name\n1,Ada\n")
        .with_product("web/sessions", SESSIONS);
    mesh.write("mesh.yaml", "name: test\n");
    mesh.write("domains/sales/domain.yaml", SALES);
    mesh.write("domains/web/domain.yaml", WEB);
    mesh
}

fn flights(arguments: &[&str]) -> crate::support::Outcome {
    let mesh = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/flights")).canonicalize().unwrap();
    let mut command = Command::new(crate::support::BINARY);
    command.args(arguments).arg("--mesh").arg(mesh).env_remove("DATAMESH_HOME").env_remove("DATAMESH_WAREHOUSE");
    finish(command)
}

fn map(mesh: &TestMesh) -> Value {
    mesh.run(&["domains", "map", "--format", "json"]).expect_code(0).json()
}

fn findings(mesh: &TestMesh) -> Vec<String> {
    let map = map(mesh);
    map["findings"].as_array().unwrap().iter().map(|finding| finding["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn domains_are_listed() {
    let mesh = mesh();
    let listed = mesh.run(&["domains"]).expect_code(0).stdout;
    assert_eq!(
        listed,
        "domain  owner       products  tables  responsibilities  upstream  downstream\n\
         sales   sales-team         1       1                 1         0           1\n\
         web     web-team           1       1                 1         1           0\n"
    );
    let document = mesh.run(&["domains", "--format", "json"]).expect_code(0).json();
    assert_eq!(document[1]["name"], "web");
    assert_eq!((&document[1]["upstream"], &document[0]["downstream"]), (&json!(1), &json!(1)));
    assert!(!mesh.path(".datamesh").exists(), "a look at domains starts no registry");
}

#[test]
fn a_domain_is_shown() {
    let mesh = mesh();
    let shown = mesh.run(&["domains", "show", "Sales"]).expect_code(0).stdout;
    for line in [
        "sales  owner sales-team",
        "  - One record per customer",
        "  customer-stewards [Bo (bo), steward]",
        "  customer (also: client): Who buys.",
        "      sales/crm.customers.id",
        "  crm 1.0.0: customers",
        "      customers  owner customer-stewards",
        "      customers.name  owner privacy-team",
    ] {
        assert!(shown.lines().any(|found| found == line), "{line} in\n{shown}");
    }
    let document = mesh.run(&["domains", "show", "sales", "--format", "json"]).expect_code(0).json();
    assert_eq!(document["terms"][0]["columns"], json!(["sales/crm.customers.id"]));
    assert_eq!(document["products"][0]["owners"][1], json!({"of": "customers.name", "owner": "privacy-team"}));
    let outcome = mesh.run(&["domains", "show", "slaes"]).expect_code(6);
    assert!(outcome.stderr.contains("did you mean `sales`?"), "{outcome}");
}

#[test]
fn an_undeclared_dependency_is_named_until_it_is_declared() {
    let mesh = mesh();
    assert_eq!(findings(&mesh), ["undeclared-dependency"]);
    mesh.run(&["domains", "map"]).expect_code(0);
    mesh.run(&["domains", "map", "--strict"]).expect_code(3);
    mesh.write("domains/web/domain.yaml", format!("{WEB}relationships: [{{domain: sales, kind: conformist}}]\n"));
    assert_eq!(findings(&mesh), [""; 0]);
    mesh.run(&["domains", "map", "--strict"]).expect_code(0);
    let link = &map(&mesh)["links"][0];
    assert_eq!(link["state"], "agreed");
    assert_eq!(link["downstream_marks"], json!(["CF"]));
}

#[test]
fn what_is_published_counts_beside_what_is_declared() {
    let mesh = mesh();
    mesh.run(&["publish", "sales/crm"]).expect_code(0);
    mesh.run(&["run", "web/sessions"]).expect_code(0);
    let evidence = map(&mesh)["links"][0]["dependencies"][0]["evidence"].clone();
    assert_eq!(evidence, json!(["input", "lineage"]));
    // The manifests of the other domain may lie elsewhere: the registry knows its products.
    std::fs::remove_dir_all(mesh.path("domains/sales")).unwrap();
    mesh.write("domains/web/domain.yaml", format!("{WEB}relationships: [{{domain: sales, kind: conformist}}]\n"));
    let document = map(&mesh);
    assert_eq!(document["domains"][0]["products"], json!(["crm"]));
    assert_eq!(document["links"][0]["state"], "agreed");
    mesh.run(&["check"]).expect_code(0);
}

#[test]
fn owners_below_the_product_are_shown_where_they_differ() {
    let mesh = mesh();
    mesh.run(&["publish", "sales/crm"]).expect_code(0);
    let shown = mesh.run(&["show", "sales/crm"]).expect_code(0).stdout;
    assert!(shown.contains("publication 1)  owner customer-stewards\n"), "{shown}");
    assert!(shown.contains("  name  string  [owner privacy-team]\n"), "{shown}");
    let table = mesh.run(&["show", "sales/crm", "--format", "json"]).expect_code(0).json()["tables"][0].clone();
    assert_eq!(table["owner"], "customer-stewards");
    assert_eq!(table["columns"][0].get("owner"), None);
    assert_eq!(table["columns"][1]["owner"], "privacy-team");
}

#[test]
fn check_tells_what_domains_say_wrong() {
    let mesh = mesh();
    mesh.run(&["check"]).expect_code(0);
    mesh.write(
        "domains/web/domain.yaml",
        format!("{WEB}relationships: [{{domain: sale, kind: conformist}}]\nterms: [{{term: a, definition: b, columns: sessions.visits.ip}}]\n"),
    );
    mesh.write("domains/sales/domain.yaml", SALES.replace("owner: sales-team", "owner: sale-team"));
    let report = mesh.run(&["check", "--format", "json"]).expect_code(4).json();
    let found: Vec<(&str, &str)> = report["diagnostics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|found| (found["id"].as_str().unwrap(), found["level"].as_str().unwrap()))
        .collect();
    assert_eq!(found, [("unknown-team", "warning"), ("unknown-domain", "error"), ("unknown-column-link", "error")]);
    let outcome = mesh.run(&["domains", "map"]).expect_code(4);
    assert!(outcome.stderr.contains("there are files with errors"), "{outcome}");
    assert!(outcome.stdout.is_empty(), "{outcome}");
}

#[test]
fn the_map_is_written_by_its_files_name() {
    let mesh = mesh();
    mesh.run(&["domains", "map", "--out", "map.svg"]).expect_code(0);
    mesh.run(&["domains", "map", "-o", "map.mmd"]).expect_code(0);
    mesh.run(&["domains", "map", "-o", "map.json"]).expect_code(0);
    let read = |name: &str| std::fs::read_to_string(mesh.path(name)).unwrap();
    assert!(read("map.svg").starts_with("<svg "));
    assert!(read("map.mmd").starts_with("flowchart LR\n"));
    assert_eq!(serde_json::from_str::<Value>(&read("map.json")).unwrap(), map(&mesh));
    mesh.run(&["domains", "map", "--out", "missing/map.svg"]).expect_code(8);
    let left: Vec<String> = mesh.files("").into_keys().filter(|name| name.contains(".context-map")).collect();
    assert_eq!(left, [""; 0]);
}

/// Whatever users write, the drawing is XML: Python's parser reads it.
#[test]
fn the_drawing_is_xml_that_shows_every_domain() {
    let mesh = mesh();
    mesh.write(
        "domains/web/domain.yaml",
        "name: web\nowner: \"<b> & 'team' \\\" ]]>\"\npurpose: \"a \\x07 bell\"\nrelationships: [{domain: sales, kind: conformist, description: '<&>'}]\n",
    );
    let drawing = mesh.run(&["domains", "map", "--format", "svg"]).expect_code(0).stdout;
    assert_eq!(names_in(&drawing), ["sales", "web"]);
}

/// The domains that a drawing names, by a reader of XML; fails where it is none, or where it has a script.
fn names_in(drawing: &str) -> Vec<String> {
    const SCRIPT: &str = "import json, sys, xml.etree.ElementTree as tree\n\
        root = tree.fromstring(sys.stdin.buffer.read())\n\
        name = '{http://www.w3.org/2000/svg}'\n\
        assert root.tag == name + 'svg' and not list(root.iter(name + 'script')), root\n\
        print(json.dumps([text.text for text in root.iter(name + 'text') if text.get('class') == 'name']))\n";
    let mut command = Command::new("python3");
    command.args(["-c", SCRIPT]).stdin(std::process::Stdio::piped());
    let mut running = crate::support::start(command);
    running.input().write_all(drawing.as_bytes()).unwrap();
    running.close_input();
    serde_json::from_str(&running.wait().expect_code(0).stdout).unwrap()
}

/// The context map of the demo, as Mermaid.
const DEMO_MAP: &str = r#"flowchart LR
  d0["customer<br/>customer-domain"]
  d1["fleet<br/>fleet-team"]
  d2["operations<br/>operations-team"]
  d3["punctuality<br/>punctuality-team"]
  d4["weather<br/>weather-team"]
  d0 ---|"SW"| d2
  d1 -->|"U OHS → D CF"| d2
  d1 -->|"U OHS PL → D ACL"| d3
  d2 -->|"U C/S → D C/S"| d3
  d4 -->|"U OHS → D CF"| d3
  linkStyle 0 stroke:#8c959f,stroke-dasharray:1 5
"#;

#[test]
fn the_demo_agrees_and_is_drawn() {
    let outcome = flights(&["domains", "map", "--strict"]).expect_code(0);
    assert!(outcome.stdout.ends_with("nothing disagrees\n"), "{outcome}");
    let chart = flights(&["domains", "map", "--format", "mermaid"]).expect_code(0).stdout;
    assert_eq!(chart, DEMO_MAP);
    let first = flights(&["domains", "map", "--format", "svg"]).expect_code(0).stdout;
    assert_eq!(names_in(&first), ["customer", "fleet", "operations", "punctuality", "weather"]);
    assert_eq!(first, flights(&["domains", "map", "--format", "svg"]).expect_code(0).stdout);
}

#[test]
fn the_schemas_of_all_documents_are_printed() {
    let mesh = mesh();
    for (document, title) in [("product", "Manifest"), ("tests", "Tests"), ("domain", "Domain"), ("mesh", "Mesh")] {
        let schema = mesh.run(&["schema", document]).expect_code(0).json();
        assert_eq!(schema["$ref"], format!("#/$defs/{title}"));
    }
    assert_eq!(mesh.run(&["schema", "--tests"]).expect_code(0).json()["$ref"], "#/$defs/Tests");
}
