"""A whole demo in one process that can be killed at any call, and what must hold afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from annotate.studio.fake import FakeStudio
from dsmoe_core.progress import StatusCallback
from pipelines import demo
from pipelines.detectors.stub_detector import StubDetector
from pipelines.progress import SilentProgress
from pipelines.rounds.context import LoopContext
from pipelines.rounds.simulated_annotator import load_truth, simulated_annotator
from pipelines.settings import DemoPlan
from pipelines.workspace.journal import Journal
from pipelines.workspace.workspace import Workspace

PLAN = DemoPlan(rounds=2, budget=2, random_share=0.5, candidates=None, dry_run=True)
WRITES = (
    "start_round",
    "plan_tasks",
    "mark_sent",
    "set_state",
    "record",
    "begin",
    "finish",
    "set_alias",
    "finish_round",
)
Tick = StatusCallback


class Ticking:
    """Any service, with a tick before and after each call and at each yield: a place to be killed at."""

    def __init__(self, inner: Any, name: str, tick: Tick) -> None:
        self._inner, self._name, self._tick = inner, name, tick

    def __getattr__(self, call: str) -> Any:
        method = getattr(self._inner, call)

        def ticking(*args: Any, **named: Any) -> Any:
            self._tick(f"before {self._name}.{call}")
            found = method(*args, **named)
            if isinstance(found, Iterator):
                return self._streamed(call, found)
            self._tick(f"after {self._name}.{call}")
            return found

        return ticking

    def _streamed(self, call: str, found: Iterator[Any]) -> Iterator[Any]:
        for one in found:
            self._tick(f"within {self._name}.{call}")
            yield one


def tick_after_writes(journal: Journal, tick: Tick) -> None:
    """Make every transaction that writes a place to be killed at: it is there, and nothing after it."""
    for name in WRITES:
        write = getattr(journal, name)

        def ticking(*args: Any, _name: str = name, _write: Any = write, **named: Any) -> None:
            _write(*args, **named)
            tick(f"after journal.{_name}")

        setattr(journal, name, ticking)


class TickingProgress(SilentProgress):
    """A reporter whose every call is a place to be killed at."""

    def __init__(self, tick: Tick) -> None:
        self._tick = tick

    def step(self, number: int, name: str) -> None:
        self._tick(f"begin {name} of round {number}")

    def advance(self, done: int, total: int, note: str = "") -> None:
        self._tick("progress")

    def finished(self, number: int, name: str) -> None:
        self._tick(f"end {name} of round {number}")


def run(path: Path, data: Path, tick: Tick, plan: DemoPlan = PLAN) -> None:
    """The demo from beginning, or from where it was, to end; as a fresh process would run it."""
    progress = TickingProgress(tick)
    found = demo.DemoData(data, "blocks")
    with demo.open_workspace(path, found, plan, progress) as workspace, workspace.locked():
        tick_after_writes(workspace.journal, tick)
        studio = FakeStudio(path / "studio" / "stub.json")
        context = LoopContext(
            workspace,
            Ticking(studio, "studio", tick),
            Ticking(StubDetector(), "detector", tick),
            progress,
        )
        truth = load_truth(data / "train.json", workspace)
        for row in demo.run_rounds(context, plan, simulated_annotator(truth)):
            tick(f"closed round {row.round}")


def outcome(path: Path) -> dict[str, Any]:
    """Everything that must not depend on interruptions; checks on the way that nothing is lost or doubled."""
    with Workspace.open(path) as workspace:
        tasks, harvests = workspace.journal.tasks(), workspace.journal.harvests()
        studio = FakeStudio(path / "studio" / "stub.json")
        project = studio.ensure_project(workspace.settings.title, workspace.class_book().vocabulary())
        there = [row["data"]["key"] for row in studio._state["tasks"]]
        answers = [len(row["annotations"]) for row in studio._state["tasks"]]
        assert sorted(there) == sorted(task.key for task in tasks), "an image was lost or sent twice"
        assert answers == [1] * len(tasks), "an annotation was lost or doubled"
        assert len(studio.harvest(project)) == len(harvests) == len(tasks)
        assert {h.key: h for h in studio.harvest(project)} == harvests
        assert all(task.task_id is not None for task in tasks)
        rows = workspace.rounds()
        assert [row.state for row in rows] == ["closed"] * len(rows)
        return {
            "tasks": [(t.key, t.round, t.arm, t.rank, t.uncertainty, t.version) for t in tasks],
            "rounds": [row.as_result() | {"model": row.model, "data": row.dataset_version} for row in rows],
            "labels": {key: h.annotations for key, h in harvests.items()},
            "champion": workspace.champion(),
            "history": [change.model for change in workspace.registry.history()],
            "models": [card.id for card in workspace.registry.cards()],
            "datasets": sorted(p.name for p in (path / "datasets").iterdir()),
            "predictions": {
                p.name: sorted(workspace.predictions(p.stem)) for p in (path / "predictions").iterdir()
            },
        }
