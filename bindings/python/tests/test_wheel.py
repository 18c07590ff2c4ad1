"""The wheel in clean virtual environments, of every Python from 3.10 on that the machine has."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from conftest import TRANSACTIONS, write

pytestmark = pytest.mark.wheel

VERSIONS = ["3.10", "3.11", "3.12", "3.13"]

# Nothing but the wheel and what it needs is there: no pyarrow, no pandas.
PROGRAM = """
import sys
from data_mesh_framework import _core

code, _ = _core.command(["init", sys.argv[1], "--domain", "shop"])
assert code == 0, code
session = _core.Session(sys.argv[1])
assert session.command(["show", "--format", "json"]) == (0, "[]\\n")
assert session.query("SELECT 1 AS one").column_names == ["one"]
assert not {"pyarrow", "pandas", "polars", "duckdb"} & set(sys.modules)
print(_core.__version__)
"""


# What a domain team does, with rows as Python has them.
TEAM = """
import sys, importlib.metadata
from data_mesh_framework import Data, DataProduct, Lineage, Mesh, Quality, __version__

assert importlib.metadata.version("data-mesh-framework") == __version__


class Sales(DataProduct):
    def __init__(self):
        super().__init__(domain="sales", name="daily_transactions", version="1.0")


product = Sales()
rows = [{"id": n, "store": "Kiel", "amount": float(n), "note": None} for n in range(10)]
assert product.validate_data(rows)
processed = product.process_data(Data(rows, source="s3://landing/rows.json"))
assert product.publish_data(processed).published == 10
assert product.read().to_pylist() == rows
assert Mesh().query("SELECT sum(amount) AS s FROM sales.daily_transactions.transactions").to_pylist() == [{"s": 45.0}]
assert "s3://landing" in Mesh().lineage("sales/daily_transactions", format="tree")
"""


@pytest.fixture(scope="module")
def wheel():
    folder = os.environ.get("DATAMESH_WHEELS")
    if not folder:
        pytest.skip("NOT CHECKED: DATAMESH_WHEELS names no folder with a wheel; `make test-python` does")
    (found,) = Path(folder).glob("data_mesh_framework-*.whl")
    return found


def python(version):
    """The interpreter of a version, where there is one: on the path, or among those that pyenv has."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for candidate in [f"python{version}", *sorted(pyenv.glob(f"{version}.*/bin/python{version}"))]:
        try:
            # A shim of a version that is not chosen is none.
            found = subprocess.run([candidate, "-c", "import sys; print(sys.executable)"], capture_output=True, text=True)
        except FileNotFoundError:
            continue
        if found.returncode == 0:
            return found.stdout.strip()
    return None


def test_one_wheel_is_for_all_versions(wheel):
    assert "-cp310-abi3-" in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    assert "data_mesh_framework/_core.abi3.so" in names
    assert not [name for name in names if "__pycache__" in name or "mypy_cache" in name]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_wheel_installs_into_a_clean_environment(wheel, tmp_path, version):
    interpreter = python(version)
    if interpreter is None:
        running = ".".join(map(str, sys.version_info[:2]))
        assert version != running
        pytest.skip(f"there is no Python {version} on this machine")
    place = tmp_path / "environment"
    subprocess.run([interpreter, "-m", "venv", place], check=True)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "DATAMESH_", "VIRTUAL_ENV"))}
    subprocess.run([place / "bin" / "python", "-m", "pip", "install", "--quiet", wheel], check=True, env=clean)
    done = subprocess.run([place / "bin" / "python", "-I", "-c", PROGRAM, tmp_path / "mesh"], capture_output=True, text=True, env=clean)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == wheel.name.split("-")[1]
    shop = tmp_path / "shop"
    write(shop, "mesh.yaml", "name: shop\n")
    write(shop, "domains/sales/domain.yaml", "name: sales\nowner: sales-domain\n")
    write(shop, "domains/sales/products/daily_transactions/product.yaml", TRANSACTIONS)
    done = subprocess.run([place / "bin" / "python", "-I", "-c", TEAM], cwd=shop, capture_output=True, text=True, env=clean)
    assert done.returncode == 0, done.stderr
