"""The whole journey on one data set, unattended or with a person: what `dsmoe demo` runs.

The data folder holds images/, train.json (the pool; its labels are known to the simulated annotator alone)
and val.json (the fixed test set). The workspace is the same for the same data, so the same command goes on
where it was.
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
from dsmoe_core.progress import CountCallback
from pipelines.progress import ProgressReporter
from pipelines.rounds.context import LoopContext
from pipelines.rounds.dispatch import pool
from pipelines.rounds.loop import close_round, open_round
from pipelines.services import factory
from pipelines.settings import DemoPlan, Environment, WorkspaceSettings
from pipelines.workspace.ingest import Source, make_workspace
from pipelines.workspace.round_summary import RoundSummary
from pipelines.workspace.workspace import Workspace, is_workspace_folder

POLL_S = 5.0
Wait = CountCallback


@dataclass(frozen=True, slots=True)
class DemoData:
    """A demo's data folder and the name that its workspace goes by."""

    folder: Path
    name: str


def prepare_data(data: Path | None, plan: DemoPlan, workspaces: Path, progress: ProgressReporter) -> DemoData:
    """The data folder, checked; or a synthetic set, drawn once for each seed and size.

    Raises:
        DataError: the folder, images/, train.json or val.json is missing.
    """
    if data is not None:
        for part in (data, data / "images", data / "train.json", data / "val.json"):
            if not part.exists():
                raise DataError(
                    f"{part} is not there; a data folder holds images/, train.json and val.json",
                    "Correct --data.",
                )
        return DemoData(data, data.resolve().name)
    px, counts = plan.model.image_px, f"{plan.synthetic_train}-{plan.synthetic_val}"
    name = f"synthetic-{plan.synthetic}"
    folder = workspaces / "data" / f"{name}-{px}px-{counts}-seed{plan.seed}"
    progress.step(0, "draw")
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
    """The demo's workspace: made, or the one of an earlier run of the same demo.

    Raises:
        SettingsError: it was made by a demo with other options.
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
    other = _differences(settings, workspace.settings)
    if other:
        raise SettingsError(
            f"{path} was made by a demo with other options: {', '.join(other)}",
            "Give the same options, another --workspace, or --fresh to start afresh.",
        )
    return workspace


def _differences(wanted: WorkspaceSettings, found: WorkspaceSettings) -> list[str]:
    """Settings of two plans that cannot be mixed in one demo; the port may change."""
    one, two = ({**s.model_dump(), "studio": s.studio.kind} for s in (wanted, found))
    return [name for name in one if one[name] != two[name]]


def delete_workspace(path: Path, environment: Environment) -> None:
    """Delete a demo's workspace with everything in it; stops its Label Studio first.

    Raises:
        WorkspaceError: the folder is no workspace, or is in use.
    """
    if not path.exists():
        return
    if not is_workspace_folder(path):
        raise WorkspaceError(f"{path} is no workspace; it was not deleted", "Choose another --workspace.")
    if (path / "dsmoe.yaml").exists():
        with Workspace.open(path) as workspace, workspace.locked():
            own = factory.labelling_server(workspace, environment)
            if own is not None:
                own.stop()
    shutil.rmtree(path)


def is_finished(workspace: Workspace, plan: DemoPlan) -> bool:
    """Whether every round of the plan is closed."""
    return sum(row.state == "closed" for row in workspace.rounds()) > plan.rounds


def run_rounds(
    context: LoopContext, plan: DemoPlan, annotate: Callable[[LoopContext, RoundSummary], None]
) -> Iterator[RoundSummary]:
    """Go on with the rounds until all are closed; yields each as it closes."""
    while not is_finished(context.workspace, plan):
        rows = context.workspace.rounds()
        if not rows or rows[-1].state != "closing":
            annotate(context, open_round(context))
        yield close_round(context)


def open_next_round(context: LoopContext) -> RoundSummary | None:
    """Pre-annotation once more, with the last champion, for whoever looks in.

    None where the pool is empty.
    """
    rows = context.workspace.rounds()
    if (rows and rows[-1].state == "open") or pool(context.workspace):
        return open_round(context)
    return None


def wait_for_annotators(
    invite: Callable[[RoundSummary], None], *, poll_s: float = POLL_S
) -> Callable[[LoopContext, RoundSummary], None]:
    """Wait until people have annotated every image of the round."""

    def annotate(context: LoopContext, row: RoundSummary) -> None:
        invite(row)
        context.progress.step(row.round, "people")
        project, ours = context.project(), {t.key for t in context.workspace.journal.tasks(row.round)}
        while True:
            left = sum(task.key in ours for task in context.studio.open_tasks(project))
            context.progress.advance(len(ours) - left, len(ours))
            if not left:
                return
            time.sleep(poll_s)

    return annotate


@contextmanager
def record_duration(workspace: Workspace, started: float) -> Iterator[None]:
    """Add the time since ``started`` (monotonic) to the demo's own clock, however it ends short of a kill."""
    try:
        yield
    finally:
        spent = float(workspace.journal.value("demo_seconds") or 0.0)
        workspace.journal.set_value("demo_seconds", spent + time.monotonic() - started)
        workspace.journal.set_value("demo_runs", int(workspace.journal.value("demo_runs") or 0) + 1)


def result(workspace: Workspace, data: DemoData, plan: DemoPlan) -> dict[str, Any]:
    """The demo's part of benchmarks/results/demo.json."""
    return {
        "data": data.name,
        "minutes": round(float(workspace.journal.value("demo_seconds") or 0.0) / 60, 2),
        "runs": workspace.journal.value("demo_runs"),
        "annotator": plan.annotator,
        "dry_run": plan.dry_run,
        "budget": plan.budget,
        "pool": len(workspace.images("pool")),
        "test_images": len(workspace.images("test")),
        "rounds": [row.as_result() for row in workspace.rounds() if row.state == "closed"],
    }
