"""What data was made of: recorded in the mesh, and told as OpenLineage."""

import asyncio
import json

import jsonschema
import pandas as pd
import pyarrow as pa
import pytest
from referencing import Registry, Resource

from conftest import SHARED, SKIPS
from data_mesh_framework import Data, DataProduct, InvalidArgument, Lineage, Source, transformation


@pytest.fixture(scope="session")
def openlineage():
    """Checks a run event against OpenLineage's own schemas, with those of its facets."""
    folder = SHARED / "specs" / "openlineage"
    if not folder.is_dir():
        pytest.skip(SKIPS["openlineage"])
    core = json.loads((folder / "OpenLineage.json").read_text())
    documents = [core, *(json.loads(path.read_text()) for path in sorted((folder / "facets").glob("*.json")))]
    registry = Registry().with_resources((document["$id"], Resource.from_contents(document)) for document in documents)
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER

    def check(event: dict) -> None:
        schema = {"$ref": f"{core['$id']}#/$defs/RunEvent"}
        jsonschema.Draft202012Validator(schema, registry=registry, format_checker=checker).validate(event)
        assert event["schemaURL"].startswith("https://openlineage.io/spec/2-0-2/")
        datasets = [*event["inputs"], *event["outputs"]]
        for facets in (event["run"].get("facets"), event["job"].get("facets"), *(dataset.get("facets") for dataset in datasets)):
            for facet in (facets or {}).values():
                url = facet["_schemaURL"]
                if url.partition("#")[0] in registry:
                    jsonschema.Draft202012Validator({"$ref": url}, registry=registry, format_checker=checker).validate(facet)

    return check


@transformation
def without_tests(rows):
    """Leaves out orders of testers."""
    return [row for row in rows if row["store"] != "test"]


@pytest.mark.openlineage
def test_the_event_is_openlineages(shop, rows, openlineage):
    product = DataProduct("sales", "daily_transactions", "1.0")
    run = Lineage.record(
        source=["s3://landing/rows.json", Source("postgres://crm:5432", "crm.public.customers")],
        transformations=["dedupe", "to_cents"],
        output=Data(rows),
        product=product,
        columns={"amount": ["s3://landing/rows.json.sum"]},
    )
    openlineage(run.event)
    assert run.event["eventType"] == "COMPLETE"
    assert {str(source) for source in run.inputs} == {"s3://landing/rows.json", "postgres://crm:5432/crm.public.customers"}
    assert [source.namespace for source in run.outputs] == ["datamesh"]
    assert run.job == "sales/daily_transactions" or "daily_transactions" in run.job
    assert "dedupe" in run.to_json() and "to_cents" in repr(run)
    assert run._repr_mimebundle_()["application/json"] == run.event
    (output,) = run.event["outputs"]
    assert set(output["facets"]["columnLineage"]["fields"]) == {"amount"}


def test_edges_are_in_the_registry_and_the_log(shop, rows):
    shop.apply()
    Lineage.record(source="s3://landing/rows.json", transformations=["dedupe"], output="sales/daily_transactions")
    graph = shop.lineage("sales/daily_transactions", up=True)
    found = [(edge["input"]["namespace"], edge["input"]["name"]) for edge in graph["up"]["edges"]]
    assert ("s3://landing", "rows.json") in found
    assert "rows.json" in shop.lineage("sales/daily_transactions", format="tree")
    assert "lineage" in shop.command("audit", "--limit", "5")
    shop.command("audit", "verify")


def test_a_block(shop, rows):
    with Lineage.recording(source="s3://landing/rows.json", output="sales/daily_transactions") as recording:
        without_tests(rows)
        recording.transformed("to_cents", "Amounts in cents.")
    assert recording.run.transformations == ["without_tests", "to_cents"]
    assert recording.run.transformations[0].description == "Leaves out orders of testers."


def test_a_block_that_fails_records_nothing(shop, rows):
    shop.apply()
    with pytest.raises(ZeroDivisionError), Lineage.recording(source="s3://landing/a", output="sales/daily_transactions") as recording:
        1 / 0  # noqa: B018
    assert recording.run is None
    assert "s3://landing" not in json.dumps(shop.lineage("sales/daily_transactions"))


def test_a_decorator(shop, rows):
    shop.apply()

    @Lineage.recording(source="s3://landing/rows.json", output="sales/daily_transactions")
    def made(rows):
        """Makes it."""
        return without_tests(rows)

    assert made(rows) == rows
    assert "rows.json" in json.dumps(shop.lineage("sales/daily_transactions", up=True))
    assert made.__name__ == "made" and made.__doc__ == "Makes it."

    @Lineage.recording(source="s3://landing/more.json", product=DataProduct("sales", "daily_transactions", "1.0"))
    async def later(rows):
        await asyncio.sleep(0)
        return without_tests(rows)

    assert asyncio.run(later(rows)) == rows
    # The last run that made a table says where its rows come from.
    assert "more.json" in json.dumps(shop.lineage("sales/daily_transactions", up=True))


def test_the_columns_of_any_data_are_told_and_no_rows_read(shop, rows):
    product = DataProduct("sales", "daily_transactions", "1.0")
    reader = pa.Table.from_pylist(rows).to_reader()
    for output in (rows, pd.DataFrame(rows), pa.Table.from_pylist(rows), Data(rows), reader):
        run = Lineage.record(source="s3://landing/rows.json", output=output, product=product)
        fields = run.event["outputs"][0].get("facets", {}).get("schema", {}).get("fields")
        assert fields is None or {field["name"] for field in fields} >= {"id", "store", "amount"}
    assert reader.read_all().num_rows == 3, "a reader that nobody wrapped is left alone"


def test_a_query_comes_from_all_tables_that_it_reads(flights, monkeypatch):
    from data_mesh_framework import Mesh

    monkeypatch.chdir(flights)
    mesh = Mesh()
    data = mesh.query(
        "SELECT w.origin, a.name FROM weather.observations.hourly w CROSS JOIN fleet.registry.airlines a WHERE w.temp > 100"
    )
    assert [part.name for part in data.source.parts] == ["weather.observations_v1.hourly", "fleet.registry_v1.airlines"] or {
        part.name for part in data.source.parts
    } == {"weather.observations_v1.hourly", "fleet.registry_v1.airlines"}
    run = Lineage.record(source=data.source, output="punctuality/punctuality.daily_punctuality", mesh=mesh)
    assert len(run.inputs) == 2


def test_what_cannot_be_recorded(shop, rows):
    with pytest.raises(InvalidArgument, match="it is not said whose the output is"):
        Lineage.record(source="s3://landing/rows.json", output=rows)
    with pytest.raises(InvalidArgument, match="there is no source"):
        Lineage.record(source=[], output="sales/daily_transactions")
    with pytest.raises(InvalidArgument, match="is a column of none of the sources"):
        Lineage.record(
            source=["sales/a", "sales/b"], output="sales/daily_transactions", columns={"amount": ["sales/c.amount"]}
        )
