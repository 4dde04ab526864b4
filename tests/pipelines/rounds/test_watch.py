"""The loop of ``dsmoe watch`` on the stub detector and the stub studio."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from annotate.studio.fake import FakeStudio
from dsmoe_core.errors import ClassBookError, StudioError, WorkspaceError
from pipelines.detectors.stub_detector import StubDetector
from pipelines.progress import SilentProgress
from pipelines.rounds.context import LoopContext
from pipelines.rounds.watch import Watch, WatchPlan, explain
from pipelines.settings.policy import NotifySettings, PolicySettings
from pipelines.workspace.approval import approve_retraining
from pipelines.workspace.loop_lock import LoopLockLostError
from pipelines.workspace.registry import HELD
from pipelines.workspace.workspace import Workspace

Label = Callable[[LoopContext], None]


class Loop:
    """A loop whose pauses are recorded and skipped.

    Attributes:
        on_pause: called at each pause with its number; returns True to stop the loop.
        down: errors that the next steps meet when they open the workspace.
    """

    def __init__(self, path: Path, plan: WatchPlan) -> None:
        self.lines: list[str] = []
        self.pauses: list[float] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.on_pause: Callable[[int], bool] = lambda _: True
        self.down: list[Exception] = []
        self.lost = False
        self._path = path
        self.watch = Watch(
            self.open_context, plan, report=self.lines.append, check=self._check, sleep=self._sleep
        )
        send = self.watch._notifier.send
        self.watch._notifier.send = lambda s, e, c: (self.events.append((e, dict(c))), send(s, e, c))[1]  # type: ignore[method-assign]

    @contextmanager
    def open_context(self) -> Iterator[LoopContext]:
        if self.down:
            raise self.down.pop(0)
        with Workspace.open(self._path) as workspace:
            studio = FakeStudio(workspace.path / "studio" / "fake.json")
            yield LoopContext(workspace, studio, StubDetector(), SilentProgress())

    def _check(self) -> None:
        if self.lost:
            raise LoopLockLostError("lost", "Stop.")

    def _sleep(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        return self.on_pause(len(self.pauses))


@pytest.fixture
def loop(workspace: Workspace) -> Loop:
    return Loop(workspace.path, WatchPlan(every_s=60.0))


def configure(workspace: Workspace, **changes: object) -> None:
    """Change settings in dsmoe.yaml."""
    workspace.settings.model_copy(update=changes).write(workspace.path / "dsmoe.yaml")


def states(workspace: Workspace) -> list[str]:
    return [row.state for row in workspace.rounds()]


def test_simulated_rounds_run_to_the_end_of_the_plan(workspace: Workspace, blocks: Path) -> None:
    loop = Loop(workspace.path, WatchPlan(rounds=2, truth=blocks / "train.json"))
    assert loop.watch.run() == 2
    assert states(workspace) == ["closed", "closed"]
    assert [row.new_images for row in workspace.rounds()] == [3, 3]
    assert loop.pauses == []
    assert [event for event, _ in loop.events if event == "round-ready"] == ["round-ready"] * 2


def test_plan_ends_when_no_image_is_left(workspace: Workspace, blocks: Path) -> None:
    loop = Loop(workspace.path, WatchPlan(rounds=9, truth=blocks / "train.json"))
    assert loop.watch.run() == 4
    assert loop.pauses == []


def test_waits_for_people_and_closes_when_all_images_are_answered(
    workspace: Workspace, context: LoopContext, label: Label, loop: Loop
) -> None:
    def people(pause: int) -> bool:
        if pause == 2:
            label(
                LoopContext(workspace, FakeStudio(workspace.path / "studio" / "fake.json"), *_rest(context))
            )
        return pause == 3

    loop.on_pause = people
    assert loop.watch.run() == 1
    assert states(workspace) == ["closed", "open"]
    assert loop.pauses == [60.0] * 3
    assert len([line for line in loop.lines if line.startswith("waiting")]) == 2  # each state once


def _rest(context: LoopContext) -> tuple[Any, Any]:
    return context.detector, context.progress


def test_round_is_closed_early_by_new_boxes(workspace: Workspace, loop: Loop, blocks: Path) -> None:
    configure(workspace, policy=PolicySettings(new_boxes=1))

    def one_answer(pause: int) -> bool:
        if pause > 1:
            return True
        studio = FakeStudio(workspace.path / "studio" / "fake.json")
        project = studio.ensure_project(workspace.settings.title, workspace.class_book().vocabulary())
        from annotate.studio.protocol import Region
        from dsmoe_core.schema import Box

        region = Region("r1", Box(4, 4, 20, 20), "rust", "manual", None)
        studio.submit(project, studio.open_tasks(project)[0], [region], seconds=1.0)
        return False

    loop.on_pause = one_answer
    assert loop.watch.run() == 1
    rows = workspace.rounds()
    assert [row.state for row in rows] == ["closed", "open"]
    assert (rows[0].sent, rows[0].answered) == (3, 1)


def test_outage_is_retried_with_growing_pauses_and_reported_once(workspace: Workspace, loop: Loop) -> None:
    loop.down = [StudioError("Label Studio does not answer", "Start it.") for _ in range(6)]
    loop.on_pause = lambda _: not loop.down
    assert loop.watch.run() == 0
    assert loop.pauses == [60.0, 120.0, 240.0, 480.0, 900.0, 900.0]
    assert len(loop.lines) == 6
    assert [event for event, _ in loop.events] == ["failed"]
    loop.on_pause = lambda _: True
    assert loop.watch.run() == 0
    assert states(workspace) == ["open"]
    assert loop.pauses[-1] == 60.0


def test_mistake_at_the_first_step_ends_the_loop_and_a_later_one_does_not(
    workspace: Workspace, loop: Loop
) -> None:
    loop.down = [ClassBookError("class 'x' is unknown", "Correct it.")]
    with pytest.raises(ClassBookError):
        loop.watch.run()

    def break_then_stop(pause: int) -> bool:
        if pause == 1:
            loop.down = [ClassBookError("class 'x' is unknown", "Correct it.")]
        return pause == 3

    loop.on_pause = break_then_stop
    assert loop.watch.run() == 0
    assert [event for event, _ in loop.events] == ["round-ready", "failed"]


def test_busy_workspace_is_tried_again_without_a_notification(workspace: Workspace, loop: Loop) -> None:
    with workspace.locked():
        loop.on_pause = lambda pause: pause == 2
        assert loop.watch.run() == 0
    assert states(workspace) == []
    assert loop.pauses == [60.0, 120.0]
    assert loop.events == []


def test_lost_lock_ends_the_loop_before_it_acts(workspace: Workspace, loop: Loop) -> None:
    loop.lost = True
    with pytest.raises(LoopLockLostError):
        loop.watch.run()
    assert states(workspace) == []


def test_held_candidate_stops_rounds_until_it_is_released(workspace: Workspace, loop: Loop) -> None:
    workspace.journal.set_value(HELD, "r0-12345678")
    assert loop.watch.once().action == "wait"
    assert loop.watch.once().action == "wait"
    assert [event for event, _ in loop.events] == ["held"]
    workspace.journal.set_value(HELD, None)
    assert loop.watch.once().action == "open"


def test_retraining_waits_for_approval(workspace: Workspace, blocks: Path) -> None:
    configure(workspace, policy=PolicySettings(approval=True))
    loop = Loop(workspace.path, WatchPlan(truth=blocks / "train.json"))
    assert [loop.watch.once().action for _ in range(3)] == ["open", "wait", "wait"]
    assert [event for event, _ in loop.events] == ["round-ready", "held"]
    assert approve_retraining(workspace.journal, "looks right") == 0
    assert loop.watch.once().action == "close"
    assert loop.watch.once().action == "open"
    assert loop.watch.once().action == "wait"  # the approval was for round 0 alone
    assert [event for event, _ in loop.events][-2:] == ["round-ready", "held"]


def test_approval_without_an_open_round_is_refused(workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError):
        approve_retraining(workspace.journal, "why not")


def test_refused_candidate_is_notified_once(workspace: Workspace, blocks: Path) -> None:
    from pipelines.settings.gate import GateSettings

    configure(workspace, gate=GateSettings(checks=("min_gain",), min_gain=0.99), notify=NotifySettings())
    loop = Loop(workspace.path, WatchPlan(rounds=3, truth=blocks / "train.json"))
    assert loop.watch.run() == 3
    refused = [content["round"] for event, content in loop.events if event == "refused"]
    assert refused == [1, 2]
    later = Loop(workspace.path, WatchPlan(truth=blocks / "train.json"))
    later.watch.once()
    assert "refused" not in [event for event, _ in later.events]


def test_earlier_rounds_are_not_notified(workspace: Workspace, context: LoopContext, label: Label) -> None:
    from pipelines.rounds.loop import open_round

    open_round(context)
    loop = Loop(workspace.path, WatchPlan())
    assert loop.watch.once().action == "wait"
    assert loop.events == []


def test_explain_changes_nothing(workspace: Workspace) -> None:
    assert explain(workspace).action == "open"
    assert states(workspace) == []
    assert workspace.journal.value("notified") is None


def test_drift_predicts_the_new_images(workspace: Workspace, blocks: Path) -> None:
    configure(workspace, policy=PolicySettings(drift=True))
    loop = Loop(workspace.path, WatchPlan(truth=blocks / "train.json"))
    assert [loop.watch.once().action for _ in range(3)] == ["open", "close", "open"]
    loop = Loop(workspace.path, WatchPlan())
    decision = loop.watch.once()
    (check,) = [check for check in decision.checks if check.name == "drift"]
    assert check.verdict is False
    champion = workspace.champion()
    assert champion is not None
    assert len(workspace.predictions()) >= 9  # all images of the pool that it was not trained on


def test_stop_event_ends_a_pause() -> None:
    stop = threading.Event()
    stop.set()
    assert stop.wait(60.0) is True
