"""The extension module: datamesh in this process. Private; the package wraps all of it."""

from collections.abc import Callable, Mapping
from typing import Any, final

from .data import ArrowStream

__version__: str

@final
class Stream:
    """Arrow record batches, read once."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...
    def __arrow_c_schema__(self) -> object: ...
    def close(self) -> None: ...

@final
class Session:
    """A mesh in this process; nothing is opened before the first use."""

    def __init__(
        self,
        mesh: str | None = None,
        *,
        act_as: str | None = None,
        purpose: str | None = None,
        memory_mib: int = 512,
    ) -> None: ...
    @property
    def root(self) -> str: ...
    def command(self, words: list[str], progress: Callable[[dict[str, Any]], None] | None = None) -> tuple[int, str]: ...
    def query(self, sql: str, *, as_of: str | None = None) -> Stream: ...
    def publish(
        self,
        product: str,
        tables: Mapping[str, ArrowStream],
        options: Mapping[str, Any],
        progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> str: ...
    def check(self, contract: str, table: str, data: ArrowStream, *, failing: bool = True) -> tuple[str, Stream | None]: ...
    def contract(self, product: str) -> str: ...
    def record_lineage(self, run: str) -> str: ...
    def read(
        self,
        product: str,
        table: str | None,
        *,
        columns: list[str] | None = None,
        as_of: str | None = None,
    ) -> Stream: ...
    def quarantine(self, product: str, table: str | None) -> Stream: ...

def check(contract: str, table: str, data: ArrowStream, *, failing: bool = True) -> tuple[str, Stream | None]: ...
def infer(name: str, data: ArrowStream) -> str: ...
