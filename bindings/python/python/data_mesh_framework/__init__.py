"""Data products in Python, on a mesh.

A team subclasses `DataProduct`; `Quality` judges data by the product's contract, `Lineage` says where it comes from, and `Mesh` is
the whole mesh, with the words of the command line. Data is pandas, Polars, DuckDB, Arrow or a list of dicts, in and out.

>>> from data_mesh_framework import DataProduct, Lineage, Mesh, Quality
>>> mesh = Mesh()
>>> weather = mesh.read("weather/observations", columns=["origin", "temp"])
>>> weather.source
Source(namespace='datamesh', name='weather.observations.hourly', publication=1)
>>> weather.to_polars().height
26108
"""

from ._core import __version__
from ._work import Transformation, transformation
from .binding import Bound, bind
from .contract import Column, Contract, QualityRules, Rule, Schema, TableSchema
from .data import ArrowStream, Data, Source
from .errors import (
    AccessDenied,
    Conflict,
    DataConsumed,
    DataMeshError,
    Internal,
    Interrupted,
    InvalidArgument,
    InvalidData,
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
from .lineage import Lineage, LineageRun, Recording
from .mesh import Access, Mesh, Publication
from .product import DataProduct
from .quality import Quality, Report, RuleResult

__all__ = [
    "Access",
    "AccessDenied",
    "ArrowStream",
    "Bound",
    "Column",
    "Conflict",
    "Contract",
    "Data",
    "DataConsumed",
    "DataMeshError",
    "DataProduct",
    "Internal",
    "Interrupted",
    "InvalidArgument",
    "InvalidData",
    "InvalidManifest",
    "InvalidQuery",
    "Lineage",
    "LineageRun",
    "Mesh",
    "MeshNotFound",
    "NotApplied",
    "NotFound",
    "PlanRefused",
    "PolicyViolation",
    "Publication",
    "Quality",
    "QualityRules",
    "Recording",
    "Rejected",
    "Report",
    "Rule",
    "RuleResult",
    "Schema",
    "Source",
    "SourceUnreadable",
    "StorageError",
    "TableSchema",
    "Tampered",
    "Transformation",
    "__version__",
    "bind",
    "transformation",
]
