"""Building environments of other programs' own: once, whole or not at all; Label Studio's for one."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from annotate import environments
from annotate.studio import environment
from dsmoe_core.errors import PrerequisiteError

# Writes down what it was asked, and leaves what uv would leave.
BUILDS = """
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
    """Puts a script in uv's place; gives the file where it notes its calls."""

    def use(script: str) -> Path:
        program = tmp_path / "uv"
        program.write_text(f"#!{sys.executable}\n{script}")
        program.chmod(0o755)
        monkeypatch.setattr(environments, "find_uv", lambda purpose: str(program))
        return tmp_path / "calls"

    return use


def test_it_is_built_once(tmp_path: Path, use_uv: Callable[[str], Path]) -> None:
    calls = use_uv(BUILDS)
    said: list[str] = []
    program = environment.ensure(tmp_path / "envs", said.append)
    assert program.exists()
    assert program.parent.parent.name.startswith("label-studio-")
    assert environment.ensure(tmp_path / "envs", said.append) == program
    assert calls.read_text().splitlines() == ["venv --clear", "pip sync"]
    assert len(said) == 2


def test_two_processes_at_once_build_once(tmp_path: Path, use_uv: Callable[[str], Path]) -> None:
    calls = use_uv(BUILDS)
    said: list[str] = []
    threads = [
        threading.Thread(target=environment.ensure, args=(tmp_path / "envs", said.append)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls.read_text().splitlines() == ["venv --clear", "pip sync"]
    assert said.count("another process is at it; waiting for it") == 2


def test_a_build_that_failed_or_was_killed_is_begun_again(
    tmp_path: Path, use_uv: Callable[[str], Path]
) -> None:
    use_uv(BUILDS + "else: sys.exit('resolver: no such package')")
    with pytest.raises(PrerequisiteError, match=r"\(exit 1\): resolver: no such package\. Check that"):
        environment.ensure(tmp_path / "envs", lambda _: None)
    calls = use_uv(BUILDS)
    calls.unlink()
    environment.ensure(tmp_path / "envs", lambda _: None)
    assert calls.read_text().splitlines() == ["venv --clear", "pip sync"]


def test_a_disk_that_fills_up_on_the_way_is_named(tmp_path: Path, use_uv: Callable[[str], Path]) -> None:
    use_uv("import sys; sys.exit('error: failed to copy: No space left on device (os error 28)')")
    with pytest.raises(PrerequisiteError, match=r"the disk of .* is full"):
        environment.ensure(tmp_path / "envs", lambda _: None)


def test_a_disk_that_is_too_full_to_begin_is_named(
    tmp_path: Path, use_uv: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_uv(BUILDS)
    monkeypatch.setattr(environments.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**9})())
    with pytest.raises(PrerequisiteError, match=r"only 1\.0 GB are free .* needs 1\.5 GB"):
        environment.ensure(tmp_path / "envs", lambda _: None)


def test_uv_missing_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uv", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        PrerequisiteError, match=r"it builds Label Studio's environment.*Install it: pip install"
    ):
        environment.ensure(tmp_path / "envs", lambda _: None)
