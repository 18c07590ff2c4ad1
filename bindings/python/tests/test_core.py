"""The extension module itself: data in and out, errors, stopping, threads and processes. Each test has a mesh of its own."""

import datetime
import decimal
import json
import logging
import os
import pickle
import signal
import threading
from pathlib import Path

import duckdb
import pandas
import polars
import pyarrow as pa
import pytest

from data_mesh_framework import _core

SPECS = Path(__file__).resolve().parents[4] / "shared" / "specs" / "openlineage"

MANIFEST = """\
dataProduct:
  name: orders
  version: 1.0.0
  owner: shop-team
  schema:
    - name: orders
      write: append
      quarantine: {limit: 50%}
      columns:
        - {name: id, type: long, primaryKey: true}
        - {name: customer, type: string, required: true}
        - {name: amount, type: 'decimal(10,2)', minimum: 0}
        - {name: placed, type: timestamp}
        - {name: tags, type: array, items: {type: string}}
"""

PLACED = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)


@pytest.fixture
def mesh(tmp_path):
    folder = tmp_path / "shop"
    code, _ = _core.command(["init", str(folder), "--domain", "shop", "--owner", "shop-team"])
    assert code == 0
    write(folder, "orders", MANIFEST)
    return folder


@pytest.fixture
def session(mesh):
    return _core.Session(str(mesh))


def write(mesh, product, text):
    folder = mesh / "domains" / "shop" / "products" / product
    folder.mkdir(parents=True)
    (folder / "product.yaml").write_text(text)


def orders(first=1, count=3, **columns):
    rows = {
        "id": list(range(first, first + count)),
        "customer": [f"c{at}" for at in range(count)],
        "amount": [decimal.Decimal("1.50")] * count,
        "placed": [PLACED] * count,
        "tags": [["a", "b"]] * count,
    }
    schema = {
        "id": pa.int64(),
        "customer": pa.string(),
        "amount": pa.decimal128(10, 2),
        "placed": pa.timestamp("us", "UTC"),
        "tags": pa.list_(pa.string()),
    }
    return pa.table({name: pa.array(columns.get(name, values), schema[name]) for name, values in rows.items()})


def publish(session, data, **options):
    return json.loads(session.publish("shop/orders", {"orders": data}, options))


def ask(session, sql):
    return pa.table(session.query(sql))


# Data in, data out.


@pytest.mark.parametrize(
    "made",
    [
        lambda table: table,
        lambda table: table.to_reader(),
        lambda table: table.to_batches()[0],
        lambda table: table.to_pandas(types_mapper=pandas.ArrowDtype),
        polars.from_arrow,
        lambda table: duckdb.from_arrow(table),
    ],
    ids=["table", "reader", "batch", "pandas", "polars", "duckdb"],
)
def test_what_any_library_holds_is_published(session, made):
    report = publish(session, made(orders()))
    assert report["status"] == "published", report
    assert ask(session, "SELECT * FROM shop.orders.orders ORDER BY id").to_pylist() == orders().to_pylist()


def test_rows_come_out_as_any_library_wants_them(session):
    publish(session, orders())
    sql = "SELECT id, customer FROM shop.orders.orders ORDER BY id"
    want = [(1, "c0"), (2, "c1"), (3, "c2")]
    assert polars.DataFrame(session.query(sql)).rows() == want
    rows = session.query(sql)
    assert duckdb.sql("SELECT * FROM rows").fetchall() == want
    assert list(pa.table(session.query(sql)).to_pandas().itertuples(index=False, name=None)) == want


def test_a_table_of_a_product_is_read_with_its_columns(session):
    publish(session, orders())
    rows = session.read("shop/orders", columns=["customer", "id"])
    assert rows.column_names == ["customer", "id"]
    assert pa.table(rows).num_rows == 3
    with pytest.raises(_core.NotFound):
        session.read("shop/orders", "nothing")


def test_a_stream_is_read_once(session):
    publish(session, orders())
    rows = session.query("SELECT id FROM shop.orders.orders")
    assert pa.table(rows).num_rows == 3
    with pytest.raises(_core.InvalidArgument, match="read before"):
        pa.table(rows)
    reader = orders().to_reader()
    reader.read_all()
    assert publish(session, reader)["tables"][0]["in"] == 0


