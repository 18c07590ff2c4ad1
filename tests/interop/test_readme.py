"""The README's quickstart does what it says: every block is run, and what it prints is compared."""

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


def test_the_section_shows_the_whole_way():
    commands = "".join(commands for commands, _ in blocks())
    ways = ["init", "new", "check", "explain", "publish", "query"]
    places = [commands.index(f"datamesh {way} ") if way != "check" else commands.index("datamesh check") for way in ways]
    assert places == sorted(places)


@pytest.mark.parametrize("at", range(len(blocks())))
def test_block(outputs, at):
    commands, expected = blocks()[at]
    assert normal(outputs[at]) == normal(expected), commands
