use std::path::Path;

use proptest::prelude::*;

use super::*;

fn table(name: &str) -> Dataset {
    Dataset::Table { product: ProductKey { domain: "d".into(), product: "p".into(), major: 1 }, table: name.into() }
}

fn path(text: &str) -> FieldPath {
    FieldPath::from(text.to_owned())
}

/// `t.a.b` is a field, `t` the rows.
fn node(text: &str) -> Node {
    match text.split_once('.') {
        Some((name, field)) => Node { dataset: table(name), field: Some(path(field)) },
        None => Node { dataset: table(text), field: None },
    }
}

/// Edges written `output SUBTYPE input`, or `output reads input`.
fn graph(edges: &[&str]) -> LineageGraph {
    LineageGraph::new(edges.iter().map(|text| {
        let words: Vec<&str> = text.split(' ').collect();
        let how = Subtype::parse(words[1]).map(Transformation::from);
        assert!(how.is_some() || words[1] == "reads", "{text}");
        Edge { output: node(words[0]), input: node(words[2]), how }
    }))
}

fn check_walk(edges: &[&str], root: &str, direction: Direction, expected: &[&str]) {
    let trace = graph(edges).walk(&[node(root)], direction, None, false);
    let reached: Vec<String> = trace
        .effects
        .iter()
        .map(|(node, effects)| {
            let effects: Vec<_> =
                effects.iter().map(|effect| effect.map_or("ROWS", |effect| effect.subtype.as_str())).collect();
            format!("{} {}", node.to_string().trim_start_matches("d.p_v1."), effects.join(","))
        })
        .collect();
    assert_eq!(reached, expected, "{direction:?} from {root}");
}

#[test]
fn walks_compose_the_ways_they_go() {
    let chain = ["c.z AGGREGATION b.y", "b.y IDENTITY a.x", "b FILTER a.w", "c SORT b.y"];
    check_walk(
        &chain,
        "c.z",
        Direction::Up,
        &["a.w SORT,FILTER", "a.x AGGREGATION,SORT", "b.y AGGREGATION,SORT"]
            .map(|line| if line.starts_with("a.w") { "a.w FILTER,SORT" } else { line }),
    );
    check_walk(&chain, "a.x", Direction::Down, &["b.y IDENTITY", "c (rows) SORT", "c.z AGGREGATION"]);
    // Whatever filters b decides which rows c is made of.
    check_walk(&chain, "a.w", Direction::Down, &["b (rows) FILTER", "c (rows) SORT", "c.z FILTER"]);
}

#[test]
fn a_cycle_is_walked_once() {
    let cycle = ["a.x IDENTITY b.x", "b.x TRANSFORMATION a.x"];
    check_walk(&cycle, "a.x", Direction::Up, &["a.x TRANSFORMATION", "b.x IDENTITY,TRANSFORMATION"]);
    check_walk(&cycle, "a.x", Direction::Down, &["a.x TRANSFORMATION", "b.x TRANSFORMATION"]);
    // A struct made of its own field ends too.
    let trace = graph(&["a.x IDENTITY a.x.y"]).walk(&[node("a.x")], Direction::Up, None, false);
    assert!(trace.effects.len() < 100);
}

#[test]
fn a_struct_taken_whole_passes_its_fields_on() {
    let edges = ["b.home IDENTITY a.address", "c.city IDENTITY b.home.city", "c.text TRANSFORMATION b.home"];
    check_walk(&edges, "c.city", Direction::Up, &["a.address.city IDENTITY", "b.home.city IDENTITY"]);
    check_walk(
        &edges,
        "a.address.city",
        Direction::Down,
        &["b.home.city IDENTITY", "c.city IDENTITY", "c.text TRANSFORMATION"],
    );
    // Another field of the struct has no part in c.city.
    check_walk(&edges, "a.address.zip", Direction::Down, &["b.home.zip IDENTITY", "c.text TRANSFORMATION"]);
    check_walk(&edges, "a.address", Direction::Down, &["b.home IDENTITY", "c.city IDENTITY", "c.text TRANSFORMATION"]);
}

#[test]
fn counted_rows_depend_on_what_decides_them() {
    let edges = ["b reads a", "a FILTER s.x", "a.y IDENTITY s.y"];
    check_walk(&edges, "b.n", Direction::Up, &["a (rows) ROWS", "s.x ROWS"]);
    check_walk(&edges, "s.x", Direction::Down, &["a (rows) FILTER", "b (rows) ROWS"]);
    check_walk(&edges, "s.y", Direction::Down, &["a.y IDENTITY"]);
}

