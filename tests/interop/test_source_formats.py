"""Files that other programs wrote: JSON arrays, Arrow IPC by pyarrow, Avro by fastavro."""

import datetime as dt
import gzip
import io
import json
import uuid
from decimal import Decimal
from pathlib import Path

import fastavro
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.ipc as ipc
import pytest

from sources import FOLDER, PRODUCT, command, counts, define, failure, quarantined, rows

COLUMNS = """
{name: id, type: long, primaryKey: true}
{name: name, type: string}
"""


def put(mesh, name: str, content: bytes) -> Path:
    path = mesh.root / FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def made(count: int) -> list[dict]:
    return [{"id": at, "name": f"row {at}"} for at in range(count)]


# JSON arrays


@pytest.mark.parametrize("name", ["rows.json", "rows.json.gz", "rows.txt"])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_array(mesh, name, indent):
    text = json.dumps(made(10_000), indent=indent).encode()
    put(mesh, name, gzip.compress(text) if name.endswith(".gz") else text)
    define(mesh, f"{{path: {name}, format: json}}" if name.endswith(".txt") else name, COLUMNS)
    assert counts(mesh.publish(PRODUCT)) == (10_000, 10_000, 0)
    assert rows(mesh, "count(*) AS n, sum(id) AS s") == [{"n": 10_000, "s": sum(range(10_000))}]


def test_a_json_array_from_standard_input(mesh):
    define(mesh, "", COLUMNS)
    done = command(mesh, "publish", PRODUCT, "rows=-", "--input-format", "json", stdin=json.dumps(made(3)).encode())
    assert done.returncode == 0, done.stderr
    assert rows(mesh) == made(3)


def test_bad_elements_are_quarantined_with_their_text(mesh):
    text = b'\xef\xbb\xbf[{"id":1,"name":"a"}, 5, null, [{"id":9}], {"id":"x","name":"b"}, {"id":2,"id":3}, {"id":,}, , {"id":4,"name":"}],["}]'
    put(mesh, "rows.json", text)
    define(mesh, "rows.json", COLUMNS, more="quarantine: {limit: 100%}")
    assert counts(mesh.publish(PRODUCT)) == (9, 2, 7)
    assert [row["id"] for row in rows(mesh)] == [1, 4]
    held = sorted(quarantined(mesh), key=lambda row: row["position"])
    assert [row["position"] for row in held] == [2, 3, 4, 5, 6, 7, 8]
    assert [row["raw"] for row in held] == ["5", "null", '[{"id":9}]', '{"id":"x","name":"b"}', '{"id":2,"id":3}', '{"id":,}', ""]


def test_nested_values_are_exact(mesh):
    text = '[{"id":1,"name":"x","tags":["a",null],"price":0.10000000000000000555,"when":"2024-01-01T00:00:00Z"}, {"id":2,"price":123456789012345678.12}]'
    put(mesh, "rows.json", text.encode())
    define(mesh, "rows.json", COLUMNS + "{name: tags, type: array<string>}\n{name: price, type: 'decimal(38,20)'}\n{name: when, type: timestamp}")
    assert counts(mesh.publish(PRODUCT)) == (2, 2, 0)
    found = mesh.query("SELECT price, tags FROM lab.pull.rows ORDER BY id").to_pydict()
    assert found["price"] == [Decimal("0.10000000000000000555"), Decimal("123456789012345678.12")]
    assert found["tags"] == [["a", None], None]


@pytest.mark.parametrize("text, why", [
    (b"", "empty"),
    (b'{"id":1}\n{"id":2}\n', "format: ndjson"),
    (b'[{"id":1},', "cut off"),
    (b'[{"id":1}', "cut off"),
    (b'[{"id":1}] [', "follows"),
    (b'[{"id":1}]x', "follows"),
    (b'"text"', "does not begin"),
    (b"7", "does not begin"),
    (b"[" * 100_000, "cut off"),
    ('[{"id":1}]'.encode("utf-16"), "does not begin"),
])
def test_what_is_no_whole_array_is_an_error(mesh, text, why):
    put(mesh, "rows.json", text)
    define(mesh, "rows.json", COLUMNS)
    said = failure(mesh, "publish", PRODUCT)
    assert why in said and "rows.json" in said


def test_deep_nesting_is_a_fault_of_one_row(mesh):
    deep = b'{"id":2,"name":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    put(mesh, "rows.json", b'[{"id":1,"name":"a"},' + deep + b',{"id":3,"name":"c"}]')
    define(mesh, "rows.json", COLUMNS, more="quarantine: {limit: 100%}")
    assert counts(mesh.publish(PRODUCT)) == (3, 2, 1)


