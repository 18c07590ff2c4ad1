"""Incremental pulls: what is read, what is kept, and what a rejection or a crash leaves as it was."""

import csv
import io
import json
import os
import signal
import sqlite3
import subprocess
import time

import pyarrow as pa
import pytest

from sources import FOLDER, PRODUCT, command, counts, define, failure, rows

COLUMNS = """
{name: id, type: long, primaryKey: true}
{name: changed, type: timestamp, required: true}
{name: value, type: long, maximum: 1000}
"""
PULL = "watermark: changed\nquarantine: {limit: 60%}"


def at(minute: int) -> str:
    return f"2024-01-01T{minute // 60:02}:{minute % 60:02}:00Z"


def kept(minute: int) -> str:
    return at(minute).replace("Z", ".000000Z")


SHORT = COLUMNS.replace("required: true", f"required: true, maximum: '{at(600)}'")


class Csv:
    """A file that grows."""

    source = "rows.csv"

    def __init__(self, mesh, postgres=None):
        self.path = mesh.root / FOLDER / "rows.csv"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("id,changed,value\n")

    def add(self, *made: tuple[int, int, int]) -> None:
        with self.path.open("a") as out:
            csv.writer(out).writerows((id_, at(minute), value) for id_, minute, value in made)


class Sqlite:
    source = '{database: "sqlite:crm.db", table: t}'

    def __init__(self, mesh, postgres=None):
        path = mesh.root / FOLDER / "crm.db"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.connection = sqlite3.connect(path)
        self.connection.execute("CREATE TABLE t (id INTEGER, changed TEXT, value INTEGER)")

    def add(self, *made) -> None:
        self.connection.executemany("INSERT INTO t VALUES (?, ?, ?)", [(id_, at(minute), value) for id_, minute, value in made])
        self.connection.commit()


class Postgres:
    source = '{database: "${env:PULL_URL}", table: t}'

    def __init__(self, mesh, postgres):
        self.name = f"w{time.time_ns()}"
        postgres.sql(f"CREATE DATABASE {self.name}")
        self.postgres = postgres
        os.environ["PULL_URL"] = postgres.url(self.name)
        postgres.sql("CREATE TABLE t (id int, changed timestamptz, value int)", self.name)

    def add(self, *made) -> None:
        values = ", ".join(f"({id_}, '{at(minute)}', {value})" for id_, minute, value in made)
        self.postgres.sql(f"INSERT INTO t VALUES {values}", self.name)


class Iceberg:
    source = "{iceberg: ../../../../outside/table}"

    def __init__(self, mesh, postgres=None):
        from pyiceberg.catalog.sql import SqlCatalog

        folder = mesh.root / "outside"
        folder.mkdir()
        catalog = SqlCatalog("outside", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}")
        catalog.create_namespace("lab")
        self.schema = pa.schema([("id", pa.int64()), ("changed", pa.timestamp("us", "UTC")), ("value", pa.int64())])
        self.table = catalog.create_table("lab.rows", self.schema, location=f"file://{folder}/table")

    def add(self, *made) -> None:
        import datetime as dt

        moment = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)
        made = [{"id": id_, "changed": moment + dt.timedelta(minutes=minute), "value": value} for id_, minute, value in made]
        self.table.append(pa.Table.from_pylist(made, self.schema))


@pytest.fixture(params=[Csv, Sqlite, pytest.param(Postgres, marks=pytest.mark.postgres), Iceberg])
def feed(mesh, request):
    server = request.getfixturevalue("postgres") if request.param is Postgres else None
    feed = request.param(mesh, server)
    define(mesh, feed.source, COLUMNS, PULL)
    return feed


def watermark(report: dict) -> tuple[str | None, str | None]:
    found = report["tables"][0]["watermark"]
    assert found["column"] == "changed"
    return found.get("after"), found.get("last")


def test_only_newer_rows_are_read(mesh, feed):
    feed.add((1, 10, 1), (2, 20, 2))
    report = mesh.publish(PRODUCT)
    assert counts(report) == (2, 2, 0) and watermark(report) == (None, kept(20))
    feed.add((3, 30, 3))
    report = mesh.publish(PRODUCT)
    assert counts(report) == (1, 1, 0) and watermark(report) == (kept(20), kept(30))
    # Who can leaves out what is old; the pass leaves out the rest, of SQLite's times those of the same day.
    assert report["tables"][0]["watermark"].get("skipped", 0) == (0 if isinstance(feed, (Postgres, Iceberg)) else 2)
    report = mesh.publish(PRODUCT)
    assert report["status"] == "repeat" and report["publication"] == 2
    assert [row["id"] for row in rows(mesh, "id")] == [1, 2, 3]


