"""Both Python listings of the article run as they are printed."""

import textwrap

import pytest

import data_mesh_framework as dmf
from conftest import TRANSACTIONS, write
from data_mesh_framework import Data, DataProduct, Mesh, bind

pytestmark = pytest.mark.article

CUSTOMERS = """\
dataProduct:
  name: customer-360
  version: 1.0.0
  owner: customer-domain
  schema:
    - name: customer_profile
      columns:
        - {name: customer_id, type: string, primaryKey: true}
        - {name: preferences, type: json}
      quarantine: {limit: 0%}
"""


def listing(article: str, first: str, last: str) -> str:
    """The article's lines from the one that begins with `first` to the one that begins with `last`, untouched."""
    lines = article.splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith(first))
    end = next(at for at in range(start, len(lines)) if lines[at].strip().startswith(last))
    return "\n".join(lines[start : end + 1]) + "\n"


def run(text: str) -> dict:
    names = {"__name__": "article"}
    exec(compile(text, "article.txt", "exec"), names)
    return names


@pytest.fixture
def sales(article):
    """The class of the second listing."""
    text = listing(article, "from data_mesh_framework import", "return processed_data")
    assert "raw_data.source" in text and "Lineage.record(" in text
    return run(text)["SalesDataProduct"]


@pytest.fixture
def customers(article):
    """The class of the first listing."""
    text = listing(article, "# Example Data Product Class", "self._publish_to_mesh(data)")
    assert "_load_schema()" in text and "class CustomerDataProduct:" in text
    return run(text)["CustomerDataProduct"]


def test_the_second_listing_works_on_what_a_mesh_has_registered(shop, sales, rows):
    product = sales()
    assert (product.id, product.version, product.is_draft) == ("sales/daily_transactions", "1.0.0", False)
    processed = product.process_data(rows[:2])
    assert isinstance(processed, Data)
    assert processed.to_pylist() == rows[:2]
    published = product.publish_data(processed)
    assert (published.status, published.published) == ("published", 2)
    assert product.read().to_pylist() == rows[:2]


def test_the_second_listing_works_without_a_manifest(root, sales, rows):
    product = sales()
    assert product.is_draft
    assert product.process_data(rows).to_pylist() == rows
    with pytest.raises(dmf.NotFound, match="is a draft"):
        product.publish_data(rows)


def test_the_second_listing_records_where_its_data_comes_from(shop, sales, rows):
    product = sales()
    product.process_data(Data(rows, source="s3://landing/tills/2026-01-31.json"))
    product.publish_data(rows)
    graph = shop.lineage("sales/daily_transactions", up=True)
    inputs = {(edge["input"]["namespace"], edge["input"]["name"]) for edge in graph["up"]["edges"]}
    assert ("s3://landing", "tills/2026-01-31.json") in inputs


def test_the_second_listing_with_a_transformation_of_its_own(shop, sales, rows):
    class Positive(sales):
        def transform(self, data):
            """Leaves out refunds."""
            return [row for row in data if row["amount"] >= 0]

    product = Positive()
    assert [row["id"] for row in product.process_data(rows)] == [1, 2]
    assert product.transformations == [f"{test_the_second_listing_with_a_transformation_of_its_own.__name__}.Positive.transform"]
    assert product.transformations[0].description == "Leaves out refunds."


def test_the_second_listing_reads_another_product_and_publishes_it(shop, root, sales, rows):
    tills = TRANSACTIONS.replace("daily_transactions", "tills")
    write(root, "domains/sales/products/tills/product.yaml", tills)
    shop.publish("sales/tills", rows[:2])
    product = sales()
    processed = product.process_data(shop.read("sales/tills"))
    assert processed.source.name.startswith("sales.tills")
    assert product.publish_data(processed).published == 2


def test_the_first_listing_gets_its_helpers_from_bind(root, customers):
    write(root, "domains/customer/domain.yaml", "name: customer\nowner: customer-domain\n")
    write(root, "domains/customer/products/customer-360/product.yaml", CUSTOMERS)
    good = [{"customer_id": "c-1", "preferences": {"seat": "aisle"}}, {"customer_id": "c-2", "preferences": None}]
    Bound = bind(customers, "customer/customer-360")
    assert Bound.__name__ == "CustomerDataProduct" and issubclass(Bound, customers)
    product = Bound()
    assert [column.name for column in product.schema.columns] == ["customer_id", "preferences"]
    product.publish_data(good)
    assert product.last_publication.published == 2
    read = Mesh().read("customer/customer-360").to_pylist()
    assert [row["customer_id"] for row in read] == ["c-1", "c-2"]

    # What does not hold is not published, and the class says nothing: the report does.
    product.publish_data([*good, {"customer_id": "c-1", "preferences": None}])
    assert not product.last_report
    assert product.last_publication.published == 2
    assert len(Mesh().publications("customer/customer-360")) == 1


def test_bind_leaves_the_class_and_its_own_helpers_alone(shop, rows):
    class Own:
        def _load_schema(self):
            return "mine"

    Bound = bind(Own, DataProduct("sales", "daily_transactions", "1.0"))
    assert Bound()._load_schema() == "mine"
    assert Bound()._apply_quality_rules(rows)
    assert not hasattr(Own, "_apply_quality_rules")


def test_the_listings_are_the_articles(article):
    """That what is run above is whole: each listing parses, and nothing of it is left out."""
    first = listing(article, "# Example Data Product Class", "self._publish_to_mesh(data)")
    second = listing(article, "from data_mesh_framework import", "return processed_data")
    for text in (first, second):
        assert textwrap.dedent(text) == text
    assert (len(first.splitlines()), len(second.splitlines())) == (12, 25)
