use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::domain::{Role, Team};
use crate::ids::{Name, ProductId, ProductKey};
use crate::lineage::{Dataset, FieldPath, Node};

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn domain(text: &str, relationships: &[(&str, RelationshipKind, Option<Role>, &[&str])]) -> Domain {
    Domain {
        name: name(text),
        owner: format!("{text}-team"),
        description: None,
        purpose: None,
        responsibilities: vec!["something".into()],
        terms: Vec::new(),
        relationships: relationships
            .iter()
            .map(|(other, kind, role, products)| Relationship {
                domain: name(other),
                kind: *kind,
                role: *role,
                products: products.iter().map(|id| ProductId::parse(id).expect("an id")).collect(),
                description: None,
            })
            .collect(),
        teams: Vec::new(),
    }
}

/// A product with the table `t`, owned by its domain's team.
fn product(id: &str, inputs: &[&str], more: Value) -> DataProduct {
    let (domain, product) = id.split_once('/').expect("an id");
    let inputs: Vec<Value> = inputs
        .iter()
        .map(|input| match input.split_once('@') {
            Some((id, range)) => json!({ "product": parts(id), "range": range }),
            None => json!({ "product": parts(input) }),
        })
        .collect();
    let mut document = json!({
        "format": 1, "id": {"domain": domain, "product": product}, "version": "1.0.0",
        "owner": format!("{domain}-team"), "inputs": inputs,
        "tables": [{"name": "t", "columns": [{"name": "id", "type": "int"}]}],
    });
    for (key, value) in more.as_object().expect("an object") {
        document[key] = value.clone();
    }
    serde_json::from_value(document).unwrap_or_else(|error| panic!("{error}"))
}

fn parts(id: &str) -> Value {
    let (domain, product) = id.split_once('/').expect("an id");
    json!({ "domain": domain, "product": product })
}

fn map_of(domains: &[Domain], products: &[DataProduct], lineage: &[Edge], sources: &[SourceClaim]) -> ContextMap {
    let ownership = Ownership::new(Some("platform"), &[], domains);
    let products: Vec<&DataProduct> = products.iter().collect();
    context_map(&MapInput { domains, ownership: &ownership, products: &products, lineage, sources })
}

fn found(map: &ContextMap) -> Vec<(&'static str, Level)> {
    map.findings.iter().map(|finding| (finding.id, finding.level)).collect()
}

const DOWN: Option<Role> = Some(Role::Downstream);
const UP: Option<Role> = Some(Role::Upstream);

use RelationshipKind::{
    AnticorruptionLayer, Conformist, CustomerSupplier, OpenHostService, Partnership, PublishedLanguage, SeparateWays,
};

#[test]
fn what_is_declared_on_both_ends_and_read_agrees() {
    let domains = [
        domain("web", &[("sales", AnticorruptionLayer, DOWN, &[])]),
        domain("sales", &[("web", OpenHostService, UP, &[]), ("web", PublishedLanguage, UP, &["sales/crm"])]),
    ];
    let products = [product("sales/crm", &[], json!({})), product("web/sessions", &["sales/crm@^1"], json!({}))];
    let map = map_of(&domains, &products, &[], &[]);
    assert_eq!(found(&map), []);
    let [link] = map.links.as_slice() else { panic!("{:?}", map.links) };
    assert_eq!(
        (map.domains[link.upstream].name.as_str(), map.domains[link.downstream].name.as_str()),
        ("sales", "web")
    );
    assert_eq!((link.upstream_marks(), link.downstream_marks()), (vec!["OHS", "PL"], vec!["ACL"]));
    assert_eq!(link.state, LinkState::Agreed);
    assert_eq!((map.domains[0].downstream, map.domains[1].upstream), (1, 1));
}

