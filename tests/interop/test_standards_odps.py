"""Exports to the Open Data Product Standard, judged by its own linter (`dataproduct lint` of dataproduct-cli)."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from conftest import FLIGHTS, PROJECT
from mesh import Mesh

EXAMPLES = ["v1.0.0/customer-data-product", "v1.0.0/simple-data-product", "v1.1.0/deprecated-data-product", "v1.1.0/init-template"]
pytestmark = pytest.mark.lint
PRODUCTS = sorted(FLIGHTS.glob("domains/*/products/*/product.yaml"))


def find_linter() -> Path | None:
    """`dataproduct` beside pytest, else of the path."""
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    found = shutil.which("dataproduct", path=os.pathsep.join(folders))
    return Path(found) if found else None


@pytest.fixture(scope="session")
def linter() -> Path:
    found = find_linter()
    if found is None:
        reason = "dataproduct-cli is not installed: run `make test-interop`"
        print(f"\n!!! SKIPPED: {reason}", file=sys.__stderr__)
        pytest.skip(reason)
    return found


def lint(linter: Path, document: Path) -> list[dict]:
    """The linter's checks of a document; none of them has failed."""
    report = document.with_suffix(".json")
    path = f"{linter.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    command = [str(linter), "lint", str(document), "--all-errors", "--local-references", "--output", str(report)]
    done = subprocess.run(
        [*command, "--output-format", "json"],
        cwd=document.parent,
        env={**os.environ, "PATH": path, "COLUMNS": "300"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{document.read_text()}\n{done.stdout}\n{done.stderr}"
    return json.loads(report.read_text())["checks"]


@pytest.mark.parametrize("manifest", PRODUCTS, ids=lambda path: path.parent.name)
def test_exports_of_the_demo_are_accepted(binary: Path, linter: Path, tmp_path: Path, manifest: Path):
    mesh = Mesh(binary, FLIGHTS)
    document = tmp_path / "product.odps.yaml"
    mesh.run("export", "odps", str(manifest), "--out", str(document))
    assert lint(linter, document)
    # The port's contract is found where it is exported too.
    mesh.run("export", "odcs", str(manifest), "--out", str(tmp_path / "product.odcs.yaml"))
    contract = yaml.safe_load((tmp_path / "product.odcs.yaml").read_text())["id"]
    ports = yaml.safe_load(document.read_text())["outputPorts"]
    assert [port["contractId"] for port in ports] == [contract] * len(ports)


def test_the_export_of_the_articles_manifest_is_accepted(mesh: Mesh, linter: Path, tmp_path: Path):
    article = PROJECT / "crates/datamesh-manifest/tests/manifests/article.yaml"
    document = tmp_path / "article.odps.yaml"
    mesh.run("export", "odps", str(article), "--out", str(document))
    assert lint(linter, document)
    assert yaml.safe_load(document.read_text())["apiVersion"] == "v1.0.0"


class PlainDates(yaml.SafeLoader):
    """Reads dates as text, as the standards do."""


PlainDates.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@pytest.mark.conformance
@pytest.mark.parametrize("example", EXAMPLES)
def test_official_examples_come_back_and_are_accepted(mesh: Mesh, specs: Path, linter: Path, tmp_path: Path, example: str):
    original = specs / "odps-bitol" / "examples" / f"{example}.odps.yaml"
    manifest, document = tmp_path / "product.yaml", tmp_path / "again.odps.yaml"
    mesh.run("import", "odps", str(original), "--out", str(manifest))
    mesh.run("check", str(manifest), expect=4)
    draft = yaml.load(manifest.read_text(), PlainDates)["dataProduct"]
    # What the document does not say is filled in, as its owner would.
    filled = {"schema": [{"name": "main", "columns": [{"name": "id", "type": "string"}]}]}
    filled |= {key: value for key, value in {"version": "1.0.0", "owner": "core-team"}.items() if "TODO" in draft[key]}
    if "owner" in filled or "domain" not in draft:
        filled["domain"] = "core"
    manifest.write_text(yaml.safe_dump({"dataProduct": draft | filled}))
    mesh.run("export", "odps", str(manifest), "--out", str(document))
    expected = yaml.load(original.read_text(), PlainDates)
    found = yaml.load(document.read_text(), PlainDates)
    assert [entry["property"] for entry in found.pop("customProperties")] == ["datamesh"]
    theirs = {"version": "version", "owner": "team", "domain": "domain"}
    for key in {"apiVersion", *(theirs[key] for key in filled if key in theirs)}:
        expected.pop(key, None)
        found.pop(key)
    assert found == expected
    lint(linter, document)


def test_a_wrong_document_is_refused_at_its_place(mesh: Mesh, tmp_path: Path):
    document = tmp_path / "wrong.odps.yaml"
    document.write_text("apiVersion: v1.0.0\nkind: DataProduct\nid: x\nstatuz: draft\n")
    with pytest.raises(AssertionError, match=r"(?s)wrong.odps.yaml.*did you mean `status`"):
        mesh.run("import", "odps", str(document))
    assert mesh.run("import", "odps", str(document), expect=4) == ""


def test_a_dbt_project_becomes_a_product_that_publishes(mesh: Mesh, tmp_path: Path):
    project = PROJECT / "crates/datamesh-manifest/tests/manifests/dbt-shop.json"
    manifest = "domains/lab/products/shop/product.yaml"
    mesh.run("import", "dbt", str(project), "--select", "orders", "--out", manifest)
    mesh.run("check", manifest)
    header = "order_id,customer_id,line,status,amount,discount,ordered_on,code,updated_at,note"
    good = "1,1,1,placed,20.5,0.5,2013-02-01,DE100,2099-01-01T00:00:00Z,fine"
    # Each of these breaks what one test of dbt says.
    bad = ["2,1,9,placed,20.5,,2013-02-01,DE100,2099-01-01T00:00:00Z,fine", "3,1,1,lost,20.5,,2013-02-01,DE100,2099-01-01T00:00:00Z,fine"]
    bad.append("4,1,1,shipped,,,2013-02-01,DE100,2099-01-01T00:00:00Z,fine")
    rows = [good] + [good.replace("1,", f"{number},", 1) for number in range(100, 200)]
    mesh.write("orders.csv", "\n".join([header, *rows, *bad]) + "\n")
    report = mesh.json("publish", "lab/shop", "orders=orders.csv")
    assert report["status"] == "published"
    mesh.run("query", "SELECT count(*) FROM lab.shop.orders")
    (table,) = report["tables"]
    assert (table["published"], table["quarantined"]) == (len(rows), len(bad))


def test_a_manifest_that_is_there_is_not_overwritten(mesh: Mesh, tmp_path: Path):
    article = PROJECT / "crates/datamesh-manifest/tests/manifests/article.yaml"
    out = tmp_path / "out.yaml"
    out.write_text("mine")
    mesh.run("export", "odps", str(article), "--out", str(out), expect=2)
    assert out.read_text() == "mine"
