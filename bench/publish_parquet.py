"""Publishes TPC-H's lineitem from Parquet, beside DuckDB's plain COPY of the same file. See README.md.

usage: publish_parquet.py [--scale 1] [--runs 3]
"""

import argparse
import json
import shutil
import statistics
import sys

import duckdb
import pyarrow.parquet

from measure import DATA, binary, machine, measure, print_table
from tpch import KEYS, data_type, generate

# What must hold: the greatest share of the CPU seconds of the copy.
PROMISE = 1.5
COPY = "import duckdb, sys; duckdb.connect().execute(sys.argv[1])"


def manifest(file) -> str:
    """Types, a primary key of two columns, and no nulls: what a table without further rules has."""
    lines = ["dataProduct:", "  name: lineitem", "  version: 1.0.0", "  owner: bench-team", "  schema:"]
    lines += ["    - name: lineitem", "      write: replace", f"      source: {file}", "      columns:"]
    for field in pyarrow.parquet.read_schema(file):
        key = "primaryKey: true" if field.name in KEYS["lineitem"] else "required: true"
        lines.append(f"        - {{name: {field.name}, type: '{data_type(field.type)}', {key}}}")
    return "\n".join(lines) + "\n"


def publish(file):
    root = DATA / "parquet-mesh"
    shutil.rmtree(root, ignore_errors=True)
    product = root / "domains" / "tpch" / "products" / "lineitem"
    product.mkdir(parents=True)
    (root / "mesh.yaml").write_text("name: bench\n")
    (root / "domains" / "tpch" / "domain.yaml").write_text("name: tpch\nowner: bench-team\n")
    (product / "product.yaml").write_text(manifest(file))
    cost = measure([str(binary()), "--mesh", str(root), "publish", "tpch/lineitem", "--format", "json"], DATA)
    [table] = json.loads(cost.stdout)["tables"]
    size = sum(part.stat().st_size for part in root.rglob("part-*.parquet"))
    shutil.rmtree(root)
    return cost, table["published"], size


def copy(file):
    out = DATA / "copy.parquet"
    cost = measure([sys.executable, "-c", COPY, f"COPY (SELECT * FROM '{file}') TO '{out}' (FORMAT parquet, COMPRESSION zstd)"], DATA)
    rows, size = pyarrow.parquet.read_metadata(out).num_rows, out.stat().st_size
    out.unlink()
    return cost, rows, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", default="1")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    DATA.mkdir(exist_ok=True)
    file = generate(arguments.scale) / "lineitem.parquet"
    contenders = {"datamesh": publish, f"DuckDB {duckdb.__version__} COPY, no audit": copy}
    costs = {name: [] for name in contenders}
    for _ in range(arguments.runs):
        for name, run in contenders.items():
            costs[name].append(run(file))
    rows, median = [], {}
    for name, runs in costs.items():
        median[name] = {key: statistics.median(getattr(cost, key) for cost, _, _ in runs) for key in ("cpu_seconds", "wall_seconds", "peak_mib")}
        rows.append([name, *median[name].values(), f"{runs[0][1]:,}", runs[0][2] / (1 << 20)])
    print_table(["", "CPU s", "wall s", "peak MiB", "rows written", "written MiB"], rows)
    mine, other = (cost["cpu_seconds"] for cost in median.values())
    print(f"CPU seconds of datamesh over DuckDB's: {mine / other:.2f}")
    (DATA / f"publish-parquet-{arguments.scale}.json").write_text(json.dumps({"machine": machine(), "median": median, "ratio": mine / other}, indent=1))
    written = {runs[0][1] for runs in costs.values()}
    if len(written) > 1:
        sys.exit(f"they wrote different numbers of rows: {written}")
    if mine / other > PROMISE:
        sys.exit(f"datamesh takes {mine / other:.2f} of the CPU seconds of DuckDB's COPY, more than {PROMISE}")


if __name__ == "__main__":
    main()
