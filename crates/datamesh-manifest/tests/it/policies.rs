//! The folders `policies/` of a mesh and of its domains.

use std::collections::BTreeSet;
use std::path::Path;

use datamesh_core::Level;
use datamesh_core::access::AttributeValue;
use datamesh_core::decision::{Action, Outcome};
use datamesh_core::evolution::Bump;
use datamesh_manifest::schema::{policy_tests_schema, waivers_schema};
use datamesh_manifest::yaml::Document;
use datamesh_manifest::{Mesh, load_domain, load_mesh};

use crate::told;

fn write(root: &Path, file: &str, text: impl AsRef<[u8]>) {
    let path = root.join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A mesh with one product of domain `Sales-EU`, and these files.
fn mesh(files: &[(&str, &str)]) -> (tempfile::TempDir, Mesh) {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "mesh.yaml", "name: test\nteams: [{name: platform, members: [root]}]\n");
    write(root.path(), "domains/sales/domain.yaml", "name: Sales-EU\nowner: platform\n");
    write(
        root.path(),
        "domains/sales/products/crm/product.yaml",
        "dataProduct:\n  name: crm\n  version: 1.0.0\n  owner: platform\n  access: [{role: analyst}]\n  schema: [{name: leads, columns: [{name: email, type: string}]}]\n",
    );
    for (file, text) in files {
        write(root.path(), file, text);
    }
    let mesh = load_mesh(root.path()).unwrap();
    (root, mesh)
}

/// What is told of the mesh with one such file.
fn check(file: &str, text: &str, expected: &[&str]) {
    let (_root, mesh) = mesh(&[(file, text)]);
    assert_eq!(told(text, &mesh.diagnostics), expected, "{text}");
}

#[test]
fn policies_are_read_by_scope_and_path() {
    let (root, mesh) = mesh(&[
        ("policies/b.cedar", "\u{feff}forbid (principal, action, resource);"),
        ("policies/a.cedar", "// nothing"),
        ("policies/README.md", "read me"),
        ("policies/.#a.cedar", "an editor's"),
        ("policies/more/c.cedar", "below"),
        ("domains/sales/policies/local.cedar", "permit (principal, action, resource);"),
        ("domains/web/policies/local.cedar", ""),
    ]);
    assert!(mesh.diagnostics.is_empty(), "{:?}", mesh.diagnostics);
    let found: Vec<(&str, Option<&str>)> =
        mesh.policies.iter().map(|file| (file.path.as_str(), file.domain.as_deref())).collect();
    assert_eq!(
        found,
        [
            ("policies/a.cedar", None),
            ("policies/b.cedar", None),
            ("domains/sales/policies/local.cedar", Some("sales_eu")),
            ("domains/web/policies/local.cedar", Some("web")),
        ]
    );
    assert_eq!(mesh.policies[1].text, "forbid (principal, action, resource);");
    assert_eq!(mesh.governance().policies, mesh.policies);
    let domain = load_domain(&root.path().join("domains/sales")).unwrap();
    assert_eq!(
        (domain.policies[0].path.as_str(), domain.policies[0].domain.as_deref()),
        ("policies/local.cedar", Some("sales_eu"))
    );
}

#[test]
fn files_that_cannot_be_read_as_policies_are_told() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "mesh.yaml", "name: test\n");
    write(root.path(), "policies/latin.cedar", b"permit\n // caf\xe9");
    write(root.path(), "policies/large.cedar", vec![b' '; (4 << 20) + 1]);
    write(root.path(), "policies/waiver.yaml", "waivers: []\n");
    write(root.path(), "policies/X.CEDAR", "");
    let mesh = load_mesh(root.path()).unwrap();
    let found: Vec<_> = mesh
        .diagnostics
        .iter()
        .map(|found| {
            (
                found.id,
                found.level,
                found.location.line,
                Path::new(&found.location.file).file_name().unwrap().to_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("unread-file", Level::Warning, 0, "X.CEDAR"),
            ("file-too-large", Level::Error, 0, "large.cedar"),
            ("not-utf8", Level::Error, 2, "latin.cedar"),
            ("unread-file", Level::Warning, 0, "waiver.yaml"),
        ]
        .map(|found| found)
        .into_iter()
        .collect::<Vec<_>>()
    );
    assert!(mesh.policies.is_empty());
}

