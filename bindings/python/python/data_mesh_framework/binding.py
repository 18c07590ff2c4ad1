"""Classes that know nothing of this package, bound to a product."""

from __future__ import annotations

import os
from typing import Any, TypeVar

from .contract import QualityRules, Schema
from .errors import InvalidArgument
from .mesh import Mesh, Publication
from .product import DataProduct
from .quality import Quality, Report

__all__ = ["Bound", "bind"]

T = TypeVar("T")


class Bound:
    """The helpers that `bind` gives a class.

    Attributes:
        product: The product that the class is bound to.
        last_report: What the last check found; None before the first.
        last_publication: What became of the last publication; None before the first.
    """

    product: DataProduct
    last_report: Report | None = None
    last_publication: Publication | None = None

    def _load_schema(self) -> Schema:
        """The contract's tables and columns."""
        return self.product.schema

    def _load_quality_rules(self) -> QualityRules:
        """The contract's rules."""
        return self.product.quality_rules

    def _apply_quality_rules(self, data: Any) -> Report:
        """Judges data by the rules that the instance loaded; true where it may be published."""
        rules = getattr(self, "quality_rules", None)
        self.last_report = Quality.check(data, self.product.quality_rules if rules is None else rules)
        return self.last_report

    def _publish_to_mesh(self, data: Any) -> Publication:
        """Publishes: see `DataProduct.publish_data`."""
        self.last_publication = self.product.publish_data(data)
        return self.last_publication


def bind(cls: type[T], product: DataProduct | str, *, mesh: Mesh | str | os.PathLike[str] | None = None) -> type[T]:
    """A subclass of `cls` with the helpers of a data product: `_load_schema`, `_load_quality_rules`, `_apply_quality_rules` and
    `_publish_to_mesh`, as far as `cls` has none of its own. `cls` itself stays as it is.

    Args:
        cls: A class that calls those helpers and need not know where they come from.
        product: The product, or its name: `domain/product`, `domain/product@1`.
        mesh: The mesh, where the product is named.

    Raises:
        NotFound: There is no such product.

    >>> class Registry:
    ...     def __init__(self):
    ...         self.schema = self._load_schema()
    >>> BoundRegistry = bind(Registry, "fleet/registry")
    >>> list(BoundRegistry().schema)
    ['aircraft', 'airlines']
    """
    if not isinstance(cls, type):
        raise InvalidArgument("only classes can be bound", help="pass the class, not an instance of it")
    if isinstance(product, str):
        product = (mesh if isinstance(mesh, Mesh) else Mesh(mesh)).product(product)
    own = {name: value for name, value in vars(Bound).items() if name.startswith("_") and not name.startswith("__")}
    members: dict[str, Any] = {name: value for name, value in own.items() if not hasattr(cls, name)}
    members |= {"product": product, "last_report": None, "last_publication": None}
    members |= {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls.__name__, (cls,), members)