#[test]
fn a_walk_can_be_short_or_direct_only() {
    let graph = graph(&["c.z IDENTITY b.y", "b.y IDENTITY a.x", "b FILTER a.w"]);
    let nodes = |depth, direct| {
        let trace = graph.walk(&[node("c.z")], Direction::Up, depth, direct);
        trace.hops.iter().map(|hop| (hop.distance, hop.edge.input.to_string())).collect::<Vec<_>>()
    };
    assert_eq!(nodes(Some(1), false), [(1, "d.p_v1.b.y".to_owned())]);
    assert_eq!(nodes(None, true), [(1, "d.p_v1.b.y".to_owned()), (2, "d.p_v1.a.x".to_owned())]);
    assert_eq!(nodes(Some(0), false), []);
    assert_eq!(nodes(None, false).len(), 3);
}

#[test]
fn trees_name_what_decides_rows_once() {
    let graph =
        graph(&["b.y AGGREGATION a.x", "b.z IDENTITY a.z", "b FILTER a.x", "b GROUP_BY a.z", "a.x IDENTITY s.x"]);
    let mark = |text: &str, ink: Ink| match ink {
        Ink::Plain => text.to_owned(),
        Ink::Strong => format!("*{text}*"),
        Ink::Dim => format!("~{text}~"),
    };
    let render = |roots: &[&str]| {
        let roots: Vec<Node> = roots.iter().map(|root| node(root)).collect();
        let trace = graph.walk(&roots, Direction::Up, None, false);
        tree(&roots, Direction::Up, &trace, &mark).replace("d.p_v1.", "")
    };
    assert_eq!(
        render(&["b.y", "b.z", "b"]),
        "*b.y*\n└─ a.x  AGGREGATION\n   └─ s.x  IDENTITY\n*b.z*\n└─ a.z  IDENTITY\n*b (rows)*\n\
         ├─ ~a.x  (FILTER) (see above)~\n└─ ~a.z  (GROUP_BY)~\n"
    );
    assert_eq!(render(&["b.z"]), "*b.z*\n├─ a.z  IDENTITY, GROUP_BY\n└─ ~a.x  (FILTER)~\n   └─ ~s.x  IDENTITY~\n");
}

#[test]
fn charts_escape_names() {
    let external = Node {
        dataset: Dataset::External { namespace: "file".into(), name: "/a \"b\"#.csv".into() },
        field: Some(path("<b>&\u{1b}[1m")),
    };
    let graph = LineageGraph::new([
        Edge { output: node("t.x"), input: external, how: Some(Subtype::Identity.into()) },
        Edge { output: node("t"), input: node("u.y"), how: Some(Subtype::Filter.into()) },
    ]);
    let roots = [node("t.x")];
    let trace = graph.walk(&roots, Direction::Up, None, false);
    assert_eq!(
        mermaid(&roots, &[&trace]),
        "flowchart LR\n  subgraph d0[\"d.p_v1.t\"]\n    n0[\"(rows)\"]\n    n1[\"x\"]\n  end\n  subgraph d1[\"d.p_v1.u\"]\n    \
         n2[\"y\"]\n  end\n  subgraph d2[\"file:/a #quot;b#quot;#35;.csv\"]\n    n3[\"#lt;b#gt;#amp;\\u{1b}[1m\"]\n  end\n  \
         n2 -.->|\"FILTER\"| n0\n  n3 -->|\"IDENTITY\"| n1\n"
    );
}

#[test]
fn trees_write_control_characters_out() {
    let graph = graph(&["t.a\u{1b}[2J IDENTITY s.b\u{7}\nc"]);
    let roots = [node("t.a\u{1b}[2J")];
    let trace = graph.walk(&roots, Direction::Up, None, false);
    let tree = tree(&roots, Direction::Up, &trace, &|text, _| text.to_owned());
    assert!(!tree.chars().any(|c| c.is_control() && c != '\n'), "{tree:?}");
    assert_eq!(tree.lines().count(), 2, "{tree:?}");
    assert!(tree.contains("\\u{1b}[2J") && tree.contains("\\u{7}\\nc"), "{tree}");
}

#[test]
fn external_datasets_are_named_without_secrets() {
    let check = |location: &str, namespace: &str, name: &str| {
        let expected = Dataset::External { namespace: namespace.into(), name: name.into() };
        assert_eq!(external_dataset(location, Path::new("/mesh/product")), expected, "{location}");
    };
    check("data/*.csv", "file", "/mesh/product/data/*.csv");
    check("../shared/./a.csv", "file", "/mesh/shared/a.csv");
    check("/abs/a.csv", "file", "/abs/a.csv");
    check("file:///abs/a.csv", "file", "/abs/a.csv");
    check("-", "file", "/dev/stdin");
    check("s3://bucket/a/b.parquet", "s3://bucket", "a/b.parquet");
    check("s3://bucket/a/?[0-9].csv", "s3://bucket", "a/?[0-9].csv");
    check("abfss://files@account.dfs.core.windows.net/a.csv", "abfss://files@account.dfs.core.windows.net", "a.csv");
    check("S3://bucket", "s3://bucket", "");
    check("https://me:p@ss@host:8443/a.csv?X-Amz-Signature=secret#part", "https://host:8443", "/a.csv");
    check("postgres://me:secret@db:5432/crm", "postgres://db:5432", "crm");
}

