"""Detection uv."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from annotate.uv import find_uv
from dsmoe_core.errors import PrerequisiteError


def test_the_uv_of_this_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert Path(find_uv("is tested")).is_file()


def test_else_the_one_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uv", None)
    program = tmp_path / "uv"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_uv("is tested") == str(program)


def test_no_uv_is_said_with_what_it_is_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uv", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        PrerequisiteError, match="neither in this environment nor on PATH; it installs MongoDB"
    ):
        find_uv("installs MongoDB")
