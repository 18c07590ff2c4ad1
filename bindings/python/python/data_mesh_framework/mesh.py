"""A mesh, with the words of the command line."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Union, overload

from arro3.core import Schema, Table

from ._async import in_thread
from ._progress import Wanted, progress
from ._render import count, html_table, text_table
from .backend import Backend, connect
from .contract import Contract, the_table
from .data import ArrowStream, Data, DataLike, Source
from .errors import InvalidArgument, NotFound, PlanRefused, Rejected

if TYPE_CHECKING:
    from typing_extensions import Self, TypeAlias

    from .product import DataProduct

    Files: TypeAlias = Union[str, os.PathLike[str]]
    Given: TypeAlias = Union[DataLike, Files, Sequence[Files]]

__all__ = ["Access", "Mesh", "Publication"]

_REJECTED = 3


class Publication:
    """What became of a publication: `published`, `repeat` where its content was published before, or `would-publish` of a dry run.

    Attributes:
        document: The report, as `datamesh publish --format json` prints it.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = dict(document)

    @property
    def product(self) -> str:
        """`domain/product`."""
        return str(self.document["product"])

    @property
    def version(self) -> str:
        """The contract's version."""
        return str(self.document["version"])

    @property
    def status(self) -> str:
        """What became of it."""
        return str(self.document["status"])

    @property
    def number(self) -> int | None:
        """The publication's number; of a repeat that of the publication which it repeats, of a dry run None."""
        number = self.document.get("publication")
        return None if number is None else int(number)

    @property
    def tables(self) -> list[dict[str, Any]]:
        """What became of each table."""
        return list(self.document["tables"])

    @property
    def rows(self) -> int:
        """Rows that were read: `published` and `quarantined` together."""
        return sum(int(table["in"]) for table in self.tables)

    @property
    def published(self) -> int:
        """Rows that were published."""
        return sum(int(table["published"]) for table in self.tables)

    @property
    def quarantined(self) -> int:
        """Rows that were held back, with every rule they broke."""
        return sum(int(table["quarantined"]) for table in self.tables)

    @property
    def reasons(self) -> dict[str, int]:
        """Rows that each rule held back."""
        return {f"{table['table']}.{rule}": int(found["rows"]) for table in self.tables for rule, found in table["reasons"].items()}

    def _rows(self) -> list[list[str]]:
        return [
            [
                str(table["table"]),
                f"{table['in']:,}",
                f"{table['published']:,}",
                f"{table['quarantined']:,}",
                ", ".join(f"{found['rows']:,} × {rule}" for rule, found in table["reasons"].items()),
            ]
            for table in self.tables
        ]

    def _head(self) -> str:
        number = f" as publication {self.number}" if self.number is not None else ""
        return f"{self.product} {self.version} {self.status}{number}"

    def __repr__(self) -> str:
        return f"Publication({self._head()}: {count(self.published, 'row')} published, {self.quarantined:,} quarantined)"

    def __str__(self) -> str:
        return f"{self._head()}\n{text_table(_TABLES, self._rows(), right=(1, 2, 3))}"

    def _repr_html_(self) -> str:
        return html_table(_TABLES, self._rows(), caption=self._head())


_TABLES = ("table", "in", "published", "quarantined", "held back by")


