"""What the documentation says is so: doctests, the tutorial, the README, and the reference that is built of docstrings."""

import doctest
import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import data_mesh_framework
from conftest import FLIGHTS, PROJECT

BINDINGS = Path(__file__).resolve().parents[1]
TUTORIAL = BINDINGS / "docs" / "tutorial.ipynb"
MODULES = sorted(
    name for _, name, _ in pkgutil.iter_modules(data_mesh_framework.__path__, "data_mesh_framework.") if not name.endswith("._core")
)


@pytest.mark.parametrize("name", ["data_mesh_framework", *MODULES])
def test_doctests(name, flights, monkeypatch):
    monkeypatch.chdir(flights)
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.failed == 0


def test_there_are_doctests():
    finder = doctest.DocTestFinder()
    modules = [importlib.import_module(name) for name in ["data_mesh_framework", *MODULES]]
    counted = {module.__name__: sum(len(test.examples) for test in finder.find(module)) for module in modules}
    for name in ("", ".data", ".product", ".quality", ".mesh", ".binding", ".errors"):
        assert counted[f"data_mesh_framework{name}"], name


def test_the_reference_is_built_without_a_warning(tmp_path):
    command = [sys.executable, "-W", "error", "-m", "pdoc", "--docformat", "google", "--output-directory", str(tmp_path)]
    done = subprocess.run([*command, "data_mesh_framework"], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr.lower(), done.stderr
    page = (tmp_path / "data_mesh_framework.html").read_text(encoding="utf-8")
    for name in ("DataProduct", "Quality", "Lineage", "Mesh", "bind"):
        assert f'id="{name}"' in page, name


def test_the_tutorial_is_committed_without_outputs():
    notebook = nbformat.read(TUTORIAL, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None


def test_the_tutorial_runs(tmp_path):
    folder = tmp_path / "examples" / "flights"
    shutil.copytree(FLIGHTS, folder, ignore=shutil.ignore_patterns(".datamesh", "warehouse"))
    notebook = nbformat.read(TUTORIAL, as_version=4)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("text/html" in output.get("data", {}) for output in shown)
    text = " ".join(str(output.get("data", {}).get("text/plain", "")) + str(output.get("text", "")) for output in shown)
    # What examples/flights/README.md says was held back.
    assert "1,048" in text or "1048.36058" in text


def blocks(path: Path) -> list[tuple[str, str]]:
    """The Python blocks of a page, each with the text block behind it."""
    fences = re.findall(r"^```(\w+)\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    pairs = []
    for at, (kind, text) in enumerate(fences):
        if kind == "python":
            shown = fences[at + 1][1] if at + 1 < len(fences) and fences[at + 1][0] == "text" else ""
            pairs.append((text, shown))
    return pairs


def pages() -> list[Path]:
    return [page for page in (BINDINGS / "README.md", PROJECT / "README.md") if blocks(page)]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(PROJECT)))
def test_readme(page, tmp_path):
    """The blocks of a page, run one after the other in one program, print what stands behind them."""
    shutil.copytree(FLIGHTS, tmp_path / "flights", ignore=shutil.ignore_patterns(".datamesh", "warehouse"))
    mark = "=== end of block ==="
    program = "".join(f"{code}\nprint({mark!r})\n" for code, _ in blocks(page))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DATAMESH_")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path / "flights", env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    for (code, expected), shown in zip(blocks(page), done.stdout.split(f"{mark}\n")):
        assert normal(shown) == normal(expected), code


def normal(text: str) -> str:
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "ID", text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())
