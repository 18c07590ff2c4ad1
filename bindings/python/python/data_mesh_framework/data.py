"""Data of any kind, with where it comes from."""

from __future__ import annotations

import contextlib
import html
import os
import sys
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Union, cast, runtime_checkable
from urllib.parse import urlsplit

from arro3.core import RecordBatch, RecordBatchReader, Schema, Table

from . import _core
from ._rows import table_of
from ._stop import STOP
from .errors import DataConsumed, InvalidArgument, InvalidData

if TYPE_CHECKING:
    import duckdb
    import pandas
    import polars
    import pyarrow
    from typing_extensions import Self, TypeAlias

__all__ = ["ArrowStream", "Data", "DataLike", "Source"]

_PREVIEW = 10
_CELL = 40


@runtime_checkable
class ArrowStream(Protocol):
    """Anything that gives its rows as an Arrow stream, by the Arrow PyCapsule interface."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


if TYPE_CHECKING:
    DataLike: TypeAlias = Union["Data", ArrowStream, Iterable[Mapping[str, Any]], "pandas.DataFrame", "polars.LazyFrame"]
else:
    DataLike = object
    """What is taken as data: see `Data`."""


@dataclass(frozen=True)
class Source:
    """Where data comes from, as a dataset of OpenLineage: a namespace and a name in it.

    A table of the mesh is `datamesh` and `domain.product_v1.table`, a file `file` and its path, an object `s3://bucket`
    and its key; what exists only in this program is `memory` and its kind.

    >>> Source.of("weather/observations.hourly")
    Source(namespace='datamesh', name='weather/observations.hourly')
    >>> Source.of("s3://landing/orders/2026.parquet")
    Source(namespace='s3://landing', name='orders/2026.parquet')
    >>> str(Source.of("file:///data/orders.csv"))
    'file:///data/orders.csv'
    """

    namespace: str
    name: str
    publication: int | None = None
    columns: tuple[str, ...] = ()
    parts: tuple[Source, ...] = ()
    """What it is made of, where it is no dataset but a query's answer."""

    @classmethod
    def of(cls, what: Source | str | object) -> Source:
        """The source that is meant: itself, a name (`domain/product`, `domain/product.table`, `domain.product.table`, a URL),
        a `DataProduct`, or the source of `Data`.

        Raises:
            InvalidArgument: It names nothing.
        """
        if isinstance(what, Source):
            return what
        if isinstance(what, str):
            return cls._parsed(what)
        source = getattr(what, "source", None)
        if isinstance(source, Source):
            return source
        raise InvalidArgument(
            f"a {type(what).__name__} says not where it comes from",
            help="name it: 'domain/product', 'domain/product.table', a URL, or Data(…, source='…')",
        )

    @classmethod
    def _parsed(cls, text: str) -> Source:
        url = urlsplit(text)
        if "://" in text and url.scheme == "file":
            return cls("file", url.path)
        if "://" in text and url.netloc and url.path.strip("/"):
            # A password has no place in lineage.
            host = url.netloc.rpartition("@")[2]
            return cls(f"{url.scheme}://{host}", url.path.lstrip("/"))
        if text and "://" not in text and (text.count("/") == 1 or text.count(".") == 2) and not text.startswith(("/", ".")):
            return cls("datamesh", text)
        raise InvalidArgument(
            f"`{text}` names no source",
            help="name a product ('domain/product'), a table ('domain/product.table'), or a URL ('s3://bucket/key', 'file:///path')",
        )

    def __str__(self) -> str:
        if self.namespace == "datamesh":
            return self.name
        if self.namespace == "file":
            return f"file://{self.name}"
        return f"{self.namespace}{'/' if '://' in self.namespace else ':'}{self.name}"

    def __repr__(self) -> str:
        parts = [f"namespace={self.namespace!r}", f"name={self.name!r}"]
        if self.publication is not None:
            parts.append(f"publication={self.publication}")
        return f"Source({', '.join(parts)})"

    def document(self) -> dict[str, Any]:
        """As it is recorded."""
        document: dict[str, Any] = {"namespace": self.namespace, "name": self.name}
        if self.publication is not None:
            document["publication"] = self.publication
        if self.columns:
            document["columns"] = list(self.columns)
        return document


_TAKEN: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
"""Streams that were given away, and to whom: wrapped anew, they would look like data without rows."""


