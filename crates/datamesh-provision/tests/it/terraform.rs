//! Terraform: the article's own text, every type, and text that tries to get out of its quotes.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use datamesh_core::access::AttributeType;
use datamesh_provision::catalog;
use datamesh_provision::hcl::quoted;
use datamesh_provision::terraform::{Rendered, Style, TerraformOptions, Unpublished, render};
use hcl::Expression;
use proptest::prelude::*;

use crate::contracts::{ARTICLE, contract, contracts, full, hostile_text};

/// The article's listing, as printed.
const LISTING: &str = r#"resource "aws_glue_catalog_database" "domain_data" {
  name = "customer_domain_data"
}

resource "aws_glue_catalog_table" "customer_profile" {
  name          = "customer_profile"
  database_name = aws_glue_catalog_database.domain_data.name

  storage_descriptor {
    columns {
      name = "customer_id"
      type = "string"
    }
    columns {
      name = "preferences"
      type = "string"
    }
  }
}
"#;

pub(crate) fn options() -> TerraformOptions {
    let key = full().key();
    let metadata = "s3://lake/mesh/customer/customer_360_v2/customer_profile/metadata/3-a.metadata.json";
    TerraformOptions {
        mesh: Some("0192f0c1-0000-7000-8000-000000000000".into()),
        region: Some("eu-central-1".into()),
        warehouse: Some("s3://lake/mesh".into()),
        pointers: BTreeMap::from([((key, "customer_profile".into()), metadata.into())]),
        attributes: BTreeMap::from([("country".into(), AttributeType::String)]),
        ..TerraformOptions::default()
    }
}

pub(crate) fn article() -> TerraformOptions {
    TerraformOptions { style: Style::Article, ..TerraformOptions::default() }
}

fn all(rendered: &Rendered) -> String {
    rendered.files.iter().map(|file| format!("### {}\n{}", file.name, file.text)).collect()
}

/// `terraform fmt` of the machine, where there is one.
fn terraform() -> Option<PathBuf> {
    let found = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path).map(|folder| folder.join("terraform")).find(|file| file.is_file())
    });
    if found.is_none() {
        eprintln!("SKIPPED what asks Terraform: this machine has none; hclwrite checks the format too");
    }
    found
}