#[cfg(unix)]
#[test]
fn links_do_not_lead_out() {
    use std::os::unix::fs::symlink;
    let elsewhere = tempfile::tempdir().unwrap();
    write(elsewhere.path(), "secret", "hunter2");
    let (root, _) = mesh(&[("policies/a.cedar", ""), ("domains/sales/policies/l.cedar", "")]);
    let at = |file: &str| root.path().join(file);
    symlink(elsewhere.path().join("secret"), at("policies/out.cedar")).unwrap();
    symlink(elsewhere.path().join("secret"), at("policies/waivers.yaml")).unwrap();
    symlink(elsewhere.path().join("none"), at("policies/broken.cedar")).unwrap();
    symlink(at("policies/a.cedar"), at("policies/inside.cedar")).unwrap();
    // A domain's policy is not that of the mesh.
    symlink(at("policies/a.cedar"), at("domains/sales/policies/up.cedar")).unwrap();
    let mesh = load_mesh(root.path()).unwrap();
    let ids: Vec<&str> = mesh.diagnostics.iter().map(|found| found.id).collect();
    assert_eq!(ids, ["broken-link", "link-outside", "link-outside", "link-outside"]);
    let paths: Vec<&str> = mesh.policies.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["policies/a.cedar", "policies/inside.cedar", "domains/sales/policies/l.cedar"]);
    assert!(!format!("{mesh:?}").contains("hunter2"));
}

const WAIVERS: &str = "waivers:
  - {policy: pii-masked, resource: sales-eu/crm.leads.email, owner: platform, reason: migration, expires: 2026-12-31}
  - {policy: naming, resource: Sales_EU, owner: platform, reason: old names, expires: '2026-12-31T18:00:00+02:00'}
";

#[test]
fn waivers_say_what_for_and_until_when() {
    let (_root, mesh) = mesh(&[("policies/waivers.yaml", WAIVERS), ("domains/sales/policies/waivers.yaml", WAIVERS)]);
    assert!(mesh.diagnostics.is_empty(), "{:?}", mesh.diagnostics);
    let found: Vec<_> =
        mesh.waivers.iter().map(|waiver| (waiver.domain.as_deref(), waiver.expires.to_rfc3339())).collect();
    assert_eq!(
        found,
        [
            (None, "2026-12-31T00:00:00+00:00".to_owned()),
            (None, "2026-12-31T16:00:00+00:00".to_owned()),
            (Some("sales_eu"), "2026-12-31T00:00:00+00:00".to_owned()),
            (Some("sales_eu"), "2026-12-31T16:00:00+00:00".to_owned()),
        ]
    );
    assert_eq!(mesh.waivers[0].resource, "sales-eu/crm.leads.email");
    let validator = jsonschema::validator_for(&waivers_schema()).unwrap();
    let mut document = Document::new("waivers.yaml", WAIVERS.as_bytes()).unwrap();
    assert!(validator.is_valid(&document.parse().unwrap().to_json()));
}

