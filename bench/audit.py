"""Judges TPC-H's lineitem by 20 checks, beside other tools with the same checks. See README.md.

usage: audit.py --data FOLDER [--peers FOLDER] [--kind clean|dirty] [--runs 3] [--only datamesh,duckdb]
"""

import argparse
import json
import os
import shutil
import statistics
import sys
from pathlib import Path

from measure import DATA, binary, machine, measure, print_table

MANIFEST = """\
dataProduct:
  name: lineitem
  version: 1.0.0
  owner: bench-team
  schema:
    - name: lineitem
      write: replace
      columns:
        - {name: l_orderkey, type: long, required: true, references: tpch/orders.orders.o_orderkey}
        - {name: l_partkey, type: long, required: true}
        - {name: l_suppkey, type: long, required: true, quality: [{name: C20, metric: distinctCount, mustBeBetween: [10, 10000000]}]}
        - {name: l_linenumber, type: int}
        - {name: l_quantity, type: double, minimum: 1, maximum: 50}
        - {name: l_extendedprice, type: double, quality: [{name: C17, metric: mean, mustBeBetween: [30000, 45000]}]}
        - {name: l_discount, type: double, minimum: 0, maximum: 0.10}
        - {name: l_tax, type: double, minimum: 0, maximum: 0.08}
        - {name: l_returnflag, type: string, enum: [A, N, R]}
        - {name: l_linestatus, type: string, enum: [O, F]}
        - {name: l_shipdate, type: date, required: true}
        - {name: l_commitdate, type: date}
        - {name: l_receiptdate, type: date}
        - {name: l_shipinstruct, type: string, enum: [COLLECT COD, DELIVER IN PERSON, NONE, TAKE BACK RETURN]}
        - {name: l_shipmode, type: string, enum: [AIR, FOB, MAIL, RAIL, REG AIR, SHIP, TRUCK]}
        - {name: l_comment, type: string, pattern: '^[^0-9]+$', minLength: 10, maxLength: 43}
      unique: [[l_orderkey, l_linenumber]]
      quality:
        - {name: C01, metric: rowCount, mustBeGreaterOrEqualTo: 1000}
        - {name: C16, condition: l_receiptdate >= l_shipdate}
        - {name: C18, metric: rowCount, where: "l_shipdate >= DATE '1998-01-01'", mustBeGreaterThan: 0}
      quarantine: {limit: 100%}
"""

ORDERS = """\
dataProduct:
  name: orders
  version: 1.0.0
  owner: bench-team
  schema:
    - name: orders
      write: replace
      columns:
        - {name: o_orderkey, type: long, primaryKey: true}
"""

# The check of each rule of the report; where a tool counts other things than rows that are held back, only the verdicts are compared.
RULES = {
    "required:l_orderkey": "C02",
    "required:l_partkey": "C03",
    "required:l_suppkey": "C04",
    "required:l_shipdate": "C05",
    "unique:l_orderkey+l_linenumber": "C06",
    "minimum:l_quantity": "C07",
    "maximum:l_quantity": "C07",
    "minimum:l_discount": "C08",
    "maximum:l_discount": "C08",
    "minimum:l_tax": "C09",
    "maximum:l_tax": "C09",
    "enum:l_returnflag": "C10",
    "enum:l_linestatus": "C11",
    "enum:l_shipmode": "C12",
    "enum:l_shipinstruct": "C13",
    "pattern:l_comment": "C14",
    "minLength:l_comment": "C15",
    "maxLength:l_comment": "C15",
    "condition:C16": "C16",
    "references:l_orderkey": "C19",
}
METRICS = ["C01", "C17", "C18", "C20"]
# A doubled key holds back every row that has it; others count the rows beyond the first.
COUNTED_OTHERWISE = {"C06", *METRICS}

PEERS = {
    "DuckDB SQL by hand": ("", "peer_duckdb.py", {}),
    "DataFusion SQL by hand": ("", "peer_datafusion.py", {}),
    "Soda": ("-soda", "peer_soda.py", {}),
    "datacontract-cli": ("-dcc", "peer_datacontract_cli.py", {}),
    "pandera, Polars": ("-pandera", "peer_pandera_polars.py", {}),
    "pointblank, Polars": ("-misc", "peer_pointblank.py", {}),
    "Great Expectations, DuckDB": ("-gx", "peer_gx.py", {"ENGINE": "duckdb"}),
}

# What must hold: the greatest share of a peer's CPU seconds, and the greatest peak of memory.
PROMISES = {"DataFusion SQL by hand": 1.0, "Great Expectations, DuckDB": 0.25}
PEAK_LIMIT_MIB = 2048


