"""Tables that others wrote: generated schemas and histories, deletes, evolution. The answers are those of PyIceberg and DuckDB.

PyIceberg writes two tables side by side. The one that datamesh reads gets delete files; in the other, the truth, the same
rows are removed by rewriting, so that no reader's treatment of deletes is trusted.
"""

import json
import os
import random
import re
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.expressions import EqualTo, In, IsNull
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import BucketTransform, DayTransform, IdentityTransform, MonthTransform, TruncateTransform, VoidTransform
from pyiceberg.typedef import Record
from pyiceberg.types import (
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
)

from iceberg_tables import add_data_file, add_deletes, catalog, equality_delete, position_deletes
from mesh import Mesh
from readers import as_pyiceberg_reads, assert_same, duckdb_rows, duckdb_scan

UTC = timezone.utc
SCHEMA = Schema(
    NestedField(1, "id", LongType(), required=False),
    NestedField(2, "small", IntegerType(), required=False),
    NestedField(3, "ratio", FloatType(), required=False),
    NestedField(4, "price", DecimalType(9, 2), required=False),
    NestedField(5, "name", StringType(), required=False),
    NestedField(6, "day", DateType(), required=False),
    NestedField(7, "at", TimestamptzType(), required=False),
    NestedField(8, "local", TimestampType(), required=False),
    # Numbered as a catalog numbers them: all columns before what is in them.
    NestedField(
        9,
        "place",
        StructType(
            NestedField(12, "city", StringType(), required=False),
            NestedField(13, "code", IntegerType(), required=False),
        ),
        required=False,
    ),
    NestedField(10, "marks", ListType(14, StructType(NestedField(15, "mark", IntegerType(), required=False)), False), required=False),
    NestedField(
        11,
        "by_name",
        MapType(16, StringType(), 17, StructType(NestedField(18, "points", IntegerType(), required=False)), False),
        required=False,
    ),
)
PARTITIONS = [
    ("bucket", lambda update: update.add_field("id", BucketTransform(4), "id_bucket")),
    ("truncate", lambda update: update.add_field("name", TruncateTransform(1), "name_start")),
    ("day", lambda update: update.add_field("at", DayTransform(), "at_day")),
    ("month", lambda update: update.add_field("local", MonthTransform(), "local_month")),
    ("identity", lambda update: update.add_field("day", IdentityTransform(), "day_is")),
]


