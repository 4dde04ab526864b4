"""The course of every training in MLflow: each loss term by its name, learning rate, gradient norm.

MLflow writes into ``tracking/`` of the workspace, an SQLite file; no server is asked, and it is kept from
sending word of its use to its makers. A training goes on without it: curves are for people to look at, and
nothing of ours reads them.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.detection import TrainingProgress
from pipelines.settings import keep_mlflow_to_itself
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient

FOLDER, DATABASE, EXPERIMENT = "tracking", "mlflow.db", "trainings"
POINTS = 200
"""At most so many of each curve."""
_log = logging.getLogger(__name__)


@contextmanager
def tracked(workspace: Workspace, name: str, about: Mapping[str, Any]) -> Iterator[TrainingProgress | None]:
    """What a training is to tell its progress to, while it runs; None where nobody keeps it.

    A training that was killed and is run again goes on with its curves.

    Args:
        name: of the run: the model's.
        about: what is shown beside the curves.
    """
    settings = workspace.settings
    if settings.tracking == "none" or settings.detector.kind == "stand-in":
        yield None
        return
    client = _client(workspace.path / FOLDER)
    if client is None:
        yield None
        return
    run = _run(client, workspace.path / FOLDER, name, about)
    try:
        yield Curves(client, run)
    except Exception:
        client.set_terminated(run, "FAILED")
        raise
    client.set_terminated(run)


class Curves:
    """Writes some of the steps of a training, evenly, and the last."""

    def __init__(self, client: MlflowClient, run: str) -> None:
        self._client, self._run = client, run

    def __call__(self, step: int, steps: int, figures: Mapping[str, float]) -> None:
        """Progress of a training."""
        from mlflow.entities import Metric

        if step % math.ceil(steps / POINTS) and step != steps:
            return
        now = int(time.time() * 1000)
        self._client.log_batch(self._run, [Metric(name, value, now, step) for name, value in figures.items()])


def _client(folder: Path) -> MlflowClient | None:
    keep_mlflow_to_itself()
    try:
        from mlflow import MlflowClient
    except ImportError:
        _log.warning("mlflow is not installed, so no curves are kept: `pip install 'dsmoe[schedule]'`")
        return None
    for chatty in ("mlflow", "alembic"):  # they tell how they make their tables, and are set to by the import
        logging.getLogger(chatty).setLevel(logging.WARNING)
    folder.mkdir(exist_ok=True)
    return MlflowClient(tracking_uri=f"sqlite:///{folder / DATABASE}")


def _run(client: MlflowClient, folder: Path, name: str, about: Mapping[str, Any]) -> str:
    """The unfinished run of this name, or a new one."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        experiment = client.create_experiment(EXPERIMENT, (folder / "artifacts").as_uri())
    else:
        experiment = found.experiment_id
    wanted = f"attributes.run_name = '{name}' and attributes.status = 'RUNNING'"
    for begun in client.search_runs([experiment], wanted, max_results=1):
        return str(begun.info.run_id)
    run = str(client.create_run(experiment, run_name=name).info.run_id)
    for key, value in about.items():
        client.log_param(run, key, value)
    return run
