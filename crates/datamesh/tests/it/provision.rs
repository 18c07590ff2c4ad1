//! `export terraform`, `provision` and `outbox` as somebody runs them: on a folder, and on a Glue that is moto's.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use serde_json::{Value, json};

use crate::servers::{Web, s3};
use crate::support::{Outcome, TestMesh, finish, on_postgres, start};

const ID: &str = "shop/sales";
const DATABASE: &str = "shop_sales_v1";
const FILE: &str = "domains/shop/products/sales/product.yaml";
const LOCAL: [&str; 2] = ["--target", "local"];
const GLUE: [&str; 2] = ["--target", "glue"];

const DENIED: i32 = 14;
const REFUSED: i32 = 16;
const DIFFERS: i32 = 2;

fn manifest(version: &str, more: &str) -> String {
    format!(
        "dataProduct:
  name: sales
  version: {version}
  owner: shop-team
  description: What was sold.
  schema:
    - name: orders
      description: One row an order.
      write: append
      partitionBy: [shop]
      columns:
        - {{name: id, type: int, primaryKey: true, description: \"the ${{id}} of \\\"an\\\" order\"}}
        - {{name: shop, type: string, required: true}}
{more}"
    )
}

/// A mesh with the product applied, and nothing published.
fn mesh() -> TestMesh {
    let mesh = TestMesh::new().by_hand().with_product(ID, &manifest("1.0.0", ""));
    mesh.run(&["apply"]).expect_code(0);
    mesh
}

fn publish(mesh: &TestMesh, id: i64) {
    mesh.write(&format!("data/{id}.csv"), format!("id,shop\n{id},a\n"));
    mesh.run(&["publish", ID, &format!("orders=data/{id}.csv")]).expect_code(0);
}

/// The metadata document that the registry says is current.
fn current(mesh: &TestMesh) -> String {
    mesh.registry("SELECT metadata_location FROM tables")[0][0].as_str().unwrap().to_owned()
}

/// What keeps a catalog: commands on a target, and what is in it.
trait Catalog {
    fn target(&self) -> [&'static str; 2];
    fn prepare(&self, _command: &mut Command) {}
    /// A table's parameters and columns; `None`: there is no such table.
    fn table(&self, mesh: &TestMesh) -> Option<(Value, Vec<String>)>;
    /// The mesh's databases.
    fn databases(&self, mesh: &TestMesh) -> Vec<String>;
    /// Somebody else's change: takes the owner's mark away, or the pointer elsewhere.
    fn set(&self, mesh: &TestMesh, parameter: &str, value: Option<&str>);

    fn run(&self, mesh: &TestMesh, arguments: &[&str]) -> Outcome {
        let mut command = mesh.command(arguments);
        command.args(self.target());
        self.prepare(&mut command);
        finish(command)
    }

    fn follow(&self, mesh: &TestMesh) -> Value {
        self.run(mesh, &["outbox", "run", "--format", "json"]).expect_code(0).json()
    }

    /// The table's pointer is the registry's, and nothing else differs.
    #[track_caller]
    fn check(&self, mesh: &TestMesh, publication: u64) {
        let (parameters, _) = self.table(mesh).expect("the table is there");
        assert_eq!(parameters["metadata_location"], json!(current(mesh)));
        assert_eq!(parameters["datamesh.publication"], json!(publication.to_string()));
        assert_eq!(parameters["table_type"], json!("ICEBERG"));
        self.run(mesh, &["provision", "drift"]).expect_code(0);
    }
}

struct Folder;

impl Folder {
    fn path(mesh: &TestMesh) -> std::path::PathBuf {
        mesh.path(&format!(".datamesh/provision/local/{DATABASE}/orders.table.json"))
    }
}

fn names(columns: &Value, key: &str) -> Vec<String> {
    columns.as_array().into_iter().flatten().map(|column| column[key].as_str().unwrap().to_owned()).collect()
}

impl Catalog for Folder {
    fn target(&self) -> [&'static str; 2] {
        LOCAL
    }

    fn table(&self, mesh: &TestMesh) -> Option<(Value, Vec<String>)> {
        let text = fs::read_to_string(Self::path(mesh)).ok()?;
        let table: Value = serde_json::from_str(&text).unwrap();
        Some((table["parameters"].clone(), names(&table["columns"], "name")))
    }

    fn databases(&self, mesh: &TestMesh) -> Vec<String> {
        let folders = fs::read_dir(mesh.path(".datamesh/provision/local")).unwrap().map(|entry| entry.unwrap().path());
        let names = folders.filter(|folder| folder.join("database.json").exists());
        let mut names: Vec<String> =
            names.map(|folder| folder.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    fn set(&self, mesh: &TestMesh, parameter: &str, value: Option<&str>) {
        let mut table: Value = serde_json::from_str(&fs::read_to_string(Self::path(mesh)).unwrap()).unwrap();
        let parameters = table["parameters"].as_object_mut().unwrap();
        match value {
            Some(value) => parameters.insert(parameter.to_owned(), json!(value)),
            None => parameters.remove(parameter),
        };
        fs::write(Self::path(mesh), table.to_string()).unwrap();
    }
}

/// moto's Glue; each region is a catalog of its own.
struct Glue {
    region: &'static str,
    endpoint: String,
}

impl Glue {
    fn at(region: &'static str) -> Option<Self> {
        let endpoint = s3()?.environment().into_iter().find(|(name, _)| *name == "AWS_ENDPOINT_URL").unwrap().1;
        Some(Self { region, endpoint })
    }

    fn call(&self, operation: &str, body: &Value) -> (bool, Value) {
        let host = self.endpoint.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(host).unwrap();
        let (body, region) = (body.to_string(), self.region);
        write!(
            stream,
            "POST / HTTP/1.0\r\nHost: {host}\r\nX-Amz-Target: AWSGlue.{operation}\r\n\
             Content-Type: application/x-amz-json-1.1\r\nContent-Length: {}\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/{region}/glue/aws4_request, SignedHeaders=host, \
             Signature=0\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let done = head.lines().next().unwrap().contains(" 200 ");
        (done, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    fn get(&self) -> Option<Value> {
        let (found, answer) = self.call("GetTable", &json!({"DatabaseName": DATABASE, "Name": "orders"}));
        found.then(|| answer["Table"].clone())
    }
}

impl Catalog for Glue {
    fn target(&self) -> [&'static str; 2] {
        GLUE
    }

    fn prepare(&self, command: &mut Command) {
        command.env("AWS_ENDPOINT_URL_GLUE", &self.endpoint);
        command.env("AWS_REGION", self.region);
        command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "not-so-secret");
    }

    fn table(&self, _mesh: &TestMesh) -> Option<(Value, Vec<String>)> {
        let table = self.get()?;
        Some((table["Parameters"].clone(), names(&table["StorageDescriptor"]["Columns"], "Name")))
    }

    fn databases(&self, _mesh: &TestMesh) -> Vec<String> {
        let (done, answer) = self.call("GetDatabases", &json!({}));
        assert!(done, "{answer}");
        let mut names = names(&answer["DatabaseList"], "Name");
        names.sort();
        names
    }

    fn set(&self, _mesh: &TestMesh, parameter: &str, value: Option<&str>) {
        let table = self.get().unwrap();
        let mut input = json!({});
        for key in ["Name", "Description", "Owner", "Parameters", "PartitionKeys", "StorageDescriptor", "TableType"] {
            if !table[key].is_null() {
                input[key] = table[key].clone();
            }
        }
        let parameters = input["Parameters"].as_object_mut().unwrap();
        match value {
            Some(value) => parameters.insert(parameter.to_owned(), json!(value)),
            None => parameters.remove(parameter),
        };
        let (done, answer) = self.call("UpdateTable", &json!({"DatabaseName": DATABASE, "TableInput": input}));
        assert!(done, "{answer}");
    }
}

/// The kinds of the changes that a delivery made.
fn changes(delivered: &Value) -> Vec<&str> {
    delivered["made"].as_array().unwrap().iter().map(|change| change["change"].as_str().unwrap()).collect()
}

/// After whatever moves a pointer, the catalog follows; with nothing new nothing is done.
fn every_move_is_followed(catalog: &dyn Catalog) {
    let mesh = mesh();
    let waiting = catalog.follow(&mesh);
    assert_eq!((&waiting["made"], catalog.table(&mesh)), (&json!([]), None), "it never published");
    publish(&mesh, 1);
    let first = catalog.follow(&mesh);
    assert_eq!(changes(&first), ["createDatabase", "createTable"], "{first}");
    catalog.check(&mesh, 1);
    let idle = catalog.follow(&mesh);
    assert_eq!((&idle["from"], &idle["moved"]), (&first["to"], &json!([])));
    assert_eq!(idle["from"], idle["to"]);

    let table = json!([format!("{DATABASE}.orders")]);
    publish(&mesh, 2);
    assert_eq!(catalog.follow(&mesh)["moved"], table);
    catalog.check(&mesh, 2);
    let before = current(&mesh);
    mesh.run(&["maintain", "--format", "json"]).expect_code(0);
    assert_ne!(current(&mesh), before, "files were merged");
    assert_eq!(catalog.follow(&mesh)["moved"], table);
    catalog.check(&mesh, 2);
    mesh.run(&["rollback", ID, "--to", "1"]).expect_code(0);
    assert_eq!(catalog.follow(&mesh)["moved"], table);
    catalog.check(&mesh, 3);
    let (before, more) = (current(&mesh), "        - {name: note, type: string}\n");
    mesh.write(FILE, manifest("1.1.0", more));
    mesh.run(&["apply"]).expect_code(0);
    assert_ne!(current(&mesh), before, "the table has a column more");
    let evolved = catalog.follow(&mesh);
    assert_eq!(changes(&evolved), ["updateDatabase", "updateTable"], "{evolved}");
    catalog.check(&mesh, 3);
    let (parameters, columns) = catalog.table(&mesh).unwrap();
    assert_eq!((&parameters["datamesh.version"], columns), (&json!("1.1.0"), vec!["id".to_owned(), "note".to_owned()]));
    mesh.write(FILE, manifest("1.1.1", more).replace("One row an order.", "An order a row."));
    mesh.run(&["apply"]).expect_code(0);
    let described = catalog.follow(&mesh);
    assert_eq!(changes(&described), ["updateDatabase", "updateTable"], "{described}");
    assert_eq!(described["made"][1]["differences"][0]["of"], json!("description"));
    catalog.check(&mesh, 3);

    // What nobody needs any more goes, and a consumer that is new begins with what is current.
    let shown = mesh.run(&["outbox", "show", "--format", "json"]).expect_code(0).json();
    let consumer = &shown["consumers"][0];
    assert_eq!((&consumer["sequence"], &shown["head"]), (&shown["head"], &json!(8)));
    let entries = mesh.registry("SELECT sequence FROM outbox").len();
    let trimmed = mesh.run(&["maintain", "--format", "json"]).expect_code(0).json();
    assert_eq!((&trimmed["outboxEntries"], entries), (&json!(entries), 5), "the first maintenance took three");
    let name = consumer["name"].as_str().unwrap();
    mesh.run(&["outbox", "forget", name]).expect_code(0);
    mesh.run(&["outbox", "forget", name]).expect_code(6);
    let again = catalog.follow(&mesh);
    assert_eq!((&again["from"], &again["to"], &again["current"]), (&json!(0), &json!(8), &table));
    assert_eq!(again["made"], json!([]));
    catalog.check(&mesh, 3);
}

#[test]
fn a_folder_follows_every_move() {
    every_move_is_followed(&Folder);
}

#[test]
fn a_folder_follows_every_move_of_a_registry_in_postgres() {
    on_postgres(|| every_move_is_followed(&Folder));
}

#[test]
fn glue_follows_every_move() {
    let Some(glue) = Glue::at("eu-central-1") else { return };
    every_move_is_followed(&glue);
}

/// A product that gets another name is made under it; what this mesh had made under the old one goes, and nothing else.
fn a_name_that_was_left_is_cleared(catalog: &dyn Catalog) {
    let rename = |mesh: &TestMesh, from: &str, to: &str| {
        fs::remove_file(mesh.path(&format!("domains/shop/products/{from}/product.yaml"))).unwrap();
        let text = manifest("1.0.0", "").replace("name: sales", &format!("name: {to}\n  movedFrom: shop/{from}"));
        mesh.write(&format!("domains/shop/products/{to}/product.yaml"), text);
        mesh.run(&["apply"]).expect_code(0);
    };
    let removed = |delivered: &Value| {
        let removed = delivered["removed"].as_array().unwrap().iter();
        removed.map(|change| change["change"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let mesh = mesh();
    publish(&mesh, 1);
    catalog.follow(&mesh);
    rename(&mesh, "sales", "deals");
    let moved = catalog.follow(&mesh);
    assert_eq!(changes(&moved), ["createDatabase", "createTable"], "{moved}");
    assert_eq!(removed(&moved), ["deleteTable", "deleteDatabase"], "{moved}");
    assert_eq!((catalog.databases(&mesh), catalog.table(&mesh)), (vec!["shop_deals_v1".to_owned()], None));
    catalog.run(&mesh, &["provision", "drift"]).expect_code(0);
    let idle = catalog.follow(&mesh);
    assert_eq!((changes(&idle), removed(&idle)), (vec![], vec![]));
    assert_eq!(mesh.count("shop.deals.orders"), 1, "files of tables stay");

    // Back again, and away once more: what somebody has taken over stays, and its database with it.
    rename(&mesh, "deals", "sales");
    assert_eq!(removed(&catalog.follow(&mesh)), ["deleteTable", "deleteDatabase"]);
    catalog.check(&mesh, 1);
    catalog.set(&mesh, "datamesh.mesh", Some("another"));
    rename(&mesh, "sales", "deals");
    assert_eq!(removed(&catalog.follow(&mesh)), Vec::<String>::new());
    assert_eq!(catalog.databases(&mesh), ["shop_deals_v1", DATABASE]);
    assert_eq!(catalog.table(&mesh).unwrap().0["datamesh.mesh"], json!("another"));
}

#[test]
fn a_folder_keeps_no_name_that_was_left() {
    a_name_that_was_left_is_cleared(&Folder);
}

#[test]
fn glue_keeps_no_name_that_was_left() {
    let Some(glue) = Glue::at("eu-north-1") else { return };
    a_name_that_was_left_is_cleared(&glue);
}

/// A mesh is planned, made, found to be as it should, edited by hand, mended and removed.
fn a_catalog_is_kept(catalog: &dyn Catalog) {
    let mesh = mesh();
    publish(&mesh, 1);
    let planned = catalog.run(&mesh, &["provision", "plan"]).expect_code(0);
    assert_eq!(planned.stdout, format!("+ database {DATABASE}\n+ table {DATABASE}.orders\n"));
    let drift = catalog.run(&mesh, &["provision", "drift", "--format", "json"]).expect_code(DIFFERS).json();
    assert_eq!((&drift["differs"], catalog.table(&mesh)), (&json!(true), None), "nothing was made");
    let applied = catalog.run(&mesh, &["provision", "apply", "--format", "json"]).expect_code(0).json();
    assert_eq!(applied["applied"]["done"].as_array().unwrap().len(), 2, "{applied}");
    assert_eq!(applied["applied"]["failed"], json!([]));
    catalog.check(&mesh, 1);
    let again = catalog.run(&mesh, &["provision", "apply"]).expect_code(0);
    assert!(again.stdout.starts_with("nothing to do"), "{again}");

    // By hand: the pointer elsewhere, and a note of somebody's engine.
    catalog.set(&mesh, "metadata_location", Some("s3://elsewhere/metadata/1.json"));
    catalog.set(&mesh, "theirs", Some("kept"));
    let drift = catalog.run(&mesh, &["provision", "drift", "--format", "json"]).expect_code(DIFFERS).json();
    let changes = drift["plan"]["changes"].as_array().unwrap();
    assert_eq!((changes.len(), &changes[0]["change"]), (1, &json!("updateTable")));
    let location = json!([{
        "of": "parameter metadata_location", "is": "s3://elsewhere/metadata/1.json", "shouldBe": current(&mesh)
    }]);
    assert_eq!(changes[0]["differences"], location);
    let shown = catalog.run(&mesh, &["provision", "drift"]).expect_code(DIFFERS);
    assert!(
        shown.stdout.starts_with(&format!("~ table {DATABASE}.orders\n    parameter metadata_location: ")),
        "{shown}"
    );
    catalog.run(&mesh, &["provision", "apply", ID]).expect_code(0);
    catalog.check(&mesh, 1);
    assert_eq!(catalog.table(&mesh).unwrap().0["theirs"], json!("kept"));

    // Removing asks first, and there is nobody to ask.
    let unasked = catalog.run(&mesh, &["provision", "destroy"]).expect_code(2);
    assert!(unasked.stderr.contains("2 removals") && unasked.stderr.contains("`--yes`"), "{unasked}");
    assert!(catalog.table(&mesh).is_some());
    catalog.run(&mesh, &["provision", "destroy", "--yes"]).expect_code(0);
    assert!(catalog.table(&mesh).is_none());
    assert_eq!(mesh.count("shop.sales.orders"), 1, "files of tables stay");
    // The outbox makes it again with the next publication.
    catalog.follow(&mesh);
    catalog.check(&mesh, 1);
}

#[test]
fn a_folder_is_kept_as_the_contracts_say() {
    a_catalog_is_kept(&Folder);
}

#[test]
fn glue_is_kept_as_the_contracts_say() {
    let Some(glue) = Glue::at("eu-west-1") else { return };
    a_catalog_is_kept(&glue);
}

/// Whatever does not carry this mesh's mark is left alone, by every command.
fn what_is_not_ours_stays(catalog: &dyn Catalog) {
    let mesh = mesh();
    publish(&mesh, 1);
    catalog.follow(&mesh);
    catalog.set(&mesh, "datamesh.mesh", Some("another"));
    catalog.set(&mesh, "metadata_location", Some("s3://theirs/metadata/1.json"));
    publish(&mesh, 2);
    for arguments in [&["provision", "plan"][..], &["provision", "apply"], &["outbox", "run"]] {
        let refused = catalog.run(&mesh, arguments).expect_code(REFUSED);
        let told = format!("`{DATABASE}.orders` exists, and this mesh did not make it");
        assert!(refused.stderr.contains(&told) && refused.stderr.contains("help:"), "{refused}");
        let json = catalog.run(&mesh, &[arguments, &["--format", "json"]].concat()).expect_code(REFUSED);
        assert!(!json.stdout.is_empty() || json.stderr.contains("plan-refused"), "{json}");
    }
    catalog.run(&mesh, &["provision", "destroy", "--yes"]).expect_code(0);
    assert_eq!(catalog.table(&mesh).unwrap().0["metadata_location"], json!("s3://theirs/metadata/1.json"));
    // What was in the way is gone: the entry that it held up is delivered.
    let mesh_id = mesh.registry("SELECT id FROM mesh")[0][0].as_str().unwrap().to_owned();
    catalog.set(&mesh, "datamesh.mesh", Some(&mesh_id));
    assert_eq!(catalog.follow(&mesh)["moved"], json!([format!("{DATABASE}.orders")]));
    catalog.check(&mesh, 2);
}

#[test]
fn a_folder_keeps_what_is_not_ours() {
    what_is_not_ours_stays(&Folder);
}

#[test]
fn glue_keeps_what_is_not_ours() {
    let Some(glue) = Glue::at("eu-north-1") else { return };
    what_is_not_ours_stays(&glue);
}

#[test]
fn who_may_not_administer_the_mesh_changes_no_catalog() {
    let mesh = mesh();
    publish(&mesh, 1);
    let before = mesh.files(".datamesh/provision");
    for (arguments, operation) in [
        (&["provision", "apply", "--target", "local"][..], "provision apply"),
        (&["provision", "destroy", "--yes", "--target", "local"], "provision destroy"),
        (&["outbox", "run", "--target", "local"], "outbox run"),
        (&["outbox", "forget", "local:x"], "outbox forget"),
    ] {
        let denied = mesh.run(&[&["--as", "user:bob"], arguments].concat()).expect_code(DENIED);
        assert!(denied.stderr.contains("user:bob"), "{denied}");
        let log = mesh.run(&["audit", "--principal", "user:bob", "--format", "json"]).expect_code(0).json();
        let entry = &log[0];
        assert_eq!((&entry["outcome"], &entry["action"]), (&json!("deny"), &json!("administer")), "{log:#}");
        assert!(entry.to_string().contains(operation), "{entry:#}");
    }
    assert_eq!(mesh.files(".datamesh/provision"), before, "nothing was made");
    assert!(mesh.registry("SELECT name FROM outbox_consumers").is_empty());
}

#[test]
fn what_a_target_does_not_take_is_told() {
    let mesh = mesh();
    for (arguments, told) in [
        (&["provision", "plan", "--target", "local", "--region", "x"][..], "`--region` is for the target `glue` alone"),
        (&["provision", "plan", "--target", "glue", "--dir", "x"], "`--dir` is for the target `local` alone"),
        (&["outbox", "run", "--target", "local", "--every", "0s"], "`0s` is no time to wait"),
        (&["provision", "plan", "--target", "local", "--prefix", "9x"], "begins with `9`"),
        (&["provision", "plan", "--target", "glue"], "no AWS region is known"),
    ] {
        let mut command = mesh.command(arguments);
        command.env("AWS_EC2_METADATA_DISABLED", "true").env("HOME", mesh.root());
        let outcome = finish(command).expect_code(2);
        assert!(outcome.stderr.contains(told) && outcome.stderr.contains("help:"), "{outcome}");
    }
    mesh.run(&["provision", "plan", "--target", "local", "shop/nowhere"]).expect_code(6);
}

/// Whatever is stopped while the target says nothing is gone on with by the next run.
#[test]
fn what_is_stopped_goes_on_the_next_time() {
    let Some(glue) = Glue::at("ap-southeast-2") else { return };
    let mesh = mesh();
    publish(&mesh, 1);
    let silent = Web::start(|_, stream| std::io::copy(stream, &mut std::io::sink()).map(|_| ()));
    for arguments in [&["provision", "apply"][..], &["outbox", "run"]] {
        let mut command = mesh.command(arguments);
        command.args(GLUE);
        glue.prepare(&mut command);
        command.env("AWS_ENDPOINT_URL_GLUE", silent.url(""));
        let before = silent.requests().len();
        let mut running = start(command);
        running.until("it asks", || silent.requests().len() > before);
        Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap();
        let outcome = running.wait().expect_code(130);
        assert!(outcome.stderr.contains("stopped"), "{outcome}");
    }
    glue.run(&mesh, &["provision", "apply"]).expect_code(0);
    publish(&mesh, 2);
    glue.follow(&mesh);
    glue.check(&mesh, 2);
}

/// One that goes on follows what is published while it runs, and ends well when it is told to.
#[test]
fn one_that_goes_on_follows_what_is_published_meanwhile() {
    let mesh = mesh();
    publish(&mesh, 1);
    let mut command = mesh.command(&["outbox", "run", "--every", "1s", "--format", "json"]);
    command.args(LOCAL);
    let mut running = start(command);
    let follows = |mesh: &TestMesh| {
        let current = current(mesh);
        // A document is replaced as a whole.
        Folder.table(mesh).is_some_and(|(parameters, _)| parameters["metadata_location"] == json!(current))
    };
    running.until("it follows", || follows(&mesh));
    publish(&mesh, 2);
    running.until("it follows again", || follows(&mesh));
    // Another one of the same target beside it delivers what the first has not yet, and takes nothing back.
    publish(&mesh, 3);
    Folder.follow(&mesh);
    Folder.check(&mesh, 3);
    Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap();
    let outcome = running.wait().expect_code(0);
    let lines: Vec<Value> = outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() >= 2 && lines.iter().is_sorted_by_key(|line| line["to"].as_u64()), "{outcome}");
    Folder.check(&mesh, 3);
}

fn listing(mesh: &TestMesh, folder: &str) -> Vec<String> {
    let names = mesh.files(folder).into_keys();
    names.map(|path| path.rsplit('/').next().unwrap().to_owned()).collect()
}

#[test]
fn a_module_is_exported_and_brought_up_to_date() {
    let mesh = mesh();
    let created = mesh.run(&["export", "terraform", "--out", "infra"]).expect_code(0);
    assert_eq!(created.stdout.matches("created infra/").count(), 5, "{created}");
    let files = ["main.tf", "outputs.tf", "shop_sales_v1.tf", "variables.tf", "versions.tf"];
    assert_eq!(listing(&mesh, "infra"), files);
    let product = fs::read_to_string(mesh.path("infra/shop_sales_v1.tf")).unwrap();
    assert!(product.contains("comment = \"the $${id} of \\\"an\\\" order\""), "{product}");
    assert!(product.contains("\"datamesh.mesh\""), "it carries the mesh's mark");
    let kept = mesh.run(&["export", "terraform", "--out", "infra"]).expect_code(0);
    assert_eq!(kept.stdout.matches("kept    infra/").count(), 5, "{kept}");

    // A regenerated file takes the place of its own earlier version.
    mesh.write(FILE, manifest("1.1.0", "        - {name: note, type: string}\n"));
    mesh.run(&["apply"]).expect_code(0);
    let updated = mesh.run(&["export", "terraform", "--out", "infra"]).expect_code(0);
    assert_eq!(
        (updated.stdout.matches("updated ").count(), updated.stdout.matches("kept ").count()),
        (1, 4),
        "{updated}"
    );
    assert!(fs::read_to_string(mesh.path("infra/shop_sales_v1.tf")).unwrap().contains("\"note\""));
    assert_eq!(listing(&mesh, "infra"), files, "nothing else is left there");

    // One that was changed by hand, or that somebody else wrote, does not lose a word; the others are not written either.
    mesh.write(FILE, manifest("1.2.0", "        - {name: note, type: string}\n        - {name: more, type: int}\n"));
    mesh.run(&["apply"]).expect_code(0);
    let ours = fs::read_to_string(mesh.path("infra/shop_sales_v1.tf")).unwrap();
    let by_hand = fs::read_to_string(mesh.path("infra/outputs.tf")).unwrap().replace("Names of", "The names of");
    mesh.write("infra/outputs.tf", &by_hand);
    mesh.write("infra/versions.tf", "terraform {}\n");
    let refused = mesh.run(&["export", "terraform", "--out", "infra"]).expect_code(2);
    let told = "nothing was written: `infra/outputs.tf` was changed by hand, `infra/versions.tf` was not written by this command";
    assert!(refused.stderr.contains(told) && refused.stderr.contains("`--force`"), "{refused}");
    assert_eq!(fs::read_to_string(mesh.path("infra/outputs.tf")).unwrap(), by_hand);
    assert_eq!(fs::read_to_string(mesh.path("infra/shop_sales_v1.tf")).unwrap(), ours);
    let forced = mesh.run(&["export", "terraform", "--out", "infra", "--force"]).expect_code(0);
    assert_eq!(forced.stdout.matches("updated ").count(), 3, "{forced}");
    mesh.run(&["export", "terraform", "--force"]).expect_code(2);

    // What is exported no longer is told, and stays: removing it would destroy what it declares.
    mesh.write("domains/shop/products/other/product.yaml", manifest("1.0.0", "").replace("name: sales", "name: other"));
    mesh.run(&["apply"]).expect_code(0);
    let other = mesh.run(&["export", "terraform", "shop/other", "--out", "infra"]).expect_code(0);
    assert!(other.stderr.contains("`infra/shop_sales_v1.tf` was exported before"), "{other}");
    assert!(mesh.path("infra/shop_sales_v1.tf").exists());
}

#[test]
fn the_style_of_the_article_is_its_resources_alone() {
    let mesh = mesh();
    let text = "resource \"aws_glue_catalog_database\" \"domain_data\" {
  name = \"shop_domain_data\"
}

resource \"aws_glue_catalog_table\" \"orders\" {
  name          = \"orders\"
  database_name = aws_glue_catalog_database.domain_data.name

  storage_descriptor {
    columns {
      name = \"id\"
      type = \"int\"
    }
  }
}
";
    let article = ["export", "terraform", "--style", "article"];
    assert_eq!(mesh.run(&article).expect_code(0).stdout, text);
    let out = [&article[..], &["--out", "infra"]].concat();
    mesh.run(&out).expect_code(0);
    assert_eq!(fs::read_to_string(mesh.path("infra/main.tf")).unwrap(), text, "attribute for attribute");
    mesh.run(&out).expect_code(0);
    mesh.write("infra/main.tf", text.replace("shop_domain_data", "mine"));
    mesh.run(&out).expect_code(2);
    mesh.run(&[&out[..], &["--force"]].concat()).expect_code(0);
    assert_eq!(fs::read_to_string(mesh.path("infra/main.tf")).unwrap(), text);
    mesh.run(&[&article[..], &["--empty-tables"]].concat()).expect_code(2);
    mesh.run(&["export", "odcs", ID, "--style", "article"]).expect_code(2);
}

#[test]
fn what_is_published_on_this_machine_is_not_suggested_to_aws() {
    let mesh = mesh();
    publish(&mesh, 1);
    let exported = mesh.run(&["export", "terraform"]).expect_code(0);
    assert!(!exported.stdout.contains("file://"), "{exported}");
    assert!(exported.stderr.contains("`shop.sales_v1.orders` is published where AWS cannot read"), "{exported}");
}
