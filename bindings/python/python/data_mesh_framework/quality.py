"""Quality: rows judged by rules, without publishing them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import _core
from ._draft import manifest
from ._render import count, html_table, text_table
from .contract import QualityRules, Rule, the_table
from .data import Data, DataLike, Source
from .errors import InvalidArgument

__all__ = ["Quality", "QualityRules", "Report", "Rule", "RuleResult"]

_SIGNS = {"passed": "✓", "warning": "!", "failed": "✗"}
_COLOURS = {"passed": "#2b8a3e", "warning": "#e67700", "failed": "#c92a2a"}


@dataclass(frozen=True)
class RuleResult:
    """What became of a rule.

    `failed` counts the rows that break it; rules of a whole table (`rowCount`, `sql`, …) have a `value` instead.
    """

    table: str
    name: str
    status: str
    """`passed`, `warning` or `failed`."""
    kind: str = ""
    column: str | None = None
    severity: str = "error"
    checked: int | None = None
    failed: int | None = None
    message: str | None = None
    samples: tuple[Any, ...] = field(default=(), repr=False)

    def __bool__(self) -> bool:
        return self.status != "failed"


class Report:
    """What a check found. It is true where `publish_data` would publish: all rules hold, or those that a row breaks hold back
    no more rows than the contract's limit.

    >>> report = Quality.check([{"id": 1, "age": 34}, {"id": 2, "age": -1}], [{"name": "age_known", "condition": "age >= 0"}])
    >>> report.rows, report.passed, report.failed
    (2, 1, 1)
    >>> report["age_known"].failed
    1
    >>> report.failing.to_pylist()[0]["id"]
    2
    """

    def __init__(self, documents: Mapping[str, dict[str, Any]], failing: Mapping[str, Data | None], *, product: str) -> None:
        self.product = product
        self.documents = dict(documents)
        """What the audit says of each table."""
        self._failing = dict(failing)
        self.results: tuple[RuleResult, ...] = tuple(
            _result(table, rule) for table, document in self.documents.items() for rule in document.get("rules", ())
        )

    @property
    def rows(self) -> int:
        """Rows that were read."""
        return self._sum("rows")

    @property
    def passed(self) -> int:
        """Rows that break no rule."""
        return self._sum("passed")

    @property
    def failed(self) -> int:
        """Rows that break a rule."""
        return self._sum("failed")

    @property
    def status(self) -> str:
        """`passed`, `quarantine` where rows would be held back and the others published, or `failed`."""
        if not all(_accepted(document) for document in self.documents.values()):
            return "failed"
        return "quarantine" if self.failed else "passed"

    @property
    def failing(self) -> Data:
        """The rows that break a rule, as Arrow, with every rule that they break in `_reasons`; of the only table.

        Raises:
            InvalidArgument: There are several tables (`failing_of` names one), or the check was told not to keep them.
        """
        return self.failing_of(None)

    def failing_of(self, table: str | None) -> Data:
        """The rows of `table` that break a rule: see `failing`."""
        found = self._failing.get(the_table(self.documents, table))
        if found is None:
            raise InvalidArgument("the failing rows were not kept", help="check with `failing=True`")
        return found

    def __bool__(self) -> bool:
        return self.status != "failed"

    def __getitem__(self, rule: str) -> RuleResult:
        """What became of the rule of this name."""
        for result in self.results:
            if result.name == rule:
                return result
        raise KeyError(rule)

    def __iter__(self) -> Iterator[RuleResult]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __repr__(self) -> str:
        return f"Report({self.product}: {self.status}, {self._summary()})"

    def __str__(self) -> str:
        shown = [[f"{_SIGNS[result.status]} {result.name}", *_cells(result)] for result in self.results]
        head = f"{self.product} {self.status}: {self._summary()}"
        return head if not shown else f"{head}\n{text_table(_HEAD, shown, right=(2,))}"

    def _repr_html_(self) -> str:
        shown = [[f"{_SIGNS[result.status]} {result.name}", *_cells(result)] for result in self.results]
        colours = [_COLOURS[result.status] for result in self.results]
        return html_table(_HEAD, shown, caption=f"{self.product} {self.status}: {self._summary()}", marks=colours)

    def _summary(self) -> str:
        return f"{count(self.rows, 'row')}, {self.passed:,} pass, {self.failed:,} fail"

    def _sum(self, key: str) -> int:
        return sum(int(document[key]) for document in self.documents.values())


_HEAD = ("rule", "table", "rows", "severity", "what was found")


class Quality:
    """Checks of data against rules."""

    @staticmethod
    def check(
        data: DataLike | Mapping[str, DataLike],
        rules: QualityRules | Sequence[str | Mapping[str, Any]],
        *,
        table: str | None = None,
        failing: bool = True,
    ) -> Report:
        """Judges every row of `data` by every rule, in one pass and in bounded memory. Nothing is published or recorded.

        A frame or table is not copied and stays as it is. A stream is read to its end: collect it first (`Data.collect`) if it is
        needed afterwards.

        Args:
            data: Rows of any kind, see `Data`; a dict of table names to rows where a product has several tables.
            rules: The rules of a product (`DataProduct.quality_rules`), or rules as a manifest has them in `quality:`
                (`"rowCount > 0"`, `{"name": "ships_later", "condition": "shipped_at >= ordered_at"}`).
            table: Whose rules count, where a product has several tables.
            failing: Whether to keep the rows that break a rule.

        Raises:
            InvalidData: The data has no rows and columns.
            DataConsumed: It is a stream that was read before.
            InvalidManifest: A rule cannot be understood.

        >>> bool(Quality.check([{"id": 1}, {"id": 2}], ["rowCount > 1", {"metric": "duplicateValues", "column": "id", "mustBe": 0}]))
        True
        >>> print(Quality.check([{"id": 1}], ["rowCount > 1"]).status)
        failed
        """
        parts: Mapping[Any, Any] = data if isinstance(data, Mapping) else {table: data}
        documents: dict[str, dict[str, Any]] = {}
        kept: dict[str, Data | None] = {}
        product = rules.product if isinstance(rules, QualityRules) else "data"
        for name, part in parts.items():
            wrapped = part if isinstance(part, Data) else Data(part)
            if isinstance(rules, QualityRules) and rules.manifest is not None:
                name = the_table(rules.tables, name)
                text, stream = rules.manifest, wrapped._for_contract(rules.json_columns(name), "Quality.check")
            else:
                name = name or "data"
                own: Sequence[Any] = () if isinstance(rules, QualityRules) else rules
                if isinstance(own, (str, Mapping)):
                    own = [own]
                text, stream = manifest("data", "0.1.0", name, wrapped.schema, own), wrapped.stream("Quality.check")
            report, rows = _core.check(text, name, stream, failing=failing)
            documents[name] = json.loads(report)
            kept[name] = None if rows is None else Data(rows, source=Source("memory", f"{product}.{name} failing rows"))
        return Report(documents, kept, product=product)


def _result(table: str, rule: Mapping[str, Any]) -> RuleResult:
    return RuleResult(
        table=table,
        name=rule["name"],
        status=rule["status"],
        kind=rule.get("kind") or "",
        column=rule.get("column"),
        severity=rule.get("severity") or "error",
        checked=rule.get("checked"),
        failed=rule.get("failed"),
        message=rule.get("message"),
        samples=tuple(rule.get("samples") or ()),
    )


def _accepted(document: Mapping[str, Any]) -> bool:
    return str(document["status"]) != "failed"


def _cells(result: RuleResult) -> list[str]:
    found = result.message or ""
    if not found and result.samples:
        found = "for example " + ", ".join(_sample(sample) for sample in result.samples[:3])
    return [result.table, "" if result.failed is None else f"{result.failed:,}", result.severity, found]


def _sample(sample: Any) -> str:
    value = sample.get("value") if isinstance(sample, Mapping) else sample
    return str(value)