#[test]
fn what_disagrees_is_found() {
    let no_products = [domain("a", &[("b", Conformist, DOWN, &[])]), domain("b", &[])];
    let map = map_of(&no_products, &[], &[], &[]);
    assert_eq!(found(&map), [("unsupported-relationship", Level::Note)]);
    assert!(!map.has_warnings());

    let a = product("a/x", &["b/y"], json!({}));
    let b = product("b/y", &[], json!({}));
    let map = map_of(&[domain("a", &[]), domain("b", &[])], &[a.clone(), b.clone()], &[], &[]);
    assert_eq!(found(&map), [("undeclared-dependency", Level::Warning)]);
    assert_eq!(map.links[0].state, LinkState::Undeclared);
    assert!(map.has_warnings());
    assert_eq!(
        map.findings[0].message,
        "`a` depends on `b`, which no relationship declares: `a/x` reads `b/y` (input)"
    );

    // A relationship about another product does not cover this one.
    let other = [domain("a", &[("b", Conformist, DOWN, &["b/z"])]), domain("b", &[])];
    let map = map_of(&other, &[a.clone(), b.clone()], &[], &[]);
    assert_eq!(found(&map).len(), 2, "{:?}", map.findings);

    let apart = [domain("a", &[("b", SeparateWays, None, &[])]), domain("b", &[])];
    assert_eq!(map_of(&apart, &[], &[], &[]).links[0].state, LinkState::Apart);
    let map = map_of(&apart, &[a, b], &[], &[]);
    assert_eq!(found(&map), [("separate-ways-crossed", Level::Warning)]);
}

#[test]
fn references_rules_origins_and_lineage_are_dependencies_too() {
    let domains = [domain("a", &[]), domain("b", &[])];
    let check = |more: Value, lineage: &[Edge], evidence: Evidence| {
        let products = [product("a/x", &[], more), product("b/y", &[], json!({}))];
        let map = map_of(&domains, &products, lineage, &[]);
        assert_eq!(map.links.len(), 1, "{evidence:?}");
        assert_eq!(map.links[0].dependencies[0].evidence, BTreeSet::from([evidence]));
    };
    let table = |more: Value| {
        let mut table = json!({"name": "t", "columns": [{"name": "id", "type": "int"}]});
        more.as_object().expect("an object").iter().for_each(|(key, value)| table[key] = value.clone());
        json!({ "tables": [table] })
    };
    let from =
        json!({"columns": [{"name": "id", "type": {"struct": [{"name": "in", "type": "int", "from": ["b/y.t.id"]}]}}]});
    check(table(from), &[], Evidence::From);
    let node = |domain: &str, product: &str| Node {
        dataset: Dataset::Table {
            product: ProductKey { domain: domain.into(), product: product.into(), major: 1 },
            table: "t".into(),
        },
        field: Some(FieldPath::column("id")),
    };
    let edge = |to, from| Edge { output: to, input: from, how: None };
    check(json!({}), &[edge(node("a", "x"), node("b", "y"))], Evidence::Lineage);
    // Within a domain nothing is a dependency of domains.
    let products = [product("a/x", &["a/z"], json!({})), product("a/z", &[], json!({}))];
    let map = map_of(&domains, &products, &[edge(node("a", "x"), node("a", "z"))], &[]);
    assert!(map.links.is_empty());
}

#[test]
fn circles_of_domains_are_found_unless_two_plan_together() {
    let ring = [
        domain("a", &[("c", Conformist, DOWN, &[])]),
        domain("b", &[("a", Conformist, DOWN, &[])]),
        domain("c", &[("b", Conformist, DOWN, &[])]),
        domain("d", &[("c", Conformist, DOWN, &[])]),
    ];
    let products = [
        product("a/p", &["c/p"], json!({})),
        product("b/p", &["a/p"], json!({})),
        product("c/p", &["b/p"], json!({})),
        product("d/p", &["c/p"], json!({})),
    ];
    let map = map_of(&ring, &products, &[], &[]);
    assert_eq!(found(&map), [("domain-cycle", Level::Warning)]);
    assert_eq!(map.findings[0].message, "domains depend on each other in a circle: a → b → c → a");
    assert_eq!(map.findings[0].domains, ["a", "b", "c"]);
    assert_eq!(map.links.iter().filter(|link| link.cyclic).count(), 3);

    let both =
        [product("a/p", &["b/q"], json!({})), product("b/p", &["a/p"], json!({})), product("b/q", &[], json!({}))];
    let partners = [domain("a", &[("b", Partnership, None, &[])]), domain("b", &[])];
    assert_eq!(found(&map_of(&partners, &both, &[], &[])), []);
    let strangers = [
        domain("a", &[("b", CustomerSupplier, DOWN, &["b/q"])]),
        domain("b", &[("a", CustomerSupplier, DOWN, &["a/p"])]),
    ];
    assert_eq!(found(&map_of(&strangers, &both, &[], &[])), [("domain-cycle", Level::Warning)]);
}

