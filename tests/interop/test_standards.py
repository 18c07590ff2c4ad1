"""Exports in the words of the field's standards, read by the standards' own tools."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
PRODUCTS = sorted((PROJECT / "examples" / "flights" / "domains").glob("*/products/*/product.yaml"))
MANIFESTS = PRODUCTS + [PROJECT / "crates" / "datamesh-manifest" / "tests" / "manifests" / "article.yaml"]

pytestmark = pytest.mark.lint


def run(binary: Path, *arguments: str, expected: int = 0, home: Path | None = None) -> subprocess.CompletedProcess:
    command = [str(binary), *arguments]
    environment = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=home)
    assert done.returncode == expected, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def name_of(path: Path) -> str:
    return path.parent.name if path.name == "product.yaml" else path.stem


@pytest.mark.parametrize("manifest", MANIFESTS, ids=name_of)
@pytest.mark.parametrize("version", [None, "3.1.0", "3.2.0"])
def test_datacontract_cli_accepts_what_is_exported(
    binary: Path, datacontract: Path, tmp_path: Path, manifest: Path, version: str | None
) -> None:
    out = tmp_path / "contract.odcs.yaml"
    wanted = ["--standard-version", version] if version else []
    done = subprocess.run(
        [str(binary), "export", "odcs", str(manifest), *wanted, "--out", str(out)], capture_output=True, text=True
    )
    if version == "3.1.0" and done.returncode == 2:
        assert "3.1.0 cannot say" in done.stderr, done.stderr
        return
    assert done.returncode == 0, done.stderr
    linted = subprocess.run([str(datacontract), "lint", str(out)], capture_output=True, text=True)
    assert linted.returncode == 0, f"{linted.stdout}\n{linted.stderr}\n{out.read_text()}"


@pytest.mark.parametrize("manifest", MANIFESTS, ids=name_of)
def test_an_export_comes_back_as_the_manifest(binary: Path, tmp_path: Path, manifest: Path) -> None:
    contract, again = tmp_path / "contract.odcs.yaml", tmp_path / "product.yaml"
    run(binary, "export", "odcs", str(manifest), "--out", str(contract))
    run(binary, "import", "odcs", str(contract), "--out", str(again))
    before, after = yaml.safe_load(manifest.read_text()), yaml.safe_load(again.read_text())
    # A folder may have told the domain; the document tells it itself.
    before["dataProduct"].setdefault("domain", after["dataProduct"]["domain"])
    assert after == before


def test_an_import_writes_a_file_once_and_says_what_is_open(binary: Path, tmp_path: Path) -> None:
    contract = tmp_path / "c.odcs.yaml"
    contract.write_text("apiVersion: v3.1.0\nkind: DataContract\nid: orders\nversion: 1.0.0\nstatus: active\n")
    done = run(binary, "import", "odcs", "c.odcs.yaml", "--out", "product.yaml", home=tmp_path)
    assert "owner: TODO" in (tmp_path / "product.yaml").read_text()
    assert "nobody is named as owner yet" in done.stderr
    run(binary, "check", "product.yaml", expected=4, home=tmp_path)
    again = run(binary, "import", "odcs", "c.odcs.yaml", "--out", "product.yaml", expected=2, home=tmp_path)
    assert "is there already" in again.stderr


def test_a_broken_contract_is_refused_at_its_place(binary: Path, tmp_path: Path) -> None:
    contract = tmp_path / "c.odcs.yaml"
    contract.write_text("apiVersion: v3.1.0\nkind: DataContract\nid: orders\nversion: 1.0.0\nstatus: active\nschma: []\n")
    done = run(binary, "import", "odcs", "c.odcs.yaml", expected=4, home=tmp_path)
    assert "c.odcs.yaml:6" in done.stderr and "did you mean `schema`?" in done.stderr
    assert done.stdout == ""