def test_a_large_array_is_not_held_in_memory(mesh):
    path = mesh.root / FOLDER / "rows.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    filler = "x" * 2000
    with path.open("w") as out:
        out.write("[")
        for at in range(150_000):
            out.write(("," if at else "") + f'{{"id":{at},"name":"n","other":"{filler}"}}')
        out.write("]")
    assert path.stat().st_size > 300_000_000
    define(mesh, "rows.json", COLUMNS)
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert counts(mesh.publish(PRODUCT)) == (150_000, 150_000, 0)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert peak == before or peak < 280_000, f"{peak} KiB"


# Arrow IPC


def arrow_table() -> pa.Table:
    return pa.table({
        "id": pa.array([1, 2, 3], pa.int64()),
        "word": pa.array(["one", None, "one"]).dictionary_encode(),
        "amount": pa.array([Decimal("1.50"), None, Decimal("-3.25")], pa.decimal128(10, 2)),
        "day": pa.array([dt.date(2024, 2, 29), None, dt.date(1, 1, 1)], pa.date32()),
        "at": pa.array([0, None, 1_700_000_000_123_456], pa.timestamp("us", "UTC")),
        "tags": pa.array([["a"], None, []], pa.list_(pa.string())),
        "place": pa.array([{"city": "Bern"}, None, {"city": None}], pa.struct([("city", pa.string())])),
        "extra": pa.array([1, 2, 3], pa.int8()),
    })


ARROW_COLUMNS = """
{name: id, type: long, primaryKey: true}
{name: word, type: string}
{name: amount, type: 'decimal(10,2)'}
{name: day, type: date}
{name: at, type: timestamp}
{name: tags, type: array<string>}
{name: place, type: struct, columns: [{name: city, type: string}]}
"""


def arrow_bytes(kind: str, compression: str | None, table: pa.Table) -> bytes:
    out = io.BytesIO()
    options = ipc.IpcWriteOptions(compression=compression)
    writer = ipc.new_file(out, table.schema, options=options) if kind == "file" else ipc.new_stream(out, table.schema, options=options)
    with writer:
        for batch in table.to_batches(max_chunksize=2):
            writer.write_batch(batch)
    return out.getvalue()


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
@pytest.mark.parametrize("kind, name", [("file", "rows.arrow"), ("stream", "rows.ipc"), ("stream", "rows.arrows"), ("feather", "rows.feather")])
def test_arrow_ipc(mesh, kind, name, compression):
    table = arrow_table()
    if kind == "feather":
        out = io.BytesIO()
        feather.write_feather(table, out, compression=compression or "uncompressed")
        content = out.getvalue()
    else:
        content = arrow_bytes(kind, compression, table)
    put(mesh, name, content)
    define(mesh, name, ARROW_COLUMNS)
    report = mesh.publish(PRODUCT)
    assert counts(report) == (3, 3, 0)
    assert report["tables"][0]["ignoredColumns"] == ["extra"]
    found = mesh.query("SELECT * FROM lab.pull.rows ORDER BY id").to_pylist()
    expected = table.drop_columns(["extra"]).to_pylist()
    for row in found:
        row["at"] = row["at"] and row["at"].astimezone(dt.timezone.utc)
    for row in expected:
        row["at"] = row["at"] and row["at"].astimezone(dt.timezone.utc)
    assert found == expected


def test_arrow_ipc_from_standard_input(mesh):
    define(mesh, "", ARROW_COLUMNS)
    for kind in ("file", "stream"):
        done = command(mesh, "publish", PRODUCT, "rows=-", "--input-format", "arrow", stdin=arrow_bytes(kind, "lz4", arrow_table()))
        assert done.returncode == 0, done.stderr
    assert len(rows(mesh)) == 3


