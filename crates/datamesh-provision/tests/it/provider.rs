//! Terraform against what npm carries: hclwrite's format, and the AWS provider's schema.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use datamesh_core::DataProduct;
use datamesh_provision::terraform::{TerraformOptions, Unpublished, render};
use proptest::strategy::{Strategy, ValueTree};
use serde_json::Value;

use crate::contracts::{ARTICLE, contract, contracts, full};
use crate::terraform::{article, options};

/// Runs a script of tests/terraform. `None`, said aloud, where Node or its packages are not installed; `make test`
/// installs them and says so by DATAMESH_TEST_TERRAFORM, and then they must be there.
fn node(script: &str, arguments: &[&str], input: &str) -> Option<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/terraform");
    let started = folder.join("node_modules/@cdktn").is_dir().then(|| {
        let mut command = Command::new("node");
        command.arg(PathBuf::from(script)).args(arguments).current_dir(&folder);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().ok()
    });
    let Some(mut child) = started.flatten() else {
        assert!(std::env::var_os("DATAMESH_TEST_TERRAFORM").is_none(), "Node cannot run `{script}`");
        eprintln!("SKIPPED {script}: Node or its packages are missing; run `make test-rust`");
        return None;
    };
    let mut pipe = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || pipe.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

/// Modules of every style, and of contracts with text that tries to get out.
fn modules() -> Vec<String> {
    let empty = TerraformOptions { unpublished: Unpublished::Empty, ..options() };
    let mut modules = vec![
        module(&[contract(ARTICLE)], &article()),
        module(&[contract(ARTICLE), full()], &options()),
        module(&[full()], &empty),
    ];
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..80 {
        modules.push(module(&[contracts().new_tree(&mut runner).unwrap().current()], &options()));
    }
    modules
}

fn module(products: &[DataProduct], options: &TerraformOptions) -> String {
    let files = render(products, options).unwrap().files;
    files.iter().map(|file| file.text.as_str()).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_format_is_that_of_hclwrite() {
    let text = modules().join("\n");
    let Some(formatted) = node("format.mjs", &[], &text) else { return };
    for (at, (ours, theirs)) in text.lines().zip(formatted.lines()).enumerate() {
        assert_eq!(ours, theirs, "line {}", at + 1);
    }
    assert_eq!(text, formatted);
}

#[test]
fn the_provider_knows_all_that_is_written() {
    let folders = [
        "glue-catalog-database",
        "glue-catalog-table",
        "lakeformation-data-cells-filter",
        "lakeformation-permissions",
        "lakeformation-resource",
        "data-aws-caller-identity",
        "data-aws-partition",
    ];
    let Some(schema) = node("schema.mjs", &folders, "") else { return };
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let mut seen = 0;
    for module in modules() {
        let body: hcl::Body = hcl::parse(&module).unwrap();
        for block in body.blocks() {
            let kind = block.identifier();
            if kind == "resource" || kind == "data" {
                let of = &schema[kind][block.labels()[0].as_str()];
                assert!(of.is_object(), "the provider has no {kind} {}", block.labels()[0].as_str());
                if let Err(wrong) = check(&block.body, of, true) {
                    panic!("{} {}: {wrong}", block.labels()[0].as_str(), block.labels()[1].as_str());
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "only {seen} resources were checked");
    // The check must be able to fail.
    let table = &schema["resource"]["aws_glue_catalog_table"];
    for (text, wrong) in [
        ("name = \"a\"\n", "`database_name` is missing"),
        ("name = \"a\"\ndatabase_name = \"b\"\ncolumns = []\n", "`columns` is no attribute"),
        ("name = \"a\"\ndatabase_name = \"b\"\nstorage_descriptor {\n  columns {\n  }\n}\n", "`name` is missing"),
        ("name = \"a\"\ndatabase_name = \"b\"\nparameters {\n}\n", "`parameters` is no block"),
    ] {
        assert_eq!(check(&hcl::parse(text).unwrap(), table, true), Err(wrong.to_owned()));
    }
}

/// What of a body its schema does not know, or misses.
fn check(body: &hcl::Body, schema: &Value, top: bool) -> Result<(), String> {
    for attribute in body.attributes() {
        let known = schema["attributes"].get(attribute.key()).is_some() || (top && attribute.key() == "for_each");
        if !known {
            return Err(format!("`{}` is no attribute", attribute.key()));
        }
    }
    for block in body.blocks() {
        if top && block.identifier() == "lifecycle" {
            continue;
        }
        let inner = schema["blocks"].get(block.identifier());
        check(&block.body, inner.ok_or_else(|| format!("`{}` is no block", block.identifier()))?, false)?;
    }
    for (kind, present) in [
        ("attributes", body.attributes().map(|a| a.key().to_owned()).collect::<Vec<_>>()),
        ("blocks", body.blocks().map(|b| b.identifier().to_owned()).collect()),
    ] {
        for (name, of) in schema[kind].as_object().unwrap() {
            if of["required"] == true && !present.contains(name) {
                return Err(format!("`{name}` is missing"));
            }
        }
    }
    Ok(())
}
