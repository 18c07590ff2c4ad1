"""What a domain team writes: a class of its own."""

import asyncio
import copy
import pickle
import threading

import pandas as pd
import pytest

from conftest import TRANSACTIONS, write
from data_mesh_framework import (
    Data,
    DataProduct,
    InvalidArgument,
    InvalidManifest,
    Mesh,
    MeshNotFound,
    NotFound,
    transformation,
)


class Sales(DataProduct):
    def __init__(self, mesh=None):
        super().__init__(domain="sales", name="daily_transactions", version="1.0", mesh=mesh)

    @transformation
    def without_notes(self, data):
        """Drops the notes."""
        return data.to_pandas().drop(columns="note")

    def transform(self, data):
        """Rounds."""
        return self.without_notes(data).round(1)


def test_a_product_is_what_is_registered(shop):
    product = Sales()
    assert product.mesh == shop
    assert (product.id, product.version, product.owner) == ("sales/daily_transactions", "1.0.0", "sales-domain")
    assert [(column.name, column.type) for column in product.schema.columns] == [
        ("id", "long"),
        ("store", "string"),
        ("amount", "double"),
        ("note", "string"),
    ]
    assert product.schema["transactions"]["id"].primary_key
    assert "The till's number" in str(product.schema) and "The till" in product.schema._repr_html_()
    assert repr(product) == "Sales('sales/daily_transactions', version='1.0.0')"


def test_versions(shop, root):
    assert DataProduct("sales", "daily_transactions", "1").version == "1.0.0"
    for wrong in ("", "one", "1.x", "01.0", "1.2.3.4"):
        with pytest.raises(InvalidArgument, match="is no version"):
            DataProduct("sales", "daily_transactions", wrong)
    with pytest.raises(InvalidArgument, match=r"is registered in version 1\.0\.0, and this is written for 1\.2\.0"):
        DataProduct("sales", "daily_transactions", "1.2")
    assert DataProduct("sales", "daily_transactions", "2.0").is_draft
    later = TRANSACTIONS.replace("version: 1.0.0", "version: 1.3.0")
    write(root, "domains/sales/products/daily_transactions/product.yaml", later)
    assert DataProduct("sales", "daily_transactions", "1.2").contract.version == "1.3.0"


def test_no_mesh(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MeshNotFound, match="there is no mesh here"):
        DataProduct("sales", "daily_transactions", "1.0")


def test_the_mesh_can_be_named(shop, root, tmp_path, monkeypatch, rows):
    monkeypatch.chdir(tmp_path)
    assert Sales(mesh=root).owner == "sales-domain"
    assert Sales(mesh=shop).mesh is shop
    monkeypatch.setenv("DATAMESH_HOME", str(root))
    assert Sales().owner == "sales-domain"
    with pytest.raises(InvalidArgument, match=r"cannot be reached by URL yet: `https://…`"):
        Sales(mesh="https://user:secret@mesh.example.com")


def test_a_manifest_with_errors_tells_all_of_them(root):
    write(root, "domains/sales/products/daily_transactions/product.yaml", "dataProduct: {name: daily_transactions, ownr: a}\n")
    with pytest.raises(InvalidManifest) as raised:
        Sales()
    assert {"missing-key", "unknown-key"} <= {diagnostic["id"] for diagnostic in raised.value.diagnostics}
    assert "did you mean `owner`?" in str(raised.value)
    assert "product.yaml:1:" in str(raised.value)


def test_what_ran_is_noted(shop, rows):
    product = Sales()
    assert product.transformations == []
    processed = product.process_data(rows)
    assert isinstance(processed, pd.DataFrame) and list(processed) == ["id", "store", "amount"]
    assert product.transformations == ["Sales.transform", "Sales.without_notes"]
    assert [one.description for one in product.transformations] == ["Rounds.", "Drops the notes."]
    product.process_data(rows)
    assert len(product.transformations) == 2, "of the last call"


def test_the_default_records_lineage(shop, rows):
    shop.apply()
    product = Sales()
    product.process_data(Data(rows, source="s3://landing/rows.json"))
    graph = shop.lineage("sales/daily_transactions", up=True)
    assert any(edge["input"]["namespace"] == "s3://landing" for edge in graph["up"]["edges"])


def test_what_is_processed_has_a_source(shop, rows):
    seen = []

    class Seen(Sales):
        def process_data(self, raw_data):
            seen.append((type(raw_data), raw_data.source.name))
            return raw_data

    for given in (rows, pd.DataFrame(rows), Data(rows, source="sales/tills")):
        Seen().process_data(given)
    assert seen == [(Data, "rows"), (Data, "pandas.DataFrame"), (Data, "sales/tills")]