def test_ties_and_late_rows_are_not_read(mesh, feed):
    """The documented limit: a row that appears with a value that was passed before is only seen by a full pull."""
    define(mesh, feed.source, COLUMNS, PULL, write="upsert")
    feed.add((1, 10, 1), (2, 20, 2))
    mesh.publish(PRODUCT)
    feed.add((3, 20, 3), (4, 15, 4), (5, 21, 5))
    assert counts(mesh.publish(PRODUCT)) == (1, 1, 0)
    report = mesh.publish(PRODUCT, "--full", "--dry-run")
    assert report["tables"][0]["in"] == 5 and watermark(report) == (None, kept(21))


@pytest.mark.parametrize("flag", ["--full", "--again"])
def test_an_append_does_not_pull_its_rows_again(mesh, feed, flag):
    define(mesh, feed.source, COLUMNS.replace(", primaryKey: true", ""), PULL)
    feed.add((1, 10, 1), (2, 20, 2))
    assert counts(mesh.publish(PRODUCT, flag)) == (2, 2, 0)
    feed.add((3, 5, 3))
    for more in ([], ["--dry-run"]):
        said = failure(mesh, "publish", PRODUCT, flag, *more)
        assert f"`{flag}` would add the rows again" in said and "write: upsert" in said
    late = mesh.write("late.csv", f"id,changed,value\n3,{at(5)},3\n")
    assert counts(mesh.publish(PRODUCT, f"rows={late}")) == (1, 1, 0)
    assert [row["id"] for row in rows(mesh, "id")] == [1, 2, 3]


def test_a_quarantined_row_is_not_read_again(mesh, feed):
    feed.add((1, 10, 1), (2, 20, 5000))
    report = mesh.publish(PRODUCT)
    assert counts(report) == (2, 1, 1) and watermark(report) == (None, kept(20))
    feed.add((3, 30, 3))
    assert counts(mesh.publish(PRODUCT)) == (1, 1, 0)


def test_a_rejected_pull_moves_nothing(mesh, feed):
    feed.add((1, 10, 1), (2, 20, 2))
    mesh.publish(PRODUCT)
    feed.add((3, 30, 5000), (4, 40, 5000))
    report = mesh.publish(PRODUCT, expect=3)
    assert report["status"] == "rejected" and watermark(report) == (kept(20), kept(40))
    feed.add((5, 50, 5), (6, 60, 6))
    report = mesh.publish(PRODUCT)
    assert counts(report) == (4, 2, 2) and watermark(report) == (kept(20), kept(60))


def test_a_dry_run_moves_nothing(mesh, feed):
    feed.add((1, 10, 1))
    mesh.publish(PRODUCT)
    feed.add((2, 20, 2))
    for _ in range(2):
        assert counts(mesh.publish(PRODUCT, "--dry-run")) == (1, 1, 0)
    assert counts(mesh.publish(PRODUCT)) == (1, 1, 0)


STEPS = ["planned", "authorized", "leased", "staged", "settled", "judged", "manifests-written", "metadata-written",
         "transaction-written", "committed", "cleaned"]


def test_a_pull_killed_at_any_step_moves_all_or_nothing(mesh, feed):
    feed.add((1, 10, 1))
    mesh.publish(PRODUCT)
    for number, step in enumerate(STEPS, start=2):
        feed.add((number, number * 10, number))
        done = command(mesh, "publish", PRODUCT, fault=f"kill:{step}")
        assert done.returncode == -signal.SIGKILL, (step, done)
        committed = step in ("committed", "cleaned")
        assert rows(mesh, "count(*) AS n") == [{"n": number if committed else number - 1}], step
        report = mesh.publish(PRODUCT)
        assert report["status"] == ("repeat" if committed else "published"), step
        assert [row["id"] for row in rows(mesh, "id")] == list(range(1, number + 1)), step


