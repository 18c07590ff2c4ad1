//! Each case is a query and its lineage, worked out from the query's text and OpenLineage's definitions. An output is
//! written `column: SUBTYPE table.column …; SUBTYPE …`, and `*` stands for the rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema};
use datafusion::common::{DFSchemaRef, TableReference};
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::logical_expr::{
    Expr, Extension, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNode, UserDefinedLogicalNodeCore,
};
use datafusion::prelude::{SessionContext, col};
use datamesh_core::Result;
use datamesh_core::ids::ProductKey;
use datamesh_core::lineage::{ColumnLineage, Dataset, Inputs};

use super::column_lineage;

type Lines = (Vec<String>, BTreeMap<String, BTreeSet<(String, String)>>);

fn context() -> SessionContext {
    let context = SessionContext::new();
    let table = |name: &str, columns: &[(&str, DataType)]| {
        let fields: Vec<Field> =
            columns.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect();
        context
            .register_table(TableReference::bare(name), Arc::new(EmptyTable::new(Arc::new(Schema::new(fields)))))
            .expect("the table is registered");
    };
    let list = |item: DataType| DataType::List(Arc::new(Field::new("item", item, true)));
    let fields = |names: &[&str]| Fields::from_iter(names.iter().map(|name| Field::new(*name, DataType::Utf8, true)));
    let geo = DataType::Struct(fields(&["lat", "lon"]));
    let address = DataType::Struct(
        fields(&["city", "zip"]).iter().cloned().chain([Arc::new(Field::new("geo", geo, true))]).collect::<Fields>(),
    );
    let point = DataType::Struct(fields(&["x", "y"]));
    let entries = DataType::Struct(Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Utf8, true),
    ]));
    let map = DataType::Map(Arc::new(Field::new("entries", entries, false)), false);
    for name in ["t", "u"] {
        table(name, &[("a", DataType::Int64), ("b", DataType::Int64), ("c", DataType::Int64), ("s", DataType::Utf8)]);
    }
    table(
        "p",
        &[
            ("id", DataType::Int64),
            ("address", address),
            ("tags", list(DataType::Utf8)),
            ("nested", list(list(DataType::Int64))),
            ("points", list(point)),
            ("attributes", map),
        ],
    );
    table("tree", &[("id", DataType::Int64), ("parent", DataType::Int64), ("name", DataType::Utf8)]);
    context
}

fn tpch() -> SessionContext {
    let context = SessionContext::new();
    let tables = [
        ("part", "p_partkey:k p_name:s p_mfgr:s p_brand:s p_type:s p_size:i p_container:s p_retailprice:d p_comment:s"),
        ("supplier", "s_suppkey:k s_name:s s_address:s s_nationkey:k s_phone:s s_acctbal:d s_comment:s"),
        ("partsupp", "ps_partkey:k ps_suppkey:k ps_availqty:i ps_supplycost:d ps_comment:s"),
        ("customer", "c_custkey:k c_name:s c_address:s c_nationkey:k c_phone:s c_acctbal:d c_mktsegment:s c_comment:s"),
        (
            "orders",
            "o_orderkey:k o_custkey:k o_orderstatus:s o_totalprice:d o_orderdate:t o_orderpriority:s o_clerk:s \
             o_shippriority:i o_comment:s",
        ),
        (
            "lineitem",
            "l_orderkey:k l_partkey:k l_suppkey:k l_linenumber:i l_quantity:d l_extendedprice:d l_discount:d l_tax:d \
             l_returnflag:s l_linestatus:s l_shipdate:t l_commitdate:t l_receiptdate:t l_shipinstruct:s l_shipmode:s \
             l_comment:s",
        ),
        ("nation", "n_nationkey:k n_name:s n_regionkey:k n_comment:s"),
        ("region", "r_regionkey:k r_name:s r_comment:s"),
    ];
    for (name, columns) in tables {
        let field = |text: &str| {
            let (name, data_type) = text.split_once(':').expect("a type follows the name");
            let data_type = match data_type {
                "k" => DataType::Int64,
                "i" => DataType::Int32,
                "d" => DataType::Decimal128(15, 2),
                "t" => DataType::Date32,
                _ => DataType::Utf8,
            };
            Field::new(name, data_type, false)
        };
        let schema = Schema::new(columns.split_whitespace().map(field).collect::<Vec<_>>());
        context.register_table(name, Arc::new(EmptyTable::new(Arc::new(schema)))).expect("the table is registered");
    }
    context
}

fn dataset(name: &TableReference) -> Result<Option<Dataset>> {
    let product = ProductKey { domain: "d".into(), product: "p".into(), major: 1 };
    Ok((!name.table().ends_with("()")).then(|| Dataset::Table { product, table: name.table().to_owned() }))
}

