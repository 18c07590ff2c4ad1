"""What answers for a mesh: a folder, by the extension module in this process; later a server, behind the same protocol."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from . import _core
from ._stop import STOP
from ._rows import unwritable
from .data import ArrowStream
from .errors import InvalidArgument

__all__ = ["Backend", "Local", "Progress", "connect"]

Progress = Callable[[dict[str, Any]], None]
"""Told, while work goes on, of a table's bytes (`event` is `read`) and of steps (`step`); what it raises stops the work."""


class Backend(Protocol):
    """A mesh that can be asked. Documents cross as JSON, rows as Arrow streams; failures are `DataMeshError`s."""

    @property
    def root(self) -> str:
        """Where the mesh is: a folder, or a URL."""
        ...

    def command(self, words: list[str], progress: Progress | None = None) -> tuple[int, str]:
        """Runs a command of the `datamesh` command line: its exit code and what it prints."""
        ...

    def query(self, sql: str, *, as_of: str | None = None) -> ArrowStream:
        """Answers a query."""
        ...

    def publish(
        self,
        product: str,
        tables: Mapping[str, ArrowStream],
        options: Mapping[str, Any],
        progress: Progress | None = None,
    ) -> str:
        """Publishes rows, or the manifest's sources where there are none: the report."""
        ...

    def contract(self, product: str) -> str:
        """What a product promises, with its manifest."""
        ...

    def record_lineage(self, run: str) -> str:
        """Records a run: its OpenLineage event."""
        ...

    def read(self, product: str, table: str | None, *, columns: list[str] | None = None, as_of: str | None = None) -> ArrowStream:
        """Reads a table of a product."""
        ...

    def quarantine(self, product: str, table: str | None) -> ArrowStream | None:
        """The rows that the newest attempt held back; None where there are none."""
        ...


def _checked(*texts: str | None) -> None:
    """Refuses what Python takes as text and nothing else does."""
    for text in texts:
        if text is not None and (broken := unwritable(text)) is not None:
            raise InvalidArgument(f"{text!a} is no text: {broken}", help="leave out halves of surrogate pairs")


class Local:
    """A mesh's folder, in this process."""

    def __init__(self, session: _core.Session) -> None:
        self._session = session

    @property
    def root(self) -> str:
        return os.fspath(self._session.root)

    def command(self, words: list[str], progress: Progress | None = None) -> tuple[int, str]:
        _checked(*words)
        return self._session.command(words, progress, stop=STOP.get())

    def query(self, sql: str, *, as_of: str | None = None) -> ArrowStream:
        _checked(sql, as_of)
        return self._session.query(sql, as_of=as_of, stop=STOP.get())

    def publish(
        self,
        product: str,
        tables: Mapping[str, ArrowStream],
        options: Mapping[str, Any],
        progress: Progress | None = None,
    ) -> str:
        _checked(product, *tables, *(option for option in options.values() if isinstance(option, str)))
        return self._session.publish(product, dict(tables), dict(options), progress, stop=STOP.get())

    def contract(self, product: str) -> str:
        _checked(product)
        return self._session.contract(product, stop=STOP.get())

    def record_lineage(self, run: str) -> str:
        _checked(run)
        return self._session.record_lineage(run, stop=STOP.get())

    def read(self, product: str, table: str | None, *, columns: list[str] | None = None, as_of: str | None = None) -> ArrowStream:
        _checked(product, table, as_of, *(columns or ()))
        return self._session.read(product, table, columns=columns, as_of=as_of, stop=STOP.get())

    def quarantine(self, product: str, table: str | None) -> ArrowStream | None:
        _checked(product, table)
        return self._session.quarantine(product, table, stop=STOP.get())


def connect(
    mesh: str | os.PathLike[str] | None = None,
    *,
    act_as: str | None = None,
    purpose: str | None = None,
    memory_mib: int = 512,
) -> Backend:
    """The backend of a mesh: the folder `mesh`, `DATAMESH_HOME`, or the nearest folder upwards with a `mesh.yaml`.

    Raises:
        NotFound: There is no mesh there.
        InvalidArgument: It is the URL of a server, which nothing speaks yet.
    """
    place = None if mesh is None else os.fspath(mesh)
    _checked(act_as, purpose)
    if place is not None and "://" in place:
        raise InvalidArgument(
            f"a mesh cannot be reached by URL yet: `{urlsplit(place).scheme}://…`",
            help="name the folder that holds its mesh.yaml",
        )
    return Local(_core.Session(place, act_as=act_as, purpose=purpose, memory_mib=memory_mib))
