"""The wheel is complete: data files, typing markers, licence, command."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest
import uv

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("annotate", "dsmoe_core", "pipelines", "prompts", "ui")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel that `uv build` makes of the working tree."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([uv.find_uv_bin(), "build", "--quiet", "--wheel", "--out-dir", folder, ROOT], check=True)
    (built,) = folder.glob("dsmoe-*.whl")
    return zipfile.ZipFile(built)


def test_wheel_has_every_tracked_file_of_the_packages(wheel: zipfile.ZipFile) -> None:
    listed = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True
    )
    files = set(listed.stdout.split())
    assert {f"{package}/py.typed" for package in PACKAGES} <= files
    assert any(name.startswith("prompts/glossary/") and name.endswith(".yaml") for name in files)
    assert "annotate/studio/environment/label-studio.lock" in files
    assert files - set(wheel.namelist()) == set()


def test_wheel_has_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)


def test_wheel_has_licence_and_command(wheel: zipfile.ZipFile) -> None:
    (licence,) = [name for name in wheel.namelist() if name.endswith(".dist-info/licenses/LICENSE")]
    (entries,) = [name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt")]
    assert wheel.read(licence) == (ROOT / "LICENSE").read_bytes()
    assert "dsmoe = pipelines.cli:main" in wheel.read(entries).decode()
