use std::path::Path;

use datamesh_manifest::mesh::find;
use datamesh_manifest::{load_mesh, load_product};

fn write(root: &Path, file: &str, text: &str) {
    let path = root.join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn product(name: &str) -> String {
    format!(
        "dataProduct:\n  name: {name}\n  version: 1.0.0\n  owner: team\n  schema: [{{name: t, columns: [{{name: a, type: int}}]}}]\n"
    )
}

#[test]
fn a_mesh_is_loaded_with_its_domains() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "mesh.yaml", "name: test\n");
    write(root.path(), "domains/sales/domain.yaml", "name: sales\nowner: sales-team\n");
    write(root.path(), "domains/sales/products/orders/product.yaml", &product("orders"));
    write(root.path(), "domains/web/products/orders/product.yaml", &product("orders"));
    write(root.path(), "domains/web/products/broken/product.yaml", "dataProduct: {name: broken}\n");
    let mesh = load_mesh(root.path()).unwrap();
    assert!(mesh.has_errors() && mesh.products.len() == 2 && mesh.domains.len() == 1);
    assert_eq!(find(&mesh, "sales/orders").unwrap().contract.id.to_string(), "sales/orders");
    assert_eq!(find(&mesh, "web/orders").unwrap().contract.id.to_string(), "web/orders");
    assert!(find(&mesh, "orders").unwrap_err().to_string().contains("could be any of"));
    assert_eq!(find(&mesh, "sales/order").unwrap_err().help(), Some("did you mean `sales/orders`?"));
}

#[test]
fn a_mesh_says_where_its_warehouse_is() {
    let root = tempfile::tempdir().unwrap();
    for (warehouse, expected) in [
        ("tables", Ok("tables")),
        ("${env:WAREHOUSE}", Ok("${env:WAREHOUSE}")),
        ("s3://${env:BUCKET}/tables", Ok("s3://${env:BUCKET}/tables")),
        ("${env:SCHEME}://bucket", Ok("${env:SCHEME}://bucket")),
        ("${env:}", Err("invalid-reference")),
        ("${vault:tables}", Err("invalid-reference")),
        ("s3://anna:hunter2@bucket/tables", Err("literal-secret")),
        ("ftp://host/tables", Err("invalid-warehouse")),
    ] {
        write(root.path(), "mesh.yaml", &format!("name: test\nwarehouse: \"{warehouse}\"\n"));
        let settings = datamesh_manifest::load_settings(root.path());
        match expected {
            Ok(expected) => assert_eq!(settings.unwrap().warehouse.as_deref(), Some(expected)),
            Err(id) => {
                assert!(settings.is_err());
                let diagnostics = load_mesh(root.path()).unwrap().diagnostics;
                assert_eq!(diagnostics.iter().map(|found| found.id).collect::<Vec<_>>(), [id], "{warehouse}");
            }
        }
    }
}

#[test]
fn a_mesh_says_where_its_registry_is() {
    let root = tempfile::tempdir().unwrap();
    for (registry, expected) in [
        ("state/registry.db", Ok("state/registry.db")),
        (
            "postgres://anna:${env:PASSWORD}@db/mesh?schema=shop",
            Ok("postgres://anna:${env:PASSWORD}@db/mesh?schema=shop"),
        ),
        ("${file:/run/secrets/registry}", Ok("${file:/run/secrets/registry}")),
        ("postgres://anna:hunter2@db/mesh", Err("literal-secret")),
        ("postgres://db/mesh?password=hunter2", Err("literal-secret")),
        ("${env:}", Err("invalid-reference")),
        ("mysql://db/mesh", Err("invalid-registry")),
    ] {
        write(root.path(), "mesh.yaml", &format!("name: test\nregistry: \"{registry}\"\n"));
        let settings = datamesh_manifest::load_settings(root.path());
        match expected {
            Ok(expected) => assert_eq!(settings.unwrap().registry.as_deref(), Some(expected)),
            Err(id) => {
                assert!(settings.is_err());
                let diagnostics = load_mesh(root.path()).unwrap().diagnostics;
                assert_eq!(diagnostics.iter().map(|found| found.id).collect::<Vec<_>>(), [id], "{registry}");
                assert!(!format!("{diagnostics:?}").contains("hunter2"));
            }
        }
    }
    write(root.path(), "mesh.yaml", "name: test\n");
    assert_eq!(datamesh_manifest::load_settings(root.path()).unwrap().registry, None);
}

#[test]
fn the_nearest_domain_above_a_manifest_counts() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "domain.yaml", "name: sales\nowner: sales-team\n");
    write(root.path(), "products/orders/product.yaml", &product("orders"));
    let mesh = load_product(&root.path().join("products/orders")).unwrap();
    assert_eq!(mesh.products[0].contract.id.to_string(), "sales/orders");
}

#[test]
fn two_products_of_one_name_are_refused() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "mesh.yaml", "name: test\n");
    write(root.path(), "domains/sales/products/a/product.yaml", &product("daily-orders"));
    write(root.path(), "domains/sales/products/b/product.yaml", &product("daily_orders"));
    let mesh = load_mesh(root.path()).unwrap();
    assert!(mesh.diagnostics.iter().any(|diagnostic| diagnostic.id == "duplicate-product"), "{:?}", mesh.diagnostics);
}

#[test]
fn the_committed_demo_is_valid() {
    let mesh = load_mesh(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/flights"))).unwrap();
    let problems: Vec<_> = mesh.diagnostics.iter().filter(|diagnostic| diagnostic.id != "not-enforced").collect();
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(mesh.products.len(), 6);
}