class Mesh:
    """A mesh: the folder around the working directory, `DATAMESH_HOME`, or the one that is named.

    Its methods are the commands of `datamesh`, with the same words and answers; `command` runs those that have no method. Every
    method with a leading `a` (`await mesh.aquery(…)`) does the same in a thread, for asyncio. A mesh can be shared by threads.
    A fork closes what is open, and parent and child open it anew; it has to come while no other thread is in a call and no stream
    that was given away is being read, else the child can use no mesh (start it with `spawn` or `forkserver` then; systems without
    `/proc` always have to). It closes as a context manager.

    >>> mesh = Mesh()
    >>> mesh
    Mesh('flights')
    >>> mesh.query("SELECT carrier, name FROM fleet.registry.airlines ORDER BY carrier LIMIT 2").to_pylist()
    [{'carrier': '9E', 'name': 'Endeavor Air Inc.'}, {'carrier': 'AA', 'name': 'American Airlines Inc.'}]
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        act_as: str | None = None,
        purpose: str | None = None,
        memory_mib: int = 512,
    ) -> None:
        """Finds the mesh; nothing of it is opened before the first use.

        Args:
            path: Its folder, or one below it.
            act_as: Act as somebody else (`user:amira`), which only who administers the mesh may.
            purpose: What this is done for; policies may ask for it, and it is recorded.
            memory_mib: What sorts and aggregations may hold in memory before they spill to disk.

        Raises:
            NotFound: There is no mesh.
        """
        self._options: dict[str, Any] = {"act_as": act_as, "purpose": purpose, "memory_mib": memory_mib}
        self._open: Backend | None = connect(path, **self._options)
        self._root = self._open.root

    @property
    def root(self) -> Path:
        """Its folder."""
        return Path(self._root)

    @property
    def access(self) -> Access:
        """Asking for access, and giving it."""
        return Access(self)

    # Reading.

    def query(self, sql: str, *, as_of: str | int | None = None) -> Data:
        """The answer to a SQL query over tables named `domain.product.table`.

        It is a stream while nobody keeps it: `.to_arrow()`, `.to_pandas()`, `.to_polars()`, `.to_duckdb()` or `.to_pylist()` do.
        Giving the stream away and using it again asks again.

        Args:
            sql: The query.
            as_of: Read every table as it was after a publication (its number) or at a time.

        Raises:
            InvalidQuery: The query cannot be planned.
            AccessDenied: A table may not be read.
        """
        backend, when = self._backend, None if as_of is None else str(as_of)

        def source() -> Source:
            graph = json.loads(self._run("lineage", *_options(sql=sql, up=True, depth=1, format="json")))
            read = {
                (edge["input"]["namespace"], edge["input"]["name"]): None
                for edge in graph["up"]["edges"]
                if edge["output"]["namespace"] == "query"
            }
            return Source("query", " ".join(sql.split()), parts=tuple(Source(namespace, name) for namespace, name in read))

        return Data._of_mesh(backend.query(sql, as_of=when), lambda: backend.query(sql, as_of=when), source)

    def read(
        self,
        product: str,
        table: str | None = None,
        *,
        columns: Sequence[str] | None = None,
        as_of: str | int | None = None,
    ) -> Data:
        """A product's published table, as the caller may see it: see `query`. Used again, it is read as of the same publication.

        Args:
            product: `domain/product`, or `domain/product@1` for its major version 1.
            table: The table, where there are several.
            columns: Only these, in this order.
            as_of: As it was after a publication or at a time.

        Raises:
            NotFound: There is no such product, table or column, or nothing is published.
            AccessDenied: It may not be read.
        """
        backend = self._backend
        wanted = None if columns is None else list(columns)
        contract = self.contract(product)
        name = the_table(contract.schema, table)
        known = [column.name for column in contract.schema[name]]
        unknown = next((column for column in wanted or () if column not in known), None)
        if unknown is not None:
            raise NotFound(f"`{product}.{name}` has no column `{unknown}`", help=f"columns there: {', '.join(known)}")

        def opened(when: str | None) -> ArrowStream:
            return backend.read(product, name, columns=wanted, as_of=when)

        if as_of is not None:
            when: str | None = str(as_of)
            first = opened(when)
        else:
            when, first = contract.serving, opened(None)
            # Somebody may have published in between.
            while (now := self.contract(product).serving) != when:
                when, first = now, opened(None)
        publication = int(when) if when is not None and when.isdigit() else None
        source = Source("datamesh", contract.schema[name].sql_name or f"{contract.product}.{name}", publication)
        return Data._of_mesh(first, lambda: opened(when), source)

    def quarantine(self, product: str, table: str | None = None) -> Data:
        """The rows that the newest attempt to publish held back, with every rule they broke in `reasons`, where they came from
        (`file`, `position`) and what was there (`raw`); a column of the product that has such a name keeps it, and ours has a `_` before.

        Protected columns show `***`.
        """
        backend = self._backend
        nothing = Table.from_arrays([], schema=Schema([]))

        def opened() -> ArrowStream:
            return backend.quarantine(product, table) or nothing

        return Data._of_mesh(opened(), opened, Source("datamesh", f"{product}{f'.{table}' if table else ''}"))

    def contract(self, product: str) -> Contract:
        """What a product promises, as it is registered, or as its manifest says where it is not applied yet.

        Raises:
            NotFound: There is no such product.
        """
        return Contract.parse(self._backend.contract(product))

    def product(self, product: str) -> DataProduct:
        """A product by its name, `domain/product`, in the version that is registered.

        Raises:
            NotFound: There is no such product.
        """
        from .product import DataProduct

        contract = self.contract(product)
        domain, _, name = contract.product.partition("/")
        return DataProduct(domain, name, contract.version, mesh=self)

    @overload
    def show(self, product: None = None) -> list[dict[str, Any]]: ...
    @overload
    def show(self, product: str) -> dict[str, Any]: ...
    def show(self, product: str | None = None) -> dict[str, Any] | list[dict[str, Any]]:
        """A product's contract, tables and last publication, or those of every product."""
        return self._json("show", positional=[product])  # type: ignore[no-any-return]

    def publications(self, product: str) -> list[dict[str, Any]]:
        """A product's publications and rejected attempts, newest first."""
        return self._json("publications", positional=[product])  # type: ignore[no-any-return]

    def lineage(
        self,
        subject: str | None = None,
        *,
        sql: str | None = None,
        up: bool = False,
        down: bool = False,
        depth: int | None = None,
        direct: bool = False,
        publication: int | None = None,
        format: Literal["json", "tree", "mermaid"] = "json",
    ) -> Any:
        """Where columns come from and what is made of them, of a product, table or column, or of a query's result.

        Args:
            subject: `domain/product`, `domain/product.table` or `domain/product.table.column`.
            sql: A query, in place of a subject.
            up: Only what it comes from.
            down: Only what is made of it.
            depth: At most so many steps.
            direct: Only what values are made of, not what decides about them.
            publication: As it was with this publication of the product.
            format: A dict with OpenLineage's facet (`json`), text for people, or a Mermaid flow chart.
        """
        words = _options(format=format, sql=sql, up=up, down=down, depth=depth, direct=direct, publication=publication)
        text = self._run("lineage", *words, *_positional(subject))
        return json.loads(text) if format == "json" else text

    # Changing.

    def publish(
        self,
        product: str,
        data: Given | Mapping[str, Given] | None = None,
        *,
        table: str | None = None,
        again: bool = False,
        full: bool = False,
        dry_run: bool = False,
        idempotency_key: str | None = None,
        progress: Wanted = None,
    ) -> Publication:
        """Audits every row and publishes the good ones atomically: all tables of the product or none.

        Args:
            product: `domain/product`.
            data: Rows of any kind (see `Data`), files (a path, URL or glob, or several), or a dict of tables to such.
                Without any, what the manifest names as sources.
            table: The table that `data` is for, where the product has several.
            again: Publish even if the same content was published before.
            full: Read everything, whatever a source's watermark says.
            dry_run: Audit and report, but commit nothing.
            idempotency_key: The publication's name; another one of the same name is a repeat.
            progress: Show progress (None: on a terminal or in a notebook), or whom to tell of it.

        Raises:
            Rejected: The audit rejected it; its `report` says why, and what was published before still serves.
            NotApplied: The manifest differs from what was applied.
            Interrupted: Ctrl-C; nothing was published, unless it says that it was done before it could be stopped.

        What stops it, Ctrl-C or an exception of `progress`, may come when it is done. The exception then says so in a note, and has
        the `Publication` as its `published`.
        """
        tables = _tables(data, table, lambda: self.contract(product).schema)
        files = {name for name, given in tables.items() if _are_files(given)}
        if files and len(files) < len(tables):
            raise InvalidArgument("some tables are given as files and some as rows", help="publish files, or rows, but not both at once")
        if files:
            words = _options(again=again, full=full, dry_run=dry_run, idempotency_key=idempotency_key, format="json")
            inputs = [f"{name}={os.fspath(path)}" for name, given in tables.items() for path in _paths(given)]
            with _made_known():
                return self._published(self._command(["publish", *words, *_positional(product, *inputs)], progress)[1])
        streams: dict[str, ArrowStream] = {}
        if tables:
            rules = self.contract(product).quality_rules
            for name, given in tables.items():
                wrapped = given if isinstance(given, Data) else Data(given)
                streams[name] = wrapped._for_contract(rules.json_columns(the_table(rules.tables, name)), "publish")
        options = {"again": again, "full": full, "dry_run": dry_run, "idempotency_key": idempotency_key}
        with _progress(progress) as told, _made_known():
            return self._published(self._backend.publish(product, streams, options, told))

    def run(
        self,
        product: str | None = None,
        *,
        all: bool = False,
        upstream: bool = False,
        again: bool = False,
        full_refresh: bool = False,
        dry_run: bool = False,
        idempotency_key: str | None = None,
        progress: Wanted = None,
    ) -> list[Publication]:
        """Runs a product's transforms over its inputs and publishes what they make; one publication for each product that ran.

        Args:
            product: `domain/product`.
            all: Every product of the mesh, in place of one.
            upstream: Everything that it rests on first.
            again: Run even if the same inputs were read before.
            full_refresh: Read the whole of every input.
            dry_run: Run, audit and report, but commit nothing.
            idempotency_key: The publication's name; another one of the same name is a repeat.
            progress: As of `publish`.

        Raises:
            Rejected: The audit rejected what was made.
        """
        words = _options(all=all, upstream=upstream, again=again, full_refresh=full_refresh, format="json")
        words += _options(dry_run=dry_run, idempotency_key=idempotency_key)
        code, text = self._command(["run", *words, *_positional(product)], progress)
        document = json.loads(text)
        parts = document["products"] if "products" in document else [{"report": document}]
        if code:
            failed = [part for part in parts if part.get("error") or (part.get("report") or {}).get("status") == "rejected"]
            said = [str(part.get("product") or part["report"]["product"]) for part in failed]
            raise Rejected(f"{', '.join(said) or product} did not run to its end", exit_code=code, report=document)
        return [Publication(part["report"]) for part in parts if part.get("report")]

    def plan(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        out: str | os.PathLike[str] | None = None,
        allow_retire: bool = False,
        acknowledge: bool = False,
    ) -> dict[str, Any]:
        """What the manifests would change of the registry, who feels it, and the version that each change needs.

        Args:
            path: A folder: the mesh, a domain, or a product.
            out: A file for the plan, which `apply` takes.
            allow_retire: Let products be retired that others read.
            acknowledge: Take changes whose effect the text does not tell as breaking nothing.

        Raises:
            PlanRefused: Rules stand against it; `diagnostics` and `plan` say which.
        """
        words = _options(out=None if out is None else os.fspath(out), allow_retire=allow_retire, acknowledge=acknowledge)
        return self._planned(["plan", *words, "--format=json", *_positional(None if path is None else self._path(path))])

    def apply(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        allow_retire: bool = False,
        acknowledge: bool = False,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Makes the registry what the manifests say, or what a plan file says: all of it or nothing.

        Raises:
            PlanRefused: Rules stand against it.
            Conflict: A plan file is out of date.
        """
        words = _options(allow_retire=allow_retire, acknowledge=acknowledge, dry_run=dry_run)
        return self._planned(["apply", *words, "--format=json", *_positional(None if path is None else self._path(path))])

    def command(self, *words: str, progress: Wanted = None) -> str:
        """Runs any command of the `datamesh` command line in this process and gives what it prints.

        Raises:
            DataMeshError: It failed; an exit code that is an answer (3 rejected, 2 changes) is none.

        >>> print(Mesh().command("domains").splitlines()[1].split()[0])
        customer
        """
        return self._command(list(words), progress)[1]

    # For asyncio.

    async def aquery(self, sql: str, *, as_of: str | int | None = None) -> Data:
        """`query`, in a thread; the rows are read when they are used."""
        return await in_thread(lambda: self.query(sql, as_of=as_of))

    async def aread(self, product: str, table: str | None = None, **options: Any) -> Data:
        """`read`, in a thread; the rows are read when they are used."""
        return await in_thread(lambda: self.read(product, table, **options))

    async def apublish(self, product: str, data: Any = None, *, progress: Wanted = False, **options: Any) -> Publication:
        """`publish`, in a thread. Cancelling stops it, with nothing published, unless it was committed already."""
        return await in_thread(lambda: self.publish(product, data, progress=progress, **options))

    async def arun(self, product: str | None = None, *, progress: Wanted = False, **options: Any) -> list[Publication]:
        """`run`, in a thread. Cancelling stops it."""
        return await in_thread(lambda: self.run(product, progress=progress, **options))

    async def ashow(self, product: str | None = None) -> Any:
        """`show`, in a thread."""
        return await in_thread(lambda: self._json("show", positional=[product]))

    async def alineage(self, subject: str | None = None, **options: Any) -> Any:
        """`lineage`, in a thread."""
        return await in_thread(lambda: self.lineage(subject, **options))

    async def aplan(self, path: str | os.PathLike[str] | None = None, **options: Any) -> dict[str, Any]:
        """`plan`, in a thread."""
        return await in_thread(lambda: self.plan(path, **options))

    async def aapply(self, path: str | os.PathLike[str] | None = None, **options: Any) -> dict[str, Any]:
        """`apply`, in a thread."""
        return await in_thread(lambda: self.apply(path, **options))

    # Life.

    def close(self) -> None:
        """Lets go of the mesh; closing again does nothing."""
        self._open = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self._root, "options": self._options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["root"], **state["options"])  # type: ignore[misc]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mesh) and (self._root, self._options) == (other._root, other._options)

    def __hash__(self) -> int:
        return hash((self._root, *self._options.values()))

    def __repr__(self) -> str:
        who = f", act_as={self._options['act_as']!r}" if self._options["act_as"] else ""
        return f"Mesh({Path(self._root).name!r}{who})"

    # How it is done.

    @property
    def _backend(self) -> Backend:
        if self._open is None:
            raise InvalidArgument("this mesh was closed", help="open it again with Mesh(…)")
        return self._open

    def _path(self, path: str | os.PathLike[str]) -> str:
        """A path as it is meant where the caller is."""
        return str(Path(path).absolute())

    def _command(self, words: list[str], wanted: Wanted = False) -> tuple[int, str]:
        with _progress(wanted) as told:
            return self._backend.command(words, told)

    def _run(self, *words: str) -> str:
        return self._command(list(words))[1]

    def _json(self, *words: str, positional: Sequence[str | None] = ()) -> Any:
        return json.loads(self._run(*words, "--format=json", *_positional(*positional)))

    def _planned(self, words: list[str]) -> dict[str, Any]:
        code, text = self._command(words)
        document: dict[str, Any] = json.loads(text)
        if document.get("refusals"):
            said = [str(refusal.get("message", refusal)) for refusal in document["refusals"]]
            raise PlanRefused(f"the plan is refused: {'; '.join(said)}", exit_code=code or None, diagnostics=document["refusals"])
        return document

    def _published(self, text: str) -> Publication:
        document = json.loads(text)
        if document["status"] == "rejected":
            why = "; ".join(document.get("because") or []) or "see `report`"
            raise Rejected(f"{document['product']} {document['version']} was rejected: {why}", report=document)
        return Publication(document)


class Access:
    """Asking for access to data products, and giving it: an approved request works with the next query, a revoked one ends with it."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    def request(
        self,
        resource: str,
        *,
        role: str,
        reason: str,
        duration: str | None = None,
        principal: str | None = None,
    ) -> dict[str, Any]:
        """Asks for a product's tables (`domain/product`, `domain/product.table`) in a role that its contract offers.

        Args:
            resource: What is asked for.
            role: One of the roles that `show` lists.
            reason: Why.
            duration: For how long (`30d`, `12h`); as long as the contract allows, if not said.
            principal: Whom it is for, where it is not the caller (`service:churn`, `team:marketing`).
        """
        return self._json("request", resource, role=role, reason=reason, principal=principal, **{"for": duration})

    def approve(self, request: int, *, note: str | None = None) -> dict[str, Any]:
        """Approves a request; the last approval that is needed grants it at once."""
        return self._json("approve", str(request), note=note)

    def deny(self, request: int, *, reason: str) -> dict[str, Any]:
        """Denies a request."""
        return self._json("deny", str(request), reason=reason)

    def withdraw(self, request: int) -> dict[str, Any]:
        """Takes an own request back."""
        return self._json("withdraw", str(request))

    def revoke(self, grant: int, *, reason: str) -> dict[str, Any]:
        """Ends a grant at once."""
        return self._json("revoke", str(grant), reason=reason)

    def list(self, product: str | None = None, *, principal: str | None = None, state: str | None = None) -> dict[str, Any]:
        """Requests and grants: of a product, a principal, or in a state (`pending`, `approved`, `denied`, `withdrawn`, `expired`)."""
        return self._json("list", product, principal=principal, state=state)

    def show(self, what: str | int) -> dict[str, Any]:
        """What a product offers, or a request with its approvals."""
        return self._json("show", str(what))

    def _json(self, what: str, about: str | None, **options: str | None) -> dict[str, Any]:
        return self._mesh._json("access", what, *_options(**options), positional=[about])  # type: ignore[no-any-return]


