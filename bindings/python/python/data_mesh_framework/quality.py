"""Quality: rows judged by rules, without publishing them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from arro3.core import DataType, Field

from . import _core
from ._async import in_thread
from ._draft import manifest
from ._progress import Wanted
from ._progress import progress as shown
from ._render import count, html_table, text_table
from ._stop import STOP
from .contract import QualityRules, Rule, the_table
from .data import Data, DataLike, Source
from .errors import InvalidArgument, NotFound

__all__ = ["Quality", "QualityRules", "Report", "Rule", "RuleResult"]

_SIGNS = {"passed": ("✓", "#2b8a3e"), "skipped": ("–", "#868e96"), "warned": ("!", "#e67700"), "failed": ("✗", "#c92a2a")}


@dataclass(frozen=True)
class RuleResult:
    """What a rule found.

    `failed` counts the rows that break it; of a rule that judges the whole table (`rowCount`, `sql`, …) it is 0, and `value` is what
    was measured. It is true where the rule holds, or is not about publishing (`severity` is `warning` or `info`).
    """

    table: str
    name: str
    """As reports count it: `minimum:amount`, `condition:ships_later`, or the name of a rule that judges the whole table."""
    kind: str
    column: str | None
    severity: str
    """What breaking it does: `quarantine` holds the row back, `error` rejects the publication, `warning` and `info` are told."""
    status: str
    """`passed`, `failed`, `warned`, or `skipped` where it needs other tables than the one that was checked."""
    checked: int
    failed: int
    message: str | None = None
    value: float | None = None
    samples: tuple[dict[str, Any], ...] = field(default=(), repr=False)

    def __bool__(self) -> bool:
        return self.status != "failed" or self.severity in ("warning", "info")


class Report:
    """What a check found. It is true where `publish_data` would publish: all rules hold, or those that a row breaks hold back
    no more rows than the contract's limit.

    >>> report = Quality.check([{"id": 1, "age": 34}, {"id": 2, "age": -1}], [{"name": "age_known", "condition": "age >= 0"}])
    >>> report.rows, report.passed, report.failed
    (2, 1, 1)
    >>> report["condition:age_known"].failed == report["age_known"].failed
    True
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
        """`passed`, `quarantined` where rows would be held back and the others published, or `failed`."""
        found = {str(document["status"]) for document in self.documents.values()}
        return next((status for status in ("failed", "quarantined") if status in found), "passed")

    @property
    def because(self) -> list[str]:
        """Why it would not be published."""
        return [str(why) for document in self.documents.values() for why in document["because"]]

    @property
    def missing_columns(self) -> list[str]:
        """Columns of the contract that the data does not have."""
        return [str(name) for document in self.documents.values() for name in document["missingColumns"]]

    @property
    def ignored_columns(self) -> list[str]:
        """Columns of the data that the contract does not name; they are not published."""
        return [str(name) for document in self.documents.values() for name in document["ignoredColumns"]]

    @property
    def failing(self) -> Data:
        """The rows that break a rule, as Arrow, with every rule that they break in `reasons`; of the only table.

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
        """What the rule of this name found; `ships_later` will do for `condition:ships_later`, where there is one of the name."""
        found = [result for result in self.results if result.name == rule]
        found = found or [result for result in self.results if result.name.partition(":")[2] == rule]
        if len({result.table for result in found}) != 1 or len(found) != 1:
            raise KeyError(rule if not found else f"{rule}: one of {', '.join(result.name for result in found)}")
        return found[0]

    def __iter__(self) -> Iterator[RuleResult]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __repr__(self) -> str:
        return f"Report({self.product}: {self.status}, {self._summary()})"

    def __str__(self) -> str:
        lines = [f"{self.product} {self.status}: {self._summary()}"]
        if self.results:
            shown = [[f"{_sign(result)[0]} {result.name}", *_cells(result)] for result in self.results]
            lines.append(text_table(_HEAD, shown, right=(2,)))
        lines += [f"  because {why}" for why in self.because]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        shown = [[f"{_sign(result)[0]} {result.name}", *_cells(result)] for result in self.results]
        caption = f"{self.product} {self.status}: {self._summary()}"
        if self.because:
            caption += f"; because {'; '.join(self.because)}"
        return html_table(_HEAD, shown, caption=caption, marks=[_sign(result)[1] for result in self.results])

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
        progress: Wanted = None,
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
            progress: Show progress (None: on a terminal or in a notebook), or whom to tell of it.

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
            if isinstance(rules, QualityRules) and not rules.is_draft:
                if rules.manifest is None:
                    raise NotFound(
                        f"the mesh's folder has no manifest of `{product}` in this version",
                        help="get the manifest that was applied; rules are read from its text",
                    )
                name = the_table(rules.tables, name)
                text, stream = rules.manifest, wrapped._for_contract(rules.json_columns(name), "Quality.check")
            else:
                name = name or "data"
                own: Sequence[Any] = () if isinstance(rules, QualityRules) else rules
                if isinstance(own, (str, Mapping)):
                    own = [own]
                text, stream = manifest("data", "0.1.0", name, wrapped.schema, own), wrapped.stream("Quality.check")
            with shown(progress) as told:
                report, rows = _core.check(text, name, stream, failing=failing, progress=told, stop=STOP.get())
            documents[name] = json.loads(report)
            failed: Any = rows
            if rows is None and failing:
                failed = wrapped.schema.append(Field("reasons", DataType.string())).empty_table()
            kept[name] = None if failed is None else Data(failed, source=Source("memory", f"{product}.{name} failing rows"))
        return Report(documents, kept, product=product)

    @staticmethod
    async def acheck(
        data: DataLike | Mapping[str, DataLike],
        rules: QualityRules | Sequence[str | Mapping[str, Any]],
        **options: Any,
    ) -> Report:
        """`check`, in a thread, for asyncio. Cancelling stops it."""
        options.setdefault("progress", False)
        return await in_thread(lambda: Quality.check(data, rules, **options))


def _result(table: str, rule: Mapping[str, Any]) -> RuleResult:
    value = (rule.get("measured") or {}).get("value")
    return RuleResult(
        table=table,
        name=rule["name"],
        kind=rule["kind"],
        column=rule.get("column"),
        severity=rule["severity"],
        status=rule["status"],
        checked=int(rule["checked"]),
        failed=int(rule["failed"]),
        message=rule.get("message"),
        value=None if value is None else float(value),
        samples=tuple(rule.get("samples") or ()),
    )


def _sign(result: RuleResult) -> tuple[str, str]:
    return _SIGNS["warned" if result.status == "failed" and result else result.status]


def _cells(result: RuleResult) -> list[str]:
    found = result.message or ""
    values = [str(sample["value"]) for sample in result.samples[:3] if sample.get("value") is not None]
    if values:
        found += f", for example {', '.join(values)}"
    rows = f"{result.failed:,}" if result.value is None and result.status != "skipped" else ""
    return [result.table, rows, result.severity, found]