def test_an_earlier_version_is_read(session):
    publish(session, orders())
    publish(session, orders(first=10))
    sql = "SELECT count(*) AS n FROM shop.orders.orders"
    assert ask(session, sql).to_pylist() == [{"n": 6}]
    assert pa.table(session.query(sql, as_of="1")).to_pylist() == [{"n": 3}]
    with pytest.raises(_core.InvalidArgument, match="as_of=yesterday"):
        session.query(sql, as_of="yesterday")


def test_every_layout_of_a_text_is_text(session):
    texts = pa.array(["c0", "c1", "c2"])
    for at, layout in enumerate([texts.dictionary_encode(), texts.cast(pa.string_view()), texts.cast(pa.large_string())]):
        table = orders(first=at * 10 + 1)
        table = table.set_column(1, "customer", layout)
        table = table.set_column(4, "tags", table["tags"].cast(pa.large_list(pa.large_string())))
        assert publish(session, table)["tables"][0]["published"] == 3
    assert ask(session, "SELECT DISTINCT customer FROM shop.orders.orders").num_rows == 3


def test_what_does_not_fit_is_held_back_with_its_reasons(session):
    table = orders(count=4, amount=[1, -1, 2, 3]).set_column(0, "id", pa.array(["1", "2", "x", "4"]))
    report = publish(session, table)
    assert (report["tables"][0]["published"], report["tables"][0]["quarantined"]) == (2, 2)
    assert set(report["tables"][0]["reasons"]) == {"minimum:amount", "type:id"}
    held = pa.table(session.quarantine("shop/orders"))
    assert held["customer"].to_pylist() == ["c1", "c2"]
    assert [reason["rule"] for reasons in held["reasons"].to_pylist() for reason in reasons] == ["minimum", "type"]


def test_what_is_no_table_is_refused(session):
    with pytest.raises(_core.InvalidArgument, match="`int` is no table") as refused:
        publish(session, 1)
    assert "__arrow_c_stream__" in refused.value.help
    with pytest.raises(_core.InvalidArgument, match="is no table"):
        publish(session, pa.chunked_array([[1, 2]]))
    with pytest.raises(_core.InvalidArgument, match="no option"):
        publish(session, orders(), dryrun=True)


# Checks.


def test_a_check_tells_every_rule_and_the_rows_that_fail():
    table = orders(count=5, amount=[1, -1, 2, None, 3]).set_column(0, "id", pa.array([1, 2, 3, 3, 4]))
    report, failing = _core.check(MANIFEST, "orders", table)
    report = json.loads(report)
    assert (report["rows"], report["passed"], report["failed"], report["status"]) == (5, 2, 3, "failed")
    rules = {rule["name"]: rule for rule in report["rules"]}
    assert (rules["minimum:amount"]["failed"], rules["primaryKey:id"]["failed"], rules["required:customer"]["failed"]) == (1, 2, 0)
    assert rules["minimum:amount"]["status"] == "failed" and rules["required:customer"]["status"] == "passed"
    assert rules["minimum:amount"]["words"] == "`amount` is at least 0"
    failing = pa.table(failing)
    assert failing.column_names == ["id", "customer", "amount", "placed", "tags", "reasons", "position", "raw"]
    assert sorted(failing["customer"].to_pylist()) == ["c1", "c2", "c3"]


def test_a_check_and_a_quarantine_have_the_same_names_and_leave_those_of_the_data(mesh, session):
    text = MANIFEST.replace("name: tags, type: array, items: {type: string}", "name: raw, type: string").replace("name: orders", "name: raws", 1)
    write(mesh, "raws", text)
    table = orders(amount=[1, -1, 2]).drop_columns(["tags"]).append_column("raw", pa.array(["x", "y", "z"]))
    session.publish("shop/raws", {"orders": table}, {})
    held = pa.table(session.quarantine("shop/raws"))
    assert held.column_names == ["reasons", "file", "position", "_raw", "id", "customer", "amount", "placed", "raw"]
    failing = pa.table(_core.check(text, "orders", table)[1])
    assert failing.column_names == ["id", "customer", "amount", "placed", "raw", "reasons", "position", "_raw"]
    assert held["raw"].to_pylist() == failing["raw"].to_pylist() == ["y"]
    assert held["reasons"].to_pylist() == failing["reasons"].to_pylist()


