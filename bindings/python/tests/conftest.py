"""Meshes of the tests' own, and the texts that they hold the package to."""

import os
import shutil
import signal
import textwrap
from pathlib import Path

import pytest

from data_mesh_framework import Mesh

PROJECT = Path(__file__).resolve().parents[3]
SHARED = PROJECT.parent / "shared"
FLIGHTS = PROJECT / "examples" / "flights"

SKIPS = {
    "article": "the article (../shared/article.txt) is not on this machine; CI has it",
    "openlineage": "OpenLineage's schemas (../shared/specs/openlineage) are not on this machine; CI has them",
    "wheel": "a Python of this version or the wheel (DATAMESH_WHEELS) is not on this machine: run `make test-python`",
}

TRANSACTIONS = """\
dataProduct:
  name: daily_transactions
  version: 1.0.0
  owner: sales-domain
  schema:
    - name: transactions
      description: What was sold.
      write: replace
      columns:
        - {name: id, type: long, primaryKey: true, description: The till's number}
        - {name: store, type: string, required: true}
        - {name: amount, type: double, minimum: 0}
        - {name: note, type: string}
      quality:
        - rowCount > 0
        - {name: small_sums, condition: amount < 10000}
      quarantine: {limit: 50%}
"""

# More of that manifest: a role that can be asked for.
OFFER = "  access:\n    - {role: analyst, approvers: [sales-domain], expires: 90d}\n"


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts background jobs with Ctrl-C ignored; tests raise it, and would wait for what never comes.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name, why in SKIPS.items():
        config.addinivalue_line("markers", f"{name}: skipped where {why}")
    # The caller's mesh is not the tests'.
    for name in [name for name in os.environ if name.startswith("DATAMESH_") and name not in ("DATAMESH_WHEELS", "DATAMESH_BIN")]:
        del os.environ[name]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name, why in SKIPS.items():
        skipped = [report for report in terminalreporter.stats.get("skipped", []) if name in report.keywords]
        if skipped:
            terminalreporter.write_sep("!", f"{len(skipped)} TESTS SKIPPED ({name})", red=True, bold=True)
            terminalreporter.write_line(why)


def write(root: Path, relative: str, text: str) -> Path:
    path = root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a mesh with the domain `sales`, which is the working directory."""
    root = tmp_path / "shop"
    write(root, "mesh.yaml", "name: shop\n")
    write(root, "domains/sales/domain.yaml", "name: sales\nowner: sales-domain\n")
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def shop(root: Path) -> Mesh:
    """A mesh with the product `sales/daily_transactions`, of which nothing is published."""
    write(root, "domains/sales/products/daily_transactions/product.yaml", TRANSACTIONS)
    return Mesh()


ROWS = [
    {"id": 1, "store": "Hamburg", "amount": 12.5, "note": None},
    {"id": 2, "store": "Bremen", "amount": 99.0, "note": "gift"},
    {"id": 3, "store": "Kiel", "amount": -1.0, "note": None},
]


@pytest.fixture
def rows() -> list[dict]:
    """Three rows, of which the last has a negative amount."""
    return [dict(row) for row in ROWS]


@pytest.fixture(scope="session")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the demo mesh with its small products published."""
    root = tmp_path_factory.mktemp("flights") / "flights"
    shutil.copytree(FLIGHTS, root, ignore=shutil.ignore_patterns(".datamesh", "warehouse"))
    mesh = Mesh(root)
    for product in ("weather/observations", "fleet/registry", "customer/customer-360"):
        mesh.publish(product)
    mesh.apply()
    return root


@pytest.fixture(scope="session")
def article() -> str:
    """The article that the project implements."""
    path = SHARED / "article.txt"
    if not path.is_file():
        pytest.skip(SKIPS["article"])
    return path.read_text(encoding="utf-8")
