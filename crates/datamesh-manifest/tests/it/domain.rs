use std::path::Path;

use datamesh_core::domain::{Domain, RelationshipKind, Role};
use datamesh_core::{Diagnostic, Level};
use datamesh_manifest::domain::{check_domains, read};
use datamesh_manifest::schema::{domain_schema, mesh_schema};
use datamesh_manifest::shape::RELATIONSHIP_KINDS;
use datamesh_manifest::yaml::Document;
use datamesh_manifest::{Mesh, load_mesh};

fn read_domain(text: &str) -> (Option<Domain>, Vec<Diagnostic>) {
    let mut document = Document::new("domain.yaml", text.as_bytes()).unwrap();
    let domain = document.parse().and_then(|root| read(&mut document, &root));
    (domain, document.finish())
}

/// Checks that the problems of a domain `sales` with these lines are exactly `expected`: `line:column id message`.
fn check(lines: &str, expected: &[&str]) {
    let text = format!("name: sales\nowner: sales-team\n{lines}");
    let (domain, diagnostics) = read_domain(&text);
    let found: Vec<String> = diagnostics
        .iter()
        .map(|found| format!("{}:{} {} {}", found.location.line, found.location.column, found.id, found.message))
        .collect();
    assert_eq!(found, expected, "{text}");
    assert_eq!(domain.is_some(), !diagnostics.iter().any(Diagnostic::is_error), "{text}");
    assert!(diagnostics.iter().all(|found| found.help.is_some()), "{diagnostics:?}");
}

#[test]
fn a_whole_domain_is_read() {
    let text = "name: sales\nowner: sales-team\npurpose: to sell\nresponsibilities: [orders]\nterms:\n  - {term: order, definition: What a customer wants., synonyms: purchase, columns: [crm.orders.id, web/shop.carts.order.id]}\nrelationships:\n  - {domain: web, kind: conformist, products: [shop, web/clicks], description: as it is}\n  - {domain: finance, kind: customer-supplier, role: upstream}\n  - {domain: hr, kind: separate-ways}\nteams:\n  - {name: sales-team, contact: {slack: sales}, members: [ada@example.org, bob, {name: Cy, role: lead}]}\n";
    let (domain, diagnostics) = read_domain(text);
    assert!(diagnostics.is_empty(), "{diagnostics:?}");
    let domain = domain.unwrap();
    assert_eq!(domain.purpose.as_deref(), Some("to sell"));
    let columns: Vec<String> = domain.terms[0].columns.iter().map(ToString::to_string).collect();
    assert_eq!(columns, ["sales/crm.orders.id", "web/shop.carts.order.id"]);
    assert_eq!(domain.terms[0].synonyms, ["purchase"]);
    let roles: Vec<Option<Role>> = domain.relationships.iter().map(|relationship| relationship.role).collect();
    assert_eq!(roles, [Some(Role::Downstream), Some(Role::Upstream), None]);
    let products: Vec<String> = domain.relationships[0].products.iter().map(ToString::to_string).collect();
    assert_eq!(products, ["web/shop", "web/clicks"]);
    let members: Vec<String> = domain.teams[0].members.iter().map(ToString::to_string).collect();
    assert_eq!(members, ["ada@example.org", "bob", "Cy"]);
}

#[test]
fn problems_of_terms_are_told() {
    check("terms: {order: x}\n", &["3:8 wrong-shape `terms` must be a list, but this is an object"]);
    check("terms: [{term: order}]\n", &["3:9 missing-key `terms` has no `definition`"]);
    check("terms: [{trem: order, term: a, definition: b}]\n", &["3:10 unknown-key unknown key `trem` in `terms`"]);
    check("terms: [{term: '', definition: b}]\n", &["3:16 empty-text `term` is empty"]);
    check(
        "terms: [{term: tail number, definition: a}, {term: Tail-Number, definition: b}]\n",
        &["3:52 duplicate-term `Tail-Number` is a word for `tail number` already"],
    );
    check(
        "terms: [{term: order, definition: a, synonyms: [deal]}, {term: sale, definition: b, synonyms: [deal]}]\n",
        &["3:96 duplicate-term `deal` is a word for `order` already"],
    );
    check(
        "terms: [{term: order, definition: a, columns: [crm.orders, 1/2.a.b, crm.orders.]}]\n",
        &[
            "3:48 invalid-column-link `sales/crm.orders` names no column",
            "3:60 invalid-column-link `1` must start with a letter",
            "3:69 invalid-column-link `sales/crm.orders.` has an empty name",
        ],
    );
}