#[test]
fn problems_of_waivers_are_told() {
    let waiver = |changes: &[(&str, &str)]| {
        let line = "waivers:\n  - {policy: p, resource: sales-eu, owner: platform, reason: r, expires: 2026-12-31}\n";
        changes.iter().fold(line.to_owned(), |line, (from, to)| line.replace(from, to))
    };
    let global =
        |changes: &[(&str, &str)], expected: &[&str]| check("policies/waivers.yaml", &waiver(changes), expected);
    global(&[("reason: r", "reason: ''")], &["2 empty-text [''] `reason` is empty"]);
    global(&[(", reason: r", "")], &["2 missing-key [] `waivers` has no `reason`"]);
    global(&[("2026-12-31", "soon")], &["2 invalid-time [soon] `soon` is no day and no time"]);
    global(&[("2026-12-31", "26-12-31")], &["2 invalid-time [26-12-31] `26-12-31` is no day and no time"]);
    global(&[("2026-12-31", "2026-02-30")], &["2 invalid-time [2026-02-30] `2026-02-30` is no day and no time"]);
    global(
        &[("resource: sales-eu", "resource: mesh")],
        &["2 invalid-resource [mesh] a policy cannot be waived for the whole mesh"],
    );
    global(
        &[("resource: sales-eu", "resource: sales-eu/crm.")],
        &["2 invalid-resource [sales-eu/crm.] a name must not be empty"],
    );
    global(
        &[("owner: platform", "owner: platfrom")],
        &["2 unknown-team [platfrom] the waiver's owner is `platfrom`, which is no declared team"],
    );
    for (resource, why) in [
        ("sale", "there is no domain `sale` in this mesh"),
        ("sales-eu/crn", "there is no product `sales-eu/crn` in this mesh"),
        ("sales-eu/crm.lead", "`sales-eu/crm` has no table `lead`"),
        ("sales-eu/crm.leads.mail", "table `sales-eu/crm.leads` has no column `mail`"),
    ] {
        global(
            &[("resource: sales-eu", &format!("resource: {resource}"))],
            &[&format!("2 unknown-resource [{resource}] {why}")],
        );
    }
    let twice = format!("{}{}", waiver(&[]), waiver(&[("waivers:\n", "")]));
    check("policies/waivers.yaml", &twice, &["3 duplicate-waiver [p] `p` is waived for `sales-eu` twice"]);
    check(
        "domains/sales/policies/waivers.yaml",
        &waiver(&[("resource: sales-eu", "resource: web/shop")]),
        &["2 foreign-resource [web/shop] `web/shop` is not of domain `Sales-EU`, whose waivers these are"],
    );
}

const TESTS: &str = "tests:
  - name: an analyst sees masks
    principal: alice
    action: read
    resource: sales-eu/crm.leads
    context: {purpose: research, door: cli, time: 2026-01-31T12:00:00Z}
    grants: [analyst, {role: analyst, tables: [Leads], purpose: research}]
    expect: {outcome: allow, policies: [granted], masked: {email: partial, name: null}, hidden: [], rows: []}
  - name: nobody approves a year
    principal: user:bob
    action: approve
    resource: sales-eu/crm
    context: {needs: major, gives: minor, requester: 'service:etl', ownsMesh: true, attributes: {country: DE, level: 3, regions: [DE], old: '3'}}
    grants: [{role: analyst, expires: 2026-12-31, team: platform}]
    expect: deny
";

#[test]
fn tests_of_policies_are_read() {
    let (_root, mesh) = mesh(&[("policies/access.tests.yaml", TESTS), ("domains/sales/policies/x.tests.yaml", TESTS)]);
    assert!(mesh.diagnostics.is_empty(), "{:?}", mesh.diagnostics);
    assert_eq!(mesh.policy_cases.len(), 4);
    let [first, second, local, _] = &mesh.policy_cases[..] else { panic!("four tests") };
    assert_eq!((first.location.file.as_str(), first.location.line), ("policies/access.tests.yaml", 2));
    assert_eq!(
        (local.location.file.as_str(), local.domain.as_deref()),
        ("domains/sales/policies/x.tests.yaml", Some("sales_eu"))
    );
    assert_eq!(first.domain, None);
    let (first, second) = (&first.test, &second.test);
    assert_eq!((first.principal.as_str(), first.action), ("user:alice", Action::Read));
    assert_eq!(first.resource, "sales-eu/crm.leads");
    assert_eq!(first.context.time.map(|time| time.to_rfc3339()).as_deref(), Some("2026-01-31T12:00:00+00:00"));
    assert!(first.context.grants[0].tables.is_empty() && first.context.grants[1].tables.contains("leads"));
    let expect = &first.expect;
    assert_eq!((expect.outcome, expect.rows.as_ref().map(BTreeSet::len)), (Outcome::Allow, Some(0)));
    let masked = expect.masked.as_ref().unwrap();
    assert_eq!((masked["email"].as_str(), masked["name"].as_str()), ("partial(0, 4)", "null"));
    assert_eq!(expect.hidden.as_ref().map(BTreeSet::len), Some(0), "none may be hidden");
    let context = &second.context;
    assert_eq!((context.needs, context.gives, context.owns_mesh), (Some(Bump::Major), Some(Bump::Minor), true));
    assert_eq!(context.requester.as_deref(), Some("service:etl"));
    assert_eq!(context.attributes["level"], AttributeValue::Long(3));
    assert_eq!(context.attributes["old"], AttributeValue::String("3".into()));
    assert_eq!(context.attributes["regions"], AttributeValue::Strings(["DE".to_owned()].into()));
    assert_eq!(context.grants[0].team.as_deref(), Some("platform"));
    assert_eq!((second.expect.outcome, second.expect.policies.as_ref()), (Outcome::Deny, None));
    let validator = jsonschema::validator_for(&policy_tests_schema()).unwrap();
    let mut document = Document::new("x.tests.yaml", TESTS.as_bytes()).unwrap();
    assert!(validator.is_valid(&document.parse().unwrap().to_json()));
}

