"""Every type, every partition transform: appended twice and then replaced.

The truth is the rows that were generated, not what any of the engines says.
"""

import math
import time as clock
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from urllib.parse import unquote, urlparse

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.conversions import from_bytes
from pyiceberg.expressions import And, EqualTo, GreaterThanOrEqual, In, IsNull, LessThan, NotEqualTo, NotNull, Or
from pyiceberg.schema import Accessor
from pyiceberg.table import FileScanTask, StaticTable
from pyiceberg.types import BinaryType, ListType, MapType, NestedField, StringType, StructType

import synthetic
from mesh import Mesh
from readers import as_pyiceberg_reads, assert_same, duckdb_rows, iceberg_table

BOUND_LENGTH = 16


@dataclass(frozen=True)
class Stage:
    """The product after one publication."""

    rows: list[dict]
    locations: dict[str, str]
    answers: dict[str, pa.Table]
    snapshots: int

    def table(self, name: str) -> StaticTable:
        return iceberg_table(self.locations[name])


@dataclass(frozen=True)
class Published:
    mesh: Mesh
    appended: Stage
    replaced: Stage
    first: list[dict]

    def stage(self, name: str) -> Stage:
        return getattr(self, name)


@pytest.fixture(scope="module")
def published(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Published:
    mesh = Mesh(binary, tmp_path_factory.mktemp("types") / "mesh")
    mesh.write("mesh.yaml", "name: interop\n")
    mesh.write("domains/lab/domain.yaml", "name: lab\nowner: lab-team\n")

    def publish(write: str, file: Path, made: list[dict]) -> None:
        mesh.write("domains/lab/products/types/product.yaml", synthetic.manifest(write))
        report = mesh.publish(synthetic.PRODUCT, *(f"{table}={file}" for table in synthetic.TABLES))
        assert report["status"] == "published"
        for table in report["tables"]:
            assert (table["in"], table["published"], table["reasons"]) == (len(made), len(made), {}), table["table"]

    def stage(made: list[dict], snapshots: int) -> Stage:
        answers = {table: mesh.query(f"SELECT * FROM lab.types.{table}") for table in synthetic.TABLES}
        return Stage(made, mesh.metadata_locations(synthetic.PRODUCT), answers, snapshots)

    first, second, third = synthetic.rows(1, False), synthetic.rows(2, True), synthetic.rows(3, True)
    synthetic.write_ndjson(mesh.root / "first.ndjson", first)
    synthetic.write_parquet(mesh.root / "second.parquet", second)
    synthetic.write_parquet(mesh.root / "third.parquet", third)
    publish("append", mesh.root / "first.ndjson", first)
    publish("append", mesh.root / "second.parquet", second)
    appended = stage(first + second, 2)
    publish("replace", mesh.root / "third.parquet", third)
    return Published(mesh, appended, stage(third, 3), first)


every_table = pytest.mark.parametrize("table", synthetic.TABLES)
every_stage = pytest.mark.parametrize("stage", ["appended", "replaced"])


@every_stage
@every_table
def test_datamesh_gives_back_what_was_published(published, table, stage):
    stage = published.stage(stage)
    assert_same(stage.answers[table], synthetic.table(stage.rows), "datamesh query")


@every_stage
@every_table
def test_pyiceberg_gives_back_what_was_published(published, table, stage):
    stage = published.stage(stage)
    scan = stage.table(table).scan()
    assert scan.count() == len(stage.rows)
    assert_same(scan.to_arrow(), as_pyiceberg_reads(synthetic.table(stage.rows)), "PyIceberg")


@every_stage
@every_table
def test_duckdb_gives_back_what_was_published(published, duck, table, stage):
    stage = published.stage(stage)
    assert_same(duckdb_rows(duck, stage.locations[table]), synthetic.table(stage.rows), "DuckDB")


@every_table
def test_an_earlier_snapshot_can_still_be_read(published, table):
    iceberg = published.replaced.table(table)
    first = iceberg.metadata.snapshots[0]
    assert_same(iceberg.scan(snapshot_id=first.snapshot_id).to_arrow(), as_pyiceberg_reads(synthetic.table(published.first)), "PyIceberg")


# Metadata


def all_fields(fields) -> list[NestedField]:
    """Every field of a schema, at any depth."""
    found = []
    for field in fields:
        found.append(field)
        kind = field.field_type
        if isinstance(kind, StructType):
            found += all_fields(kind.fields)
        elif isinstance(kind, ListType):
            found += all_fields([kind.element_field])
        elif isinstance(kind, MapType):
            found += all_fields([kind.key_field, kind.value_field])
    return found


def data_file(path: str) -> Path:
    return Path(unquote(urlparse(path).path))


def tasks(table: StaticTable, **arguments) -> list[FileScanTask]:
    return list(table.scan(**arguments).plan_files())


@every_table
def test_metadata_is_plain_v2(published, table):
    metadata = published.appended.table(table).metadata
    assert metadata.format_version == 2
    fields = all_fields(metadata.schema().fields)
    assert len({field.field_id for field in fields}) == len(fields)
    assert metadata.last_column_id == max(field.field_id for field in fields)
    assert metadata.schema().column_names[0] == "id"
    assert [field.name for field in metadata.schema().fields] == synthetic.SCHEMA.names
    later = published.replaced.table(table).metadata
    assert later.schema() == metadata.schema(), "no publication changed the contract"
    assert (later.table_uuid, later.spec(), later.sort_order()) == (metadata.table_uuid, metadata.spec(), metadata.sort_order())


@every_table
def test_partition_spec_and_sort_order_are_those_of_the_contract(published, table):
    metadata = published.appended.table(table).metadata
    spec = [f"{field.transform}:{metadata.schema().find_column_name(field.source_id)}" for field in metadata.spec().fields]
    wanted = []
    for field in synthetic.TABLES[table]:
        transform, _, arguments = field.removesuffix(")").rpartition("(")
        *argument, column = arguments.split(", ")
        wanted.append(f"{transform or 'identity'}{'[' + argument[0] + ']' if argument else ''}:{column}")
    assert spec == wanted
    order = [(metadata.schema().find_column_name(field.source_id), field.direction.value) for field in metadata.sort_order().fields]
    assert order == [("k_string", "asc"), ("id", "desc")]


@every_stage
@every_table
def test_snapshot_summaries_are_full_and_true(published, table, stage):
    stage = published.stage(stage)
    iceberg = stage.table(table)
    snapshots = iceberg.metadata.snapshots
    assert len(snapshots) == stage.snapshots
    assert [snapshot.parent_snapshot_id for snapshot in snapshots] == [None, *(snapshot.snapshot_id for snapshot in snapshots[:-1])]
    assert [snapshot.sequence_number for snapshot in snapshots] == list(range(1, stage.snapshots + 1))
    assert all(abs(snapshot.timestamp_ms / 1000 - clock.time()) < 3600 for snapshot in snapshots)
    operations = [snapshot.summary.operation.value for snapshot in snapshots]
    assert operations == ["append", "append", "overwrite"][: stage.snapshots]
    before: dict[str, int] = {}
    for snapshot in snapshots:
        files = {task.file.file_path: task.file for task in tasks(iceberg, snapshot_id=snapshot.snapshot_id)}
        sizes = {path: data_file(path).stat().st_size for path in files}
        assert {path: file.file_size_in_bytes for path, file in files.items()} == sizes
        summary = snapshot.summary.additional_properties
        totals = {
            "total-data-files": len(files),
            "total-records": sum(file.record_count for file in files.values()),
            "total-files-size": sum(sizes.values()),
            "total-delete-files": 0,
            "total-position-deletes": 0,
            "total-equality-deletes": 0,
        }
        assert {key: int(summary[key]) for key in totals} == totals
        overwrites = snapshot.summary.operation.value == "overwrite"
        for total, added, removed in [
            ("total-data-files", "added-data-files", "deleted-data-files"),
            ("total-records", "added-records", "deleted-records"),
            ("total-files-size", "added-files-size", "removed-files-size"),
        ]:
            assert int(summary.get(removed, 0)) == (before[total] if overwrites else 0), removed
            assert int(summary[added]) == totals[total] - (0 if overwrites else before.get(total, 0)), added
        before = totals


# Data files


def arrow_field_ids(field: pa.Field) -> list[int]:
    ids = [int(field.metadata[b"PARQUET:field_id"])] if field.metadata and b"PARQUET:field_id" in field.metadata else [-1]
    kind = field.type
    if pa.types.is_map(kind):
        return ids + arrow_field_ids(kind.key_field) + arrow_field_ids(kind.item_field)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return ids + arrow_field_ids(kind.value_field)
    return ids + [id_ for index in range(kind.num_fields) for id_ in arrow_field_ids(kind.field(index))]


@every_table
def test_data_files_carry_field_ids(published, table):
    iceberg = published.appended.table(table)
    wanted = [field.field_id for field in all_fields(iceberg.metadata.schema().fields)]
    for task in tasks(iceberg):
        schema = pq.read_schema(data_file(task.file.file_path))
        assert [id_ for field in schema for id_ in arrow_field_ids(field)] == wanted


def leaves(fields, path=()) -> list[tuple[tuple[str, ...], NestedField]]:
    """The primitive fields that are not in a list or a map, with their paths."""
    found = []
    for field in fields:
        if isinstance(field.field_type, StructType):
            found += leaves(field.field_type.fields, (*path, field.name))
        elif field.field_type.is_primitive:
            found.append(((*path, field.name), field))
    return found


def values_at(rows: pa.Table, path: tuple[str, ...]) -> list:
    values = rows[path[0]].to_pylist()
    for name in path[1:]:
        values = [None if value is None else value[name] for value in values]
    return values


def in_iceberg(value):
    """A value as PyIceberg decodes it from a bound."""
    if isinstance(value, datetime):
        epoch = datetime(1970, 1, 1, tzinfo=value.tzinfo)
        elapsed = value - epoch
        return (elapsed.days * 86400 + elapsed.seconds) * 10**6 + elapsed.microseconds
    if isinstance(value, date):
        return (value - date(1970, 1, 1)).days
    if isinstance(value, time):
        return ((value.hour * 60 + value.minute) * 60 + value.second) * 10**6 + value.microsecond
    return value


def check_bounds(where: str, field: NestedField, lower: bytes | None, upper: bytes | None, values: list) -> None:
    present = [in_iceberg(value) for value in values if value is not None and value == value]
    if not present:
        return
    assert lower is not None and upper is not None, f"{where}: no bounds"
    kind = field.field_type
    lower, upper = from_bytes(kind, lower), from_bytes(kind, upper)
    least, greatest = min(present), max(present)
    assert lower <= least and greatest <= upper, f"{where}: [{lower!r}, {upper!r}] does not hold [{least!r}, {greatest!r}]"
    if not isinstance(kind, (StringType, BinaryType)) or max(len(least), len(greatest)) <= BOUND_LENGTH:
        assert (lower, upper) == (least, greatest), f"{where}: bounds are not exact"


@every_stage
@every_table
def test_file_statistics_are_full_and_true(published, table, stage):
    iceberg = published.stage(stage).table(table)
    files = iceberg.inspect.files().to_pylist()
    assert files
    for file in files:
        path = data_file(file["file_path"])
        footer, rows = pq.read_metadata(path), pq.read_table(path)
        assert file["file_format"] == "PARQUET"
        assert file["record_count"] == footer.num_rows == rows.num_rows > 0
        assert file["file_size_in_bytes"] == path.stat().st_size
        assert file["split_offsets"] == [first_byte(footer.row_group(group)) for group in range(footer.num_row_groups)]
        assert file["sort_order_id"] == iceberg.metadata.default_sort_order_id
        statistics = {
            key: dict(file[key] or [])
            for key in ("column_sizes", "value_counts", "null_value_counts", "nan_value_counts", "lower_bounds", "upper_bounds")
        }
        every_leaf = [field.field_id for field in all_fields(iceberg.schema().fields) if field.field_type.is_primitive]
        for key in ("column_sizes", "value_counts"):
            assert set(statistics[key]) == set(every_leaf), key
        sizes = [footer.row_group(group).column(at).total_compressed_size for at in range(footer.num_columns) for group in range(footer.num_row_groups)]
        assert sum(statistics["column_sizes"].values()) == sum(sizes)
        for names, field in leaves(iceberg.schema().fields):
            values, id_, where = values_at(rows, names), field.field_id, f"{path.name} {'.'.join(names)}"
            assert statistics["value_counts"][id_] == len(values), where
            assert statistics["null_value_counts"].get(id_) == values.count(None), where
            if str(field.field_type) in ("float", "double"):
                assert statistics["nan_value_counts"].get(id_) == sum(value != value for value in values), where
            check_bounds(where, field, statistics["lower_bounds"].get(id_), statistics["upper_bounds"].get(id_), values)


def first_byte(group) -> int:
    column = group.column(0)
    return column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset


@every_stage
@every_table
def test_every_row_is_in_its_partition_and_sorted(published, table, stage):
    iceberg = published.stage(stage).table(table)
    schema, spec = iceberg.schema(), iceberg.spec()
    for task in tasks(iceberg):
        rows = pq.read_table(data_file(task.file.file_path)).to_pylist()
        for at, field in enumerate(spec.fields):
            column = schema.find_field(field.source_id)
            apply = field.transform.transform(column.field_type)
            found = {apply(in_iceberg(row[column.name])) for row in rows}
            assert found == {Accessor(at).get(task.file.partition)}, f"{task.file.file_path}: {field.name}"
        order = [(row["k_string"] is not None, (row["k_string"] or "").encode(), -row["id"]) for row in rows]
        assert order == sorted(order), f"{task.file.file_path} is not sorted by {synthetic.SORT}"


# Filters


def filters(column: str) -> list:
    """Iceberg filters on a column, each with what it means."""
    values = synthetic.KEYS[column]
    literal = lambda value: value.isoformat() if isinstance(value, (date, time, datetime)) else value
    first, last = values[0], values[-1]
    made = [
        (EqualTo(column, literal(first)), lambda value: value == first),
        (EqualTo(column, literal(last)), lambda value: value == last),
        (NotEqualTo(column, literal(last)), lambda value: value is not None and value != last),
        (IsNull(column), lambda value: value is None),
        (NotNull(column), lambda value: value is not None),
        (In(column, [literal(value) for value in values[:2]]), lambda value: value in values[:2]),
        (Or(IsNull(column), EqualTo(column, literal(last))), lambda value: value is None or value == last),
    ]
    if column == "k_boolean":
        return made
    middle = sorted(values)[len(values) // 2]
    below = lambda value: value is not None and value < middle
    above = lambda value: value is not None and value >= middle
    made += [
        (LessThan(column, literal(middle)), below),
        (GreaterThanOrEqual(column, literal(middle)), above),
        (And(GreaterThanOrEqual(column, literal(middle)), EqualTo(column, literal(max(values)))), lambda value: value == max(values)),
    ]
    return made


def partition_columns(table: str) -> list[str]:
    return [field.removesuffix(")").rpartition("(")[2].split(", ")[-1] for field in synthetic.TABLES[table]]


@pytest.mark.parametrize(("table", "column"), [(table, column) for table in synthetic.TABLES for column in partition_columns(table)])
def test_partition_pruning_loses_no_row(published, table, column):
    stage = published.appended
    iceberg = stage.table(table)
    for expression, meaning in filters(column):
        found = iceberg.scan(row_filter=expression, selected_fields=("id",)).to_arrow()["id"].to_pylist()
        assert sorted(found) == sorted(row["id"] for row in stage.rows if meaning(row[column])), expression


@pytest.mark.parametrize("table", [table for table in synthetic.TABLES if table.startswith(("identity", "bucket", "truncate"))])
def test_partitions_are_pruned(published, table):
    [column] = partition_columns(table)
    iceberg = published.appended.table(table)
    value = synthetic.KEYS[column][0]
    literal = value.isoformat() if isinstance(value, (date, time, datetime)) else value
    planned = tasks(iceberg, row_filter=EqualTo(column, literal))
    assert 0 < len(planned) < len(tasks(iceberg))


# FIXME: DuckDB 1.5.5 loses rows here, of tables that PyIceberg wrote too. It rounds towards zero where the months and days
# before 1970 go downwards, and it cuts decimals off at 64 bits before it truncates them.
DUCKDB_LOSES = {
    ("month_timestamp", "k_timestamp"),
    ("month_timestamp_ntz", "k_timestamp_ntz"),
    ("day_timestamp", "k_timestamp"),
    ("day_timestamp_ntz", "k_timestamp_ntz"),
    ("several", "k_timestamp"),
    ("truncate_large", "k_large"),
}


@pytest.mark.parametrize(("table", "column"), [(table, column) for table in synthetic.TABLES for column in partition_columns(table)])
def test_filters_in_duckdb_lose_no_row(published, duck, table, column):
    stage = published.appended
    first, *_, last = synthetic.KEYS[column]
    for value in (first, last, None):
        where = f"{column} IS NULL" if value is None else f"{column} = {duckdb_literal(value)}"
        wanted = [row["id"] for row in stage.rows if row[column] == value]
        if (table, column) in DUCKDB_LOSES and value == first:
            wanted = []
        theirs = duckdb_rows(duck, stage.locations[table], where)["id"].to_pylist()
        assert sorted(theirs) == sorted(wanted), where


@pytest.mark.parametrize("column", synthetic.KEYS)
def test_filters_in_datamesh_lose_no_row(published, column):
    # What `query` serves now is the replaced stage.
    first, *_, last = synthetic.KEYS[column]
    for table in [table for table in synthetic.TABLES if column in partition_columns(table)] + ["plain"]:
        for value in (first, last, None):
            where = f"{column} IS NULL" if value is None else f"{column} = {datamesh_literal(value)}"
            ours = published.mesh.query_json(f"SELECT id FROM lab.types.{table} WHERE {where}")
            wanted = [row["id"] for row in published.replaced.rows if row[column] == value]
            assert sorted(row["id"] for row in ours) == sorted(wanted), f"{table}: {where}"


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ("k_time = TIME '12:34:56'", lambda row: row["k_time"] == time(12, 34, 56)),
        (
            "k_timestamp_ntz = TIMESTAMP '1582-10-15 00:00:00.000001'",
            lambda row: row["k_timestamp_ntz"] == datetime(1582, 10, 15, microsecond=1),
        ),
        ("k_timestamp_ntz = '1582-10-15 00:00:00.000001'", lambda row: row["k_timestamp_ntz"] == datetime(1582, 10, 15, microsecond=1)),
        (
            "date_trunc('day', v_timestamp) = v_timestamp",
            lambda row: row["v_timestamp"] is not None and row["v_timestamp"].time() == time(),
        ),
        (
            "v_timestamp > v_date",
            lambda row: None not in (row["v_timestamp"], row["v_date"])
            and row["v_timestamp"].replace(tzinfo=None) > datetime.combine(row["v_date"], time()),
        ),
        ("v_timestamp BETWEEN '0001-01-01' AND DATE '9999-12-31'", lambda row: row["v_timestamp"] is not None and row["v_timestamp"].replace(tzinfo=None) <= datetime(9999, 12, 31)),
    ],
)
def test_times_in_sql_are_those_of_the_columns(published, condition, wanted):
    answer = published.mesh.query_json(f"SELECT id FROM lab.types.plain WHERE {condition}")
    assert sorted(row["id"] for row in answer) == sorted(row["id"] for row in published.replaced.rows if wanted(row))