#[test]
fn problems_of_relationships_are_told() {
    check(
        "relationships: [{domain: web, kind: confromist}]\n",
        &["3:37 unknown-word `confromist` is not a value of `kind`"],
    );
    check("relationships: [{domain: sales, kind: conformist}]\n", &["3:26 own-relationship `sales` is this domain"]);
    check(
        "relationships: [{domain: web, kind: customer-supplier}]\n",
        &["3:37 missing-role a `customer-supplier` relationship needs to know which of the two `sales` is"],
    );
    check(
        "relationships: [{domain: web, kind: partnership, role: upstream}]\n",
        &["3:56 unexpected-role in a `partnership` neither domain is upstream of the other"],
    );
    check(
        "relationships: [{domain: web, kind: conformist, products: [sales/crm, a b]}]\n",
        &[
            "3:60 foreign-product `sales/crm` is not a product of `web`, which is upstream here",
            "3:71 invalid-product `a b` has ` `; a name is letters, digits, `-` and `_`",
        ],
    );
    check(
        "relationships: [{domain: web, kind: partnership, products: hr/people}]\n",
        &["3:60 foreign-product `hr/people` is a product of neither `sales` nor `web`"],
    );
    check(
        "relationships: [{domain: web, kind: conformist}, {domain: web, kind: conformist}]\n",
        &["3:59 duplicate-relationship this relationship to `web` is declared twice"],
    );
    check(
        "relationships: [{domain: web, kind: conformist}, {domain: web, kind: open-host-service}]\n",
        &["3:59 contradictory-relationship `sales` and `web` are each said to be upstream of the other"],
    );
    check(
        "relationships: [{domain: web, kind: separate-ways}, {domain: web, kind: conformist}]\n",
        &[
            "3:62 contradictory-relationship `sales` and `web` are said to go separate ways, and to be related all the same",
        ],
    );
    check(
        "relationships: [{domain: web, kind: conformist, products: a}, {domain: web, kind: open-host-service, products: b}]\n",
        &[],
    );
}

#[test]
fn problems_of_teams_are_told() {
    check(
        "teams: [{name: a, members: [x]}, {name: a, members: [y]}]\n",
        &["3:41 duplicate-team team `a` is declared twice"],
    );
    check("teams: [{name: a}]\n", &["3:16 empty-team team `a` has no members"]);
    check(
        "teams: [{name: a, members: [{role: lead}, x@, {username: Bob}, bob]}]\n",
        &[
            "3:29 nobody this member of team `a` is nobody",
            "3:43 invalid-email `x@` is not an e-mail address",
            "3:64 duplicate-member bob is in team `a` already, as Bob",
        ],
    );
}

fn write(root: &Path, file: &str, text: &str) {
    let path = root.join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A mesh of two domains with these lines of their own, each with a product `p` of one table `t`.
fn mesh(mesh_lines: &str, sales: &str, web: &str) -> (tempfile::TempDir, Mesh) {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "mesh.yaml", &format!("name: test\n{mesh_lines}"));
    for (domain, lines) in [("sales", sales), ("web", web)] {
        write(
            root.path(),
            &format!("domains/{domain}/domain.yaml"),
            &format!("name: {domain}\nowner: {domain}-team\n{lines}"),
        );
        write(
            root.path(),
            &format!("domains/{domain}/products/p/product.yaml"),
            &format!(
                "dataProduct:\n  name: p\n  version: 1.0.0\n  owner: {domain}-team\n  schema:\n    - name: t\n      owner: {domain}-team\n      columns:\n        - {{name: id, type: int}}\n        - name: s\n          type: struct\n          columns: [{{name: in, type: int, owner: inner-team}}]\n"
            ),
        );
    }
    let mut mesh = load_mesh(root.path()).unwrap();
    assert!(mesh.diagnostics.is_empty(), "{:?}", mesh.diagnostics);
    check_domains(&mut mesh, &[]).unwrap();
    (root, mesh)
}