def test_arrow_cells_that_do_not_fit_are_quarantined(mesh):
    table = pa.table({"id": pa.array([1, 2, 3], pa.float64()), "name": pa.array([1, 2, 3], pa.int64())})
    put(mesh, "rows.arrow", arrow_bytes("file", None, table.set_column(0, "id", pa.array([1.0, 2.5, float("nan")]))))
    define(mesh, "rows.arrow", "{name: id, type: long}", more="quarantine: {limit: 100%}")
    assert counts(mesh.publish(PRODUCT)) == (3, 1, 2)


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_cut_arrow_is_an_error(mesh, kind):
    content = arrow_bytes(kind, "zstd", arrow_table())
    define(mesh, "rows.arrow", ARROW_COLUMNS)
    for end in (0, 5, 100, len(content) // 2, len(content) - (20 if kind == "stream" else 3)):
        put(mesh, "rows.arrow", content[:end])
        assert "rows.arrow" in failure(mesh, "publish", PRODUCT), end


def test_a_stream_that_ends_between_two_messages_is_an_error(mesh):
    """The specification allows it, but nobody could tell it from one that was cut off."""
    out = io.BytesIO()
    ends = []
    schema = pa.schema([("id", pa.int64()), ("name", pa.string())])
    with ipc.new_stream(out, schema) as writer:
        for start in (0, 3, 6):
            writer.write_table(pa.table({"id": list(range(start, start + 3)), "name": ["a", "b", "c"]}, schema=schema))
            ends.append(out.tell())
    whole = out.getvalue()
    define(mesh, "rows.arrows", COLUMNS)
    for end in ends:
        put(mesh, "rows.arrows", whole[:end])
        said = failure(mesh, "publish", PRODUCT)
        assert "rows.arrows" in said and "end-of-stream marker" in said, said
    put(mesh, "rows.arrows", whole)
    assert counts(mesh.publish(PRODUCT)) == (9, 9, 0)


def test_a_stream_lies_in_a_folder_of_formats(mesh):
    put(mesh, "data/a.csv", b"id,name\n1,csv\n")
    put(mesh, "data/b.arrows", arrow_bytes("stream", None, pa.table({"id": [2], "name": ["arrows"]})))
    define(mesh, "data", COLUMNS)
    assert counts(mesh.publish(PRODUCT)) == (2, 2, 0)
    assert [row["name"] for row in rows(mesh)] == ["csv", "arrows"]


# Avro

AVRO_SCHEMA = {
    "type": "record",
    "name": "Row",
    "namespace": "lab",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "word", "type": ["null", "string"]},
        {"name": "colour", "type": {"type": "enum", "name": "Colour", "symbols": ["RED", "GREEN"]}},
        {"name": "code", "type": {"type": "fixed", "name": "Code", "size": 3}},
        {"name": "amount", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}]},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "clock", "type": {"type": "long", "logicalType": "time-micros"}},
        {"name": "at", "type": [{"type": "long", "logicalType": "timestamp-micros"}, "null"]},
        {"name": "ms", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "local", "type": {"type": "long", "logicalType": "local-timestamp-micros"}},
        {"name": "uid", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "ok", "type": "boolean"},
        {"name": "share", "type": "double"},
        {"name": "tags", "type": {"type": "array", "items": ["null", "string"]}},
        {"name": "sizes", "type": {"type": "map", "values": "int"}},
        {"name": "place", "type": ["null", {"type": "record", "name": "Place", "fields": [{"name": "city", "type": "string"}]}]},
    ],
}

AVRO_COLUMNS = """
{name: id, type: long, primaryKey: true}
{name: word, type: string}
{name: colour, type: string, enum: [RED, GREEN]}
{name: code, type: binary}
{name: amount, type: 'decimal(10,2)'}
{name: day, type: date}
{name: clock, type: time}
{name: at, type: timestamp}
{name: ms, type: timestamp}
{name: local, type: timestamp_ntz}
{name: uid, type: uuid}
{name: ok, type: boolean}
{name: share, type: double}
{name: tags, type: array<string>}
{name: sizes, type: 'map<string,int>'}
{name: place, type: struct, columns: [{name: city, type: string}]}
"""


def avro_rows(count: int) -> list[dict]:
    moment = dt.datetime(2024, 2, 29, 12, 30, 15, 123000, tzinfo=dt.timezone.utc)
    return [{
        "id": at,
        "word": None if at % 3 == 0 else f"wörd {at}",
        "colour": "RED" if at % 2 else "GREEN",
        "code": bytes([at % 256, 0, 255]),
        "amount": None if at % 5 == 0 else Decimal(at) / 4 - 100,
        "day": dt.date(2024, 1, 1) + dt.timedelta(days=at),
        "clock": dt.time(1, 2, 3, at % 1_000_000),
        "at": None if at % 7 == 0 else moment + dt.timedelta(microseconds=at),
        "ms": moment + dt.timedelta(milliseconds=at),
        "local": dt.datetime(1969, 12, 31, 23, 59, 59, 999999),
        "uid": uuid.UUID(int=at * 7919),
        "ok": at % 2 == 0,
        "share": at / 3,
        "tags": [None, f"t{at}"][: at % 3],
        "sizes": {"a": at, "b": -at} if at % 2 else {},
        "place": None if at % 4 == 0 else {"city": f"city {at}"},
    } for at in range(1, count + 1)]


