"""Random histories of upserts, deletions, appends, replaced partitions, replacements and rollbacks, with crashes on the
way, against an oracle in memory. After every step the table is read by datamesh, PyIceberg and DuckDB.

DATAMESH_STEPS and DATAMESH_SEED make the histories longer, or others.
"""

import datetime
import json
import os
import random
import signal
import struct
import subprocess
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mesh import Mesh
from readers import assert_same, duckdb_rows, iceberg_table

STEPS = int(os.environ.get("DATAMESH_STEPS", "60"))
SEED = int(os.environ.get("DATAMESH_SEED", "1"))
PRODUCT = "lab/ledger"
KILLS = ["planned", "authorized", "leased", "staged", "settled", "judged", "manifests-written", "metadata-written",
         "transaction-written", "committed", "cleaned"]
ZONE = datetime.timezone.utc

TYPES = {
    "region": pa.string(), "id": pa.int64(), "ratio": pa.float64(), "price": pa.decimal128(12, 3),
    "at": pa.timestamp("us", "UTC"), "code": pa.string(), "amount": pa.int32(), "gone": pa.bool_(),
    "extra": pa.string(),
}
WORDS = {"region": "string", "id": "long", "ratio": "double", "price": "decimal(12,3)", "at": "timestamp",
         "code": "string", "amount": "int", "gone": "boolean", "extra": "string"}


@dataclass
class Shape:
    """A table: its columns, its keys, and how it is partitioned."""

    key: list[str]
    unique: list[str] = field(default_factory=list)
    partitions: list[list[str]] = field(default_factory=list)
    sort: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=lambda: ["region", "id", "ratio", "price", "at", "code", "amount", "gone"])


SHAPES = {
    "one key": Shape(key=["id"]),
    "composite key, unique code, partitioned": Shape(
        key=["region", "id"], unique=["code"], partitions=[["region"], ["region", "truncate(4, id)"]], sort=["id"]),
    "double key": Shape(key=["ratio"], unique=["code"]),
    "decimal and time key, partitioned by day": Shape(key=["price", "at"], partitions=[["day(at)"], ["bucket(3, id)"]]),
}


def bits(value):
    """A value that tells -0.0 from 0.0 and knows NaN again."""
    return struct.pack(">d", value) if isinstance(value, float) else value


def whole(row: dict, columns: list[str]):
    """The key of a row, or None where a part is null."""
    values = tuple(bits(row.get(column)) for column in columns)
    return None if None in values else values


class Oracle:
    """What the table must hold."""

    def __init__(self, shape: Shape):
        self.shape = shape
        self.rows: list[dict] = []

    def partition(self, row: dict, fields: list[str]):
        values = []
        for text in fields:
            if text == "region":
                values.append(row["region"])
            elif text == "truncate(4, id)":
                values.append(None if row["id"] is None else row["id"] - row["id"] % 4)
            elif text == "day(at)":
                values.append(None if row["at"] is None else row["at"].date())
            else:
                raise NotImplementedError(text)
        return tuple(values)

    def publish(self, mode: str, batch: list[dict], fields: list[str]) -> dict:
        """Applies a batch, and says what the report must say."""
        key, unique = self.shape.key, self.shape.unique
        deletes = [mode == "upsert" and row["gone"] is True and whole(row, key) is not None for row in batch]
        bad = {at for at, row in enumerate(batch) if whole(row, key) is None or (not deletes[at] and row["amount"] is not None and row["amount"] < 0)}
        out: set[int] = set()
        while True:
            good = [at for at in range(len(batch)) if at not in bad and at not in out]
            # Among the incoming rows, held-back ones count too.
            doubled = self._doubled([(at, whole(row, key)) for at, row in enumerate(batch)])
            if mode == "upsert":
                good_keys = {whole(batch[at], key) for at in good if at not in doubled}
                left = [row for row in self.rows if whole(row, key) not in good_keys]
            elif mode == "replacePartitions":
                touched = {self.partition(batch[at], fields) for at in good}
                left = [row for row in self.rows if self.partition(row, fields) not in touched]
            elif mode == "replace":
                left = []
            else:
                left = list(self.rows)
            if mode != "upsert":
                keys = {whole(row, key) for row in left}
                doubled |= {at for at, row in enumerate(batch) if whole(row, key) in keys}
            for column in unique:
                taken = {whole(row, [column]) for row in left} - {None}
                stored = [(at, whole(row, [column])) for at, row in enumerate(batch) if not (deletes[at] and at not in bad)]
                doubled |= self._doubled(stored) | {at for at, value in stored if value in taken}
            if doubled <= out:
                break
            out |= doubled
        quarantined = len(bad | out)
        stored = [batch[at] for at in good if not deletes[at]]
        before = {whole(row, key) for row in self.rows}
        report = {"in": len(batch), "published": len(good), "quarantined": quarantined}
        if mode == "upsert":
            updated = sum(whole(row, key) in before for row in stored)
            gone = [batch[at] for at in good if deletes[at]]
            deleted = sum(whole(row, key) in before for row in gone)
            report["changes"] = {"inserted": len(stored) - updated, "updated": updated, "deleted": deleted,
                                 "absent": len(gone) - deleted, "removed": updated + deleted}
        if mode == "replacePartitions":
            report["changes"] = {"inserted": len(stored), "updated": 0, "deleted": 0, "absent": 0,
                                 "removed": len(self.rows) - len(left)}
        self.rows = left + stored
        report["totalRows"] = len(self.rows)
        return report

    @staticmethod
    def _doubled(keys) -> set[int]:
        seen: dict = {}
        for at, key in keys:
            if key is not None:
                seen.setdefault(key, []).append(at)
        return {at for places in seen.values() if len(places) > 1 for at in places}


