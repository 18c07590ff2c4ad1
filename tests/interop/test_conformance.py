"""What datamesh writes and accepts, held against the standards' own files. They are not part of this project."""

import json
import shutil
from pathlib import Path
from urllib.parse import unquote, urlparse

import jsonschema
import pytest
import yaml

pytestmark = pytest.mark.conformance


@pytest.mark.parametrize("version", ["1.11.0", "main"])
def test_metadata_documents_fit_the_rest_catalog_specification(specs, flights, version):
    specification = yaml.safe_load((specs / "iceberg" / f"rest-catalog-open-api-{version}.yaml").read_text())
    schema = {"$ref": "#/components/schemas/TableMetadata", "components": specification["components"]}
    validator = jsonschema.Draft202012Validator(schema)
    for (product, table), location in flights.locations.items():
        document = json.loads(Path(unquote(urlparse(location).path)).read_text())
        problems = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]
        assert not problems, f"{product} {table}: {problems}"


@pytest.mark.parametrize("name", ["article.yaml", "customer-360.yaml"])
def test_the_proposed_manifests_pass_the_check(specs, mesh, name, tmp_path):
    # The manifest names a file beside it that does not come with it.
    manifest = Path(shutil.copy(specs / "proposed" / name, tmp_path))
    (tmp_path / "customer_profile.sql").write_text("SELECT * FROM sales.crm.customers")
    report = mesh.json("check", str(manifest))
    assert (report["errors"], report["products"]) == (0, ["customer/customer-360"]), report["diagnostics"]
