"""The ML backend as a process: start, status, stop, and errors while starting."""

from __future__ import annotations

import os
import signal
import socket
import stat
import time
from collections.abc import Iterator

import httpx
import pytest
from ports import taken_port

from dsmoe_core.errors import StudioError, WorkspaceError
from pipelines import cli
from pipelines.services.ml_backend.process import MLBackendProcess
from pipelines.workspace.workspace import Workspace
from tests.pipelines.services.ml_backend.stubs import Promote


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def quiet(_: str) -> None:
    pass


@pytest.fixture
def ml_backend(workspace: Workspace) -> Iterator[MLBackendProcess]:
    workspace.complete()
    process = MLBackendProcess(workspace.path, free_port())
    yield process
    process.down()


@pytest.mark.slow
def test_starts_once_restarts_after_a_kill_and_stops(
    ml_backend: MLBackendProcess, promote: Promote, workspace: Workspace
) -> None:
    promote("m1")
    url = ml_backend.up(quiet)
    first = ml_backend.status()
    assert (first.running, first.version) == (True, workspace.prediction_version("m1"))
    assert MLBackendProcess(workspace.path, free_port()).up(quiet) == url  # a running one keeps its port
    assert ml_backend.status().pid == first.pid
    assert httpx.get(f"{url}/health").status_code == 401
    assert stat.S_IMODE(ml_backend.credentials_path.stat().st_mode) == 0o600
    assert ml_backend.credentials().password not in ml_backend.log.read_text() + repr(
        ml_backend.credentials()
    )
    assert cli.run(["backend", str(workspace.path)]) == 2  # one runs already
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    while ml_backend.status().running:
        time.sleep(0.01)
    assert ml_backend.up(quiet) == url
    assert ml_backend.status().pid != first.pid
    assert ml_backend.down()
    assert not ml_backend.down()
    assert not ml_backend.status().running


def test_lock_has_the_port_that_is_used(workspace: Workspace) -> None:
    with taken_port() as port:
        process = MLBackendProcess(workspace.path, port)
        with pytest.raises(StudioError, match=str(port)), process.hold_lock():
            pytest.fail("the port is taken")
        with process.hold_lock(fixed_port=False) as free:
            assert free > port
            assert process.status().url == f"http://127.0.0.1:{free}"


@pytest.mark.slow
def test_next_port_is_used_where_the_port_is_taken(workspace: Workspace, promote: Promote) -> None:
    workspace.complete()
    promote("m1")
    with taken_port() as port:
        process = MLBackendProcess(workspace.path, port)
        try:
            url = process.up(quiet)
            assert int(url.rpartition(":")[2]) > port
            assert MLBackendProcess(workspace.path, port).status().url == url
        finally:
            process.down()


@pytest.mark.slow
def test_error_while_starting_contains_the_end_of_the_log(
    ml_backend: MLBackendProcess, workspace: Workspace
) -> None:
    (workspace.path / "dsmoe.yaml").write_text("version: 7")
    with pytest.raises(StudioError, match=r"version[\s\S]*ml-backend\.log"):
        ml_backend.up(quiet)


def test_damaged_credentials_file_is_refused(ml_backend: MLBackendProcess) -> None:
    ml_backend.credentials_path.write_text("{")
    with pytest.raises(WorkspaceError, match=r"ml-backend\.json"):
        ml_backend.up(quiet)
