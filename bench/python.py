"""Checks and publishes a large table from Python, and measures memory beside the table's own size, and time beside the command
line's with the same rows as an Arrow file. See README.md.

usage: python.py [--rows N] [--keep]

The wheel of a release build must be installed in the interpreter that runs this; `make bench` sees to it.
"""

import argparse
import json
import resource
import shutil
import sys
import time
from pathlib import Path

from measure import DATA, MIB, Cost, binary, machine, measure, print_table

# Part of the file's name: raise it when the rows change.
GENERATION = 1
# What the issue asks for, of the number of rows that it names.
ROWS = 10_000_000
PEAK_LIMIT = 2.0
OVERHEAD_LIMIT = 0.05

MANIFEST = """\
dataProduct:
  name: orders
  version: 1.0.0
  owner: bench-team
  schema:
    - name: orders
      write: replace
      columns:
        - {name: id, type: long, primaryKey: true}
        - {name: customer, type: string, required: true}
        - {name: country, type: string, enum: [AT, BE, CH, DE, FR, GB, IT, NL, PL, SE]}
        - {name: amount, type: 'decimal(10,2)', required: true, minimum: 0}
        - {name: created, type: timestamp, required: true}
        - {name: email, type: string, pattern: '^[^@ ]+@[^@ ]+$'}
        - {name: score, type: double, minimum: 0, maximum: 100}
"""

# Every rule is broken by a row now and then; the divisors are primes.
ROWS_SQL = """
SELECT i AS id,
    CASE WHEN i % 10069 = 7 THEN NULL ELSE 'customer ' || (i * 7919 % 1000003) END AS customer,
    CASE WHEN i % 10009 = 2 THEN 'XX' ELSE ['AT','BE','CH','DE','FR','GB','IT','NL','PL','SE'][1 + i % 10] END AS country,
    CAST((i * 31 % 100000) / 100.0 - CASE WHEN i % 10007 = 1 THEN 100000 ELSE 0 END AS DECIMAL(10, 2)) AS amount,
    TIMESTAMPTZ '2026-01-01 00:00:00+00' + to_seconds(i % 31536000) AS created,
    CASE WHEN i % 10037 = 3 THEN 'nobody' ELSE 'c' || (i % 1000003) || '@example.org' END AS email,
    (i * 17 % 1000) / 10.0 AS score
FROM range({rows}) t(i)
"""


def rows_file(rows: int) -> Path:
    """The rows as an Arrow file, made once."""
    import duckdb
    import pyarrow as pa

    path = DATA / f"orders-{GENERATION}-{rows}.arrow"
    if path.exists():
        return path
    DATA.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    reader = connection.sql(ROWS_SQL.format(rows=rows)).to_arrow_reader(122_880)
    with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
    part.rename(path)
    return path


def new_mesh(folder: Path) -> Path:
    """An empty mesh with the product."""
    shutil.rmtree(folder, ignore_errors=True)
    product = folder / "domains" / "shop" / "products" / "orders"
    product.mkdir(parents=True)
    (folder / "mesh.yaml").write_text("name: bench\nowner: bench-team\n")
    (folder / "domains" / "shop" / "domain.yaml").write_text("name: shop\nowner: bench-team\n")
    (product / "product.yaml").write_text(MANIFEST)
    return folder


def child(what: str, mesh: Path, path: Path) -> None:
    """One measured run; prints the table's size, and what the work alone took."""
    import pyarrow as pa

    from data_mesh_framework import _core

    with pa.OSFile(str(path), "rb") as source, pa.ipc.open_file(source) as file:
        if what == "stream":
            data, size = pa.RecordBatchReader.from_batches(file.schema, (file.get_batch(at) for at in range(file.num_record_batches))), 0
        else:
            data = file.read_all()
            size = data.nbytes
        before, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        if what == "check":
            report, failing = _core.check(MANIFEST, "orders", data)
            counted = json.loads(report)
            found = {"rows": counted["rows"], "failed": counted["failed"]}
            if pa.table(failing).num_rows != found["failed"]:
                sys.exit("the failing rows are not all there")
        else:
            report = json.loads(_core.Session(str(mesh)).publish("shop/orders", {"orders": data}, {}))
            table = report["tables"][0]
            if report["status"] != "published":
                sys.exit(f"not published: {report['because']}")
            found = {"rows": table["in"], "failed": table["quarantined"]}
        after, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - begun
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"arrow_bytes": size, "cpu_seconds": cpu, "wall_seconds": wall, **found}))


def run(what: str, mesh: Path, path: Path) -> tuple[Cost, dict]:
    cost = measure([sys.executable, __file__, "--child", what, str(mesh), str(path)], cwd=mesh)
    return cost, json.loads(cost.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--keep", action="store_true", help="keep the rows and the mesh")
    arguments = parser.parse_args()
    path = rows_file(arguments.rows)
    folder = DATA / "python-mesh"
    line = measure([str(binary()), "publish", "shop/orders", f"orders={path}", "--format", "json"], cwd=new_mesh(folder))
    told = json.loads(line.stdout)["tables"][0]
    results = {what: run(what, new_mesh(folder), path) for what in ("publish", "check", "stream")}
    for what, (_, found) in results.items():
        if (found["rows"], found["failed"]) != (told["in"], told["quarantined"]):
            sys.exit(f"{what} counts {found}, the command line {told['in']} and {told['quarantined']}")
    size = results["publish"][1]["arrow_bytes"] / MIB
    table = [["command line", line.wall_seconds, line.cpu_seconds, line.peak_mib, "-"]]
    for what, (cost, found) in results.items():
        ratio = "-" if what == "stream" else f"{cost.peak_mib / size:.2f}"
        table.append([f"Python, {what}", found["wall_seconds"], found["cpu_seconds"], cost.peak_mib, ratio])
    print(f"{arguments.rows:,} rows, {size:,.0f} MiB as Arrow, {told['quarantined']:,} of them faulty, {json.dumps(machine())}\n")
    print_table(["", "wall s", "CPU s", "peak MiB", "peak / Arrow"], table)
    overhead = results["publish"][1]["cpu_seconds"] / line.cpu_seconds - 1
    print(f"\nCPU of publishing from Python beside the command line's: {overhead:+.1%}")
    if not arguments.keep:
        shutil.rmtree(folder)
        path.unlink()
    if arguments.rows < ROWS:
        print("too few rows to judge")
        return 0
    missed = [f"{what}: peak {cost.peak_mib / size:.2f} times the table" for what, (cost, _) in results.items() if what != "stream" and cost.peak_mib >= PEAK_LIMIT * size]
    if overhead >= OVERHEAD_LIMIT:
        missed.append(f"publish: {overhead:.1%} more CPU than the command line")
    for miss in missed:
        print(f"missed: {miss}")
    return 1 if missed else 0


if __name__ == "__main__":
    if len(sys.argv) == 5 and sys.argv[1] == "--child":
        child(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
        sys.exit(0)
    sys.exit(main())
