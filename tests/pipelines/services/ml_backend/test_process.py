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
from pipelines.services.ml_backend.process import BackEnd
from pipelines.workspace.workspace import Workspace
from tests.pipelines.services.ml_backend.asking import Promote


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def quiet(_: str) -> None:
    pass


@pytest.fixture
def back_end(workspace: Workspace) -> Iterator[BackEnd]:
    workspace.complete()
    own = BackEnd(workspace.path, free_port())
    yield own
    own.down()


@pytest.mark.slow
def test_it_is_started_once_survives_a_kill_and_is_stopped(
    back_end: BackEnd, promote: Promote, workspace: Workspace
) -> None:
    promote("m1")
    url = back_end.up(quiet)
    first = back_end.status()
    assert (first.running, first.version) == (True, workspace.version_of("m1"))
    assert BackEnd(workspace.path, free_port()).up(quiet) == url  # whatever port is asked for
    assert back_end.status().pid == first.pid
    assert httpx.get(f"{url}/health").status_code == 401
    assert stat.S_IMODE(back_end.kept.stat().st_mode) == 0o600
    assert back_end.credentials().password not in back_end.log.read_text() + repr(back_end.credentials())
    assert cli.run(["backend", str(workspace.path)]) == 2  # it has one already
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    while back_end.status().running:
        time.sleep(0.01)
    assert back_end.up(quiet) == url
    assert back_end.status().pid != first.pid
    assert back_end.down()
    assert not back_end.down()
    assert not back_end.status().running


def test_a_port_in_use_is_named_with_the_remedy(back_end: BackEnd, workspace: Workspace) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(StudioError, match=r"in use\. Set another studio\.back_end_port"):
            BackEnd(workspace.path, taken.getsockname()[1]).up(quiet)


@pytest.mark.slow
def test_one_that_ends_while_starting_shows_the_end_of_its_log(
    back_end: BackEnd, workspace: Workspace
) -> None:
    (workspace.path / "dsmoe.yaml").write_text("version: 7")
    with pytest.raises(StudioError, match=r"ended while it was starting[\s\S]*version[\s\S]*back-end\.log"):
        back_end.up(quiet)


def test_damaged_credentials_are_named(back_end: BackEnd) -> None:
    back_end.kept.write_text("{")
    with pytest.raises(WorkspaceError, match=r"back-end\.json is damaged"):
        back_end.up(quiet)
