"""A Glue catalog that follows the outbox: PyIceberg finds each commit there, as Athena, EMR and Spark would."""

import boto3
import pytest
from moto.server import ThreadedMotoServer
from pyiceberg.catalog import load_catalog

from mesh import Mesh

# Servers of moto in one process share their state.
BUCKET = "glue-lake"
REGION = "eu-central-1"
SECRET = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "not-so-secret", "AWS_REGION": REGION}
TABLE = "lab_readings_v1.readings"
MANIFEST = """\
dataProduct:
  name: readings
  version: {version}
  owner: lab-team
  schema:
    - name: readings
      write: append
      partitionBy: [day]
      columns:
        - {{name: id, type: long, primaryKey: true}}
        - {{name: day, type: date}}
{more}"""


@pytest.fixture
def endpoint():
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def lake(mesh: Mesh, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Mesh:
    for name, value in {**SECRET, "AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": "true"}.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=endpoint, region_name=REGION)
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    mesh.write("mesh.yaml", f"name: interop\nwarehouse: s3://{BUCKET}/tables\n")
    return mesh


def test_each_commit_is_found_in_glue(lake: Mesh, endpoint: str) -> None:
    catalog = load_catalog(
        "glue",
        **{
            "type": "glue",
            "glue.endpoint": endpoint,
            "glue.region": REGION,
            "s3.endpoint": endpoint,
            "s3.region": REGION,
            "s3.access-key-id": SECRET["AWS_ACCESS_KEY_ID"],
            "s3.secret-access-key": SECRET["AWS_SECRET_ACCESS_KEY"],
        },
    )

    def check(ids: list[int], columns: list[str]) -> str:
        """What Glue's readers see, once the outbox was delivered."""
        lake.json("outbox", "run", "--target", "glue")
        table = catalog.load_table(TABLE)
        rows = table.scan().to_arrow()
        assert sorted(rows["id"].to_pylist()) == ids
        assert [field.name for field in table.schema().fields] == columns
        assert table.metadata_location == lake.metadata_locations("lab/readings")["readings"]
        return table.metadata_location

    def publish(number: int, header: str = "id,day", rest: str = "") -> None:
        lake.write(f"data/{number}.csv", f"{header}\n{number},2024-05-01{rest}\n")
        lake.publish("lab/readings", f"readings=data/{number}.csv")

    path = "domains/lab/products/readings/product.yaml"
    lake.write(path, MANIFEST.format(version="1.0.0", more=""))
    columns = ["id", "day"]
    publish(1)
    seen = [check([1], columns)]
    publish(2)
    seen.append(check([1, 2], columns))
    lake.run("rollback", "lab/readings", "--to", "1")
    seen.append(check([1], columns))
    lake.write(path, MANIFEST.format(version="1.1.0", more="        - {name: note, type: string}\n"))
    lake.run("apply")
    columns.append("note")
    seen.append(check([1], columns))
    publish(3, "id,day,note", ",late")
    seen.append(check([1, 3], columns))
    lake.run("maintain")
    seen.append(check([1, 3], columns))
    assert len(set(seen)) == len(seen), "each of them moved the pointer"
    described = boto3.client("glue", endpoint_url=endpoint, region_name=REGION).get_table(
        DatabaseName="lab_readings_v1", Name="readings"
    )["Table"]
    assert [column["Name"] for column in described["StorageDescriptor"]["Columns"]] == ["id", "note"]
    assert [column["Name"] for column in described["PartitionKeys"]] == ["day"]
