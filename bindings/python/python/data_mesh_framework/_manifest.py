"""A manifest's text, put together of drafted tables."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable


def drafted(name: str, version: str, owner: str, tables: Iterable[str]) -> str:
    """The manifest of a product with these tables, each the text of an item of `schema:`."""
    note = "   # the accountable team" if owner == "TODO" else ""
    head = f"dataProduct:\n  name: {_scalar(name)}\n  version: {version}\n  owner: {_scalar(owner)}{note}\n  schema:\n"
    return head + "".join(textwrap.indent(textwrap.dedent(table).rstrip("\n"), "    ") + "\n" for table in tables)


def _scalar(text: str) -> str:
    return text if text.replace("-", "").replace("_", "").isalnum() and not text.isdigit() else json.dumps(text)
