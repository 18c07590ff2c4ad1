"""Texts that a Parquet file keeps as numbers in a dictionary are judged, stored and told as those that it writes out.

The truth is what Python says of the rows that were generated.
"""

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mesh import Mesh
from readers import iceberg_table

KINDS = ["air", "rail", "ship", "truck"]
WORDS = ["alpha", "beta", "gamma", "delta9", "epsilon", "", "zeta", "eta"]
TEXTS = ["kind", "word", "grade", "note"]

CONTRACT = """\
dataProduct:
  name: parcels
  version: 1.0.0
  owner: lab-team
  schema:
    - name: parcels
      write: replace
      columns:
        - {name: id, type: long, primaryKey: true}
        - {name: kind, type: string, required: true, enum: [air, rail, ship, truck]}
        - {name: word, type: string, pattern: '^[a-z]+$', maxLength: 6}
        - {name: grade, type: string}
        - {name: note, type: string, minLength: 3}
        - {name: city, type: string, required: true}
      quality:
        - {name: passed, condition: grade <> 'F'}
        - {name: grades, column: grade, metric: distinctCount, mustBe: 3}
      quarantine: {limit: 100%}
"""


def made() -> list[dict]:
    def row(n: int) -> dict:
        return {
            "id": n,
            "kind": None if n % 777 == 1 else "drone" if n % 1000 == 2 else KINDS[n % 4],
            "word": None if n % 9 == 0 else WORDS[n // 3 % len(WORDS)],
            "grade": "F" if n % 500 == 3 else "ABC"[n % 3],
            "note": "no" if n % 2500 == 4 else "naïve 🛫" if n % 2 else "plain",
            "city": f"city {n * 7919 % 20011}",
        }

    return [row(n) for n in range(20_000)]


def broken(row: dict) -> set[str]:
    found = set()
    if row["kind"] is None:
        found.add("required:kind")
    elif row["kind"] not in KINDS:
        found.add("enum:kind")
    if row["word"] is not None and not re.fullmatch("[a-z]+", row["word"]):
        found.add("pattern:word")
    if row["word"] is not None and len(row["word"]) > 6:
        found.add("maxLength:word")
    if row["grade"] == "F":
        found.add("condition:passed")
    if len(row["note"]) < 3:
        found.add("minLength:note")
    return found


def table(rows: list[dict], kind: pa.DataType = pa.string()) -> pa.Table:
    fields = [pa.field("id", pa.int64())] + [pa.field(name, kind) for name in TEXTS] + [pa.field("city", pa.string())]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


CATEGORY = pa.dictionary(pa.int8(), pa.string())


def write(path: Path, form: str, rows: list[dict]) -> list[Path]:
    if form == "mixed":
        # The first of several files is looked at before they are read.
        third = len(rows) // 3
        parts = zip(("encoded", "plain", "annotated"), (rows[:third], rows[third : 2 * third], rows[2 * third :]))
        return [file for form, part in parts for file in write(path / form, form, part)]
    path.mkdir(parents=True, exist_ok=True)
    file = path / f"{form}.parquet"
    if form == "annotated":
        # What the file says to be JSON, and the contract to be text.
        whole = table(rows)
        json = pa.json_()
        for at in (1, 2):
            whole = whole.set_column(at, whole.field(at).name, pa.ExtensionArray.from_storage(json, whole.column(at).combine_chunks()))
        pq.write_table(whole, file)
        return [file]
    kinds = {"categories": CATEGORY, "large": pa.large_string(), "large categories": pa.dictionary(pa.int32(), pa.large_string())}
    options = {
        "plain": {"use_dictionary": False},
        # Dictionaries are given up in the middle of a group.
        "given up": {"dictionary_pagesize_limit": 20, "data_page_size": 1000},
        "pages": {"data_page_size": 500, "row_group_size": 3000, "data_page_version": "2.0"},
    }
    pq.write_table(table(rows, kinds.get(form, pa.string())), file, **options.get(form, {"row_group_size": 5500}))
    return [file]


@pytest.mark.parametrize("form", ["plain", "encoded", "given up", "pages", "categories", "large", "large categories", "annotated", "mixed"])
def test_every_form_of_a_text_is_judged_alike(mesh: Mesh, tmp_path: Path, form: str):
    mesh.write("domains/lab/products/parcels/product.yaml", CONTRACT)
    rows = made()
    reasons = {row["id"]: broken(row) for row in rows}
    good = [row for row in rows if not reasons[row["id"]]]
    counts: dict[str, int] = {}
    for found in reasons.values():
        for rule in found:
            counts[rule] = counts.get(rule, 0) + 1
    sources = [f"parcels={file}" for file in write(tmp_path / "data", form, rows)]

    [rehearsed] = mesh.json("explain", "lab/parcels", *sources)["tables"]
    assert {rule: count["rows"] for rule, count in rehearsed["reasons"].items()} == counts
    assert rehearsed["metrics"][0]["value"] == 3.0
    [report] = mesh.publish("lab/parcels", *sources)["tables"]
    assert {rule: count["rows"] for rule, count in report["reasons"].items()} == counts
    assert report["metrics"][0]["value"] == 3.0
    samples = {sample["value"] for sample in report["reasons"]["enum:kind"]["samples"]}
    assert samples == {"drone"}

    assert mesh.query("SELECT * FROM lab.parcels.parcels ORDER BY id").to_pylist() == good
    location = mesh.metadata_locations("lab/parcels")["parcels"]
    read = iceberg_table(location).scan().to_arrow().sort_by("id")
    assert read.to_pylist() == good
    held = mesh.json("quarantine", "lab/parcels")
    assert {row["id"]: {key: row[key] for key in rows[0]} for row in held} == {row["id"]: row for row in rows if reasons[row["id"]]}

    # The same rows in another form are the same data.
    other = write(tmp_path / "other", "encoded" if form == "plain" else "plain", rows)
    again = mesh.publish("lab/parcels", *(f"parcels={file}" for file in other))
    assert again["status"] == "repeat"


def test_what_a_dictionary_holds_and_no_row_has_breaks_nothing(mesh: Mesh, tmp_path: Path):
    mesh.write("domains/lab/products/parcels/product.yaml", CONTRACT)
    rows = [{**row, "kind": KINDS[row["id"] % 4], "word": "beta", "grade": "ABC"[row["id"] % 3], "note": "plain"} for row in made()]
    whole = table(rows)
    kinds = pa.array([KINDS.index(row["kind"]) for row in rows], pa.int8())
    whole = whole.set_column(1, "kind", pa.DictionaryArray.from_arrays(kinds, pa.array([*KINDS, "drone"])))
    file = tmp_path / "parcels.parquet"
    pq.write_table(whole, file)
    [report] = mesh.publish("lab/parcels", f"parcels={file}")["tables"]
    assert report["reasons"] == {} and report["published"] == len(rows)


def test_a_file_without_a_column_that_another_has_encoded(mesh: Mesh, tmp_path: Path):
    contract = CONTRACT.replace("{name: kind, type: string, required: true, enum", "{name: kind, type: string, enum")
    mesh.write("domains/lab/products/parcels/product.yaml", contract)
    rows = [row for row in made() if not broken(row) - {"required:kind"}]
    half = len(rows) // 2
    first, second = tmp_path / "first.parquet", tmp_path / "second.parquet"
    pq.write_table(table(rows[:half]), first)
    pq.write_table(table(rows[half:]).drop_columns(["kind"]), second)
    mesh.publish("lab/parcels", f"parcels={first}", f"parcels={second}")
    found = mesh.query("SELECT * FROM lab.parcels.parcels ORDER BY id").to_pylist()
    assert found == rows[:half] + [{**row, "kind": None} for row in rows[half:]]


KEPT = """\
dataProduct:
  name: kept
  version: 1.0.0
  owner: lab-team
  schema:
    - name: kept
      write: upsert
      deleteWhen: op = 'D'
      columns:
        - {name: id, type: long, primaryKey: true}
        - {name: op, type: string, enum: [U, D]}
        - {name: kind, type: string, enum: [air, rail, ship, truck]}
        - {name: port, type: string, references: lab/ports.ports.code}
        - {name: unit, type: string, quality: [{name: units, metric: invalidValues, arguments: {pattern: '^(kg|lb)$'}, mustBe: 0}]}
        - {name: day, type: string, pattern: '^day [0-9]+$', minLength: 5}
      quarantine: {limit: 100%}
"""

PORTS = """\
dataProduct:
  name: ports
  version: 1.0.0
  owner: lab-team
  schema:
    - {name: ports, columns: [{name: code, type: string, primaryKey: true}]}
"""


def test_rules_that_look_at_other_columns_meet_theirs(mesh: Mesh, tmp_path: Path):
    """Rows that delete, refer and are measured, beside texts that stay numbers, of more values than a batch has rows."""
    mesh.write("domains/lab/products/kept/product.yaml", KEPT)
    mesh.write("domains/lab/products/ports/product.yaml", PORTS)
    ports = tmp_path / "ports.csv"
    ports.write_text("code\nBRN\nZRH\n")
    mesh.publish("lab/ports", f"ports={ports}")

    def row(n: int, late: bool) -> dict:
        return {
            "id": n,
            "op": "D" if late and n % 3 == 0 else "U",
            "kind": "drone" if n % 1000 == 7 else KINDS[(n + late) % 4],
            "port": "XXX" if n % 1000 == 8 else "BRN",
            "unit": "kg" if n % 2 else "lb",
            # Sorted: a large dictionary in few bytes.
            "day": "day x" if n % 5000 == 9 else f"day {n // 4}",
        }

    def is_good(row: dict) -> bool:
        return row["op"] == "D" or (row["kind"] != "drone" and row["port"] != "XXX" and row["day"] != "day x")

    expected: dict[int, dict] = {}
    for late, numbers in ((False, range(60_000)), (True, range(30_000, 90_000))):
        rows = [row(n, late) for n in numbers]
        file = tmp_path / f"kept-{late}.parquet"
        pq.write_table(pa.Table.from_pylist(rows), file, dictionary_pagesize_limit=10 << 20)
        [chunk] = [pq.ParquetFile(file).metadata.row_group(0).column(5)]
        assert chunk.has_dictionary_page
        report = mesh.publish("lab/kept", f"kept={file}")
        held = [row for row in rows if not is_good(row)]
        assert report["tables"][0]["quarantined"] == len(held)
        assert report["tables"][0]["metrics"][0]["passed"]
        for one in filter(is_good, rows):
            if one["op"] == "D":
                expected.pop(one["id"], None)
            else:
                expected[one["id"]] = one
    found = mesh.query("SELECT * FROM lab.kept.kept ORDER BY id").to_pylist()
    assert found == [expected[key] for key in sorted(expected)]
