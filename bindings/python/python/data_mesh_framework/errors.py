"""What can go wrong: one class per kind of failure, with the diagnostics that explain it.

Every failure is a `DataMeshError`; its text says what went wrong and how to mend it. Two kinds come from Python's side alone:
`InvalidData` and `DataConsumed`.

>>> from data_mesh_framework import Mesh, NotFound
>>> try:
...     Mesh().show("weather/forecast")
... except NotFound as error:
...     print(error.message, error.code, error.exit_code)
no product `weather/forecast` is published not-found 6
"""

from __future__ import annotations

from ._core import (
    AccessDenied,
    Conflict,
    DataMeshError,
    Internal,
    Interrupted,
    InvalidArgument,
    InvalidManifest,
    InvalidQuery,
    MeshNotFound,
    NotApplied,
    NotFound,
    PlanRefused,
    PolicyViolation,
    Rejected,
    SourceUnreadable,
    StorageError,
    Tampered,
)

__all__ = [
    "AccessDenied",
    "Conflict",
    "DataConsumed",
    "DataMeshError",
    "Internal",
    "Interrupted",
    "InvalidArgument",
    "InvalidData",
    "InvalidManifest",
    "InvalidQuery",
    "MeshNotFound",
    "NotApplied",
    "NotFound",
    "PlanRefused",
    "PolicyViolation",
    "Rejected",
    "SourceUnreadable",
    "StorageError",
    "Tampered",
]


class InvalidData(InvalidArgument):
    """Data that cannot be made into Arrow: a column of mixed types, no columns, an object of an unknown kind."""


class DataConsumed(InvalidArgument):
    """A stream that was read already. Streams are read once; `Data.collect` keeps their rows."""
