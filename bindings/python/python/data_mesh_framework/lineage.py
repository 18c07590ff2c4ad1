"""Lineage: what data was made of, recorded in the mesh and told as an OpenLineage run event."""

from __future__ import annotations

import datetime
import functools
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, Union

from . import _work
from ._work import Transformation, Work
from .data import Data, Source
from .errors import InvalidArgument

if TYPE_CHECKING:
    from typing_extensions import TypeAlias

    from .mesh import Mesh
    from .product import DataProduct

    Sources: TypeAlias = Union[Source, str, Data, "DataProduct", Iterable[Union[Source, str, Data, "DataProduct"]]]

__all__ = ["Lineage", "LineageRun", "Recording", "Transformation", "transformation"]

transformation = _work.transformation

F = TypeVar("F", bound=Callable[..., Any])


class LineageRun:
    """A run that was recorded: what it read, what it made, and how.

    Attributes:
        event: The OpenLineage 2-0-2 run event.
    """

    def __init__(self, event: Mapping[str, Any], transformations: Sequence[Transformation]) -> None:
        self.event = dict(event)
        self.transformations = list(transformations)

    @property
    def run_id(self) -> str:
        """The run's identity in OpenLineage, a UUID."""
        return str(self.event["run"]["runId"])

    @property
    def job(self) -> str:
        """What ran."""
        return str(self.event["job"]["name"])

    @property
    def inputs(self) -> list[Source]:
        """What was read."""
        return [Source(dataset["namespace"], dataset["name"]) for dataset in self.event.get("inputs", ())]

    @property
    def outputs(self) -> list[Source]:
        """What was made."""
        return [Source(dataset["namespace"], dataset["name"]) for dataset in self.event.get("outputs", ())]

    def to_json(self) -> str:
        """The event as JSON, for whatever takes OpenLineage."""
        return json.dumps(self.event, indent=2, ensure_ascii=False)

    def __repr__(self) -> str:
        how = f" by {', '.join(self.transformations)}" if self.transformations else ""
        return f"LineageRun({self.job}: {', '.join(map(str, self.inputs))} -> {', '.join(map(str, self.outputs))}{how})"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {"text/plain": repr(self), "application/json": self.event}


