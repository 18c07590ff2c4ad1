"""A contract made of nothing but the types of data, for drafts and for rules that stand alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from arro3.core import DataType, Field, Schema

from .errors import InvalidArgument, InvalidData

_SCALARS = {
    "Boolean": "boolean",
    "Int8": "int",
    "Int16": "int",
    "Int32": "int",
    "UInt8": "int",
    "UInt16": "int",
    "Int64": "long",
    "UInt32": "long",
    "UInt64": "decimal(20,0)",
    "Float16": "float",
    "Float32": "float",
    "Float64": "double",
    "Utf8": "string",
    "LargeUtf8": "string",
    "Utf8View": "string",
    "Null": "string",
    "Binary": "binary",
    "LargeBinary": "binary",
    "BinaryView": "binary",
    "Date32": "date",
    "Date64": "date",
}


def manifest(name: str, version: str, table: str, schema: Schema, rules: Sequence[str | Mapping[str, Any]] = ()) -> str:
    """The manifest (JSON, which is YAML) of a product with one table of this schema, and these rules.

    Raises:
        InvalidData: A column's type has no counterpart in a manifest.
        InvalidArgument: A rule is neither text nor a mapping.
    """
    for rule in rules:
        if not isinstance(rule, (str, Mapping)):
            raise InvalidArgument(
                f"a rule is text or a dict, not a value of type {type(rule).__name__}",
                help="for example 'rowCount > 0', or {'name': 'ships_later', 'condition': 'shipped_at >= ordered_at'}",
            )
    content: dict[str, Any] = {
        "name": table,
        "type": "table",
        "columns": [_column(schema.field(at)) for at in range(len(schema.names))],
    }
    if rules:
        content["quality"] = [rule if isinstance(rule, str) else dict(rule) for rule in rules]
    document = {"dataProduct": {"name": name, "version": version, "owner": "draft", "schema": [content]}}
    return json.dumps(document, indent=2, ensure_ascii=False, default=str)


def check_name(what: str, name: str) -> None:
    """Refuses a name that no manifest can have: it is a folder's too.

    >>> check_name("a domain", "../sales")
    Traceback (most recent call last):
    data_mesh_framework._core.InvalidArgument: `../sales` is no name of a domain
    help: a name is letters, digits, `-` and `_`, and begins with a letter; a suffix like `_v1` is kept for major versions
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,127}", name) or re.search(r"[-_][vV][0-9]+\Z", name):
        raise InvalidArgument(
            f"`{name!a}` is no name of {what}" if not name.isprintable() else f"`{name}` is no name of {what}",
            help="a name is letters, digits, `-` and `_`, and begins with a letter; a suffix like `_v1` is kept for major versions",
        )


def three_part(version: str) -> str:
    """A version with all three parts.

    >>> three_part("1.0"), three_part("2"), three_part("1.4.2")
    ('1.0.0', '2.0.0', '1.4.2')
    """
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){0,2}(-[0-9A-Za-z.-]+)?", version):
        raise InvalidArgument(f"`{version}` is no version", help="versions are MAJOR.MINOR.PATCH, for example '1.0' or '1.2.3'")
    numbers, dash, label = version.partition("-")
    parts = numbers.split(".")
    return ".".join(parts + ["0"] * (3 - len(parts))) + dash + label


def _column(field: Field) -> dict[str, Any]:
    return {"name": field.name, **_type(field.type, f"column `{field.name}`")}


def _type(kind: DataType, where: str) -> dict[str, Any]:
    if DataType.is_dictionary(kind):
        values = kind.value_type
        if values is not None:
            return _type(values, where)
    if DataType.is_struct(kind):
        return {"type": "struct", "columns": [_column(child) for child in kind.fields]}
    if DataType.is_list(kind) or DataType.is_large_list(kind):
        inner = kind.value_field
        item = _type(inner.type, where) if inner is not None else {"type": "string"}
        if item["type"] == "struct":
            return {"type": "array<struct>", "columns": item["columns"]}
        return {"type": f"array<{item['type']}>"}
    if DataType.is_map(kind):
        # A map's types can be had by their names only.
        entry = re.search(r'Struct\("\w+": (?:non-null )?(\w+), "\w+": (?:non-null )?(\w+)\)', _name(kind))
        if entry and entry[1] in _SCALARS and entry[2] in _SCALARS:
            return {"type": f"map<{_SCALARS[entry[1]]},{_SCALARS[entry[2]]}>"}
    name = _name(kind)
    if name in _SCALARS:
        return {"type": _SCALARS[name]}
    if name.startswith("Decimal"):
        precision, scale = re.findall(r"-?\d+", name.partition("(")[2])[:2]
        return {"type": f"decimal({precision},{scale})"}
    if name.startswith("Timestamp"):
        return {"type": "timestamp_ntz" if kind.tz is None else "timestamp"}
    if name.startswith("Time"):
        return {"type": "time"}
    raise InvalidData(f"{where} is of Arrow's type {name}, which a manifest does not know", help="convert it to another type")


def _name(kind: DataType) -> str:
    text = str(kind).strip()
    return text[text.find("<") + 1 : -1] if text.startswith("arro3") else text