def prepare(data: Path) -> Path:
    """A mesh with the orders published: what the others read as a file."""
    root = DATA / "audit-mesh"
    shutil.rmtree(root, ignore_errors=True)
    for name, manifest in {"orders": ORDERS, "lineitem": MANIFEST}.items():
        folder = root / "domains" / "tpch" / "products" / name
        folder.mkdir(parents=True)
        (folder / "product.yaml").write_text(manifest)
    (root / "mesh.yaml").write_text("name: audit\n")
    (root / "domains" / "tpch" / "domain.yaml").write_text("name: tpch\nowner: bench-team\n")
    measure([str(binary()), "--mesh", str(root), "publish", "tpch/orders", f"orders={data / 'orders.parquet'}"], DATA)
    return root


def judge(root: Path, file: Path) -> tuple:
    cost = measure([str(binary()), "--mesh", str(root), "explain", "tpch/lineitem", f"lineitem={file}", "--format", "json"], DATA)
    [table] = json.loads(cost.stdout)["tables"]
    results = {check: {"ok": True, "bad": 0} for check in RULES.values()}
    for rule, count in table["reasons"].items():
        results[RULES[rule]]["bad"] += count["rows"]
        results[RULES[rule]]["ok"] = False
    for metric in table["metrics"]:
        results[metric["rule"]] = {"ok": metric["passed"], "bad": None}
    return cost, results


def run_peer(peers: Path, name: str, data: Path, kind: str) -> tuple:
    suffix, script, environment = PEERS[name]
    venv = os.environ.get("DQ_VENV", str(peers / ".venv")) + suffix
    for key, value in {**environment, "GX_ANALYTICS_ENABLED": "false"}.items():
        os.environ[key] = value
    cost = measure([f"{venv}/bin/python", str(peers / script), str(data), kind], peers)
    line = next(line for line in cost.stdout.splitlines() if line.startswith("{"))
    return cost, json.loads(line)["results"], json.loads(line)["version"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with lineitem_clean.parquet, lineitem_dirty.parquet and orders.parquet")
    parser.add_argument("--peers", type=Path, help="folder of the other tools' programs; each has its own virtual environment, .venv…, there or at DQ_VENV")
    parser.add_argument("--kind", choices=["clean", "dirty"], default="dirty")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", help="parts of names, such as datamesh,duckdb")
    arguments = parser.parse_args()
    DATA.mkdir(exist_ok=True)
    data = arguments.data.resolve()
    root = prepare(data)
    file = data / f"lineitem_{arguments.kind}.parquet"
    wanted = [word.lower() for word in arguments.only.split(",")] if arguments.only else [""]
    names = [name for name in ("datamesh", *(PEERS if arguments.peers else ())) if any(word in name.lower() for word in wanted)]
    costs: dict[str, list] = {name: [] for name in names}
    found, versions = {}, {"datamesh": measure([str(binary()), "--version"], DATA).stdout.strip().split()[-1]}
    for _ in range(arguments.runs):
        # Side by side, so that a slow minute of the machine meets all of them.
        for name in names:
            if name == "datamesh":
                cost, found[name] = judge(root, file)
            else:
                cost, found[name], versions[name] = run_peer(arguments.peers.resolve(), name, data, arguments.kind)
            costs[name].append(cost)
    median = {name: {key: statistics.median(getattr(cost, key) for cost in runs) for key in ("cpu_seconds", "wall_seconds", "peak_mib")} for name, runs in costs.items()}
    mine = median.get("datamesh", {}).get("cpu_seconds", float("nan"))
    rows, wrong = [], []
    for name in names:
        cost = median[name]
        failed = sorted(check for check, result in found[name].items() if not result["ok"])
        rows.append([f"{name} {versions[name]}", cost["cpu_seconds"], cost["wall_seconds"], cost["peak_mib"], mine / cost["cpu_seconds"], len(found[name]), len(failed)])
        for check, result in found[name].items():
            own = found.get("datamesh", {}).get(check)
            if own is None:
                continue
            if own["ok"] != result["ok"]:
                wrong.append(f"{check}: datamesh says {own}, {name} says {result}")
            counted = result["bad"] is not None and check not in COUNTED_OTHERWISE and name.endswith("by hand")
            if counted and own["bad"] != result["bad"]:
                wrong.append(f"{check}: datamesh counts {own['bad']}, {name} {result['bad']}")
    print_table(["", "CPU s", "wall s", "peak MiB", "datamesh's CPU of its", "checks", "failed"], rows)
    report = {"machine": machine(), "file": file.name, "versions": versions, "median": median, "results": found}
    (DATA / f"audit-{data.name}-{arguments.kind}.json").write_text(json.dumps(report, indent=1, default=str))
    if "datamesh" in median:
        for name, promise in PROMISES.items():
            if name in median and mine / median[name]["cpu_seconds"] > promise:
                wrong.append(f"{mine / median[name]['cpu_seconds']:.2f} of the CPU seconds of {name}, more than {promise}")
        if median["datamesh"]["peak_mib"] > PEAK_LIMIT_MIB:
            wrong.append(f"peak memory {median['datamesh']['peak_mib']:,.0f} MiB, more than {PEAK_LIMIT_MIB}")
    if wrong:
        sys.exit("\n".join(wrong))
    print("verdicts agree, and what was measured is within the promises")


if __name__ == "__main__":
    main()
