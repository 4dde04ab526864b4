"""A demo and a ``dsmoe watch`` that can be killed at any moment, and their outcome for comparison."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from annotate.studio.fake import FakeStudio
from dsmoe_core.progress import StatusCallback
from pipelines import demo
from pipelines.detectors.stub_detector import StubDetector
from pipelines.progress import SilentProgress
from pipelines.rounds.context import LoopContext
from pipelines.rounds.simulated_annotator import load_truth, simulated_annotator
from pipelines.settings.demo import DemoPlan
from pipelines.workspace.journal import Journal
from pipelines.workspace.loop_lock import LoopOwner
from pipelines.workspace.workspace import Workspace

PLAN = DemoPlan(rounds=2, budget=2, random_share=0.5, candidates=None, dry_run=True)
WRITES = (
    "start_round",
    "plan_tasks",
    "mark_sent",
    "set_state",
    "record_harvests",
    "begin",
    "finish",
    "set_alias",
    "finish_round",
)
"""Methods of the journal that write."""
Tick = StatusCallback
"""Called with the name of a place at which the process may be killed."""


class TickingService:
    """Wraps a service; ticks before and after each call and at each item that it yields."""

    def __init__(self, service: Any, name: str, tick: Tick) -> None:
        self._service, self._name, self._tick = service, name, tick

    def __getattr__(self, call: str) -> Any:
        method = getattr(self._service, call)

        def ticking(*args: Any, **named: Any) -> Any:
            self._tick(f"before {self._name}.{call}")
            result = method(*args, **named)
            if isinstance(result, Iterator):
                return self._stream(call, result)
            self._tick(f"after {self._name}.{call}")
            return result

        return ticking

    def _stream(self, call: str, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            self._tick(f"within {self._name}.{call}")
            yield item


def tick_after_writes(journal: Journal, tick: Tick) -> None:
    """Make the journal tick after every transaction that writes."""
    for name in WRITES:
        write = getattr(journal, name)

        def ticking(*args: Any, _name: str = name, _write: Any = write, **named: Any) -> None:
            _write(*args, **named)
            tick(f"after journal.{_name}")

        setattr(journal, name, ticking)


class TickingProgress(SilentProgress):
    """Progress reporter that ticks at every call."""

    def __init__(self, tick: Tick) -> None:
        self._tick = tick

    def step(self, number: int, name: str) -> None:
        self._tick(f"begin {name} of round {number}")

    def advance(self, done: int, total: int, note: str = "") -> None:
        self._tick("progress")

    def finished(self, number: int, name: str) -> None:
        self._tick(f"end {name} of round {number}")


def run(path: Path, data: Path, tick: Tick, plan: DemoPlan = PLAN) -> None:
    """Run the demo to its end, from the start or from where an earlier call was killed."""
    progress = TickingProgress(tick)
    demo_data = demo.DemoData(data, "blocks")
    with demo.open_workspace(path, demo_data, plan, progress) as workspace, workspace.locked():
        tick_after_writes(workspace.journal, tick)
        studio = FakeStudio(path / "studio" / "stub.json")
        context = LoopContext(
            workspace,
            TickingService(studio, "studio", tick),
            TickingService(StubDetector(), "detector", tick),
            progress,
        )
        truth = load_truth(data / "train.json", workspace)
        for row in demo.run_rounds(context, plan, simulated_annotator(truth)):
            tick(f"closed round {row.round}")


def make_workspace(path: Path, data: Path, plan: DemoPlan = PLAN) -> None:
    """Make the demo's workspace without starting a round."""
    demo.open_workspace(path, demo.DemoData(data, "blocks"), plan, SilentProgress()).close()


def closed_rounds(path: Path) -> int:
    """Number of rounds of a workspace that are closed."""
    with Workspace.open(path) as workspace:
        return sum(record.state == "closed" for record in workspace.journal.rounds())