/// Checks the problems of such a mesh: `file:line:column id message | help`.
fn check_mesh(mesh_lines: &str, sales: &str, web: &str, expected: &[&str]) {
    let (root, mesh) = mesh(mesh_lines, sales, web);
    let prefix = format!("{}/", root.path().display());
    let mut found: Vec<String> = mesh
        .diagnostics
        .iter()
        .map(|found| {
            let help = found.help.as_ref().map_or_else(String::new, |help| format!(" | {help}"));
            let place = &found.location;
            format!("{}:{}:{} {} {}{help}", place.file, place.line, place.column, found.id, found.message)
                .replace(&prefix, "")
        })
        .collect();
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn links_to_columns_that_are_not_there_are_told() {
    let link = |column: &str| format!("terms: [{{term: a, definition: b, columns: [{column}]}}]\n");
    check_mesh("", &link("p.t.id, web/p.t.id, p.t.s.in"), "", &[]);
    check_mesh(
        "",
        &link("p.t.idd"),
        "",
        &[
            "domains/sales/domain.yaml:3:44 unknown-column-link the term `a` is linked to `sales/p.t.idd`: table `t` has no column `idd` | did you mean `id`?",
        ],
    );
    check_mesh(
        "",
        &link("q.t.id"),
        "",
        &[
            "domains/sales/domain.yaml:3:44 unknown-column-link the term `a` is linked to `sales/q.t.id`: no product `sales/q` in this mesh | did you mean `sales/p`?",
        ],
    );
}

#[test]
fn relationships_are_checked_across_domains() {
    let to = |domain: &str, more: &str| format!("relationships: [{{domain: {domain}, kind: conformist{more}}}]\n");
    check_mesh("", &to("web", ""), "", &[]);
    check_mesh(
        "",
        &to("wbe", ""),
        "",
        &["domains/sales/domain.yaml:3:26 unknown-domain there is no domain `wbe` in this mesh | did you mean `web`?"],
    );
    check_mesh(
        "",
        &to("web", ", products: q"),
        "",
        &[
            "domains/sales/domain.yaml:3:59 unknown-product there is no product `web/q` in this mesh | did you mean `web/p`?",
        ],
    );
    check_mesh(
        "",
        &to("web", ""),
        &to("sales", ""),
        &[
            "domains/web/domain.yaml:3:26 contradictory-relationship `web` and `sales` are each said to be upstream of the other: the domain.yaml of `sales` says otherwise | say which one supplies; where both do, name the products that each relationship is about",
        ],
    );
    check_mesh("", &to("web", ", products: p"), &to("sales", ", products: p"), &[]);
}

#[test]
fn what_the_registry_knows_is_known() {
    let (_root, mut loaded) = mesh("", "", "");
    let contract = loaded.products.remove(0).contract;
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "mesh.yaml", "name: test\n");
    let lines = "relationships: [{domain: sales, kind: conformist, products: p}]\nterms: [{term: a, definition: b, columns: [sales/p.t.id]}]\n";
    write(root.path(), "domains/web/domain.yaml", &format!("name: web\nowner: web-team\n{lines}"));
    let mut other = load_mesh(root.path()).unwrap();
    check_domains(&mut other, &[contract]).unwrap();
    assert!(other.diagnostics.is_empty(), "{:?}", other.diagnostics);
    check_domains(&mut other, &[]).unwrap();
    assert_eq!(other.diagnostics.len(), 2, "{:?}", other.diagnostics);
}

#[test]
fn owners_name_teams_where_there_are_any() {
    check_mesh("owner: nobody\n", "", "", &[]);
    let teams = "teams: [{name: sales-team, members: [a]}, {name: inner-team, members: [a]}]\n";
    check_mesh(
        "",
        teams,
        "",
        &[
            "domains/web/domain.yaml:2:8 unknown-team the owner of domain `web` is `web-team`, which is no declared team | declare it below `teams:` in mesh.yaml or in a domain.yaml",
            "domains/web/products/p/product.yaml:4:10 unknown-team the owner of `web/p` is `web-team`, which is no declared team | declare it below `teams:` in mesh.yaml or in a domain.yaml",
        ],
    );
    let web = "teams: [{name: web-team, members: [a]}]\n";
    let message = "is `inner-team`, which is no declared team | did you mean `winner-team`?";
    check_mesh(
        "owner: web-team\n",
        "teams: [{name: sales-team, members: [a]}, {name: winner-team, members: [a]}]\n",
        web,
        &[
            &format!(
                "domains/sales/products/p/product.yaml:12:50 unknown-team the owner of `sales/p.t.s.in` {message}"
            ),
            &format!("domains/web/products/p/product.yaml:12:50 unknown-team the owner of `web/p.t.s.in` {message}"),
        ],
    );
    let (_root, mesh) = mesh("owner: web-tema\n", teams, web);
    assert!(mesh.diagnostics.iter().all(|found| found.level == Level::Warning));
    let found = &mesh.diagnostics[0];
    assert_eq!(found.help.as_deref(), Some("did you mean `web-team`?"));
    assert!(found.location.file.ends_with("mesh.yaml") && found.location.line == 2, "{found:?}");
}

