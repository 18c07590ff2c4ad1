"""Plans a mesh of many products, of which nothing has changed, and measures it.

Usage: DATAMESH_BIN=target/release/datamesh bench/plan.py [--products 10000] [--columns 10]

Fails where the fastest plan without changes takes 2 seconds, or any has 500 MB.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

COLUMN = "        - {{name: c{n}, type: '{type}', description: Column {n}{more}}}"
TYPES = ["long", "string", "double", "date", "timestamp", "decimal(12,2)", "boolean", "int", "string", "string"]
PER_DOMAIN = 100
MAX_SECONDS, MAX_MEGABYTES = 2.0, 500


def manifest(number: int, columns: int) -> str:
    rows = [
        COLUMN.format(n=n, type=TYPES[n % len(TYPES)], more=", primaryKey: true" if n == 0 else ", required: true")
        for n in range(columns)
    ]
    # Each product but the first of a domain reads the one before it.
    inputs = f"  inputs: [d{number // PER_DOMAIN}/p{number - 1}@^1]\n" if number % PER_DOMAIN else ""
    return (
        f"dataProduct:\n  name: p{number}\n  version: 1.0.0\n  owner: team-{number // PER_DOMAIN}\n"
        f"  description: Product {number} of a generated mesh\n{inputs}"
        "  schema:\n    - name: rows\n      quality: [rowCount > 0]\n      columns:\n" + "\n".join(rows) + "\n"
    )


def generate(root: Path, products: int, columns: int) -> None:
    (root / "mesh.yaml").write_text("name: generated\n")
    for number in range(products):
        domain = root / "domains" / f"d{number // PER_DOMAIN}"
        folder = domain / "products" / f"p{number}"
        folder.mkdir(parents=True)
        if number % PER_DOMAIN == 0:
            (domain / "domain.yaml").write_text(f"name: d{number // PER_DOMAIN}\nowner: team\n")
        (folder / "product.yaml").write_text(manifest(number, columns))


def measure(command: list[str], root: Path) -> dict:
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} exits {process.returncode}\n{output[-2000:]}")
    return {
        "seconds": time.monotonic() - began,
        "cpu": usage.ru_utime + usage.ru_stime,
        "megabytes": usage.ru_maxrss / 1024,
        "output": output,
    }


def main() -> None:
    project = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("DATAMESH_BIN", project / "target" / "release" / "datamesh")
    parser.add_argument("--binary", type=Path, default=Path(default))
    parser.add_argument("--products", type=int, default=10_000)
    parser.add_argument("--columns", type=int, default=10)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    binary = str(arguments.binary.resolve())
    root = Path(tempfile.mkdtemp(prefix="datamesh-plan-"))
    try:
        generate(root, arguments.products, arguments.columns)
        print(f"{arguments.products} products, {arguments.products * arguments.columns} columns")
        steps = [("plan, all new", ["plan", "--format", "json"]), ("apply", ["apply", "--format", "json"])]
        steps += [("plan, no change", ["plan"])] * arguments.runs
        measured = []
        for name, command in steps:
            done = measure([binary, *command], root)
            measured.append({"step": name} | {key: round(done[key], 3) for key in ("seconds", "cpu", "megabytes")})
            print(f"{name:18} {done['seconds']:6.2f} s  {done['cpu']:6.2f} s CPU  {done['megabytes']:6.0f} MB")
        assert "nothing to do" in done["output"], done["output"]
        print(json.dumps({"products": arguments.products, "columns": arguments.columns, "steps": measured}))
        unchanged = [step for step in measured if step["step"] == "plan, no change"]
        seconds, megabytes = min(step["seconds"] for step in unchanged), max(step["megabytes"] for step in unchanged)
        if seconds >= MAX_SECONDS or megabytes >= MAX_MEGABYTES:
            raise SystemExit(f"a plan without changes took {seconds} s and {megabytes} MB")
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