def _consumed(kind: str, by: str | None) -> DataConsumed:
    return DataConsumed(
        f"this {kind} can be read once, and {by} has read it",
        help="call `collect()` before the first use to keep the rows, or pass a table or data frame",
    )


def _take(stream: Any, by: str) -> None:
    # What has no weak references tells of a second reading itself.
    with contextlib.suppress(TypeError):
        _TAKEN[stream] = by


def _refuse_taken(stream: Any) -> None:
    by = None
    with contextlib.suppress(TypeError):
        by = _TAKEN.get(stream)
    if by is not None:
        raise _consumed(type(stream).__name__, by)


@dataclass(eq=False)
class _Held:
    """What `Data` wraps; several may share one stream, which is read once all the same."""

    native: Any
    kind: str
    reopen: Callable[[], ArrowStream] | None = None
    reader: ArrowStream | None = None
    origin: Any = None
    """The mesh's stream behind the reader, which knows the kind of an error."""
    schema: Schema | None = None
    kept: Table | None = None
    taken_by: str | None = None
    closed: bool = False

    @classmethod
    def of(cls, data: Any) -> _Held:
        held = cls(data, type(data).__name__)
        if _is_pandas(data):
            held.reopen = lambda: _from_pandas(data)
        elif _is_lazy_polars(data):
            held.reopen = lambda: _stream_of(data.collect())
        elif hasattr(data, "__arrow_c_stream__"):
            if _can_be_read_again(data):
                held.reopen = lambda: _stream_of(data)
            elif isinstance(data, _core.Stream):
                held.reader, held.schema = data, Schema.from_arrow(data)
            else:
                _refuse_taken(data)
                held.reader = RecordBatchReader.from_stream(data)
        elif hasattr(data, "__arrow_c_array__"):
            batch = RecordBatch.from_arrow(data)
            held.reopen = lambda: Table.from_batches([batch])
        elif isinstance(data, (str, bytes, Mapping)) or not isinstance(data, Iterable):
            raise InvalidData(
                f"a value of type {type(data).__name__} has no rows",
                help="pass a data frame, an Arrow table or reader, a DuckDB relation, or a list of dicts; files go to `Mesh.publish`",
            )
        else:
            held.native = data if isinstance(data, Sequence) else list(data)
            held.kind = "rows"
        return held


_READ_AGAIN: weakref.WeakSet[_Held] = weakref.WeakSet()
"""What was read from a mesh, and can be read again."""


def _before_fork() -> None:
    """Closes what is open of meshes, so that parent and child both can go on with them."""
    for held in list(_READ_AGAIN):
        if held.reader is not None and held.reopen is not None:
            # Nobody has read any of it: whoever wants it asks again.
            stream, held.reader, held.origin = held.reader, None, None
            if isinstance(stream, _core.Stream):
                stream.close()
    _core.before_fork()


os.register_at_fork(before=_before_fork)