fn plan(context: &SessionContext, sql: &str) -> LogicalPlan {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime starts");
    runtime.block_on(context.state().create_logical_plan(sql)).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

fn found(lineage: &ColumnLineage) -> Lines {
    let pairs = |inputs: &Inputs| -> BTreeSet<(String, String)> {
        let name = |dataset: &Dataset, field: &str| match dataset {
            Dataset::Table { table, .. } => format!("{table}.{field}"),
            other => format!("{other}.{field}"),
        };
        inputs
            .iter()
            .map(|(input, how)| (how.subtype.as_str().to_owned(), name(&input.dataset, &input.field.to_string())))
            .collect()
    };
    let names = lineage.fields.iter().map(|field| field.field.parts()[0].clone()).collect();
    let mut lines: BTreeMap<_, _> =
        lineage.fields.iter().map(|field| (field.field.parts()[0].clone(), pairs(&field.inputs))).collect();
    lines.insert("*".to_owned(), pairs(&lineage.dataset));
    (names, lines)
}

fn expected<'l>(lines: impl IntoIterator<Item = &'l str>) -> Lines {
    let mut names = Vec::new();
    let mut all = BTreeMap::from([("*".to_owned(), BTreeSet::new())]);
    for line in lines.into_iter().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, inputs) = line.split_once(':').expect("a line names its output");
        let mut pairs = BTreeSet::new();
        for group in inputs.split(';').map(str::trim).filter(|group| !group.is_empty()) {
            let mut words = group.split(' ');
            let subtype = words.next().unwrap_or_default();
            pairs.extend(words.map(|word| (subtype.to_owned(), word.to_owned())));
        }
        if name != "*" {
            names.push(name.to_owned());
        }
        all.insert(name.to_owned(), pairs);
    }
    (names, all)
}

fn check(sql: &str, lines: &[&str]) {
    let lineage = column_lineage(&plan(&context(), sql), &dataset).unwrap_or_else(|error| panic!("{sql}: {error}"));
    assert_eq!(found(&lineage), expected(lines.iter().copied()), "{sql}");
}

/// Two queries that mean the same have the same lineage.
fn check_same(one: &str, other: &str) {
    let context = context();
    let lineage =
        |sql: &str| column_lineage(&plan(&context, sql), &dataset).unwrap_or_else(|error| panic!("{sql}: {error}"));
    assert_eq!(lineage(one), lineage(other), "{one} / {other}");
}

fn check_tpch(number: u32, sql: &str, answer: &str) {
    let context = tpch();
    let lineage =
        column_lineage(&plan(&context, sql), &dataset).unwrap_or_else(|error| panic!("query {number}: {error}"));
    // A column's prefix says its table, so the answers leave it out; the names are those of the right tables.
    let (names, lines) = found(&lineage);
    let prefix = |table: &str| if table == "partsupp" { "ps_".to_owned() } else { format!("{}_", &table[..1]) };
    let bare = |input: &str| {
        let (table, column) = input.split_once('.').expect("an input names its table");
        assert!(column.starts_with(&prefix(table)), "query {number}: {input}");
        column.to_owned()
    };
    let bare = |pairs: BTreeSet<(String, String)>| pairs.into_iter().map(|(how, input)| (how, bare(&input))).collect();
    let lines = lines.into_iter().map(|(name, pairs)| (name, bare(pairs))).collect();
    assert_eq!((names, lines), expected(answer.lines()), "query {number}");
}

macro_rules! tpch_queries {
    ($($name:ident $number:literal),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                check_tpch(
                    $number,
                    include_str!(concat!("tests/tpch/", stringify!($name), ".sql")),
                    include_str!(concat!("tests/tpch/", stringify!($name), ".expected")),
                );
            }
        )*
    };
}

mod tpch_queries {
    use super::check_tpch;

    tpch_queries! {
        q01 1, q02 2, q03 3, q04 4, q05 5, q06 6, q07 7, q08 8, q09 9, q10 10, q11 11, q12 12, q13 13, q14 14, q15 15,
        q16 16, q17 17, q18 18, q19 19, q20 20, q21 21, q22 22,
    }
}