class History:
    """Two tables with the same rows: `table` with delete files, `truth` without."""

    def __init__(self, folder: Path, seed: int):
        self.random = random.Random(seed)
        tables = catalog(folder)
        # Some begin as tables of format version 1, which has no delete files.
        properties = {"format-version": "1" if seed % 3 == 0 else "2"}
        self.table = tables.create_table("db.table", SCHEMA, properties=properties)
        self.truth = tables.create_table("db.truth", SCHEMA, properties=properties)
        self.next = 0
        self.moves = 0
        self.answers: dict[int, pa.Table] = {}
        self.log: list[str] = []

    def both(self):
        return (self.table, self.truth)

    def value(self, kind, name):
        pick = self.random
        if pick.random() < 0.15 and name != "id":
            return None
        if isinstance(kind, LongType):
            return pick.choice([0, -1, 2**40, pick.randrange(-(10**6), 10**6)])
        if isinstance(kind, IntegerType):
            return pick.randrange(-(2**31), 2**31) if pick.random() < 0.3 else pick.randrange(50)
        if isinstance(kind, (FloatType, DoubleType)):
            return float(pick.randrange(-100, 100)) / 4
        if isinstance(kind, DecimalType):
            return Decimal(pick.randrange(-(10**6), 10**6)).scaleb(-kind.scale)
        if isinstance(kind, StringType):
            return pick.choice(["", "a", "b", "Zürich", "%2F/ =?#", "long " * 8, "日本", f"x{pick.randrange(30)}"])
        if isinstance(kind, DateType):
            return date(1969, 12, 20) + timedelta(days=pick.randrange(40))
        if isinstance(kind, TimestamptzType):
            return datetime(1969, 12, 25, tzinfo=UTC) + timedelta(seconds=pick.randrange(86400 * 20), microseconds=pick.randrange(10**6))
        if isinstance(kind, TimestampType):
            return datetime(1969, 10, 1) + timedelta(hours=pick.randrange(24 * 200), microseconds=1)
        if isinstance(kind, StructType):
            return {field.name: self.value(field.field_type, field.name) for field in kind.fields}
        if isinstance(kind, ListType):
            return [self.value(kind.element_type, "id") for _ in range(pick.randrange(3))]
        if isinstance(kind, MapType):
            return [(f"k{at}", self.value(kind.value_type, "id")) for at in range(pick.randrange(3))]
        raise AssertionError(kind)

    def rows(self, count: int) -> pa.Table:
        schema = self.table.schema()
        rows = []
        for _ in range(count):
            row = {field.name: self.value(field.field_type, field.name) for field in schema.fields}
            row["id"] = self.next
            # PyIceberg loses nulls of lists and maps that hold structs.
            for field in schema.fields:
                if isinstance(field.field_type, (ListType, MapType)) and row[field.name] is None:
                    row[field.name] = []
            self.next += 1
            rows.append(row)
        return pa.Table.from_pylist(rows, schema=schema.as_arrow())

    def some_ids(self) -> list[int]:
        ids = self.truth.scan(selected_fields=("id",)).to_arrow()["id"].to_pylist()
        return sorted(self.random.sample(ids, min(len(ids), self.random.randrange(1, 6))))

    def add_deletes(self, files):
        if self.table.format_version == 1:
            with self.table.transaction() as transaction:
                transaction.upgrade_table_version(2)
        add_deletes(self.table, files)

    # Moves

    def append(self):
        rows = self.rows(self.random.randrange(1, 30))
        for table in self.both():
            table.append(rows)

    def remove_by_position(self):
        ids = set(self.some_ids())
        self.add_deletes(position_deletes(self.table, lambda row: row["id"] in ids))
        self.truth.delete(In("id", ids))

    def remove_by_key(self):
        ids = self.some_ids()
        keys = pa.table({"id": pa.array(ids, pa.int64())})
        if self.random.random() < 0.5:
            # By two columns, the second of which has nulls.
            own = self.truth.scan(row_filter=In("id", ids)).to_arrow().select(["id", self.column(5)])
            keys = pa.table({"id": own["id"].cast(pa.int64()), self.column(5): own[self.column(5)].cast(pa.string())})
        self.global_delete(keys)
        self.truth.delete(In("id", ids))

    def remove_nulls_by_key(self):
        name = self.column(5)
        self.global_delete(pa.table({name: pa.array([None], pa.string())}))
        self.truth.delete(IsNull(name))

    def global_delete(self, keys: pa.Table):
        """An equality delete of an unpartitioned spec counts for all partitions."""
        unpartitioned = [spec_id for spec_id, spec in self.table.metadata.specs().items() if spec.is_unpartitioned()]
        self.add_deletes([equality_delete(self.table, keys, spec_id=unpartitioned[0])])

    def column(self, id_: int) -> str:
        return self.table.schema().find_column_name(id_)

    def path(self, id_: int) -> tuple[str, ...]:
        def walk(fields, path):
            for field in fields:
                own, kind = (*path, field.name), field.field_type
                if field.field_id == id_:
                    return own
                inner = kind.fields if isinstance(kind, StructType) else []
                inner = [kind.element_field] if isinstance(kind, ListType) else inner
                inner = [kind.key_field, kind.value_field] if isinstance(kind, MapType) else inner
                if found := walk(inner, own):
                    return found
            return None

        return walk(self.table.schema().fields, ())

    def add_column(self):
        self.moves += 1
        kind = self.random.choice([StringType(), LongType(), DateType(), StructType(NestedField(900, "inner", IntegerType(), required=False))])
        for table in self.both():
            with table.update_schema() as update:
                update.add_column(f"added_{self.moves}", kind)

    def rename(self):
        self.moves += 1
        names = [field.name for field in self.table.schema().fields if field.name != "id"]
        name = self.random.choice(names)
        for table in self.both():
            with table.update_schema() as update:
                update.rename_column(name, f"renamed_{self.moves}")

    def swap_names(self):
        """Two columns change names: what finds columns by name is wrong."""
        first, second = self.column(5), self.column(2)
        for table in self.both():
            with table.update_schema() as update:
                update.rename_column(first, "swap")
            with table.update_schema() as update:
                update.rename_column(second, first)
            with table.update_schema() as update:
                update.rename_column("swap", second)

    def move(self):
        names = [field.name for field in self.table.schema().fields]
        name, before = self.random.sample(names, 2)
        for table in self.both():
            with table.update_schema() as update:
                update.move_before(name, before)

    def promote(self):
        for table in self.both():
            with table.update_schema() as update:
                for id_, kind in [(2, LongType()), (3, DoubleType()), (4, DecimalType(20, 2)), (13, LongType()), (15, LongType()), (18, LongType())]:
                    update.update_column(self.path(id_), field_type=kind)

    def nest(self):
        self.moves += 1
        place, marks, by_name = self.path(9), self.path(10), self.path(11)
        city, points = self.path(12), self.path(18)
        for table in self.both():
            with table.update_schema() as update:
                update.add_column((*place, f"zip_{self.moves}"), StringType())
                update.add_column((*marks, "element", f"by_{self.moves}"), StringType())
                update.add_column((*by_name, "value", f"more_{self.moves}"), DateType())
            with table.update_schema() as update:
                update.rename_column(city, f"town_{self.moves}")
                update.rename_column(points, f"number_{self.moves}")

    def drop(self):
        added = [field.name for field in self.table.schema().fields if field.name.startswith("added_")]
        for table in self.both():
            for name in added[:1]:
                with table.update_schema() as update:
                    update.delete_column(name)

    def partition(self):
        names = {5: "name", 6: "day", 7: "at", 8: "local"}
        if any(self.column(id_) != name for id_, name in names.items()):
            return
        _, add = self.random.choice(PARTITIONS)
        try:
            with self.table.update_spec() as update:
                add(update)
        except ValueError:
            return

    def unpartition(self):
        fields = [field for field in self.table.spec().fields if not isinstance(field.transform, VoidTransform)]
        if fields:
            with self.table.update_spec() as update:
                update.remove_field(self.random.choice(fields).name)

    def overwrite(self):
        rows = self.rows(self.random.randrange(1, 10))
        for table in self.both():
            table.overwrite(rows)

    def step(self):
        moves = [self.append] * 5 + [self.remove_by_position] * 3 + [self.remove_by_key] * 3 + [self.remove_nulls_by_key]
        moves += [self.add_column, self.rename, self.swap_names, self.move, self.promote, self.nest, self.drop, self.overwrite]
        moves += [self.partition] * 2 + [self.unpartition]
        move = self.random.choice(moves)
        self.log.append(move.__name__)
        move()
        for table in self.both():
            table.refresh()
        current = self.table.current_snapshot()
        if current is not None:
            # The schema of a snapshot is that of its writing.
            if self.table.schema().schema_id == current.schema_id:
                self.answers[current.snapshot_id] = self.truth.scan().to_arrow()


