"""The demo: the whole active-learning loop on one data set, with a simulated or a human annotator.

The data folder holds ``images/``, ``train.json`` (the pool; only the simulated annotator reads its labels)
and ``val.json`` (the fixed test set). The workspace's path depends on the data only, so the same command
resumes an interrupted demo.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsmoe_core.data import coco
from dsmoe_core.data.synthetic import write_synthetic_set
from dsmoe_core.errors import DataError, SettingsError, WorkspaceError
from pipelines.progress import ProgressReporter
from pipelines.rounds.context import LoopContext
from pipelines.rounds.loop import close_round, open_round
from pipelines.rounds.pool import pool
from pipelines.rounds.simulated_annotator import Annotate
from pipelines.services import factory
from pipelines.settings.demo import DemoPlan
from pipelines.settings.environment import Environment
from pipelines.settings.workspace import WorkspaceSettings
from pipelines.workspace.ingest import Source, make_workspace
from pipelines.workspace.round_summary import RoundSummary
from pipelines.workspace.workspace import Workspace, is_workspace_folder

POLL_S = 5.0
"""Seconds between two checks whether a human annotator is done."""


@dataclass(frozen=True, slots=True)
class DemoData:
    """Data of a demo.

    Attributes:
        folder: with ``images/``, ``train.json`` and ``val.json``.
        name: in the title and the default path of the workspace.
    """

    folder: Path
    name: str


def prepare_data(data: Path | None, plan: DemoPlan, workspaces: Path, progress: ProgressReporter) -> DemoData:
    """Check the data folder, or make a synthetic data set, once for each kind, size and seed.

    Args:
        data: data folder; None for a synthetic data set.
        plan: kind, number and size of the synthetic images, and seed.
        workspaces: folder in which the synthetic data set is made.
        progress: progress reporter.

    Raises:
        DataError: the folder, ``images/``, ``train.json`` or ``val.json`` is missing.
    """
    if data is not None:
        for part in (data, data / "images", data / "train.json", data / "val.json"):
            if not part.exists():
                raise DataError(
                    f"{part} does not exist; expected a folder with images/, train.json and val.json",
                    "Correct --data.",
                )
        return DemoData(data, data.resolve().name)
    px, counts = plan.model.image_px, f"{plan.synthetic_train}-{plan.synthetic_val}"
    name = f"synthetic-{plan.synthetic}"
    folder = workspaces / "data" / f"{name}-{px}px-{counts}-seed{plan.seed}"
    progress.step(0, "synthesize")
    write_synthetic_set(
        folder,
        plan.synthetic,
        train=plan.synthetic_train,
        val=plan.synthetic_val,
        seed=plan.seed,
        px=px,
        progress=progress.advance,
    )
    return DemoData(folder, name)


def open_workspace(path: Path, data: DemoData, plan: DemoPlan, progress: ProgressReporter) -> Workspace:
    """Create the demo's workspace, or open the one of an earlier run of the same demo.

    Raises:
        SettingsError: the workspace was made with other options.
    """
    settings = plan.workspace_settings(f"dsmoe demo {data.name}"[:50])
    if not (path / "dsmoe.yaml").exists():
        progress.step(0, "ingest")
        train, test = (coco.read(data.folder / name) for name in ("train.json", "val.json"))
        classes = list(dict.fromkeys((*train.classes, *test.classes)))
        source = Source(
            data.folder / "images", test=test, classes=classes, pool={p.name for p in train.images}
        )
        make_workspace(path, source, settings, progress=progress.advance)[0].close()
    workspace = Workspace.open(path)
    changed = _changed_settings(settings, workspace.settings)
    if changed:
        raise SettingsError(
            f"{path} was made by a demo with other settings: {', '.join(changed)}",
            "Give the options it was made with, another --workspace, or --fresh to delete it and start anew.",
        )
    return workspace


def _changed_settings(wanted: WorkspaceSettings, existing: WorkspaceSettings) -> list[str]:
    """The settings that differ, with both values; those of the labelling server may, except its kind."""
    first, second = ({**s.model_dump(), "studio": s.studio.kind} for s in (wanted, existing))
    return list(_differences(first, second, ""))


def _differences(wanted: Any, existing: Any, name: str) -> Iterator[str]:
    if isinstance(wanted, dict) and isinstance(existing, dict):
        for key in wanted | existing:
            yield from _differences(wanted.get(key), existing.get(key), f"{name}.{key}".lstrip("."))
    elif wanted != existing:
        yield f"{name} is {existing}, now {wanted}"


def delete_workspace(path: Path, environment: Environment) -> None:
    """Delete a demo's workspace; stops its Label Studio first.

    Raises:
        WorkspaceError: the folder is not a workspace, or is in use.
    """
    if not path.exists():
        return
    if not is_workspace_folder(path):
        raise WorkspaceError(f"{path} is not a workspace; it was not deleted", "Choose another --workspace.")
    if (path / "dsmoe.yaml").exists():
        with Workspace.open(path) as workspace, workspace.locked():
            server = factory.labelling_server(workspace, environment)
            if server is not None:
                server.stop()
    shutil.rmtree(path)


def is_finished(workspace: Workspace, plan: DemoPlan) -> bool:
    """Whether all rounds of the plan are closed."""
    return sum(row.state == "closed" for row in workspace.rounds()) > plan.rounds


def run_rounds(context: LoopContext, plan: DemoPlan, annotate: Annotate) -> Iterator[RoundSummary]:
    """Run or resume the rounds of the plan; yields each round when it is closed.

    Args:
        context: the workspace with its services.
        plan: number of rounds.
        annotate: gets an open round annotated.
    """
    while not is_finished(context.workspace, plan):
        rows = context.workspace.rounds()
        if not rows or rows[-1].state != "closing":
            annotate(context, open_round(context))
        yield close_round(context)


def open_next_round(context: LoopContext) -> RoundSummary | None:
    """Open one more round with pre-annotations of the last champion, and leave it open for visitors.

    Returns:
        The round; None where the pool is empty.
    """
    rows = context.workspace.rounds()
    if (rows and rows[-1].state == "open") or pool(context.workspace):
        return open_round(context)
    return None


def announced(annotate: Annotate, announce: Callable[[RoundSummary], None]) -> Annotate:
    """The annotator, with ``announce`` called before the first round that has pre-annotations."""
    done = False

    def annotate_and_announce(context: LoopContext, row: RoundSummary) -> None:
        nonlocal done
        if row.round > 0 and not done:
            announce(row)
            done = True
        annotate(context, row)

    return annotate_and_announce


def wait_for_annotators(invite: Callable[[RoundSummary], None], *, poll_s: float = POLL_S) -> Annotate:
    """An annotator that waits until people have annotated every image of the round.

    Args:
        invite: called once for each round, to tell people where to annotate.
        poll_s: seconds between two checks.
    """

    def annotate(context: LoopContext, row: RoundSummary) -> None:
        invite(row)
        context.progress.step(row.round, "people")
        project, keys = context.project(), {t.key for t in context.workspace.journal.tasks(row.round)}
        while True:
            left = sum(task.key in keys for task in context.studio.open_tasks(project))
            context.progress.advance(len(keys) - left, len(keys))
            if not left:
                return
            time.sleep(poll_s)

    return annotate


@contextmanager
def record_duration(workspace: Workspace, started: float) -> Iterator[None]:
    """Add the seconds since ``started`` (monotonic) to the journal's total, also after an error or Ctrl-C."""
    try:
        yield
    finally:
        spent = float(workspace.journal.value("demo_seconds") or 0.0)
        workspace.journal.set_value("demo_seconds", spent + time.monotonic() - started)
        workspace.journal.set_value("demo_runs", int(workspace.journal.value("demo_runs") or 0) + 1)


def result(workspace: Workspace, data: DemoData, plan: DemoPlan) -> dict[str, Any]:
    """Measured fields of benchmarks/results/demo.json; ``write_result`` adds the command and the machine."""
    return {
        "data": data.name,
        "minutes": round(float(workspace.journal.value("demo_seconds") or 0.0) / 60, 2),
        "runs": workspace.journal.value("demo_runs"),
        "annotator": plan.annotator,
        "dry_run": plan.dry_run,
        "budget": plan.budget,
        "pool": len(workspace.images("pool")),
        "test_images": len(workspace.images("test")),
        "rounds": [_result_row(row) for row in workspace.rounds() if row.state == "closed"],
    }


def _result_row(summary: RoundSummary) -> dict[str, Any]:
    """A round under the keys of the result file, which are fixed."""
    keys = {"images": "pictures", "new_images": "new_pictures"}
    return {keys.get(name, name): value for name, value in summary.as_result().items()}