#[test]
fn columns_are_passed_on_or_computed() {
    check("SELECT a, b AS x, t.c FROM t", &["a: IDENTITY t.a", "x: IDENTITY t.b", "c: IDENTITY t.c"]);
    check("SELECT * FROM t", &["a: IDENTITY t.a", "b: IDENTITY t.b", "c: IDENTITY t.c", "s: IDENTITY t.s"]);
    check("SELECT * EXCEPT (a, s) FROM t", &["b: IDENTITY t.b", "c: IDENTITY t.c"]);
    check("SELECT a + b * 2 AS x FROM t", &["x: TRANSFORMATION t.a t.b"]);
    check(
        "SELECT upper(s) || 'x' AS x, -a AS y, a IS NULL AS z FROM t",
        &["x: TRANSFORMATION t.s", "y: TRANSFORMATION t.a", "z: TRANSFORMATION t.a"],
    );
    check(
        "SELECT CAST(a AS VARCHAR) AS x, s LIKE 'a%' AS y, a BETWEEN b AND c AS z FROM t",
        &["x: TRANSFORMATION t.a", "y: TRANSFORMATION t.s", "z: TRANSFORMATION t.a t.b t.c"],
    );
    check("SELECT a IN (1, b) AS x FROM t", &["x: TRANSFORMATION t.a t.b"]);
}

#[test]
fn literals_and_values_have_no_inputs() {
    check("SELECT 1 AS one, 'x' AS text, now() AS at FROM t", &["one:", "text:", "at:"]);
    check("SELECT 1 AS one", &["one:"]);
    check("SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS v (n, s)", &["n:", "s:"]);
    check("SELECT value FROM generate_series(1, 3)", &["value:"]);
    check(
        "SELECT * FROM t, (VALUES (1)) AS v (n) WHERE a = n",
        &["a: IDENTITY t.a", "b: IDENTITY t.b", "c: IDENTITY t.c", "s: IDENTITY t.s", "n:", "*: JOIN t.a"],
    );
}

#[test]
fn a_column_that_filters_too_keeps_both() {
    check("SELECT a FROM t WHERE a > 1 AND (b = 2 OR c IS NULL)", &["a: IDENTITY t.a", "*: FILTER t.a t.b t.c"]);
    // Conditions on computed columns are conditions on what they are computed from.
    check("SELECT x FROM (SELECT a + b AS x FROM t) WHERE x > 1", &["x: TRANSFORMATION t.a t.b", "*: FILTER t.a t.b"]);
}

#[test]
fn aggregates() {
    check(
        "SELECT s, sum(a + b) AS x, count(*) AS n, count(c) AS m FROM t GROUP BY s",
        &["s: IDENTITY t.s", "x: AGGREGATION t.a t.b", "n:", "m: AGGREGATION t.c", "*: GROUP_BY t.s"],
    );
    check("SELECT count(*) AS n FROM t", &["n:"]);
    check("SELECT a % 10 AS x FROM t GROUP BY a % 10", &["x: TRANSFORMATION t.a", "*: GROUP_BY t.a"]);
    check("SELECT sum(a) + 1 AS x FROM t HAVING max(b) > 3", &["x: AGGREGATION t.a", "*: FILTER t.b"]);
    check("SELECT sum(a) FILTER (WHERE b > 0) AS x FROM t", &["x: AGGREGATION t.a; FILTER t.b"]);
    check("SELECT array_agg(a ORDER BY b DESC) AS x FROM t", &["x: AGGREGATION t.a; SORT t.b"]);
    check("SELECT count(DISTINCT a) AS x FROM t", &["x: AGGREGATION t.a"]);
    check("SELECT max(x) AS y FROM (SELECT sum(a) AS x FROM t GROUP BY b)", &["y: AGGREGATION t.a", "*: GROUP_BY t.b"]);
    check("SELECT sum(x) AS y FROM (SELECT a AS x FROM t)", &["y: AGGREGATION t.a"]);
}

#[test]
fn grouping_sets() {
    let lines = ["a: IDENTITY t.a", "b: IDENTITY t.b", "x: AGGREGATION t.c", "*: GROUP_BY t.a t.b"];
    check("SELECT a, b, sum(c) AS x FROM t GROUP BY ROLLUP (a, b)", &lines);
    check("SELECT a, b, sum(c) AS x FROM t GROUP BY CUBE (a, b)", &lines);
    check("SELECT a, b, sum(c) AS x FROM t GROUP BY GROUPING SETS ((a), (b), ())", &lines);
    check(
        "SELECT a, grouping(a) AS g FROM t GROUP BY ROLLUP (a)",
        &["a: IDENTITY t.a", "g: GROUP_BY t.a", "*: GROUP_BY t.a"],
    );
}

#[test]
fn distinct_groups_by_every_column() {
    check(
        "SELECT DISTINCT a, b + c AS x FROM t",
        &["a: IDENTITY t.a", "x: TRANSFORMATION t.b t.c", "*: GROUP_BY t.a t.b t.c"],
    );
    check_same("SELECT DISTINCT a, b FROM t", "SELECT a, b FROM t GROUP BY a, b");
    check(
        "SELECT DISTINCT ON (a) a, b FROM t ORDER BY a, c",
        &["a: IDENTITY t.a", "b: IDENTITY t.b", "*: GROUP_BY t.a; SORT t.a t.c"],
    );
}

