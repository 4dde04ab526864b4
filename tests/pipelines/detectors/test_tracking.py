"""Training curves in MLflow: each loss term by its name, a limited number of points, no network access."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tiny import Killed

from pipelines.detectors import tracking
from pipelines.detectors.tracking import DATABASE, EXPERIMENT, FOLDER, MAX_POINTS, track_training
from pipelines.rounds.context import LoopContext
from pipelines.rounds.loop import close_round, open_round
from pipelines.settings.tracking import TrackingSettings
from pipelines.settings.workspace import WorkspaceSettings
from pipelines.workspace.workspace import Workspace

pytest.importorskip("mlflow")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

ROOT = Path(__file__).resolve().parents[3]
PARAMETERS = {"images": 12, "learning_rate": 0.002}


@pytest.fixture
def network(workspace: Workspace) -> Workspace:
    """The workspace with settings of a detector whose training is tracked."""
    settings = workspace.settings.model_dump()
    settings["detector"]["kind"] = "ds-moe"
    workspace.settings = WorkspaceSettings.model_validate(settings)
    return workspace


def client_and_runs(workspace: Workspace, count: int = 1) -> tuple[Any, ...]:
    """The MLflow client and the runs, the latest first."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{workspace.path / FOLDER / DATABASE}")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == count
    return client, *runs


def test_continued_training_adds_to_its_curves(network: Workspace) -> None:
    steps, names = 1000, ("class", "box", "learning_rate", "gradient_norm")

    def train(first: int, end: int) -> None:
        with track_training(network, "r1-abc", PARAMETERS) as curves:
            assert curves is not None
            for step in range(first, steps + 1):
                if step == end:
                    raise Killed
                curves(step, steps, {name: step + i for i, name in enumerate(names)})

    with pytest.raises(Killed):
        train(1, end=501)
    train(401, end=steps + 1)  # it continues from a checkpoint before the kill
    client, run = client_and_runs(network)
    assert (run.info.run_name, run.info.status) == ("r1-abc", "FINISHED")
    assert run.data.params == {"images": "12", "learning_rate": "0.002"}
    for i, name in enumerate(names):
        history = client.get_metric_history(run.info.run_id, name)
        assert len(history) == MAX_POINTS
        assert all(point.value == point.step + i for point in history)
        assert max(point.step for point in history) == steps
    assert {p.name for p in (network.path / FOLDER).iterdir()} <= {DATABASE, "artifacts"}


def test_training_that_starts_over_gets_a_new_run(network: Workspace) -> None:
    def train(end: int) -> None:
        with track_training(network, "r1-abc", PARAMETERS) as curves:
            assert curves is not None
            for step in range(1, 11):
                if step == end:
                    raise Killed
                curves(step, 10, {"class": float(end)})

    with pytest.raises(Killed):
        train(end=6)
    train(end=11)
    client, last, first = client_and_runs(network, count=2)
    assert [run.info.status for run in (first, last)] == ["KILLED", "FINISHED"]
    for run, points, value in ((first, 5, 6.0), (last, 10, 11.0)):
        history = client.get_metric_history(run.info.run_id, "class")
        assert [(point.step, point.value) for point in history] == [(i, value) for i in range(1, points + 1)]
        assert run.data.params["images"] == "12"


def test_training_of_a_round_is_tracked_with_the_name_of_its_model(
    network: Workspace, context: LoopContext, label: Callable[[LoopContext], None]
) -> None:
    open_round(context)
    label(context)
    row = close_round(context)
    client, run = client_and_runs(network)
    assert run.info.run_name == row.model
    (steps,) = {len(client.get_metric_history(run.info.run_id, name)) for name in run.data.metrics}
    assert 1 <= steps <= MAX_POINTS


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Warnings of the tracking module, recorded without the logging handlers that other libraries change."""
    warnings: list[str] = []
    monkeypatch.setattr(tracking._log, "warning", lambda text, *parts: warnings.append(text % parts))
    return warnings


def fail(*_: object, **__: object) -> None:
    from mlflow.exceptions import MlflowException

    raise MlflowException("database is locked\n(while it wrote)")


def test_training_continues_after_mlflow_failed(
    network: Workspace, monkeypatch: pytest.MonkeyPatch, warned: list[str]
) -> None:
    from mlflow import MlflowClient

    with track_training(network, "r0", PARAMETERS) as curves:
        assert curves is not None
        curves(1, 3, {"class": 1.0})
        for name in ("log_batch", "set_terminated"):
            monkeypatch.setattr(MlflowClient, name, fail)
        curves(2, 3, {"class": 1.0})
        curves(3, 3, {"class": 1.0})
    (warning,) = warned
    assert warning.endswith(": database is locked")
    with pytest.raises(ValueError, match="the training's own"), track_training(network, "r1", PARAMETERS):
        raise ValueError("the training's own")


def test_database_of_another_mlflow_version_leaves_a_training_without_curves(
    network: Workspace, warned: list[str]
) -> None:
    folder = network.path / FOLDER
    folder.mkdir()
    with closing(sqlite3.connect(folder / DATABASE)) as tables:
        tables.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        tables.execute("INSERT INTO alembic_version VALUES ('of_tomorrow')")
        tables.commit()
    with track_training(network, "r0", PARAMETERS) as curves:
        assert curves is None
    (warning,) = warned
    assert "of_tomorrow" in warning


def test_failed_training_is_marked(network: Workspace) -> None:
    with pytest.raises(ValueError, match="broken"), track_training(network, "r0-def", PARAMETERS):
        raise ValueError("broken")
    assert client_and_runs(network)[1].info.status == "FAILED"


TRACKING_PROCESS = """
import socket, sys, time
from pathlib import Path
hosts = []
def refuse(host, *rest, **named):
    hosts.append(host)
    raise OSError("refused")
socket.getaddrinfo = refuse
from pipelines.detectors import tracking
client = tracking._client(Path(sys.argv[1]))
curves = tracking._curves(client, Path(sys.argv[1]).as_uri(), "r0", {})
curves(1, 1, {"class": 1.0})
curves.end("FINISHED")
time.sleep(2)
print(hosts)
"""


def test_no_host_is_contacted(tmp_path: Path) -> None:
    """In a separate process, as MLflow sends no reports if it detects pytest."""
    variables = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", TRACKING_PROCESS, str(tmp_path / "tracking")],
        cwd=ROOT,
        env={**variables, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    assert not list(Path.home().glob(".*")), "a file was left in the home folder"


def test_training_is_not_tracked_without_mlflow_or_with_tracking_none(
    network: Workspace, monkeypatch: pytest.MonkeyPatch, warned: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with track_training(network, "r0", {}) as curves:
        assert curves is None
    (warning,) = warned
    assert "dsmoe[tracking]" in warning
    network.settings = network.settings.model_copy(update={"tracking": TrackingSettings(kind="none")})
    with track_training(network, "r0", {}) as curves:
        assert curves is None
    assert len(warned) == 1
    assert not (network.path / FOLDER).exists()