def test_a_check_may_leave_the_rows_alone():
    report, failing = _core.check(MANIFEST, "orders", orders(amount=[1, -1, 2]), failing=False)
    assert json.loads(report)["failed"] == 1 and failing is None
    _, failing = _core.check(MANIFEST, "orders", orders())
    assert failing is None


def test_a_contract_with_errors_tells_them_all_with_their_places():
    wrong = MANIFEST.replace("type: long", "type: lang").replace("minimum: 0", "minimun: 0")
    with pytest.raises(_core.InvalidManifest) as refused:
        _core.check(wrong, "orders", orders())
    lines = [found["location"]["line"] for found in refused.value.diagnostics if found["level"] == "error"]
    assert lines == [10, 12] and "product.yaml:10" in str(refused.value)


def test_a_contract_is_drafted_from_data():
    text = "dataProduct:\n  name: orders\n  version: 0.1.0\n  owner: shop-team\n  schema:\n"
    text += "".join(f"    {line}\n" for line in _core.infer("orders", orders()).splitlines())
    report, failing = _core.check(text, "orders", orders())
    assert json.loads(report)["status"] == "passed" and failing is None


# Errors, and how work is stopped.


def test_errors_are_typed_and_survive_pickling(tmp_path, session):
    with pytest.raises(_core.MeshNotFound):
        _core.Session(str(tmp_path / "nowhere"))
    with pytest.raises(_core.InvalidQuery) as refused:
        session.query("SELEC 1")
    again = pickle.loads(pickle.dumps(refused.value))
    assert (type(again), again.code, again.exit_code, str(again)) == (_core.InvalidQuery, "invalid-query", 9, str(refused.value))
    with pytest.raises(LookupError) as missing:
        session.command(["show", "nothing"])
    assert missing.value.code == "not-found" and missing.value.help


def test_commands_answer_and_are_refused(session, caplog):
    code, text = session.command(["show", "--format", "json"])
    assert (code, json.loads(text)) == (0, [])
    with pytest.raises(_core.InvalidArgument):
        session.command(["publisch"])
    assert session.command(["--help"])[0] == 0
    (Path(session.root) / "bad.csv").write_text("id,customer\n1,\n2,\n")
    code, text = session.command(["publish", "shop/orders", f"orders={session.root}/bad.csv", "--format", "json"])
    assert code == 3 and json.loads(text)["status"] == "rejected"
    with caplog.at_level(logging.WARNING, "data_mesh_framework"):
        assert session.command(["plan", "--format", "text"])[0] == 0
    with pytest.raises(_core.InvalidManifest) as refused:
        (Path(session.root) / "domains/shop/products/orders/product.yaml").write_text("dataProduct: 1\n")
        session.command(["plan"])
    assert refused.value.diagnostics


def test_a_producer_that_fails_is_told(session):
    def batches():
        yield orders().to_batches()[0]
        raise ValueError("the tap ran dry")

    with pytest.raises(_core.SourceUnreadable, match="the tap ran dry"):
        publish(session, pa.RecordBatchReader.from_batches(orders().schema, batches()))
    assert json.loads(session.command(["publications", "shop/orders", "--format", "json"])[1]) == []


def endless(meanwhile):
    """Batches without an end; `meanwhile` is called once, when the first was taken."""
    batch = orders().to_batches()[0]
    yield batch
    meanwhile()
    while True:
        yield batch


def test_ctrl_c_stops_a_publication_and_nothing_is_left(session):
    reader = pa.RecordBatchReader.from_batches(orders().schema, endless(lambda: signal.raise_signal(signal.SIGINT)))
    with pytest.raises(KeyboardInterrupt) as stopped:
        publish(session, reader)
    assert isinstance(stopped.value, _core.Interrupted)
    assert json.loads(session.command(["publications", "shop/orders", "--format", "json"])[1]) == []
    assert publish(session, orders())["status"] == "published"