SEEDS = range(12)


@pytest.fixture(scope="module", params=SEEDS)
def history(request, tmp_path_factory) -> History:
    history = History(tmp_path_factory.mktemp(f"history-{request.param}"), request.param)
    history.append()
    for _ in range(14):
        history.step()
    for move in (history.append, history.nest, history.append, history.remove_by_position, history.remove_by_key):
        move()
    return history


@pytest.fixture(scope="module")
def reader(binary: Path, tmp_path_factory) -> Mesh:
    mesh = Mesh(binary, tmp_path_factory.mktemp("scan") / "mesh")
    mesh.write("mesh.yaml", "name: interop\n")
    return mesh


def ask(reader: Mesh, location: str, sql: str) -> pa.Table:
    reader._dumps += 1
    path = reader.root / f"{reader._dumps}.parquet"
    reader.run("query", "--table", f"t={location}", "--format", "parquet", "--out", str(path), sql)
    return pq.read_table(path)


def test_every_row_is_read(reader, history):
    ours = ask(reader, history.table.metadata_location, "SELECT * FROM t")
    truth = as_pyiceberg_reads(history.truth.scan().to_arrow())
    assert_same(as_pyiceberg_reads(ours), truth, f"datamesh after {history.log}")
    count = ask(reader, history.table.metadata_location, "SELECT count(*) AS n FROM t")
    assert count["n"].to_pylist() == [truth.num_rows]


def test_duckdb_reads_the_same(reader, history, duck):
    theirs = duckdb_rows(duck, history.table.metadata_location)
    ours = ask(reader, history.table.metadata_location, "SELECT * FROM t")
    assert_same(ours, theirs, f"datamesh after {history.log}")


def test_every_snapshot_is_read(reader, history):
    for snapshot, truth in history.answers.items():
        ours = ask(reader, history.table.metadata_location, f"SELECT * FROM t FOR VERSION AS OF {snapshot}")
        assert_same(as_pyiceberg_reads(ours), as_pyiceberg_reads(truth), f"datamesh, snapshot {snapshot}, {history.log}")


def test_filters_lose_no_row(reader, history):
    rows = history.truth.scan().to_arrow()
    for column in [field.name for field in history.table.schema().fields if field.field_type.is_primitive]:
        values = sorted({value for value in rows[column].to_pylist() if value is not None}, key=str)
        for value in values[:3] + values[-2:] + [None]:
            where = f'"{column}" IS NULL' if value is None else f'"{column}" = {literal(value)}'
            ours = ask(reader, history.table.metadata_location, f"SELECT id FROM t WHERE {where}")
            wanted = [row["id"] for row in rows.to_pylist() if row[column] == value]
            assert sorted(ours["id"].to_pylist()) == sorted(wanted), f"{where} after {history.log}"
        if values and not isinstance(values[0], str):
            value = values[len(values) // 2]
            for operator, compare in [("<", value.__gt__), (">=", value.__le__)]:
                where = f'"{column}" {operator} {literal(value)}'
                ours = ask(reader, history.table.metadata_location, f"SELECT id FROM t WHERE {where} LIMIT 1000")
                wanted = [row["id"] for row in rows.to_pylist() if row[column] is not None and compare(row[column])]
                assert sorted(ours["id"].to_pylist()) == sorted(wanted), f"{where} after {history.log}"


def test_no_more_files_are_read_than_pyiceberg_plans(reader, history):
    rows = history.truth.scan().to_arrow()
    # PyIceberg does not count NaN, so that datamesh concludes nothing from its bounds of floats.
    known = [field for field in history.table.schema().fields if not isinstance(field.field_type, (FloatType, DoubleType))]
    for column in [field.name for field in known if field.field_type.is_primitive]:
        values = sorted({value for value in rows[column].to_pylist() if value is not None}, key=str)
        for value in values[:1] + values[-1:]:
            theirs = EqualTo(column, value.isoformat() if isinstance(value, (date, datetime)) else value)
            planned = len(list(history.truth.scan(row_filter=theirs).plan_files()))
            sql = f'EXPLAIN SELECT id FROM t WHERE "{column}" = {literal(value)}'
            plan = "\n".join(ask(reader, history.truth.metadata_location, sql)["plan"].to_pylist())
            files = re.findall(r" files=(\d+)/", plan)
            assert files, plan
            assert int(files[0]) <= planned, f"{sql} after {history.log}\n{plan}"


def literal(value) -> str:
    if isinstance(value, datetime):
        zone = " WITH TIME ZONE" if value.tzinfo else ""
        return f"CAST('{value.isoformat(' ')}' AS TIMESTAMP{zone})"
    if isinstance(value, date):
        return f"DATE '{value}'"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, Decimal):
        return f"CAST('{value}' AS DECIMAL(20, 2))"
    return str(value)


def test_limits_count_rows_that_are_left(reader, history):
    total = history.truth.scan().to_arrow().num_rows
    for limit in (1, 7, total, total + 5):
        for where in ("", "WHERE id >= 0"):
            ours = ask(reader, history.table.metadata_location, f"SELECT id FROM t {where} LIMIT {limit}")
            assert ours.num_rows == min(limit, total)


