"""Iceberg tables that another program wrote, as sources."""


import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Record
from pyiceberg.types import LongType, NestedField, StringType

from iceberg_tables import add_data_file, add_deletes, position_deletes
from sources import PRODUCT, counts, define, failure, rows

COLUMNS = """
{name: id, type: long, primaryKey: true}
{name: name, type: string}
"""


@pytest.fixture
def table(mesh):
    folder = mesh.root / "outside"
    folder.mkdir()
    catalog = SqlCatalog("outside", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}")
    catalog.create_namespace("lab")
    schema = Schema(NestedField(1, "id", LongType()), NestedField(2, "name", StringType()), NestedField(3, "extra", LongType()))
    spec = PartitionSpec(PartitionField(3, 1000, IdentityTransform(), "extra"))
    return catalog.create_table("lab.rows", schema, location=f"file://{folder}/table", partition_spec=spec)


def batch(*ids: int) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), "name": [f"row {id_}" for id_ in ids], "extra": pa.array([id_ % 3 for id_ in ids], pa.int64())})


@pytest.mark.parametrize("how", ["document", "url", "folder", "hint"])
def test_a_table_by_its_metadata(mesh, table, how):
    table.append(batch(*range(10)))
    table.append(batch(*range(10, 20)))
    path = table.metadata_location.removeprefix("file://")
    location = {"document": path, "url": table.metadata_location, "folder": "../../../../outside/table", "hint": "../../../../outside/table"}[how]
    if how == "hint":
        newest = path.rsplit("/", 1)[1].removesuffix(".metadata.json")
        (mesh.root / "outside/table/metadata/version-hint.text").write_text(newest)
        table.append(batch(99))
    define(mesh, f'{{iceberg: "{location}"}}', COLUMNS)
    report = mesh.publish(PRODUCT)
    assert counts(report) == (20, 20, 0)
    assert report["tables"][0]["ignoredColumns"] == ["extra"]
    assert rows(mesh, "count(*) AS n, sum(id) AS s") == [{"n": 20, "s": 190}]


def test_a_condition_is_part_of_the_scan(mesh, table):
    table.append(batch(*range(30)))
    define(mesh, '{iceberg: ../../../../outside/table, where: "extra = 1 AND id > 10"}', COLUMNS)
    assert counts(mesh.publish(PRODUCT)) == (6, 6, 0)
    assert [row["id"] for row in rows(mesh)] == [13, 16, 19, 22, 25, 28]


def test_the_same_rows_are_a_repeat(mesh, table):
    table.append(batch(1, 2, 3))
    define(mesh, "{iceberg: ../../../../outside/table}", COLUMNS)
    mesh.publish(PRODUCT)
    assert mesh.publish(PRODUCT)["status"] == "repeat"


def test_a_column_that_only_the_partition_gives(mesh, table):
    """As in a Hive table that was migrated: the files lack the column, and a delete file takes rows away."""
    fields = [pa.field("id", pa.int64(), metadata={"PARQUET:field_id": "1"}), pa.field("name", pa.string(), metadata={"PARQUET:field_id": "2"})]
    for extra in (7, 8):
        rows_ = pa.table([[10 * extra, 10 * extra + 1], ["a", "b"]], schema=pa.schema(fields))
        add_data_file(table, rows_, Record(extra))
    add_deletes(table, position_deletes(table, lambda row: row["id"] in (70, 80)))
    define(mesh, "{iceberg: ../../../../outside/table, where: extra > 0}", COLUMNS + "{name: extra, type: long, required: true}\n")
    assert counts(mesh.publish(PRODUCT)) == (2, 2, 0)
    assert [(row["id"], row["extra"]) for row in rows(mesh)] == [(71, 7), (81, 8)]


def test_cells_that_do_not_fit_are_faults(mesh, table):
    table.append(batch(1, 2, 2**40))
    define(mesh, "{iceberg: ../../../../outside/table}", "{name: id, type: int}\n{name: name, type: string}", more="quarantine: {limit: 100%}")
    assert counts(mesh.publish(PRODUCT)) == (3, 2, 1)


@pytest.mark.parametrize("location, said", [
    ("nowhere", "nowhere"),
    ("../../../../outside", "no metadata document"),
    ("product.yaml", "metadata document"),
    ("ftp://bucket/table", "ftp://"),
])
def test_what_is_no_table_is_an_error(mesh, table, location, said):
    define(mesh, f'{{iceberg: "{location}"}}', COLUMNS)
    assert said in failure(mesh, "publish", PRODUCT)


def test_a_condition_that_is_none_is_an_error(mesh, table):
    table.append(batch(1))
    define(mesh, '{iceberg: ../../../../outside/table, where: "missing = 1"}', COLUMNS)
    assert "missing" in failure(mesh, "publish", PRODUCT)