def _progress(wanted: Wanted) -> Any:
    return progress(wanted)


def _options(**options: Any) -> list[str]:
    words: list[str] = []
    for name, value in options.items():
        word = "--" + name.replace("_", "-")
        if value is True:
            words.append(word)
        elif value is not None and value is not False:
            # One word, so that a value that begins with a dash is none of its own.
            words.append(f"{word}={value}")
    return words


def _positional(*words: str | None) -> list[str]:
    """Words that are no options, whatever they begin with."""
    given = [word for word in words if word is not None]
    return ["--", *given] if given else []


@contextlib.contextmanager
def _made_known() -> Iterator[None]:
    """Has what stopped a publication that was made all the same tell of it."""
    try:
        yield
    except BaseException as error:
        report = getattr(error, "report", None)
        if isinstance(report, dict) and report.get("status") in ("published", "repeat"):
            error.published = Publication(report)  # type: ignore[attr-defined]
        raise


def _tables(data: Any, table: str | None, known: Callable[[], Any]) -> dict[str, Any]:
    if data is None:
        return {}
    if isinstance(data, Mapping):
        return {str(name): given for name, given in data.items()}
    return {the_table(known(), table): data}


def _are_files(given: Any) -> bool:
    several = isinstance(given, (list, tuple)) and bool(given) and all(isinstance(one, (str, os.PathLike)) for one in given)
    return several or isinstance(given, (str, os.PathLike))


def _paths(given: Any) -> list[Any]:
    return [given] if isinstance(given, (str, os.PathLike)) else list(given)