def avro_bytes(codec: str, content: list[dict]) -> bytes:
    out = io.BytesIO()
    fastavro.writer(out, AVRO_SCHEMA, content, codec=codec, sync_interval=4000)
    return out.getvalue()


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "snappy", "zstandard"])
def test_avro(mesh, codec):
    content = avro_rows(500)
    try:
        written = avro_bytes(codec, content)
    except ValueError as error:
        if codec not in ("snappy", "zstandard"):
            raise
        pytest.skip(f"fastavro cannot write {codec} here: {error}")
    put(mesh, "rows.avro", written)
    define(mesh, "rows.avro", AVRO_COLUMNS)
    assert counts(mesh.publish(PRODUCT)) == (500, 500, 0)
    found = mesh.query("SELECT * FROM lab.pull.rows ORDER BY id").to_pylist()
    for row, expected in zip(found, content, strict=True):
        row["at"] = row["at"] and row["at"].astimezone(dt.timezone.utc)
        row["ms"] = row["ms"].astimezone(dt.timezone.utc)
        row["sizes"] = dict(row["sizes"])
        row["uid"] = uuid.UUID(row["uid"])
        assert row == expected


def test_avro_from_standard_input(mesh):
    define(mesh, "", AVRO_COLUMNS)
    done = command(mesh, "publish", PRODUCT, "rows=-", "--input-format", "avro", stdin=avro_bytes("deflate", avro_rows(50)))
    assert done.returncode == 0, done.stderr
    assert rows(mesh, "count(*) AS n") == [{"n": 50}]


def test_damaged_avro_is_an_error(mesh):
    content = avro_bytes("deflate", avro_rows(500))
    define(mesh, "rows.avro", AVRO_COLUMNS)
    sync = content[-16:]
    middle = content.index(sync, len(content) // 2)
    damaged = {
        "empty": b"",
        "no container": b"id,name\n1,x\n",
        "cut header": content[:50],
        "cut block": content[: middle - 7],
        "cut sync marker": content[:-3],
        "another sync marker": content[:middle] + bytes(16) + content[middle + 16 :],
        "flipped data": content[: middle - 40] + b"\0" * 30 + content[middle - 10 :],
    }
    for what, broken in damaged.items():
        put(mesh, "rows.avro", broken)
        assert "rows.avro" in failure(mesh, "publish", PRODUCT), what


def test_a_folder_of_formats_is_one_source(mesh):
    put(mesh, "data/a.json", json.dumps([{"id": 1, "name": "json"}]).encode())
    put(mesh, "data/b.arrow", arrow_bytes("file", None, pa.table({"id": [2], "name": ["arrow"]})))
    out = io.BytesIO()
    fastavro.writer(out, {"type": "record", "name": "R", "fields": [{"name": "id", "type": "long"}, {"name": "name", "type": "string"}]}, [{"id": 3, "name": "avro"}])
    put(mesh, "data/c.avro", out.getvalue())
    define(mesh, "data", COLUMNS)
    assert counts(mesh.publish(PRODUCT)) == (3, 3, 0)
    assert [row["name"] for row in rows(mesh)] == ["json", "arrow", "avro"]


def test_a_secret_in_a_path_is_kept_nowhere(mesh, monkeypatch):
    """Not in a report, though the report names the file of a bad row; not in an error either."""
    put(mesh, "tok3n-xyz/rows.csv", b"id,name\n1,a\nx,b\n")
    monkeypatch.setenv("TOKEN", "tok3n-xyz")
    define(mesh, "'${env:TOKEN}/rows.csv'", COLUMNS, more="quarantine: {limit: 100%}")
    report = mesh.publish(PRODUCT)
    assert counts(report) == (2, 1, 1)
    assert "${env:TOKEN}/rows.csv" in report["tables"][0]["reasons"]["type:id"]["samples"][0]["file"]
    held = json.dumps(quarantined(mesh)) + json.dumps(report) + mesh.run("publications", PRODUCT)
    kept = held.encode() + b"".join(path.read_bytes() for path in mesh.root.rglob("*") if path.is_file() and path.suffix != ".csv")
    assert b"tok3n-xyz" not in kept
    monkeypatch.setenv("TOKEN", "n0t-there")
    said = failure(mesh, "publish", PRODUCT)
    assert "${env:TOKEN}" in said and "n0t-there" not in said
    monkeypatch.delenv("TOKEN")
    assert "TOKEN" in failure(mesh, "publish", PRODUCT)


def test_on_the_command_line_a_reference_is_a_name(mesh):
    path = put(mesh, "${env:HOME}.csv", b"id,name\n1,a\n")
    define(mesh, "", COLUMNS)
    assert counts(mesh.publish(PRODUCT, f"rows={path}")) == (1, 1, 0)


def test_check_explains_references(mesh):
    define(mesh, "'${env:}/rows.csv'", COLUMNS)
    found = mesh.json("check", expect=4)["diagnostics"]
    assert [problem["id"] for problem in found] == ["invalid-reference"] and found[0]["location"]["line"] == 8
