"""Data of every kind goes in and comes out, with no more copies and imports than need be."""

import copy
import datetime
import decimal
import pickle
import subprocess
import sys
import uuid

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from conftest import ROWS, write
from data_mesh_framework import Data, DataConsumed, InvalidArgument, InvalidData, Mesh, Quality, Source

GIVEN = {
    "rows": lambda: [dict(row) for row in ROWS],
    "generator": lambda: (dict(row) for row in ROWS),
    "pandas": lambda: pd.DataFrame(ROWS),
    "polars": lambda: pl.DataFrame(ROWS),
    "lazy polars": lambda: pl.LazyFrame(ROWS),
    "arrow table": lambda: pa.Table.from_pylist(ROWS),
    "arrow batch": lambda: pa.RecordBatch.from_pylist(ROWS),
    "arrow reader": lambda: pa.Table.from_pylist(ROWS).to_reader(),
    "duckdb": lambda: duckdb.connect().from_arrow(pa.Table.from_pylist(ROWS)),
}
READ_ONCE = {"arrow reader"}


@pytest.mark.parametrize("kind", GIVEN)
def test_every_kind_is_published_and_read_as_every_kind(shop, kind):
    published = shop.publish("sales/daily_transactions", GIVEN[kind]())
    assert (published.rows, published.published, published.quarantined) == (3, 2, 1)
    assert published.reasons == {"transactions.minimum:amount": 1}
    read = shop.read("sales/daily_transactions")
    assert read.columns == ["id", "store", "amount", "note"]
    assert len(read) == 2
    assert read.to_pylist() == ROWS[:2]
    assert pa.table(read).to_pylist() == ROWS[:2]
    assert read.to_arrow().to_pylist() == ROWS[:2]
    assert read.to_polars().to_dicts() == ROWS[:2]
    assert pl.DataFrame(read).to_dicts() == ROWS[:2]
    assert read.to_pandas()["store"].tolist() == ["Hamburg", "Bremen"]
    assert read.to_duckdb().filter("amount > 50").fetchall() == [(2, "Bremen", 99.0, "gift")]
    connection = duckdb.connect()
    assert read.to_duckdb(connection).aggregate("count(*)").fetchone() == (2,)


@pytest.mark.parametrize("kind", GIVEN)
def test_every_kind_has_the_same_shape(kind):
    data = Data(GIVEN[kind]())
    assert data.columns == ["id", "store", "amount", "note"]
    assert len(data) == 3
    assert [row["store"] for row in data] == ["Hamburg", "Bremen", "Kiel"]
    assert data.source.namespace == "memory"


@pytest.mark.parametrize("kind", sorted(set(GIVEN) - READ_ONCE - {"generator"}))
def test_what_is_checked_is_still_there_to_be_published(shop, kind):
    given = GIVEN[kind]()
    rules = shop.contract("sales/daily_transactions").quality_rules
    assert Quality.check(given, rules).failed == 1
    assert shop.publish("sales/daily_transactions", given).published == 2


def test_a_stream_is_read_once_and_says_so(shop):
    data = Data(GIVEN["arrow reader"]())
    rules = shop.contract("sales/daily_transactions").quality_rules
    assert Quality.check(data, rules).rows == 3
    with pytest.raises(DataConsumed, match=r"read once, and Quality\.check has read it\nhelp: call `collect\(\)`"):
        shop.publish("sales/daily_transactions", data)
    kept = Data(GIVEN["arrow reader"]()).collect()
    assert Quality.check(kept, rules).rows == 3
    assert shop.publish("sales/daily_transactions", kept).published == 2


def test_a_stream_is_shared_by_all_that_wrap_it():
    first = Data(GIVEN["arrow reader"]())
    second = first.with_source("s3://landing/rows.arrow")
    pa.table(first)
    with pytest.raises(DataConsumed):
        pa.table(second)


def test_what_is_read_can_be_used_again_and_stays_the_same(shop, rows):
    shop.publish("sales/daily_transactions", rows[:1])
    read = shop.read("sales/daily_transactions")
    assert pa.table(read).num_rows == 1
    shop.publish("sales/daily_transactions", rows[:2])
    assert pa.table(read).num_rows == 1, "as of the publication that was read"
    assert pa.table(shop.read("sales/daily_transactions")).num_rows == 2


def test_what_was_wrapped_is_given_back_itself():
    frame, table = pd.DataFrame(ROWS), pa.Table.from_pylist(ROWS)
    polars = pl.DataFrame(ROWS)
    assert Data(frame).to_pandas() is frame
    assert Data(table).to_arrow() is table
    assert Data(polars).to_polars() is polars
    assert Data(Data(frame)).native is frame


def test_arrow_is_not_copied():
    table = pa.table({"x": pa.array(range(1000), pa.int64())})
    there = pa.table(Data(table))
    assert there.column("x").chunk(0).buffers()[1].address == table.column("x").chunk(0).buffers()[1].address