class Data:
    """Rows, and where they come from.

    Wraps, without a copy, a pandas or Polars data frame (lazy ones too), a DuckDB relation, a PyArrow table or reader, and
    whatever else has `__arrow_c_stream__`; rows as dicts become Arrow. It is given on without a copy too: it has
    `__arrow_c_stream__` itself, so `polars.DataFrame(data)` and `pyarrow.table(data)` work, and so do `to_pandas`,
    `to_polars`, `to_arrow`, `to_duckdb` and `to_pylist`. A library is imported only when its method is called.

    What needs rows in Python (`len`, `to_…`) keeps those of a stream in memory, once. Giving the stream on keeps nothing:
    a stream that was somebody's reader can then not be read again (`DataConsumed`); what was read from the mesh is read
    again, as of the same publication. While the rows of a mesh are read here, other threads go on and Ctrl-C is heard; a
    library that is given the stream itself decides that for its own reading (PyArrow lets other threads go on, and hears
    Ctrl-C when it is done).

    >>> data = Data([{"id": 1, "name": "Ada"}, {"id": 2, "name": None}], source="s3://landing/people.json")
    >>> data
    Data(2 rows; id: Int64, name: Utf8; from s3://landing/people.json)
    >>> data.columns, len(data)
    (['id', 'name'], 2)
    >>> data.to_pylist()[0]
    {'id': 1, 'name': 'Ada'}
    """

    def __init__(self, data: DataLike, *, source: Source | str | None = None) -> None:
        """Wraps `data`; `source` says where it comes from, where that is known.

        Raises:
            InvalidData: It is nothing that has rows.
        """
        self._held: _Held = data._held if isinstance(data, Data) else _Held.of(data)
        self._source: Source | Callable[[], Source]
        if source is not None:
            self._source = Source.of(source)
        elif isinstance(data, Data):
            self._source = data._source
        else:
            module = type(data).__module__.partition(".")[0]
            self._source = Source("memory", "rows" if self._held.kind == "rows" else f"{module}.{self._held.kind}")

    @classmethod
    def _of_mesh(cls, first: ArrowStream, again: Callable[[], ArrowStream], source: Source | Callable[[], Source]) -> Data:
        """The answer of a mesh: the stream that was opened, and how to open it again."""
        data = cls(first)
        data._source = source
        data._held.reopen = again
        data._held.native, data._held.origin = None, first
        _READ_AGAIN.add(data._held)
        return data

    @property
    def source(self) -> Source:
        """Where it comes from; for a query's answer with the tables that it reads as `parts`."""
        if not isinstance(self._source, Source):
            self._source = self._source()
        return self._source

    @property
    def native(self) -> Any:
        """What was wrapped, untouched; None for what was read from a mesh."""
        return self._held.native

    @property
    def schema(self) -> Schema:
        """The Arrow schema, which reads no rows."""
        if self._held.schema is None:
            if self._held.kept is not None:
                self._held.schema = self._held.kept.schema
            elif isinstance(self._held.reader, RecordBatchReader):
                self._held.schema = self._held.reader.schema
            elif self._held.kind == "rows":
                self._held.schema = self._rows().schema
            else:
                self._held.schema = self._described()
        return self._held.schema

    @property
    def columns(self) -> list[str]:
        """The columns' names."""
        if self._held.schema is None and _is_pandas(self._held.native):
            # Asking for the schema of objects means converting them.
            index = [name for name in self._held.native.index.names if name is not None]
            return [str(name) for name in [*self._held.native.columns, *index]]
        return [str(name) for name in self.schema.names]

    @property
    def is_stream(self) -> bool:
        """Whether its rows can be read once only."""
        return self._held.reader is not None and self._held.reopen is None

    def with_source(self, source: Source | str) -> Data:
        """The same data, said to come from somewhere else.

        >>> Data([{"id": 1}]).with_source("sales/orders").source.name
        'sales/orders'
        """
        return Data(self, source=source)

    def collect(self) -> Self:
        """Keeps all rows in memory, so that a stream can be used as often as one likes.

        Raises:
            DataConsumed: The stream was given away before.
        """
        self._table()
        return self

    # What gives rows on.

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.stream("somebody's `__arrow_c_stream__`").__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        return self.schema.__arrow_c_schema__()

    def stream(self, reader: str = "somebody") -> ArrowStream:
        """The rows as a stream to be read once, by `reader`, without a copy.

        Raises:
            DataConsumed: It is a stream that was given away before.
        """
        if self._held.closed:
            raise DataConsumed("this data was closed", help="read it again, or keep its rows with `collect` first")
        if self._held.kept is not None:
            return self._held.kept
        if self._held.kind == "rows":
            return self._rows()
        if self._held.reader is not None:
            _refuse_taken(self._held.native)
            found, self._held.reader = self._held.reader, None
            _take(self._held.native, reader)
            if isinstance(found, RecordBatchReader):
                self._held.schema = found.schema
            self._held.taken_by = reader
            return found
        if self._held.reopen is not None:
            return self._held.reopen()
        raise _consumed(self._held.kind, self._held.taken_by)

    def to_arrow(self) -> pyarrow.Table:
        """A `pyarrow.Table`; needs PyArrow."""
        pa = _library("pyarrow", "to_arrow")
        native: Any = self._held.native
        if isinstance(native, pa.Table):
            return native
        table: pyarrow.Table = pa.table(self._table())
        return table

    def to_pandas(self, **options: Any) -> pandas.DataFrame:
        """A pandas data frame, the very one that was wrapped, if it was; needs pandas and PyArrow.

        `options` are those of `pyarrow.Table.to_pandas`.
        """
        native: pandas.DataFrame = self._held.native
        if _is_pandas(native) and not options:
            return native
        _library("pandas", "to_pandas")
        frame: pandas.DataFrame = self.to_arrow().to_pandas(**options)
        return frame

    def to_polars(self) -> polars.DataFrame:
        """A Polars data frame, the very one that was wrapped, if it was; needs Polars."""
        pl = _library("polars", "to_polars")
        native: Any = self._held.native
        if isinstance(native, pl.DataFrame):
            return cast("polars.DataFrame", native)
        frame: polars.DataFrame = pl.DataFrame(self._table())
        return frame

    def to_duckdb(self, connection: duckdb.DuckDBPyConnection | None = None) -> duckdb.DuckDBPyRelation:
        """A DuckDB relation on `connection`, or on DuckDB's default one; needs DuckDB."""
        module = _library("duckdb", "to_duckdb")
        native: Any = self._held.native
        if isinstance(native, module.DuckDBPyRelation) and connection is None:
            return cast("duckdb.DuckDBPyRelation", native)
        relation: duckdb.DuckDBPyRelation = (connection or module).from_arrow(self._table())
        return relation

    def to_pylist(self) -> list[dict[str, Any]]:
        """The rows as dicts."""
        if self._held.kind == "rows":
            return [dict(row) for row in self._held.native]
        return list(self)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        names = self._distinct()
        for batch in self._table().to_batches():
            columns = [[value.as_py() for value in _values(column)] for column in batch.columns]
            for values in zip(*columns):
                yield dict(zip(names, values))

    def __len__(self) -> int:
        if self._held.kept is None and (self._held.kind == "rows" or _can_be_read_again(self._held.native)):
            return len(self._held.native)
        return int(self._table().num_rows)

    def __bool__(self) -> bool:
        # Whether there are rows is found out by `len`; a stream is not read for it.
        return True

    def head(self, rows: int = _PREVIEW) -> list[dict[str, Any]]:
        """The first rows as dicts."""
        return list(_first(iter(self), rows))

    # Life.

    def close(self) -> None:
        """Lets go of the rows and the stream; closing again does nothing."""
        self._held.closed = True
        self._held.kept = self._held.reader = self._held.reopen = self._held.native = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._held.native is None or not (self._held.kind == "rows" or _can_be_read_again(self._held.native) or _is_lazy_polars(self._held.native)):
            raise TypeError(
                f"data that is a stream ({self.source}) cannot be pickled or copied; "
                "pass on what `to_arrow`, `to_pandas` or `to_polars` gives"
            )
        return (_unpickled, (self._held.native, self.source))

    def __repr__(self) -> str:
        if self._held.closed:
            return f"Data(closed)"
        known = self._held.kept is not None or self._held.kind == "rows" or _has_length(self._held.native)
        size = f"{len(self):,} rows" if known else "stream"
        fields = [f"{name}: {_type_name(kind)}" for name, kind in zip(self.schema.names, self.schema.types)]
        shown = ", ".join(fields[:8]) + (f", … {len(fields) - 8} more" if len(fields) > 8 else "")
        return f"Data({size}; {shown}{self._origin()})"

    def _repr_html_(self) -> str:
        if self._held.closed or not (self._held.kept is not None or self._held.kind == "rows" or _has_length(self._held.native)):
            return f"<pre>{html.escape(repr(self))}</pre>"
        head = "".join(
            f"<th>{html.escape(name)}<br><small>{html.escape(_type_name(kind))}</small></th>"
            for name, kind in zip(self.columns, self.schema.types)
        )
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(_cell(value))}</td>" for value in row.values()) + "</tr>" for row in self.head()
        )
        note = f"{len(self):,} rows{html.escape(self._origin())}"
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table><small>{note}</small>"

    # How it is done.

    def _origin(self) -> str:
        # What a query reads is found out when it is asked for.
        return f"; from {self._source}" if isinstance(self._source, Source) else "; from a query"

    def _rows(self, json_columns: Collection[str] = ()) -> Table:
        if json_columns:
            return table_of(self._held.native, json_columns)
        if self._held.kept is None:
            self._held.kept = table_of(self._held.native)
        return self._held.kept

    def _for_contract(self, json_columns: Collection[str], reader: str) -> ArrowStream:
        """The stream for a table of which some columns hold JSON; dicts and lists of rows become text for those."""
        if self._held.kind == "rows" and json_columns and not self._held.closed:
            return self._rows(json_columns)
        return self.stream(reader)

    def _table(self) -> Table:
        if self._held.kept is not None:
            return self._held.kept
        found = self.stream("a conversion")
        table = found if isinstance(found, Table) else _read(found, self._held.origin)
        self._held.schema = table.schema
        if not _can_be_read_again(self._held.native):
            self._held.kept = table
        return table

    def _distinct(self) -> list[str]:
        """The columns' names, by which a row's values are told apart."""
        names = self.columns
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InvalidData(f"two columns are named `{twice}`", help="give each column a name of its own")
        return names

    def _described(self) -> Schema:
        if hasattr(self._held.native, "__arrow_c_schema__"):
            return Schema.from_arrow(self._held.native)
        return RecordBatchReader.from_stream(self.stream("its schema")).schema


