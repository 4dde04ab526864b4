"""A database that ends with us, and FiftyOne pointed at it; the database here is a script of ours."""

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

KEEPER = Path(process_guard.__file__)


def until(condition: str, path: Path, seconds: float = 20.0) -> bool:
    """Wait until a file is there or a process is gone."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        met = path.exists() if condition == "there" else not Path("/proc", path.read_text().strip()).exists()
        if met:
            return True
        time.sleep(0.05)
    return False


def fake_mongod(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let this shell script be the mongod that is found."""
    path = folder / "mongod"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(server, "find_mongod", lambda: path)


def test_the_keeper_passes_on_the_exit_code() -> None:
    command = [sys.executable, "-I", KEEPER, "sh", "-c", "exit 7"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as kept:
        assert kept.wait() == 7


def test_the_kept_program_ends_even_when_its_owner_is_killed(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    kept = f"echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 600"
    owner = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys; subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE).wait()",
            *[sys.executable, "-I", str(KEEPER), "sh", "-c", kept],
        ]
    )
    assert until("there", pid)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert until("gone", pid)


def test_a_program_that_will_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "keeper.py"
    own.write_text(KEEPER.read_text().replace("GRACE_SECONDS = 15.0", "GRACE_SECONDS = 0.3"))
    monkeypatch.setattr(process_guard, "__file__", str(own))
    pid = tmp_path / "pid"
    stubborn = f"trap '' TERM; echo $$ > {pid}.new; mv {pid}.new {pid}; while :; do sleep 0.1; done"
    kept = process_guard.start(["sh", "-c", stubborn], tmp_path / "log")
    assert until("there", pid)
    process_guard.stop(kept)
    assert kept.returncode == 256 - signal.SIGKILL
    assert until("gone", pid)


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("exit 100", "is in use by another process, or may not be written. Close the other `dsmoe review`"),
        ("exit 14", "ended at once with code 14: it wrote no log"),
        (
            """echo '{"s":"F","msg":"Fatal","attr":{"error":"No space left on device"}}' > $4; exit 14""",
            "code 14: No space left on device",
        ),
        ("""echo '{"s":"I","msg":"fine"}' > $4; exit 1""", "code 1: its log names no error"),
    ],
)
def test_a_database_that_does_not_start_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, problem: str
) -> None:
    fake_mongod(tmp_path, monkeypatch, script)
    with pytest.raises(ReviewError, match=problem), server.database(tmp_path / "review"):
        pytest.fail("it cannot be up")


def test_a_database_that_hangs_is_given_up_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = tmp_path / "pid"
    fake_mongod(tmp_path, monkeypatch, f"echo $$ > {pid}; exec sleep 600")
    monkeypatch.setattr(server, "START_SECONDS", 0.5)
    with pytest.raises(ReviewError, match="does not answer"), server.database(tmp_path / "review"):
        pytest.fail("it cannot be up")
    assert until("there", pid)
    assert until("gone", pid)


def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_mongod(tmp_path, monkeypatch, "exit 0")
    (tmp_path / "file").touch()
    with pytest.raises(ReviewError, match=r"folder .* cannot be used"), server.database(tmp_path / "file"):
        pytest.fail("it cannot be up")


def test_a_server_of_the_users_that_does_not_answer_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "EXTERNAL_SECONDS", 0.0)
    with (
        pytest.raises(ReviewError, match=r"does not answer .*the server of DSMOE_REVIEW_URI"),
        server.database(tmp_path / "review", "mongodb://127.0.0.1:9"),
    ):
        pytest.fail("it cannot be up")
    assert not (tmp_path / "review").exists()


def test_fiftyone_is_set_up_before_its_import_and_never_tracks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.delitem(sys.modules, "fiftyone", raising=False)
    server.configure_fiftyone("mongodb://127.0.0.1:4711")
    assert os.environ["FIFTYONE_DATABASE_URI"] == "mongodb://127.0.0.1:4711"
    assert os.environ["FIFTYONE_DO_NOT_TRACK"] == "true"
    assert os.environ["FIFTYONE_DEFAULT_APP_ADDRESS"] == "127.0.0.1"


def test_one_process_reviews_one_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    loaded = SimpleNamespace(config=SimpleNamespace(database_uri="mongodb://127.0.0.1:1"))
    monkeypatch.setitem(sys.modules, "fiftyone", loaded)  # type: ignore[arg-type]
    server.configure_fiftyone("mongodb://127.0.0.1:1")
    with pytest.raises(ReviewError, match=r"another database in this process, mongodb://127\.0\.0\.1:1"):
        server.configure_fiftyone("mongodb://127.0.0.1:2")
