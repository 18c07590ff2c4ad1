"""What the wheel holds; `test_package.py` installs it."""

import os
import zipfile
from pathlib import Path

import pytest

from conftest import SKIPS

pytestmark = pytest.mark.wheel


def test_one_wheel_is_for_all_versions():
    found = sorted(Path(os.environ.get("DATAMESH_WHEELS") or "nowhere").glob("data_mesh_framework-*.whl"))
    if not found:
        pytest.skip(SKIPS["wheel"])
    (wheel,) = found
    assert "-cp310-abi3-" in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    assert {"data_mesh_framework/_core.abi3.so", "data_mesh_framework/py.typed", "data_mesh_framework/_core.pyi"} <= set(names)
    assert not [name for name in names if "__pycache__" in name or "mypy_cache" in name]