#[test]
fn order_and_limit() {
    check("SELECT a FROM t ORDER BY b, a + c LIMIT 3", &["a: IDENTITY t.a", "*: SORT t.a t.b t.c"]);
    check("SELECT a FROM t LIMIT 3 OFFSET 1", &["a: IDENTITY t.a"]);
    check(
        "SELECT s, sum(a) AS x FROM t GROUP BY s ORDER BY x",
        &["s: IDENTITY t.s", "x: AGGREGATION t.a", "*: GROUP_BY t.s; SORT t.a"],
    );
}

#[test]
fn joins() {
    let inner = ["a: IDENTITY t.a", "x: IDENTITY u.b", "*: JOIN t.a u.a"];
    check("SELECT t.a, u.b AS x FROM t JOIN u ON t.a = u.a", &inner);
    check("SELECT t.a, u.b AS x FROM t JOIN u USING (a)", &inner);
    check("SELECT t.a, u.b AS x FROM t, u WHERE t.a = u.a", &inner);
    for kind in ["LEFT", "RIGHT", "FULL"] {
        check(&format!("SELECT t.a, u.b AS x FROM t {kind} JOIN u ON t.a = u.a"), &inner);
    }
    check("SELECT t.a FROM t CROSS JOIN u", &["a: IDENTITY t.a"]);
    check(
        "SELECT t.a FROM t JOIN u ON t.a = u.a AND t.b < u.b AND u.c > 1",
        &["a: IDENTITY t.a", "*: JOIN t.a t.b u.a u.b u.c"],
    );
    check("SELECT t.a FROM t LEFT SEMI JOIN u ON t.a = u.a", &["a: IDENTITY t.a", "*: JOIN t.a u.a"]);
    check("SELECT t.a FROM t LEFT ANTI JOIN u ON t.a = u.a", &["a: IDENTITY t.a", "*: JOIN t.a u.a"]);
    check("SELECT u.a FROM t RIGHT SEMI JOIN u ON t.b = u.c", &["a: IDENTITY u.a", "*: JOIN t.b u.c"]);
    check("SELECT t.a FROM t NATURAL JOIN u", &["a: IDENTITY t.a", "*: JOIN t.a u.a t.b u.b t.c u.c t.s u.s"]);
    // A condition on a joined subquery's rows is one on the result's.
    check(
        "SELECT t.a FROM t JOIN (SELECT a FROM u WHERE b > 1) AS v ON t.a = v.a",
        &["a: IDENTITY t.a", "*: JOIN t.a u.a; FILTER u.b"],
    );
}

#[test]
fn an_equality_of_two_relations_is_a_join_wherever_it_is_written() {
    check_same(
        "SELECT t.a FROM t JOIN u ON t.a = u.a WHERE u.b = 3",
        "SELECT t.a FROM t, u WHERE t.a = u.a AND u.b = 3",
    );
    check(
        "SELECT t.a FROM t, u WHERE t.a = u.a AND t.b = t.c AND t.b = 1",
        &["a: IDENTITY t.a", "*: JOIN t.a u.a; FILTER t.b t.c"],
    );
    // Only in every branch of an OR it holds for every row.
    check(
        "SELECT t.a FROM t, u WHERE (t.a = u.a AND t.b = 1) OR (t.a = u.a AND t.c = u.c)",
        &["a: IDENTITY t.a", "*: JOIN t.a u.a; FILTER t.b t.c u.c"],
    );
    check("SELECT t.a FROM t, u WHERE t.a = u.a OR t.b = u.b", &["a: IDENTITY t.a", "*: FILTER t.a u.a t.b u.b"]);
    check("SELECT t.a FROM t, u WHERE t.a < u.a", &["a: IDENTITY t.a", "*: FILTER t.a u.a"]);
    // HAVING compares groups, it joins nothing.
    check(
        "SELECT count(*) AS n FROM t, u GROUP BY t.a, u.a HAVING t.a = u.a",
        &["n:", "*: GROUP_BY t.a u.a; FILTER t.a u.a"],
    );
}

#[test]
fn self_joins() {
    check(
        "SELECT x.a, y.b FROM t AS x JOIN t AS y ON x.a = y.c WHERE x.b > y.b",
        &["a: IDENTITY t.a", "b: IDENTITY t.b", "*: JOIN t.a t.c; FILTER t.b"],
    );
}

