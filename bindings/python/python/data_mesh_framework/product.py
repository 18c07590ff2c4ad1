"""A data product as a class: what a domain team writes."""

from __future__ import annotations

import functools
import inspect
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import _core, _work
from ._async import in_thread
from ._draft import check_name, three_part
from ._progress import Wanted
from ._work import Transformation
from .contract import Contract, QualityRules, Schema
from .data import Data, DataLike, Source
from .errors import InvalidArgument, NotFound
from .lineage import Lineage
from .mesh import Mesh, Publication
from .quality import Quality, Report

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["DataProduct"]

_LOG = logging.getLogger("data_mesh_framework")


def _kept(made: Any) -> Any:
    """What a transform made, with the rows of a stream in memory: it is checked before it is given back."""
    if isinstance(made, Mapping):
        return {name: _kept(part) for name, part in made.items()}
    wrapped = made if isinstance(made, Data) else Data(made)
    return wrapped.collect() if wrapped.is_stream else made


class DataProduct:
    """A product of a domain, bound to a mesh and to the contract that is registered there.

    Subclass it, say who it is, and override `transform` (the identity, if not) or `process_data`. What `process_data` is given is
    wrapped as `Data`, whatever it is, so that it always has a `source`. An overridden `transform`, and every method marked with
    `@transformation`, is noted in `transformations` when it runs.

    Where no manifest is registered the product is a draft: it processes and checks, by the data's own types; `draft` makes a
    manifest, and with that it can publish.

    >>> class Hourly(DataProduct):
    ...     def __init__(self):
    ...         super().__init__(domain="weather", name="observations", version="1.0")
    ...
    ...     def transform(self, data):
    ...         "Leaves out hours without a temperature."
    ...         return [row for row in data if row["temp"] is not None]
    >>> hourly = Hourly()
    >>> hourly
    Hourly('weather/observations', version='1.0.0')
    >>> hourly.schema.columns[0].name, hourly.owner
    ('origin', 'weather-team')
    >>> len(hourly.process_data(hourly.read()))
    26107
    >>> hourly.transformations
    ['Hourly.transform']
    """

    def __init__(self, domain: str, name: str, version: str = "1.0.0", *, mesh: Mesh | str | os.PathLike[str] | None = None) -> None:
        """Binds the product.

        Args:
            domain: Its domain.
            name: Its name in the domain.
            version: The contract's version that the code is written for; `"1.0"` means 1.0.0. A later one of the same major version
                that is registered will do.
            mesh: The mesh: the one around the working directory, or `DATAMESH_HOME`, if not said.

        Raises:
            NotFound: There is no mesh.
            InvalidArgument: Domain or name is no name. The version is none, or later than the one that is registered.
            InvalidManifest: The product's manifest has errors.
        """
        for what, word in (("a domain", domain), ("a product", name)):
            check_name(what, word)
        self.domain = domain
        self.name = name
        self.version = three_part(version)
        self.mesh = mesh if isinstance(mesh, Mesh) else Mesh(mesh)
        self._contract: Contract | None = None
        self.last_report: Report | None = None
        self.refresh()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "process_data" in cls.__dict__:
            cls.process_data = _processing(cls.__dict__["process_data"])  # type: ignore[method-assign]
        if "transform" in cls.__dict__:
            cls.transform = _transforming(cls.__dict__["transform"])  # type: ignore[method-assign]

    # What it is.

    @property
    def id(self) -> str:
        """`domain/name`."""
        return f"{self.domain}/{self.name}"

    @property
    def is_draft(self) -> bool:
        """Whether no manifest is registered."""
        return self._contract is None

    @property
    def contract(self) -> Contract:
        """What is registered.

        Raises:
            NotFound: It is a draft.
        """
        if self._contract is None:
            raise NotFound(
                f"`{self.id}` is a draft: the mesh has no manifest of its version {self._major}",
                help="write one with `draft(data, owner=…, write=True)`, then review it and call `refresh()`",
            )
        return self._contract

    @property
    def owner(self) -> str | None:
        """The accountable team; of a draft, nobody."""
        return None if self._contract is None else self._contract.owner

    @property
    def schema(self) -> Schema:
        """The tables and their columns; of a draft, none."""
        return Schema() if self._contract is None else self._contract.schema

    @property
    def quality_rules(self) -> QualityRules:
        """The rules of the contract; of a draft, those that the data's own types make."""
        if self._contract is None:
            return QualityRules([], product=self.id, manifest=None, tables=[], is_draft=True)
        return self._contract.quality_rules

    @property
    def source(self) -> Source:
        """The product as something to read from, or its only table."""
        if self._contract is not None and len(self._contract.schema) == 1:
            (table,) = self._contract.schema.values()
            if table.sql_name:
                return Source("datamesh", table.sql_name)
        return Source("datamesh", self.id)

    @property
    def transformations(self) -> list[Transformation]:
        """What ran in the last `process_data` of this thread or task, or runs in the one that is going on."""
        return list(_work.last(self).transformations)

    def refresh(self) -> Self:
        """Reads the contract again.

        Raises:
            InvalidArgument: The code is written for a later version than the one that is registered.
        """
        try:
            found = self.mesh.contract(f"{self.id}@{self._major}")
        except NotFound:
            self._contract = None
            return self
        if _numbers(found.version) < _numbers(self.version):
            raise InvalidArgument(
                f"`{self.id}` is registered in version {found.version}, and this is written for {self.version}",
                help=f"raise the manifest's `version:` to {self.version} and apply it, or ask for version {found.version}",
            )
        self._contract = found
        return self

    # What it does.

    def transform(self, data: Data) -> Any:
        """Makes the product's rows of what comes in: the identity, to be overridden."""
        return data

    def process_data(self, raw_data: Any) -> Any:
        """Transforms, checks, and records where it comes from; gives what was made. To be overridden where that is not enough.

        `raw_data` is rows of any kind; a method that overrides this one is given `Data`.
        """
        sources = [part.source for part in raw_data.values()] if isinstance(raw_data, Mapping) else raw_data.source
        processed = _kept(self.transform(raw_data))
        self.last_report = Quality.check(processed, self.quality_rules, failing=False)
        if not self.last_report:
            because = "; ".join(self.last_report.because) or self.last_report.status
            _LOG.warning("%s: what was made would be rejected: %s", self, because)
        Lineage.record(source=sources, transformations=self.transformations, output=processed)
        return processed

    def validate_data(self, data: DataLike | Mapping[str, DataLike], *, table: str | None = None) -> Report:
        """Judges data by the contract's rules, without publishing it: see `Quality.check`."""
        return Quality.check(data, self.quality_rules, table=table)

    def publish_data(
        self,
        data: DataLike | Mapping[str, DataLike] | None = None,
        *,
        table: str | None = None,
        again: bool = False,
        full: bool = False,
        dry_run: bool = False,
        idempotency_key: str | None = None,
        progress: Wanted = None,
    ) -> Publication:
        """Audits every row and publishes the good ones atomically: see `Mesh.publish`.

        Raises:
            NotFound: It is a draft.
            Rejected: The audit rejected it; what was published before still serves.
        """
        self.contract  # noqa: B018 - a draft cannot publish
        return self.mesh.publish(
            self._versioned,
            data,
            table=table,
            again=again,
            full=full,
            dry_run=dry_run,
            idempotency_key=idempotency_key,
            progress=progress,
        )

    def read(
        self,
        table: str | None = None,
        *,
        columns: Sequence[str] | None = None,
        as_of: str | int | None = None,
    ) -> Data:
        """What is published: see `Mesh.read`."""
        return self.mesh.read(self._versioned, table, columns=columns, as_of=as_of)

    def quarantine(self, table: str | None = None) -> Data:
        """The rows that the newest attempt held back, with every rule they broke."""
        return self.mesh.quarantine(self._versioned, table)

    async def avalidate_data(self, data: DataLike | Mapping[str, DataLike], *, table: str | None = None) -> Report:
        """`validate_data`, in a thread, for asyncio."""
        return await Quality.acheck(data, self.quality_rules, table=table)

    async def apublish_data(self, data: DataLike | Mapping[str, DataLike] | None = None, **options: Any) -> Publication:
        """`publish_data`, in a thread, for asyncio. Cancelling stops it, with nothing published."""
        options.setdefault("progress", False)
        return await in_thread(lambda: self.publish_data(data, **options))

    async def aread(self, table: str | None = None, **options: Any) -> Data:
        """`read`, in a thread, for asyncio."""
        return await in_thread(lambda: self.read(table, **options))

    def draft(
        self,
        data: DataLike | Mapping[str, DataLike],
        *,
        table: str | None = None,
        owner: str = "TODO",
        write: bool = False,
    ) -> str:
        """A manifest that fits the data: types, keys, enums, ranges, formats and personal data, with the evidence in comments.

        Args:
            data: Rows of any kind, or a dict of table names to rows.
            table: The table's name; the product's, if not said.
            owner: The accountable team. `TODO` is refused until a team is named.
            write: Whether to write it into the mesh, where none is.

        Raises:
            InvalidArgument: There is a manifest already.
        """
        from ._manifest import drafted

        parts: Mapping[str, Any] = data if isinstance(data, Mapping) else {table or self.name.replace("-", "_"): data}
        tables = []
        for name, part in parts.items():
            wrapped = part if isinstance(part, Data) else Data(part)
            tables.append(_core.infer(name, wrapped.stream("draft")))
        text = drafted(self.name, self.version, owner, tables)
        if write:
            path = self._manifest_path
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(path, "x", encoding="utf-8") as file:
                    file.write(text)
            except FileExistsError as error:
                raise InvalidArgument(f"there is a manifest already: `{path}`", help="edit it, or remove it first") from error
        return text

    # Life.

    def close(self) -> None:
        """Lets go of the mesh."""
        self.mesh.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        draft = ", draft" if self.is_draft else ""
        return f"{type(self).__name__}({self.id!r}, version={self.version!r}{draft})"

    @property
    def _major(self) -> str:
        return self.version.partition(".")[0]

    @property
    def _versioned(self) -> str:
        return f"{self.id}@{self._major}"

    @property
    def _manifest_path(self) -> Path:
        return self.mesh.root / "domains" / self.domain / "products" / self.name / "product.yaml"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.partition("-")[0].partition("+")[0].split("."))