def test_an_index_of_pandas_is_a_column_only_where_it_has_a_name():
    frame = pd.DataFrame(ROWS)
    assert Data(frame[frame.amount > 0]).columns == ["id", "store", "amount", "note"]
    assert pa.table(Data(frame[frame.amount > 0])).column_names == ["id", "store", "amount", "note"]
    indexed = Data(frame.set_index("id"))
    assert set(indexed.columns) == set(pa.table(indexed).column_names) == {"id", "store", "amount", "note"}


def test_types_of_rows():
    zone = datetime.timezone(datetime.timedelta(hours=2))
    row = {
        "int": 1,
        "big": 2**63,
        "float": 1.5,
        "text": "a",
        "bytes": b"x",
        "bool": True,
        "date": datetime.date(1900, 1, 1),
        "time": datetime.time(1, 2, 3, 4),
        "naive": datetime.datetime(2026, 1, 31, 12),
        "instant": datetime.datetime(2026, 1, 31, 12, tzinfo=zone),
        "decimal": decimal.Decimal("1.20"),
        "list": [1, None],
        "struct": {"a": 1, "b": ["x"]},
        "none": None,
    }
    table = pa.table(Data([row, {}]))
    assert [str(field.type) for field in table.schema] == [
        "int64",
        "uint64",
        "double",
        "string",
        "binary",
        "bool",
        "date32[day]",
        "time64[us]",
        "timestamp[us]",
        "timestamp[us, tz=UTC]",
        "decimal128(3, 2)",
        "list<item: int64>",
        "struct<a: int64, b: list<item: string>>",
        "string",
    ]
    assert table.to_pylist() == [row, dict.fromkeys(row)]
    identity = uuid.uuid4()
    assert Data([{"id": identity}]).collect().to_arrow().to_pylist() == [{"id": str(identity)}]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "there are no columns"),
        ([{}], "there are no columns"),
        ([1], "row 0 is an int, not a dict"),
        ([{1: 2}], "row 0 has the key 1, which is no string"),
        ([{"a": 1}, {"a": "x"}], r"column `a` mixes int \(row 0\) and str \(row 1\)"),
        ([{"a": 1}, {"a": object()}], "column `a` has an object in row 1, which has no Arrow type"),
        ([{"a": 2**70}], "column `a` has an integer beyond 64 bits"),
        ([{"a": 2**53 + 1}, {"a": 0.5}], "which no float holds exactly"),
        ([{"a": decimal.Decimal("NaN")}], "has a Decimal that is no number"),
        (1, "a value of type int has no rows"),
        ("orders.csv", "files go to `Mesh.publish`"),
        ({"a": [1]}, "a value of type dict has no rows"),
        (None, "a value of type NoneType has no rows"),
    ],
)
def test_what_is_no_data(given, message):
    with pytest.raises(InvalidData, match=message):
        Data(given).schema


def test_a_frame_that_mixes_types():
    with pytest.raises(InvalidData, match="the data frame cannot be made into Arrow"):
        pa.table(Data(pd.DataFrame({"a": [1, "x"]}, dtype=object)))
    with pytest.raises(InvalidData, match="has the column 0, whose name is no string"):
        pa.table(Data(pd.DataFrame([[1]])))


def test_nothing_is_imported_that_is_not_asked_for():
    code = """
        import sys
        from data_mesh_framework import Data, Quality
        assert Quality.check(Data([{"a": 1}]), ["rowCount > 0"])
        loaded = {"pandas", "polars", "pyarrow", "duckdb", "numpy"} & set(sys.modules)
        assert not loaded, loaded
    """
    subprocess.run([sys.executable, "-c", "if True:" + code], check=True)


def test_a_library_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(InvalidArgument, match="to_polars needs `polars`, which is not installed\nhelp: pip install polars"):
        Data([{"a": 1}]).to_polars()


def test_sources():
    assert Source.of("sales/orders") == Source("datamesh", "sales/orders")
    assert Source.of("s3://user:secret@bucket/a/b.parquet") == Source("s3://bucket", "a/b.parquet")
    assert str(Source.of("file:///data/a.csv")) == "file:///data/a.csv"
    for wrong in ("", "orders", "/data/a.csv", "https://", "a/b/c"):
        with pytest.raises(InvalidArgument, match="names no source"):
            Source.of(wrong)
    with pytest.raises(InvalidArgument, match="says not where it comes from"):
        Source.of(3)


@pytest.mark.parametrize("kind", sorted(set(GIVEN) - READ_ONCE - {"duckdb"}))
def test_data_is_pickled_with_its_source(kind):
    data = Data(GIVEN[kind](), source="sales/orders")
    again = pickle.loads(pickle.dumps(data))
    assert again.source == data.source
    assert again.to_pylist() == ROWS


def test_a_stream_cannot_be_pickled(shop, rows):
    shop.publish("sales/daily_transactions", rows)
    for data in (Data(GIVEN["arrow reader"]()), shop.read("sales/daily_transactions")):
        with pytest.raises(TypeError, match="is a stream .* cannot be pickled or copied"):
            pickle.dumps(data)
        with pytest.raises(TypeError, match="is a stream .* cannot be pickled or copied"):
            copy.deepcopy(data)


