//! Principals, roles and attributes of `mesh.yaml`.

use std::path::Path;

use datamesh_core::Diagnostic;
use datamesh_core::access::{AttributeType, AttributeValue, GOVERNANCE_FORMAT, PrincipalKind};
use datamesh_manifest::schema::mesh_schema;
use datamesh_manifest::shape::{ACTIONS, ATTRIBUTE_TYPES};
use datamesh_manifest::yaml::Document;
use datamesh_manifest::{MeshSettings, load_mesh, load_settings, read};

use crate::told;

fn read_mesh(lines: &str) -> (String, Option<MeshSettings>, Vec<Diagnostic>) {
    let text = format!("name: test\n{lines}");
    let mut document = Document::new("mesh.yaml", text.as_bytes()).unwrap();
    let settings = document.parse().and_then(|root| read::mesh(&mut document, &root));
    let diagnostics = document.finish();
    (text, settings, diagnostics)
}

fn check(lines: &str, expected: &[&str]) {
    let (text, settings, diagnostics) = read_mesh(lines);
    assert_eq!(told(&text, &diagnostics), expected, "{text}");
    assert_eq!(settings.is_none(), diagnostics.iter().any(Diagnostic::is_error), "{text}");
}

const WHOLE: &str = "name: test
owner: platform
teams: [{name: platform, members: [root]}, {name: stewards, members: [ada]}]
attributes: {country: string, level: long, cleared: boolean, regions: strings}
roles:
  - analyst
  - {name: lead, description: leads analysts, includes: analyst}
principals:
  - {user: alice, description: Alice, roles: [lead], attributes: {country: DE, level: -3, cleared: true, regions: [DE, FR]}}
  - {service: etl, attributes: {regions: DE}}
  - {user: etl}
policies: {disable: [naming]}
";

fn write(root: &Path, file: &str, text: &str) {
    let path = root.join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn product(access: &str) -> String {
    format!(
        "dataProduct:\n  name: crm\n  version: 1.0.0\n  owner: platform\n  access:\n    - {access}\n  schema: [{{name: t, columns: [{{name: country, type: string}}]}}]\n"
    )
}

#[test]
fn a_whole_governance_is_read() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "mesh.yaml", WHOLE);
    write(
        root.path(),
        "domains/sales/products/crm/product.yaml",
        &product("{role: analyst, rows: country = principal.country, approvers: [stewards, 'user:alice']}"),
    );
    let mesh = load_mesh(root.path()).unwrap();
    assert!(mesh.diagnostics.is_empty(), "{:?}", mesh.diagnostics);
    let governance = mesh.governance();
    assert_eq!((governance.format, governance.owner.as_deref()), (GOVERNANCE_FORMAT, Some("platform")));
    assert_eq!((governance.teams.len(), governance.attributes["regions"]), (2, AttributeType::Strings));
    assert_eq!(governance.roles.iter().map(|role| role.name.as_str()).collect::<Vec<_>>(), ["analyst", "lead"]);
    assert!(governance.roles[1].includes.contains("analyst"));
    let ids: Vec<String> = governance.principals.iter().map(|principal| principal.id()).collect();
    assert_eq!(ids, ["user:alice", "service:etl", "user:etl"]);
    let alice = &governance.principals[0];
    assert_eq!(alice.kind, PrincipalKind::User);
    assert_eq!(alice.attributes["country"], AttributeValue::String("DE".into()));
    assert_eq!(alice.attributes["level"], AttributeValue::Long(-3));
    assert_eq!(alice.attributes["cleared"], AttributeValue::Boolean(true));
    assert_eq!(alice.attributes["regions"], AttributeValue::Strings(["DE".to_owned(), "FR".to_owned()].into()));
    assert!(governance.disabled.contains("naming"));
    let stored = serde_json::to_string(&governance).unwrap();
    assert_eq!(serde_json::from_str::<datamesh_core::access::Governance>(&stored).unwrap(), governance);
    assert_eq!(load_settings(root.path()).unwrap().principals.principals, governance.principals);
    let validator = jsonschema::validator_for(&mesh_schema()).unwrap();
    let mut document = Document::new("mesh.yaml", WHOLE.as_bytes()).unwrap();
    let json = document.parse().unwrap().to_json();
    assert!(
        validator.is_valid(&json),
        "{:?}",
        validator.iter_errors(&json).map(|error| error.to_string()).collect::<Vec<_>>()
    );
}

