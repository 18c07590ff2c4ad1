"""The binary under test, and meshes that it published."""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from mesh import Mesh
from readers import connect_duckdb

PROJECT = Path(__file__).resolve().parents[2]
FLIGHTS = PROJECT / "examples" / "flights"
SPECS = PROJECT.parent / "shared" / "specs"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "postgres: reads from a real PostgreSQL, which the test starts")
    config.addinivalue_line("markers", "conformance: reads a standard's own files, which are not part of this project")
    config.addinivalue_line("markers", "lint: runs a standard's own linter")
    binary = os.environ.get("DATAMESH_BIN")
    if not binary:
        raise pytest.UsageError("DATAMESH_BIN is not set: name the datamesh binary to test, or run `make test-interop`")
    if not os.access(binary, os.X_OK) or not Path(binary).is_file():
        raise pytest.UsageError(f"DATAMESH_BIN is `{binary}`, which is not an executable file: run `make build`")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if "conformance" in report.keywords]
    if skipped:
        terminalreporter.write_sep("!", f"{len(skipped)} CONFORMANCE TESTS SKIPPED", red=True, bold=True)
        terminalreporter.write_line("the standards' files (../shared/specs) are not on this machine; CI has them")
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if "lint" in report.keywords]
    if skipped:
        terminalreporter.write_sep("!", f"{len(skipped)} LINTS OF EXPORTS SKIPPED", red=True, bold=True)
        terminalreporter.write_line("datacontract-cli is not beside pytest: run `make test-interop`")
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if "postgres" in report.keywords]
    if skipped:
        terminalreporter.write_sep("!", f"{len(skipped)} POSTGRESQL TESTS SKIPPED", red=True, bold=True)
        terminalreporter.write_line("PostgreSQL (initdb, pg_ctl, psql) is not on this machine: install `postgresql`")


@pytest.fixture(scope="session")
def datacontract() -> Path:
    """The linter of data contracts, which is a package beside pytest."""
    found = Path(sys.executable).parent / "datacontract"
    if not found.is_file():
        pytest.skip("datacontract-cli is not installed beside pytest")
    return found


@pytest.fixture(scope="session")
def binary() -> Path:
    return Path(os.environ["DATAMESH_BIN"]).resolve()


@pytest.fixture(scope="session")
def specs() -> Path:
    """The standards' own files."""
    if not SPECS.is_dir():
        pytest.skip("the standards' files (../shared/specs) are not on this machine")
    return SPECS


@pytest.fixture
def duck():
    connection = connect_duckdb()
    yield connection
    connection.close()


@pytest.fixture
def mesh(binary: Path, tmp_path: Path) -> Mesh:
    """An empty mesh of the test's own."""
    mesh = Mesh(binary, tmp_path / "mesh")
    mesh.write("mesh.yaml", "name: interop\n")
    mesh.write("domains/lab/domain.yaml", "name: lab\nowner: lab-team\n")
    return mesh


@pytest.fixture(scope="session")
def postgres():
    """A running PostgreSQL."""
    from postgres import Postgres, programs

    found = programs()
    if found is None:
        pytest.skip("PostgreSQL is not on this machine")
    server = Postgres.start(found)
    yield server
    server.stop()


@dataclass(frozen=True)
class Flights:
    """The demo mesh, published once."""

    mesh: Mesh
    expected: dict
    reports: dict[str, dict]
    locations: dict[tuple[str, str], str]


def is_transformed(root: Path, product: str) -> bool:
    domain, name = product.split("/")
    return "inputs:" in (root / "domains" / domain / "products" / name / "product.yaml").read_text()


@pytest.fixture(scope="session")
def flights(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Flights:
    root = tmp_path_factory.mktemp("flights") / "mesh"
    shutil.copytree(FLIGHTS, root, ignore=shutil.ignore_patterns(".datamesh", "warehouse"))
    mesh = Mesh(binary, root)
    expected = json.loads((FLIGHTS / "expected.json").read_text())
    products = [name for name in expected if name != "queries"]
    # Products that are made of others come after those.
    products.sort(key=lambda product: is_transformed(root, product))
    reports = {
        product: mesh.json("run", product) if is_transformed(root, product) else mesh.publish(product) for product in products
    }
    locations = {
        (product, table): location for product in products for table, location in mesh.metadata_locations(product).items()
    }
    return Flights(mesh, expected, reports, locations)
