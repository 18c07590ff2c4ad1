"""Quality rules: every metric measures what DuckDB measures on the same rows, and references hold back what they should."""

import json
import math
import random
import shutil
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import FLIGHTS
from mesh import PUBLISHED, REJECTED, CommandFailed, Mesh

ROWS = 5_000


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    """Rows with nulls, ties, gaps, huge and tiny numbers."""
    rng = random.Random(8)
    maybe = lambda value: None if rng.random() < 0.05 else value
    start = datetime(2024, 1, 1, tzinfo=timezone.utc)
    numbers = [0, 1, -1, 2**63 - 1, -(2**63), 12345]
    return pa.table(
        {
            "id": pa.array([i + (1 if i > 3000 else 0) for i in range(ROWS)], pa.int64()),
            "g": pa.array([maybe(f"g{rng.randrange(7)}") for _ in range(ROWS)]),
            "h": pa.array([rng.randrange(3) for _ in range(ROWS)], pa.int32()),
            "i": pa.array([maybe(rng.randrange(-1000, 1000)) for _ in range(ROWS)], pa.int32()),
            "l": pa.array([maybe(rng.choice(numbers)) for _ in range(ROWS)], pa.int64()),
            "d": pa.array([maybe(rng.lognormvariate(0, 3)) for _ in range(ROWS)], pa.float64()),
            "m": pa.array([maybe(Decimal(rng.randrange(-(10**6), 10**6)) / 100) for _ in range(ROWS)], pa.decimal128(12, 2)),
            "day": pa.array([maybe(date(2024, 1, 1) + timedelta(days=rng.randrange(400))) for _ in range(ROWS)], pa.date32()),
            "at": pa.array([start + timedelta(minutes=i if rng.random() < 0.98 else rng.randrange(ROWS)) for i in range(ROWS)], pa.timestamp("us", "UTC")),
        }
    )


COLUMNS = """
        - {name: id, type: long}
        - {name: g, type: string}
        - {name: h, type: int}
        - {name: i, type: int}
        - {name: l, type: long}
        - {name: d, type: double}
        - {name: m, type: 'decimal(12,2)'}
        - {name: day, type: date}
        - {name: at, type: timestamp}
"""

NUMBERS = ["i", "l", "d", "m"]
# Our words, and what DuckDB says; `{}` is the column.
STATISTICS = {
    "minimum": "min({})::DOUBLE",
    "maximum": "max({})::DOUBLE",
    "mean": "avg({}::DOUBLE)",
    "sum": "sum({})::DOUBLE",
    "standardDeviation": "stddev_samp({}::DOUBLE)",
    "countDistinct": "count(DISTINCT {})",
    "nullValues": "count(*) FILTER ({} IS NULL)",
}
QUANTILES = [0, 0.05, 0.5, 0.95, 0.999, 1]
FILTER = "h = 1 AND i > 0"


def mesh_of(tmp_path, binary, columns: str, quality: list, table: pa.Table | None, name: str = "t", extra: str = "") -> Mesh:
    mesh = Mesh(binary, tmp_path / "mesh")
    mesh.write("mesh.yaml", "name: rules\n")
    mesh.write("domains/lab/domain.yaml", "name: lab\nowner: lab\n")
    rules = "".join(f"        - {json.dumps(rule)}\n" for rule in quality)
    mesh.write(
        f"domains/lab/products/{name}/product.yaml",
        f"dataProduct:\n  name: {name}\n  version: 1.0.0\n  owner: lab\n  schema:\n    - name: rows\n      write: replace\n"
        f"      source: rows.parquet\n      columns:{columns}{extra}" + (f"      quality:\n{rules}" if rules else ""),
    )
    if table is not None:
        pq.write_table(table, tmp_path / f"mesh/domains/lab/products/{name}/rows.parquet")
    return mesh


def metrics(report: dict) -> dict[str, dict]:
    return {metric["rule"]: metric for metric in report["tables"][0]["metrics"]}


def same(found, expected, exact: bool = False):
    if expected is None:
        return found is None
    return found == expected if exact else math.isclose(found, float(expected), rel_tol=1e-9, abs_tol=1e-9)


def test_every_statistic_is_duckdbs(tmp_path, binary, rows):
    rules, expected = [], {}
    for where in (None, FILTER):
        source = "rows" if where is None else f"(SELECT * FROM rows WHERE {where})"
        for column in NUMBERS:
            for word, sql in STATISTICS.items():
                name = f"{word} {column} {where}"
                rules.append({"name": name, "metric": word, "column": column, "where": where, "mustBe": 0, "severity": "info"})
                expected[name] = f"SELECT {sql.format(column)} FROM {source}"
            for share in QUANTILES:
                name = f"quantile {share} {column} {where}"
                rules.append({"name": name, "metric": "quantile", "column": column, "where": where, "arguments": {"quantile": share}, "mustBe": 0, "severity": "info"})
                expected[name] = f"SELECT quantile_cont({column}::DOUBLE, {share}) FROM {source}"
        name = f"rowCount {where}"
        rules.append({"name": name, "metric": "rowCount", "where": where, "mustBe": 0, "severity": "info"})
        expected[name] = f"SELECT count(*) FROM {source}"
        name = f"duplicates {where}"
        rules.append({"name": name, "metric": "duplicateValues", "arguments": {"properties": ["g", "i"]}, "where": where, "mustBe": 0, "severity": "info"})
        whole = f"SELECT g, i FROM {source} WHERE g IS NOT NULL AND i IS NOT NULL"
        expected[name] = f"SELECT (SELECT count(*) FROM ({whole})) - (SELECT count(*) FROM (SELECT DISTINCT * FROM ({whole})))"
    for rule in rules:
        if rule["where"] is None:
            del rule["where"]
    report = mesh_of(tmp_path, binary, COLUMNS, rules, rows).publish("lab/t")
    found = metrics(report)
    wrong = {}
    for name, sql in expected.items():
        [value] = duckdb.sql(sql).fetchone()
        if found[name].get("error") or not same(found[name]["value"], value):
            wrong[name] = (found[name].get("error") or found[name]["value"], value)
    assert not wrong