#[test]
fn products_without_an_owner_are_found() {
    let check = |owner: &str, teams: &[&str], expected: bool| {
        let mut domains = [domain("a", &[])];
        domains[0].teams = teams
            .iter()
            .map(|name| Team { name: (*name).to_owned(), description: None, members: Vec::new(), contact: None })
            .collect();
        let map = map_of(&domains, &[product("a/x", &[], json!({ "owner": owner }))], &[], &[]);
        let found = map.findings.iter().any(|finding| finding.id == "product-without-owner");
        assert_eq!(found, expected, "{owner} {teams:?}");
    };
    check("a-team", &[], false);
    check("others", &[], true);
    check("others", &["others"], false);
    check("other", &["others"], true);
    // Without a domain.yaml and without teams an owner is just a name.
    let map = map_of(&[], &[product("a/x", &[], json!({ "owner": "somebody" }))], &[], &[]);
    assert_eq!(found(&map), [("domain-without-responsibilities", Level::Warning)]);
}

#[test]
fn domains_without_responsibilities_are_found() {
    let mut domains = [domain("a", &[]), domain("b", &[])];
    domains[1].responsibilities.clear();
    let map = map_of(&domains, &[], &[], &[]);
    assert_eq!(found(&map), [("domain-without-responsibilities", Level::Warning)]);
    assert_eq!(map.findings[0].domains, ["b"]);
}

#[test]
fn tables_that_two_domains_claim_are_found() {
    let keyed = |name: &str, column: &str| {
        json!({ "tables": [{"name": name, "columns": [
            {"name": "id", "type": "int", "primaryKey": true}, {"name": column, "type": "string"}]}] })
    };
    let domains = [domain("a", &[]), domain("b", &[("a", Conformist, DOWN, &[])])];
    let check = |a: DataProduct, b: DataProduct, expected: bool| {
        let map = map_of(&domains, &[a, b], &[], &[]);
        assert_eq!(map.findings.iter().any(|finding| finding.id == "claimed-table"), expected, "{:?}", map.findings);
    };
    check(product("a/x", &[], keyed("Orders", "v")), product("b/y", &[], keyed("orders", "v")), true);
    check(product("a/x", &[], keyed("orders", "v")), product("b/y", &[], keyed("orders", "w")), false);
    check(product("a/x", &[], keyed("orders", "v")), product("b/y", &[], keyed("order", "v")), false);
    // A copy that says where it comes from claims nothing.
    check(product("a/x", &[], keyed("orders", "v")), product("b/y", &["a/x"], keyed("orders", "v")), false);
    // One that is on its way out does not either.
    let mut old = product("b/y", &[], keyed("orders", "v"));
    old.declared.insert("status".into(), "deprecated".into());
    check(product("a/x", &[], keyed("orders", "v")), old, false);
    // Within one domain it is that domain's business.
    let products = [product("a/x", &[], keyed("orders", "v")), product("a/y", &[], keyed("orders", "v"))];
    assert_eq!(found(&map_of(&domains[..1], &products, &[], &[])), []);
}

