"""What can go wrong: one class per kind of failure, with the diagnostics that explain it.

Every error but `Interrupted` is a `DataMeshError`. Its text says what went wrong and how to mend it:

>>> raise_it = NotFound("no product `sales/orders` in this mesh", help="products here: weather/observations")
>>> print(raise_it)
no product `sales/orders` in this mesh
help: products here: weather/observations
>>> raise_it.code, raise_it.exit_code
('not-found', 6)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

__all__ = [
    "AccessDenied",
    "Conflict",
    "DataConsumed",
    "DataMeshError",
    "InternalError",
    "Interrupted",
    "InvalidArgument",
    "InvalidData",
    "InvalidManifest",
    "InvalidQuery",
    "NotApplied",
    "NotFound",
    "PlanRefused",
    "PolicyViolation",
    "Rejected",
    "StorageError",
    "Tampered",
]


class _Explained(BaseException):
    """What an error carries.

    Attributes:
        code: The kind of failure in one word, as `datamesh --format json` prints it.
        exit_code: The exit code of the command line for it.
        message: What went wrong, without the help.
        help: How to mend it, where that is known.
        diagnostics: The problems of a document, each with `id`, `level`, `message`, `location` and `help`.
    """

    default_code: ClassVar[str] = "internal"
    default_exit_code: ClassVar[int] = 1

    code: str
    exit_code: int
    message: str
    help: str | None
    diagnostics: list[dict[str, Any]]

    def __init__(
        self,
        message: str,
        *,
        help: str | None = None,
        code: str | None = None,
        exit_code: int | None = None,
        diagnostics: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.help = help
        self.code = code or self.default_code
        self.exit_code = self.default_exit_code if exit_code is None else exit_code
        self.diagnostics = [dict(diagnostic) for diagnostic in diagnostics]

    def __str__(self) -> str:
        lines = [self.message]
        lines += [_diagnostic(diagnostic) for diagnostic in self.diagnostics]
        if self.help:
            lines.append(f"help: {self.help}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, dict(self.__dict__)))


class DataMeshError(_Explained, Exception):
    """A failed operation.

    Attributes:
        code: The kind of failure in one word, as `datamesh --format json` prints it.
        exit_code: The exit code of the command line for it.
        message: What went wrong, without the help.
        help: How to mend it, where that is known.
        diagnostics: The problems of a document, each with `id`, `level`, `message`, `location` and `help`.
    """


class NotFound(DataMeshError):
    """A mesh, product, table or publication that does not exist."""

    default_code = "not-found"
    default_exit_code = 6


class InvalidArgument(DataMeshError, ValueError):
    """An argument that cannot be understood."""

    default_code = "invalid-argument"
    default_exit_code = 2


class InvalidData(InvalidArgument):
    """Data that cannot be made into Arrow: mixed types in a column, no rows and columns, an object of an unknown kind."""


class DataConsumed(InvalidArgument):
    """A stream that was read already. Streams are read once; `Data.collect` keeps their rows."""


class InvalidManifest(DataMeshError):
    """A manifest with errors; `diagnostics` has every one of them."""

    default_code = "invalid-manifest"
    default_exit_code = 4


class InvalidQuery(DataMeshError):
    """A SQL query that cannot be planned or run."""

    default_code = "invalid-query"
    default_exit_code = 9


class AccessDenied(DataMeshError, PermissionError):
    """The mesh's policies forbid it; the decision is in the audit log."""

    default_code = "denied"
    default_exit_code = 14


class Rejected(DataMeshError):
    """The audit rejected a publication; what was published before still serves.

    Attributes:
        report: The publish report, as `datamesh publish --format json` prints it.
    """

    default_code = "rejected"
    default_exit_code = 3

    report: dict[str, Any]

    def __init__(self, message: str, *, report: Mapping[str, Any] | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.report = dict(report or {})


class Conflict(DataMeshError):
    """Somebody else changed it in between; nothing was done, and doing it again may succeed."""

    default_code = "conflict"
    default_exit_code = 5


class Interrupted(_Explained, KeyboardInterrupt):
    """Stopped by Ctrl-C; nothing was published. As Python's own, it is no `Exception`: `except Exception` lets it through."""

    default_code = "interrupted"
    default_exit_code = 130


class NotApplied(DataMeshError):
    """The manifest differs from what was applied: `Mesh.apply` makes it so."""

    default_code = "not-applied"
    default_exit_code = 15


class PlanRefused(DataMeshError):
    """Rules stand against a plan, or it is not the plan that was reviewed."""

    default_code = "plan-refused"
    default_exit_code = 16


class PolicyViolation(DataMeshError):
    """A policy that cannot be understood, or a manifest that breaks one."""

    default_code = "invalid-policy"
    default_exit_code = 22


class Tampered(DataMeshError):
    """The audit log or a receipt was changed."""

    default_code = "tampered"
    default_exit_code = 21


class StorageError(DataMeshError, OSError):
    """A file, an object store or the registry cannot be read or written."""

    default_code = "write-failed"
    default_exit_code = 8


class InternalError(DataMeshError):
    """A fault of datamesh itself."""


_CLASSES: dict[str, type[_Explained]] = {
    "conflict": Conflict,
    "denied": AccessDenied,
    "incompatible-change": PlanRefused,
    "internal": InternalError,
    "interrupted": Interrupted,
    "invalid-argument": InvalidArgument,
    "invalid-data": InvalidData,
    "invalid-manifest": InvalidManifest,
    "invalid-policy": PolicyViolation,
    "invalid-query": InvalidQuery,
    "lease-lost": Conflict,
    "not-applied": NotApplied,
    "not-found": NotFound,
    "plan-edited": PlanRefused,
    "plan-of-another-mesh": PlanRefused,
    "plan-refused": PlanRefused,
    "plan-stale": Conflict,
    "plan-too-new": PlanRefused,
    "registry": StorageError,
    "registry-too-new": StorageError,
    "rejected": Rejected,
    "source-unreadable": StorageError,
    "tampered": Tampered,
    "write-failed": StorageError,
}


def from_core(
    code: str,
    exit_code: int,
    message: str,
    help: str | None,
    diagnostics: str | None,
    report: str | None,
) -> BaseException:
    """The exception for an error of the extension module, whose documents cross as JSON."""
    details: dict[str, Any] = {
        "help": help,
        "code": code,
        "exit_code": exit_code,
        "diagnostics": json.loads(diagnostics) if diagnostics else (),
    }
    kind = _CLASSES.get(code, DataMeshError)
    if issubclass(kind, Rejected):
        details["report"] = json.loads(report) if report else None
    return kind(message, **details)


def _diagnostic(diagnostic: Mapping[str, Any]) -> str:
    location = diagnostic.get("location") or {}
    place = str(location.get("file", ""))
    if location.get("line"):
        place += f":{location['line']}:{location.get('column', 1)}"
    text = f"  {place}: " if place else "  "
    text += f"{diagnostic.get('level', 'error')}[{diagnostic.get('id', '')}]: {diagnostic.get('message', '')}"
    if diagnostic.get("help"):
        text += f"\n    help: {diagnostic['help']}"
    return text


def _rebuild(kind: type[_Explained], message: str, state: dict[str, Any]) -> _Explained:
    error = kind(message)
    error.__dict__.update(state)
    return error