#[test]
fn databases_and_iceberg_tables_are_named_without_secrets() {
    let folder = Path::new("/mesh/product");
    let check = |found: Dataset, namespace: &str, name: &str| {
        assert_eq!(found, Dataset::External { namespace: namespace.into(), name: name.into() });
    };
    let table = |location: &str| database_dataset(location, Some("public.customers"), folder);
    check(table("postgres://me:secret@db:5433/crm?sslmode=require"), "postgres://db:5433", "crm.public.customers");
    check(table("postgresql://db/crm"), "postgres://db:5432", "crm.public.customers");
    check(table("postgres://${env:USER}:${env:PASSWORD}@db/crm"), "postgres://db:5432", "crm.public.customers");
    check(table("${env:CRM_URL}"), "${env:CRM_URL}", "public.customers");
    check(table("sqlite:../crm.db?mode=ro"), "sqlite:/mesh/crm.db", "public.customers");
    check(table("sqlite:///abs/crm.db"), "sqlite:/abs/crm.db", "public.customers");
    check(database_dataset("postgres://db/crm", None, folder), "postgres://db:5432", "crm.query");
    check(iceberg_dataset("s3://lake/t/metadata/00001-a.metadata.json", folder), "s3://lake", "t");
    check(iceberg_dataset("../lake/t/", folder), "file", "/mesh/lake/t");
}

