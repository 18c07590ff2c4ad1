"""Drives the `datamesh` binary on a mesh directory."""

import json
import os
import re
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

PUBLISHED, REJECTED = 0, 3
VERSION = re.compile(r"^(\s*version:\s*)(\d+)\.(\d+)\.(\d+)\s*$", re.MULTILINE)


class CommandFailed(AssertionError):
    """The binary ended with another exit code than the test expects."""


class Mesh:
    """A mesh directory and the binary that works on it."""

    def __init__(self, binary: Path, root: Path):
        self.binary = binary
        self.root = root
        self._dumps = 0
        self._outdated = False

    def run(self, *arguments: str, expect: int = 0) -> str:
        """Standard output of a command. Manifests that were written since the last publish are applied before the next."""
        if arguments[0] in ("publish", "run") or arguments[:2] == ("quarantine", "retry"):
            self.keep_up()
        done = self._run(*arguments)
        if done.returncode != expect:
            shown = " ".join(arguments)
            raise CommandFailed(f"`datamesh {shown}` exits {done.returncode}, not {expect}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def keep_up(self) -> None:
        """Applies the manifests that were written since the last publish."""
        if self._outdated:
            self._outdated = False
            self._run("apply", "--acknowledge", "--allow-retire")

    def _run(self, *arguments: str) -> subprocess.CompletedProcess:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("DATAMESH_")}
        command = [str(self.binary), "--mesh", str(self.root), *arguments]
        return subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=600)

    def json(self, *arguments: str, expect: int = 0):
        return json.loads(self.run(*arguments, "--format", "json", expect=expect))

    def publish(self, product: str, *arguments: str, expect: int = PUBLISHED) -> dict:
        return self.json("publish", product, *arguments, expect=expect)

    def metadata_locations(self, product: str) -> dict[str, str]:
        """Location of the metadata document of every published table of a product."""
        shown = self.json("show", product)
        return {table["table"]: table["metadata_location"] for table in shown["tables"]}

    def query(self, sql: str) -> pa.Table:
        """The answer, by way of a Parquet file."""
        self._dumps += 1
        folder = self.root.parent / f"{self.root.name}-answers"
        folder.mkdir(exist_ok=True)
        path = folder / f"{self._dumps}.parquet"
        self.run("query", "--format", "parquet", "--out", str(path), sql)
        return pq.read_table(path)

    def query_json(self, sql: str) -> list[dict]:
        return self.json("query", sql)

    def write(self, relative: str, text: str) -> Path:
        path = self.root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        if relative.endswith(("product.yaml", ".sql")) and (self.root / ".datamesh").exists():
            self._outdated = True
            if path.exists() and relative.endswith(".sql"):
                # Another query is another version of the product.
                manifest = path.with_name("product.yaml")
                was = manifest.read_text(encoding="utf-8")
                manifest.write_text(bumped(was, was + "\n"), encoding="utf-8")
            elif path.exists():
                text = bumped(path.read_text(encoding="utf-8"), text)
        path.write_text(text, encoding="utf-8")
        return path


def bumped(before: str, text: str) -> str:
    """The text with the next minor version, where it is another text of the same version."""
    old, new = VERSION.search(before), VERSION.search(text)
    if not old or not new or before == text:
        return text
    was, now = [tuple(int(part) for part in found.groups()[1:]) for found in (old, new)]
    if now > was or now[0] != was[0]:
        return text
    return VERSION.sub(rf"\g<1>{was[0]}.{was[1] + 1}.0", text, count=1)