def test_a_pull_that_was_overtaken_adds_no_row_twice(mesh, feed, tmp_path):
    """Without a key nothing but the watermark tells that the winner has the loser's rows."""
    define(mesh, feed.source, COLUMNS.replace(", primaryKey: true", ""), PULL)
    feed.add((1, 10, 1))
    mesh.publish(PRODUCT)
    feed.add((2, 20, 2))
    mark = tmp_path / "held"
    loser = subprocess.Popen([str(mesh.binary), "--mesh", str(mesh.root), "publish", PRODUCT, "--format", "json"], cwd=mesh.root,
                             env=os.environ | {"DATAMESH_FAULT": f"hold:judged:{mark}"}, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not mark.exists():
        assert time.monotonic() < deadline and loser.poll() is None
        time.sleep(0.01)
    feed.add((3, 30, 3))
    assert counts(mesh.publish(PRODUCT)) == (2, 2, 0)
    mark.unlink()
    report = json.loads(loser.communicate(timeout=60)[0])
    assert report["status"] == "conflict" and "pulled" in report["because"][0], report
    assert [row["id"] for row in rows(mesh, "id")] == [1, 2, 3]
    assert mesh.publish(PRODUCT)["status"] == "repeat"


def test_a_pull_that_was_overtaken_holds_no_row_back_twice(mesh, tmp_path):
    """The winner moves no watermark either."""
    feed = Csv(mesh)
    define(mesh, feed.source, SHORT.replace(", primaryKey: true", ""), PULL.replace("60%", "100%"))
    feed.add((1, 10, 1))
    mesh.publish(PRODUCT)
    feed.add((2, 900, 2))
    mark = tmp_path / "held"
    loser = subprocess.Popen([str(mesh.binary), "--mesh", str(mesh.root), "publish", PRODUCT, "--format", "json"], cwd=mesh.root,
                             env=os.environ | {"DATAMESH_FAULT": f"hold:judged:{mark}"}, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not mark.exists():
        assert time.monotonic() < deadline and loser.poll() is None
        time.sleep(0.01)
    assert counts(mesh.publish(PRODUCT)) == (1, 0, 1)
    mark.unlink()
    report = json.loads(loser.communicate(timeout=60)[0])
    assert report["status"] == "conflict" and "pulled" in report["because"][0], report
    assert mesh.publish(PRODUCT)["status"] == "repeat"


def test_a_value_that_breaks_its_own_rule_does_not_hide_later_rows(mesh):
    feed = Csv(mesh)
    columns = COLUMNS.replace("{name: changed, type: timestamp, required: true}",
                              "{name: changed, type: timestamp, required: true, maximum: '2024-12-31T00:00:00Z'}")
    define(mesh, feed.source, columns, PULL)
    feed.add((1, 10, 1), (2, 20, 2))
    with feed.path.open("a") as out:
        out.write("3,9999-12-31T00:00:00Z,3\n")
    report = mesh.publish(PRODUCT)
    assert counts(report) == (3, 2, 1) and watermark(report) == (None, kept(20))
    feed.add((4, 30, 4), (5, 40, 5))
    report = mesh.publish(PRODUCT)
    assert counts(report) == (2, 2, 0) and report["tables"][0]["watermark"]["heldBefore"] == 1


def test_a_row_that_does_not_move_the_watermark_is_held_back_once(mesh, feed):
    """Without a key nothing else tells that it is the same row."""
    define(mesh, feed.source, SHORT.replace(", primaryKey: true", ""), PULL, version="0.1.0")
    feed.add((1, 10, 1), (2, 900, 2), (2, 900, 2))
    mesh.publish(PRODUCT, expect=3)
    feed.add((3, 20, 3))
    report = mesh.publish(PRODUCT)
    assert counts(report) == (4, 2, 2) and watermark(report) == (None, kept(20))
    for number in (4, 5):
        report = mesh.publish(PRODUCT)
        assert report["status"] == "repeat" and report["tables"][0]["watermark"]["heldBefore"] == 2
        assert "2 rows that were held back before left out" in command(mesh, "publish", PRODUCT).stdout
        feed.add((number, number * 10, number))
        assert counts(mesh.publish(PRODUCT)) == (1, 1, 0)
    # Another row of the same values is another row.
    feed.add((2, 900, 2), (6, 60, 6))
    assert counts(mesh.publish(PRODUCT)) == (2, 1, 1)
    # Once they may be published it is the retry that does, and the next pulls do not do it again.
    define(mesh, feed.source, COLUMNS.replace(", primaryKey: true", ""), PULL, version="0.1.0")
    assert mesh.publish(PRODUCT)["status"] == "repeat"
    assert counts(mesh.json("quarantine", "retry", PRODUCT)) == (3, 3, 0)
    assert mesh.publish(PRODUCT)["status"] == "repeat"
    feed.add((7, 950, 7))
    assert counts(mesh.publish(PRODUCT)) == (1, 1, 0)
    assert [row["id"] for row in rows(mesh, "id")] == [1, 2, 2, 2, 3, 4, 5, 6, 7]


def test_an_upsert_takes_a_row_that_was_held_back_when_it_may(mesh, feed):
    define(mesh, feed.source, SHORT, PULL, write="upsert", version="0.1.0")
    feed.add((1, 10, 1), (2, 900, 2))
    assert counts(mesh.publish(PRODUCT)) == (2, 1, 1)
    assert mesh.publish(PRODUCT)["status"] == "repeat"
    define(mesh, feed.source, COLUMNS, PULL, write="upsert", version="0.1.0")
    report = mesh.publish(PRODUCT)
    assert counts(report) == (1, 1, 0) and watermark(report) == (kept(10), kept(900))
    assert "--over-newer" in failure(mesh, "quarantine", "retry", PRODUCT)
    assert [row["id"] for row in rows(mesh, "id")] == [1, 2]


def test_a_row_that_cannot_be_read_is_seen(mesh):
    feed = Csv(mesh)
    define(mesh, feed.source, COLUMNS, PULL)
    feed.add((1, 10, 1))
    mesh.publish(PRODUCT)
    feed.add((2, 20, 2))
    with feed.path.open("a") as out:
        out.write("3,yesterday,3\n")
    report = mesh.publish(PRODUCT)
    assert counts(report) == (2, 1, 1)
    assert report["tables"][0]["watermark"]["skipped"] == 1
    report = mesh.publish(PRODUCT)
    assert report["status"] == "repeat" and report["tables"][0]["watermark"]["heldBefore"] == 1
    mended = mesh.write("mended.csv", f"id,changed,value\n3,{at(30)},3\n")
    mesh.json("quarantine", "retry", PRODUCT, "--from", str(mended))
    assert mesh.publish(PRODUCT)["status"] == "repeat"
    feed.add((4, 40, 4))
    assert counts(mesh.publish(PRODUCT)) == (1, 1, 0)


def test_rows_without_a_value_are_read_by_the_first_pull_only(mesh):
    """Even where no row of the first pull had one, so that there is nothing to go on from."""
    feed = Csv(mesh)
    define(mesh, feed.source, COLUMNS.replace(", primaryKey: true", "").replace(", required: true", ""), PULL)

    def add(id_: int) -> None:
        with feed.path.open("a") as out:
            out.write(f"{id_},,{id_}\n")

    add(1)
    report = mesh.publish(PRODUCT)
    assert counts(report) == (1, 1, 0) and watermark(report) == (None, None)
    add(2)
    assert mesh.publish(PRODUCT)["status"] == "repeat"
    feed.add((3, 10, 3))
    report = mesh.publish(PRODUCT)
    assert counts(report) == (1, 1, 0) and watermark(report) == (None, kept(10))
    assert [row["id"] for row in rows(mesh, "id")] == [1, 3]


@pytest.mark.parametrize("type_, values, expected", [
    ("int", ["-5", "10", "9"], "10"),
    ("long", ["9223372036854775806", "9223372036854775807"], "9223372036854775807"),
    ("'decimal(20,3)'", ["-0.001", "0.010", "0.002"], "0.010"),
    ("date", ["2024-02-29", "0001-01-01"], "2024-02-29"),
    ("timestamp_ntz", ["1969-12-31T23:59:59.999999", "1950-01-01T00:00"], "1969-12-31T23:59:59.999999"),
    ("string", ["a", "B", "ä", "z"], "ä"),
])
@pytest.mark.parametrize("kind", ["csv", "sqlite"])
def test_every_ordered_type(mesh, kind, type_, values, expected):
    source = "rows.csv" if kind == "csv" else Sqlite.source
    define(mesh, source, f"{{name: id, type: int}}\n{{name: mark, type: {type_}, required: true}}", "watermark: mark")
    folder = mesh.root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)

    def write(marks: list[str]) -> None:
        if kind == "csv":
            out = io.StringIO()
            csv.writer(out).writerows([("id", "mark"), *enumerate(marks)])
            (folder / "rows.csv").write_text(out.getvalue())
        else:
            connection = sqlite3.connect(folder / "crm.db")
            connection.execute("DROP TABLE IF EXISTS t")
            affinity = {"int": "INTEGER", "long": "INTEGER"}.get(type_, "TEXT")
            connection.execute(f"CREATE TABLE t (id INTEGER, mark {affinity})")
            connection.executemany("INSERT INTO t VALUES (?, ?)", enumerate(marks))
            connection.commit()

    write(values)
    report = mesh.publish(PRODUCT)
    assert report["tables"][0]["watermark"]["last"] == expected
    write([*values, *values])
    assert mesh.publish(PRODUCT)["status"] == "repeat"


def test_changed_rows_are_upserted(mesh, feed):
    define(mesh, feed.source, COLUMNS, PULL, write="upsert")
    feed.add((1, 10, 1), (2, 20, 2))
    mesh.publish(PRODUCT)
    feed.add((1, 30, 11), (3, 40, 3))
    assert counts(mesh.publish(PRODUCT)) == (2, 2, 0)
    assert [(row["id"], row["value"]) for row in rows(mesh, "id, value")] == [(1, 11), (2, 2), (3, 3)]


def test_after_a_rollback_the_rows_are_pulled_again(mesh, feed):
    feed.add((1, 10, 1))
    first = mesh.publish(PRODUCT)["publication"]
    feed.add((2, 20, 2))
    mesh.publish(PRODUCT)
    mesh.json("rollback", PRODUCT, "--to", str(first))
    assert [row["id"] for row in rows(mesh, "id")] == [1]
    feed.add((3, 30, 3))
    report = mesh.publish(PRODUCT)
    assert counts(report) == (2, 2, 0) and watermark(report) == (kept(10), kept(30))


def test_data_named_by_hand_is_read_whole(mesh):
    feed = Csv(mesh)
    define(mesh, feed.source, COLUMNS, PULL)
    feed.add((1, 10, 1), (2, 20, 2))
    mesh.publish(PRODUCT)
    other = mesh.write("late.csv", f"id,changed,value\n3,{at(5)},3\n")
    report = mesh.publish(PRODUCT, f"rows={other}")
    assert counts(report) == (1, 1, 0) and "watermark" not in report["tables"][0]
    feed.add((4, 30, 4))
    assert counts(mesh.publish(PRODUCT)) == (1, 1, 0)


def test_another_watermark_column_needs_a_full_pull(mesh):
    feed = Csv(mesh)
    define(mesh, feed.source, COLUMNS, PULL)
    feed.add((1, 10, 1))
    mesh.publish(PRODUCT)
    define(mesh, feed.source, COLUMNS, PULL.replace("changed", "id"))
    assert "--full" in failure(mesh, "publish", PRODUCT)
    feed.add((2, 20, 2))
    report = mesh.publish(PRODUCT, "--full")
    assert report["tables"][0]["watermark"] == {"column": "id", "last": "2"}
    assert [row["id"] for row in rows(mesh, "id")] == [1, 2]


def test_the_report_is_kept_and_shown(mesh):
    feed = Csv(mesh)
    define(mesh, feed.source, COLUMNS, PULL)
    feed.add((1, 10, 1))
    said = command(mesh, "publish", PRODUCT).stdout
    assert f"watermark changed: everything, up to {kept(10)}" in said
    assert "no row with changed after" in command(mesh, "publish", PRODUCT).stdout
    publications = mesh.json("publications", PRODUCT)
    assert publications[0]["report"]["tables"][0]["watermark"]["last"] == kept(10)


@pytest.mark.parametrize("more, columns, write, problem", [
    ("watermark: missing", COLUMNS, "append", "unknown-column"),
    ("watermark: value", COLUMNS.replace("value, type: long, maximum: 1000", "value, type: double"), "append", "invalid-watermark"),
    ("watermark: changed", COLUMNS.replace("required: true", "required: true, pii: true"), "append", "invalid-watermark"),
    ("watermark: changed", COLUMNS, "replace", "invalid-watermark"),
    ("watermark: changed\npartitionBy: [day(changed)]", COLUMNS, "replacePartitions", "invalid-watermark"),
])
def test_check_refuses_a_watermark_that_cannot_work(mesh, more, columns, write, problem):
    define(mesh, "rows.csv", columns, more, write=write)
    assert problem in [found["id"] for found in mesh.json("check", expect=4)["diagnostics"]]
