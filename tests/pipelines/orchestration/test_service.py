"""Dagster's real web server and daemon for a stub workspace."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from annotate.studio.fake import FakeStudio
from pipelines import cli
from pipelines.detectors.stub_detector import StubDetector
from pipelines.orchestration.definitions import CYCLE, OPEN
from pipelines.orchestration.service import ScheduleService
from pipelines.progress import SilentProgress
from pipelines.rounds.context import LoopContext
from pipelines.settings.gate import GateSettings
from pipelines.settings.policy import ScheduleSettings
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


CHECKS = """{shouldShowNux assetNodeOrError(assetKey: {path: ["champion"]}) {
... on AssetNode {assetChecksOrError {... on AssetChecks {checks {
name executionForLatestMaterialization {runId evaluation {success severity}}}}}}}}"""
RUNS = "{runsOrError {... on Runs {results {runId status jobName tags {key value}}}}}"


def query(url: str, text: str) -> Any:
    answer = httpx.post(f"{url}/graphql", json={"query": text}, timeout=120, trust_env=False)
    assert answer.is_success, answer.text
    return answer.json()["data"]


def wait_for_rounds(workspace: Workspace, service: ScheduleService, states: list[str]) -> None:
    deadline = time.monotonic() + 900
    while [row.state for row in workspace.rounds()] != states:
        assert time.monotonic() < deadline, service.log.read_text()[-3000:]
        time.sleep(1)


def annotate(workspace: Workspace, label: Callable[[LoopContext], None]) -> None:
    """Answer the open round through the stub studio's file, as annotators in another process do."""
    studio = FakeStudio(workspace.path / "studio" / "stub.json")
    label(LoopContext(workspace, studio, StubDetector(), SilentProgress()))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_sensor_runs_cycles_on_new_annotations_and_a_refused_candidate_is_a_failed_check(
    workspace: Workspace, service: ScheduleService, label: Callable[[LoopContext], None]
) -> None:
    settings = workspace.settings.model_copy(update={"schedule": ScheduleSettings(every_s=30)})
    settings.write(workspace.path / "dsmoe.yaml")
    url = service.up(lambda _: None)
    assert service.up(lambda _: None) == url  # it runs already
    status = service.status()
    assert status.healthy
    assert status.pid is not None
    page = httpx.get(url, timeout=60, follow_redirects=True, trust_env=False)
    assert page.status_code == 200
    assert "dagster" in page.text.lower()
    assert yaml.safe_load((service.home / "dagster.yaml").read_text())["telemetry"] == {"enabled": False}
    assert query(url, CHECKS)["shouldShowNux"] is False
    wait_for_rounds(workspace, service, ["open"])
    annotate(workspace, label)
    wait_for_rounds(workspace, service, ["closed", "open"])

    strict = settings.model_copy(update={"gate": GateSettings(checks=("min_gain",), min_gain=0.99)})
    strict.write(workspace.path / "dsmoe.yaml")
    annotate(workspace, label)
    wait_for_rounds(workspace, service, ["closed", "closed", "open"])
    assert [row.promoted for row in workspace.rounds()] == [True, False, None]
    assert workspace.champion() == workspace.rounds()[0].model
    runs = query(url, RUNS)["runsOrError"]["results"]
    assert [run["jobName"] for run in runs] == [CYCLE, CYCLE, OPEN]  # the newest first
    assert all({"key": "dagster/sensor_name", "value": "policy_sensor"} in run["tags"] for run in runs)
    (check,) = query(url, CHECKS)["assetNodeOrError"]["assetChecksOrError"]["checks"]
    assert check["name"] == "min_gain"
    assert check["executionForLatestMaterialization"] == {
        "runId": runs[0]["runId"],
        "evaluation": {"success": False, "severity": "WARN"},
    }

    assert service.down() is True
    assert process_start(status.pid) == "ended"
    with pytest.raises(httpx.HTTPError):
        httpx.get(url, timeout=5, trust_env=False)