fn formatted(terraform: &Path, text: &str) -> String {
    let mut child = Command::new(terraform)
        .args(["fmt", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_article_is_written_as_printed() {
    let rendered = render(&[contract(ARTICLE)], &article()).unwrap();
    assert_eq!(rendered.files.len(), 1);
    assert_eq!(rendered.files[0].text, LISTING);
    let printed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/article.txt");
    match std::fs::read_to_string(&printed) {
        Ok(printed) => assert!(printed.contains(LISTING), "the article has another listing"),
        Err(_) => eprintln!("SKIPPED the comparison with the article's text: it is not on this machine"),
    }
}

#[test]
fn a_whole_product_is_written() {
    insta::assert_snapshot!(all(&render(&[full()], &options()).unwrap()));
}

#[test]
fn what_is_not_granted_is_said() {
    let rendered = render(&[full()], &options()).unwrap();
    assert_eq!(
        rendered.warnings,
        ["`customer.customer_360_v2.customer_profile` is not granted to the role `researcher`: its row filter calls \
          `lower`, and Lake Formation has no functions"]
    );
    assert!(!all(&rendered).contains("lower("), "a filter that cannot be said is not written");
}

#[test]
fn an_empty_table_is_made_where_that_is_wanted() {
    let empty = TerraformOptions { unpublished: Unpublished::Empty, ..options() };
    let text = all(&render(&[full()], &empty).unwrap());
    assert_eq!(text.matches("metadata_operation = \"CREATE\"").count(), 1, "only the table without a publication");
}

#[test]
fn what_aws_cannot_read_is_not_suggested_to_it() {
    let key = full().key();
    let metadata = "file:///srv/mesh/warehouse/customer/customer_360_v2/customer_profile/metadata/3-a.metadata.json";
    let local = TerraformOptions {
        warehouse: Some("file:///srv/mesh/warehouse".into()),
        pointers: BTreeMap::from([((key, "customer_profile".into()), metadata.into())]),
        ..options()
    };
    let rendered = render(&[full()], &local).unwrap();
    assert!(!all(&rendered).contains("file://"), "{}", all(&rendered));
    let told = "`customer.customer_360_v2.customer_profile` is published where AWS cannot read";
    assert!(rendered.warnings.iter().any(|warning| warning.starts_with(told)), "{:?}", rendered.warnings);
}

#[test]
fn a_comment_shows_what_it_is() {
    let mut contract = full();
    let offers = contract.declared.get_mut("access").unwrap().as_array_mut().unwrap();
    for offer in offers {
        if offer["role"] == "researcher" {
            offer["role"] = "re\u{202e}searcher\u{200b}\nresource \"x\" \"y\" {}".into();
        }
    }
    let text = all(&render(&[contract], &options()).unwrap());
    assert!(text.contains("re\u{fffd}searcher\u{fffd} resource"), "{text}");
    assert!(!text.lines().any(|line| line.starts_with("resource \"x\"")));
}

#[test]
fn a_prefix_makes_labels_that_terraform_takes() {
    for (prefix, wrong) in
        [("9lake_", "begins with `9`"), ("Lake", "has `L`"), ("a b", "has ` `"), ("a\"", "has `\\\"`")]
    {
        let options = TerraformOptions { database_prefix: prefix.into(), ..options() };
        let error = render(&[full()], &options).unwrap_err();
        assert!(error.to_string().contains(wrong), "{error}");
    }
}

#[test]
fn order_is_that_of_names() {
    let mut other = contract(ARTICLE);
    other.id.product = datamesh_core::Name::new("aaa").unwrap();
    let one = render(&[full(), other.clone()], &options()).unwrap();
    let two = render(&[other, full()], &options()).unwrap();
    assert_eq!(one, two);
}

#[test]
fn names_that_become_one_are_refused() {
    let mut one = contract(ARTICLE);
    one.id = datamesh_core::ProductId::parse("a_b/c").unwrap();
    let mut two = contract(ARTICLE);
    two.id = datamesh_core::ProductId::parse("a/b-c").unwrap();
    let error = render(&[one.clone(), two], &options()).unwrap_err();
    assert_eq!(error.to_string(), "`a.b_c_v1` and `a_b.c_v1` would both be the database `a_b_c_v1`");
    one.tables[0].columns[0].data_type = datamesh_core::DataType::Struct(vec![datamesh_core::Column::anonymous(
        "a:int,b",
        datamesh_core::DataType::Int,
    )]);
    let error = render(&[one], &options()).unwrap_err();
    assert!(error.to_string().contains("whose name a Glue type cannot spell"), "{error}");
}

#[test]
fn the_format_is_that_of_terraform() {
    let Some(terraform) = terraform() else { return };
    let modules =
        [render(&[contract(ARTICLE), full()], &options()).unwrap(), render(&[contract(ARTICLE)], &article()).unwrap()];
    for file in modules.into_iter().flat_map(|rendered| rendered.files) {
        assert_eq!(formatted(&terraform, &file.text), file.text, "{}", file.name);
    }
}

/// Evaluates literals in Terraform itself, which needs no provider for outputs.
#[test]
fn terraform_reads_text_as_it_was() {
    let Some(terraform) = terraform() else { return };
    let hostile = [
        "\"",
        "\\",
        "${1 + 1}",
        "$${x}",
        "$$${x}",
        "$$$${x}",
        "%{ if true }",
        "%%{x}",
        "%%%{x}",
        "$%{x}",
        "%${x}",
        "a\nb",
        "a\r\nb",
        "\t",
        "$",
        "$$",
        "{",
        "${",
        "\\${x}",
        "\\\\${x}",
        "\u{202e}x",
        "\u{7f}",
        "é🦀",
        "\u{e0041}",
        "${\"${file(\"/etc/passwd\")}\"}",
        "~}",
        "${~",
        "<<EOF\nx\nEOF",
    ];
    let text: String = hostile
        .iter()
        .enumerate()
        .map(|(at, text)| format!("output \"o{at}\" {{\n  value = {}\n}}\n", quoted(text)))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("main.tf"), &text).unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(&terraform).args(arguments).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    run(&["init", "-no-color", "-input=false"]);
    run(&["apply", "-no-color", "-input=false", "-auto-approve"]);
    let outputs: serde_json::Value = serde_json::from_slice(&run(&["output", "-json"])).unwrap();
    for (at, text) in hostile.iter().enumerate() {
        assert_eq!(outputs[format!("o{at}")]["value"], serde_json::Value::String((*text).to_owned()), "{text:?}");
    }
}

/// What a quoted literal means, as hcl-rs reads it.
fn read_back(literal: &str) -> String {
    let body: hcl::Body = hcl::parse(&format!("x = {literal}\n")).unwrap_or_else(|why| panic!("{literal}: {why}"));
    let expression = body.attributes().next().unwrap().expr.clone();
    text_of(&expression)
}

fn text_of(expression: &Expression) -> String {
    match expression {
        Expression::String(text) => text.clone(),
        Expression::TemplateExpr(template) => {
            let template = hcl::Template::from_expr(template).unwrap();
            template
                .elements()
                .iter()
                .map(|element| match element {
                    hcl::template::Element::Literal(text) => text.clone(),
                    other => panic!("it is evaluated: {other:?}"),
                })
                .collect()
        }
        other => panic!("{other:?} is no text"),
    }
}

fn blocks<'b>(body: &'b hcl::Body, kind: &str) -> Vec<&'b hcl::Block> {
    body.blocks().filter(|block| block.identifier() == kind).collect()
}

