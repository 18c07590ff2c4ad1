"""The extension module: datamesh in this process. Private; the package wraps all of it."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, final

from .data import ArrowStream

__version__: str

class Explained(BaseException):
    """What an exception carries."""

    message: str
    code: str
    exit_code: int
    help: str | None
    retryable: bool
    diagnostics: list[dict[str, Any]]
    report: Any

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        exit_code: int | None = None,
        help: str | None = None,
        retryable: bool = False,
        diagnostics: Iterable[Mapping[str, Any]] = (),
        report: Any = None,
    ) -> None: ...

class DataMeshError(Explained, Exception): ...
class NotFound(DataMeshError, LookupError): ...
class MeshNotFound(NotFound): ...
class InvalidArgument(DataMeshError, ValueError): ...
class InvalidManifest(DataMeshError, ValueError): ...
class InvalidQuery(DataMeshError, ValueError): ...
class AccessDenied(DataMeshError): ...
class PolicyViolation(DataMeshError): ...
class Rejected(DataMeshError): ...
class Conflict(DataMeshError): ...
class NotApplied(DataMeshError): ...
class PlanRefused(DataMeshError): ...
class SourceUnreadable(DataMeshError): ...
class StorageError(DataMeshError): ...
class Tampered(DataMeshError): ...
class Interrupted(Explained, KeyboardInterrupt): ...
class Internal(DataMeshError): ...

@final
class Stop:
    """Stops work from another thread."""

    def __init__(self) -> None: ...
    def stop(self) -> None: ...
    @property
    def stopped(self) -> bool: ...

@final
class Batch:
    """An Arrow record batch."""

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]: ...
    @property
    def num_rows(self) -> int: ...

@final
class Stream:
    """Arrow record batches, read once."""

    def next_batch(self, *, stop: Stop | None = None) -> Batch | None: ...

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...
    def __arrow_c_schema__(self) -> object: ...
    @property
    def column_names(self) -> list[str]: ...
    def raise_error(self) -> None: ...
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
    def root(self) -> Path: ...
    def command(
        self,
        words: list[str],
        progress: Callable[[dict[str, Any]], None] | None = None,
        *,
        stop: Stop | None = None,
    ) -> tuple[int, str]: ...
    def query(self, sql: str, *, as_of: str | None = None, stop: Stop | None = None) -> Stream: ...
    def publish(
        self,
        product: str,
        tables: dict[str, ArrowStream],
        options: dict[str, Any],
        progress: Callable[[dict[str, Any]], None] | None = None,
        *,
        stop: Stop | None = None,
    ) -> str: ...
    def contract(self, product: str, *, stop: Stop | None = None) -> str: ...
    def record_lineage(self, run: str, *, stop: Stop | None = None) -> str: ...
    def read(
        self,
        product: str,
        table: str | None = None,
        *,
        columns: list[str] | None = None,
        as_of: str | None = None,
        stop: Stop | None = None,
    ) -> Stream: ...
    def quarantine(
        self,
        product: str,
        table: str | None = None,
        *,
        publication: int | None = None,
        reveal: bool = False,
        stop: Stop | None = None,
    ) -> Stream | None: ...

def command(
    words: list[str],
    *,
    mesh: str | None = None,
    act_as: str | None = None,
    purpose: str | None = None,
    memory_mib: int = 512,
    progress: Callable[[dict[str, Any]], None] | None = None,
    stop: Stop | None = None,
) -> tuple[int, str]: ...
def check(
    contract: str,
    table: str,
    data: ArrowStream,
    *,
    failing: bool = True,
    progress: Callable[[dict[str, Any]], None] | None = None,
    stop: Stop | None = None,
) -> tuple[str, Stream | None]: ...
def infer(name: str, data: ArrowStream, *, stop: Stop | None = None) -> str: ...
def before_fork() -> None: ...