class History:
    """One table's life."""

    def __init__(self, mesh: Mesh, name: str, seed: int):
        self.mesh, self.shape = mesh, SHAPES[name]
        self.random = random.Random(f"{name} {seed}")
        self.oracle = Oracle(self.shape)
        self.columns = list(self.shape.columns)
        self.fields = self.shape.partitions[0] if self.shape.partitions else []
        self.states: dict[int, list[dict]] = {}
        self.log: list[str] = []
        self.batches = 0

    def manifest(self, mode: str) -> None:
        columns = []
        for name in self.columns:
            key = ", primaryKey: true" if name in self.shape.key else ""
            unique = ", unique: true" if name in self.shape.unique else ""
            least = ", minimum: 0" if name == "amount" else ""
            columns.append(f"        - {{name: {name}, type: '{WORDS[name]}'{key}{unique}{least}}}")
        lines = ["dataProduct:", "  name: ledger", "  version: 1.0.0", "  owner: lab-team", "  schema:", "    - name: entries",
                 f"      write: {mode}", "      columns:", *columns, "      quarantine: 100%"]
        if mode == "upsert":
            lines.append("      deleteWhen: gone")
        if self.fields:
            lines.append(f"      partitionBy: {json.dumps(self.fields)}")
        if self.shape.sort:
            lines.append(f"      sortBy: {json.dumps(self.shape.sort)}")
        lines.append("      quality: [{name: counted, metric: nullValues, column: region, mustBeGreaterOrEqualTo: 0}, {name: queried, sql: 'SELECT count(*) FROM {object}', mustBeGreaterOrEqualTo: 0}]")
        self.mesh.write("domains/lab/products/ledger/product.yaml", "\n".join(lines) + "\n")

    def row(self) -> dict:
        pick = self.random
        return {
            "region": pick.choice(["north", "south", "east", None if "region" not in self.shape.key or pick.random() < 0.1 else "west"]),
            "id": pick.randrange(-8, 16) if pick.random() < 0.97 else None,
            "ratio": pick.choice([0.0, -0.0, 1.5, -2.25, float("nan"), float("inf"), 1e300, 5e-324, pick.randrange(20) / 4, None if pick.random() < 0.1 else 7.0]),
            "price": pick.choice([Decimal("0.000"), Decimal("-1.005"), Decimal("999999999.999"), Decimal(pick.randrange(6)), None if pick.random() < 0.1 else Decimal("2.500")]),
            "at": datetime.datetime(1969, 12, 30, 23, 59, 59, 999999, ZONE) + datetime.timedelta(hours=12 * pick.randrange(8)),
            "code": pick.choice([None, f"code-{pick.randrange(40)}", f"a-longer-code-than-a-bound-keeps-{pick.randrange(10)}"]),
            "amount": pick.choice([-1, 0, 1, 2, 3, 4, 5, None]),
            "gone": pick.choice([True, False, False, None]),
            **({"extra": pick.choice([None, "x"])} if "extra" in self.columns else {}),
        }

    def batch(self) -> list[dict]:
        rows = [self.row() for _ in range(self.random.choice([0, 1, 3, 8, 20]))]
        # An update often keeps what the published row has.
        for row in rows:
            if self.oracle.rows and self.random.random() < 0.4:
                old = self.random.choice(self.oracle.rows)
                row.update({name: old[name] for name in self.shape.key})
                if self.random.random() < 0.5:
                    row["code"] = old["code"]
        return rows

    def write(self, rows: list[dict]) -> Path:
        self.batches += 1
        path = self.mesh.root / "incoming" / f"{self.batches}.parquet"
        path.parent.mkdir(exist_ok=True)
        schema = pa.schema([(name, TYPES[name]) for name in self.columns])
        pq.write_table(pa.Table.from_pylist([{name: row.get(name) for name in self.columns} for row in rows], schema), path)
        return path

    def killed(self, arguments: list[str]) -> bool:
        """Runs a command that dies at a random step; whether it did."""
        self.mesh.keep_up()
        step = f"kill:{self.random.choice(KILLS)}"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("DATAMESH_")} | {"DATAMESH_FAULT": step}
        done = subprocess.run([str(self.mesh.binary), "--mesh", str(self.mesh.root), *arguments, "--format", "json"],
                              cwd=self.mesh.root, env=environment, capture_output=True, text=True, timeout=600)
        self.log.append(f"  {step} -> {done.returncode}")
        assert done.returncode in (0, -signal.SIGKILL), f"{done.stdout}\n{done.stderr}"
        return done.returncode != 0

    def publish(self, mode: str) -> None:
        rows = self.batch()
        self.manifest(mode)
        arguments = ["publish", PRODUCT, f"entries={self.write(rows)}", "--again"]
        before = [dict(row) for row in self.oracle.rows]
        expected = self.oracle.publish(mode, rows, self.fields)
        self.log.append(f"{mode} of {len(rows)} rows, expected {expected}")
        if self.random.random() < 0.25:
            known = len(self.mesh.json("publications", PRODUCT, "--limit", "10000")) if self.states else 0
            died = self.killed(arguments)
            recorded = len(self.mesh.json("publications", PRODUCT, "--limit", "10000"))
            if recorded > known:
                self.check()
                self.remember()
                return
            assert died
            after, self.oracle.rows = self.oracle.rows, before
            if self.states:
                self.check()
            self.oracle.rows = after
        report = self.mesh.json(*arguments)
        table = report["tables"][0]
        assert report["status"] == "published", report
        assert {name: table.get(name) for name in expected} == expected, self.story(table)
        assert table["metrics"][1]["value"] == expected["totalRows"], self.story(table)
        nulls = sum(row["region"] is None for row in self.oracle.rows)
        assert table["metrics"][0]["value"] == nulls, self.story(table)
        self.check()
        self.remember()

    def rollback(self) -> None:
        target = self.random.choice(list(self.states))
        self.log.append(f"rollback to {target}")
        arguments = ["rollback", PRODUCT, "--to", str(target)]
        self.oracle.rows = [dict(row) for row in self.states[target]]
        if self.random.random() < 0.25:
            self.killed(arguments)
        report = self.mesh.json(*arguments)
        assert report["status"] in ("published", "repeat"), self.story(report)
        self.check()
        self.remember()

    def remember(self) -> None:
        newest = self.mesh.json("publications", PRODUCT, "--limit", "1")[0]
        assert newest["status"] == "published", newest
        self.states[newest["number"]] = [dict(row) for row in self.oracle.rows]

    def evolve(self) -> None:
        """A later contract: another column, or other partition fields."""
        if "extra" not in self.columns and self.random.random() < 0.5:
            self.columns.append("extra")
            self.log.append("column extra")
        elif len(self.shape.partitions) > 1:
            self.fields = self.random.choice(self.shape.partitions)
            self.log.append(f"partitioned by {self.fields}")

    def check(self) -> None:
        """Everybody reads what the oracle holds."""
        location = self.mesh.metadata_locations(PRODUCT)["entries"]
        names = [column for column in iceberg_table(location).schema().column_names]
        schema = pa.schema([(name, TYPES[name]) for name in names])
        expected = pa.Table.from_pylist([{name: row.get(name) for name in names} for row in self.oracle.rows], schema)
        try:
            assert_same(self.mesh.query("SELECT * FROM lab.ledger.entries"), expected, "datamesh")
            table = iceberg_table(location)
            assert_same(table.scan().to_arrow(), expected, "PyIceberg")
            assert_same(duckdb_rows(self.duck, location), expected, "DuckDB")
            summary = table.current_snapshot().summary
            assert int(summary["total-records"]) == len(self.oracle.rows)
            files = list(table.scan().plan_files())
            assert int(summary["total-data-files"]) == len(files)
            assert int(summary["total-files-size"]) == sum(file.file.file_size_in_bytes for file in files)
        except AssertionError as error:
            raise AssertionError(self.story(str(error))) from error

    def story(self, end) -> str:
        return "\n".join([*self.log, str(end)])


@pytest.mark.parametrize("name", SHAPES)
def test_a_random_history_reads_as_the_oracle_says(mesh: Mesh, duck, name: str) -> None:
    history = History(mesh, name, SEED)
    history.duck = duck
    modes = ["upsert"] * 6 + ["append"] * 3 + ["replace"]
    for step in range(STEPS):
        draw = history.random.random()
        if step > 3 and draw < 0.1:
            history.evolve()
        # Buckets are Iceberg's own hash, which the oracle does not know.
        backfills = ["replacePartitions"] * 4 if history.fields and "bucket(3, id)" not in history.fields else []
        if history.states and draw > 0.9:
            history.rollback()
        else:
            history.publish(history.random.choice(modes + backfills))
    assert len(history.states) > STEPS // 2
