"""The loop with people who doubt, change their minds, or delete what was sent; on the stub."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from annotate.studio.controls import IMAGE_CHOICE, NOTE, OBJECT, ImageChoice
from annotate.studio.convert import to_result
from annotate.studio.fake import FakeStudio
from annotate.studio.protocol import Region
from dsmoe_core.errors import WorkspaceError
from dsmoe_core.schema import Box, Harvest
from pipelines.cli import run
from pipelines.rounds.context import LoopContext
from pipelines.rounds.loop import close_round, open_round
from pipelines.rounds.retraining import harvest
from pipelines.workspace.workspace import Workspace

Label = Callable[[LoopContext], None]


def fake(context: LoopContext) -> FakeStudio:
    assert isinstance(context.studio, FakeStudio)
    return context.studio


def doubt(context: LoopContext, note: str) -> str:
    """The first open image goes to the expert; returns its key."""
    task, *_ = context.studio.open_tasks(context.project())
    said = {"to_name": OBJECT, "id": "x"}
    verdict = {
        "type": "choices",
        "from_name": IMAGE_CHOICE,
        "value": {"choices": [str(ImageChoice.NEEDS_EXPERT)]},
    }
    text = {"type": "textarea", "from_name": NOTE, "value": {"text": [note]}}
    fake(context).annotate(task.task_id, {"result": [said | verdict, said | text], "lead_time": 9.0})
    return task.key


def test_a_doubtful_image_closes_the_round_and_is_not_learned_from(
    context: LoopContext, label: Label, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = open_round(context).sent
    key = doubt(context, "spur, or [dirt]?")
    label(context)
    row = close_round(context)
    assert (row.answered, row.new_images, row.doubtful) == (sent, sent - 1, 1)
    assert key not in context.workspace.annotations()
    assert run(["round", "notes", str(context.workspace.path)]) == 0
    shown = capsys.readouterr().out
    assert "needs an expert" in shown
    assert "spur, or [dirt]?" in shown
    assert run(["status", str(context.workspace.path)]) == 0
    assert "Effort: seconds an image (a box)" in capsys.readouterr().out


def test_without_doubts_the_expert_is_told_so(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["round", "notes", str(workspace.path)]) == 0
    assert "No image is in doubt" in capsys.readouterr().out


def test_an_expert_who_decides_later_makes_it_a_label(context: LoopContext, label: Label) -> None:
    open_round(context)
    key = doubt(context, "?")
    label(context)
    close_round(context)
    doubted = context.workspace.journal.harvests()[key]
    fake(context).update_annotation(doubted.annotation_id, result=[])
    open_round(context)
    label(context)
    close_round(context)
    assert key in context.workspace.annotations()


def test_a_task_that_somebody_deleted_is_named_and_sent_again(context: LoopContext, label: Label) -> None:
    sent = open_round(context).sent
    gone = fake(context)._state["tasks"].pop(0)
    label(context)
    with pytest.raises(WorkspaceError, match=rf"1 of {sent} images of round 0 are no longer in Label Studio"):
        close_round(context)
    open_round(context)
    assert [task.key for task in context.studio.open_tasks(context.project())] == [gone["data"]["key"]]
    label(context)
    assert close_round(context).new_images == sent


def test_what_is_answered_while_the_round_is_closed_is_not_called_gone(
    context: LoopContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = open_round(context).sent
    studio, taken = fake(context), FakeStudio.harvest

    def answered_just_after(self: FakeStudio, project: int, **how: Any) -> list[Harvest]:
        back = taken(self, project, **how)
        for task in studio.open_tasks(project)[: 2 if back else 1]:
            studio.submit(project, task, [], seconds=1.0)
        return back

    monkeypatch.setattr(FakeStudio, "harvest", answered_just_after)
    with pytest.raises(
        WorkspaceError, match=rf"{sent - 1} of {sent} images of round 0 are not annotated yet"
    ):
        close_round(context)
    assert close_round(context).answered == sent


def test_a_project_that_somebody_deleted_costs_no_answer_that_was_taken_in(
    context: LoopContext, label: Label
) -> None:
    sent = open_round(context).sent
    first, *_ = context.studio.open_tasks(context.project())
    context.studio.submit(context.project(), first, [], seconds=1.0)
    with pytest.raises(
        WorkspaceError, match=rf"{sent - 1} of {sent} images of round 0 are not annotated yet"
    ):
        close_round(context)
    fake(context)._state.update(tasks=[], projects=[])
    open_round(context)
    again = [task.key for task in context.studio.open_tasks(context.project())]
    assert len(again) == sent - 1
    assert first.key not in again
    label(context)
    assert close_round(context).answered == sent


@pytest.mark.parametrize("project_too", [False, True])
def test_a_deleted_task_whose_round_was_closed_without_it_stays_deleted(
    context: LoopContext, label: Label, project_too: bool
) -> None:
    """Unless the whole project is gone: then nobody decided about this one."""
    open_round(context)
    label(context)
    close_round(context)
    open_round(context)
    first, *_ = context.studio.open_tasks(context.project())
    state = fake(context)._state
    state["tasks"] = [row for row in state["tasks"] if row["id"] != first.task_id]
    label(context)
    close_round(context, partial=True)
    if project_too:
        state.update(tasks=[], projects=[])
    open_round(context)
    assert (first.key in {task.key for task in context.studio.open_tasks(context.project())}) == project_too


def test_a_label_taken_back_is_out_again(context: LoopContext, label: Label) -> None:
    open_round(context)
    label(context)
    harvest(context, 0, False)
    (key, known), *_ = context.workspace.journal.harvests().items()
    fake(context).delete_annotation(known.annotation_id)
    with pytest.raises(WorkspaceError, match="are not annotated yet"):
        harvest(context, 0, False)
    assert key not in context.workspace.annotations()


def test_another_way_to_put_annotators_together_reaches_what_was_taken_in(
    context: LoopContext, tmp_path: Path
) -> None:
    moment = datetime(2025, 1, 1, tzinfo=UTC)
    studio = FakeStudio(tmp_path / "clock.json", now=lambda: moment)
    context = LoopContext(context.workspace, studio, context.detector, context.progress)
    open_round(context)
    first, second, *_ = studio.open_tasks(context.project())
    for who in (1, 2):
        box = Region(f"box {who}", Box(30.0 * who, 5.0, 30.0 * who + 20, 25.0), "rust", "manual", None)
        drawn = {"result": [to_result(box, first.width, first.height)], "completed_by": who}
        studio.annotate(first.task_id, drawn | {"lead_time": 3.0})
    moment += timedelta(days=1)  # what is older than the newest is not asked for again
    studio.submit(context.project(), second, [], seconds=1.0)
    settings = context.workspace.settings
    for consensus, boxes in (("latest", 1), ("union", 2), ("latest", 1)):
        way = settings.studio.model_copy(update={"consensus": consensus})
        context.workspace.settings = settings.model_copy(update={"studio": way})
        harvest(context, 0, partial=True)
        assert len(context.workspace.journal.harvests()[first.key].annotations) == boxes


def test_a_server_whose_clock_was_put_back_loses_nothing(context: LoopContext, tmp_path: Path) -> None:
    """What is stored then is dated before all that was seen."""
    late, early = (datetime(2030, 1, day, tzinfo=UTC) for day in (2, 1))
    moment = late
    studio = FakeStudio(tmp_path / "clock.json", now=lambda: moment)
    context = LoopContext(context.workspace, studio, context.detector, context.progress)
    open_round(context)
    first, *others = studio.open_tasks(context.project())
    studio.submit(context.project(), first, [], seconds=1.0)
    harvest(context, 0, partial=True)
    moment = early + timedelta(hours=1)
    for task in others:
        studio.submit(context.project(), task, [], seconds=1.0)
    assert harvest(context, 0, partial=False)["counts"]["answered"] == len(others) + 1
