"""Checks tell what a publication would, and leave everything as it is."""

import pandas as pd
import pytest

from conftest import write
from data_mesh_framework import Data, InvalidArgument, InvalidManifest, NotFound, Quality, QualityRules, Rejected

TWO_TABLES = """\
dataProduct:
  name: shop
  version: 1.0.0
  owner: sales-domain
  schema:
    - name: customers
      columns: [{name: id, type: long, primaryKey: true}]
    - name: orders
      columns: [{name: id, type: long, primaryKey: true}, {name: amount, type: double, minimum: 0}]
      quarantine: {limit: 0%}
"""


@pytest.fixture
def rules(shop) -> QualityRules:
    return shop.contract("sales/daily_transactions").quality_rules


def test_rules_are_those_of_the_contract(rules):
    names = {rule.name for rule in rules}
    assert {"condition:small_sums", "minimum:amount", "required:store"} <= names
    assert all(rule.table == "transactions" and rule.words for rule in rules)
    assert "small_sums" in str(rules) and "small_sums" in rules._repr_html_()


def test_a_report_counts_rows_and_rules(rules, rows):
    report = Quality.check(rows, rules)
    assert report, "a third of the rows may be held back"
    assert (report.rows, report.passed, report.failed, report.status) == (3, 2, 1, "quarantined")
    assert report["minimum:amount"].failed == 1
    assert report["small_sums"].failed == 0
    assert report["rowCount > 0"]
    with pytest.raises(KeyError):
        report["nothing"]
    failing = report.failing.to_pylist()
    assert [row["id"] for row in failing] == [3]
    assert "minimum" in str(failing[0]["reasons"])


def test_a_report_is_false_where_publishing_is_rejected(shop, rules, rows):
    bad = [{**row, "amount": -1.0} for row in rows]
    report = Quality.check(bad, rules)
    assert not report
    assert (report.status, report.failed) == ("failed", 3)
    with pytest.raises(Rejected) as raised:
        shop.publish("sales/daily_transactions", bad)
    assert raised.value.report["status"] == "rejected"
    assert "limit of 50%" in str(raised.value)
    assert shop.contract("sales/daily_transactions").serving is None


def test_a_report_says_the_same_as_the_publication(shop, rules, rows):
    report = Quality.check(rows, rules)
    published = shop.publish("sales/daily_transactions", rows)
    assert (report.rows, report.passed, report.failed) == (published.rows, published.published, published.quarantined)
    held = shop.quarantine("sales/daily_transactions").to_pylist()
    assert [row["id"] for row in held] == [row["id"] for row in report.failing.to_pylist()]


def test_checking_changes_nothing(shop, rules, rows):
    Quality.check(rows, rules)
    assert shop.publications("sales/daily_transactions") == []


def test_rules_of_ones_own():
    frame = pd.DataFrame({"id": [1, 2, 2], "sent": [4, 3, 5], "due": [3, 3, 9]})
    report = Quality.check(
        frame,
        [
            "rowCount between 1 and 10",
            {"name": "in_time", "condition": "sent <= due"},
            {"metric": "duplicateValues", "column": "id", "mustBe": 0, "severity": "warning"},
        ],
    )
    assert report["in_time"].failed == 1
    assert report.failing.to_pylist()[0]["sent"] == 4
    (told,) = [result for result in report if result.severity == "warning"]
    assert told and told.status == "failed" and told.value > 0
    assert not report, "a third of the rows is more than may be held back"
    assert Quality.check(frame[frame.id > 1], [{"metric": "duplicateValues", "column": "id", "mustBe": 0, "severity": "warning"}])
    with pytest.raises(InvalidManifest, match="nothere"):
        Quality.check(frame, ["nullValues(nothere) = 0"])
    with pytest.raises(InvalidArgument, match="a rule is text or a dict"):
        Quality.check(frame, [3])


def test_several_tables(root):
    from data_mesh_framework import Mesh

    write(root, "domains/sales/products/shop/product.yaml", TWO_TABLES)
    rules = Mesh().contract("sales/shop").quality_rules
    assert rules.tables == ("customers", "orders")
    good = {"customers": [{"id": 1}], "orders": [{"id": 1, "amount": 1.0}]}
    assert Quality.check(good, rules)
    report = Quality.check({**good, "orders": [{"id": 1, "amount": -1.0}]}, rules)
    assert not report and report.rows == 2
    assert report.failing_of("orders").to_pylist()[0]["amount"] == -1.0
    assert len(report.failing_of("customers")) == 0
    with pytest.raises(InvalidArgument, match="there are 2 tables: customers, orders"):
        report.failing  # noqa: B018
    with pytest.raises(InvalidArgument, match="there are 2 tables: customers, orders"):
        Quality.check([{"id": 1}], rules)
    assert Quality.check([{"id": 1}], rules["customers"])
    assert Quality.check([{"id": 1}], rules, table="customers")
    with pytest.raises(NotFound, match="no table `nothing`\nhelp: tables here: customers, orders"):
        Quality.check([{"id": 1}], rules, table="nothing")
    assert Mesh().publish("sales/shop", good).rows == 2


def test_what_is_missing_or_too_much(rules):
    report = Quality.check([{"id": 1}], rules)
    assert not report and report["required:store"].status == "failed"
    assert sorted(report.missing_columns) == ["amount", "note", "store"] and "store" in str(report)
    # Keys are counted over all rows.
    assert Quality.check([{"id": 1, "store": "a"}, {"id": 1, "store": "b"}], rules).failed == 2


def test_failing_rows_need_not_be_kept(rules, rows):
    report = Quality.check(rows, rules, failing=False)
    assert report.failed == 1
    with pytest.raises(InvalidArgument, match="were not kept"):
        report.failing  # noqa: B018


def test_how_a_report_looks(rules, rows):
    report = Quality.check(rows, rules)
    text = str(report)
    assert text.startswith("sales/daily_transactions quarantined: 3 rows, 2 pass, 1 fail\n")
    assert any(line.strip().startswith("✗ minimum:amount") and " 1 " in line for line in text.splitlines())
    assert any(line.strip().startswith("✓ condition:small_sums") for line in text.splitlines())
    shown = report._repr_html_()
    assert shown.count("<tr>") == len(report) + 1 and "minimum:amount" in shown
    evil = Quality.check(Data([{"a": 1}]), [{"name": "<img>", "condition": "a > 1"}])
    assert "<img>" not in evil._repr_html_()
