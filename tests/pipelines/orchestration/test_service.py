"""Dagster's real web server and daemon for a stub workspace."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from pipelines import cli
from pipelines.orchestration.service import ScheduleService
from pipelines.workspace.loop_lock import process_start
from pipelines.workspace.workspace import Workspace

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def service(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScheduleService]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    made = ScheduleService(workspace.path)
    yield made
    made.down()


def test_service_that_does_not_run(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    service = ScheduleService(workspace.path)
    assert service.status().pid is None
    assert service.down() is False
    assert cli.run(["schedule", "status", str(workspace.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "pid": None,
        "url": "http://127.0.0.1:3070",
        "healthy": False,
    }
    assert cli.run(["schedule", "down", str(workspace.path)]) == 0


def test_process_id_of_another_process_is_not_ours(workspace: Workspace) -> None:
    service = ScheduleService(workspace.path)
    service.home.mkdir()
    stored = {"pid": os.getpid(), "start": "1", "port": 3070}
    (service.home / "process.json").write_text(json.dumps(stored))
    assert service.status().pid is None
    assert service.down() is False


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_server_starts_serves_its_page_runs_the_sensor_and_stops(
    workspace: Workspace, service: ScheduleService
) -> None:
    url = service.up(lambda _: None)
    assert service.up(lambda _: None) == url  # it runs already
    status = service.status()
    assert status.healthy
    assert status.pid is not None
    page = httpx.get(url, timeout=60, follow_redirects=True, trust_env=False)
    assert page.status_code == 200
    assert "dagster" in page.text.lower()
    assert yaml.safe_load((service.home / "dagster.yaml").read_text())["telemetry"] == {"enabled": False}
    deadline = time.monotonic() + 400
    while [row.state for row in workspace.rounds()] != ["open"]:  # opened by a run that the sensor started
        assert time.monotonic() < deadline, service.log.read_text()[-3000:]
        time.sleep(1)
    assert service.down() is True
    assert process_start(status.pid) == "ended"
    with pytest.raises(httpx.HTTPError):
        httpx.get(url, timeout=5, trust_env=False)