#[test]
fn problems_of_tests_are_told() {
    let test = |changes: &[(&str, &str)]| {
        let line = "tests:\n  - {name: n, principal: alice, action: read, resource: sales-eu/crm, expect: allow}\n";
        changes.iter().fold(line.to_owned(), |line, (from, to)| line.replace(from, to))
    };
    let global = |changes: &[(&str, &str)], expected: &[&str]| check("policies/x.tests.yaml", &test(changes), expected);
    global(&[("action: read", "action: reed")], &["2 unknown-word [reed] `reed` is not a value of `action`"]);
    global(&[("expect: allow", "expect: alow")], &["2 unknown-word [alow] `alow` is not a value of `expect`"]);
    global(
        &[("expect: allow", "expect: {outcome: deny, masked: {email: hash}}")],
        &["2 misplaced-expectation [{email: hash] where nothing is seen, `masked` says nothing"],
    );
    global(
        &[("alice", "group:a")],
        &["2 invalid-principal [group:a] `group` is no kind of principal; there are user, service, team, role"],
    );
    global(
        &[("expect: allow", "grants: [analist], expect: allow")],
        &["2 unknown-role [[analist] the product offers nothing to a role `analist`"],
    );
    global(
        &[("sales-eu/crm", "mesh"), ("expect: allow", "grants: [analyst], expect: allow")],
        &["2 misplaced-grants [[analyst] a grant is of a product, but the resource is none"],
    );
    global(
        &[("sales-eu/crm", "sales-eu/crn")],
        &["2 unknown-resource [sales-eu/crn] there is no product `sales-eu/crn` in this mesh"],
    );
    global(
        &[(
            "expect: allow",
            "context: {time: noon}, grants: [{role: analyst, expires: long}], expect: {outcome: allow, masked: {email: sha}}",
        )],
        &[
            "2 invalid-time [noon] `noon` is no day and no time",
            "2 invalid-time [long] `long` is no day and no time",
            "2 invalid-mask [sha] `sha` is no mask; there are: none, null, redact, hash, partial(FIRST, LAST), year, quarter, month, day, hour, bucket(WIDTH)",
        ],
    );
    global(
        &[("alice", "user:roott")],
        &["2 unknown-principal [user:roott] nothing in this mesh declares `user:roott`"],
    );
    global(
        &[("alice", "role:chief")],
        &["2 unknown-principal [role:chief] nothing in this mesh declares `role:chief`"],
    );
    global(&[("alice", "role:analyst")], &[]);
    let twice = format!("{}{}", test(&[]), test(&[("tests:\n", "")]));
    check("policies/x.tests.yaml", &twice, &["3 duplicate-test [n] there is a test `n` already"]);
    check(
        "domains/sales/policies/x.tests.yaml",
        &test(&[("sales-eu/crm", "mesh")]),
        &["2 foreign-resource [mesh] `mesh` is not of domain `Sales-EU`, whose tests these are"],
    );
}
