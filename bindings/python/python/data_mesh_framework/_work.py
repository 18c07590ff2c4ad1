"""What a product is doing: the transformations that ran, for each thread and each asyncio task on its own."""

from __future__ import annotations

import contextvars
import datetime
import functools
import inspect
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, overload

if TYPE_CHECKING:
    from .product import DataProduct

F = TypeVar("F", bound=Callable[..., Any])


class Transformation(str):
    """The name of a transformation that ran, with what its docstring says first.

    >>> cents = Transformation("Orders.to_cents", "Amounts in cents.")
    >>> cents, cents.description
    ('Orders.to_cents', 'Amounts in cents.')
    """

    description: str | None

    def __new__(cls, name: str, description: str | None = None) -> Transformation:
        made = super().__new__(cls, name)
        made.description = description
        return made

    @classmethod
    def of(cls, function: Callable[..., Any], name: str | None = None) -> Transformation:
        doc = (inspect.getdoc(function) or "").strip()
        return cls(name or function.__qualname__.replace("<locals>.", ""), doc.splitlines()[0] if doc else None)

    def document(self) -> dict[str, Any]:
        """As it is recorded."""
        return {"name": str(self)} | ({"description": self.description} if self.description else {})

    def __reduce__(self) -> tuple[Any, ...]:
        return (Transformation, (str(self), self.description))


@dataclass
class Work:
    """One call of a product's `process_data`, or what runs outside of any."""

    product: DataProduct | None
    transformations: list[Transformation] = field(default_factory=list)
    started: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.timezone.utc))

    def ran(self, transformation: Transformation) -> None:
        if transformation not in self.transformations:
            self.transformations.append(transformation)


_CURRENT: contextvars.ContextVar[Work | None] = contextvars.ContextVar("data_mesh_framework_work", default=None)
_LAST: contextvars.ContextVar[weakref.WeakKeyDictionary[DataProduct, Work] | None] = contextvars.ContextVar(
    "data_mesh_framework_last_work", default=None
)


def current() -> Work | None:
    """The call that is going on here."""
    return _CURRENT.get()


def last(product: DataProduct) -> Work:
    """The call of this product that is going on here, or the last one that was."""
    known = _LAST.get()
    work = known.get(product) if known is not None else None
    if work is None:
        work = Work(product)
        _remember(product, work)
    return work


@contextmanager
def working(product: DataProduct) -> Iterator[Work]:
    """A call of `product`; one within another of the same product is part of it."""
    outer = _CURRENT.get()
    if outer is not None and outer.product is product:
        yield outer
        return
    work = Work(product)
    _remember(product, work)
    token = _CURRENT.set(work)
    try:
        yield work
    finally:
        _CURRENT.reset(token)


@contextmanager
def recording(work: Work) -> Iterator[Work]:
    """Work that belongs to no product's `process_data`."""
    token = _CURRENT.set(work)
    try:
        yield work
    finally:
        _CURRENT.reset(token)


def _remember(product: DataProduct, work: Work) -> None:
    # A copy: contexts that were copied from this one (tasks, threads) keep their own.
    known = weakref.WeakKeyDictionary(_LAST.get() or {})
    known[product] = work
    _LAST.set(known)


@overload
def transformation(function: F, /) -> F: ...
@overload
def transformation(name: str, /) -> Callable[[F], F]: ...
def transformation(function: F | str, /) -> F | Callable[[F], F]:
    """Marks a function or method as a transformation: calling it within `process_data` (or `Lineage.recording`) records it.

    >>> @transformation
    ... def without_tests(rows):
    ...     "Leaves out orders of testers."
    ...     return [row for row in rows if not row["test"]]
    >>> with recording(Work(None)) as work:
    ...     _ = without_tests([{"test": True}])
    >>> work.transformations
    ['without_tests']
    """
    if isinstance(function, str):
        name = function
        return lambda function: _marked(function, name)
    return _marked(function, None)


def _marked(function: F, name: str | None) -> F:
    what = Transformation.of(function, name)

    def ran(arguments: tuple[Any, ...]) -> None:
        from .product import DataProduct

        if arguments and isinstance(arguments[0], DataProduct):
            last(arguments[0]).ran(what)
        elif (work := current()) is not None:
            work.ran(what)

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def marked_async(*arguments: Any, **named: Any) -> Any:
            ran(arguments)
            return await function(*arguments, **named)

        marked: Any = marked_async
    else:

        @functools.wraps(function)
        def marked_plain(*arguments: Any, **named: Any) -> Any:
            ran(arguments)
            return function(*arguments, **named)

        marked = marked_plain
    marked.__transformation__ = what
    return marked  # type: ignore[no-any-return]
