"""Tests of the database server, with a shell script in place of mongod."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from annotate.review import process_guard, server
from dsmoe_core.errors import ReviewError

GUARD = Path(process_guard.__file__)


def wait_until(condition: str, path: Path, seconds: float = 20.0) -> bool:
    """Wait until a file exists, or the process whose id it holds has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        met = path.exists() if condition == "exists" else not Path("/proc", path.read_text().strip()).exists()
        if met:
            return True
        time.sleep(0.05)
    return False


def fake_mongod(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a shell script in place of mongod."""
    path = folder / "mongod"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(server, "find_mongod", lambda: path)


def test_guard_returns_the_exit_code_of_the_program() -> None:
    command = [sys.executable, "-I", GUARD, "sh", "-c", "exit 7"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as guard:
        assert guard.wait() == 7


def test_guarded_program_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = f"echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 600"
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys; subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE).wait()",
            *[sys.executable, "-I", str(GUARD), "sh", "-c", script],
        ]
    )
    assert wait_until("exists", pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert wait_until("ended", pid)


def test_program_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard_file = tmp_path / "guard.py"
    guard_file.write_text(GUARD.read_text().replace("GRACE_SECONDS = 15.0", "GRACE_SECONDS = 0.3"))
    monkeypatch.setattr(process_guard, "__file__", str(guard_file))
    pid = tmp_path / "pid"
    stubborn = f"trap '' TERM; echo $$ > {pid}.new; mv {pid}.new {pid}; while :; do sleep 0.1; done"
    guard = process_guard.start(["sh", "-c", stubborn], tmp_path / "log")
    assert wait_until("exists", pid)
    process_guard.stop(guard)
    assert guard.returncode == 256 - signal.SIGKILL
    assert wait_until("ended", pid)


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("exit 100", "dsmoe review"),
        ("exit 14", "code 14"),
        (
            """echo '{"s":"F","msg":"Fatal","attr":{"error":"No space left on device"}}' > $4; exit 14""",
            "code 14: No space left on device",
        ),
        ("""echo '{"s":"I","msg":"fine"}' > $4; exit 1""", "code 1"),
    ],
)
def test_database_that_does_not_start_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, problem: str
) -> None:
    fake_mongod(tmp_path, monkeypatch, script)
    with pytest.raises(ReviewError, match=problem), server.database(tmp_path / "review"):
        pytest.fail("the database must not be up")


def test_hanging_database_is_terminated_after_the_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = tmp_path / "pid"
    fake_mongod(tmp_path, monkeypatch, f"echo $$ > {pid}; exec sleep 600")
    monkeypatch.setattr(server, "START_SECONDS", 0.5)
    with pytest.raises(ReviewError, match=r"mongod\.log"), server.database(tmp_path / "review"):
        pytest.fail("the database must not be up")
    assert wait_until("exists", pid)
    assert wait_until("ended", pid)


def test_unusable_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_mongod(tmp_path, monkeypatch, "exit 0")
    (tmp_path / "file").touch()
    with pytest.raises(ReviewError, match="file"), server.database(tmp_path / "file"):
        pytest.fail("the database must not be up")


def test_external_server_that_does_not_respond_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "EXTERNAL_SECONDS", 0.0)
    with (
        pytest.raises(ReviewError, match="DSMOE_REVIEW_URI"),
        server.database(tmp_path / "review", "mongodb://127.0.0.1:9"),
    ):
        pytest.fail("the database must not be up")
    assert not (tmp_path / "review").exists()


def test_fiftyone_is_configured_before_its_import_without_tracking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.delitem(sys.modules, "fiftyone", raising=False)
    server.configure_fiftyone("mongodb://127.0.0.1:4711")
    assert os.environ["FIFTYONE_DATABASE_URI"] == "mongodb://127.0.0.1:4711"
    assert os.environ["FIFTYONE_DO_NOT_TRACK"] == "true"
    assert os.environ["FIFTYONE_DEFAULT_APP_ADDRESS"] == "127.0.0.1"


def test_second_database_in_one_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    loaded = SimpleNamespace(config=SimpleNamespace(database_uri="mongodb://127.0.0.1:1"))
    monkeypatch.setitem(sys.modules, "fiftyone", loaded)  # type: ignore[arg-type]
    server.configure_fiftyone("mongodb://127.0.0.1:1")
    with pytest.raises(ReviewError, match=r"mongodb://127\.0\.0\.1:1"):
        server.configure_fiftyone("mongodb://127.0.0.1:2")