# Files without field ids


def plain_table(folder: Path, properties: dict | None = None):
    schema = Schema(
        NestedField(1, "id", LongType(), required=False),
        NestedField(2, "name", StringType(), required=False),
        NestedField(3, "place", StructType(NestedField(4, "city", StringType(), required=False)), required=False),
        NestedField(5, "tags", ListType(6, StringType(), False), required=False),
    )
    return catalog(folder).create_table("db.plain", schema, properties=properties or {})


ROWS = [
    {"id": 1, "name": "a", "place": {"city": "Bern"}, "tags": ["x", None]},
    {"id": 2, "name": None, "place": None, "tags": []},
    {"id": 3, "name": "c", "place": {"city": None}, "tags": ["y"]},
]


def without_ids(table, folder: Path, rename: dict[str, str] | None = None) -> None:
    """Adds a file whose fields have no ids."""
    kind = pa.schema(
        [("id", pa.int32()), ("name", pa.string()), ("place", pa.struct([("city", pa.string())])), ("tags", pa.list_(pa.string()))]
    )
    rows = pa.Table.from_pylist(ROWS, schema=kind).rename_columns([(rename or {}).get(name, name) for name in kind.names])
    path = folder / "plain.parquet"
    # Another order than the table's.
    pq.write_table(rows.select(list(reversed(rows.column_names))), path)
    table.add_files([f"file://{path}"]) if rename is None else None


def test_files_without_ids_are_read_by_name_mapping(reader, tmp_path):
    table = plain_table(tmp_path / "warehouse")
    without_ids(table, tmp_path)
    assert "schema.name-mapping.default" in table.properties
    with table.update_schema() as update:
        update.rename_column("name", "called")
    with table.update_schema() as update:
        update.add_column("later", DateType())
    ours = ask(reader, table.metadata_location, "SELECT * FROM t ORDER BY id")
    wanted = [{**{("called" if key == "name" else key): value for key, value in row.items()}, "later": None} for row in ROWS]
    assert ours.to_pylist() == wanted
    assert_same(as_pyiceberg_reads(ours), as_pyiceberg_reads(table.scan().to_arrow()), "datamesh")
    ours = ask(reader, table.metadata_location, "SELECT id FROM t WHERE called = 'c' AND place['city'] IS NULL")
    assert ours["id"].to_pylist() == [3]


# Columns that only the partition gives


def ids(*values: int) -> pa.Table:
    """Rows of a file that has nothing but the column `id`."""
    return pa.table([list(values)], schema=pa.schema([pa.field("id", pa.int64(), metadata={"PARQUET:field_id": "1"})]))


def keyed_table(folder: Path, kind, partitioned: bool = True):
    schema = Schema(NestedField(1, "id", LongType(), required=False), NestedField(2, "key", kind, required=False))
    spec = PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "key")) if partitioned else PartitionSpec()
    return catalog(folder).create_table("db.keyed", schema, partition_spec=spec)


def first_gone(table) -> None:
    add_deletes(table, position_deletes(table, lambda row: row["id"] % 10 == 0))


def days(value: date) -> int:
    return (value - date(1970, 1, 1)).days


