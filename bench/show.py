"""How long `datamesh show` takes on the published demo mesh. See README.md.

usage: show.py [--runs N]
"""

import argparse
import json
import shutil
import statistics
import sys

from measure import DATA, PROJECT, binary, machine, measure, print_table

LIMIT_MS = 50
EXAMPLE = PROJECT / "examples" / "flights"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=50)
    arguments = parser.parse_args()

    DATA.mkdir(exist_ok=True)
    root = DATA / "flights"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(EXAMPLE, root, ignore=shutil.ignore_patterns(".datamesh", "warehouse"))
    datamesh = [str(binary()), "--mesh", str(root)]
    products = sorted(f"{path.parents[2].name}/{path.parent.name}" for path in root.glob("domains/*/products/*/product.yaml"))
    for product in products:
        measure([*datamesh, "publish", product, "--format", "json"], DATA)

    result, lines, slow = {"machine": machine(), "runs": arguments.runs}, [], []
    for words in (["show"], ["show", "weather/observations"], ["show", "weather/observations", "--format", "json"]):
        times = sorted(measure([*datamesh, *words], DATA).wall_seconds * 1000 for _ in range(arguments.runs))
        median, name = statistics.median(times), " ".join(words)
        result[name] = {"median_ms": round(median, 2), "least_ms": round(times[0], 2), "p95_ms": round(times[int(0.95 * (len(times) - 1))], 2)}
        lines.append([f"datamesh {name}", *result[name].values()])
        if median >= LIMIT_MS:
            slow.append(name)
    shutil.rmtree(root)

    print_table(["", "median ms", "least ms", "95% ms"], lines)
    print(json.dumps(result, indent=2))
    print(f"FAILED: {slow} take {LIMIT_MS} ms or more" if slow else f"ok     every median is below {LIMIT_MS} ms")
    sys.exit(1 if slow else 0)


if __name__ == "__main__":
    main()
