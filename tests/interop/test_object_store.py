"""Tables in an S3 warehouse: PyIceberg and DuckDB read from the S3 server what `datamesh query` answers."""

import importlib.util
import os
from pathlib import Path

import boto3
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer
from pyiceberg.table import StaticTable

from mesh import Mesh
from readers import assert_same, connect_duckdb, duckdb_rows

BUCKET = "lake"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "not-so-secret", "AWS_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def endpoint():
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client(url).create_bucket(Bucket=BUCKET)
    yield url
    server.stop()


def client(endpoint: str):
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=CREDENTIALS["AWS_REGION"],
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )


@pytest.fixture
def lake(mesh: Mesh, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Mesh:
    """A mesh whose warehouse is a prefix of its own on the server."""
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": "true"}.items():
        monkeypatch.setenv(name, value)
    mesh.write("mesh.yaml", f"name: interop\nwarehouse: s3://{BUCKET}/{mesh.root.parent.name}/tables/\n")
    return mesh


def manifest(write: str, columns: str) -> str:
    return f"""\
dataProduct:
  name: readings
  version: 1.0.0
  owner: lab-team
  schema:
    - name: readings
      write: {write}
      quarantine: 50%
      partitionBy: [day(at)]
      columns:
        - {{name: id, type: long, primaryKey: true}}
        - {{name: at, type: timestamp, required: true}}
        - {{name: value, type: double}}
        - {{name: tags, type: array, items: {{type: string}}}}
{columns}"""


def rows(first: int, count: int, extra: bool = False) -> pa.Table:
    ids = range(first, first + count)
    columns = {
        "id": pa.array(ids, pa.int64()),
        "at": pa.array([1_700_000_000_000_000 + id_ * 3_600_000_000 for id_ in ids], pa.timestamp("us", "UTC")),
        "value": pa.array([None if id_ % 7 == 0 else id_ / 3 for id_ in ids], pa.float64()),
        "tags": pa.array([[str(id_ % 3)] * (id_ % 4) for id_ in ids], pa.list_(pa.string())),
    }
    if extra:
        columns["note"] = pa.array([f"note {id_}" for id_ in ids], pa.string())
    return pa.table(columns)


def publish(lake: Mesh, endpoint: str, contract: str, table: pa.Table, expect: int = 0) -> dict:
    """Publishes from the object store too."""
    lake.write("domains/lab/products/readings/product.yaml", contract)
    local = lake.root / "rows.parquet"
    pq.write_table(table, local)
    client(endpoint).upload_file(str(local), BUCKET, f"{lake.root.parent.name}/incoming/rows.parquet")
    source = f"readings=s3://{BUCKET}/{lake.root.parent.name}/incoming/*.parquet"
    return lake.publish("lab/readings", source, expect=expect)


def pyiceberg_reads(endpoint: str, location: str) -> pa.Table:
    properties = {
        "s3.endpoint": endpoint,
        "s3.access-key-id": CREDENTIALS["AWS_ACCESS_KEY_ID"],
        "s3.secret-access-key": CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        "s3.region": CREDENTIALS["AWS_REGION"],
    }
    return StaticTable.from_metadata(location, properties).scan().to_arrow()


@pytest.fixture
def duck_on_s3(endpoint: str):
    connection = connect_duckdb()
    package = Path(importlib.util.find_spec("duckdb_extension_httpfs").origin).parent
    connection.execute(f"LOAD '{package / 'extensions' / f'v{duckdb.__version__}' / 'httpfs.duckdb_extension'}'")
    connection.execute(
        f"""CREATE SECRET (TYPE s3, KEY_ID '{CREDENTIALS["AWS_ACCESS_KEY_ID"]}', SECRET '{CREDENTIALS["AWS_SECRET_ACCESS_KEY"]}',
        REGION '{CREDENTIALS["AWS_REGION"]}', ENDPOINT '{endpoint.removeprefix("http://")}', URL_STYLE 'path', USE_SSL false)"""
    )
    yield connection
    connection.close()


def check(lake: Mesh, endpoint: str, duck, expected: pa.Table) -> None:
    location = lake.metadata_locations("lab/readings")["readings"]
    assert location.startswith(f"s3://{BUCKET}/{lake.root.parent.name}/tables/lab/readings_v1/readings/metadata/")
    assert_same(lake.query("SELECT * FROM lab.readings.readings"), expected, "datamesh query")
    assert_same(pyiceberg_reads(endpoint, location), expected, "PyIceberg")
    assert_same(duckdb_rows(duck, location), expected, "DuckDB")


@pytest.mark.parametrize("write", ["append", "replace"])
def test_every_engine_reads_the_same(lake, endpoint, duck_on_s3, write):
    plain = manifest(write, "")
    first, second = rows(0, 500), rows(500, 300)
    assert publish(lake, endpoint, plain, first)["tables"][0]["published"] == 500
    check(lake, endpoint, duck_on_s3, first)

    # Keys that are published already are found in what lies on the server.
    overlapping = pa.concat_tables([second, rows(0, 100)])
    report = publish(lake, endpoint, plain, overlapping)["tables"][0]
    if write == "append":
        assert (report["published"], report["quarantined"]) == (300, 100)
        check(lake, endpoint, duck_on_s3, pa.concat_tables([first, second]))
    else:
        assert (report["published"], report["quarantined"]) == (400, 0)
        check(lake, endpoint, duck_on_s3, overlapping)
    assert lake.json("maintain")["deletedFiles"] == 0


def test_columns_are_added_on_the_server(lake, endpoint, duck_on_s3):
    first, second = rows(0, 50), rows(50, 50, extra=True)
    publish(lake, endpoint, manifest("append", ""), first)
    note = "        - {name: note, type: string}\n"
    publish(lake, endpoint, manifest("append", note).replace("1.0.0", "1.1.0"), second)
    first = first.append_column("note", pa.nulls(50, pa.string()))
    check(lake, endpoint, duck_on_s3, pa.concat_tables([first, second]))


def test_a_table_on_the_server_is_a_source(lake, endpoint):
    publish(lake, endpoint, manifest("append", ""), rows(0, 100))
    location = lake.metadata_locations("lab/readings")["readings"]
    for source in (location, location.split("/metadata/")[0]):
        copy = manifest("replace", "").replace("name: readings\n", "name: copy\n", 1)
        copy = copy.replace("      write:", f"      source: {{iceberg: '{source}'}}\n      write:")
        lake.write("domains/lab/products/copy/product.yaml", copy)
        assert lake.publish("lab/copy", "--again")["tables"][0]["published"] == 100
        assert_same(lake.query("SELECT * FROM lab.copy.readings"), rows(0, 100), source)


def test_nothing_is_kept_beside_the_server(lake, endpoint):
    publish(lake, endpoint, manifest("append", ""), rows(0, 10))
    assert not (lake.root / "warehouse").exists()
    assert not any((lake.root / ".datamesh").rglob("*.parquet"))
    assert not {name for name in os.listdir(lake.root)} & {"s3:", "tables"}
