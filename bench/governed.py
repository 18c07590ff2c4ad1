"""Runs the 22 queries of TPC-H governed, and measures them beside the same in clear. See README.md.

Every table has a row filter that all its rows meet, and masks on the columns that no query looks at. Twice: with filters that
the bounds of the files settle, and with ones that must be evaluated for each row.

usage: governed.py [--scale 1] [--runs 5] [--queries 1,6,14] [--keep]
"""

import argparse
import json
import os
import statistics
import sys

from measure import DATA, binary, machine, print_table
from tpch import KEYS, QUERIES, compare, generate, publish, qualified, run

PROMISE = 1.05
MASKS = {
    "lineitem": {"l_comment": "redact"},
    "orders": {"o_clerk": "hash"},
    "part": {"p_comment": "partial(0, 2)", "p_retailprice": "bucket(100)"},
    "partsupp": {"ps_comment": "null"},
    "nation": {"n_comment": "hash"},
    "region": {"r_comment": "redact"},
}
SETTLED = {table: (f"{keys[0]} >= principal.least", {"least": {"long": 0}}) for table, keys in KEYS.items()}
EVALUATED = {
    "lineitem": ("l_linestatus IN principal.all", ["F", "O"]),
    "orders": ("o_orderstatus IN principal.all", ["F", "O", "P"]),
    "customer": ("c_mktsegment IN principal.all", ["AUTOMOBILE", "BUILDING", "FURNITURE", "HOUSEHOLD", "MACHINERY"]),
    "part": ("p_mfgr IN principal.all", [f"Manufacturer#{number}" for number in range(1, 6)]),
    "partsupp": ("ps_availqty <> principal.none", None),
    "supplier": ("s_nationkey <> principal.none", None),
    "nation": ("n_regionkey <> principal.none", None),
    "region": ("r_regionkey <> principal.none", None),
}


def access(table: str, condition: str, attributes: dict) -> dict:
    return {"rows": {"condition": condition, "attributes": attributes}, "masks": MASKS.get(table, {})}


def decisions(kind: str) -> dict:
    if kind == "settled":
        return {table: access(table, *SETTLED[table]) for table in KEYS}
    return {
        table: access(table, condition, {"all": {"strings": values}} if values else {"none": {"long": -1}})
        for table, (condition, values) in EVALUATED.items()
    }


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
    contenders = {"clear": [harness, "mesh"]}
    for kind in ("settled", "evaluated"):
        path = DATA / f"governed-{kind}.json"
        path.write_text(json.dumps(decisions(kind)))
        contenders[kind] = [harness, f"governed:{path}"]
    results, answers = {}, {}
    for name, command in contenders.items():
        results[name], answers[name] = run(f"governed-{name}", command, mesh, arguments.runs, queries)
    clear, *governed = contenders
    wrong, rows = [], []
    ratios: dict = {kind: {name: [] for name in governed} for kind in ("cpu", "wall")}
    for query, plain in results[clear]["queries"].items():
        row = [query, plain["cpu"]]
        for name in governed:
            if why := compare(query, answers[clear], answers[name]):
                wrong.append(f"{query}: {name} differs from clear: {why}")
            mine = results[name]["queries"][query]
            for kind, by in ratios.items():
                by[name].append(mine[kind] / max(plain[kind], 1e-9))
            row += [mine["cpu"], ratios["cpu"][name][-1]]
        rows.append(row)
    geometric = {kind: {name: statistics.geometric_mean(values) for name, values in by.items()} for kind, by in ratios.items()}
    heads = [head for name in governed for head in (f"{name}, CPU s", "of clear")]
    print_table(["query", "clear, CPU s", *heads], rows)
    for kind, by in geometric.items():
        print(f"{kind}: " + ", ".join(f"{name} {ratio:.3f} of clear" for name, ratio in by.items()) + " (geometric mean)")
    found = {"machine": machine(), "results": results, "geometric": geometric, "wrong": wrong}
    (DATA / f"governed-{arguments.scale}.json").write_text(json.dumps(found, indent=1))
    if geometric["cpu"]["settled"] > PROMISE:
        wrong.append(f"governed takes {geometric['cpu']['settled']:.3f} of the CPU seconds in clear, more than {PROMISE}")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
