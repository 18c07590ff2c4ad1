"""The package is typed, and its users' code is checked against it."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import data_mesh_framework
from conftest import write

HERE = Path(__file__).resolve().parent
PACKAGE = Path(data_mesh_framework.__file__).parent

USER = """\
from data_mesh_framework import Data, DataProduct, Lineage, LineageRun, Mesh, Publication, Quality, Report, bind, transformation


class Sales(DataProduct):
    def __init__(self) -> None:
        super().__init__(domain="sales", name="daily_transactions", version="1.0")

    @transformation
    def positive(self, data: Data) -> list[dict[str, object]]:
        return [row for row in data if row["amount"] >= 0]


class Plain:
    pass


async def work(mesh: Mesh) -> int:
    product = Sales()
    report: Report = Quality.check([{"id": 1}], product.quality_rules)
    run: LineageRun = Lineage.record(source="s3://bucket/key", output=product)
    published: Publication = await mesh.apublish("sales/daily_transactions", [{"id": 1}])
    bound: type[Plain] = bind(Plain, product)
    rows: int = len(await mesh.aquery("SELECT 1"))
    reveal_type(product.positive)
    return rows + report.failed + published.rows + len(run.transformations) + len(bound.__name__)
"""


def mypy(*arguments: str, folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mypy", "--config-file", str(HERE.parent / "mypy.ini"), "--cache-dir", str(folder / "cache")]
    return subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, timeout=300)


def test_the_package_is_strictly_typed(tmp_path):
    assert (PACKAGE / "py.typed").is_file() and (PACKAGE / "_core.pyi").is_file()
    done = mypy("--package", "data_mesh_framework", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_users_see_the_types(tmp_path):
    path = write(tmp_path, "user.py", USER)
    done = mypy(str(path), folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "def (data: data_mesh_framework.data.Data) -> list[dict[str, object]]" in done.stdout.replace("builtins.", "")
    wrong = write(tmp_path, "wrong.py", "from data_mesh_framework import Mesh\nMesh().query(3)\n")
    assert mypy(str(wrong), folder=tmp_path).returncode == 1


def test_the_stub_names_what_the_extension_has():
    """Every class, function and method of the stub, and no other public ones in the extension."""
    import ast

    from data_mesh_framework import _core

    stub = ast.parse((PACKAGE / "_core.pyi").read_text(encoding="utf-8"))
    named = {node.name: node for node in stub.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    public = {name for name in dir(_core) if not name.startswith("_")}
    assert set(named) <= public
    assert public - set(named) == set(), "in the extension and not in the stub"
    for name, node in named.items():
        if isinstance(node, ast.ClassDef):
            members = {member.name for member in node.body if isinstance(member, ast.FunctionDef)}
            known = set(dir(getattr(_core, name)))
            assert members <= known, name
            if not issubclass(getattr(_core, name), BaseException):
                assert {member for member in known if not member.startswith("_")} <= members, name


def test_what_is_exported_is_documented():
    for name in data_mesh_framework.__all__:
        if name != "__version__":
            assert getattr(data_mesh_framework, name).__doc__, name
    assert importlib.util.find_spec("data_mesh_framework.errors")
