"""Runs the 22 queries of TPC-H over published tables, and measures them beside plain DataFusion and DuckDB. See README.md.

usage: tpch.py [--scale 1] [--runs 5] [--queries 1,6,14]
"""

import argparse
import decimal
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from measure import DATA, PROJECT, binary, machine, measure, print_table

QUERIES = PROJECT / "crates" / "datamesh-engine" / "src" / "lineage" / "tests" / "tpch"
KEYS = {
    "customer": ["c_custkey"],
    "lineitem": ["l_orderkey", "l_linenumber"],
    "nation": ["n_nationkey"],
    "orders": ["o_orderkey"],
    "part": ["p_partkey"],
    "partsupp": ["ps_partkey", "ps_suppkey"],
    "region": ["r_regionkey"],
    "supplier": ["s_suppkey"],
}
TYPES = {"int64": "long", "int32": "int", "date32[day]": "date", "string": "string", "string_view": "string"}
PRODUCT = "tpch.benchmark"
# What must hold: the greatest share of the CPU seconds of plain DataFusion, by geometric mean of all 22 queries.
PROMISE = 1.05


def generate(scale: str) -> Path:
    """TPC-H's tables as Parquet, made once."""
    folder = DATA / f"tpch-{scale}"
    if not folder.exists():
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        generator = Path(sys.executable).parent / "tpchgen-cli"
        subprocess.run([generator, "parquet", "-s", scale, "--output-dir", part, "--no-progress"], check=True)
        part.rename(folder)
    return folder


def data_type(kind: pa.DataType) -> str:
    if pa.types.is_decimal(kind):
        return f"decimal({kind.precision},{kind.scale})"
    return TYPES[str(kind)]


def manifest(tables: Path) -> str:
    lines = ["dataProduct:", "  name: benchmark", "  version: 1.0.0", "  owner: tpch-team", "  schema:"]
    for table, keys in KEYS.items():
        schema = pyarrow.parquet.read_schema(tables / f"{table}.parquet")
        lines += [f"    - name: {table}", "      write: replace", f"      source: {tables / f'{table}.parquet'}", "      columns:"]
        for field in schema:
            key = ", primaryKey: true" if field.name in keys else ", required: true"
            lines.append(f"        - {{name: {field.name}, type: '{data_type(field.type)}'{key}}}")
    return "\n".join(lines) + "\n"


def publish(tables: Path, scale: str) -> Path:
    root = DATA / f"tpch-mesh-{scale}"
    shutil.rmtree(root, ignore_errors=True)
    product = root / "domains" / "tpch" / "products" / "benchmark"
    product.mkdir(parents=True)
    (root / "mesh.yaml").write_text("name: tpch\n")
    (root / "domains" / "tpch" / "domain.yaml").write_text("name: tpch\nowner: tpch-team\n")
    (product / "product.yaml").write_text(manifest(tables))
    cost = measure([str(binary()), "--mesh", str(root), "publish", "tpch/benchmark", "--format", "json"], DATA)
    rows = sum(table["published"] for table in json.loads(cost.stdout)["tables"])
    print(f"published {rows:,} rows in {cost.cpu_seconds:.1f} CPU seconds, {cost.wall_seconds:.1f} wall, {cost.peak_mib:.0f} MiB", file=sys.stderr)
    return root


DUCKDB = """
import duckdb, json, os, resource, sys, time
mesh, product, runs, answers, *queries = sys.argv[1:]
connection = duckdb.connect()
connection.execute("SET enable_progress_bar = false")
domain, name = product.split(".")
for table in os.listdir(f"{mesh}/warehouse/{domain}/{name}_v1"):
    connection.execute(f"CREATE VIEW {table} AS SELECT * FROM '{mesh}/warehouse/{domain}/{name}_v1/{table}/data/*/*.parquet'")
def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
for path in queries:
    sql = open(path).read().replace("{tables}.", "")
    took = {"cpu": [], "wall": []}
    for run in range(int(runs) + 1):
        before, begun = cpu(), time.perf_counter()
        answer = connection.execute(sql).to_arrow_table()
        if run:
            took["wall"].append(time.perf_counter() - begun)
            took["cpu"].append(cpu() - before)
    query = os.path.basename(path).removesuffix(".sql")
    import pyarrow as pa
    with pa.OSFile(f"{answers}/{query}.arrow", "wb") as out, pa.ipc.new_file(out, answer.schema) as writer:
        writer.write_table(answer)
    print(json.dumps({"query": query, **took, "rows": answer.num_rows}))
"""


def qualified(query: Path, folder: Path) -> Path:
    """The query with `{tables}.` before the name of each table."""
    names = "|".join(KEYS)
    text = re.sub(rf"(?i)(\bfrom\s+|\bjoin\s+|,\s*)({names})\b(?!\s*\.)", r"\1{tables}.\2", query.read_text())
    path = folder / query.name
    path.write_text(text)
    return path