#[test]
fn references_and_subjects_are_parsed() {
    let reference = ColumnReference::parse("sales/crm.customers.address.city");
    assert_eq!(reference.as_ref().map(|found| found.field.clone()).ok(), Some(path("address.city")));
    assert_eq!(reference.map(|found| found.to_string()).ok().as_deref(), Some("sales/crm.customers.address.city"));
    for bad in ["", "sales/crm", "sales/crm.customers", "crm.customers.id", "sales/crm.customers.", "sales/crm..id"] {
        assert!(ColumnReference::parse(bad).is_err(), "{bad}");
    }
    let check = |text: &str, domain: Option<&str>, product: &str, major, table: Option<&str>, field: Option<&str>| {
        let expected = Subject {
            domain: domain.map(str::to_owned),
            product: product.to_owned(),
            major,
            table: table.map(str::to_owned),
            field: field.map(path),
        };
        assert_eq!(Subject::parse(text).ok(), Some(expected), "{text}");
    };
    check("customer-360", None, "customer_360", None, None, None);
    check("sales/crm", Some("sales"), "crm", None, None, None);
    check("sales/crm.Customers", Some("sales"), "crm", None, Some("customers"), None);
    check("sales/crm.customers.Id", Some("sales"), "crm", None, Some("customers"), Some("Id"));
    check(
        "sales.crm_v2.customers.address.city",
        Some("sales"),
        "crm",
        Some(2),
        Some("customers"),
        Some("address.city"),
    );
    for bad in ["", "/crm", "sales/", "sales/crm.", "sales..t"] {
        assert!(Subject::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_facet_keeps_rows_apart_from_fields() {
    let mut lineage = ColumnLineage::default();
    lineage.fields.push(FieldLineage { field: path("y"), inputs: Inputs::identity(table("a"), path("x")) });
    lineage.fields.push(FieldLineage { field: path("n"), inputs: Inputs::default() });
    lineage.dataset = Inputs::identity(table("a"), path("w")).through(Subtype::Filter);
    let facet = facet(&lineage, "datamesh://test");
    assert_eq!(facet["fields"]["y"]["inputFields"][0]["transformations"][0]["subtype"], "IDENTITY");
    assert_eq!(facet["fields"]["y"]["inputFields"][0]["namespace"], "datamesh://test");
    assert_eq!(facet["fields"]["y"]["inputFields"][0]["name"], "d.p_v1.a");
    assert_eq!(facet["fields"]["n"]["inputFields"], serde_json::json!([]));
    assert_eq!(facet["dataset"][0]["transformations"][0]["type"], "INDIRECT");
}

fn subtypes() -> impl Strategy<Value = Subtype> {
    proptest::sample::select(Subtype::ALL.to_vec())
}

fn inputs() -> impl Strategy<Value = Inputs> {
    proptest::collection::vec((0..3_u8, 0..3_u8, subtypes(), any::<bool>()), 0..6).prop_map(|entries| {
        let mut inputs = Inputs::default();
        for (dataset, field, subtype, masking) in entries {
            let input = InputField { dataset: table(&format!("t{dataset}")), field: path(&format!("f{field}")) };
            inputs.add(input, Transformation { subtype, masking });
        }
        inputs
    })
}

fn merged(a: &Inputs, b: &Inputs) -> Inputs {
    let mut both = a.clone();
    both.merge(b.clone());
    both
}

proptest! {
    #[test]
    fn composition_is_associative_with_identity_as_neutral_element(a in subtypes(), b in subtypes(), c in subtypes()) {
        prop_assert_eq!(a.then(b).then(c), a.then(b.then(c)));
        prop_assert_eq!(a.then(Subtype::Identity), a);
        prop_assert_eq!(Subtype::Identity.then(a), a);
        // What is only influenced somewhere on the way is only influenced.
        let indirect = a.kind() == Kind::Indirect || b.kind() == Kind::Indirect;
        prop_assert_eq!(a.then(b).kind() == Kind::Indirect, indirect);
    }

    #[test]
    fn merging_is_a_set_union_and_passing_on_keeps_it(a in inputs(), b in inputs(), c in inputs(), s in subtypes(), t in subtypes()) {
        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        prop_assert_eq!(merged(&a, &a), a.clone());
        prop_assert_eq!(merged(&a, &b).through(s), merged(&a.through(s), &b.through(s)));
        prop_assert_eq!(a.through(s).through(t), a.through(t.then(s)));
        prop_assert_eq!(a.through(Subtype::Identity), a);
    }

    #[test]
    fn edges_hold_the_whole_lineage(dataset in inputs(), fields in proptest::collection::vec(inputs(), 0..4)) {
        let output = table("out");
        let fields: Vec<FieldLineage> = fields
            .into_iter()
            .enumerate()
            .map(|(index, inputs)| FieldLineage { field: path(&format!("c{index}")), inputs })
            .collect();
        let mut lineage = ColumnLineage { fields, dataset, reads: BTreeSet::from([table("counted")]) };
        let used: Vec<Dataset> = lineage.edges(&output).into_iter().map(|edge| edge.input.dataset).collect();
        lineage.reads.extend(used);
        let columns: Vec<FieldPath> = lineage.fields.iter().map(|field| field.field.clone()).collect();
        prop_assert_eq!(ColumnLineage::from_edges(&output, &columns, &lineage.edges(&output)), lineage);
    }

    #[test]
    fn a_walk_along_a_chain_composes_its_steps(steps in proptest::collection::vec(subtypes(), 1..6)) {
        let edges = steps.iter().enumerate().map(|(index, subtype)| Edge {
            output: node(&format!("t{index}.x")),
            input: node(&format!("t{}.x", index + 1)),
            how: Some((*subtype).into()),
        });
        let graph = LineageGraph::new(edges);
        let last = node(&format!("t{}.x", steps.len()));
        let whole: Transformation = steps.iter().fold(Subtype::Identity, |whole, step| whole.then(*step)).into();
        let up = graph.walk(&[node("t0.x")], Direction::Up, None, false);
        prop_assert_eq!(&up.effects[&last], &BTreeSet::from([Some(whole)]));
        let down = graph.walk(std::slice::from_ref(&last), Direction::Down, None, false);
        prop_assert_eq!(&down.effects[&node("t0.x")], &BTreeSet::from([Some(whole)]));
    }

    #[test]
    fn up_and_down_are_converses(edges in proptest::collection::vec((0..5_u8, subtypes(), 0..5_u8), 0..12)) {
        let edges = edges.into_iter().map(|(output, subtype, input)| Edge {
            output: node(&format!("t{output}.x")),
            input: node(&format!("t{input}.x")),
            how: Some(subtype.into()),
        });
        let graph = LineageGraph::new(edges);
        for a in 0..5 {
            let a = node(&format!("t{a}.x"));
            let up = graph.walk(std::slice::from_ref(&a), Direction::Up, None, false);
            for b in 0..5 {
                let b = node(&format!("t{b}.x"));
                let down = graph.walk(std::slice::from_ref(&b), Direction::Down, None, false);
                prop_assert_eq!(up.effects.get(&b), down.effects.get(&a));
            }
        }
    }

    #[test]
    fn paths_can_be_read_back(parts in proptest::collection::vec("[a-z.\" é]{0,6}", 1..4)) {
        let path = FieldPath::new(parts).into_iter().next().expect("there is a part");
        prop_assert_eq!(FieldPath::from(path.to_string()), path);
    }

    #[test]
    fn datasets_can_be_read_back(domain in "[a-z][a-z0-9_]{0,8}", product in "[a-z][a-z0-9_]{0,8}", major in 0..100_u64, name in "[a-z][a-z0-9_]{0,8}") {
        let dataset = Dataset::Table { product: ProductKey { domain, product, major }, table: name };
        prop_assert_eq!(Dataset::from_parts(dataset.namespace(), &dataset.name()), Some(dataset));
    }
}