fn attribute<'b>(body: &'b hcl::Body, name: &str) -> Option<&'b Expression> {
    body.attributes().find(|attribute| attribute.key() == name).map(|attribute| &attribute.expr)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_gets_out_of_its_quotes(text in hostile_text()) {
        prop_assert_eq!(read_back(&quoted(&text)), text);
    }

    #[test]
    fn any_contract_is_read_back_as_it_is(contract in contracts()) {
        let rendered = render(std::slice::from_ref(&contract), &options()).unwrap();
        let mut resources = BTreeMap::new();
        for file in &rendered.files {
            let body: hcl::Body = hcl::parse(&file.text).unwrap_or_else(|why| panic!("{why}\n{}", file.text));
            for block in body.blocks() {
                prop_assert!(
                    ["terraform", "provider", "variable", "locals", "data", "output", "resource"].contains(&block.identifier())
                );
            }
            for block in blocks(&body, "resource") {
                *resources.entry(block.labels()[0].as_str().to_owned()).or_insert(0) += 1;
                if block.labels()[0].as_str() != "aws_glue_catalog_table" {
                    continue;
                }
                let name = text_of(attribute(&block.body, "name").unwrap());
                let table = contract.table(&name).unwrap();
                let described = catalog::table(&contract, table, None, &catalog::CatalogOptions::default()).unwrap();
                let storage = blocks(&block.body, "storage_descriptor");
                prop_assert_eq!(storage.len(), 1);
                let read = |kind: &str, within: &hcl::Body| -> Vec<(String, String, Option<String>)> {
                    let text = |body: &hcl::Body, name: &str| attribute(body, name).map(text_of);
                    blocks(within, kind)
                        .into_iter()
                        .map(|b| (text(&b.body, "name").unwrap(), text(&b.body, "type").unwrap(), text(&b.body, "comment")))
                        .collect()
                };
                let expected = |columns: &[catalog::CatalogColumn]| -> Vec<(String, String, Option<String>)> {
                    columns.iter().map(|c| (c.name.clone(), c.data_type.clone(), c.comment.clone())).collect()
                };
                prop_assert_eq!(read("columns", &storage[0].body), expected(&described.columns));
                prop_assert_eq!(read("partition_keys", &block.body), expected(&described.partition_keys));
                prop_assert_eq!(attribute(&block.body, "description").map(text_of), described.description);
                for column in described.columns {
                    prop_assert!(column.comment.is_none_or(|comment| comment.encode_utf16().count() <= 255));
                }
            }
        }
        prop_assert_eq!(resources.get("aws_glue_catalog_database"), Some(&1));
        prop_assert_eq!(resources.get("aws_glue_catalog_table"), Some(&contract.tables.len()));
        let only = |kind: &String| kind.starts_with("aws_glue_catalog_") || kind.starts_with("aws_lakeformation_");
        prop_assert!(resources.keys().all(only));
    }
}

/// Every generated module of a sample, as Terraform formats it. Many at a time, since each is a process.
#[test]
fn hostile_contracts_keep_the_format() {
    let Some(terraform) = terraform() else { return };
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut text = String::new();
    for _ in 0..60 {
        let contract = contracts().new_tree(&mut runner).unwrap().current();
        for file in render(&[contract], &options()).unwrap().files {
            text.push_str(&file.text);
            text.push('\n');
        }
    }
    let text = text.trim_end().to_owned() + "\n";
    assert_eq!(formatted(&terraform, &text), text);
}