def test_closed_data_says_so():
    with Data([{"a": 1}]) as data:
        assert len(data) == 1
    with pytest.raises(DataConsumed, match="was closed"):
        pa.table(data)
    assert "closed" in repr(data)


def test_how_it_looks():
    data = Data([{"id": 1, "<b>": "<script>"}], source="sales/orders")
    assert repr(data) == "Data(1 rows; id: Int64, <b>: Utf8; from sales/orders)"
    shown = data._repr_html_()
    assert "&lt;script&gt;" in shown and "<script>" not in shown and "<b>" not in shown
    assert "stream" in repr(Data(GIVEN["arrow reader"]()))


def test_a_reader_that_was_read_is_not_empty_data():
    table = pa.table({"id": [1, 2, 3]})
    reader = table.to_reader()
    assert Quality.check(reader, ["rowCount = 3"])
    for use in (lambda: Data(reader), lambda: Quality.check(reader, ["rowCount = 0"])):
        with pytest.raises(DataConsumed, match="Quality.check has read it"):
            use()
    first, second = Data(other := table.to_reader()), Data(other)
    assert len(first) == 3
    with pytest.raises(DataConsumed, match="a conversion has read it"):
        second.to_pylist()


def test_columns_of_one_name_are_no_dicts():
    twice = Data(pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]))
    with pytest.raises(InvalidData, match="two columns are named `a`"):
        twice.to_pylist()


HUGE = 10**400
ODD = chr(0xD800)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"n": 1}, {"n": HUGE}], "column `n` has an integer beyond 64 bits in row 1: a number of 401 digits"),
        ([{"n": 1.5}, {"n": None}, {"n": HUGE}], "column `n` mixes float with a number of 401 digits in row 2"),
        ([{"n": decimal.Decimal(1)}, {"n": HUGE}], "column `n` needs 401 digits, the most before the point for a number of 401 digits in row 1"),
        ([{"n": 2**64}], "column `n` has an integer beyond 64 bits in row 0: 18446744073709551616"),
        ([{"n": 0}, {"n": -(2**63) - 1}], "column `n` has an integer beyond 64 bits in row 1: -9223372036854775809"),
        ([{"n": decimal.Decimal("NaN")}], "column `n` has a Decimal that is no number in row 0"),
        ([{"n": [1]}, {"n": [2, HUGE]}], "an item of column `n` has an integer beyond 64 bits in row 1"),
        ([{"n": "a"}, {"n": ODD}], "column `n` has text in row 1 that is none: character 0 is half of a surrogate pair"),
        ([{"n": {"a": [f"x{ODD}"]}}], "an item of column `n`, key `a` has text in row 0 that is none: character 1"),
        ([{"n": 1}, {1: 2}], "row 1 has the key 1, which is no string"),
        ([{"n": {"a": 1}}, {"n": {1: 2}}], "column `n` in row 1 has the key 1, which is no string"),
        ([{ODD: 1}], "row 0 has the key '.ud800', which is no text"),
        ([{"t": datetime.time(1, tzinfo=datetime.timezone.utc)}], "column `t` has a time of day with a time zone in row 0"),
        ([{"t": datetime.datetime.min.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=1)))}], "column `t` has 0001-01-01 00:00:00.01:00 in row 0"),
        ([{"n": "a"}, {"n": 1}], "column `n` mixes int .row 1. and str .row 0."),
    ],
)
def test_a_value_that_arrow_has_not_is_told_with_its_row_and_column(rows, told):
    with pytest.raises(InvalidData, match=told) as refused:
        Data(rows).collect()
    assert refused.value.help


def test_a_frame_with_such_values_is_told_too():
    for values in ([1, HUGE], ["a", ODD]):
        with pytest.raises(InvalidData, match="cannot be made into Arrow"):
            Data(pd.DataFrame({"n": pd.Series(values, dtype=object)})).collect()


def test_a_value_that_is_no_json_is_told_with_its_row_and_column(root):
    text = "dataProduct:\n  name: notes\n  version: 1.0.0\n  owner: sales-domain\n  schema:\n    - {name: notes, columns: [{name: note, type: json}]}\n"
    write(root, "domains/sales/products/notes/product.yaml", text)
    with pytest.raises(InvalidData, match="column `note` has a value in row 1 that is no JSON"):
        Mesh().publish("sales/notes", [{"note": {"a": 1}}, {"note": {(1, 2): 3}}])


def test_text_that_is_none_is_refused_wherever_it_is_taken(shop):
    for use in (
        lambda: shop.query(f"SELECT '{ODD}'"),
        lambda: shop.show(f"sales/{ODD}"),
        lambda: shop.quarantine("sales/daily_transactions", ODD),
        lambda: shop.publish("sales/daily_transactions", [{"id": 1}], idempotency_key=ODD),
        lambda: Mesh(act_as=f"user:{ODD}"),
    ):
        with pytest.raises(InvalidArgument):
            use()
