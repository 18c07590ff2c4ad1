"""Transforms: what a run publishes is what DuckDB makes of the same files with the same SQL."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import FLIGHTS
from mesh import Mesh
from readers import duckdb_rows, duckdb_scan
from test_flights import sql_name

PUNCTUALITY = FLIGHTS / "domains" / "punctuality" / "products" / "punctuality"

# A query for each of the shapes that plans differ by, with the columns it makes.
QUERIES = {
    "window": (
        """SELECT id, customer, amount,
                  row_number() OVER (PARTITION BY customer ORDER BY amount DESC, id) AS place,
                  sum(amount) OVER (PARTITION BY customer ORDER BY id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS recent
           FROM lab.orders.orders""",
        [("id", "long"), ("customer", "string"), ("amount", "decimal(12,2)"), ("place", "long"), ("recent", "decimal(22,2)")],
    ),
    "correlated": (
        """SELECT o.id, o.amount FROM lab.orders.orders AS o
           WHERE o.amount > (SELECT avg(i.amount) FROM lab.orders.orders AS i WHERE i.customer = o.customer)
             AND NOT EXISTS (SELECT 1 FROM lab.orders.blocked AS b WHERE b.customer = o.customer)""",
        [("id", "long"), ("amount", "decimal(12,2)")],
    ),
    "grouping": (
        """WITH monthly AS (
             SELECT customer, extract(month FROM placed) AS month, count(*) AS orders, sum(amount) AS total,
                    count(DISTINCT extract(day FROM placed)) AS days
             FROM lab.orders.orders GROUP BY customer, extract(month FROM placed))
           SELECT coalesce(m.customer, b.customer) AS customer, coalesce(m.month, 0) AS month, m.orders, m.total, m.days, b.reason
           FROM monthly AS m FULL JOIN lab.orders.blocked AS b ON b.customer = m.customer""",
        [
            ("customer", "string"),
            ("month", "int"),
            ("orders", "long"),
            ("total", "decimal(22,2)"),
            ("days", "long"),
            ("reason", "string"),
        ],
    ),
    "sets": (
        """SELECT customer, 'few' AS kind FROM lab.orders.orders GROUP BY customer HAVING count(*) < 100
           UNION ALL
           (SELECT customer, 'blocked' FROM lab.orders.blocked EXCEPT SELECT customer, 'blocked' FROM lab.orders.orders)""",
        [("customer", "string"), ("kind", "string")],
    ),
}


@pytest.fixture
def orders(mesh: Mesh) -> Mesh:
    """A published product of orders, and of customers who are blocked."""
    count = 20_000
    folder = mesh.root / "domains" / "lab" / "products" / "orders"
    folder.mkdir(parents=True)
    ids = range(count)
    # Skewed customers, a few of them null; amounts with cents; two years of instants.
    table = pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "customer": pa.array([None if at % 997 == 0 else f"c{(at * at) % 211}" for at in ids], pa.string()),
            "amount": pa.array([((at * 7919) % 100_000) / 100 for at in ids]).cast(pa.decimal128(12, 2)),
            "placed": pa.array([1_357_000_000_000_000 + at * 3_154_000_000 for at in ids], pa.timestamp("us", "UTC")),
        }
    )
    pq.write_table(table, folder / "orders.parquet", row_group_size=3000)
    blocked = pa.table({"customer": ["c1", "c4", "c9", "unheard-of"], "reason": ["fraud", None, "debt", "test"]})
    pq.write_table(blocked, folder / "blocked.parquet")
    mesh.write(
        "domains/lab/products/orders/product.yaml",
        """dataProduct:
  name: orders
  version: 1.0.0
  owner: lab-team
  schema:
    - name: orders
      source: orders.parquet
      columns:
        - {name: id, type: long, primaryKey: true}
        - {name: customer, type: string}
        - {name: amount, type: 'decimal(12,2)'}
        - {name: placed, type: timestamp}
      partitionBy: [month(placed)]
    - name: blocked
      source: blocked.parquet
      columns:
        - {name: customer, type: string, primaryKey: true}
        - {name: reason, type: string}
""",
    )
    mesh.publish("orders")
    return mesh


def attach(duck, mesh: Mesh, product: str) -> None:
    for table, location in mesh.metadata_locations(product).items():
        domain, schema, view = sql_name(product, table).split(".")
        duck.execute(f"ATTACH IF NOT EXISTS ':memory:' AS {domain}")
        duck.execute(f"CREATE SCHEMA IF NOT EXISTS {domain}.{schema}")
        duck.execute(f"CREATE OR REPLACE VIEW {domain}.{schema}.{view} AS SELECT * FROM {duckdb_scan(location)}")


def assert_same_rows(duck, sql: str, columns: list[str], location: str) -> int:
    """The rows of `sql` in DuckDB are those of the published table, as often as they come; returns how many."""
    published = duckdb_rows(duck, location)
    duck.register("published", published)
    names = ", ".join(columns)
    duck.execute(f"CREATE OR REPLACE TEMP TABLE expected AS SELECT {names} FROM ({sql})")
    for left, right in (("expected", "published"), ("published", "expected")):
        left_over = duck.execute(f"SELECT {names} FROM {left} EXCEPT ALL SELECT {names} FROM {right} LIMIT 5").fetchall()
        assert left_over == [], f"rows of {left} that are not in {right}"
    duck.unregister("published")
    return published.num_rows


@pytest.mark.parametrize("name", QUERIES)
def test_a_transform_makes_what_duckdb_makes(orders: Mesh, duck, name: str):
    sql, columns = QUERIES[name]
    fields = "".join(f"        - {{name: {column}, type: '{kind}'}}\n" for column, kind in columns)
    orders.write(f"domains/lab/products/made/{name}.sql", sql)
    orders.write(
        "domains/lab/products/made/product.yaml",
        f"""dataProduct:
  name: made
  version: 1.0.0
  owner: lab-team
  inputs: [lab/orders@^1]
  schema:
    - name: made
      transform: {name}.sql
      columns:
{fields}""",
    )
    orders.run("check")
    report = orders.json("run", "made")
    assert report["status"] == "published"
    [pins] = [run["inputs"] for run in report["transforms"]]
    assert {(pin["domain"], pin["product"], pin["major"]) for pin in pins} == {("lab", "orders", 1)}
    attach(duck, orders, "lab/orders")
    rows = assert_same_rows(duck, sql, [column for column, _ in columns], orders.metadata_locations("made")["made"])
    assert rows == report["tables"][0]["published"] > 0


@pytest.mark.parametrize("table", ["flight_punctuality", "daily_punctuality"])
def test_the_demo_makes_what_duckdb_makes(flights, duck, table: str):
    for product in ("operations/departures", "operations/network", "weather/observations", "fleet/registry"):
        attach(duck, flights.mesh, product)
    sql = (PUNCTUALITY / f"{table}.sql").read_text()
    columns = [column["name"] for column in next(
        found["columns"] for found in flights.mesh.json("show", "punctuality")["tables"] if found["table"] == table
    )]
    rows = assert_same_rows(duck, sql, columns, flights.locations["punctuality/punctuality", table])
    assert rows == flights.expected["punctuality/punctuality"][table]["published"]


def test_the_demos_tests_pass_and_tell_what_differs(flights, tmp_path):
    passed = flights.mesh.json("test", "punctuality")
    assert passed["failed"] == 0 and passed["passed"] == 3
    sql = flights.mesh.root / "domains/punctuality/products/punctuality/flight_punctuality.sql"
    text = sql.read_text()
    try:
        sql.write_text(text.replace("f.arr_delay < 15", "f.arr_delay <= 15"))
        failed = flights.mesh.json("test", "punctuality", expect=3)
    finally:
        sql.write_text(text)
    [test] = [test for test in failed["tests"] if not test["passed"]]
    [difference] = test["differences"]
    assert [row["outcome"] for row in difference["missing"]] == ["late"], json.dumps(failed, indent=1)
    assert [row["outcome"] for row in difference["unexpected"]] == ["on time"]