#[test]
fn sources_that_two_domains_take_are_found() {
    let with = |id: &str, source: Value| {
        product(
            id,
            &[],
            json!({ "tables": [{"name": "t", "source": source, "columns": [{"name": "id", "type": "int"}]}] }),
        )
    };
    let check = |a: Value, b: Value, expected: bool| {
        let domains = [domain("a", &[]), domain("b", &[])];
        let products = [with("a/x", a), with("b/y", b)];
        let sources: Vec<SourceClaim> = products
            .iter()
            .zip(["/mesh/a/x", "/mesh/b/y"])
            .flat_map(|(product, folder)| source_claims(product, std::path::Path::new(folder)))
            .collect();
        let map = map_of(&domains, &products, &[], &sources);
        assert_eq!(map.findings.iter().any(|finding| finding.id == "claimed-table"), expected, "{:?}", map.findings);
    };
    check(json!({"path": "../../raw/o.csv"}), json!({"path": "../../raw/./o.csv"}), true);
    check(json!({"path": "o.csv"}), json!({"path": "o.csv"}), false);
    check(json!({"path": "-"}), json!({"path": "-"}), false);
    let crm = "${env:CRM_URL}";
    check(json!({"database": crm, "table": "o"}), json!({"database": crm, "table": "o"}), true);
    check(json!({"database": crm, "table": "o"}), json!({"database": crm, "table": "p"}), false);
    check(json!({"database": crm, "query": "SELECT 1"}), json!({"database": crm, "query": "SELECT 1"}), false);
    let iceberg = "s3://lake/o";
    check(json!({"iceberg": iceberg}), json!({"iceberg": "s3://lake/o/metadata/1.metadata.json"}), true);
}

#[test]
fn dependencies_on_what_is_on_its_way_out_are_found() {
    let domains = [domain("a", &[("b", Conformist, DOWN, &[])]), domain("b", &[])];
    let old = |status: &str| {
        let mut old = product("b/y", &[], json!({}));
        old.declared.insert("status".into(), status.into());
        old.declared.insert("sla".into(), json!({ "endOfSupport": "2030-01-31" }));
        old
    };
    let new = || product("b/y", &[], json!({ "version": "2.0.0" }));
    let check = |input: &str, supplier: Vec<DataProduct>, expected: &[&str]| {
        let products: Vec<DataProduct> = [product("a/x", &[input], json!({}))].into_iter().chain(supplier).collect();
        let map = map_of(&domains, &products, &[], &[]);
        assert_eq!(found(&map).iter().map(|(id, _)| *id).collect::<Vec<_>>(), expected, "{input}");
    };
    check("b/y@^1", vec![old("deprecated"), new()], &["deprecated-dependency"]);
    check("b/y@^1", vec![old("retired"), new()], &["retired-dependency"]);
    check("b/y@>=1", vec![old("deprecated"), new()], &[]);
    check("b/y", vec![old("active")], &[]);
    let map = map_of(&domains, &[product("a/x", &["b/y@^1"], json!({})), old("deprecated")], &[], &[]);
    assert_eq!(
        map.findings[0].message,
        "`a/x` reads `b/y` 1.0.0 (input), which is deprecated, supported until 2030-01-31"
    );
}

#[test]
fn the_order_of_the_input_does_not_matter() {
    let mut domains = vec![
        domain("a", &[("b", Conformist, DOWN, &[])]),
        domain("b", &[("c", Partnership, None, &[])]),
        domain("c", &[("a", SeparateWays, None, &[])]),
    ];
    let mut products = vec![
        product("a/x", &["b/y", "c/z"], json!({})),
        product("b/y", &["c/z"], json!({})),
        product("c/z", &["a/x"], json!({})),
    ];
    let first = map_of(&domains, &products, &[], &[]);
    domains.reverse();
    products.reverse();
    let second = map_of(&domains, &products, &[], &[]);
    assert_eq!(first, second);
    assert_eq!(svg(&first, "m"), svg(&second, "m"));
}

#[test]
fn texts_of_users_do_not_break_the_drawings() {
    let mut domains = [domain("a", &[("b", Conformist, DOWN, &[])]), domain("b", &[])];
    domains[0].owner = "</text><script>alert(1)</script>&\"'\u{1}\n#".into();
    domains[0].purpose = Some("]]> & < \u{fffe}".into());
    domains[0].relationships[0].description = Some("<b>\"quoted\"</b>".into());
    let map = map_of(&domains, &[product("a/x", &["b/y"], json!({})), product("b/y", &[], json!({}))], &[], &[]);
    let drawing = svg(&map, "<mesh> & co");
    assert!(!drawing.contains("<script") && !drawing.contains("<b>") && !drawing.contains('\u{1}'), "{drawing}");
    assert!(drawing.contains("Context map of &lt;mesh&gt; &amp; co"), "{drawing}");
    let chart = mermaid(&map);
    assert!(!chart.contains("<script") && chart.contains("#lt;script#gt;"), "{chart}");
}