#[test]
fn conditionals() {
    check("SELECT CASE WHEN a > 0 THEN b ELSE c END AS x FROM t", &["x: CONDITIONAL t.a; TRANSFORMATION t.b t.c"]);
    check("SELECT CASE s WHEN 'x' THEN a END AS x FROM t", &["x: CONDITIONAL t.s; TRANSFORMATION t.a"]);
    check("SELECT coalesce(a, b, c) AS x FROM t", &["x: CONDITIONAL t.a t.b; TRANSFORMATION t.a t.b t.c"]);
    check(
        "SELECT nvl(a, b) AS x, ifnull(b, 0) AS y FROM t",
        &["x: CONDITIONAL t.a; TRANSFORMATION t.a t.b", "y: CONDITIONAL t.b; TRANSFORMATION t.b"],
    );
    check("SELECT nvl2(a, b, c) AS x FROM t", &["x: CONDITIONAL t.a; TRANSFORMATION t.b t.c"]);
    check("SELECT nullif(a, b) AS x FROM t", &["x: CONDITIONAL t.a t.b; TRANSFORMATION t.a"]);
    check("SELECT greatest(a, b) AS x FROM t", &["x: TRANSFORMATION t.a t.b"]);
    check("SELECT sum(CASE WHEN s = 'x' THEN a ELSE 0 END) AS x FROM t", &["x: AGGREGATION t.a; CONDITIONAL t.s"]);
    // What is sorted by is sorted by, whatever it was for within the value.
    check("SELECT a FROM t ORDER BY CASE WHEN b > 0 THEN c END", &["a: IDENTITY t.a", "*: SORT t.b t.c"]);
}

#[test]
fn windows() {
    check(
        "SELECT a, sum(b) OVER (PARTITION BY s ORDER BY c) AS x FROM t",
        &["a: IDENTITY t.a", "x: AGGREGATION t.b; WINDOW t.s t.c"],
    );
    check("SELECT row_number() OVER (ORDER BY a DESC) AS x FROM t", &["x: WINDOW t.a"]);
    check("SELECT lag(a, 1) OVER (PARTITION BY b ORDER BY c) AS x FROM t", &["x: TRANSFORMATION t.a; WINDOW t.b t.c"]);
    check(
        "SELECT first_value(a) OVER w AS x, count(*) OVER w AS n FROM t WINDOW w AS (PARTITION BY s)",
        &["x: TRANSFORMATION t.a; WINDOW t.s", "n: WINDOW t.s"],
    );
    check(
        "SELECT sum(a) FILTER (WHERE b > 0) OVER (ORDER BY c) AS x FROM t",
        &["x: AGGREGATION t.a; FILTER t.b; WINDOW t.c"],
    );
    check(
        "SELECT a FROM (SELECT a, rank() OVER (PARTITION BY b ORDER BY c) AS r FROM t) WHERE r = 1",
        &["a: IDENTITY t.a", "*: FILTER t.b t.c"],
    );
    check_same(
        "SELECT a FROM t QUALIFY row_number() OVER (PARTITION BY b ORDER BY c) = 1",
        "SELECT a FROM (SELECT a, row_number() OVER (PARTITION BY b ORDER BY c) AS r FROM t) WHERE r = 1",
    );
    check(
        "SELECT sum(sum(a)) OVER (ORDER BY b) AS x FROM t GROUP BY b",
        &["x: AGGREGATION t.a; WINDOW t.b", "*: GROUP_BY t.b"],
    );
}

#[test]
fn subqueries_as_values() {
    check("SELECT a, (SELECT max(b) FROM u) AS x FROM t", &["a: IDENTITY t.a", "x: AGGREGATION u.b"]);
    check("SELECT (SELECT u.b FROM u WHERE u.a = t.a) AS x FROM t", &["x: IDENTITY u.b; FILTER u.a t.a"]);
    check(
        "SELECT (SELECT sum(u.b) FROM u WHERE u.a = t.a AND u.c > 1) + t.b AS x FROM t",
        &["x: AGGREGATION u.b; TRANSFORMATION t.b; FILTER u.a u.c t.a"],
    );
    check("SELECT a, EXISTS (SELECT 1 FROM u WHERE u.a = t.a) AS x FROM t", &["a: IDENTITY t.a", "x: FILTER u.a t.a"]);
    check("SELECT a IN (SELECT b FROM u WHERE c > 1) AS x FROM t", &["x: TRANSFORMATION t.a u.b; FILTER u.c"]);
    check("SELECT a > ANY (SELECT b FROM u) AS x FROM t", &["x: TRANSFORMATION t.a u.b"]);
}