def test_the_worst_group_is_duckdbs(tmp_path, binary, rows):
    rules, expected = [], {}
    words = {**STATISTICS, "rowCount": "count(*)"}
    for word, sql in words.items():
        for groups in (["g"], ["g", "h"]):
            name = f"{word} by {groups}"
            rule = {"name": name, "metric": word, "groupBy": groups, "where": FILTER.replace("h = 1 AND ", ""), "fail": "> 3", "severity": "info"}
            if word != "rowCount":
                rule["column"] = "d"
            rules.append(rule)
            expected[name] = f"SELECT {', '.join(groups)}, {sql.format('d')} AS v FROM rows WHERE i > 0 GROUP BY ALL HAVING v IS NOT NULL ORDER BY v DESC"
    rules.append({"name": "quantile", "metric": "quantile", "column": "d", "groupBy": "g", "arguments": {"quantile": 0.9}, "fail": "> 3", "severity": "info"})
    expected["quantile"] = "SELECT g, quantile_cont(d, 0.9) AS v FROM rows GROUP BY ALL ORDER BY v DESC"
    rules.append({"name": "invalid", "metric": "invalidValues", "column": "h", "groupBy": "g", "arguments": {"validValues": [0, 2]}, "unit": "percent", "fail": "> 3", "severity": "info"})
    expected["invalid"] = "SELECT g, 100.0 * count(*) FILTER (h = 1) / count(*) AS v FROM rows GROUP BY ALL ORDER BY v DESC"
    found = metrics(mesh_of(tmp_path, binary, COLUMNS, rules, rows).publish("lab/t"))
    for name, sql in expected.items():
        assert "error" not in found[name], found[name]
        answer = duckdb.sql(sql).fetchall()
        groups = found[name]["groups"]
        assert groups["count"] == len(answer), name
        assert groups["failed"] == sum(1 for row in answer if row[-1] > 3), name
        assert same(found[name]["value"], answer[0][-1]), name
        for group, row in zip(groups["worst"], answer[:5]):
            assert same(group["value"], row[-1]), name
        values = {tuple(None if value is None else str(value) for value in row[:-1]): row[-1] for row in answer}
        for group in groups["worst"]:
            assert same(group["value"], values[tuple(group["group"])]), name


def test_rows_that_fail_a_condition_are_counted(tmp_path, binary, rows):
    """With a threshold a condition holds nothing back: null passes, and rows outside `where` are not computed."""
    counted = {
        "whole": ({"condition": "i > 0"}, "NOT i > 0", None),
        "some": ({"condition": "m < 100 OR day > DATE '2024-06-01'", "where": FILTER}, "NOT (m < 100 OR day > DATE '2024-06-01')", FILTER),
        "share": ({"condition": "g = 'g1'", "fail": "> 1%"}, "NOT g = 'g1'", None),
        "guarded": ({"condition": "100 / i < 5", "where": "i <> 0"}, "NOT 100 // i < 5", "i <> 0"),
    }
    grouped = {
        "by g": ({"condition": "i > 0", "groupBy": "g"}, "NOT i > 0", None, "g"),
        "by both": ({"condition": "d < 1", "where": "l >= 0", "groupBy": ["g", "h"], "fail": "> 50%"}, "NOT d < 1", "l >= 0", "g, h"),
    }
    rules = [{"fail": "> 3", "severity": "info", **rule[0], "name": name} for name, rule in (counted | grouped).items()]
    rules += [{"name": "unguarded", "condition": "100 / h < 5", "severity": "info"}, {"name": "row", "condition": "i >= -990"}]
    mesh = mesh_of(tmp_path, binary, COLUMNS, rules, rows)
    rehearsed = json.loads(mesh.run("explain", "lab/t", "--format", "json"))
    report = mesh.publish("lab/t")
    held = duckdb.sql("SELECT count(*) FROM rows WHERE i < -990").fetchone()[0]
    assert report["tables"][0]["quarantined"] == held > 0
    found = metrics(report)
    measured = lambda metric: {key: metric.get(key) for key in ("value", "passed", "groups", "error")}
    assert {name: measured(metric) for name, metric in metrics(rehearsed).items()} == {name: measured(metric) for name, metric in found.items()}
    kept = "(SELECT * FROM rows WHERE i >= -990 OR i IS NULL)"
    for name, (rule, test, where) in counted.items():
        total, failed = duckdb.sql(f"SELECT count(*), count(*) FILTER ({test}) FROM {kept} WHERE {where or True}").fetchone()
        assert found[name]["metric"] == "failedRows" and failed > 0, name
        assert same(found[name]["value"], failed * 100 / total if "%" in rule.get("fail", "") else failed), name
    for name, (rule, test, where, by) in grouped.items():
        share = "100.0 / count(*)" if "%" in rule.get("fail", "") else "1"
        answer = duckdb.sql(f"SELECT {by}, count(*) FILTER ({test}) * {share} AS v FROM {kept} WHERE {where or True} GROUP BY ALL ORDER BY v DESC").fetchall()
        assert "error" not in found[name], found[name]
        groups = found[name]["groups"]
        assert groups["count"] == len(answer), name
        assert groups["failed"] == sum(1 for row in answer if row[-1] > (50 if "%" in rule.get("fail", "") else 3)) > 0, name
        for group, row in zip(groups["worst"], answer[:5]):
            assert same(group["value"], row[-1]), name
    assert "cannot be computed" in found["unguarded"]["error"], found["unguarded"]


def test_failed_rows_follow_the_rows_that_leave(tmp_path, binary):
    numbers = lambda values: pa.array(values, pa.int32())
    columns = "\n        - {name: id, type: int, primaryKey: true}\n        - {name: n, type: int}\n"
    rule = {"name": "few", "condition": "n > 0", "where": "id < 10", "fail": "> 1"}
    mesh = mesh_of(tmp_path, binary, columns, [rule], None)
    manifest = mesh.root / "domains/lab/products/t/product.yaml"
    manifest.write_text(manifest.read_text().replace("write: replace", "write: upsert"))
    write = lambda ids, values: pq.write_table(pa.table({"id": numbers(ids), "n": numbers(values)}), manifest.parent / "rows.parquet")
    value = lambda report: metrics(report)["few"]["value"]
    write([1, 2, 3, 11], [-1, 5, 5, -5])
    assert value(mesh.publish("lab/t")) == 1
    write([2], [-2])
    assert value(mesh.publish("lab/t", expect=REJECTED)) == 2
    # The row that failed is replaced by one that does not.
    write([1, 2], [1, -2])
    assert value(mesh.publish("lab/t")) == 1


