"""The demo mesh: what is published is what was computed independently, and every engine reads the same."""

import json
from collections import Counter

import pytest

from conftest import FLIGHTS
from readers import assert_same, duckdb_rows, duckdb_scan, iceberg_table

EXPECTED = json.loads((FLIGHTS / "expected.json").read_text())
TABLES = [(product, table) for product, tables in EXPECTED.items() if product != "queries" for table in tables]
QUERIES = EXPECTED["queries"]


def sql_name(product: str, table: str) -> str:
    domain, name = product.split("/")
    return ".".join(part.replace("-", "_") for part in (domain, name, table))


def answer(rows: list[list]) -> list[list]:
    return [[pytest.approx(cell) if isinstance(cell, float) else cell for cell in row] for row in rows]


def test_every_product_of_the_mesh_is_expected(flights):
    manifests = {path.parent.name for path in FLIGHTS.glob("domains/*/products/*/product.yaml")}
    assert manifests == {product.split("/")[1] for product, _ in TABLES}
    assert set(flights.locations) == set(TABLES)


@pytest.mark.parametrize(("product", "table"), TABLES)
def test_report(flights, product, table):
    expected = EXPECTED[product][table]
    report = flights.reports[product]
    assert report["status"] == "published"
    [found] = [found for found in report["tables"] if found["table"] == table]
    assert found["in"] == found["published"] + found["quarantined"]
    assert found["totalRows"] == found["published"]
    counts = {key: found[key] for key in ("in", "published", "quarantined")}
    assert counts == {key: expected[key] for key in counts}
    assert {rule: count["rows"] for rule, count in found["reasons"].items()} == expected["reasons"]
    rules = {rule["rule"]: (rule["value"], rule["passed"], rule["severity"]) for rule in found["metrics"]}
    assert rules == {
        rule["rule"]: (pytest.approx(rule["value"], abs=1e-6), rule["passed"], rule["severity"]) for rule in expected["rules"]
    }


@pytest.mark.parametrize("product", [product for product in EXPECTED if product != "queries"])
def test_report_names_every_table_once(flights, product):
    assert sorted(table["table"] for table in flights.reports[product]["tables"]) == sorted(EXPECTED[product])


@pytest.mark.parametrize(("product", "table"), TABLES)
def test_quarantine_has_every_row_with_every_reason(flights, product, table):
    expected = EXPECTED[product][table]
    if expected["quarantined"] == 0:
        return
    rows = flights.mesh.json("quarantine", product, "--table", table)
    assert len(rows) == expected["quarantined"]
    broken = [{f"{reason['rule']}:{reason['column']}" for reason in row["reasons"]} for row in rows]
    assert Counter(rule for rules in broken for rule in rules) == expected["reasons"]


@pytest.mark.parametrize(("product", "table"), TABLES)
def test_all_engines_read_the_same(flights, duck, product, table):
    location = flights.locations[product, table]
    ours = flights.mesh.query(f"SELECT * FROM {sql_name(product, table)}")
    assert ours.num_rows == EXPECTED[product][table]["published"]
    assert iceberg_table(location).scan().count() == ours.num_rows
    assert duck.execute(f"SELECT count(*) FROM {duckdb_scan(location)}").fetchone() == (ours.num_rows,)
    assert_same(iceberg_table(location).scan().to_arrow(), ours, "PyIceberg")
    assert_same(duckdb_rows(duck, location), ours, "DuckDB")


@pytest.mark.parametrize("query", QUERIES, ids=range(1, len(QUERIES) + 1))
def test_query(flights, query):
    rows = flights.mesh.query_json(query["sql"])
    assert [list(row.values()) for row in rows] == answer(query["rows"])


@pytest.mark.parametrize("query", QUERIES, ids=range(1, len(QUERIES) + 1))
def test_duckdb_gives_the_same_answers_over_the_published_tables(flights, duck, query):
    for (product, table), location in flights.locations.items():
        domain, schema, view = sql_name(product, table).split(".")
        duck.execute(f"ATTACH IF NOT EXISTS ':memory:' AS {domain}")
        duck.execute(f"CREATE SCHEMA IF NOT EXISTS {domain}.{schema}")
        duck.execute(f"CREATE VIEW {domain}.{schema}.{view} AS SELECT * FROM {duckdb_scan(location)}")
    rows = duck.execute(query["sql"]).fetchall()
    assert [list(row) for row in rows] == answer(query["rows"])


def test_a_second_publish_is_a_repeat(flights):
    report = flights.mesh.publish("weather/observations")
    assert report["status"] == "repeat"
    assert flights.mesh.metadata_locations("weather/observations")["hourly"] == flights.locations["weather/observations", "hourly"]
