//! Lineage as it is recorded with publications and shown.

use serde_json::{Value, json};

use crate::support::TestMesh;

const CRM: &str = "dataProduct:
  name: crm
  version: 1.0.0
  owner: sales
  schema:
    - name: customers
      write: replace
      source: data/customers.csv
      columns:
        - {name: id, type: long, primaryKey: true}
        - {name: name, type: string}
        - {name: since, type: date}
        - {name: address, type: struct, columns: [{name: city, type: string}, {name: zip, type: string}]}
";

const PROFILES: &str = "dataProduct:
  name: customer-360
  version: 2.1.0
  owner: marketing
  schema:
    - name: Profiles
      write: replace
      columns:
        - {name: customer_id, type: long, from: [sales/crm.customers.id]}
        - {name: label, type: string, from: [sales/crm.customers.name, sales/crm.customers.since]}
        - {name: place, type: struct, columns: [{name: town, type: string, from: sales/crm.customers.address.city}]}
        - {name: score, type: int}
";

const CUSTOMERS: &str =
    "id,name,since,address\n1,Ada,2020-01-01,\"{\"\"city\"\": \"\"Rome\"\", \"\"zip\"\": \"\"1\"\"}\"\n";
const PROFILE_ROWS: &str = "{\"customer_id\": 1, \"label\": \"Ada, 2020\", \"place\": {\"town\": \"Rome\"}}\n";

fn mesh() -> TestMesh {
    TestMesh::new()
        .with_product("sales/crm", CRM)
        .with_data("sales/crm", "data/customers.csv", CUSTOMERS)
        .with_product("marketing/customer-360", PROFILES)
}

fn published() -> TestMesh {
    let mesh = mesh();
    mesh.run(&["publish", "sales/crm"]).expect_code(0);
    let rows = mesh.write("rows.ndjson", PROFILE_ROWS);
    mesh.run(&["publish", "customer-360", &format!("profiles={}", rows.display())]).expect_code(0);
    mesh
}

fn lineage(mesh: &TestMesh, arguments: &[&str]) -> Value {
    let all: Vec<&str> = ["lineage", "--format", "json"].into_iter().chain(arguments.iter().copied()).collect();
    mesh.run(&all).expect_code(0).json()
}

/// The steps of a walk, as `output SUBTYPE input`, without the mesh's folder.
fn steps(mesh: &TestMesh, walk: &Value) -> Vec<String> {
    let node = |node: &Value| {
        let name = node["name"].as_str().unwrap().replace(&mesh.root().display().to_string(), "");
        format!("{name}.{}", node["field"].as_str().unwrap_or("*"))
    };
    let edges = walk["edges"].as_array().unwrap().iter();
    edges
        .map(|edge| {
            let subtype = edge["subtype"].as_str().unwrap_or("ROWS");
            format!("{} {subtype} {}", node(&edge["output"]), node(&edge["input"]))
        })
        .collect()
}

#[test]
fn a_publication_records_its_source_and_what_the_manifest_says() {
    let mesh = published();
    let found = lineage(&mesh, &["customer-360", "--up"]);
    assert_eq!(
        steps(&mesh, &found["up"]),
        [
            "marketing.customer_360_v2.profiles.customer_id TRANSFORMATION sales.crm_v1.customers.id",
            "marketing.customer_360_v2.profiles.customer_id IDENTITY /rows.ndjson.customer_id",
            "marketing.customer_360_v2.profiles.label TRANSFORMATION sales.crm_v1.customers.name",
            "marketing.customer_360_v2.profiles.label TRANSFORMATION sales.crm_v1.customers.since",
            "marketing.customer_360_v2.profiles.label IDENTITY /rows.ndjson.label",
            "marketing.customer_360_v2.profiles.place IDENTITY /rows.ndjson.place",
            "marketing.customer_360_v2.profiles.place.town TRANSFORMATION sales.crm_v1.customers.address.city",
            "sales.crm_v1.customers.address.city IDENTITY /domains/sales/products/crm/data/customers.csv.address.city",
            "sales.crm_v1.customers.id IDENTITY /domains/sales/products/crm/data/customers.csv.id",
            "sales.crm_v1.customers.name IDENTITY /domains/sales/products/crm/data/customers.csv.name",
            "sales.crm_v1.customers.since IDENTITY /domains/sales/products/crm/data/customers.csv.since",
        ]
    );
    // A column that the source does not have comes from nowhere.
    assert_eq!(found["datasets"][0]["columnLineage"]["fields"]["score"]["inputFields"], json!([]));
    assert!(found["down"].is_null());
}