def test_work_is_stopped_from_elsewhere(session):
    stop = _core.Stop()
    reader = pa.RecordBatchReader.from_batches(orders().schema, endless(stop.stop))
    with pytest.raises(_core.Interrupted):
        _core.check(MANIFEST, "orders", reader, stop=stop)
    assert stop.stopped


def test_progress_is_told_and_what_it_raises_stops_the_work(session):
    heard = []
    session.publish("shop/orders", {"orders": orders()}, {}, heard.append)
    assert {event["step"] for event in heard if event["event"] == "step"} >= {"staged", "committed"}
    read = [event for event in heard if event["event"] == "read"]
    assert read[-1]["table"] == "orders" and read[-1]["bytes"] > 0

    def refuse(event):
        raise ArithmeticError("enough")

    reader = pa.RecordBatchReader.from_batches(orders().schema, endless(lambda: None))
    with pytest.raises(ArithmeticError, match="enough"):
        session.publish("shop/orders", {"orders": reader}, {}, refuse)


# Threads and processes.


def test_threads_share_a_session(session):
    publish(session, orders())
    counts, failures = [], []

    def work():
        try:
            counts.append(ask(session, "SELECT count(*) AS n FROM shop.orders.orders")["n"][0].as_py())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (counts, failures) == ([3] * 8, [])


def test_text_that_is_none_gets_nowhere(session):
    latin = pa.array([b"caf\xe9", b"ok"], pa.binary()).view(pa.string())
    table = orders()
    table = table.slice(0, 2).append_column("note", latin)
    for use in (
        lambda: publish(session, table),
        lambda: _core.infer("orders", table),
    ):
        with pytest.raises(_core.DataMeshError, match="(?i)utf.?8"):
            use()
    nested = table.append_column("inner", pa.StructArray.from_arrays([latin], ["text"]))
    with pytest.raises(_core.DataMeshError, match="(?i)utf.?8"):
        _core.infer("orders", nested)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_refused_what_its_parent_has_open(session):
    publish(session, orders())
    unread = session.query("SELECT id FROM shop.orders.orders")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            told = []
            try:
                pa.table(unread)
            except pa.ArrowInvalid as error:
                told.append("fork" in str(error))
            for use in (session, _core.Session(session.root)):
                for what in (lambda: publish(use, orders(first=10)), lambda: use.command(["show"])):
                    try:
                        what()
                    except _core.DataMeshError as error:
                        told.append("forked" in str(error) and "spawn" in error.help)
            code = 0 if told == [True] * 5 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pa.table(unread).num_rows == 3
    publish(session, orders(first=10))
    assert ask(session, "SELECT count(*) AS n FROM shop.orders.orders")["n"][0].as_py() == 6


# Governance and lineage.


@pytest.mark.parametrize("words", [["show", "--as", "user:root"], ["show", "--as=user:root"], ["show", "--mesh", "/tmp"]])
def test_words_make_nobody_else_of_who_acts(session, words):
    publish(session, orders())
    own = _core.Session(session.root, act_as="user:bob")
    own.command(["show"])
    with pytest.raises(_core.DataMeshError, match="than the session"):
        own.command(words)


def test_reads_and_publications_are_recorded_with_their_door(mesh, session):
    publish(session, orders())
    ask(session, "SELECT id FROM shop.orders.orders")
    entries = json.loads(session.command(["audit", "--format", "json"])[1])
    by_kind = {entry["kind"]: entry for entry in entries}
    assert by_kind["read"]["door"] == by_kind["decision"]["door"] == "python"
    assert by_kind["read"]["details"]["rows"] == 3
    assert session.command(["audit", "verify"])[0] == 0
    stranger = _core.Session(str(mesh), act_as="user:nobody", purpose="curiosity")
    with pytest.raises(_core.AccessDenied):
        publish(stranger, orders(first=10))