def _first(rows: Iterator[dict[str, Any]], count: int) -> Iterator[dict[str, Any]]:
    """At most `count` of the rows."""
    for _, row in zip(range(count), rows):
        yield row


def named(data: Data, source: Source) -> Source:
    """The source with the columns that `data` has."""
    return replace(source, columns=tuple(data.columns))


def _is_pandas(data: object) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(data, getattr(pandas, "DataFrame", ()))


def _is_lazy_polars(data: object) -> bool:
    polars = sys.modules.get("polars")
    return polars is not None and isinstance(data, getattr(polars, "LazyFrame", ()))


def _can_be_read_again(data: object) -> bool:
    """Whether it holds its rows, or finds them anew, each time it is asked: readers have no length."""
    return not isinstance(data, (list, tuple)) and hasattr(type(data), "__len__")


def _has_length(data: object) -> bool:
    """Whether its length is known without reading: a relation's is not."""
    return _can_be_read_again(data) and type(data).__name__ != "DuckDBPyRelation"


def _read(stream: ArrowStream, origin: Any) -> Table:
    """All rows, batch by batch."""
    if isinstance(stream, _core.Stream):
        return _read_of_mesh(stream)
    reader = stream if isinstance(stream, RecordBatchReader) else RecordBatchReader.from_stream(stream)
    schema, batches = reader.schema, []
    try:
        batches = list(_values(reader))
    except Exception:
        # Consumers of Arrow streams know the text of an error only.
        for known in (stream, origin):
            if hasattr(known, "raise_error"):
                known.raise_error()
        raise
    return Table.from_batches(batches, schema=schema)


