//! `datamesh diff`, and the formats for other people's tools.

use std::path::Path;

use serde_json::Value;

use crate::support::{Outcome, TestMesh};

const BEFORE: &str = "\
dataProduct:
  name: orders
  version: 1.0.0
  owner: sales
  schema:
    - name: orders
      columns:
        - {name: id, type: long, primaryKey: true}
        - {name: email, type: string, required: true, maxLength: 100}
        - {name: note, type: string}
      quality: [rowCount > 100]
";

/// A folder without a mesh, with the manifest before and after these replacements.
struct Pair {
    folder: tempfile::TempDir,
    mesh: TestMesh,
}

impl Pair {
    fn new(edits: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut after = BEFORE.to_owned();
        for (from, to) in edits {
            assert!(after.contains(from), "{from}");
            after = after.replace(from, to);
        }
        std::fs::write(folder.path().join("before.yaml"), BEFORE).unwrap();
        std::fs::write(folder.path().join("after.yaml"), after).unwrap();
        Self { folder, mesh: TestMesh::new() }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Compares both in their folder, where there is no mesh.
    fn diff(&self, arguments: &[&str]) -> Outcome {
        let all: Vec<&str> = ["diff", "before.yaml", "after.yaml"].iter().chain(arguments).copied().collect();
        let mut command = self.mesh.command(&all);
        command.current_dir(self.path());
        crate::support::finish(command)
    }
}

const REMOVED: (&str, &str) = ("        - {name: note, type: string}\n", "");
const ADDED: (&str, &str) = ("      quality:", "        - {name: nick, type: string}\n      quality:");

#[test]
fn a_breaking_change_is_refused_until_the_major_version_is_raised() {
    let pair = Pair::new(&[REMOVED, ("1.0.0", "1.1.0")]);
    let outcome = pair.diff(&[]).expect_code(3);
    for expected in [
        "sales/orders 1.0.0 to 1.1.0: 1 change, which needs a major version",
        "table orders",
        "major   column-removed  note: column `note` was removed",
        "refused: 1.0.0 to 1.1.0 is too small a step: the changes need a major one",
        "help: set `version: 2.0.0` or higher",
    ] {
        assert!(outcome.stdout.contains(expected), "{expected}\n{outcome}");
    }
    let json = pair.diff(&["--format", "json"]).expect_code(3).json();
    assert_eq!((&json["needed"], &json["accepted"]), (&"major".into(), &false.into()));
    assert_eq!(json["refusal"]["leastVersion"], "2.0.0");
    assert_eq!(json["refusal"]["paths"], serde_json::json!(["schema.orders.columns.note"]));
    let change = &json["changes"][0];
    assert_eq!((&change["rule"], &change["kind"]), (&"column-removed".into(), &"removed".into()));
    assert_eq!((&change["table"], &change["columns"][0]), (&"orders".into(), &"note".into()));
    Pair::new(&[REMOVED, ("1.0.0", "2.0.0")]).diff(&[]).expect_code(0);
}

#[test]
fn the_version_must_go_up_with_what_is_changed() {
    let same = Pair::new(&[ADDED]).diff(&[]).expect_code(3);
    assert!(same.stdout.contains("the contract changed, but its version is still 1.0.0"), "{same}");
    let patch = Pair::new(&[ADDED, ("1.0.0", "1.0.1")]).diff(&[]).expect_code(3);
    assert!(patch.stdout.contains("the changes need a minor one"), "{patch}");
    Pair::new(&[ADDED, ("1.0.0", "1.1.0")]).diff(&[]).expect_code(0);
    let lower = Pair::new(&[("1.0.0", "0.9.0")]).diff(&[]).expect_code(3);
    assert!(lower.stdout.contains("version 0.9.0 is lower than 1.0.0"), "{lower}");
    let nothing = Pair::new(&[]).diff(&[]).expect_code(0);
    assert_eq!(nothing.stdout, "sales/orders 1.0.0 to 1.0.0: the same\n");
    // Comments and the order of keys are no change.
    let pair = Pair::new(&[("  version: 1.0.0\n  owner: sales\n", "  owner: sales # who\n  version: 1.0.0\n")]);
    assert!(pair.diff(&[]).expect_code(0).stdout.contains("the same"));
}

#[test]
fn a_change_that_no_text_can_judge_is_acknowledged() {
    let review = ("maxLength: 100", "maxLength: 100, pattern: '@'");
    let folder = Pair::new(&[review, ("1.0.0", "1.1.0")]);
    std::fs::copy(folder.path().join("after.yaml"), folder.path().join("before.yaml")).unwrap();
    let after = std::fs::read_to_string(folder.path().join("after.yaml")).unwrap();
    std::fs::write(folder.path().join("after.yaml"), after.replace("'@'", "'.@.'").replace("1.1.0", "1.2.0")).unwrap();
    let refused = folder.diff(&[]).expect_code(3);
    assert!(refused.stdout.contains("review  pattern-changed"), "{refused}");
    assert!(refused.stdout.contains("or add `--acknowledge`"), "{refused}");
    folder.diff(&["--acknowledge"]).expect_code(0);
}

#[test]
fn findings_point_at_lines_of_the_document_after() {
    let pair = Pair::new(&[REMOVED, ("maxLength: 100", "maxLength: 200"), ("1.0.0", "1.1.0")]);
    let sarif = pair.diff(&["--format", "sarif"]).expect_code(3).json();
    assert_eq!(sarif["version"], "2.1.0");
    let results = sarif["runs"][0]["results"].as_array().unwrap();
    let place = |rule: &str| {
        let result = results.iter().find(|result| result["ruleId"] == rule).unwrap_or_else(|| panic!("{rule}"));
        let place = &result["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "after.yaml");
        (place["region"]["startLine"].as_u64().unwrap(), place["region"]["startColumn"].as_u64().unwrap())
    };
    assert_eq!(place("version-too-small"), (3, 12));
    assert_eq!(place("length-loosened").0, 9);
    assert_eq!(place("column-removed").0, 7, "what is gone is told where it would stand: at its table's columns");
    assert!(results.iter().all(|result| result["level"] == "error"));
    let github = pair.diff(&["--format", "github"]).expect_code(3).stdout;
    assert!(github.contains("::error file=after.yaml,line=9,endLine=9,col="), "{github}");
    assert!(github.contains("title=length-loosened::schema.orders.columns.email.maxLength: "), "{github}");
}

#[test]
fn check_speaks_the_same_formats() {
    let mesh = TestMesh::new()
        .with_product("sales/orders", &BEFORE.replace("type: long", "type: lnog"))
        .with_product("sales/lines", &BEFORE.replace("orders", "lines"));
    let sarif = mesh.run(&["check", "--format", "sarif"]).expect_code(4).json();
    let results = sarif["runs"][0]["results"].as_array().unwrap();
    let result = results.iter().find(|result| result["ruleId"] == "invalid-type").unwrap();
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "domains/sales/products/orders/product.yaml");
    assert_eq!(place["region"]["startLine"], 8);
    let github = mesh.run(&["check", "--format", "github"]).expect_code(4).stdout;
    assert!(
        github.contains("::error file=domains/sales/products/orders/product.yaml,line=8,endLine=8,col="),
        "{github}"
    );
    assert!(github.trim_end().lines().last().unwrap().starts_with("checked "), "{github}");
}

#[test]
fn a_published_product_is_compared_with_a_manifest() {
    let mesh = TestMesh::new().with_product("sales/orders", &BEFORE.replace("      quality: [rowCount > 100]\n", ""));
    mesh.write("rows.csv", "id,email,note\n1,a@b.c,x\n");
    mesh.run(&["publish", "sales/orders", "orders=rows.csv"]).expect_code(0);
    let path = "domains/sales/products/orders/product.yaml";
    assert!(mesh.run(&["diff", "sales/orders", path]).expect_code(0).stdout.contains("the same"));
    let text = std::fs::read_to_string(mesh.path(path)).unwrap();
    mesh.write(path, text.replace("maxLength: 100", "maxLength: 50").replace("1.0.0", "1.1.0"));
    let outcome = mesh.run(&["diff", "sales/orders@1", "domains/sales/products/orders"]).expect_code(0);
    assert!(outcome.stdout.contains("minor   length-tightened"), "{outcome}");
    // The other way round there is no document to point into.
    let back = mesh.run(&["diff", path, "sales/orders@1", "--format", "github"]).expect_code(3);
    assert!(back.stdout.contains("file=sales/orders@1,title=length-loosened::"), "{back}");
}

#[test]
fn a_copy_elsewhere_is_of_the_same_domain() {
    let mesh = TestMesh::new().with_product("shop/orders", BEFORE);
    let copy = mesh.write("elsewhere/before.yaml", BEFORE);
    let outcome = mesh.run(&["diff", copy.to_str().unwrap(), "domains/shop/products/orders"]).expect_code(0);
    assert_eq!(outcome.stdout, "shop/orders 1.0.0 to 1.0.0: the same\n");
    let back = mesh.run(&["diff", "domains/shop/products/orders", copy.to_str().unwrap()]).expect_code(0);
    assert_eq!(back.stdout, "shop/orders 1.0.0 to 1.0.0: the same\n");
    // One that says its domain has moved.
    let moved = mesh
        .write("elsewhere/after.yaml", BEFORE.replace("  owner:", "  domain: crm\n  owner:").replace("1.0.0", "1.1.0"));
    let outcome = mesh.run(&["diff", "domains/shop/products/orders", moved.to_str().unwrap()]).expect_code(3);
    assert!(outcome.stdout.contains("product-moved"), "{outcome}");
}

#[test]
fn what_cannot_be_compared_is_told() {
    let pair = Pair::new(&[("type: long", "type: lnog")]);
    let invalid = pair.diff(&[]).expect_code(4);
    assert!(
        invalid.stderr.contains("`after.yaml` cannot be compared") && invalid.stderr.contains("did you mean"),
        "{invalid}"
    );
    let in_folder = |arguments: &[&str]| {
        let mut command = pair.mesh.command(arguments);
        command.current_dir(pair.path());
        crate::support::finish(command)
    };
    let missing = in_folder(&["diff", "before.yaml", "nothing.yaml"]).expect_code(6);
    assert!(missing.stderr.contains("there is no `nothing.yaml`"), "{missing}");
    let no_mesh = in_folder(&["diff", "before.yaml", "sales/orders"]).expect_code(6);
    assert!(no_mesh.stderr.contains("no mesh that could have published it"), "{no_mesh}");
    let no_major = in_folder(&["diff", "before.yaml", "sales/orders@x"]).expect_code(2);
    assert!(no_major.stderr.contains("`x` is no major version"), "{no_major}");
    let folder = in_folder(&["diff", ".", "before.yaml"]).expect_code(6);
    assert!(folder.stderr.contains("has no product.yaml"), "{folder}");
    let unknown = pair.mesh.run(&["diff", "sales/orders", "sales/orders"]).expect_code(6);
    assert!(unknown.stderr.contains("no product `sales/orders` is published"), "{unknown}");
    let error: Value = in_folder(&["diff", "before.yaml", "nothing.yaml", "--format", "json"]).expect_code(6).json();
    assert_eq!(error["error"]["code"], "not-found");
}
