"""Experiment tracking: the training curves of every model in MLflow, with each loss term by its name.

MLflow writes to an SQLite file in ``tracking/`` of the workspace, or to the server of ``tracking.url``. Its
usage reports are turned off. Training continues without MLflow and when MLflow fails, as only people read
the curves.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.detectors.backend import TrainingProgress
from pipelines.detectors.registry import detector_entry
from pipelines.workspace.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient

FOLDER, DATABASE, EXPERIMENT = "tracking", "mlflow.db", "trainings"
MAX_POINTS = 200
"""Most points of a curve."""
_log = logging.getLogger(__name__)


@contextmanager
def track_training(
    workspace: Workspace, name: str, parameters: Mapping[str, Any]
) -> Iterator[TrainingProgress | None]:
    """Record a training as an MLflow run; yields its progress callback, or None if it is not tracked.

    A training that was killed and continues adds to its run, each step once. A training that starts over
    after a kill gets a new run.

    Args:
        name: name of the run, which is the model's id.
        parameters: parameters of the run.
    """
    if not is_tracked(workspace):
        yield None
        return
    curves = _open_curves(workspace, name, parameters)
    try:
        yield curves
    except Exception:
        if curves is not None:
            curves.end("FAILED")
        raise
    if curves is not None:
        curves.end("FINISHED")


def is_tracked(workspace: Workspace) -> bool:
    """Whether the settings and the detector backend of a workspace ask for MLflow."""
    settings = workspace.settings
    return settings.tracking.kind != "none" and detector_entry(settings.detector.kind).tracked


class TrainingCurves:
    """Progress callback that writes evenly spaced steps and the last one to MLflow, until MLflow fails.

    Args:
        last_step: last step that the run has.
        new_run: creates another run and returns its id.
    """

    def __init__(self, client: MlflowClient, run: str, last_step: int, new_run: Callable[[], str]) -> None:
        self._client, self._run = client, run
        self._last_step, self._new_run = last_step, new_run
        self._failed = False

    def __call__(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of a step, as a ``TrainingProgress``."""
        from mlflow.entities import Metric

        if step == 1 and self._last_step:
            self._write(self._start_over)
        if step <= self._last_step or (step % math.ceil(steps / MAX_POINTS) and step != steps):
            return
        now = int(time.time() * 1000)
        points = [Metric(name, value, now, step) for name, value in metrics.items() if name != "seconds_left"]
        self._write(lambda: self._client.log_batch(self._run, points))

    def end(self, status: str) -> None:
        """Mark the run as FINISHED or FAILED."""
        self._write(lambda: self._client.set_terminated(self._run, status))

    def _start_over(self) -> None:
        self._client.set_terminated(self._run, "KILLED")
        self._run, self._last_step = self._new_run(), 0

    def _write(self, write: Callable[[], object]) -> None:
        if self._failed:
            return
        try:
            write()
        except Exception as error:  # noqa: BLE001  # no failure of MLflow may end a training
            self._failed = True
            warn(error)


def _open_curves(workspace: Workspace, name: str, parameters: Mapping[str, Any]) -> TrainingCurves | None:
    try:
        client = open_client(workspace)
        return None if client is None else _curves(client, artifact_location(workspace), name, parameters)
    except Exception as error:  # noqa: BLE001  # no failure of MLflow may end a training
        warn(error)
        return None


def warn(error: Exception, consequence: str = "training continues without curves") -> None:
    """Log a failure of MLflow in one line."""
    first_line = str(error).strip().partition("\n")[0] or type(error).__name__
    _log.warning("MLflow failed, %s: %s", consequence, first_line)


def artifact_location(workspace: Workspace) -> str | None:
    """Where files of a new experiment are stored; None: a server decides."""
    if workspace.settings.tracking.url is not None:
        return None
    return (workspace.path / FOLDER / "artifacts").as_uri()


def experiment_id(client: MlflowClient, artifacts: str | None, name: str) -> str:
    """The id of the experiment of this name, which is made if there is none.

    Args:
        artifacts: where its files are stored, see ``artifact_location``.
    """
    existing = client.get_experiment_by_name(name)
    return str(existing.experiment_id if existing is not None else client.create_experiment(name, artifacts))


def open_client(workspace: Workspace) -> MlflowClient | None:
    """A client of the workspace's MLflow; None if mlflow is not installed, which is logged."""
    return _client(workspace.path / FOLDER, workspace.settings.tracking.url)


def _client(folder: Path, url: str | None = None) -> MlflowClient | None:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # has to be set before the import
    try:
        from mlflow import MlflowClient
    except ImportError:
        _log.warning("mlflow is not installed, models are not tracked: `pip install 'dsmoe[tracking]'`")
        return None
    for name in ("mlflow", "alembic"):  # they log every table; the import of mlflow sets their levels
        logging.getLogger(name).setLevel(logging.WARNING)
    if url is not None:
        return MlflowClient(tracking_uri=url)
    folder.mkdir(exist_ok=True)
    return MlflowClient(tracking_uri=f"sqlite:///{folder / DATABASE}")


def _curves(
    client: MlflowClient, artifacts: str | None, name: str, parameters: Mapping[str, Any]
) -> TrainingCurves:
    """The curves of the unfinished run of this name, or of a new run."""
    experiment = experiment_id(client, artifacts, EXPERIMENT)

    def new_run() -> str:
        run = str(client.create_run(experiment, run_name=name).info.run_id)
        for key, value in parameters.items():
            client.log_param(run, key, value)
        return run

    unfinished = f"attributes.run_name = '{name}' and attributes.status = 'RUNNING'"
    for existing_run in client.search_runs([experiment], unfinished, max_results=1):
        run = str(existing_run.info.run_id)
        curves = (client.get_metric_history(run, metric) for metric in existing_run.data.metrics)
        last_step = max((point.step for curve in curves for point in curve), default=0)
        return TrainingCurves(client, run, last_step, new_run)
    return TrainingCurves(client, new_run(), 0, new_run)