def watch(path: Path, data: Path, rounds: int, kill_after_s: float | None) -> int:
    """Run ``dsmoe watch --simulated`` in a forked process until so many rounds are closed.

    Args:
        kill_after_s: seconds until the process gets SIGKILL; None: it ends by itself.

    Returns:
        Exit code of the process; negative: the signal that ended it.
    """
    from pipelines import cli

    missing = rounds - closed_rounds(path)
    if missing < 1:
        return 0
    arguments = ["watch", str(path), "--simulated", str(data / "train.json"), "--every", "0.05"]
    child = os.fork()
    if child == 0:
        os._exit(cli.run([*arguments, "--rounds", str(missing)]))
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def watch_killed_at_random(path: Path, data: Path, rounds: int, seed: int, mean_s: float) -> int:
    """Start ``dsmoe watch`` and kill it at random moments until it has closed so many rounds.

    Args:
        mean_s: mean time to a kill; it grows where a run made no progress.

    Returns:
        Number of kills.
    """
    rng, kills, progress = random.Random(seed), 0, -1
    while closed_rounds(path) < rounds:
        code = watch(path, data, rounds, rng.expovariate(1 / mean_s))
        if code != -signal.SIGKILL:
            assert code == 0, f"dsmoe watch ended with {code} after {kills} kills"
            with Workspace.open(path) as workspace:
                assert workspace.journal.loop_locks().owner() is None
            continue
        kills += 1
        with Workspace.open(path) as workspace:
            reached = sum(done for *_, done in workspace.journal.steps())
        mean_s *= 1.0 if reached > progress else 1.2
        progress = reached
    return kills


def check_journal(path: Path) -> None:
    """Check the journal of a workspace whose rounds are all closed.

    Raises:
        AssertionError: it is damaged, or a step is not finished.
        WorkspaceError: a live process holds the loop lock.
    """
    with closing(sqlite3.connect(path / "journal.sqlite")) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        keys = [row[0] for row in db.execute("SELECT key FROM tasks")]
        versions = [row[0] for row in db.execute("SELECT key || version FROM tasks WHERE version NOTNULL")]
    assert len(keys) == len(set(keys))
    assert len(versions) == len(set(versions))
    with Workspace.open(path) as workspace:
        assert all(done for *_, done in workspace.journal.steps())
        locks, me = workspace.journal.loop_locks(), LoopOwner.this_process(path, 1.0)
        locks.acquire(me)  # also from a process that was killed between its last round and the release
        locks.release(me)
        studio = FakeStudio(path / "studio" / "stub.json")
        shown = [[p["model_version"] for p in task["predictions"]] for task in studio._state["tasks"]]
        assert all(len(versions) == len(set(versions)) for versions in shown), "a prediction was doubled"


def outcome(path: Path) -> dict[str, Any]:
    """All results that must not depend on interruptions.

    Raises:
        AssertionError: an image or an annotation is lost or doubled.
    """
    with Workspace.open(path) as workspace:
        tasks, harvests = workspace.journal.tasks(), workspace.journal.harvests()
        studio = FakeStudio(path / "studio" / "stub.json")
        project = studio.ensure_project(workspace.settings.title, workspace.class_book().vocabulary())
        sent_keys = [row["data"]["key"] for row in studio._state["tasks"]]
        annotations = [len(row["annotations"]) for row in studio._state["tasks"]]
        assert sorted(sent_keys) == sorted(task.key for task in tasks), "an image was lost or sent twice"
        assert annotations == [1] * len(tasks), "an annotation was lost or doubled"
        assert len(studio.harvest(project)) == len(harvests) == len(tasks)
        assert {h.key: h for h in studio.harvest(project)} == harvests
        assert all(task.task_id is not None for task in tasks)
        rows = workspace.rounds()
        assert [row.state for row in rows] == ["closed"] * len(rows)
        models = [card.id for card in workspace.registry.cards()]
        return {
            "tasks": [(t.key, t.round, t.arm, t.rank, t.acquisition, t.score, t.version) for t in tasks],
            "rounds": [row.as_result() | {"model": row.model, "data": row.dataset_version} for row in rows],
            "labels": {key: h.annotations for key, h in harvests.items()},
            "champion": workspace.champion(),
            "history": [change.model for change in workspace.registry.history()],
            "models": models,
            "evaluations": {model: workspace.registry.evaluation(model) for model in models},
            "datasets": sorted(p.name for p in (path / "datasets").iterdir()),
            "predictions": {
                p.name: sorted(workspace.predictions(p.stem)) for p in (path / "predictions").iterdir()
            },
        }