#[test]
fn subqueries_as_conditions() {
    check("SELECT a FROM t WHERE EXISTS (SELECT s FROM u WHERE u.a = t.b)", &["a: IDENTITY t.a", "*: FILTER u.a t.b"]);
    check(
        "SELECT a FROM t WHERE NOT EXISTS (SELECT * FROM u JOIN t AS v ON u.a = v.a WHERE u.b = t.b)",
        &["a: IDENTITY t.a", "*: FILTER u.a t.a u.b t.b"],
    );
    check(
        "SELECT a FROM t WHERE b IN (SELECT c FROM u WHERE u.a = t.a)",
        &["a: IDENTITY t.a", "*: FILTER t.b u.c u.a t.a"],
    );
    check("SELECT a FROM t WHERE b NOT IN (SELECT c FROM u)", &["a: IDENTITY t.a", "*: FILTER t.b u.c"]);
    check(
        "SELECT a FROM t WHERE b > (SELECT avg(c) FROM u WHERE u.s = t.s)",
        &["a: IDENTITY t.a", "*: FILTER t.b u.c u.s t.s"],
    );
    // Two levels down: the innermost query refers to the outermost.
    check(
        "SELECT a FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.a IN (SELECT p.id FROM p WHERE p.id = t.c))",
        &["a: IDENTITY t.a", "*: FILTER u.a p.id t.c"],
    );
}

#[test]
fn lateral_joins() {
    check(
        "SELECT t.a, v.x FROM t CROSS JOIN LATERAL (SELECT sum(u.b) AS x FROM u WHERE u.a = t.a) AS v",
        &["a: IDENTITY t.a", "x: AGGREGATION u.b", "*: FILTER u.a t.a"],
    );
    check("SELECT v.x FROM t, LATERAL (SELECT t.a + u.b AS x FROM u) AS v", &["x: TRANSFORMATION t.a u.b"]);
}

#[test]
fn common_table_expressions() {
    check(
        "WITH v AS (SELECT a + 1 AS x, b FROM t WHERE c > 0) SELECT x, sum(b) AS y FROM v GROUP BY x",
        &["x: TRANSFORMATION t.a", "y: AGGREGATION t.b", "*: FILTER t.c; GROUP_BY t.a"],
    );
    check(
        "WITH v AS (SELECT a FROM t), w AS (SELECT v.a, u.b FROM v JOIN u ON v.a = u.a) SELECT * FROM w",
        &["a: IDENTITY t.a", "b: IDENTITY u.b", "*: JOIN t.a u.a"],
    );
    // A name of the query hides a table's.
    check("WITH u AS (SELECT b AS a FROM t) SELECT a FROM u", &["a: IDENTITY t.b"]);
    check(
        "WITH v (x) AS (SELECT a FROM t) SELECT l.x FROM v AS l JOIN v AS r ON l.x = r.x",
        &["x: IDENTITY t.a", "*: JOIN t.a"],
    );
}

#[test]
fn recursive_queries() {
    check(
        "WITH RECURSIVE path AS (
            SELECT id, name, 1 AS depth FROM tree WHERE parent IS NULL
            UNION ALL
            SELECT c.id, p.name || '/' || c.name, p.depth + 1 FROM tree AS c JOIN path AS p ON c.parent = p.id)
         SELECT * FROM path",
        &[
            "id: IDENTITY tree.id",
            "name: IDENTITY tree.name; TRANSFORMATION tree.name",
            "depth:",
            "*: FILTER tree.parent; JOIN tree.parent tree.id",
        ],
    );
    // Each column takes the place of the next: three rounds until everything is known.
    check(
        "WITH RECURSIVE r AS (SELECT a AS x, b AS y, c AS z FROM t UNION ALL SELECT y, z, z + 1 FROM r WHERE x < 9)
         SELECT x FROM r",
        &["x: IDENTITY t.a t.b t.c; TRANSFORMATION t.c", "*: FILTER t.a t.b t.c"],
    );
    check(
        "WITH RECURSIVE r AS (SELECT a FROM t UNION SELECT a + 1 FROM r WHERE a < 9) SELECT a FROM r",
        &["a: IDENTITY t.a; TRANSFORMATION t.a", "*: FILTER t.a; GROUP_BY t.a"],
    );
    check("WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT i FROM n", &["i:"]);
}

#[test]
fn set_operations() {
    check(
        "SELECT a, b FROM t UNION ALL SELECT c, a + 1 FROM u WHERE b > 0",
        &["a: IDENTITY t.a u.c", "b: IDENTITY t.b; TRANSFORMATION u.a", "*: FILTER u.b"],
    );
    check("SELECT a FROM t UNION SELECT b FROM u", &["a: IDENTITY t.a u.b", "*: GROUP_BY t.a u.b"]);
    check("SELECT a FROM t UNION ALL SELECT 1 UNION ALL SELECT c FROM t", &["a: IDENTITY t.a t.c"]);
    // A wider type on one side is no computation of the column.
    check("SELECT a FROM t UNION ALL SELECT CAST(1.5 AS DOUBLE)", &["a: IDENTITY t.a"]);
    check("SELECT a FROM t UNION ALL BY NAME SELECT b AS a FROM u", &["a: IDENTITY t.a u.b"]);
    check("SELECT a FROM t INTERSECT SELECT b FROM u", &["a: IDENTITY t.a", "*: JOIN t.a u.b; GROUP_BY t.a"]);
    check(
        "SELECT a, s FROM t EXCEPT SELECT b, s FROM u WHERE c = 1",
        &["a: IDENTITY t.a", "s: IDENTITY t.s", "*: JOIN t.a t.s u.b u.s; FILTER u.c; GROUP_BY t.a t.s"],
    );
    check("SELECT a FROM t EXCEPT ALL SELECT b FROM u", &["a: IDENTITY t.a", "*: JOIN t.a u.b"]);
}