def test_a_condition_that_cannot_be_computed_fails_nothing_else(tmp_path, binary):
    numbers = lambda values: pa.array(values, pa.int32())
    table = pa.table({"g": ["a", "a", "b"], "h": numbers([0, 5, 7]), "x": numbers([1, 1, 1])})
    columns = "\n        - {name: g, type: string}\n        - {name: h, type: int}\n        - {name: x, type: int}\n"
    rules = [
        {"name": "advisory", "condition": "100 / h > 0", "groupBy": "g", "warn": "> 0"},
        {"name": "must", "metric": "nullValues", "column": "x", "groupBy": "g", "fail": "> 50%"},
    ]
    found = metrics(mesh_of(tmp_path, binary, columns, rules, table).publish("lab/t"))
    assert "Divide by zero" in found["advisory"]["error"] and found["must"]["passed"], found


def test_a_condition_that_another_part_settles_is_computed(tmp_path, binary):
    """Each row is asked by itself, as by a condition that quarantines: no row divides by zero here."""
    rows = [value for n in (0, 1, 500) for value in [n] * 50]
    table = pa.table({"n": pa.array(rows, pa.int32()), "g": ["a", "b"] * 75})
    columns = "\n        - {name: n, type: int}\n        - {name: g, type: string}\n"
    guarded = {"whole": "n = 0 OR 100 / n > 0", "cased": "CASE WHEN n = 0 THEN true ELSE 100 / n > 0 END", "other": "n <> 0 AND 100 / n > 0"}
    rules = [{"name": f"{name} {by}".strip(), "condition": condition, "fail": "> 99%", **({"groupBy": "g"} if by else {})} for name, condition in guarded.items() for by in ("", "g")]
    rules += [{"name": "where", "condition": "n > 1", "where": "n <> 0 AND 100 / n >= 0", "fail": "> 99%"}]
    rules += [{"name": "none", "condition": "1 > 2", "groupBy": "g", "unit": "percent", "mustBe": 100}]
    found = metrics(mesh_of(tmp_path, binary, columns, rules, table).publish("lab/t"))
    assert {name: metric.get("error") for name, metric in found.items()} == dict.fromkeys(found)
    share = {"whole": 100 / 3, "cased": 100 / 3, "other": 200 / 3}
    for name, value in share.items():
        assert same(found[name]["value"], value) and same(found[f"{name} g"]["value"], value), found
    assert (found["where"]["value"], found["none"]["value"]) == (50, 100)


def test_a_row_that_is_held_back_fails_no_rule_of_the_table(tmp_path, binary):
    """Keys are known after the pass: what they hold back is taken out of the counts, and of what could not be computed."""
    numbers = lambda values: pa.array(values, pa.int32())
    table = pa.table({"id": numbers([1, 1, 2, 3]), "n": numbers([0, 0, 5, 1])})
    columns = "\n        - {name: id, type: int, primaryKey: true}\n        - {name: n, type: int}\n"
    rules = [
        {"name": "few", "condition": "100 / n < 50", "fail": "> 50%"},
        {"name": "rows", "metric": "rowCount", "where": "100 / n < 50", "mustBe": 1},
        {"name": "both", "condition": "id > 2", "where": "100 / n < 50", "fail": "> 1"},
    ]
    table = pa.concat_tables([table, pa.table({"id": numbers([9]), "n": numbers([0])})])
    columns = columns.replace("type: int}", "type: int, maximum: 5}").replace("primaryKey: true}", "primaryKey: true, maximum: 8}")
    report = mesh_of(tmp_path, binary, columns, rules, table, extra="      quarantine: {limit: 100%}\n").publish("lab/t")
    assert report["tables"][0]["quarantined"] == 3
    assert {name: metric["value"] for name, metric in metrics(report).items()} == {"few": 50, "rows": 1, "both": 1}


def test_a_condition_counts_in_older_files_too(tmp_path, binary):
    """Rows of files from before a field, and a condition that names no column."""
    thing = lambda **fields: pa.array([fields], pa.struct([(name, pa.int32()) for name in fields]))
    columns = "\n        - name: s\n          type: struct\n          columns:\n            - {name: z, type: int}\n"
    mesh = mesh_of(tmp_path, binary, columns, [], pa.table({"s": thing(z=1)}))
    manifest = mesh.root / "domains/lab/products/t/product.yaml"
    write = lambda text: mesh.write("domains/lab/products/t/product.yaml", text)
    write(manifest.read_text().replace("      write: replace\n", ""))
    mesh.publish("lab/t")
    rules = [
        {"name": "there", "condition": "s.y IS NULL OR s.z > 1", "where": "s.z > 0", "fail": "> 50%"},
        {"name": "never", "condition": "now() < TIMESTAMP '2020-01-01 00:00:00'", "mustBeLessThan": 9},
    ]
    text = manifest.read_text().replace("1.0.0", "1.1.0") + "            - {name: y, type: int}\n      quality:\n"
    write(text + "".join(f"        - {json.dumps(rule)}\n" for rule in rules))
    pq.write_table(pa.table({"s": thing(z=1, y=2)}), manifest.parent / "rows.parquet")
    found = metrics(mesh.publish("lab/t"))
    assert {name: (metric.get("error"), metric["value"]) for name, metric in found.items()} == {"there": (None, 50), "never": (None, 2)}


def test_a_condition_that_is_counted_is_checked(tmp_path, binary):
    rule = {"name": "odd", "condition": "nothing > 1", "fail": "> 5%"}
    mesh = mesh_of(tmp_path, binary, "\n        - {name: id, type: int}\n", [rule], None)
    with pytest.raises(CommandFailed, match="rule `odd` of table `rows`"):
        mesh.run("check")