def run(contenders: dict, mesh: Path, runs: int, queries: dict[str, list[Path]], prefix: str = "") -> tuple[dict, dict]:
    """What each takes for each of its queries. A query meets all of them one after the other, as a slow minute does."""
    results = {name: {"queries": {}, "peak_mib": 0.0} for name in contenders}
    answers = {name: DATA / f"answers-{prefix}{name.replace(' ', '-')}" for name in contenders}
    for folder in answers.values():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    for paths in zip(*(queries[name] for name in contenders)):
        for (name, command), path in zip(contenders.items(), paths):
            cost = measure([*command, str(mesh), PRODUCT, str(runs), str(answers[name]), str(path)], DATA)
            line = json.loads(cost.stdout)
            results[name]["queries"][line["query"]] = {key: statistics.median(line[key]) for key in ("cpu", "wall")}
            results[name]["peak_mib"] = max(results[name]["peak_mib"], cost.peak_mib)
    return results, answers


def same(left: object, right: object) -> bool:
    if isinstance(left, (int, float, decimal.Decimal)) and isinstance(right, (int, float, decimal.Decimal)):
        return math.isclose(float(left), float(right), rel_tol=1e-6, abs_tol=1e-4)
    return left == right


def compare(query: str, left: Path, right: Path) -> str | None:
    """Rows in order where the query orders them; ties and unordered answers are compared as sorted rows."""
    tables = [pa.ipc.open_file(path / f"{query}.arrow").read_all() for path in (left, right)]
    rows = [sorted(zip(*(column.to_pylist() for column in table.columns)), key=lambda row: tuple(f"{cell:.3f}" if isinstance(cell, (float, decimal.Decimal)) else str(cell) for cell in row)) for table in tables]
    if len(rows[0]) != len(rows[1]):
        return f"{len(rows[0])} rows, not {len(rows[1])}"
    for one, other in zip(*rows):
        if not all(same(a, b) for a, b in zip(one, other)):
            return f"{one} is not {other}"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", default="1")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--queries", help="numbers, such as 1,6,14; default: all")
    parser.add_argument("--keep", action="store_true", help="use the tables that the last run published")
    arguments = parser.parse_args()
    DATA.mkdir(exist_ok=True)
    harness = os.environ.get("DATAMESH_BENCH_QUERIES") or str(binary().parent / "bench_queries")
    mesh = DATA / f"tpch-mesh-{arguments.scale}"
    if not (arguments.keep and mesh.exists()):
        mesh = publish(generate(arguments.scale), arguments.scale)
    wanted = arguments.queries.split(",") if arguments.queries else [str(number) for number in range(1, 23)]
    folder = DATA / "tpch-queries"
    folder.mkdir(exist_ok=True)
    queries = [qualified(QUERIES / f"q{int(number):02}.sql", folder) for number in wanted]
    contenders = {
        "datamesh": [harness, "mesh"],
        "DataFusion 54.1": [harness, "datafusion"],
        f"DuckDB {duckdb.__version__}": [sys.executable, "-c", DUCKDB],
    }
    results, answers = run(contenders, mesh, arguments.runs, {name: queries for name in contenders})
    first, plain, duck = contenders
    wrong = []
    for query in results[first]["queries"]:
        for other in (plain, duck):
            if why := compare(query, answers[first], answers[other]):
                wrong.append(f"{query}: datamesh and {other} differ: {why}")
    ratios: dict = {kind: {other: [] for other in (plain, duck)} for kind in ("cpu", "wall")}
    rows = []
    for query in results[first]["queries"]:
        mine = results[first]["queries"][query]
        for kind in ratios:
            for other in (plain, duck):
                ratios[kind][other].append(mine[kind] / max(results[other]["queries"][query][kind], 1e-9))
        rows.append([query, *(results[name]["queries"][query]["cpu"] for name in contenders), ratios["cpu"][plain][-1], ratios["cpu"][duck][-1]])
    geometric = {kind: {other: statistics.geometric_mean(values) for other, values in by.items()} for kind, by in ratios.items()}
    print_table(["query", *(f"{name}, CPU s" for name in contenders), f"of {plain}", f"of {duck}"], rows)
    for kind, by in geometric.items():
        print(f"{kind}: " + ", ".join(f"{ratio:.3f} of {other}" for other, ratio in by.items()) + " (geometric mean)")
    print("peak MiB: " + ", ".join(f"{name} {result['peak_mib']:.0f}" for name, result in results.items()))
    (DATA / f"tpch-{arguments.scale}.json").write_text(json.dumps({"machine": machine(), "results": results, "geometric": geometric, "wrong": wrong}, indent=1))
    if len(wanted) == 22 and geometric["cpu"][plain] > PROMISE:
        wrong.append(f"{geometric['cpu'][plain]:.3f} of the CPU seconds of {plain}, more than {PROMISE}")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
