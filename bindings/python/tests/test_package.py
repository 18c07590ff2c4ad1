"""The wheel: what it holds, and that it installs into a clean environment of every Python that it is for."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from conftest import SKIPS, TRANSACTIONS, write

pytestmark = pytest.mark.wheel

CODE = """
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
print(*sys.version_info[:2])
"""


def interpreter(minor: int) -> str:
    """A Python of this version: on the path, or pyenv's."""
    if sys.version_info[:2] == (3, minor):
        return sys.executable
    candidates = [shutil.which(f"python3.{minor}")]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates += [str(path) for path in sorted(pyenv.glob(f"3.{minor}.*/bin/python"))]
    for candidate in filter(None, candidates):
        # A shim of pyenv is there for versions that are not.
        if subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
            return candidate
    pytest.skip(f"Python 3.{minor} is not on this machine")


@pytest.fixture(scope="module")
def wheel() -> Path:
    found = sorted(Path(os.environ.get("DATAMESH_WHEELS") or "nowhere").glob("data_mesh_framework-*.whl"))
    if not found:
        pytest.skip(SKIPS["wheel"])
    (wheel,) = found
    return wheel.resolve()


def test_one_wheel_is_for_all_versions(wheel):
    assert "-cp310-abi3-" in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    assert {"data_mesh_framework/_core.abi3.so", "data_mesh_framework/py.typed", "data_mesh_framework/_core.pyi"} <= set(names)
    assert not [name for name in names if "__pycache__" in name or "mypy_cache" in name]


@pytest.mark.parametrize("minor", [10, 11, 12, 13])
def test_the_wheel_in_a_clean_environment(wheel, root, tmp_path, minor):
    write(root, "domains/sales/products/daily_transactions/product.yaml", TRANSACTIONS)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "DATAMESH_", "VIRTUAL_ENV"))}
    venv = tmp_path / "venv"
    subprocess.run([interpreter(minor), "-m", "venv", str(venv)], check=True, env=environment)
    python = str(venv / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel)]
    subprocess.run(install, check=True, env=environment, timeout=300)
    done = subprocess.run([python, "-c", CODE], cwd=root, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["3", str(minor)]
