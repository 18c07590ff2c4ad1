"""Rows as Python has them, a list of dicts, made into Arrow. Types are those of the values; nothing is coerced."""

from __future__ import annotations

import datetime
import decimal
import json
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from arro3.core import Array, DataType, Field, Schema, Table, list_array, struct_array

from .errors import InvalidData

_EPOCH = datetime.datetime(1970, 1, 1)
_EPOCH_DAY = datetime.date(1970, 1, 1)
_MICROSECOND = datetime.timedelta(microseconds=1)


def table_of(rows: Iterable[Mapping[str, Any]], json_columns: Collection[str] = ()) -> Table:
    """A table of rows. Its columns are all keys, in the order they first come; a missing key is null.

    Values of `json_columns` that are dicts or lists become JSON text.

    Raises:
        InvalidData: A row is no mapping, a key is no string, or a column mixes types that have no common one.
    """
    kept: list[Mapping[str, Any]] = []
    names: dict[str, None] = {}
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise InvalidData(
                f"row {number} is {_article(row)}, not a dict",
                help="rows are dicts of column names to values: [{'id': 1, 'name': 'Ada'}, …]",
            )
        for name in row:
            _check_key(name, f"row {number}")
        names.update(dict.fromkeys(row))
        kept.append(row)
    if not names:
        raise InvalidData("there are no columns: no row has a key", help="pass at least one row")
    arrays, fields = [], []
    for name in names:
        values = [row.get(name) for row in kept]
        if name in json_columns:
            values = [_json(value, name, number) if isinstance(value, (dict, list)) else value for number, value in enumerate(values)]
        array = _array(values, f"column `{name}`")
        arrays.append(array)
        fields.append(Field(name, array.type, nullable=True))
    return Table.from_arrays(arrays, schema=Schema(fields))