#[test]
fn struct_fields() {
    check(
        "SELECT address.city AS x, p.address['zip'] AS y, address FROM p",
        &["x: IDENTITY p.address.city", "y: IDENTITY p.address.zip", "address: IDENTITY p.address"],
    );
    check(
        "SELECT p.address.geo.lat AS x FROM p WHERE address.geo.lon > '0'",
        &["x: IDENTITY p.address.geo.lat", "*: FILTER p.address.geo.lon"],
    );
    check("SELECT upper(address.city) AS x FROM p", &["x: TRANSFORMATION p.address.city"]);
    check("SELECT q.home['city'] AS x FROM (SELECT address AS home FROM p) AS q", &["x: IDENTITY p.address.city"]);
    check("SELECT attributes['colour'] AS x FROM p", &["x: TRANSFORMATION p.attributes"]);
    check(
        "SELECT q.m['a'] AS x FROM (SELECT attributes AS m, id FROM p) AS q WHERE q.m['b'] > '1'",
        &["x: TRANSFORMATION p.attributes", "*: FILTER p.attributes"],
    );
}

#[test]
fn what_chooses_the_row_of_a_struct_has_a_part_in_its_fields() {
    let line = ["v: IDENTITY u.a; FILTER u.b"];
    check("SELECT (SELECT named_struct('l', a) FROM u WHERE b = 1 LIMIT 1)['l'] AS v FROM t", &line);
    check(
        "SELECT q.x['l'] AS v FROM (SELECT (SELECT named_struct('l', a) FROM u WHERE b = 1 LIMIT 1) AS x FROM t) AS q",
        &line,
    );
    check(
        "SELECT q.x['k']['l'] AS v FROM (SELECT (SELECT named_struct('k', named_struct('l', a)) FROM u WHERE b = 1) AS x \
         FROM t) AS q",
        &line,
    );
}

#[test]
fn structs_put_together_are_taken_apart() {
    check(
        "SELECT v.x['l'] AS l, v.x['r'] AS r, v.x AS x FROM (SELECT named_struct('l', a, 'r', b + c) AS x FROM t) AS v",
        &["l: IDENTITY t.a", "r: TRANSFORMATION t.b t.c", "x: TRANSFORMATION t.a t.b t.c"],
    );
    check("SELECT v.x['c1'] AS x FROM (SELECT struct(a, b) AS x FROM t) AS v", &["x: IDENTITY t.b"]);
    check(
        "SELECT v.x['l'] AS x FROM (SELECT named_struct('l', a) AS x FROM t UNION ALL SELECT named_struct('l', b) FROM u) AS v",
        &["x: IDENTITY t.a u.b"],
    );
    check(
        "SELECT v.x['l'] AS x FROM (SELECT CASE WHEN b > 0 THEN named_struct('l', a) END AS x FROM t) AS v",
        &["x: TRANSFORMATION t.a; CONDITIONAL t.b"],
    );
}

#[test]
fn unnesting() {
    check("SELECT id, unnest(tags) AS tag FROM p", &["id: IDENTITY p.id", "tag: TRANSFORMATION p.tags"]);
    check("SELECT unnest(unnest(nested)) AS x FROM p", &["x: TRANSFORMATION p.nested"]);
    check(
        "SELECT id, v.tag FROM p CROSS JOIN UNNEST(p.tags) AS v (tag)",
        &["id: IDENTITY p.id", "tag: TRANSFORMATION p.tags"],
    );
    check(
        "SELECT q.tag FROM (SELECT unnest(tags) AS tag FROM p) AS q WHERE q.tag <> ''",
        &["tag: TRANSFORMATION p.tags", "*: FILTER p.tags"],
    );
    check("SELECT unnest([1, 2]) AS x FROM p", &["x:"]);
    check("SELECT x FROM unnest([1, 2]) AS v (x)", &["x:"]);
}