def _processing(function: Callable[..., Any]) -> Callable[..., Any]:
    """`process_data` as it is called: its rows are wrapped, and what runs in it is noted."""
    if getattr(function, "__wraps_data__", False):
        return function
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def processing_async(self: DataProduct, raw_data: Any, *arguments: Any, **named: Any) -> Any:
            with _work.working(self):
                return await function(self, _wrapped(raw_data), *arguments, **named)

        made: Any = processing_async
    else:

        @functools.wraps(function)
        def processing(self: DataProduct, raw_data: Any, *arguments: Any, **named: Any) -> Any:
            with _work.working(self):
                return function(self, _wrapped(raw_data), *arguments, **named)

        made = processing
    made.__wraps_data__ = True
    return made  # type: ignore[no-any-return]


def _transforming(function: Callable[..., Any]) -> Callable[..., Any]:
    """`transform` as it is called: its rows are wrapped, and that it ran is noted."""
    if getattr(function, "__wraps_data__", False):
        return function
    what = getattr(function, "__transformation__", None) or Transformation.of(function)

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def transforming_async(self: DataProduct, data: Any, *arguments: Any, **named: Any) -> Any:
            _work.last(self).ran(what)
            return await function(self, _wrapped(data), *arguments, **named)

        made: Any = transforming_async
    else:

        @functools.wraps(function)
        def transforming(self: DataProduct, data: Any, *arguments: Any, **named: Any) -> Any:
            _work.last(self).ran(what)
            return function(self, _wrapped(data), *arguments, **named)

        made = transforming
    made.__wraps_data__ = True
    return made  # type: ignore[no-any-return]


def _wrapped(data: Any) -> Any:
    # Several tables: each of them.
    if isinstance(data, Mapping):
        return {name: _wrapped(part) for name, part in data.items()}
    return data if isinstance(data, Data) else Data(data)


DataProduct.process_data = _processing(DataProduct.process_data)  # type: ignore[method-assign]
