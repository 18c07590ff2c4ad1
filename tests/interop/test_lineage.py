"""Lineage as other tools read it."""

import functools
import http.server
import json
import sqlite3
import threading

import jsonschema
import pytest
from referencing import Registry, Resource

CRM = """\
dataProduct:
  name: crm
  version: 1.0.0
  owner: lab-team
  schema:
    - name: customers
      columns:
        - {name: id, type: long, primaryKey: true}
        - {name: name, type: string}
        - {name: address, type: struct, columns: [{name: city, type: string}]}
"""

PROFILES = """\
dataProduct:
  name: profiles
  version: 1.0.0
  owner: lab-team
  schema:
    - name: profiles
      columns:
        - {name: customer_id, type: long, from: [lab/crm.customers.id]}
        - {name: town, type: string, from: [lab/crm.customers.address.city]}
"""

QUERIES = [
    "SELECT id, upper(name) AS name, address['city'] AS city FROM lab.crm.customers WHERE id > 1 ORDER BY name",
    "SELECT count(*) AS n, max(c.id) FILTER (WHERE c.name <> '') AS m, 1 AS one FROM lab.crm.customers c "
    "JOIN lab.profiles.profiles p ON c.id = p.customer_id GROUP BY p.town",
    "SELECT CASE WHEN id > 1 THEN name END AS x, row_number() OVER (PARTITION BY name ORDER BY id) AS r "
    "FROM lab.crm.customers",
]


@pytest.fixture
def lab(mesh):
    mesh.write("domains/lab/products/crm/product.yaml", CRM)
    mesh.write("domains/lab/products/profiles/product.yaml", PROFILES)
    customers = mesh.write("customers.ndjson", json.dumps({"id": 1, "name": "Ada", "address": {"city": "Rome"}}) + "\n")
    profiles = mesh.write("profiles.ndjson", json.dumps({"customer_id": 1, "town": "Rome"}) + "\n")
    mesh.publish("lab/crm", f"customers={customers}")
    mesh.publish("lab/profiles", f"profiles={profiles}")
    return mesh


def documents(mesh) -> list[dict]:
    """Lineage of products, tables and columns, and of queries."""
    subjects = ["lab/crm", "lab/profiles", "lab/profiles.profiles", "lab.profiles.profiles.town"]
    recorded = [mesh.json("lineage", subject) for subject in subjects]
    return recorded + [mesh.json("lineage", "--sql", query) for query in QUERIES]


@pytest.mark.conformance
def test_the_facet_fits_openlineages_schema(specs, lab):
    facets = specs / "openlineage" / "facets"
    schema = json.loads((facets / "ColumnLineageDatasetFacet.json").read_text())
    # What the schema refers to elsewhere is the base of all facets: a producer and the address of the schema.
    base = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://openlineage.io/spec/2-0-2/OpenLineage.json",
        "$defs": {
            "DatasetFacet": {
                "type": "object",
                "properties": {
                    "_producer": {"type": "string", "format": "uri"},
                    "_schemaURL": {"type": "string", "format": "uri"},
                    "_deleted": {"type": "boolean"},
                },
                "required": ["_producer", "_schemaURL"],
            }
        },
    }
    registry = Registry().with_resource(base["$id"], Resource.from_contents(base))
    validator = jsonschema.Draft202012Validator(
        schema, registry=registry, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    # The standard's own examples pass, and a broken facet does not: the validator sees what it shall see.
    for example in sorted((specs / "openlineage" / "tests" / "ColumnLineageDatasetFacet").glob("*.json")):
        validator.validate(json.loads(example.read_text()))
    assert not validator.is_valid({"columnLineage": {"fields": {}}})
    kinds = set()
    for document in documents(lab):
        assert document["datasets"]
        for dataset in document["datasets"]:
            problems = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(dataset)]
            assert not problems, problems
            facet = dataset["columnLineage"]
            assert facet["_schemaURL"].startswith(schema["$id"])
            of_fields = [field for output in facet["fields"].values() for field in output["inputFields"]]
            for field in of_fields + facet["dataset"]:
                kinds |= {(way["type"], way["subtype"]) for way in field["transformations"]}
    assert kinds == {
        ("DIRECT", "IDENTITY"), ("DIRECT", "TRANSFORMATION"), ("DIRECT", "AGGREGATION"), ("INDIRECT", "JOIN"),
        ("INDIRECT", "GROUP_BY"), ("INDIRECT", "FILTER"), ("INDIRECT", "SORT"), ("INDIRECT", "WINDOW"),
        ("INDIRECT", "CONDITIONAL"),
    }


def test_datasets_are_named_alike_in_walks_and_facets(lab):
    document = lab.json("lineage", "lab/profiles")
    walked = {
        (edge["input"]["namespace"], edge["input"]["name"], edge["input"]["field"])
        for edge in document["up"]["edges"] if edge["distance"] == 1
    }
    facet = document["datasets"][0]["columnLineage"]
    named = {
        (field["namespace"], field["name"], field["field"])
        for output in facet["fields"].values() for field in output["inputFields"]
    }
    assert walked == named
    assert ("datamesh", "lab.crm_v1.customers", "address.city") in named
    assert any(namespace == "file" and name.endswith("/profiles.ndjson") for namespace, name, _ in named)


def test_every_read_of_lineage_is_recorded(lab):
    lab.json("lineage", "lab/profiles")
    lab.json("lineage", "--sql", "SELECT town FROM lab.profiles.profiles")
    with sqlite3.connect(lab.root / ".datamesh" / "registry.db") as registry:
        rows = registry.execute(
            "SELECT action, resource, document FROM decisions WHERE document LIKE '%\"lineage\"%' ORDER BY number"
        ).fetchall()
    assert [row[:2] for row in rows] == [("describe", "lab/crm, lab/profiles")] * 2
    assert "SELECT town" in rows[1][2]


def test_a_secret_in_an_address_is_not_recorded(lab, tmp_path):
    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "customers.ndjson").write_text(json.dumps({"id": 2, "name": "Eve"}) + "\n")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"http://127.0.0.1:{server.server_port}"
        lab.publish("lab/crm", f"customers={host}/customers.ndjson?token=hunter2")
        server.shutdown()
    edge = lab.json("lineage", "lab/crm.customers.id", "--up")["up"]["edges"][0]
    assert (edge["input"]["namespace"], edge["input"]["name"]) == (host, "/customers.ndjson")
    with sqlite3.connect(lab.root / ".datamesh" / "registry.db") as registry:
        assert registry.execute("SELECT count(*) FROM lineage_edges WHERE input_name LIKE '%hunter2%'").fetchone() == (0,)