def test_overrides_call_each_other(shop, rows):
    class Base(Sales):
        def process_data(self, raw_data):
            return self.transform(raw_data)

    class Derived(Base):
        def transform(self, data):
            return super().transform(data).head(1)

        def process_data(self, raw_data):
            return super().process_data(raw_data)

    product = Derived()
    assert len(product.process_data(rows)) == 1
    names = [name.rpartition(".<")[2].rpartition("Derived.")[2] for name in product.transformations]
    assert len(names) == 3 and "transform" in names[0]


def test_threads_note_what_is_theirs(shop, rows):
    product = Sales()
    gate = threading.Barrier(2)
    noted = {}

    class Slow(Sales):
        def process_data(self, raw_data):
            gate.wait()
            if raw_data.to_pylist():
                self.transform(raw_data)
            gate.wait()
            noted[raw_data.source.name] = self.transformations
            return raw_data

    product = Slow()
    threads = [
        threading.Thread(target=product.process_data, args=[Data(given, source=f"sales/{name}")])
        for name, given in (("some", rows), ("none", pd.DataFrame({"a": []}).astype("int64")))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert noted["sales/none"] == [] and len(noted["sales/some"]) == 2
    assert product.transformations == [], "of this thread"


def test_asyncio_tasks_note_what_is_theirs(shop, rows):
    class Slow(DataProduct):
        async def transform(self, data):
            await asyncio.sleep(0)
            return data

        async def process_data(self, raw_data):
            if raw_data.source.name == "sales/some":
                await self.transform(raw_data)
            await asyncio.sleep(0)
            return self.transformations

    async def both():
        product = Slow("sales", "daily_transactions", "1.0")
        return await asyncio.gather(
            product.process_data(Data(rows, source="sales/some")),
            product.process_data(Data(rows, source="sales/none")),
        )

    some, none = asyncio.run(both())
    assert len(some) == 1 and none == []


def test_a_draft_becomes_a_product(root, rows):
    product = DataProduct("sales", "returns", "1.0")
    assert product.is_draft and product.owner is None and len(product.schema) == 0
    assert product.validate_data(rows)
    with pytest.raises(NotFound, match=r"`sales/returns` is a draft"):
        product.publish_data(rows)
    with pytest.raises(NotFound):
        product.contract  # noqa: B018
    text = product.draft(rows * 10, owner="sales-domain")
    assert "name: returns" in text and "version: 1.0.0" in text and "type: double" in text
    assert product.is_draft, "nothing was written"
    assert product.draft(rows, owner="sales-domain", write=True) != ""
    assert not product.refresh().is_draft
    assert product.owner == "sales-domain"
    assert product.publish_data(rows).rows == 3
    with pytest.raises(InvalidArgument, match="there is a manifest already"):
        product.draft(rows, write=True)


def test_published_and_quarantined(shop, rows):
    with Sales() as product:
        published = product.publish_data(rows)
        assert (published.status, published.number, published.published, published.quarantined) == ("published", 1, 2, 1)
        assert "1 × minimum:amount" in str(published) and "minimum:amount" in published._repr_html_()
        assert [row["id"] for row in product.read(columns=["id"])] == [1, 2]
        (held,) = product.quarantine().to_pylist()
        assert held["id"] == 3 and "minimum" in str(held["reasons"])
        assert product.publish_data(rows).status == "repeat"
        assert product.publish_data(rows, dry_run=True, again=True).number is None
    with pytest.raises(InvalidArgument, match="was closed"):
        product.read()


def test_products_are_pickled_and_copied(shop, rows):
    shop.publish("sales/daily_transactions", rows)
    for again in (pickle.loads(pickle.dumps(Sales())), copy.copy(Sales()), copy.deepcopy(Sales())):
        assert len(again.read()) == 2
    assert pickle.loads(pickle.dumps(shop)) == shop
    assert isinstance(hash(shop), int) and isinstance(copy.deepcopy(shop), Mesh)


@pytest.mark.parametrize(("domain", "name"), [("../sales", "x"), ("sales", "../../x"), ("/tmp", "x"), ("sales", ""), ("sales", "x_v1"), ("sales", "x\n")])
def test_a_name_is_no_path(root, domain, name):
    before = sorted(root.parent.rglob("*"))
    with pytest.raises(InvalidArgument, match="is no name of a (domain|product)") as refused:
        DataProduct(domain, name).draft([{"id": 1}], owner="sales-domain", write=True)
    assert "letters, digits" in refused.value.help
    assert sorted(root.parent.rglob("*")) == before
