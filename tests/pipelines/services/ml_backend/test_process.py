"""The back end as a process: started once, found again, stopped, and what is told when it does not start."""

from __future__ import annotations

import os
import signal
import socket
import stat
import time
from collections.abc import Iterator

import httpx
import pytest

from dsmoe_core.errors import StudioError, WorkspaceError
from pipelines import cli
from pipelines.services.ml_backend.process import MLBackendProcess
from pipelines.workspace.workspace import Workspace
from tests.pipelines.services.ml_backend.asking import Promote


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def quiet(_: str) -> None:
    pass


@pytest.fixture
def ml_backend(workspace: Workspace) -> Iterator[MLBackendProcess]:
    workspace.complete()
    own = MLBackendProcess(workspace.path, free_port())
    yield own
    own.down()


@pytest.mark.slow
def test_it_is_started_once_survives_a_kill_and_is_stopped(
    ml_backend: MLBackendProcess, promote: Promote, workspace: Workspace
) -> None:
    promote("m1")
    url = ml_backend.up(quiet)
    first = ml_backend.status()
    assert (first.running, first.version) == (True, workspace.prediction_version("m1"))
    assert MLBackendProcess(workspace.path, free_port()).up(quiet) == url  # whatever port is asked for
    assert ml_backend.status().pid == first.pid
    assert httpx.get(f"{url}/health").status_code == 401
    assert stat.S_IMODE(ml_backend.kept.stat().st_mode) == 0o600
    assert ml_backend.credentials().password not in ml_backend.log.read_text() + repr(
        ml_backend.credentials()
    )
    assert cli.run(["backend", str(workspace.path)]) == 2  # it has one already
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    while ml_backend.status().running:
        time.sleep(0.01)
    assert ml_backend.up(quiet) == url
    assert ml_backend.status().pid != first.pid
    assert ml_backend.down()
    assert not ml_backend.down()
    assert not ml_backend.status().running


def test_a_port_in_use_is_named_with_the_remedy(ml_backend: MLBackendProcess, workspace: Workspace) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(StudioError, match=r"in use\. Set another studio\.ml_backend_port"):
            MLBackendProcess(workspace.path, taken.getsockname()[1]).up(quiet)


@pytest.mark.slow
def test_one_that_ends_while_starting_shows_the_end_of_its_log(
    ml_backend: MLBackendProcess, workspace: Workspace
) -> None:
    (workspace.path / "dsmoe.yaml").write_text("version: 7")
    with pytest.raises(StudioError, match=r"ended while it was starting[\s\S]*version[\s\S]*back-end\.log"):
        ml_backend.up(quiet)


def test_damaged_credentials_are_named(ml_backend: MLBackendProcess) -> None:
    ml_backend.kept.write_text("{")
    with pytest.raises(WorkspaceError, match=r"back-end\.json is damaged"):
        ml_backend.up(quiet)
