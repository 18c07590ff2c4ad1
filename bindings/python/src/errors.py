"""The exceptions of ``data_mesh_framework``: what went wrong, in words, with everything a program needs to act on it."""


class Explained(BaseException):
    """What an exception carries.

    Attributes:
        message: What went wrong.
        code: The stable word of the error, as the command line's JSON has it.
        exit_code: The exit code that the command line would end with.
        help: How to mend it, where that is known.
        retryable: Whether the same call may succeed later.
        diagnostics: The problems of documents, each with ``id``, ``level``, ``message``, ``help`` and ``location``.
        report: The report of what was done, where there is one.
    """

    code = "internal"
    exit_code = 1

    def __init__(self, message="", *, code=None, exit_code=None, help=None, retryable=False, diagnostics=(), report=None):
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        if exit_code is not None:
            self.exit_code = exit_code
        self.help = help
        self.retryable = retryable
        self.diagnostics = list(diagnostics)
        self.report = report

    def __str__(self):
        lines = [self.message]
        for found in self.diagnostics:
            place = found.get("location") or {}
            where = place.get("file", "")
            if place.get("line"):
                where = f"{where}:{place['line']}:{place['column']}"
            lines.append(f"  {where}: {found.get('level', 'error')}: {found.get('message', '')}")
            if found.get("help"):
                lines.append(f"    help: {found['help']}")
        if self.help:
            lines.append(f"help: {self.help}")
        return "\n".join(lines)

    def __reduce__(self):
        return (type(self), (self.message,), self.__dict__)


class DataMeshError(Explained, Exception):
    """An operation failed.

    Attributes:
        message: What went wrong.
        code: The stable word of the error, as the command line's JSON has it.
        exit_code: The exit code that the command line would end with.
        help: How to mend it, where that is known.
        retryable: Whether the same call may succeed later.
        diagnostics: The problems of documents, each with ``id``, ``level``, ``message``, ``help`` and ``location``.
        report: The report of what was done, where there is one.
    """


class NotFound(DataMeshError, LookupError):
    """Something that was named is not there."""

    code, exit_code = "not-found", 6


class MeshNotFound(NotFound):
    """There is no mesh here."""


class InvalidArgument(DataMeshError, ValueError):
    """An argument makes no sense."""

    code, exit_code = "invalid-argument", 2


class InvalidManifest(DataMeshError, ValueError):
    """A manifest, or a file of the mesh, has errors; ``diagnostics`` has them all."""

    code, exit_code = "invalid-manifest", 4


class InvalidQuery(DataMeshError, ValueError):
    """A query is wrong, or cannot be answered."""

    code, exit_code = "invalid-query", 9


class AccessDenied(DataMeshError):
    """Whoever acts may not do this."""

    code, exit_code = "denied", 14


class PolicyViolation(DataMeshError):
    """Policies of the mesh stand against it, or cannot be used."""

    code, exit_code = "invalid-policy", 22


class Rejected(DataMeshError):
    """The audit, or a rule of change, stands against it; ``report`` has the counts."""

    code, exit_code = "rejected", 3


class Conflict(DataMeshError):
    """Somebody else changed the same thing first."""

    code, exit_code = "conflict", 5


class NotApplied(DataMeshError):
    """The manifest differs from what is applied."""

    code, exit_code = "not-applied", 15


class PlanRefused(DataMeshError):
    """A plan cannot be applied."""

    code, exit_code = "plan-refused", 16


class SourceUnreadable(DataMeshError):
    """Data could not be read."""

    code, exit_code = "source-unreadable", 7


class StorageError(DataMeshError):
    """Data could not be written, or the registry could not be used."""

    code, exit_code = "write-failed", 8


class Tampered(DataMeshError):
    """The audit log or a receipt was changed."""

    code, exit_code = "tampered", 21


class Interrupted(Explained, KeyboardInterrupt):
    """It was stopped; what it says of what was done holds. Like Python's own it is no `Exception`, which programs catch and go on."""

    code, exit_code = "interrupted", 130


class Internal(DataMeshError):
    """A defect of datamesh itself."""


_BY_CODE = {
    "invalid-argument": InvalidArgument,
    "invalid-manifest": InvalidManifest,
    "not-found": NotFound,
    "source-unreadable": SourceUnreadable,
    "write-failed": StorageError,
    "invalid-query": InvalidQuery,
    "registry": StorageError,
    "registry-too-new": StorageError,
    "conflict": Conflict,
    "lease-lost": Conflict,
    "incompatible-change": Rejected,
    "not-applied": NotApplied,
    "plan-refused": PlanRefused,
    "plan-edited": PlanRefused,
    "plan-of-another-mesh": PlanRefused,
    "plan-too-new": PlanRefused,
    "plan-stale": PlanRefused,
    "denied": AccessDenied,
    "invalid-policy": PolicyViolation,
    "interrupted": Interrupted,
    "internal": Internal,
}


def make(code, exit_code, message, help, retryable, diagnostics, mesh_missing):
    """The exception of an error code."""
    kind = MeshNotFound if mesh_missing else _BY_CODE.get(code, Internal)
    return kind(
        message, code=code, exit_code=exit_code, help=help, retryable=retryable, diagnostics=diagnostics
    )


CLASSES = [kind for kind in list(globals().values()) if isinstance(kind, type) and issubclass(kind, Explained)]
for _kind in CLASSES:
    _kind.__module__ = "data_mesh_framework._core"
