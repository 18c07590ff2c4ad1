"""Other engines that read what datamesh published, and a comparison that hides no difference in content."""

import datetime
import importlib.util
import json
import math
import struct
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.table import StaticTable


def iceberg_table(metadata_location: str) -> StaticTable:
    return StaticTable.from_metadata(metadata_location)


def as_pyiceberg_reads(table: pa.Table) -> pa.Table:
    """The same rows, with empty in place of null where a top-level list or map holds structs.

    FIXME: PyIceberg 0.12 rebuilds such arrays from their offsets (`ArrowProjectionVisitor`) and loses their nulls. In
    the files they are null, and the other engines read them so.
    """
    for at, field in enumerate(table.schema):
        kind = field.type
        holds = kind.item_type if pa.types.is_map(kind) else kind.value_type if pa.types.is_list(kind) else None
        if holds is not None and pa.types.is_struct(holds):
            values = [[] if value is None else value for value in table[at].to_pylist()]
            table = table.set_column(at, field, pa.array(values, kind))
    return table


def connect_duckdb() -> duckdb.DuckDBPyConnection:
    """A connection with the Iceberg extension, loaded from its wheel: nothing is fetched."""
    connection = duckdb.connect(config={"autoinstall_known_extensions": False, "autoload_known_extensions": False})
    for name in ("avro", "iceberg"):
        package = importlib.util.find_spec(f"duckdb_extension_{name}")
        path = Path(package.origin).parent / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
        connection.execute(f"LOAD '{path}'")
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def duckdb_scan(metadata_location: str) -> str:
    """The FROM item that reads a table."""
    return "iceberg_scan('" + metadata_location.replace("'", "''") + "')"


def duckdb_rows(connection: duckdb.DuckDBPyConnection, metadata_location: str, where: str = "TRUE") -> pa.Table:
    return connection.execute(f"SELECT * FROM {duckdb_scan(metadata_location)} WHERE {where}").to_arrow_table()


def canonical(table: pa.Table) -> pa.Table:
    """The same content in one physical form, rows sorted by all columns.

    Only representation is evened out (string and list layouts, time units, zone names). Floats are compared by their
    bits, so that -0.0 is not 0.0 and NaN equals NaN. Nested values become text.
    """
    columns, names = [], []
    for name, column in zip(table.column_names, table.columns):
        columns.append(_plain(column))
        names.append(name)
    plain = pa.table(columns, names=names)
    return plain.sort_by([(name, "ascending") for name in names]) if plain.num_rows else plain


def _plain(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    kind = array.type
    if pa.types.is_dictionary(kind):
        array, kind = array.dictionary_decode(), kind.value_type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return array.cast(pa.string())
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return array.cast(pa.binary())
    if pa.types.is_timestamp(kind):
        return array.cast(pa.timestamp("us", "UTC" if kind.tz else None))
    if pa.types.is_time(kind):
        return array.cast(pa.time64("us"))
    if pa.types.is_floating(kind):
        bits = pa.int32() if kind == pa.float32() else pa.int64()
        return pc.if_else(pc.is_nan(array), pa.scalar(math.nan, kind), array).view(bits)
    if pa.types.is_nested(kind):
        values = [None if value is None else _text(value, kind) for value in array.to_pylist()]
        return pa.array(values, pa.string())
    return array


def _text(value, kind: pa.DataType) -> str:
    return json.dumps(_tree(value, kind), ensure_ascii=False)


def _tree(value, kind: pa.DataType):
    if value is None:
        return None
    if pa.types.is_struct(kind):
        return [[field.name, _tree(value[field.name], field.type)] for field in kind]
    if pa.types.is_map(kind):
        entries = [[_tree(key, kind.key_type), _tree(item, kind.item_type)] for key, item in value]
        return sorted(entries, key=json.dumps)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_list_view(kind) or pa.types.is_fixed_size_list(kind):
        return [_tree(item, kind.value_type) for item in value]
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack(">d", value).hex()
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.timezone.utc).isoformat() if value.tzinfo else value.isoformat()
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return value


def assert_same(actual: pa.Table, expected: pa.Table, who: str) -> None:
    """Fails with the columns and the first rows that differ."""
    assert actual.column_names == expected.column_names, f"{who}: other columns"
    actual, expected = canonical(actual), canonical(expected)
    types = [f"{name}: {a} is not {b}" for name, a, b in zip(actual.column_names, actual.schema.types, expected.schema.types) if a != b]
    assert not types, f"{who}: {'; '.join(types)}"
    assert actual.num_rows == expected.num_rows, f"{who}: {actual.num_rows} rows, not {expected.num_rows}"
    if actual.equals(expected):
        return
    differing = [name for name in actual.column_names if not actual[name].equals(expected[name])]
    column = differing[0]
    pairs = zip(actual.to_pylist(), expected.to_pylist())
    shown = [(ours[column], theirs[column]) for ours, theirs in pairs if ours[column] != theirs[column]][:5]
    raise AssertionError(f"{who}: columns {differing} differ; in `{column}`, found and expected: {shown}")