#[test]
fn a_team_is_declared_once_in_a_mesh() {
    let teams =
        "teams: [{name: sales-team, members: [a]}, {name: web-team, members: [a]}, {name: inner-team, members: [a]}]\n";
    let (_root, mesh) = mesh(teams, "", "teams: [{name: web-team, members: [b]}]\n");
    let [found] = mesh.diagnostics.as_slice() else { panic!("{:?}", mesh.diagnostics) };
    assert_eq!(
        (found.id, found.level, found.location.line, found.location.column),
        ("duplicate-team", Level::Error, 3, 16)
    );
}

#[test]
fn a_word_may_mean_something_else_elsewhere() {
    let term = |definition: &str| format!("terms: [{{term: order, definition: {definition}}}]\n");
    check_mesh("", &term("a"), &term("a"), &[]);
    check_mesh(
        "",
        &term("a"),
        &term("b"),
        &["domains/web/domain.yaml:3:16 term-differs `order` means something else in `sales`: a"],
    );
    let (_root, mesh) = mesh("", &term("a"), &term("b"));
    assert_eq!(mesh.diagnostics[0].level, Level::Note);
}

#[test]
fn an_owner_that_is_a_placeholder_is_refused_everywhere() {
    for lines in ["owner: TODO\n", ""] {
        let text = format!(
            "dataProduct:\n  name: p\n  version: 1.0.0\n  owner: x\n  schema:\n    - name: t\n      {}columns: [{{name: a, type: int, owner: tbd}}]\n",
            if lines.is_empty() { String::new() } else { "owner: TODO\n      ".to_owned() }
        );
        let (_, diagnostics) = crate::read_manifest(text.as_bytes());
        let found = diagnostics.iter().filter(|found| found.id == "owner-missing").count();
        assert_eq!(found, if lines.is_empty() { 1 } else { 2 }, "{diagnostics:?}");
    }
}

#[test]
fn the_words_for_kinds_are_the_kinds() {
    assert_eq!(RELATIONSHIP_KINDS, RelationshipKind::ALL.map(RelationshipKind::as_str));
}

#[test]
fn the_schemas_accept_the_demo_and_refuse_what_check_refuses() {
    let demo = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/flights"));
    let json = |text: &str| {
        let mut document = Document::new("domain.yaml", text.as_bytes()).unwrap();
        document.parse().unwrap().to_json()
    };
    let domain = jsonschema::validator_for(&domain_schema()).unwrap();
    let mesh = jsonschema::validator_for(&mesh_schema()).unwrap();
    for name in ["customer", "fleet", "operations", "punctuality", "weather"] {
        let text = std::fs::read_to_string(demo.join("domains").join(name).join("domain.yaml")).unwrap();
        let errors: Vec<String> = domain.iter_errors(&json(&text)).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
    assert!(mesh.is_valid(&json(&std::fs::read_to_string(demo.join("mesh.yaml")).unwrap())));
    for text in [
        "{name: a}",
        "{name: a, owner: b, terms: [{term: c}]}",
        "{name: a, owner: b, relationships: [{domain: c, kind: friends}]}",
        "{name: a, owner: b, teams: [{name: c, members: [{nam: d}]}]}",
    ] {
        assert!(!domain.is_valid(&json(text)), "{text}");
    }
}

#[test]
fn the_demos_domains_agree_with_each_other() {
    let mut mesh = load_mesh(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/flights"))).unwrap();
    check_domains(&mut mesh, &[]).unwrap();
    let found: Vec<&str> = mesh.diagnostics.iter().map(|found| found.id).filter(|id| *id != "not-enforced").collect();
    assert_eq!(found, ["term-differs"], "{:?}", mesh.diagnostics);
}
