"""The README's quickstart does what it says: every block is run, and what it prints is compared."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from conftest import PROJECT

SECTION = "Quickstart"


def blocks() -> list[tuple[str, str]]:
    """The commands of each `sh` block of the section, with the `text` block that follows it."""
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {SECTION}\n(.*?)(?=^## )", readme, re.MULTILINE | re.DOTALL).group(1)
    fences = re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert [kind for kind, _ in fences] == ["sh", "text"] * (len(fences) // 2), "each block of commands has its output"
    return [(fences[at][1], fences[at + 1][1]) for at in range(0, len(fences), 2)]


def normal(text: str) -> str:
    """Without what differs from run to run: times and identifiers, who runs it, spaces at line ends."""
    text = re.sub(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?( UTC|Z)?", "TIME", text)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "ID", text)
    text = re.sub(r"user:\S+", "user:SOMEBODY", text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


@pytest.fixture(scope="module")
def outputs(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What each block prints, all of them run in one shell."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "examples").symlink_to(PROJECT / "examples")
    (folder / "bin").mkdir()
    (folder / "bin" / "datamesh").symlink_to(binary)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DATAMESH_")}
    environment["PATH"] = f"{folder / 'bin'}:{environment['PATH']}"
    mark = "=== end of block ==="
    script = "set -eu\n" + "".join(f"{commands}\necho '{mark}'\n" for commands, _ in blocks())
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout.split(f"{mark}\n")[:-1]


def section(name: str) -> str:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    return re.search(rf"^## {name}\n(.*?)(?=^## )", readme, re.MULTILINE | re.DOTALL).group(1)


def yaml_blocks(name: str) -> list[str]:
    return re.findall(r"^```yaml\n(.*?)^```$", section(name), re.MULTILINE | re.DOTALL)


def run(binary: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DATAMESH_")}
    return subprocess.run([str(binary), *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


PLACES = """
dataProduct:
  name: places
  version: 1.0.0
  owner: geo-domain
  schema:
    - {name: countries, columns: [{name: code, type: string, primaryKey: true}]}
    - name: cities
      unique: [[country, name]]
      columns: [{name: country, type: string}, {name: name, type: string}, {name: orders, type: long}]
"""

# What the rules of the table speak of, where a rule does not define it itself.
RULED = {
    "id": "long", "status": "string", "country": "string", "city": "string", "amount": "decimal(10,2)", "paid_at": "timestamp",
    "ordered_at": "timestamp", "shipped_at": "timestamp",
}
METRICS = ["rowCount", "nullValues", "missingValues", "invalidValues", "duplicateValues", "minimum", "maximum", "mean", "sum",
           "standardDeviation", "quantile", "countDistinct", "freshness", "outOfOrderValues", "sequenceGaps"]


def rules() -> list[tuple[str, str]]:
    """Where each example of the table of rules belongs, and what it is."""
    return re.findall(r"^\| (column|table|quality) \| `(.*?)` \| ", section("A product"), re.MULTILINE)


def test_every_rule_of_the_table_is_one(binary, tmp_path):
    write(tmp_path / "mesh.yaml", "name: rules\n")
    write(tmp_path / "domains/geo/products/places/product.yaml", PLACES)
    for at, (place, example) in enumerate(rules()):
        own = re.match(r"\{name: (\w+), type: ", example) if place == "column" else None
        columns = [example] if own else []
        columns += [f"{{name: {name}, type: '{kind}'}}" for name, kind in RULED.items() if not own or name != own.group(1)]
        lines = ["dataProduct:", f"  name: rule-{at}", "  version: 1.0.0", "  owner: sales-domain", "  schema:", "    - name: rows",
                 *([f"      {example}"] if place == "table" else []),
                 *(["      quality:", f"        - {example}"] if place == "quality" else []),
                 "      columns:", *[f"        - {column}" for column in columns]]
        write(tmp_path / f"domains/sales/products/rule-{at}/product.yaml", "\n".join(lines) + "\n")
    done = run(binary, tmp_path, "check")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert len(rules()) == len(re.findall(r"^\| (?!on |for )", section("A product"), re.MULTILINE)) and len(rules()) > 20
    text = section("A product")
    assert [metric for metric in METRICS if metric not in text] == []
    schema = json.loads(run(binary, tmp_path, "schema").stdout)
    known = schema["$defs"]["Quality"]["properties"]["metric"]["enum"]
    assert set(METRICS) <= set(known)


def test_the_manifests_and_the_test_of_a_transform_are_good(binary, tmp_path):
    (orders, *_), (large, tests) = yaml_blocks("A product"), yaml_blocks("Products of products")
    write(tmp_path / "mesh.yaml", "name: readme\n")
    write(tmp_path / "domains/sales/products/orders/product.yaml", orders)
    write(tmp_path / "domains/sales/products/large-orders/product.yaml", large)
    write(tmp_path / "domains/sales/products/large-orders/product.tests.yaml", tests)
    for command in ("check", "test"):
        done = run(binary, tmp_path, command)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "1 passed, 0 failed" in done.stdout


def test_the_section_shows_the_whole_way():
    commands = "".join(commands for commands, _ in blocks())
    ways = ["init", "new", "check", "explain", "publish", "query"]
    places = [commands.index(f"datamesh {way} ") if way != "check" else commands.index("datamesh check") for way in ways]
    assert places == sorted(places)


@pytest.mark.parametrize("at", range(len(blocks())))
def test_block(outputs, at):
    commands, expected = blocks()[at]
    assert normal(outputs[at]) == normal(expected), commands