@pytest.mark.parametrize("deletes", [False, True], ids=["whole", "deletes"])
@pytest.mark.parametrize("kind, values, stored", [
    (StringType(), ["a", None, "%2F/ ="], lambda value: value),
    (LongType(), [7, None, -1], lambda value: value),
    (DoubleType(), [1.5, None, -0.25], lambda value: value),
    (FloatType(), [1.5, None, -0.25], lambda value: value),
    (DateType(), [date(2026, 1, 1), None, date(1969, 12, 31)], days),
    (DecimalType(9, 2), [Decimal("1.50"), None, Decimal("-7.00")], lambda value: value),
], ids=["string", "long", "double", "float", "date", "decimal"])
def test_columns_that_only_the_partition_gives(reader, tmp_path, kind, values, stored, deletes):
    table = keyed_table(tmp_path / "warehouse", kind)
    for at, value in enumerate(values):
        add_data_file(table, ids(10 * at, 10 * at + 1), Record(None if value is None else stored(value)))
    if deletes:
        first_gone(table)
    left = [{"id": 10 * at + row, "key": value} for at, value in enumerate(values) for row in ((1,) if deletes else (0, 1))]
    location = table.metadata_location
    assert ask(reader, location, "SELECT * FROM t ORDER BY id").to_pylist() == left
    grouped = ask(reader, location, "SELECT key, count(*) AS n FROM t GROUP BY key").to_pylist()
    assert {row["key"]: row["n"] for row in grouped} == {value: len(left) // 3 for value in values}
    for value in values:
        where = "key IS NULL" if value is None else f"key = {literal(value)}"
        wanted = [row["id"] for row in left if row["key"] == value]
        assert sorted(ask(reader, location, f"SELECT id FROM t WHERE {where}")["id"].to_pylist()) == wanted, where
        both = ask(reader, location, f"SELECT id FROM t WHERE ({where} AND id >= 0) OR id = 11")
        assert sorted(both["id"].to_pylist()) == sorted({*wanted, 11}), where
    joined = ask(reader, location, "SELECT a.id FROM t a JOIN t b ON a.key = b.key AND b.id = 21")
    assert sorted(joined["id"].to_pylist()) == [row["id"] for row in left if row["key"] == values[2]]


def test_the_partition_gives_what_its_own_spec_has(reader, tmp_path):
    table = keyed_table(tmp_path / "warehouse", StringType(), partitioned=False)
    add_data_file(table, ids(0, 1))
    with table.update_spec() as update:
        update.add_field("key", IdentityTransform(), "by_key")
    add_data_file(table, ids(10, 11), Record("x"))
    # A file that has the column by name only: its partition goes first.
    mapping = json.dumps([{"field-id": 1, "names": ["id"]}, {"field-id": 2, "names": ["key"]}])
    with table.transaction() as transaction:
        transaction.set_properties({"schema.name-mapping.default": mapping})
    add_data_file(table, pa.table({"id": [20, 21], "key": ["no", "no"]}), Record("y"))
    with table.update_schema() as update:
        update.rename_column("key", "called")
    expected = [{"id": at, "called": {0: None, 1: "x", 2: "y"}[at // 10]} for at in (0, 1, 10, 11, 20, 21)]
    assert ask(reader, table.metadata_location, "SELECT * FROM t ORDER BY id").to_pylist() == expected
    first_gone(table)
    assert ask(reader, table.metadata_location, "SELECT * FROM t ORDER BY id").to_pylist() == [row for row in expected if row["id"] % 10]
    answer = ask(reader, table.metadata_location, "SELECT id FROM t WHERE called = 'y' OR called IS NULL ORDER BY id")
    assert answer["id"].to_pylist() == [1, 21]


def test_rows_are_deleted_by_what_only_the_partition_gives(reader, tmp_path):
    table = keyed_table(tmp_path / "warehouse", StringType())
    for at, value in enumerate(["a", "b", None]):
        add_data_file(table, ids(10 * at, 10 * at + 1), Record(value))
    keys = pa.table({"id": pa.array([0, 10], pa.int64()), "key": ["a", "other"]})
    add_deletes(table, [equality_delete(table, keys, Record("a")), equality_delete(table, keys, Record("b"))])
    add_deletes(table, [equality_delete(table, pa.table({"key": pa.array([None], pa.string())}), Record(None))])
    expected = [{"id": 1, "key": "a"}, {"id": 10, "key": "b"}, {"id": 11, "key": "b"}]
    assert ask(reader, table.metadata_location, "SELECT * FROM t ORDER BY id").to_pylist() == expected


# Manifests that spell the fields of a partition otherwise


@pytest.mark.parametrize("name", ["my day", "Straße", "1st", "a.b-c"])
def test_partition_fields_have_any_name(reader, tmp_path, name):
    schema = Schema(NestedField(1, "id", LongType(), required=False), NestedField(2, name, StringType(), required=False))
    spec = PartitionSpec(PartitionField(2, 1000, IdentityTransform(), name))
    table = catalog(tmp_path / "warehouse").create_table("db.named", schema, partition_spec=spec)
    table.append(pa.table({"id": [1, 2, 3], name: ["a", None, "b"]}))
    ours = ask(reader, table.metadata_location, "SELECT * FROM t ORDER BY id")
    assert ours.to_pylist() == [{"id": 1, name: "a"}, {"id": 2, name: None}, {"id": 3, name: "b"}]
    for where, wanted in [("= 'a'", [1]), ("<> 'a'", [3]), ("IS NULL", [2])]:
        assert ask(reader, table.metadata_location, f'SELECT id FROM t WHERE "{name}" {where}')["id"].to_pylist() == wanted
    plan = "\n".join(ask(reader, table.metadata_location, f"""EXPLAIN SELECT id FROM t WHERE "{name}" = 'a'""")["plan"].to_pylist())
    assert "files=1/3" in plan, plan


@pytest.mark.parametrize("upgraded", [False, True], ids=["version 1", "upgraded"])
def test_partition_fields_that_were_dropped(reader, tmp_path, upgraded):
    """In format version 1 a dropped field stays, as a void one, with the name that it had."""
    schema = Schema(NestedField(1, "id", LongType(), required=False), NestedField(2, "day", StringType(), required=False))
    spec = PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "day"))
    tables = catalog(tmp_path / "warehouse")
    table = tables.create_table("db.old", schema, partition_spec=spec, properties={"format-version": "1"})
    table.append(pa.table({"id": [1, 2], "day": ["a", None]}))
    with table.update_spec() as update:
        update.remove_field("day")
    table.append(pa.table({"id": [3], "day": ["a"]}))
    with table.update_spec() as update:
        update.add_field("id", BucketTransform(4), "bucket")
    with table.update_spec() as update:
        update.remove_field("bucket")
    table.append(pa.table({"id": [4], "day": ["a"]}))
    assert str(table.spec()).count("void") == 2
    if upgraded:
        with table.transaction() as transaction:
            transaction.upgrade_table_version(2)
        table.append(pa.table({"id": [5], "day": ["b"]}))
        add_deletes(table, position_deletes(table, lambda row: row["id"] == 1))
    wanted = [(2, None), (3, "a"), (4, "a"), (5, "b")] if upgraded else [(1, "a"), (2, None), (3, "a"), (4, "a")]
    ours = ask(reader, table.metadata_location, "SELECT * FROM t ORDER BY id")
    assert [(row["id"], row["day"]) for row in ours.to_pylist()] == wanted
    for day in ("a", None):
        where = "day IS NULL" if day is None else f"day = '{day}'"
        ours = ask(reader, table.metadata_location, f"SELECT id FROM t WHERE {where} ORDER BY id")
        assert ours["id"].to_pylist() == [id_ for id_, own in wanted if own == day]
    with table.update_schema() as update:
        update.delete_column("day")
    ours = ask(reader, table.metadata_location, "SELECT * FROM t ORDER BY id")
    assert ours.to_pylist() == [{"id": id_} for id_, _ in wanted]


# Tables that DuckDB writes


@pytest.mark.parametrize("options", ["", ", PARTITION_BY (part)"], ids=["plain", "partitioned"])
def test_tables_that_duckdb_copies_are_read(reader, duck, tmp_path, options):
    place = tmp_path / "copied"
    rows = """SELECT range AS id, 'p' || range % 3 AS part,
        CASE WHEN range % 5 = 0 THEN 'NaN'::DOUBLE WHEN range % 7 = 0 THEN NULL ELSE range / 2.0 END AS ratio,
        {'a': range, 'b': [range, NULL]} AS nested, MAP {'x': range} AS pairs, range::DECIMAL(9, 2) AS price,
        uuid() AS key, DATE '1960-01-01' + range::INT AS day, TIMESTAMP '1969-12-31' + INTERVAL (range) HOUR AS local,
        TIMESTAMPTZ '1969-12-31 00:00:00+00' + INTERVAL (range) HOUR AS moment, range % 2 = 0 AS even FROM range(100)"""
    # The extension comes from its wheel, as for reading: nothing is fetched.
    duck.execute(f"COPY ({rows}) TO '{place}' (FORMAT iceberg{options})")
    (location,) = (str(path) for path in (place / "metadata").glob("*.metadata.json"))
    names = "id, part, ratio, nested, pairs, price, CAST(key AS VARCHAR) AS key, day, local, moment, even"
    for where in ["TRUE", "id IN (3, 50)", "part = 'p1' AND id < 20", "ratio > 40", "ratio IS NULL", "day >= DATE '1960-03-01'", "price = 7.00", "even AND local < TIMESTAMP '1970-01-01'"]:
        theirs = duck.execute(f"SELECT {names} FROM {duckdb_scan(location)} WHERE {where}").to_arrow_table()
        ours = ask(reader, location, f"SELECT {names} FROM t WHERE {where}")
        assert theirs.num_rows, where
        assert_same(ours, theirs, f"datamesh, {where}")
    ours = ask(reader, f"file://{location}", "SELECT count(*) AS n, sum(id) AS s, min(day) AS low, max(price) AS high FROM t")
    assert ours.to_pylist() == [{"n": 100, "s": 4950, "low": date(1960, 1, 1), "high": Decimal("99.00")}]


# How the files of this machine are spelled


@pytest.mark.parametrize("prefix", ["", "file:", "file://localhost", "FILE://"])
def test_local_files_are_spelled_in_several_ways(reader, tmp_path, prefix):
    table = plain_table(tmp_path / "warehouse")
    kind = table.schema().as_arrow()
    table.append(pa.Table.from_pylist(ROWS, schema=kind))
    table.append(pa.Table.from_pylist([{"id": 4, "name": "d"}], schema=kind))
    # The data file is named `file:///…`; its deletes spell it otherwise.
    add_deletes(table, position_deletes(table, lambda row: row["id"] == 2, prefix))
    path = table.metadata_location.removeprefix("file://")
    document = json.loads(Path(path).read_text())
    for snapshot in document["snapshots"]:
        snapshot["manifest-list"] = prefix + snapshot["manifest-list"].removeprefix("file://")
    copied = Path(path).with_name("spelled.metadata.json")
    copied.write_text(json.dumps(document))
    ours = ask(reader, f"{prefix}{copied}", "SELECT id FROM t ORDER BY id")
    assert ours["id"].to_pylist() == [1, 3, 4]


# What EXPLAIN shows


def test_explain_shows_what_was_left_out(reader, tmp_path):
    schema = Schema(NestedField(1, "id", LongType(), required=False), NestedField(2, "day", DateType(), required=False))
    spec = PartitionSpec(PartitionField(source_id=2, field_id=1000, transform=IdentityTransform(), name="day"))
    table = catalog(tmp_path / "warehouse").create_table("db.days", schema, partition_spec=spec)
    for at in range(6):
        rows = [{"id": at * 100 + row, "day": date(2026, 1, 1 + at)} for row in range(100)]
        table.append(pa.Table.from_pylist(rows, schema=schema.as_arrow()))

    def plan(sql: str) -> str:
        answer = ask(reader, table.metadata_location, f"EXPLAIN ANALYZE {sql}")
        return "\n".join(answer["plan"].to_pylist())

    by_day = plan("SELECT id FROM t WHERE day = DATE '2026-01-03'")
    assert "manifests=1/6" in by_day and "files=1/1" in by_day
    assert "manifests_pruned_bounds=6 total → 1 matched" in by_day, by_day
    assert "FilterExec" not in by_day, "the partition decides: nothing is left to filter"
    by_id = plan("SELECT day FROM t WHERE id BETWEEN 250 AND 260")
    assert "manifests=6/6" in by_id and "files=1/6" in by_id, by_id
    assert "files_pruned_bounds=6 total → 1 matched" in by_id, by_id
    counted = plan("SELECT count(*), min(id), max(day) FROM t")
    assert "files=" not in counted and "DataSourceExec" not in counted, "metadata alone answers"
    answer = ask(reader, table.metadata_location, "SELECT count(*) AS n, min(id) AS low, max(day) AS high FROM t WHERE day > DATE '2026-01-04'")
    assert answer.to_pylist() == [{"n": 200, "low": 400, "high": date(2026, 1, 6)}]


def test_dynamic_filters_of_joins_reach_the_files(reader, tmp_path):
    tables = catalog(tmp_path / "warehouse")
    schema = Schema(NestedField(1, "id", LongType(), required=False), NestedField(2, "value", LongType(), required=False))
    large = tables.create_table("db.large", schema)
    for at in range(8):
        large.append(pa.table({"id": pa.array(range(at * 1000, at * 1000 + 1000)), "value": pa.array(range(1000))}))
    small = tables.create_table("db.small", schema)
    small.append(pa.table({"id": [2500], "value": [7]}))
    location = small.metadata_location
    reader._dumps += 1
    path = reader.root / f"{reader._dumps}.parquet"
    sql = "EXPLAIN ANALYZE SELECT count(*) FROM l JOIN s ON l.id = s.id"
    reader.run("query", "--table", f"l={large.metadata_location}", "--table", f"s={location}", "--format", "parquet", "--out", str(path), sql)
    plan = "\n".join(pq.read_table(path)["plan"].to_pylist())
    scans = [line for line in plan.splitlines() if "DataSourceExec" in line and "DynamicFilter" in line]
    assert scans, plan
    assert "files_ranges_pruned_statistics=8 total → 1 matched" in scans[0], scans[0]


def explained(reader: Mesh, sql: str, analyze: bool = True, **tables) -> str:
    reader._dumps += 1
    path = reader.root / f"{reader._dumps}.parquet"
    given = [argument for name, table in tables.items() for argument in ("--table", f"{name}={table.metadata_location}")]
    reader.run("query", *given, "--format", "parquet", "--out", str(path), f"EXPLAIN {'ANALYZE ' if analyze else ''}{sql}")
    return "\n".join(pq.read_table(path)["plan"].to_pylist())


def wide_table(folder: Path):
    fields = [NestedField(1, "id", LongType()), NestedField(2, "group", LongType()), NestedField(3, "text", StringType()), NestedField(4, "more", StringType())]
    return catalog(folder).create_table("db.wide", Schema(*fields))


def wide_rows(count: int) -> pa.Table:
    names = ["id", "group", "text", "more"]
    fields = [pa.field(name, pa.int64() if at < 2 else pa.string(), metadata={"PARQUET:field_id": str(at + 1)}) for at, name in enumerate(names)]
    ids_ = list(range(count))
    return pa.table([ids_, [at // 10 for at in ids_], [f"{at:08}" * 3 for at in ids_], [str(at) for at in ids_]], schema=pa.schema(fields))


def test_row_groups_and_pages_are_left_out(reader, tmp_path):
    table = wide_table(tmp_path / "warehouse")
    add_data_file(table, wide_rows(80_000), write_page_index=True, row_group_size=20_000, data_page_size=4000)
    sql = 'SELECT id, text, more FROM t WHERE "group" = 3001'
    plan = explained(reader, sql, t=table)
    assert "row_groups_pruned_statistics=4 total → 1 matched" in plan, plan
    (pages, read) = re.search(r"page_index_pages_pruned=(\d+) total → (\d+) matched", plan).groups()
    assert int(read) == 1 < int(pages), plan
    assert sorted(ask(reader, table.metadata_location, sql)["id"].to_pylist()) == list(range(30_010, 30_020))


def test_a_needle_is_found_before_the_other_columns_are_read(reader, tmp_path):
    table = wide_table(tmp_path / "warehouse")
    table.append(wide_rows(50_000))
    sql = 'SELECT "group", text, more FROM t WHERE id = 31234'
    plan = explained(reader, sql, t=table)
    assert "pushdown_rows_matched=1," in plan and "FilterExec" not in plan, plan
    assert ask(reader, table.metadata_location, sql)["more"].to_pylist() == ["31234"]
    # A filter that many rows pass is evaluated above.
    plan = explained(reader, 'SELECT "group", text, more FROM t WHERE id > 5', t=table)
    assert "pushdown_rows_matched=0" in plan and "FilterExec" in plan, plan


def test_a_large_file_is_read_in_parts(reader, tmp_path):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one processor reads a file in one part")
    table = keyed_table(tmp_path / "warehouse", StringType(), partitioned=False)
    count = 1_500_000
    add_data_file(table, ids(*range(count)), compression="none", use_dictionary=False, row_group_size=200_000)
    sql = "SELECT count(id) AS n, sum(id) AS s FROM t"
    plan = explained(reader, sql.replace("count(id)", "count(DISTINCT id % 10)"), analyze=False, t=table)
    assert re.search(r"file_groups=\{\d+ groups: \[\[[^\]]*parquet:0\.\.\d+\]", plan), plan
    assert ask(reader, table.metadata_location, sql).to_pylist() == [{"n": count, "s": count * (count - 1) // 2}]
    # Rows are counted from the file's first one, in whatever part they are.
    gone = {5, 199_999, 200_000, 1_100_000, count - 1}
    add_deletes(table, position_deletes(table, lambda row: row["id"] in gone))
    assert ask(reader, table.metadata_location, sql).to_pylist() == [{"n": count - len(gone), "s": count * (count - 1) // 2 - sum(gone)}]


@pytest.mark.parametrize("sql", ["SELECT l.text FROM l JOIN s ON l.id = s.id", "SELECT l.text FROM s JOIN l ON l.id = s.id"])
def test_the_smaller_table_is_the_one_that_is_held(reader, tmp_path, sql):
    large, small = wide_table(tmp_path / "large"), wide_table(tmp_path / "small")
    large.append(wide_rows(20_000))
    small.append(wide_rows(3))
    plan = explained(reader, sql, analyze=False, l=large, s=small)
    join, *below = plan[plan.index("HashJoinExec"):].splitlines()
    scans = [line for line in below if "DataSourceExec" in line]
    assert "/small/" in scans[0] and "/large/" in scans[1], plan


# Format version 3


def test_defaults_of_format_version_3(reader, tmp_path):
    table = plain_table(tmp_path / "warehouse")
    table.append(pa.Table.from_pylist(ROWS, schema=table.schema().as_arrow()))
    path = Path(table.metadata_location.removeprefix("file://"))
    document = json.loads(path.read_text())
    document |= {"format-version": 3, "next-row-id": 3}
    (schema,) = document["schemas"]
    document["schemas"].append(json.loads(json.dumps(schema)) | {"schema-id": 1})
    document["schemas"][1]["fields"] += [
        {"id": 20, "name": "later", "required": False, "type": "int", "initial-default": 7, "write-default": 8},
        {"id": 21, "name": "never", "required": False, "type": "string", "write-default": "x"},
    ]
    document |= {"current-schema-id": 1, "last-column-id": 21}
    copied = path.with_name("third.metadata.json")
    copied.write_text(json.dumps(document))
    ours = ask(reader, str(copied), "SELECT id, later, never FROM t WHERE later = 7 ORDER BY id")
    assert ours.to_pylist() == [{"id": id_, "later": 7, "never": None} for id_ in (1, 2, 3)]
    assert ask(reader, str(copied), "SELECT id FROM t WHERE later = 8 OR later IS NULL").num_rows == 0


# What is refused


@pytest.mark.parametrize("kind, said", [("vectors", "deletion vectors"), ("orc", "data files in"), ("avro deletes", "delete files in")])
def test_files_that_are_not_parquet_are_refused(reader, tmp_path, kind, said):
    table = plain_table(tmp_path / "warehouse")
    table.append(pa.Table.from_pylist(ROWS, schema=table.schema().as_arrow()))
    if kind == "orc":
        path = Path(table.location().removeprefix("file://")) / "data/rows.orc"
        path.write_bytes(b"ORC")
        file = DataFile.from_args(content=DataFileContent.DATA, file_path=f"file://{path}", file_format=FileFormat.ORC, partition=Record(), record_count=1, file_size_in_bytes=3)
        file.spec_id = 0
        with table.transaction() as transaction:
            with transaction.update_snapshot().fast_append() as append:
                append.append_data_file(file)
        table.refresh()
    else:
        (deletes,) = position_deletes(table, lambda row: row["id"] == 2)
        deletes[2] = "PUFFIN" if kind == "vectors" else "AVRO"
        add_deletes(table, [deletes])
    answer = reader.json("query", "--table", f"t={table.metadata_location}", "SELECT * FROM t", expect=7)
    assert answer["error"]["code"] == "source-unreadable"
    assert said in answer["error"]["message"], answer


def test_what_cannot_be_read_is_refused(reader, tmp_path):
    answer = reader.json("query", "--table", f"t={tmp_path}/none.metadata.json", "SELECT 1 FROM t", expect=7)
    assert answer["error"]["code"] == "source-unreadable"
    (tmp_path / "broken.metadata.json").write_text("{}")
    answer = reader.json("query", "--table", f"t={tmp_path}/broken.metadata.json", "SELECT 1 FROM t", expect=7)
    assert "no Iceberg table" in answer["error"]["message"]
    reader.run("query", "--table", "T=x", "SELECT 1", expect=2)
    table = plain_table(tmp_path / "warehouse")
    answer = reader.json("query", "--table", f"t={table.metadata_location}", "SELECT * FROM t FOR VERSION AS OF 5", expect=6)
    assert answer["error"]["code"] == "not-found"


def test_a_time_in_a_gap_of_the_log_is_refused(reader, tmp_path):
    import time

    table = catalog(tmp_path / "warehouse").create_table("db.gap", schema=pa.schema([("id", pa.int64())]))
    times = []
    for number in range(4):
        table.append(pa.table({"id": [number]}))
        times.append(table.current_snapshot().timestamp_ms)
        while time.time() * 1000 < times[-1] + 1:
            pass
    second = table.metadata.snapshots[1].snapshot_id
    table.maintenance.expire_snapshots().by_ids([second]).commit()

    def sql(at: int) -> str:
        moment = datetime.fromtimestamp(at / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")
        return f"SELECT count(*) AS n FROM t FOR TIMESTAMP AS OF '{moment}'"

    for at, count in ((times[2], 3), (times[3], 4)):
        assert ask(reader, table.metadata_location, sql(at))["n"].to_pylist() == [count]
    answer = reader.json("query", "--table", f"t={table.metadata_location}", sql(times[1]), expect=6)
    assert answer["error"]["code"] == "not-found"


def test_reads_of_given_tables_are_recorded(reader, tmp_path):
    import sqlite3

    table = plain_table(tmp_path / "warehouse")
    ask(reader, table.metadata_location, "SELECT * FROM t")
    with sqlite3.connect(reader.root / ".datamesh" / "registry.db") as registry:
        rows = registry.execute("SELECT action, resource, document FROM decisions ORDER BY number DESC LIMIT 2").fetchall()
    resources = [resource for _, resource, _ in rows]
    assert table.metadata_location in resources
    assert all(action == "read" and "SELECT * FROM t" in json.dumps(json.loads(document)) for action, _, document in rows)
