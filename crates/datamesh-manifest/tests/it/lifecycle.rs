//! Status, moves, renames and defaults, and folders with several major versions.

use std::path::Path;

use datamesh_core::Lifecycle;
use datamesh_manifest::mesh::find;
use datamesh_manifest::{load_domain, load_mesh, load_product};

use crate::read_manifest;

fn manifest(version: &str, lines: &str, column: &str) -> String {
    format!(
        "dataProduct:\n  name: orders\n  version: {version}\n  owner: sales\n{lines}  schema:\n    - name: orders\n      columns:\n        - {{name: id, type: int}}\n        - {{{column}}}\n"
    )
}

#[test]
fn what_a_contract_says_of_its_life_is_read() {
    let text = manifest(
        "1.2.0",
        "  status: deprecated\n  sla: {endOfSupport: 2027-06-30}\n  movedFrom: shop/orders\n",
        "name: total, type: 'decimal(10,2)', renamedFrom: amount, default: 0.5",
    );
    let (product, diagnostics) = read_manifest(text.as_bytes());
    let product = product.unwrap_or_else(|| panic!("{diagnostics:?}"));
    assert_eq!((product.status, product.end_of_support()), (Lifecycle::Deprecated, Some("2027-06-30")));
    assert_eq!(product.moved_from.unwrap().to_string(), "shop/orders");
    let column = &product.tables[0].columns[1];
    assert_eq!((column.renamed_from.as_deref(), column.default.as_deref()), (Some("amount"), Some("0.5")));
    let status =
        |version: &str| read_manifest(manifest(version, "", "name: a, type: int").as_bytes()).0.unwrap().status;
    assert_eq!((status("0.9.0"), status("1.0.0")), (Lifecycle::Draft, Lifecycle::Active));
}

#[test]
fn each_mistake_has_its_diagnostic() {
    for (lines, column, id) in [
        ("  status: deprecated\n", "name: a, type: int", "end-of-support-missing"),
        ("  sla: {endOfSupport: soon}\n", "name: a, type: int", "invalid-end-of-support"),
        ("  sla: {endOfSupport: 2027-02-30}\n", "name: a, type: int", "invalid-end-of-support"),
        ("  status: gone\n", "name: a, type: int", "unknown-word"),
        ("  movedFrom: orders\n", "name: a, type: int", "invalid-name"),
        ("  movedFrom: sales/Orders\n", "name: a, type: int", "moved-from-itself"),
        ("", "name: a, type: int, default: x", "invalid-default"),
        ("", "name: a, type: int, default: null", "invalid-default"),
        ("", "name: a, type: array<int>, default: 1", "invalid-default"),
        ("", "name: a, type: struct, columns: [{name: b, type: int, default: 1}]", "invalid-default"),
        ("", "name: a, type: int, renamedFrom: a", "invalid-rename"),
        ("", "name: a, type: int, renamedFrom: id", "invalid-rename"),
    ] {
        let (product, diagnostics) = read_manifest(manifest("1.0.0", lines, column).as_bytes());
        let found = diagnostics.iter().find(|diagnostic| diagnostic.id == id);
        let found = found.unwrap_or_else(|| panic!("{lines}{column}: {diagnostics:?}"));
        assert!(found.is_error() && product.is_none() && found.help.is_some(), "{found}");
    }
}

fn write(root: &Path, file: &str, text: &str) {
    let path = root.join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

#[test]
fn older_majors_lie_beside_the_newest() {
    let root = tempfile::tempdir().unwrap();
    let of = |version: &str| manifest(version, "", "name: a, type: int");
    let folder = "domains/sales/products/orders";
    write(root.path(), "mesh.yaml", "name: test\n");
    write(root.path(), "domains/sales/domain.yaml", "name: sales\nowner: sales-team\n");
    write(root.path(), &format!("{folder}/product.yaml"), &of("3.0.0"));
    write(root.path(), &format!("{folder}/product.v1.yaml"), &of("1.4.0"));
    write(root.path(), &format!("{folder}/product.v2.yaml"), &of("2.1.0"));
    write(root.path(), &format!("{folder}/product.tests.yaml"), "tests: []\n");
    let mesh = load_mesh(root.path()).unwrap();
    assert!(!mesh.has_errors(), "{:?}", mesh.diagnostics);
    let version = |wanted: &str| find(&mesh, wanted).map(|found| found.contract.version.to_string());
    assert_eq!(version("sales/orders").unwrap(), "3.0.0");
    assert_eq!((version("orders@1").unwrap(), version("sales/orders@v2").unwrap()), ("1.4.0".into(), "2.1.0".into()));
    let error = version("orders@4").unwrap_err();
    assert!(error.help().unwrap().contains("product.v4.yaml"), "{error}");
    assert!(version("orders@new").is_err());
    let domain = load_domain(&root.path().join("domains/sales")).unwrap();
    assert_eq!((domain.products.len(), domain.domains.len()), (3, 1));
    assert!(load_domain(root.path()).is_err(), "a mesh is no domain");
    let product = load_product(&root.path().join(folder)).unwrap();
    assert_eq!(product.products.len(), 3);
}

#[test]
fn a_file_of_another_major_or_product_is_refused() {
    for (file, text, id) in [
        ("product.v1.yaml", manifest("2.0.0", "", "name: a, type: int"), "major-mismatch"),
        (
            "product.v1.yaml",
            manifest("1.0.0", "", "name: a, type: int").replace("name: orders", "name: other"),
            "mixed-products",
        ),
        ("product.v3.yaml", manifest("3.0.0", "", "name: a, type: int"), "duplicate-product"),
    ] {
        let root = tempfile::tempdir().unwrap();
        let folder = "domains/sales/products/orders";
        write(root.path(), "mesh.yaml", "name: test\n");
        write(root.path(), &format!("{folder}/product.yaml"), &manifest("3.0.0", "", "name: a, type: int"));
        write(root.path(), &format!("{folder}/{file}"), &text);
        let mesh = load_mesh(root.path()).unwrap();
        let ids: Vec<_> = mesh.diagnostics.iter().map(|diagnostic| diagnostic.id).collect();
        assert_eq!(ids, [id], "{:?}", mesh.diagnostics);
    }
}