#[test]
fn roles_are_declared_once_and_include_no_circle() {
    check("roles: [a, {name: a}]\n", &["2 duplicate-role [a] role `a` is declared twice"]);
    check(
        "roles: [{name: analyst}, {name: b, includes: [analist]}]\n",
        &["2 unknown-role [analist] there is no role `analist`"],
    );
    check("roles: [{name: a, includes: [a]}]\n", &["2 role-cycle [a] role `a` would include itself, by way of `a`"]);
    check(
        "roles: [{name: a, includes: [b]}, {name: b, includes: [c]}, {name: c, includes: [b]}]\n",
        &[
            "2 role-cycle [c] role `b` would include itself, by way of `c`",
            "2 role-cycle [b] role `c` would include itself, by way of `b`",
        ],
    );
    check("roles: ['a b']\n", &["2 invalid-name ['a b'] `a b` cannot be the name of a role"]);
    check("roles: [{name: a, includes: [b, b]}, b]\n", &["2 duplicate-name [b] `b` is named twice"]);
}

#[test]
fn principals_are_who_they_say_with_what_is_declared() {
    check(
        "principals: [{user: a}, {service: a}, {user: a}]\n",
        &["2 duplicate-principal [a] user `a` is declared twice"],
    );
    check(
        "principals: [{user: a, service: b}]\n",
        &["2 ambiguous-principal [b] a principal is a user or a service, not both"],
    );
    check("principals: [{description: nobody}]\n", &["2 nobody [{description: nobody] this principal is nobody"]);
    check("principals: [{user: ''}]\n", &["2 invalid-name [''] `` cannot be the name of a user"]);
    check(
        "roles: [analyst]\nprincipals: [{user: a, roles: [analyts]}]\n",
        &["3 unknown-role [analyts] there is no role `analyts`"],
    );
    check(
        "attributes: {country: string}\nprincipals: [{user: a, attributes: {contry: DE}}]\n",
        &["3 unknown-attribute [contry] there is no attribute `contry`"],
    );
    check("attributes: {country: text}\n", &["2 unknown-word [text] `text` is not a value of `country`"]);
    check(
        "attributes: {my-country: string}\n",
        &["2 invalid-name [my-country] `my-country` cannot be the name of an attribute"],
    );
    check("policies: {disable: [a, a]}\n", &["2 duplicate-name [a] `a` is named twice"]);
}

#[test]
fn values_have_their_types() {
    let attributes = "attributes: {country: string, level: long, cleared: boolean, regions: strings}\n";
    for (given, meant, what) in [
        ("level: high", "high", "`level` is a whole number of 64 bits (long), but this is `high`"),
        ("level: 1.5", "1.5", "`level` is a whole number of 64 bits (long), but this is `1.5`"),
        (
            "level: 9223372036854775808",
            "9223372036854775808",
            "`level` is a whole number of 64 bits (long), but this is `9223372036854775808`",
        ),
        ("cleared: yes", "yes", "`cleared` is true or false (boolean), but this is `yes`"),
        ("cleared: 'true'", "'true'", "`cleared` is true or false (boolean), but this is `true`"),
    ] {
        let expected = format!("3 invalid-attribute [{meant}] {what}");
        check(&format!("{attributes}principals: [{{user: a, attributes: {{{given}}}}}]\n"), &[&expected]);
    }
    let (_, settings, diagnostics) =
        read_mesh(&format!("{attributes}principals: [{{user: a, attributes: {{country: [DE]}}}}]\n"));
    assert!(settings.is_none() && diagnostics[0].id == "invalid-attribute", "{diagnostics:?}");
    let (_, settings, diagnostics) =
        read_mesh(&format!("{attributes}principals: [{{user: a, attributes: {{country: ~}}}}]\n"));
    assert!(settings.is_none() && diagnostics[0].id == "wrong-shape" && diagnostics.len() == 1, "{diagnostics:?}");
}