#[test]
fn a_column_is_followed_both_ways() {
    let mesh = published();
    for name in
        ["sales/crm.customers.address.city", "sales.crm.customers.address.CITY", "sales.crm_v1.customers.address.city"]
    {
        let found = lineage(&mesh, &[name]);
        assert_eq!(
            steps(&mesh, &found["up"]),
            [
                "sales.crm_v1.customers.address.city IDENTITY /domains/sales/products/crm/data/customers.csv.address.city",
            ]
        );
        assert_eq!(
            steps(&mesh, &found["down"]),
            ["marketing.customer_360_v2.profiles.place.town TRANSFORMATION sales.crm_v1.customers.address.city",]
        );
    }
    let outcome = mesh.run(&["lineage", "customer-360", "--up", "--depth", "1", "--format", "json"]).expect_code(0);
    assert!(!outcome.stdout.contains("customers.csv"), "{outcome}");
}

#[test]
fn lineage_is_shown_as_tree_and_as_chart() {
    let mesh = published();
    let plain = |arguments: &[&str]| {
        let outcome = mesh.run(arguments).expect_code(0);
        outcome.stdout.replace(&mesh.root().display().to_string(), "")
    };
    assert_eq!(
        plain(&["lineage", "marketing/customer-360.profiles.label"]),
        "comes from:
marketing.customer_360_v2.profiles.label
├─ sales.crm_v1.customers.name  TRANSFORMATION
│  └─ file:/domains/sales/products/crm/data/customers.csv name  IDENTITY
├─ sales.crm_v1.customers.since  TRANSFORMATION
│  └─ file:/domains/sales/products/crm/data/customers.csv since  IDENTITY
└─ file:/rows.ndjson label  IDENTITY

is used by:
nothing that is published
"
    );
    let query = "SELECT upper(name) AS loud, count(*) AS n FROM sales.crm.customers WHERE id > 1 GROUP BY name";
    assert_eq!(
        plain(&["lineage", "--sql", query]),
        "comes from:
query.loud
└─ sales.crm_v1.customers.name  TRANSFORMATION
   └─ file:/domains/sales/products/crm/data/customers.csv name  IDENTITY
query.n
query (rows)
├─ sales.crm_v1.customers.id  (FILTER)
│  └─ file:/domains/sales/products/crm/data/customers.csv id  IDENTITY
└─ sales.crm_v1.customers.name  (GROUP_BY) (see above)
"
    );
    assert_eq!(
        plain(&["lineage", "--sql", query, "--depth", "1", "--format", "mermaid"]),
        "flowchart LR
  subgraph d0[\"sales.crm_v1.customers\"]
    n0[\"id\"]
    n1[\"name\"]
  end
  subgraph d1[\"query\"]
    n2[\"(rows)\"]
    n3[\"loud\"]
    n4[\"n\"]
  end
  n0 -.->|\"FILTER\"| n2
  n1 -.->|\"GROUP_BY\"| n2
  n1 -->|\"TRANSFORMATION\"| n3
"
    );
    assert!(!plain(&["lineage", "--sql", query, "--direct"]).contains("FILTER"));
}

#[test]
fn a_version_has_the_lineage_of_its_table() {
    let mesh = published();
    let now = lineage(&mesh, &["--sql", "SELECT upper(name) AS loud FROM sales.crm.customers WHERE id > 1"]);
    assert!(steps(&mesh, &now["up"]).iter().any(|step| step.contains("TRANSFORMATION sales.crm_v1.customers.name")));
    for version in ["VERSION AS OF 1", "TIMESTAMP AS OF now()"] {
        let sql = format!("SELECT upper(name) AS loud FROM sales.crm.customers FOR {version} WHERE id > 1");
        assert_eq!(lineage(&mesh, &["--sql", &sql])["up"], now["up"], "{version}");
    }
    let missing = "SELECT id FROM sales.crm.customers FOR VERSION AS OF 99";
    let missing = mesh.run(&["lineage", "--sql", missing]).expect_code(6);
    assert!(missing.stderr.contains("has no publication 99"), "{missing}");
    let sampled = mesh.run(&["lineage", "--sql", "SELECT id FROM sales.crm.customers TABLESAMPLE (10 PERCENT)"]);
    let sampled = sampled.expect_code(9);
    assert!(sampled.stderr.contains("`TABLESAMPLE` is not supported"), "{sampled}");
}

#[test]
fn a_querys_lineage_needs_a_query_that_could_be_run() {
    let mesh = published();
    let fails = |arguments: &[&str], code: i32, text: &str| {
        let outcome = mesh.run(arguments).expect_code(code);
        assert!(outcome.stderr.contains(text), "{outcome}");
    };
    fails(&["lineage", "--sql", "SELECT nothing FROM sales.crm.customers"], 9, "nothing");
    fails(&["lineage", "--sql", "SELECT abs(name) FROM sales.crm.customers"], 9, "abs");
    fails(&["lineage", "--sql", "EXPLAIN SELECT id FROM sales.crm.customers"], 9, "only a query has a lineage");
    fails(&["lineage", "--sql", "DROP TABLE sales.crm.customers"], 9, "queries only read");
    fails(&["lineage", "sales/nothing"], 6, "no product `sales/nothing` is published");
    fails(&["lineage", "sales/crm.nothing"], 6, "its tables: customers");
    fails(&["lineage", "sales/crm.customers.nothing"], 6, "there are: id, name, since, address");
    fails(&["lineage", "sales/crm.customers.address.nothing"], 6, "there are: city, zip");
    fails(&["lineage", "sales/crm", "--publication", "99"], 6, "has no publication 99");
    fails(&["lineage", "sales/crm..id"], 2, "has an empty name");
    fails(&["lineage"], 2, "required");
    let found = lineage(&mesh, &["--sql", "SELECT count(*) AS n FROM information_schema.tables"]);
    assert_eq!(found["up"]["edges"], json!([]));
    let counted = lineage(&mesh, &["--sql", "SELECT count(*) AS n FROM sales.crm.customers"]);
    assert_eq!(steps(&mesh, &counted["up"]), ["result.* ROWS sales.crm_v1.customers.*"]);
}

#[test]
fn an_older_publication_keeps_its_own_lineage() {
    let mesh = published();
    let other = mesh.write("other.csv", CUSTOMERS.replace("Ada", "Eve"));
    mesh.run(&["publish", "sales/crm", &format!("customers={}", other.display())]).expect_code(0);
    let files = |arguments: &[&str]| {
        let found = lineage(&mesh, arguments);
        let steps = steps(&mesh, &found["up"]);
        assert_eq!(steps.len(), 1);
        steps[0].split(' ').next_back().unwrap().to_owned()
    };
    assert_eq!(files(&["sales/crm.customers.id", "--up"]), "/other.csv.id");
    let first = files(&["sales/crm.customers.id", "--up", "--publication", "1"]);
    assert_eq!(first, "/domains/sales/products/crm/data/customers.csv.id");
    // A repeat and a rejected attempt change nothing.
    mesh.run(&["publish", "sales/crm"]).expect_code(0);
    let broken = mesh.write("broken.csv", "id,name\n,x\n");
    mesh.run(&["publish", "sales/crm", &format!("customers={}", broken.display())]).expect_code(3);
    assert_eq!(files(&["sales/crm.customers.id", "--up"]), "/domains/sales/products/crm/data/customers.csv.id");
    let outcome = mesh.run(&["lineage", "sales/crm", "--publication", "5"]).expect_code(2);
    assert!(outcome.stderr.contains("was rejected"), "{outcome}");
    // Going back takes the lineage back.
    mesh.run(&["rollback", "sales/crm", "--to", "3"]).expect_code(0);
    assert_eq!(files(&["sales/crm.customers.id", "--up"]), "/other.csv.id");
}

#[test]
fn what_from_names_must_be_there() {
    let check = |from: &str, message: &str, help: &str| {
        let mesh = mesh();
        let manifest = PROFILES.replace("[sales/crm.customers.id]", from);
        mesh.write("domains/marketing/products/customer-360/product.yaml", manifest);
        let report = mesh.run(&["check", "--format", "json"]).expect_code(4).json();
        let found: Vec<&Value> = report["diagnostics"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|diagnostic| diagnostic["id"].as_str().is_some_and(|id| id.ends_with("from")))
            .collect();
        assert_eq!(found.len(), 1, "{from}: {report:#}");
        assert_eq!((found[0]["message"].as_str(), found[0]["help"].as_str()), (Some(message), Some(help)), "{from}");
        assert_eq!(found[0]["location"]["line"], 9, "{from}: {:#}", found[0]);
    };
    check(
        "sales/crn.customers.id",
        "`sales/crn.customers.id`: no product `sales/crn` in this mesh",
        "did you mean `sales/crm`?",
    );
    check(
        "sales/crm.customer.id",
        "`sales/crm.customer.id`: `sales/crm` has no table `customer`",
        "did you mean `customers`?",
    );
    check(
        "sales/crm.customers.nam",
        "`sales/crm.customers.nam`: table `customers` has no column `nam`",
        "did you mean `name`?",
    );
    check(
        "sales/crm.customers.address.town",
        "`sales/crm.customers.address.town`: table `customers` has no column `address.town`",
        "there are: city, zip",
    );
    check(
        "crm.customers.id",
        "`crm` names no domain",
        "write `domain/product.table.column`, as in `sales/crm.customers.id`",
    );
    check(
        "[sales/crm.customers.id, sales/crm.customers.id]",
        "`sales/crm.customers.id` is named twice",
        "keep one of them",
    );
    mesh().run(&["check"]).expect_code(0);
}