def test_months_beyond_nanoseconds_cannot_be_cut_off(published):
    # FIXME: DataFusion cuts off more than days by way of nanoseconds, which do not reach the year 1582.
    sql = "SELECT date_trunc('month', v_timestamp) FROM lab.types.plain"
    answer = published.mesh.json("query", sql, expect=9)
    assert answer["error"]["code"] == "invalid-query"


def duckdb_literal(value) -> str:
    if isinstance(value, bytes):
        return "'" + "".join(f"\\x{byte:02x}" for byte in value) + "'::BLOB"
    if isinstance(value, time):
        return f"TIME '{value}'"
    if isinstance(value, datetime):
        return f"TIMESTAMP{'TZ' if value.tzinfo else ''} '{value}'"
    return literal(value)


def datamesh_literal(value) -> str:
    if isinstance(value, bytes):
        return f"X'{value.hex()}'"
    if isinstance(value, time):
        return f"'{value}'"
    if isinstance(value, datetime):
        return f"CAST('{value}' AS TIMESTAMP(6){' WITH TIME ZONE' if value.tzinfo else ''})"
    return literal(value)


def literal(value) -> str:
    """A value in the SQL that both understand."""
    if isinstance(value, bool):
        return str(value).upper()
    kind = {str: "VARCHAR", int: "BIGINT", Decimal: "DECIMAL(38,10)", date: "DATE"}[type(value)]
    return f"CAST('{str(value).replace(chr(39), chr(39) * 2)}' AS {kind})"
