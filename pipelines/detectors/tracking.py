"""The course of every training in MLflow: each loss term by its name, learning rate, gradient norm.

MLflow writes into ``tracking/`` of the workspace, an SQLite file; no server is asked, and it is kept from
sending word of its use to its makers. A training goes on without MLflow, and where MLflow fails: curves are
for people to look at, and nothing of ours reads them.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.detectors.backend import TrainingProgress
from pipelines.settings import disable_mlflow_telemetry
from pipelines.workspace.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient

FOLDER, DATABASE, EXPERIMENT = "tracking", "mlflow.db", "trainings"
POINTS = 200
"""At most so many of each curve."""
_log = logging.getLogger(__name__)


@contextmanager
def track_training(
    workspace: Workspace, name: str, about: Mapping[str, Any]
) -> Iterator[TrainingProgress | None]:
    """What a training is to tell its progress to, while it runs; None where nobody keeps it.

    A training that was killed and is run again goes on with its curves, each step in them once; one that has
    to begin again has a run of its own.

    Args:
        name: of the run: the model's.
        about: what is shown beside the curves.
    """
    settings = workspace.settings
    if settings.tracking == "none" or settings.detector.kind == "stub":
        yield None
        return
    curves = _begun(workspace.path / FOLDER, name, about)
    try:
        yield curves
    except Exception:
        if curves is not None:
            curves.end("FAILED")
        raise
    if curves is not None:
        curves.end("FINISHED")


class Curves:
    """Writes some of the steps of a training, evenly, and the last; nothing more once MLflow has failed."""

    def __init__(self, client: MlflowClient, run: str, written: int, begin: Callable[[], str]) -> None:
        """
        Args:
            written: last step that the run has.
            begin: makes another run.
        """
        self._client, self._run = client, run
        self._written, self._begin = written, begin
        self._failed = False

    def __call__(self, step: int, steps: int, figures: Mapping[str, float]) -> None:
        """Progress of a training."""
        from mlflow.entities import Metric

        if step == 1 and self._written:
            self._write(self._start_over)
        if step <= self._written or (step % math.ceil(steps / POINTS) and step != steps):
            return
        now = int(time.time() * 1000)
        points = [Metric(name, value, now, step) for name, value in figures.items()]
        self._write(lambda: self._client.log_batch(self._run, points))

    def end(self, status: str) -> None:
        """Mark the run as FINISHED or FAILED."""
        self._write(lambda: self._client.set_terminated(self._run, status))

    def _start_over(self) -> None:
        self._client.set_terminated(self._run, "KILLED")
        self._run, self._written = self._begin(), 0

    def _write(self, write: Callable[[], object]) -> None:
        if self._failed:
            return
        try:
            write()
        except Exception as error:  # noqa: BLE001  # whatever it is, no training ends by it
            self._failed = True
            _tell(error)


def _begun(folder: Path, name: str, about: Mapping[str, Any]) -> Curves | None:
    try:
        client = _client(folder)
        return None if client is None else _curves(client, folder, name, about)
    except Exception as error:  # noqa: BLE001  # as above
        _tell(error)
        return None


def _tell(error: Exception) -> None:
    said = str(error).strip().partition("\n")[0] or type(error).__name__
    _log.warning("MLflow fails, so the training goes on without its curves: %s", said)


def _client(folder: Path) -> MlflowClient | None:
    disable_mlflow_telemetry()
    try:
        from mlflow import MlflowClient
    except ImportError:
        _log.warning("mlflow is not installed, so no curves are kept: `pip install 'dsmoe[tracking]'`")
        return None
    for chatty in ("mlflow", "alembic"):  # they tell how they make their tables, and are set to by the import
        logging.getLogger(chatty).setLevel(logging.WARNING)
    folder.mkdir(exist_ok=True)
    return MlflowClient(tracking_uri=f"sqlite:///{folder / DATABASE}")


def _curves(client: MlflowClient, folder: Path, name: str, about: Mapping[str, Any]) -> Curves:
    """Those of the unfinished run of this name, or of a new one."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        experiment = client.create_experiment(EXPERIMENT, (folder / "artifacts").as_uri())
    else:
        experiment = found.experiment_id

    def begin() -> str:
        run = str(client.create_run(experiment, run_name=name).info.run_id)
        for key, value in about.items():
            client.log_param(run, key, value)
        return run

    wanted = f"attributes.run_name = '{name}' and attributes.status = 'RUNNING'"
    for begun in client.search_runs([experiment], wanted, max_results=1):
        run = str(begun.info.run_id)
        points = (client.get_metric_history(run, metric) for metric in begun.data.metrics)
        return Curves(client, run, max((one.step for curve in points for one in curve), default=0), begin)
    return Curves(client, begin(), 0, begin)