def _read_of_mesh(stream: _core.Stream) -> Table:
    """All rows, with the interpreter released while they come; Ctrl-C and the task's end are heard."""
    schema, batches = Schema.from_arrow(stream), []
    try:
        while (batch := stream.next_batch(stop=STOP.get())) is not None:
            batches.append(RecordBatch.from_arrow(batch))
    finally:
        stream.close()
    return Table.from_batches(batches, schema=schema)


def _values(column: Any) -> Iterator[Any]:
    return iter(column)


def _stream_of(data: Any) -> ArrowStream:
    found: ArrowStream = data
    return found


def _from_pandas(frame: Any) -> ArrowStream:
    pa = _library("pyarrow", "a pandas data frame")
    # An index without a name is a numbering of rows, no column.
    unnamed = all(name is None for name in frame.index.names)
    labels = [label for label in frame.columns if not isinstance(label, str)]
    if labels:
        raise InvalidData(f"the data frame has the column {labels[0]!r}, whose name is no string", help="rename it: df.rename(columns=str)")
    try:
        table: ArrowStream = pa.Table.from_pandas(frame, preserve_index=not unnamed)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, UnicodeEncodeError) as error:
        raise InvalidData(
            f"the data frame cannot be made into Arrow: {' '.join(str(part) for part in error.args)}",
            help="give the column one type, with `astype`",
        ) from error
    return table


def _library(name: str, what: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise InvalidArgument(f"{what} needs `{name}`, which is not installed", help=f"pip install {name}") from error


def _unpickled(native: Any, source: Source) -> Data:
    return Data(native, source=source)


def _type_name(kind: object) -> str:
    text = str(kind).strip()
    inner = text[text.find("<") + 1 : -1] if "<" in text else text
    return inner


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"