def run(**changes):
    document = {
        "job": "shop/orders",
        "inputs": [{"namespace": "file", "name": "/landing/orders.csv"}, {"namespace": "datamesh", "name": "shop/customers"}],
        "outputs": [{"namespace": "datamesh", "name": "shop/orders.orders"}],
        "transformations": ["clean", {"name": "join", "description": "with the customers"}],
        "started": "2026-01-01T10:00:00+00:00",
        "ended": "2026-01-01T10:05:00+00:00",
        "columns": {"customer": [{"namespace": "datamesh", "name": "shop/customers", "field": "name"}]},
    }
    return json.dumps({**document, **changes})


CUSTOMERS = """\
dataProduct:
  name: customers
  version: 1.0.0
  owner: shop-team
  schema:
    - name: customers
      columns:
        - {name: name, type: string}
"""


def test_a_recorded_run_shows_in_the_lineage(mesh, session):
    write(mesh, "customers", CUSTOMERS)
    publish(session, orders())
    event = json.loads(session.record_lineage(run()))
    assert event["eventType"] == "COMPLETE" and event["job"]["name"] == "shop/orders"
    assert [dataset["name"] for dataset in event["inputs"]] == ["/landing/orders.csv", "shop.customers_v1.customers"]
    fields = event["outputs"][0]["facets"]["columnLineage"]["fields"]
    assert fields["customer"]["inputFields"][0]["name"] == "shop.customers_v1.customers"
    text = session.command(["lineage", "shop/orders.orders.customer", "--up"])[1]
    assert "shop.customers_v1.customers.name" in text
    whole = session.command(["lineage", "shop/orders", "--up"])[1]
    assert "/landing/orders.csv" in whole and "pyarrow.Table" in whole
    entry = json.loads(session.command(["audit", "--kind", "lineage-recorded", "--format", "json"])[1])[0]
    assert entry["resource"] == "shop.orders_v1.orders" and entry["details"]["run"] == event["run"]["runId"]
    assert session.command(["audit", "verify"])[0] == 0


def test_a_run_is_recorded_by_whoever_may_publish_and_names_what_is_there(mesh, session):
    write(mesh, "customers", CUSTOMERS)
    publish(session, orders())
    with pytest.raises(_core.AccessDenied):
        _core.Session(str(mesh), act_as="user:nobody").record_lineage(run())
    with pytest.raises(_core.NotFound, match="shop/custommers"):
        session.record_lineage(run(inputs=[{"name": "shop/custommers"}], columns={}))
    with pytest.raises(_core.NotFound, match="no column `custommer`"):
        session.record_lineage(run(columns={"custommer": []}))
    with pytest.raises(_core.InvalidArgument, match="unknown field"):
        session.record_lineage(run(transformation=[]))
    assert json.loads(session.command(["audit", "--kind", "lineage-recorded", "--format", "json"])[1]) == []


def test_an_event_is_one_of_openlineage(mesh, session):
    if not SPECS.is_dir():
        pytest.skip(f"NOT CHECKED against OpenLineage's schemas: there is no {SPECS}")
    from jsonschema import Draft202012Validator
    from referencing import Registry, Resource

    write(mesh, "customers", CUSTOMERS)
    event = json.loads(session.record_lineage(run()))
    documents = [json.loads(path.read_text()) for path in [SPECS / "OpenLineage.json", *(SPECS / "facets").glob("*.json")]]
    registry = Registry().with_resources((document["$id"], Resource.from_contents(document)) for document in documents)

    def check(value, schema):
        Draft202012Validator({"$ref": schema}, registry=registry, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(value)

    check(event, "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent")
    facets = [event["run"]["facets"], event["job"]["facets"]]
    facets += [dataset["facets"] for dataset in event["inputs"] + event["outputs"]]
    checked = [check(facet, facet["_schemaURL"]) for group in facets for facet in group.values()]
    assert len(checked) >= 7


def test_a_contract_tells_its_rules_in_words(session):
    found = json.loads(session.contract("shop/orders"))
    assert (found["product"], found["registered"], found["manifest"]) == ("shop/orders", False, MANIFEST)
    words = [rule["words"] for rule in found["tables"][0]["rules"]]
    assert "`customer` is never null" in words and "no two rows have the same `id`" in words
    publish(session, orders())
    assert json.loads(session.contract("shop/orders"))["registered"] is True
    with pytest.raises(_core.NotFound):
        session.contract("shop/nothing")