/// Checks what is told of a mesh with these principals and one product with this offer, in product.yaml and mesh.yaml.
fn check_offer(access: &str, mesh_text: &str, expected: &[&str]) {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "mesh.yaml", mesh_text);
    write(root.path(), "domains/sales/products/crm/product.yaml", &product(access));
    let mesh = load_mesh(root.path()).unwrap();
    let found: Vec<String> = mesh
        .diagnostics
        .iter()
        .flat_map(|found| told(&mesh.sources[&found.location.file], std::slice::from_ref(found)))
        .collect();
    assert_eq!(found, expected, "{access}");
}

#[test]
fn a_row_filter_needs_attributes_that_principals_have() {
    let mesh = "name: test\nattributes: {country: string, level: long}\nroles: [analyst, {name: lead, includes: analyst}, other]\nprincipals:\n  - {user: ada, roles: [lead], attributes: {level: 1}}\n  - {user: bob, roles: [analyst], attributes: {country: DE}}\n  - {service: cy, roles: [other]}\n";
    check_offer(
        "{role: analyst, rows: country = principal.country}",
        mesh,
        &[
            "5 missing-attribute [ada] `user:ada` has no `country`, by which `sales/crm` chooses the rows of role `analyst`",
        ],
    );
    check_offer(
        "{role: lead, rows: country = principal.country}",
        mesh,
        &[
            "5 missing-attribute [ada] `user:ada` has no `country`, by which `sales/crm` chooses the rows of role `lead`",
        ],
    );
    check_offer("{role: other, rows: \"country = 'principal.country'\"}", mesh, &[]);
    check_offer(
        "{role: lead, rows: country = principal.contry}",
        mesh,
        &["6 unknown-attribute [country = principal.contry] principals of this mesh have no attribute `contry`"],
    );
    check_offer("{role: analist}", mesh, &["6 unknown-role [analist] the mesh declares no role `analist`"]);
    check_offer("{role: analist}", "name: test\n", &[]);
    check_offer(
        "{role: a, approvers: [stewards, 'user:ada', 'user:eve', ada, platfrom]}",
        WHOLE.replace("roles:\n", "roles:\n  - a\n").as_str(),
        &[
            "6 unknown-approver ['user:eve'] the approver `user:eve` is no declared team, and nobody of one",
            "6 unknown-approver [platfrom] the approver `platfrom` is no declared team, and nobody of one",
        ],
    );
}

#[test]
fn words_are_those_of_the_core() {
    let types: Vec<&str> = AttributeType::ALL.iter().map(|known| known.as_str()).collect();
    assert_eq!(types, ATTRIBUTE_TYPES);
    let actions: Vec<&str> = datamesh_core::decision::Action::ALL.iter().map(|action| action.as_str()).collect();
    assert_eq!(actions, ACTIONS);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 200, ..Default::default() })]

    /// A real mesh.yaml with pieces cut out and others put in: clear errors in their places, never a panic.
    #[test]
    fn mutated_meshes(
        edits in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), 0..20_usize, "[ \n:{}\\[\\],&*|>'\"a-z0-9éü-]{0,4}"), 1..8),
    ) {
        let mut text: Vec<char> = WHOLE.chars().collect();
        for (at, length, insert) in edits {
            let start = at.index(text.len().max(1)).min(text.len());
            let end = (start + length).min(text.len());
            text.splice(start..end, insert.chars());
        }
        let text: String = text.into_iter().collect();
        let Ok(mut document) = Document::new("mesh.yaml", text.as_bytes()) else { return Ok(()) };
        let settings = document.parse().and_then(|root| read::mesh(&mut document, &root));
        let diagnostics = document.finish();
        proptest::prop_assert_eq!(settings.is_none(), diagnostics.iter().any(Diagnostic::is_error), "{}", text);
        for found in &diagnostics {
            proptest::prop_assert!(found.location.offset + found.location.length <= text.len());
        }
    }
}
