"""What a product promises: its tables, columns and rules."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from ._render import html_table, text_table
from .errors import InvalidArgument, NotFound

__all__ = ["Column", "Contract", "QualityRules", "Rule", "Schema", "TableSchema"]


@dataclass(frozen=True)
class Column:
    """A column: its type is one of the manifest's (`string`, `long`, `decimal(10,2)`, `timestamp`, …)."""

    name: str
    type: str
    description: str | None = None
    required: bool = False
    primary_key: bool = False
    protected: bool = False


@dataclass(frozen=True)
class TableSchema:
    """A table's columns, by position or name."""

    name: str
    columns: tuple[Column, ...]
    description: str | None = None
    sql_name: str | None = None

    def __getitem__(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def _rows(self) -> list[list[str]]:
        return [[column.name, column.type, _promise(column), column.description or ""] for column in self.columns]

    def __str__(self) -> str:
        return f"{self.name}\n{text_table(_COLUMNS, self._rows())}"

    def _repr_html_(self) -> str:
        return html_table(_COLUMNS, self._rows(), caption=self.sql_name or self.name)


_COLUMNS = ("column", "type", "promise", "description")


class Schema(Mapping[str, TableSchema]):
    """A product's tables by name. The columns of the only table can be asked for directly.

    >>> schema = Schema([TableSchema("orders", (Column("id", "long", primary_key=True), Column("note", "string")))])
    >>> list(schema), schema["orders"]["id"].type, [column.name for column in schema.columns]
    (['orders'], 'long', ['id', 'note'])
    """

    def __init__(self, tables: Iterable[TableSchema] = ()) -> None:
        self._tables = {table.name: table for table in tables}

    def __getitem__(self, table: str) -> TableSchema:
        return self._tables[table]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Those of the only table.

        Raises:
            InvalidArgument: There are several tables.
        """
        return () if not self._tables else self[the_table(self._tables, None)].columns

    def __repr__(self) -> str:
        return f"Schema({', '.join(f'{name}: {len(table)} columns' for name, table in self._tables.items())})"

    def __str__(self) -> str:
        return "\n\n".join(map(str, self._tables.values()))

    def _repr_html_(self) -> str:
        return "".join(table._repr_html_() for table in self._tables.values())


@dataclass(frozen=True)
class Rule:
    """A rule of a table: of each row (`required`, `minimum`, `condition`, …) or of the table (`rowCount`, `sql`, …)."""

    name: str
    table: str
    kind: str
    column: str | None
    severity: str
    """What breaking it does: `quarantine`, `error`, `warning` or `info`."""
    words: str


class QualityRules(Sequence[Rule]):
    """A product's rules, table by table, with the contract that they are part of: what `Quality.check` judges by."""

    def __init__(
        self,
        rules: Iterable[Rule],
        *,
        product: str,
        manifest: str | None,
        tables: Iterable[str],
        schema: Schema | None = None,
        is_draft: bool = False,
    ) -> None:
        self._rules = tuple(rules)
        self.product = product
        self.manifest = manifest
        """The manifest's text, where there is one."""
        self.is_draft = is_draft
        """Whether nothing is promised yet: the rules are those that the data's own types make."""
        self.tables = tuple(tables)
        self._schema = schema

    def json_columns(self, table: str) -> list[str]:
        """The table's columns that hold JSON text."""
        known = self._schema.get(table) if self._schema is not None else None
        return [] if known is None else [column.name for column in known if column.type == "json"]

    @overload
    def __getitem__(self, at: int) -> Rule: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Rule]: ...
    @overload
    def __getitem__(self, at: str) -> QualityRules: ...
    def __getitem__(self, at: int | slice | str) -> Rule | Sequence[Rule] | QualityRules:
        """A rule by its position, or the rules of a table by its name."""
        if isinstance(at, str):
            table = the_table(self.tables, at)
            return QualityRules(
                [rule for rule in self._rules if rule.table == table],
                product=self.product,
                manifest=self.manifest,
                tables=[table],
                schema=self._schema,
            )
        return self._rules[at]

    def __len__(self) -> int:
        return len(self._rules)

    def __bool__(self) -> bool:
        return True

    def _rows(self) -> list[list[str]]:
        return [[rule.table, rule.name, rule.severity, rule.words] for rule in self._rules]

    def __repr__(self) -> str:
        return f"QualityRules({self.product}: {len(self)} rules of {', '.join(self.tables) or 'no table'})"

    def __str__(self) -> str:
        return f"{self.product}\n{text_table(_RULES, self._rows())}"

    def _repr_html_(self) -> str:
        return html_table(_RULES, self._rows(), caption=f"Rules of {self.product}")


_RULES = ("table", "rule", "severity", "says")


@dataclass(frozen=True)
class Contract:
    """A product as it is registered."""

    product: str
    version: str
    status: str
    owner: str | None
    description: str | None
    manifest: str | None
    """The manifest's text; None where the mesh's folder has none of this version."""
    schema: Schema
    quality_rules: QualityRules
    document: dict[str, Any] = field(repr=False, compare=False)

    @property
    def grants(self) -> list[dict[str, Any]]:
        """What was granted to the caller, or a team of theirs, and counts now: `number`, `role`, `tables`, `expiresAt`, …"""
        return list(self.document.get("access", {}).get("grants", ()))

    @property
    def serving(self) -> str | None:
        """The number of the publication that is served; None where nothing is published."""
        serving = self.document.get("serving")
        if isinstance(serving, Mapping):
            serving = serving.get("number")
        return None if serving is None else str(serving)

    @classmethod
    def parse(cls, text: str) -> Contract:
        """Of the JSON of the mesh."""
        document: dict[str, Any] = json.loads(text)
        tables, rules = [], []
        for table in document.get("tables", ()):
            columns = [
                Column(
                    column["name"],
                    column["type"],
                    column.get("description"),
                    bool(column.get("required")),
                    bool(column.get("primary_key")),
                    bool(column.get("protected")),
                )
                for column in table.get("columns", ())
            ]
            tables.append(TableSchema(table["table"], tuple(columns), table.get("description"), table.get("sql_name")))
            rules += [_rule(table["table"], rule) for rule in table.get("rules", ())]
        product = document["product"]
        manifest = document.get("manifest")
        schema = Schema(tables)
        return cls(
            product=product,
            version=document["version"],
            status=document.get("status", ""),
            owner=document.get("owner"),
            description=document.get("description"),
            manifest=manifest,
            schema=schema,
            quality_rules=QualityRules(rules, product=product, manifest=manifest, tables=schema, schema=schema),
            document=document,
        )


def the_table(tables: Iterable[str], table: str | None) -> str:
    """The table that is meant: the named one, or the only one.

    Raises:
        NotFound: There is none of that name.
        InvalidArgument: There are several, and none is named.
    """
    known = list(tables)
    if table is None:
        if len(known) == 1:
            return known[0]
        raise InvalidArgument(
            f"there are {len(known)} tables: {', '.join(known)}" if known else "there is no table yet",
            help="name one with `table=`, or pass a dict of tables to their data",
        )
    if table not in known:
        raise NotFound(f"no table `{table}`", help=f"tables here: {', '.join(known)}")
    return table


def _rule(table: str, rule: Mapping[str, Any]) -> Rule:
    return Rule(rule["name"], table, rule["kind"], rule.get("column"), rule["severity"], rule["words"])


def _promise(column: Column) -> str:
    said = [
        word
        for word, holds in (("primary key", column.primary_key), ("required", column.required), ("protected", column.protected))
        if holds and not (word == "required" and column.primary_key)
    ]
    return ", ".join(said)
