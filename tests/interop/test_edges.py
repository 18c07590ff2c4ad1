"""Tables at the edges: empty ones, odd names, odd places."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from mesh import Mesh
from readers import assert_same, duckdb_rows, iceberg_table

PRODUCT = "lab/edges"


def manifest(columns: str, write: str = "append") -> str:
    return f"""\
dataProduct:
  name: edges
  version: 1.0.0
  owner: lab-team
  schema:
    - name: some-rows
      write: {write}
      columns:
{columns}"""


PLAIN = "        - {name: id, type: long}\n        - {name: name, type: string}\n"


def publish(mesh: Mesh, contract: str, made: list[dict]) -> str:
    mesh.write("domains/lab/products/edges/product.yaml", contract)
    file = mesh.write("rows.ndjson", "".join(json.dumps(row) + "\n" for row in made))
    assert mesh.publish(PRODUCT, f"some-rows={file}")["status"] == "published"
    return mesh.metadata_locations(PRODUCT)["some-rows"]


def check(mesh: Mesh, duck, location: str, expected: pa.Table) -> None:
    assert_same(mesh.query("SELECT * FROM lab.edges.some_rows"), expected, "datamesh query")
    assert_same(iceberg_table(location).scan().to_arrow(), expected, "PyIceberg")
    assert_same(duckdb_rows(duck, location), expected, "DuckDB")


def plain(*ids: int) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), "name": pa.array([f"row {id_}" for id_ in ids], pa.string())})


def plain_rows(*ids: int) -> list[dict]:
    return [{"id": id_, "name": f"row {id_}"} for id_ in ids]


def test_an_empty_table(mesh, duck):
    location = publish(mesh, manifest(PLAIN), [])
    check(mesh, duck, location, plain())
    summary = iceberg_table(location).current_snapshot().summary.additional_properties
    assert (summary["total-records"], summary["total-data-files"]) == ("0", "0")
    check(mesh, duck, publish(mesh, manifest(PLAIN), plain_rows(1)), plain(1))


def test_a_table_that_is_emptied_and_filled_again(mesh, duck):
    publish(mesh, manifest(PLAIN), plain_rows(1, 2))
    location = publish(mesh, manifest(PLAIN, write="replace"), [])
    check(mesh, duck, location, plain())
    summary = iceberg_table(location).current_snapshot().summary.additional_properties
    assert (summary["total-records"], summary["deleted-records"], summary["total-files-size"]) == ("0", "2", "0")
    check(mesh, duck, publish(mesh, manifest(PLAIN), plain_rows(3)), plain(3))


@pytest.mark.parametrize("folder", ["with space", "größer", "a+b=c&d", "it's", "dot.", "🙂"])
def test_a_mesh_in_an_odd_place(binary: Path, tmp_path: Path, duck, folder):
    mesh = Mesh(binary, tmp_path / folder)
    mesh.write("mesh.yaml", "name: interop\n")
    mesh.write("domains/lab/domain.yaml", "name: lab\nowner: lab-team\n")
    check(mesh, duck, publish(mesh, manifest(PLAIN), plain_rows(1, 2)), plain(1, 2))


def named(name: str) -> str:
    return f"        - {{name: id, type: long}}\n        - {{name: {json.dumps(name, ensure_ascii=False)}, type: string}}\n"


NAMES = ["UPPER", "select", "with space", "naïve", "per cent %", "a-b", "it's", "(brackets)", "🙂", "1st"]


@pytest.mark.parametrize("name", NAMES)
def test_an_odd_column_name(mesh, duck, name):
    location = publish(mesh, manifest(named(name)), [{"id": 1, name: "a"}, {"id": 2, name: None}])
    expected = pa.table({"id": pa.array([1, 2], pa.int64()), name: pa.array(["a", None], pa.string())})
    check(mesh, duck, location, expected)


@pytest.mark.parametrize("name", ['quo"te', "a.b", "trailing.", "line\nbreak", "__own"])
def test_a_column_name_that_readers_would_misread_is_refused(mesh, name):
    mesh.write("domains/lab/products/edges/product.yaml", manifest(named(name)))
    mesh.run("publish", PRODUCT, f"some-rows={mesh.write('rows.ndjson', '')}", expect=4)