#[test]
fn an_unnested_struct_is_its_fields() {
    let lineage =
        column_lineage(&plan(&context(), "SELECT id, unnest(address) FROM p"), &dataset).expect("it is a query");
    let (names, lines) = found(&lineage);
    let inputs: Vec<String> = names.iter().map(|name| format!("{:?}", lines[name])).collect();
    assert_eq!(
        inputs,
        [
            r#"{("IDENTITY", "p.id")}"#,
            r#"{("IDENTITY", "p.address.city")}"#,
            r#"{("IDENTITY", "p.address.zip")}"#,
            r#"{("IDENTITY", "p.address.geo")}"#,
        ]
    );
}

#[test]
fn arrays_and_lambdas() {
    check(
        "SELECT tags[1] AS x, array_length(tags) AS n, [a.id, 1] AS y FROM p AS a",
        &["x: TRANSFORMATION p.tags", "n: TRANSFORMATION p.tags", "y: TRANSFORMATION p.id"],
    );
}

#[test]
fn what_a_view_reads_is_read() {
    let context = context();
    let view = plan(&context, "SELECT a + b AS x, c FROM t WHERE c > 0");
    context.register_table("v", Arc::new(ViewTable::new(view, None))).expect("the view is registered");
    let lineage = column_lineage(&plan(&context, "SELECT x FROM v"), &dataset).expect("it is a query");
    assert_eq!(found(&lineage), expected(["x: TRANSFORMATION t.a t.b", "*: FILTER t.c"]));
}

#[test]
fn a_dataset_that_is_only_counted_is_read() {
    let reads = |sql: &str| -> Vec<String> {
        let lineage = column_lineage(&plan(&context(), sql), &dataset).expect("it is a query");
        lineage.reads.iter().map(ToString::to_string).collect()
    };
    assert_eq!(reads("SELECT count(*) FROM t"), ["d.p_v1.t"]);
    assert_eq!(reads("SELECT t.a FROM t, u, generate_series(1, 2)"), ["d.p_v1.t", "d.p_v1.u"]);
    assert_eq!(reads("SELECT 1 WHERE EXISTS (SELECT 1 FROM p)"), ["d.p_v1.p"]);
}

#[test]
fn filters_within_a_scan_count() {
    let schema = Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Int64, true)]);
    let source = provider_as_source(Arc::new(EmptyTable::new(Arc::new(schema))));
    let scan = LogicalPlanBuilder::scan_with_filters("t", source, Some(vec![0]), vec![col("t.b").gt(col("t.a"))]);
    let plan = scan.and_then(LogicalPlanBuilder::build).expect("it is a plan");
    let lineage = column_lineage(&plan, &dataset).expect("it is a query");
    assert_eq!(found(&lineage), expected(["a: IDENTITY t.a", "*: FILTER t.a t.b"]));
}

#[test]
fn only_queries_have_a_lineage() {
    for sql in ["EXPLAIN SELECT a FROM t", "DESCRIBE t", "INSERT INTO t SELECT * FROM u", "CREATE TABLE x AS SELECT 1"]
    {
        let error = column_lineage(&plan(&context(), sql), &dataset).expect_err(sql);
        assert_eq!(error.code(), datamesh_core::ErrorCode::InvalidQuery, "{sql}");
    }
}

/// A node that nobody told lineage of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd)]
struct Unknown(LogicalPlan);

impl UserDefinedLogicalNodeCore for Unknown {
    fn name(&self) -> &str {
        "Unknown"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.0]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.0.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unknown")
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> datafusion::error::Result<Self> {
        Ok(Self(inputs.into_iter().next().unwrap_or_default()))
    }
}

#[test]
fn an_unknown_node_is_an_error() {
    let node: Arc<dyn UserDefinedLogicalNode> = Arc::new(Unknown(plan(&context(), "SELECT a FROM t")));
    let extension = LogicalPlan::Extension(Extension { node });
    let error = column_lineage(&extension, &dataset).expect_err("nothing is known of it");
    assert!(error.to_string().contains("`Unknown`"), "{error}");
}

#[test]
fn deep_plans_do_not_overflow() {
    // The planner itself needs more than a test's stack for these.
    let deep = std::thread::Builder::new().stack_size(64 << 20).spawn(|| {
        let condition: Vec<String> = (0..2000).map(|number| format!("a = {number}")).collect();
        check(&format!("SELECT a FROM t WHERE {}", condition.join(" OR ")), &["a: IDENTITY t.a", "*: FILTER t.a"]);
        let sum = vec!["a"; 2000].join(" + ");
        check(&format!("SELECT {sum} AS x FROM t"), &["x: TRANSFORMATION t.a"]);
        let union = vec!["SELECT a FROM t"; 300].join(" UNION ALL ");
        check(&union, &["a: IDENTITY t.a"]);
    });
    deep.expect("a thread starts").join().expect("the lineage is found");
}
