"""The templates for continuous integration: their own commands, on a repository with a base and a change."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from conftest import PROJECT

TEMPLATES = PROJECT / "examples" / "ci"

PRODUCT = """\
dataProduct:
  name: {name}
  version: 1.0.0
  owner: sales-team
  schema:
    - name: rows
      columns:
        - {{name: id, type: long, primaryKey: true}}
        - {{name: email, type: string, maxLength: 100}}
"""


def commands(template: str) -> list[str]:
    """What a template runs, but for what installs the binary."""
    text = yaml.safe_load((TEMPLATES / template).read_text(encoding="utf-8"))
    if template == "gitlab-ci.yml":
        return text["contracts"]["script"]
    steps = [step for step in text["jobs"]["contracts"]["steps"] if "run" in step]
    return [step["run"] for step in steps if step["name"] != "Install datamesh"]


class Repository:
    """A mesh in a git repository: `main` is the base, `change` is checked out."""

    def __init__(self, root: Path, binary: Path):
        self.root = root
        binaries = root.parent / "bin"
        binaries.mkdir()
        (binaries / "datamesh").symlink_to(binary)
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("DATAMESH_", "GIT_", "GITHUB_", "CI_"))}
        self.environment = clean | {
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "HOME": str(root.parent),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GITHUB_BASE_REF": "main",
            "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
        }
        origin = root.parent / "origin.git"
        self.git("init", "--quiet", "--bare", "--initial-branch=main", str(origin), cwd=root.parent)
        self.git("clone", "--quiet", str(origin), str(root), cwd=root.parent)
        self.git("checkout", "--quiet", "-b", "main")
        self.write("mesh.yaml", "name: ci\n")
        self.write("domains/sales/domain.yaml", "name: sales\nowner: sales-team\n")
        for name in ("orders", "lines"):
            self.write(f"domains/sales/products/{name}/product.yaml", PRODUCT.format(name=name))
        for folder in (".github", ".gitlab"):
            (root / folder / "datamesh").mkdir(parents=True)
            shutil.copy(TEMPLATES / "changed-products", root / folder / "datamesh" / "changed-products")
        self.commit("Base")
        self.git("push", "--quiet", "origin", "main")
        self.git("checkout", "--quiet", "-b", "change")

    def git(self, *arguments: str, cwd: Path | None = None) -> None:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
        subprocess.run(command, cwd=cwd or self.root, env=self.environment, check=True, capture_output=True)

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text, encoding="utf-8")

    def edit(self, product: str, *edits: tuple[str, str]) -> None:
        path = f"domains/sales/products/{product}/product.yaml"
        text = (self.root / path).read_text(encoding="utf-8")
        for before, after in edits:
            assert before in text
            text = text.replace(before, after)
        self.write(path, text)

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def run(self, command: str) -> subprocess.CompletedProcess:
        """Runs a command as the services do: a shell that ends at the first failure."""
        shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", command]
        return subprocess.run(shell, cwd=self.root, env=self.environment, capture_output=True, text=True, timeout=120)

    def pipeline(self, template: str) -> dict[str, subprocess.CompletedProcess]:
        """Every command of the template."""
        return {command: self.run(command) for command in commands(template)}


@pytest.fixture
def repository(binary: Path, tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository", binary)


def failed(results: dict[str, subprocess.CompletedProcess]) -> list[str]:
    return [command for command, done in results.items() if done.returncode != 0]


def everything(results: dict[str, subprocess.CompletedProcess]) -> str:
    return "\n".join(f"$ {command}\n{done.returncode}\n{done.stdout}\n{done.stderr}" for command, done in results.items())


@pytest.mark.parametrize("template", ["github-actions.yml", "gitlab-ci.yml"])
class TestTemplate:
    def test_a_good_change_passes(self, repository: Repository, template: str):
        added = "        - {name: nick, type: string}\n"
        repository.edit("orders", ("1.0.0", "1.1.0"), ("maxLength: 100}\n", f"maxLength: 100}}\n{added}"))
        repository.write("domains/sales/products/new/product.yaml", PRODUCT.format(name="new"))
        repository.commit("Add a column and a product")
        results = repository.pipeline(template)
        assert failed(results) == [], everything(results)
        sarif = json.loads((repository.root / "datamesh.sarif").read_text(encoding="utf-8"))
        assert sarif["version"] == "2.1.0"
        compared = next(done for command, done in results.items() if "changed-products" in command)
        assert "sales/orders 1.0.0 to 1.1.0: 1 change" in compared.stdout
        assert "sales/lines" not in compared.stdout, "what was not changed is not compared"

    def test_a_breaking_change_as_a_minor_version_fails(self, repository: Repository, template: str):
        repository.edit("orders", ("1.0.0", "1.1.0"), ("maxLength: 100", "maxLength: 200"))
        repository.edit("lines", ("1.0.0", "1.0.1"), ("owner: sales-team\n", "owner: sales-team\n  description: Lines\n"))
        repository.commit("Break a promise")
        results = repository.pipeline(template)
        assert [command for command in failed(results) if "changed-products" in command] == failed(results) != []
        compared = next(done for command, done in results.items() if "changed-products" in command)
        assert "sales/lines 1.0.0 to 1.0.1" in compared.stdout, "one refusal does not hide the rest"
        if template == "github-actions.yml":
            line = "::error file=domains/sales/products/orders/product.yaml,line=9,endLine=9,col="
            assert line in compared.stdout, compared.stdout
        else:
            assert "refused: 1.0.0 to 1.1.0 is too small a step" in compared.stdout, compared.stdout
        worktrees = repository.run("git worktree list").stdout
        assert len(worktrees.splitlines()) == 1, "nothing is left behind"

    def test_a_manifest_with_errors_fails_and_is_reported(self, repository: Repository, template: str):
        repository.edit("orders", ("type: long", "type: lnog"))
        repository.commit("Mistype")
        results = repository.pipeline(template)
        checks = [command for command in failed(results) if command.startswith("datamesh check")]
        assert len(checks) == 1, everything(results)
        sarif = json.loads((repository.root / "datamesh.sarif").read_text(encoding="utf-8"))
        found = [result["ruleId"] for result in sarif["runs"][0]["results"] if result["level"] == "error"]
        assert found == ["invalid-type"]


def test_the_plan_is_told_and_not_run():
    for template in ("github-actions.yml", "gitlab-ci.yml"):
        text = (TEMPLATES / template).read_text(encoding="utf-8")
        assert "# - datamesh plan" in text or "#   run: datamesh plan" in text
        assert not any("datamesh plan" in command for command in commands(template))