def test_both_zeros_are_one_number(tmp_path, binary):
    zeros = [0.0, -0.0, 1.0, None]
    table = pa.table({"d": pa.array(zeros, pa.float64()), "f": pa.array(zeros, pa.float32())})
    columns = "\n        - {name: d, type: double}\n        - {name: f, type: float}\n"
    rules = []
    for column in ("d", "f"):
        rules += [
            {"name": f"condition {column}", "condition": f"{column} >= 0"},
            {"name": f"where {column}", "metric": "rowCount", "where": f"{column} = 0.0", "mustBe": 2},
            {"name": f"distinct {column}", "metric": "countDistinct", "column": column, "mustBe": 2},
            {"name": f"duplicates {column}", "metric": "duplicateValues", "column": column, "mustBe": 1},
            {"name": f"groups {column}", "metric": "rowCount", "groupBy": column, "where": f"{column} >= 0", "fail": "> 2"},
            {"name": f"sums {column}", "metric": "countDistinct", "column": column, "groupBy": column, "fail": "> 1"},
        ]
    mesh = mesh_of(tmp_path, binary, columns, rules, table)
    report = mesh.publish("lab/t")
    found = metrics(report)
    assert report["tables"][0]["published"] == 4 and all(metric["passed"] for metric in found.values()), report
    assert [found[f"groups {column}"]["groups"]["count"] for column in ("d", "f")] == [2, 2]
    assert [found[f"sums {column}"]["groups"]["count"] for column in ("d", "f")] == [3, 3]
    # What is published keeps its sign.
    stored = mesh.query("SELECT d, f FROM lab.t.rows")
    assert [sum(math.copysign(1, value) < 0 for value in stored[column].to_pylist() if value is not None) for column in ("d", "f")] == [1, 1]


def test_sequences(tmp_path, binary, rows):
    rules = [
        {"name": "gaps", "metric": "sequenceGaps", "column": "id", "severity": "info"},
        {"name": "days", "metric": "sequenceGaps", "column": "day", "severity": "info"},
        {"name": "gaps by h", "metric": "sequenceGaps", "column": "i", "groupBy": "h", "severity": "info"},
        {"name": "order", "metric": "outOfOrderValues", "column": "at", "arguments": {"orderBy": ["id"]}, "severity": "info"},
        {"name": "strict", "metric": "outOfOrderValues", "column": "i", "arguments": {"orderBy": "id", "strictly": True}, "severity": "info"},
        {"name": "falling", "metric": "outOfOrderValues", "column": "i", "groupBy": ["h"], "arguments": {"orderBy": ["day"], "decreasing": True}, "severity": "info"},
    ]
    found = metrics(mesh_of(tmp_path, binary, COLUMNS, rules, rows).publish("lab/t"))
    before = "SELECT count(*) FILTER ({test}) FROM (SELECT {v} AS v, lag({v}) OVER ({by}ORDER BY {o}) AS p{g} FROM rows WHERE {v} IS NOT NULL AND {n} IS NOT NULL)"
    duck = duckdb.connect().register("rows", rows)
    one = lambda sql: duck.sql(sql).fetchone()[0]
    assert found["gaps"]["value"] == 1
    assert found["days"]["value"] == one("SELECT max(day) - min(day) + 1 - count(DISTINCT day) FROM rows")
    gaps = duck.sql("SELECT h, max(i) - min(i) + 1 - count(DISTINCT i) AS v FROM rows GROUP BY h ORDER BY v DESC").fetchall()
    assert [(group["group"], group["value"]) for group in found["gaps by h"]["groups"]["worst"]] == [([str(h)], v) for h, v in gaps]
    assert found["order"]["value"] == one(before.format(test="v < p", v='"at"', by="", o="id", g="", n="id")) > 0
    assert found["strict"]["value"] == one(before.format(test="v <= p", v="i", by="", o="id, i", g="", n="id")) > 0
    falling = duck.sql(before.format(test="v > p", v="i", by="PARTITION BY h ", o="day, i DESC", g=", h", n="day").replace("SELECT count", "SELECT h, count", 1) + " GROUP BY h").fetchall()
    assert {group["group"][0]: group["value"] for group in found["falling"]["groups"]["worst"]} == {str(h): v for h, v in falling}


def test_freshness_is_the_age_of_the_newest_value(tmp_path, binary):
    now = datetime.now(timezone.utc)
    table = pa.table({"at": pa.array([now - timedelta(hours=5), None, now - timedelta(hours=2)], pa.timestamp("us", "UTC"))})
    rules = ["freshness(at) < 3h", "freshness(at) between 119 and 125 min", {"name": "late", "metric": "freshness", "column": "at", "mustBeLessThan": 1, "unit": "hours"}]
    report = mesh_of(tmp_path, binary, "\n        - {name: at, type: timestamp}\n", rules, table).publish("lab/t", expect=REJECTED)
    found = metrics(report)
    assert [metric["passed"] for metric in found.values()] == [True, True, False]
    assert found["late"]["value"] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(("nulls", "status", "warned"), [(0, PUBLISHED, False), (2, PUBLISHED, True), (6, REJECTED, True)])
def test_a_rule_warns_before_it_fails(tmp_path, binary, nulls, status, warned):
    table = pa.table({"a": pa.array([None] * nulls + [1] * (100 - nulls), pa.int32())})
    rule = {"name": "gaps", "metric": "nullValues", "column": "a", "warn": "> 1%", "fail": "> 5%"}
    mesh = mesh_of(tmp_path, binary, "\n        - {name: a, type: int}\n", [rule], table)
    [metric] = metrics(mesh.publish("lab/t", expect=status)).values()
    assert (metric["value"], metric["passed"], metric.get("warned", False)) == (nulls, status == PUBLISHED, warned)


def test_row_rules_of_columns(tmp_path, binary):
    table = pa.table({"kind": ["a", "a", "b", "b", None], "v": ["2024-02-29", None, None, "2023-02-29", "29.02.2024"], "n": [1, -1, -1, -1, -1]})
    columns = "\n        - {name: kind, type: string}\n        - {name: v, type: string, format: yyyy-MM-dd, completeIf: \"kind = 'a'\"}\n        - {name: n, type: int}\n"
    rules = [{"name": "positive", "condition": "n > 0", "where": "kind = 'b'"}]
    mesh = mesh_of(tmp_path, binary, columns, rules, table, extra="      quarantine: {limit: 100%}\n")
    report = mesh.publish("lab/t")
    assert {rule: count["rows"] for rule, count in report["tables"][0]["reasons"].items()} == {"format:v": 2, "completeIf:v": 1, "condition:positive": 2}
    assert report["tables"][0]["published"] == 1


