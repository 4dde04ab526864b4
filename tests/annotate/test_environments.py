"""Tests of building separate environments, with a script in place of uv."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from annotate import environments
from annotate.environments import find_uv
from annotate.studio import environment
from dsmoe_core.errors import PrerequisiteError

# Logs its calls and creates the files that uv would create.
FAKE_UV = """
import pathlib, sys, time
log = pathlib.Path(__file__).with_name("calls")
log.open("a").write(" ".join(sys.argv[1:3]) + "\\n")
if sys.argv[1] == "venv":
    program = pathlib.Path(sys.argv[-1]) / "bin" / "label-studio"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.touch()
    time.sleep(0.2)
"""


@pytest.fixture
def use_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Function that puts a script in place of uv and returns the log of its calls."""

    def use(script: str) -> Path:
        program = tmp_path / "uv"
        program.write_text(f"#!{sys.executable}\n{script}")
        program.chmod(0o755)
        monkeypatch.setattr(environments, "find_uv", lambda purpose: str(program))
        return tmp_path / "calls"

    return use


def test_environment_is_built_once(tmp_path: Path, use_uv: Callable[[str], Path]) -> None:
    calls = use_uv(FAKE_UV)
    messages: list[str] = []
    program = environment.ensure(tmp_path / "envs", messages.append)
    assert program.exists()
    assert program.parent.parent.name.startswith("label-studio-")
    assert environment.ensure(tmp_path / "envs", messages.append) == program
    assert calls.read_text().splitlines() == ["venv --clear", "pip sync"]
    assert len(messages) == 2


def test_concurrent_processes_build_once(tmp_path: Path, use_uv: Callable[[str], Path]) -> None:
    calls = use_uv(FAKE_UV)
    messages: list[str] = []
    threads = [
        threading.Thread(target=environment.ensure, args=(tmp_path / "envs", messages.append))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls.read_text().splitlines() == ["venv --clear", "pip sync"]
    assert len(messages) == 4  # two of the build, and one of each thread that waits


def test_failed_build_is_started_again(tmp_path: Path, use_uv: Callable[[str], Path]) -> None:
    use_uv(FAKE_UV + "else: sys.exit('resolver: no such package')")
    with pytest.raises(PrerequisiteError, match=r"\(exit 1\): resolver: no such package"):
        environment.ensure(tmp_path / "envs", lambda _: None)
    calls = use_uv(FAKE_UV)
    calls.unlink()
    environment.ensure(tmp_path / "envs", lambda _: None)
    assert calls.read_text().splitlines() == ["venv --clear", "pip sync"]


def test_full_disk_during_the_build_is_reported(tmp_path: Path, use_uv: Callable[[str], Path]) -> None:
    use_uv("import sys; sys.exit('error: failed to copy: No space left on device (os error 28)')")
    with pytest.raises(PrerequisiteError, match=str(tmp_path / "envs")) as caught:
        environment.ensure(tmp_path / "envs", lambda _: None)
    assert "os error 28" not in caught.value.problem


def test_too_little_disk_space_is_reported_before_the_build(
    tmp_path: Path, use_uv: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = use_uv(FAKE_UV)
    monkeypatch.setattr(environments.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**9})())
    with pytest.raises(PrerequisiteError, match=r"1\.0 GB .* 1\.5 GB"):
        environment.ensure(tmp_path / "envs", lambda _: None)
    assert not calls.exists()


def test_uv_of_this_environment_has_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert Path(find_uv("test")).is_file()


def test_uv_on_path_is_the_fallback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uv", None)
    program = tmp_path / "uv"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_uv("test") == str(program)


def test_missing_uv_is_reported_with_its_purpose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uv", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PrerequisiteError, match="install MongoDB"):
        find_uv("install MongoDB")
    with pytest.raises(PrerequisiteError, match="Label Studio"):
        environment.ensure(tmp_path / "envs", lambda _: None)