#[test]
fn a_map_of_nothing_is_a_map() {
    let map = map_of(&[], &[], &[], &[]);
    assert_eq!(text(&map), "nothing disagrees\n");
    assert_eq!(mermaid(&map), "flowchart LR\n");
    assert!(svg(&map, "nothing").ends_with("</svg>\n"));
}

/// A mesh of many domains, each reading some of the others, forwards and backwards.
#[test]
fn a_map_of_five_hundred_domains_is_drawn_the_same_twice() {
    let domains: Vec<Domain> = (0..500).map(|number| domain(&format!("d{number}"), &[])).collect();
    let products: Vec<DataProduct> = (0..2000usize)
        .map(|number| {
            let inputs: Vec<String> =
                (1..4).map(|step| format!("d{}/p{}", (number * 7 + step * 31) % 500, (number + step) % 4)).collect();
            let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
            product(&format!("d{}/p{}", number % 500, number / 500), &inputs, json!({}))
        })
        .collect();
    let first = map_of(&domains, &products, &[], &[]);
    assert!(first.links.len() > 1000, "{}", first.links.len());
    let drawing = svg(&first, "large");
    assert_eq!(drawing, svg(&map_of(&domains, &products, &[], &[]), "large"));
}

fn overlaps(a: &Area, b: &Area) -> bool {
    a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height
}

/// Whether the straight part of a link between two points at one height runs through a box.
fn runs_through(from: (i64, i64), to: (i64, i64), area: &Area) -> bool {
    let (left, right) = (from.0.min(to.0), from.0.max(to.0));
    from.1 == to.1 && left < area.x + area.width && area.x < right && (area.y..area.y + area.height).contains(&from.1)
}

proptest! {
    #[test]
    fn nothing_overlaps(
        count in 1usize..40,
        links in prop::collection::vec((0usize..40, 0usize..40, any::<bool>()), 0..120),
        width in 20i64..300,
    ) {
        let sizes: Vec<(i64, i64)> =
            (0..count).map(|index| (width + (index as i64 * 37) % 90, 40 + (index as i64 * 13) % 50)).collect();
        let links: Vec<Link> = links.into_iter().map(|(from, to, directed)| Link { from, to, directed }).collect();
        let drawn = layout(&sizes, &links);
        prop_assert_eq!(&drawn, &layout(&sizes, &links));
        for (index, area) in drawn.boxes.iter().enumerate() {
            prop_assert!(area.width == sizes[index].0 && area.height >= sizes[index].1);
            prop_assert!(area.x >= 0 && area.y >= 0, "{area:?}");
            prop_assert!(area.x + area.width <= drawn.width && area.y + area.height <= drawn.height, "{area:?}");
            for other in &drawn.boxes[index + 1..] {
                prop_assert!(!overlaps(area, other), "{area:?} {other:?}");
            }
        }
        for (link, way) in links.iter().zip(&drawn.links) {
            if link.from >= count || link.to >= count || link.from == link.to {
                prop_assert!(way.points.is_empty());
                continue;
            }
            let ([first, .., last], from, to) = (way.points.as_slice(), &drawn.boxes[link.from], &drawn.boxes[link.to])
            else { panic!("no points") };
            let on_side = |point: &(i64, i64), area: &Area, right: bool| {
                point.0 == if right { area.x + area.width } else { area.x }
                    && (area.y..=area.y + area.height).contains(&point.1)
            };
            prop_assert!(on_side(first, from, !way.turned), "{first:?} {from:?}");
            prop_assert!(on_side(last, to, way.turned), "{last:?} {to:?}");
            for step in way.points.windows(2) {
                let forwards = step[0].0 <= step[1].0;
                prop_assert!(step[0].0 == step[1].0 || forwards != way.turned);
                for area in &drawn.boxes {
                    prop_assert!(!runs_through(step[0], step[1], area), "{step:?} {area:?}");
                }
            }
        }
    }
}