def test_other_tables_are_compared(tmp_path, binary, rows):
    plain = mesh_of(tmp_path, binary, COLUMNS, [], rows, name="source")
    plain.publish("lab/source")
    half = rows.slice(0, ROWS // 2)
    rules = [
        {"name": "rows", "metric": "rowCount", "compareTo": "lab/source.rows", "severity": "info"},
        {"name": "share", "metric": "rowCount", "compareTo": "lab/source.rows", "unit": "percent", "mustBeLessOrEqualTo": 50},
        {"name": "sum", "metric": "sum", "column": "i", "compareTo": "lab/source.rows.i", "severity": "info"},
        {"name": "filtered", "metric": "rowCount", "compareTo": {"table": "lab/source.rows", "where": f"id < {ROWS // 2}"}},
    ]
    mesh = mesh_of(tmp_path, binary, COLUMNS, rules, half)
    report = mesh.publish("lab/t")
    found = metrics(report)
    total, own = (float(sum(value for value in table["i"].to_pylist() if value is not None)) for table in (rows, half))
    assert (found["rows"]["value"], found["rows"]["comparedTo"], found["rows"]["passed"]) == (ROWS / 2, ROWS, False)
    assert (found["share"]["value"], found["share"]["passed"]) == (50, True)
    assert (found["sum"]["value"], found["sum"]["comparedTo"]) == (pytest.approx(abs(own - total)), total)
    assert found["filtered"]["passed"], found["filtered"]
    [pinned] = report["tables"][0]["pinned"]
    assert (pinned["table"], pinned["version"]) == ("lab/source.rows", "1.0.0") and pinned["metadataLocation"]


def test_the_same_rows_measure_the_same_in_any_table_order_and_group(tmp_path, binary):
    rng = random.Random(3)
    count = 20_000
    columns = "\n        - {name: g, type: int}\n        - {name: m, type: 'decimal(10,2)'}\n        - {name: d, type: double}\n        - {name: f, type: float}\n        - {name: l, type: long}\n"
    table = pa.table(
        {
            "g": pa.array([rng.randrange(7) for _ in range(count)], pa.int32()),
            "m": pa.array([Decimal(rng.randrange(1, 10**6)) / 100 for _ in range(count)], pa.decimal128(10, 2)),
            "d": pa.array([rng.lognormvariate(0, 5) for _ in range(count)], pa.float64()),
            "f": pa.array([rng.lognormvariate(0, 3) for _ in range(count)], pa.float32()),
            "l": pa.array([rng.randrange(-(2**62), 2**62) for _ in range(count)], pa.int64()),
        }
    )
    mesh_of(tmp_path, binary, columns, [], table, name="source").publish("lab/source")
    words = ["minimum", "maximum", "mean", "sum", "standardDeviation", "countDistinct"]
    rules = [
        {"name": f"{word} {column}{by}", "metric": word, "column": column, "compareTo": "lab/source.rows", **({"groupBy": "g"} if by else {})}
        for word in words
        for column in ["m", "d", "f", "l"]
        for by in ["", " by group"]
    ]
    shuffled = table.take(pa.array(rng.sample(range(count), count)))
    found = metrics(mesh_of(tmp_path, binary, columns, rules, shuffled).publish("lab/t"))
    assert {name: metric["value"] for name, metric in found.items()} == {rule["name"]: 0 for rule in rules}
    assert all(metric["groups"]["count"] == 7 for name, metric in found.items() if name.endswith("by group"))


def test_decimals_are_summed_exactly_by_group_too(tmp_path, binary):
    table = pa.table({"g": ["a"] * 3, "m": pa.array([Decimal("0.10"), Decimal("0.20"), Decimal("0.30")], pa.decimal128(10, 2))})
    columns = "\n        - {name: g, type: string}\n        - {name: m, type: 'decimal(10,2)'}\n"
    limits = {"sum": 0.6, "mean": 0.2, "standardDeviation": 0.1}
    rules = [
        {"name": f"{word} {groups}", "metric": word, "column": "m", "mustBe": limit, **groups}
        for word, limit in limits.items()
        for groups in ({}, {"groupBy": "g"})
    ]
    found = metrics(mesh_of(tmp_path, binary, columns, rules, table).publish("lab/t"))
    assert all(metric["passed"] for metric in found.values()), found


def test_a_group_without_a_value_to_measure_fails(tmp_path, binary):
    now = datetime.now(timezone.utc)
    table = pa.table(
        {
            "s": ["a", "a", "b"],
            "at": pa.array([now, now, None], pa.timestamp("us", "UTC")),
            "n": pa.array([1.0, 2.0, None], pa.float64()),
        }
    )
    columns = "\n        - {name: s, type: string}\n        - {name: at, type: timestamp}\n        - {name: n, type: double}\n"
    needs_a_value = [{"metric": "freshness", "column": "at", "fail": "> 1h"}] + [
        {"metric": word, "column": "n", "fail": "> 5"} for word in ("minimum", "maximum", "mean", "standardDeviation")
    ]
    needs_a_value += [{"metric": "quantile", "column": "n", "arguments": {"quantile": share}, "fail": "> 5"} for share in (0, 0.5, 1)]
    needs_none = [{"metric": "rowCount", "fail": "> 5"}] + [{"metric": word, "column": "n", "fail": "> 5"} for word in ("sum", "countDistinct", "nullValues")]
    # By groups, one of which has no value; without groups, where there is none; and by groups where there is no row.
    ways = {"groups": {"groupBy": "s"}, "whole": {"where": "s = 'b'"}, "nothing": {"groupBy": "s", "where": "s = 'c'"}}
    rules = [
        {**rule, **way, "name": f"{rule['metric']} {rule.get('arguments', '')} {name}", "severity": "info"}
        for rule in needs_a_value + needs_none
        for name, way in ways.items()
    ]
    found = metrics(mesh_of(tmp_path, binary, columns, rules, table).publish("lab/t"))
    no_value = {rule["metric"] for rule in needs_a_value}
    assert {name: metric["passed"] for name, metric in found.items()} == {rule["name"]: rule["metric"] not in no_value for rule in rules}
    for rule in rules:
        metric = found[rule["name"]]
        if rule["metric"] not in no_value:
            continue
        if rule["name"].endswith("groups"):
            groups = metric["groups"]
            assert (metric["value"], groups["count"], groups["failed"]) == (None, 2, 1), metric
            assert (groups["worst"][0]["group"], groups["worst"][0]["value"]) == (["b"], None), metric
        else:
            assert metric["error"] in ("there is no value to measure", "a standard deviation needs two values"), metric
    # What a publication is rejected for names the group.
    rule = {"name": "late", "metric": "freshness", "column": "at", "groupBy": "s", "fail": "> 1h"}
    text = mesh_of(tmp_path, binary, columns, [rule], table, name="late").run("publish", "lab/late", expect=REJECTED)
    assert "freshness of `b` (1 of 2 groups fail) has no value to measure" in text, text


def test_groups_of_two_tables_are_compared(tmp_path, binary):
    columns = "\n        - {name: g, type: string}\n        - {name: k, type: string}\n        - {name: n, type: int}\n"
    numbers = lambda values: pa.array(values, pa.int32())
    source = pa.table({"g": ["a", "a", "b", None, "c"], "k": ["x"] * 5, "n": numbers([1, 2, 3, 4, 5])})
    own = pa.table({"g": ["a", "a", "b", None, "d"], "k": ["x"] * 5, "n": numbers([2, 1, 4, 4, None])})
    mesh_of(tmp_path, binary, columns.replace("name: k", "name: other"), [], source.rename_columns(["g", "other", "n"]), name="source").publish("lab/source")
    compared = {"groupBy": "g", "compareTo": "lab/source.rows", "severity": "info"}
    rules = [
        {"name": "rows", "metric": "rowCount", **compared},
        {"name": "sum", "metric": "sum", "column": "n", **compared},
        {"name": "mean", "metric": "mean", "column": "n", **compared},
        {"name": "median", "metric": "quantile", "column": "n", "arguments": {"quantile": 0.5}, **compared},
        {"name": "share", "metric": "sum", "column": "n", **compared, "fail": "> 50%"},
        {"name": "filtered", "metric": "sum", "column": "n", **compared, "where": "g = 'a'", "compareTo": {"table": "lab/source.rows", "where": "g = 'a'"}},
        {"name": "nothing", "metric": "rowCount", **compared, "where": "g = 'z'", "compareTo": {"table": "lab/source.rows", "where": "g = 'z'"}},
        {"name": "no group", "metric": "rowCount", **compared, "groupBy": "k"},
    ]
    found = metrics(mesh_of(tmp_path, binary, columns, rules, own).publish("lab/t"))
    # The groups a, b, null, c (only there) and d (only here).
    worst = {
        name: [(group["group"][0], group["value"], group.get("comparedTo")) for group in metric["groups"]["worst"] if not group["passed"]]
        for name, metric in found.items()
        if "groups" in metric
    }
    assert worst == {
        "rows": [("c", 1, 1), ("d", 1, 0)],
        "sum": [("c", 5, 5), ("b", 1, 3)],
        "mean": [("c", None, None), ("d", None, None), ("b", 1, 3)],
        "median": [("c", None, None), ("d", None, None), ("b", 1, 3)],
        "share": [("c", 100, 5)],
        "filtered": [],
    }
    assert all(found[name]["groups"]["count"] == 5 for name in ("rows", "sum", "mean", "median", "share"))
    assert (found["sum"]["value"], found["sum"]["comparedTo"]) == (5, 5)
    assert (found["nothing"]["value"], found["nothing"]["comparedTo"], found["nothing"]["passed"]) == (0, 0, True)
    assert found["no group"]["error"] == "the other table cannot be measured: it has no column `k`"


def test_an_unpublished_table_is_named(tmp_path, binary, rows):
    mesh = mesh_of(tmp_path, binary, "\n        - {name: a, type: int, references: lab/nowhere.rows.id}\n", [], pa.table({"a": pa.array([1], pa.int32())}))
    with pytest.raises(CommandFailed, match="reads `lab/nowhere.rows`, which is not published"):
        mesh.publish("lab/t")


TWO = """dataProduct:
  name: t
  version: 1.0.0
  owner: lab
  schema:
    - name: orders
      write: replace
      source: orders.parquet
      quarantine: {limit: 100%}
      columns:
        - {name: id, type: int, primaryKey: true}
        - {name: customer, type: long, references: customers.id}
        - {name: parent, type: int, references: orders.id}
        - {name: country, type: string}
        - {name: city, type: string}
      references:
        - {columns: [country, city], to: places, at: [land, town], severity: warning}
    - name: customers
      write: replace
      source: customers.parquet
      quarantine: {limit: 100%}
      columns:
        - {name: id, type: int, unique: true}
    - name: places
      write: replace
      source: places.parquet
      columns:
        - {name: land, type: string}
        - {name: town, type: string}
"""


def test_references_between_tables_of_one_publication(tmp_path, binary):
    mesh = Mesh(binary, tmp_path / "mesh")
    mesh.write("mesh.yaml", "name: rules\n")
    mesh.write("domains/lab/domain.yaml", "name: lab\nowner: lab\n")
    folder = mesh.write("domains/lab/products/t/product.yaml", TWO).parent
    # Customer 2 is there twice, so it is held back, and with it the order that names it; and then, step by step, the
    # orders whose parents are gone.
    pq.write_table(pa.table({"id": pa.array([1, 2, 2, 3], pa.int32())}), folder / "customers.parquet")
    pq.write_table(pa.table({"land": ["DE", "DE", None], "town": ["B", None, "B"]}), folder / "places.parquet")
    orders = {
        "id": pa.array([1, 2, 3, 4, 5, 6], pa.int32()),
        "customer": pa.array([1, 2, 3, None, 9, 1], pa.int64()),
        "parent": pa.array([1, 1, 2, 3, None, 6], pa.int32()),
        "country": ["DE", "DE", "FR", None, "DE", "DE"],
        "city": ["B", "M", "B", "B", None, "B"],
    }
    pq.write_table(pa.table(orders), folder / "orders.parquet")
    report = mesh.publish("lab/t")
    found = {table["table"]: table for table in report["tables"]}
    reasons = {rule: count["rows"] for rule, count in found["orders"]["reasons"].items()}
    assert reasons == {"references:customer": 2, "references:parent": 2}
    assert (found["orders"]["published"], found["orders"]["quarantined"]) == (2, 4)
    [counted] = found["orders"]["metrics"]
    assert (counted["rule"], counted["value"], counted["passed"], counted["severity"]) == ("references:country+city", 2, False, "warning")
    assert {row["id"] for row in mesh.query_json("SELECT id FROM lab.t.orders")} == {1, 6}
    # Published by themselves, orders are checked against the customers that stay.
    pq.write_table(pa.table({**orders, "parent": pa.nulls(6, pa.int32())}), folder / "orders.parquet")
    [table] = mesh.publish("lab/t", "orders=" + str(folder / "orders.parquet"))["tables"]
    assert {rule: count["rows"] for rule, count in table["reasons"].items()} == {"references:customer": 2}
    assert {pinned["table"] for pinned in table["pinned"]} == {"customers", "places"}
    # Orders that stay must find their customers; the same orders over other customers are judged again.
    pq.write_table(pa.table({"id": pa.array([1, 2], pa.int32())}), folder / "customers.parquet")
    report = mesh.publish("lab/t", "customers=" + str(folder / "customers.parquet"), expect=REJECTED)
    lost = "table `orders`: rule `references:customer`: 1 published row would lose what it refers to, e.g. 3"
    assert report["because"] == [lost]
    report = mesh.publish("lab/t")
    found = {table["table"]: table for table in report["tables"]}
    assert {rule: count["rows"] for rule, count in found["orders"]["reasons"].items()} == {"references:customer": 2}
    assert {row["id"] for row in mesh.query_json("SELECT id FROM lab.t.orders")} == {1, 2, 4, 6}


def test_a_reference_judges_the_rows_of_its_where(tmp_path, binary):
    numbers = lambda values: pa.array(values, pa.int32())
    mesh_of(tmp_path, binary, "\n        - {name: id, type: int}\n", [], pa.table({"id": numbers([1])}), name="people").publish("lab/people")
    columns = """
        - {name: id, type: int}
        - {name: kind, type: string}
        - {name: who, type: int, references: {to: lab/people.rows.id, where: "kind = 'member'"}}
        - {name: parent, type: int, references: {to: rows.id, where: parent > 0}}
"""
    # A guest and one of no kind may name nobody; a parent of -1 is none. The parent of row 4 is held back, and it with it.
    table = pa.table(
        {
            "id": numbers([1, 2, 3, 4]),
            "kind": ["member", "member", "guest", None],
            "who": numbers([1, 9, 9, 9]),
            "parent": numbers([1, -1, 7, 3]),
        }
    )
    mesh = mesh_of(tmp_path, binary, columns, [], table, extra="      quarantine: {limit: 100%}\n")
    report = mesh.publish("lab/t")["tables"][0]
    assert {rule: count["rows"] for rule, count in report["reasons"].items()} == {"references:who": 1, "references:parent": 2}
    assert [row["id"] for row in mesh.query_json("SELECT id FROM lab.t.rows")] == [1]


def test_rows_that_refer_to_nothing_are_counted_by_groups(tmp_path, binary, rows):
    """With a threshold a reference holds nothing back, here or in the tables that it is published with."""
    numbers = lambda values: pa.array(values, pa.int64())
    places = pa.table({"land": ["g0", "g1", "g2", None], "code": numbers([0, 1, 1, 2])})
    there = "\n        - {name: land, type: string}\n        - {name: code, type: long}\n"
    mesh_of(tmp_path, binary, there, [], places, name="places").publish("lab/places")
    columns = COLUMNS.replace("{name: i, type: int}", '{name: i, type: int, references: {to: rows.id, name: own, fail: "> 3"}}').replace(
        "{name: g, type: string}", '{name: g, type: string, references: {to: lab/places.rows.land, where: "i > 0", groupBy: [h], warn: "> 1%", fail: "> 45%"}}'
    )
    extra = (
        "      references:\n"
        '        - {columns: [g, h], to: lab/places.rows, at: [land, code], groupBy: day, name: together, warn: "> 5"}\n'
    )
    mesh = mesh_of(tmp_path, binary, columns, [], rows, extra=extra)
    rehearsed = json.loads(mesh.run("explain", "lab/t", "--format", "json", expect=REJECTED))
    report = mesh.publish("lab/t", expect=REJECTED)
    assert report["tables"][0]["quarantined"] == 0
    found = metrics(report)
    assert {name: metric["value"] for name, metric in metrics(rehearsed).items()} == {name: metric["value"] for name, metric in found.items()}
    [alone] = set(found) - {"own", "together"}
    assert alone == "orphanedRows(g) in lab/places.rows.land where i > 0 by h <= 45%"
    assert {found[name]["metric"] for name in found} == {"orphanedRows"}
    [own] = duckdb.sql("SELECT count(*) FROM rows WHERE i IS NOT NULL AND i NOT IN (SELECT id FROM rows)").fetchone()
    assert (found["own"]["value"], found["own"]["passed"]) == (own, False) and own > 3
    lands = duckdb.sql("SELECT h, count(*) FILTER (g NOT IN ('g0', 'g1', 'g2')) * 100.0 / count(*) AS v FROM rows WHERE i > 0 GROUP BY h ORDER BY v DESC").fetchall()
    assert [(group["group"], round(group["value"], 6)) for group in found[alone]["groups"]["worst"]] == [([str(h)], round(v, 6)) for h, v in lands]
    assert found[alone]["groups"]["failed"] == sum(1 for _, v in lands if v > 45) > 0
    pairs = "(g, h) NOT IN (('g0', 0), ('g1', 1), ('g2', 1))"
    days = duckdb.sql(f"SELECT day, count(*) FILTER (g IS NOT NULL AND {pairs}) AS v FROM rows GROUP BY day ORDER BY v DESC").fetchall()
    together = found["together"]
    assert (together["severity"], together["value"], together["groups"]["count"]) == ("warning", days[0][1], len(days))
    assert together["groups"]["failed"] == sum(1 for _, v in days if v > 5) > 0
    assert {pinned["table"] for pinned in report["tables"][0]["pinned"]} == {"lab/places.rows"}


def test_a_counted_reference_to_a_column_of_another_type_is_a_problem(tmp_path, binary):
    there = mesh_of(tmp_path, binary, "\n        - {name: code, type: long}\n", [], pa.table({"code": pa.array([7], pa.int64())}), name="places")
    there.publish("lab/places")
    columns = '\n        - {name: c, type: string, references: {to: lab/places.rows.code, fail: "> 50%"}}\n'
    mesh = mesh_of(tmp_path, binary, columns, [], pa.table({"c": ["007"]}))
    with pytest.raises(CommandFailed, match="`c` is string, but `lab/places.rows.code` is long"):
        mesh.run("check")


def test_orphaned_rows_of_a_table_that_stays_are_counted_again(tmp_path, binary):
    numbers = lambda values: pa.array(values, pa.int32())
    mesh = Mesh(binary, tmp_path / "mesh")
    mesh.write("mesh.yaml", "name: rules\n")
    mesh.write("domains/lab/domain.yaml", "name: lab\nowner: lab\n")
    folder = mesh.write(
        "domains/lab/products/t/product.yaml",
        "dataProduct:\n  name: t\n  version: 1.0.0\n  owner: lab\n  schema:\n    - name: orders\n      source: orders.parquet\n      columns:\n"
        '        - {name: who, type: int, references: {to: people.id, name: known, fail: "> 50%"}}\n'
        "    - name: people\n      write: replace\n      source: people.parquet\n      columns: [{name: id, type: int}]\n",
    ).parent
    pq.write_table(pa.table({"who": numbers([1, 2, 3, None])}), folder / "orders.parquet")
    pq.write_table(pa.table({"id": numbers([1, 2])}), folder / "people.parquet")
    [orders] = [table for table in mesh.publish("lab/t")["tables"] if table["table"] == "orders"]
    assert [(metric["rule"], metric["value"]) for metric in orders["metrics"]] == [("known", 25)]
    pq.write_table(pa.table({"id": numbers([7])}), folder / "people.parquet")
    report = mesh.publish("lab/t", "people=" + str(folder / "people.parquet"), expect=REJECTED)
    assert "known" in report["because"][0] and "75" in report["because"][0], report["because"]


def test_a_reference_of_which_where_is_no_condition_is_a_problem(tmp_path, binary):
    columns = "\n        - {name: id, type: int, references: {to: rows.id, where: nothing > 1}}\n"
    mesh = mesh_of(tmp_path, binary, columns, [], None)
    with pytest.raises(CommandFailed, match="reference of `id`: `where` of table `rows`"):
        mesh.run("check")


def test_protected_values_are_masked(tmp_path, binary):
    table = pa.table({"who": ["secret-name", "secret-name", "secret-other"], "salary": pa.array([777001, 777002, 777003], pa.int32())})
    columns = "\n        - {name: who, type: string, pii: true, references: lab/people.rows.who}\n        - {name: salary, type: int, pii: true}\n"
    people = mesh_of(tmp_path, binary, "\n        - {name: who, type: string}\n", [], pa.table({"who": ["x"]}), name="people")
    people.publish("lab/people")
    rules = [
        {"name": "least", "metric": "minimum", "column": "salary", "mustBeLessThan": 0},
        {"name": "q", "metric": "quantile", "column": "salary", "arguments": {"quantile": 0.5}, "mustBeLessThan": 0},
        {"name": "groups", "metric": "rowCount", "groupBy": "who", "fail": "< 10"},
        {"name": "sums", "metric": "sum", "column": "salary", "groupBy": "who", "fail": "> 10"},
    ]
    mesh = mesh_of(tmp_path, binary, columns, rules, table, extra="      quarantine: {limit: 100%}\n")
    text = mesh.run("publish", "lab/t", "--format", "json", expect=REJECTED)
    assert "secret" not in text and "777" not in text
    assert "secret" not in mesh.run("quarantine", "lab/t")
    found = metrics(json.loads(text))
    assert all(not metric["passed"] for metric in found.values() if metric["rule"] == "least") or found["least"].get("error")


def test_flights_refer_to_planes_and_airports(flights):
    """The flights whose tail number is in no plane record, and destinations missing from the airports, are counted."""
    manifest = (FLIGHTS / "domains/operations/products/departures/product.yaml").read_text()
    manifest = manifest.replace("        - name: tailnum\n", "        - name: tailnum\n          references: {to: fleet/registry.aircraft.tailnum, severity: warning}\n")
    manifest = manifest.replace("{name: dest, type: string,", "{name: dest, type: string, references: {to: operations/network.airports.faa, severity: warning},")
    source = FLIGHTS / "domains/operations/products/departures/flights.parquet"
    path = flights.mesh.write("domains/operations/products/counted/product.yaml", manifest.replace("name: departures", "name: counted", 1))
    shutil.copyfile(source, path.parent / "flights.parquet")
    report = flights.mesh.publish("operations/counted", "--dry-run")
    shutil.rmtree(path.parent)
    found = {metric["rule"]: metric for metric in report["tables"][0]["metrics"] if metric["metric"] == "references"}
    parquet = lambda path: f"read_parquet('{FLIGHTS}/domains/{path}')"
    planes = {row["tailnum"] for row in flights.mesh.query_json("SELECT tailnum FROM fleet.registry.aircraft")}
    airports = {row["faa"] for row in flights.mesh.query_json("SELECT faa FROM operations.network.airports")}
    rows = duckdb.sql(f"SELECT tailnum, dest FROM {parquet('operations/products/departures/flights.parquet')}").fetchall()
    assert found["references:tailnum"]["value"] == sum(1 for tail, _ in rows if tail is not None and tail not in planes)
    assert found["references:dest"]["value"] == sum(1 for _, dest in rows if dest not in airports)
    # Against the source data, before rows of it are held back, these are the counts that are known of it.
    raw = "SELECT count(*) FROM {flights} WHERE {column} IS NOT NULL AND {column} NOT IN (SELECT {key} FROM {there})"
    departures = parquet("operations/products/departures/flights.parquet")
    assert duckdb.sql(raw.format(flights=departures, column="tailnum", key="tailnum", there=parquet("fleet/products/registry/planes.parquet"))).fetchone() == (50_094,)
    assert duckdb.sql(raw.format(flights=departures, column="dest", key="faa", there=parquet("operations/products/network/airports.parquet"))).fetchone() == (7_602,)