def _array(values: Sequence[Any], where: str, rows: Sequence[int] | None = None) -> Array:
    """The values as one array; `rows` says which row each is of, where that is not its position."""
    rows = range(len(values)) if rows is None else rows
    kinds = {_kind(value, where, row) for row, value in zip(rows, values) if value is not None}
    if kinds == {"int", "float"}:
        kinds = {"float"}
    elif kinds == {"int", "decimal"}:
        kinds = {"decimal"}
    if len(kinds) > 1:
        named = " and ".join(f"{kind} (row {_first(values, kind, where, rows)})" for kind in sorted(kinds))
        raise InvalidData(f"{where} mixes {named}", help="make all values of a column the same type, or None")
    kind = kinds.pop() if kinds else "str"
    if kind == "bool":
        return Array(values, type=DataType.bool())
    if kind == "int":
        return Array(values, type=_integer(values, where, rows))
    if kind == "float":
        inexact = next(((row, value) for row, value in zip(rows, values) if isinstance(value, int) and not _is_float(value)), None)
        if inexact is not None:
            at, number = inexact
            raise InvalidData(f"{where} mixes float with {_shown(number)} in row {at}, which no float holds exactly", help="use Decimal, or text")
        return Array([None if value is None else float(value) for value in values], type=DataType.float64())
    if kind == "str":
        texts = [None if value is None else str(value) for value in values]
        try:
            return Array(texts, type=DataType.string())
        except UnicodeEncodeError as error:
            row, broken = next((row, broken) for row, text in zip(rows, texts) if text is not None and (broken := unwritable(text)))
            raise InvalidData(
                f"{where} has text in row {row} that is none: {broken}", help="leave out halves of surrogate pairs, or use bytes"
            ) from error
    if kind == "bytes":
        return Array([None if value is None else bytes(value) for value in values], type=DataType.binary())
    if kind == "date":
        days = [None if value is None else (value - _EPOCH_DAY).days for value in values]
        return Array(days, type=DataType.int32()).cast(DataType.date32())
    if kind == "time":
        times = [None if value is None else _since_midnight(value, where, row) for row, value in zip(rows, values)]
        return _integers(times, DataType.time64("us"))
    if kind == "datetime":
        return _integers([None if value is None else (value - _EPOCH) // _MICROSECOND for value in values], DataType.timestamp("us"))
    if kind == "datetime with a time zone":
        utc = [None if value is None else _utc(value, where, row) for row, value in zip(rows, values)]
        instants = [None if value is None else (value - _EPOCH) // _MICROSECOND for value in utc]
        return _integers(instants, DataType.timestamp("us", tz="UTC"))
    if kind == "decimal":
        return _decimals(values, where, rows)
    missing = Array([value is None for value in values], type=DataType.bool())
    if kind == "list":
        flat: list[Any] = []
        of: list[int] = []
        offsets = [0]
        for row, value in zip(rows, values):
            flat.extend(value or ())
            of += [row] * (len(flat) - len(of))
            offsets.append(len(flat))
        items = _array(flat, f"an item of {where}", of)
        kept = DataType.list(Field("item", items.type, nullable=True))
        return list_array(Array(offsets, type=DataType.int32()), items, type=kept, mask=missing)
    for row, value in zip(rows, values):
        for key in value or ():
            _check_key(key, f"{where} in row {row}")
    keys = dict.fromkeys(key for value in values if value is not None for key in value)
    if not keys:
        raise InvalidData(f"{where} has only empty dicts", help="a struct needs at least one key")
    children = {key: _array([None if value is None else value.get(key) for value in values], f"{where}, key `{key}`", rows) for key in keys}
    fields = [Field(key, child.type, nullable=True) for key, child in children.items()]
    return struct_array(list(children.values()), fields=fields, mask=missing)


def _kind(value: Any, where: str, row: int) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    if isinstance(value, float):
        return "float"
    if isinstance(value, (str, uuid.UUID)):
        return "str"
    if isinstance(value, decimal.Decimal):
        return "decimal"
    if isinstance(value, datetime.datetime):
        return "datetime" if value.tzinfo is None else "datetime with a time zone"
    if isinstance(value, datetime.date):
        return "date"
    if isinstance(value, datetime.time):
        return "time"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "bytes"
    if isinstance(value, (list, tuple)):
        return "list"
    if isinstance(value, Mapping):
        return "dict"
    raise InvalidData(
        f"{where} has {_article(value)} in row {row}, which has no Arrow type",
        help="use str, int, float, bool, Decimal, date, time, datetime, bytes, UUID, list, dict or None",
    )


def _first(values: Sequence[Any], kind: str, where: str, rows: Sequence[int]) -> int:
    return next(row for row, value in zip(rows, values) if value is not None and _kind(value, where, row) == kind)


def _integer(values: Sequence[Any], where: str, rows: Sequence[int]) -> DataType:
    known = [value for value in values if value is not None]
    if min(known) >= -(2**63) and max(known) < 2**63:
        return DataType.int64()
    if min(known) >= 0 and max(known) < 2**64:
        return DataType.uint64()
    row, value = next((row, value) for row, value in zip(rows, values) if value is not None and not -(2**63) <= value < 2**63)
    raise InvalidData(f"{where} has an integer beyond 64 bits in row {row}: {_shown(value)}", help="use Decimal, or text")


def _integers(values: list[int | None], kind: DataType) -> Array:
    return Array(values, type=DataType.int64()).cast(kind)


def _since_midnight(value: datetime.time, where: str, row: int) -> int:
    if value.tzinfo is not None:
        raise InvalidData(f"{where} has a time of day with a time zone in row {row}", help="use a datetime, or a time without one")
    return ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond


def _decimals(values: Sequence[Any], where: str, rows: Sequence[int]) -> Array:
    known = [decimal.Decimal(value) for value in values if value is not None]
    endless = next((row for row, value in zip(rows, values) if value is not None and not decimal.Decimal(value).is_finite()), None)
    if endless is not None:
        raise InvalidData(f"{where} has a Decimal that is no number in row {endless}", help="use None for what is not known")
    scale = max(max(0, -int(value.as_tuple().exponent)) for value in known)
    whole = max(max(0, value.adjusted() + 1) for value in known)
    precision = max(1, whole + scale)
    if precision > 38:
        row, widest = max(((row, value) for row, value in zip(rows, values) if value is not None), key=lambda found: _digits(found[1]))
        raise InvalidData(
            f"{where} needs {precision} digits, the most before the point for {_shown(widest)} in row {row}; a decimal has at most 38",
            help="round the values, or use float or text",
        )
    text = [None if value is None else format(decimal.Decimal(value), "f") for value in values]
    return Array(text, type=DataType.string()).cast(DataType.decimal128(precision, scale))


def unwritable(text: str) -> str | None:
    """Why a text cannot be written as UTF-8; None where it can."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"character {error.start} is half of a surrogate pair ({ascii(text[error.start])})"
    return None


def _check_key(key: object, where: str) -> None:
    if not isinstance(key, str):
        raise InvalidData(f"{where} has the key {key!r}, which is no string", help="keys are column names")
    if (broken := unwritable(key)) is not None:
        raise InvalidData(f"{where} has the key {key!a}, which is no text: {broken}", help="keys are column names")


def _json(value: object, name: str, number: int) -> str:
    try:
        return json.dumps(value, default=str)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidData(f"column `{name}` has a value in row {number} that is no JSON: {error}", help="pass JSON text") from error


def _utc(value: datetime.datetime, where: str, row: int) -> datetime.datetime:
    try:
        return value.astimezone(datetime.timezone.utc).replace(tzinfo=None)
    except OverflowError as error:
        raise InvalidData(f"{where} has {value} in row {row}, which is no time in UTC", help="use None, or another time") from error


def _is_float(value: int) -> bool:
    try:
        return int(float(value)) == value
    except OverflowError:
        return False


def _digits(value: Any) -> tuple[int, int]:
    """How many a value has before the point, and behind it."""
    found = decimal.Decimal(value)
    return max(0, found.adjusted() + 1), max(0, -int(found.as_tuple().exponent))


def _shown(value: Any) -> str:
    """A number, or how long it is."""
    before, behind = _digits(value)
    return str(value) if before + behind <= 40 else f"a number of {before + behind:,} digits"


def _article(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
