"""What the tests of sources share: a product with one table, and what a command says."""

import os
import subprocess
from pathlib import Path

from mesh import Mesh

PRODUCT = "lab/pull"
FOLDER = "domains/lab/products/pull"


def define(mesh: Mesh, source: str, columns: str, more: str = "", write: str = "append",
           version: str = "1.0.0") -> Path:
    """Writes the product's manifest. `source` and `columns` are YAML, `more` further lines of the table."""
    lines = [
        "dataProduct:",
        "  name: pull",
        f"  version: {version}",
        "  owner: lab-team",
        "  schema:",
        "    - name: rows",
        f"      write: {write}",
        *([f"      source: {source}"] if source else []),
        *[f"      {line}" for line in more.splitlines()],
        "      columns:",
        *[f"        - {line.strip()}" for line in columns.strip().splitlines()],
    ]
    return mesh.write(f"{FOLDER}/product.yaml", "\n".join(lines) + "\n")


def command(mesh: Mesh, *arguments: str, stdin: bytes | None = None, fault: str = "", **environment: str) -> subprocess.CompletedProcess:
    """Runs a command whatever it says; its output is text."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("DATAMESH_")}
    if fault:
        inherited["DATAMESH_FAULT"] = fault
    done = subprocess.run([str(mesh.binary), "--mesh", str(mesh.root), *arguments], cwd=mesh.root, input=stdin,
                          env=inherited | environment, capture_output=True, timeout=300)
    done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
    return done


def failure(mesh: Mesh, *arguments: str, **environment: str) -> str:
    """What a command that fails says."""
    mesh.keep_up()
    done = command(mesh, *arguments, **environment)
    assert done.returncode not in (0, 3, 101), (done.returncode, done.stdout, done.stderr)
    assert "panicked" not in done.stderr, done.stderr
    return done.stderr


def rows(mesh: Mesh, columns: str = "*", order: str = "1") -> list[dict]:
    return mesh.query_json(f"SELECT {columns} FROM lab.pull.rows ORDER BY {order}")


def counts(report: dict) -> tuple[int, int, int]:
    table = report["tables"][0]
    assert table["in"] == table["published"] + table["quarantined"]
    return table["in"], table["published"], table["quarantined"]


def quarantined(mesh: Mesh) -> list[dict]:
    return mesh.json("quarantine", PRODUCT)
