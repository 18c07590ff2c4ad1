"""What answers for a mesh: a folder, by the extension module in this process; later a server, behind the same protocol."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from . import _core
from .data import ArrowStream
from .errors import InvalidArgument

__all__ = ["Backend", "Progress", "connect"]

Progress = Callable[[dict[str, Any]], None]
"""Told, while work goes on, of a table's progress; what it raises stops the work."""


class Backend(Protocol):
    """A mesh that can be asked. Documents cross as JSON, rows as Arrow streams; failures are `DataMeshError`s."""

    @property
    def root(self) -> str:
        """Where the mesh is: a folder, or a URL."""
        ...

    def command(self, words: list[str], progress: Progress | None = None) -> tuple[int, str]:
        """Runs a command of the `datamesh` command line: its exit code and what it prints."""
        ...

    def query(self, sql: str, *, as_of: str | None = None) -> ArrowStream: ...

    def publish(
        self,
        product: str,
        tables: Mapping[str, ArrowStream],
        options: Mapping[str, Any],
        progress: Progress | None = None,
    ) -> str: ...

    def contract(self, product: str) -> str: ...

    def record_lineage(self, run: str) -> str: ...

    def read(
        self,
        product: str,
        table: str | None,
        *,
        columns: list[str] | None = None,
        as_of: str | None = None,
    ) -> ArrowStream: ...

    def quarantine(self, product: str, table: str | None) -> ArrowStream: ...


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
    if place is not None and "://" in place:
        raise InvalidArgument(
            f"a mesh cannot be reached by URL yet: `{urlsplit(place).scheme}://…`",
            help="name the folder that holds its mesh.yaml",
        )
    return _core.Session(place, act_as=act_as, purpose=purpose, memory_mib=memory_mib)
