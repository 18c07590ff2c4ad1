"""Runs the 22 queries of TPC-H governed, and measures them beside the same in clear. See README.md.

Every table has a row filter that all its rows meet, and masks on the columns that no query looks at. Twice: with filters that
the bounds of the files settle, beside the queries as they are, and with ones that must be evaluated for each row, beside the
same queries in clear with the same conditions written into them by hand.

usage: governed.py [--scale 1] [--runs 5] [--queries 1,6,14] [--keep]
"""

import argparse
import json
import os
import re
import statistics
import sys
from pathlib import Path

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


def by_hand(query: Path, folder: Path) -> Path:
    """The query over the rows that the evaluated filters admit, each table's condition in a common table expression."""
    values = lambda words: "(" + ", ".join(f"'{word}'" for word in words) + ")"
    text, filtered = query.read_text(), []
    for table, (condition, words) in EVALUATED.items():
        if re.search(rf"(?i)\b{table}\b", text):
            condition = condition.replace("principal.all", values(words or [])).replace("principal.none", "-1")
            filtered.append(f"{table} AS (SELECT * FROM {{tables}}.{table} WHERE {condition})")
    begun = re.match(r"(?i)\s*with\s", text)
    path = folder / query.name
    path.write_text(f"WITH {', '.join(filtered)}" + (", " + text[begun.end():] if begun else " " + text))
    return path


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
    by_hand_folder = DATA / "tpch-queries-by-hand"
    by_hand_folder.mkdir(exist_ok=True)
    plain_queries = [QUERIES / f"q{int(number):02}.sql" for number in wanted]
    queries = [qualified(query, folder) for query in plain_queries]
    filtered = [by_hand(query, by_hand_folder) for query in plain_queries]
    contenders = {"clear": [harness, "mesh"], "by hand": [harness, "mesh"]}
    for kind in ("settled", "evaluated"):
        path = DATA / f"governed-{kind}.json"
        path.write_text(json.dumps(decisions(kind)))
        contenders[kind] = [harness, f"governed:{path}"]
    texts = {name: filtered if name == "by hand" else queries for name in contenders}
    results, answers = run(contenders, mesh, arguments.runs, texts, "governed-")
    beside = {"settled": "clear", "evaluated": "by hand"}
    wrong, rows = [], []
    ratios: dict = {kind: {name: [] for name in beside} for kind in ("cpu", "wall")}
    for query in results["clear"]["queries"]:
        row = [query]
        for name, plain in beside.items():
            mine, other = results[name]["queries"][query], results[plain]["queries"][query]
            for kind, by in ratios.items():
                by[name].append(mine[kind] / max(other[kind], 1e-9))
            row += [other["cpu"], mine["cpu"], ratios["cpu"][name][-1]]
        for name in (*beside, "by hand"):
            if why := compare(query, answers["clear"], answers[name]):
                wrong.append(f"{query}: {name} differs from clear: {why}")
        rows.append(row)
    geometric = {kind: {name: statistics.geometric_mean(values) for name, values in by.items()} for kind, by in ratios.items()}
    heads = [head for name, plain in beside.items() for head in (f"{plain}, CPU s", f"{name}, CPU s", "ratio")]
    print_table(["query", *heads], rows)
    for kind, by in geometric.items():
        print(f"{kind}: " + ", ".join(f"{name} {ratio:.3f} of {beside[name]}" for name, ratio in by.items()) + " (geometric mean)")
    found = {"machine": machine(), "results": results, "geometric": geometric, "wrong": wrong}
    (DATA / f"governed-{arguments.scale}.json").write_text(json.dumps(found, indent=1))
    for name, ratio in geometric["cpu"].items():
        if ratio > PROMISE:
            wrong.append(f"{name}: governed takes {ratio:.3f} of the CPU seconds {beside[name]}, more than {PROMISE}")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