class Recording:
    """A run under way, which `Lineage.recording` begins: a context manager, and a decorator.

    What is marked with `@transformation` and runs meanwhile is recorded with it. Where an exception ends it nothing is recorded,
    since nothing was made.

    Attributes:
        run: What was recorded, once it is over.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self._arguments = dict(arguments)
        self._output: Any = self._arguments.pop("output")
        self._open: list[tuple[Any, Work]] = []
        self.run: LineageRun | None = None

    def transformed(self, name: str, description: str | None = None) -> None:
        """Adds a transformation."""
        self._open[-1][1].ran(Transformation(name, description))

    def produced(self, output: Data | Source | str | DataProduct) -> None:
        """Says what was made, where that was not known at the beginning."""
        self._output = output

    def __enter__(self) -> Recording:
        manager = _work.recording(Work(self._arguments["product"]))
        self._open.append((manager, manager.__enter__()))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        manager, work = self._open.pop()
        manager.__exit__(None, None, None)
        if kind is None:
            self.run = _record(output=self._output, work=work, **self._arguments)

    def __call__(self, function: F) -> F:
        """The function, recorded each time it is called; what it returns is the output, where none was named."""
        what = Transformation.of(function)

        def one() -> Recording:
            return Recording({**self._arguments, "output": self._output})

        def ended(recording: Recording, result: Any) -> Any:
            recording._open[-1][1].ran(what)
            if recording._output is None:
                recording._output = result
            return result

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def recorded_async(*arguments: Any, **named: Any) -> Any:
                with one() as recording:
                    return ended(recording, await function(*arguments, **named))

            made: Any = recorded_async
        else:

            @functools.wraps(function)
            def recorded(*arguments: Any, **named: Any) -> Any:
                with one() as recording:
                    return ended(recording, function(*arguments, **named))

            made = recorded
        return made  # type: ignore[no-any-return]


class Lineage:
    """Says what data was made of."""

    @staticmethod
    def record(
        *,
        source: Sources,
        output: object = None,
        transformations: Iterable[str] = (),
        columns: Mapping[str, Iterable[str]] | None = None,
        product: DataProduct | None = None,
        job: str | None = None,
        mesh: Mesh | None = None,
    ) -> LineageRun:
        """Records a run in the mesh, in one transaction with its entry in the audit log, and gives its OpenLineage event.

        No data is read: of `output` only the columns' names count.

        Args:
            source: What was read: `Data.source`, names (`domain/product.table`, URLs), products, or several of those.
            output: What was made. Data that is nobody's yet is the product's whose `process_data` runs, or `product`'s.
            transformations: What was done, in order: `DataProduct.transformations`, or names.
            columns: For columns of the output the columns that they are made of, as `domain/product.table.column`
                or, with one source, as `column`.
            product: The product that made it, outside of its `process_data`.
            job: The name of what ran, where it is no product.
            mesh: Where it is recorded: the product's mesh, or the one around the working directory.

        Raises:
            InvalidArgument: It is not said whose the output is, or a source cannot be understood.
            AccessDenied: The caller may not write to the output.
        """
        work = Work(product) if product is not None else _work.current() or Work(None)
        return _record(
            source=source,
            output=output,
            transformations=transformations,
            columns=columns,
            product=product,
            job=job,
            mesh=mesh,
            work=work,
        )

    @staticmethod
    def recording(
        *,
        source: Sources,
        output: object = None,
        columns: Mapping[str, Iterable[str]] | None = None,
        product: DataProduct | None = None,
        job: str | None = None,
        mesh: Mesh | None = None,
    ) -> Recording:
        """The same for a block, or for each call of a function, with what `@transformation` records meanwhile.

        ```python
        with Lineage.recording(source="s3://landing/orders.csv", output="sales/orders") as recording:
            rows = without_tests(rows)              # marked with @transformation
            recording.transformed("to_cents")       # or said

        @Lineage.recording(source="weather/observations", output="sales/umbrellas")
        def forecast(weather): ...
        ```
        """
        return Recording(
            {"source": source, "output": output, "columns": columns, "product": product, "job": job, "mesh": mesh}
        )


def _record(
    *,
    source: Sources,
    output: object,
    columns: Mapping[str, Iterable[str]] | None,
    product: DataProduct | None,
    job: str | None,
    mesh: Mesh | None,
    work: Work,
    transformations: Iterable[str] = (),
) -> LineageRun:
    product = product or work.product
    inputs = [part for one in _several(source) for part in (Source.of(one).parts or [Source.of(one)])]
    if not inputs:
        raise InvalidArgument("there is no source", help="name what was read: source='domain/product.table', or several")
    made = _outputs(output, product)
    named = transformations or work.transformations
    if isinstance(named, str):
        named = [named]
    said = [one if isinstance(one, Transformation) else Transformation(str(one)) for one in named]
    document: dict[str, Any] = {
        "job": job or (product.id if product is not None else str(made[0])),
        "inputs": [one.document() for one in inputs],
        "outputs": [one.document() for one in made],
        "transformations": [one.document() for one in said],
        "started": work.started.isoformat(),
        "ended": datetime.datetime.now(datetime.timezone.utc).isoformat(),
    }
    if columns:
        document["columns"] = {name: [_column(one, inputs) for one in _several(of)] for name, of in columns.items()}
    if mesh is None:
        from .mesh import Mesh

        mesh = product.mesh if product is not None else Mesh()
    return LineageRun(json.loads(mesh._backend.record_lineage(json.dumps(document))), said)


def _outputs(output: object, product: DataProduct | None) -> list[Source]:
    if isinstance(output, Mapping) and product is not None:
        # Several tables of the product.
        return [Source("datamesh", f"{product.id}.{table}", columns=_columns(part)) for table, part in output.items()]
    return [_output(output, product)]


def _output(output: object, product: DataProduct | None) -> Source:
    if isinstance(output, (Source, str)):
        return Source.of(output)
    from .product import DataProduct

    if isinstance(output, DataProduct):
        return output.source
    if product is None:
        if isinstance(output, Data) and output.source.namespace != "memory":
            return replace(output.source, columns=tuple(output.columns))
        raise InvalidArgument(
            "it is not said whose the output is",
            help="record within `process_data`, or name it: output='domain/product.table', or product=…",
        )
    return replace(product.source, columns=_columns(output))


def _columns(output: object) -> tuple[str, ...]:
    """Names of columns, without touching rows; a stream that nobody wrapped is left alone."""
    if isinstance(output, Data):
        return tuple(output.columns)
    names = getattr(getattr(output, "schema", None), "names", None)
    if names is None:
        names = getattr(output, "columns", None)
    if names is None and isinstance(output, Sequence) and output and isinstance(output[0], Mapping):
        names = output[0]
    return tuple(map(str, names)) if isinstance(names, Iterable) else ()


def _column(text: str, inputs: Sequence[Source]) -> dict[str, str]:
    for one in inputs:
        if text.startswith(f"{one}."):
            return {"namespace": one.namespace, "name": one.name, "field": text[len(str(one)) + 1 :]}
    if len(inputs) == 1:
        return {"namespace": inputs[0].namespace, "name": inputs[0].name, "field": text}
    raise InvalidArgument(
        f"`{text}` is a column of none of the sources",
        help="write source.column, with one of: " + ", ".join(map(str, inputs)),
    )


def _several(what: Any) -> list[Any]:
    if isinstance(what, (str, Source, Data)) or not isinstance(what, Iterable):
        return [what]
    return list(what)
