"""Rounds with annotators who are in doubt, change annotations, or delete tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
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
from pipelines.rounds.harvesting import harvest
from pipelines.rounds.loop import close_round, open_round
from pipelines.workspace.annotation_time import ALL
from pipelines.workspace.workspace import Workspace

Label = Callable[[LoopContext], None]


def fake(context: LoopContext) -> FakeStudio:
    assert isinstance(context.studio, FakeStudio)
    return context.studio


def doubt(context: LoopContext, note: str) -> str:
    """Mark the first open image as needing an expert; returns its key."""
    task, *_ = context.studio.open_tasks(context.project())
    common = {"to_name": OBJECT, "id": "x"}
    choice = {
        "type": "choices",
        "from_name": IMAGE_CHOICE,
        "value": {"choices": [str(ImageChoice.NEEDS_EXPERT)]},
    }
    text = {"type": "textarea", "from_name": NOTE, "value": {"text": [note]}}
    fake(context).annotate(task.task_id, {"result": [common | choice, common | text], "lead_time": 9.0})
    return task.key


def test_doubtful_image_counts_as_answered_and_is_not_trained_on(
    context: LoopContext, label: Label, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = open_round(context).sent
    key = doubt(context, "spur, or [dirt]?")
    label(context)
    row = close_round(context)
    assert (row.answered, row.new_images, row.doubtful) == (sent, sent - 1, 1)
    assert key not in context.workspace.annotations()
    assert run(["round", "notes", str(context.workspace.path)]) == 0
    output = capsys.readouterr().out
    assert "needs an expert" in output
    assert "spur, or [dirt]?" in output
    assert run(["status", str(context.workspace.path)]) == 0
    assert (row.effort[ALL].images, row.effort[ALL].per_image) == (1, 9.0)


def test_notes_of_a_workspace_without_doubts_succeed(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["round", "notes", str(workspace.path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_doubtful_image_becomes_a_label_when_the_expert_decides(context: LoopContext, label: Label) -> None:
    open_round(context)
    key = doubt(context, "?")
    label(context)
    close_round(context)
    doubtful = context.workspace.journal.harvests()[key]
    fake(context).update_annotation(doubtful.annotation_id, result=[])
    open_round(context)
    label(context)
    close_round(context)
    assert key in context.workspace.annotations()


def test_deleted_task_is_reported_and_sent_again(context: LoopContext, label: Label) -> None:
    sent = open_round(context).sent
    deleted = fake(context)._state["tasks"].pop(0)
    label(context)
    with pytest.raises(WorkspaceError, match=f"1 of {sent}") as error:
        close_round(context)
    assert "`dsmoe round open`" in error.value.remedy
    open_round(context)
    assert [task.key for task in context.studio.open_tasks(context.project())] == [deleted["data"]["key"]]
    label(context)
    assert close_round(context).new_images == sent


class AnsweringStudio(FakeStudio):
    """Images are answered right after each harvest: one after an empty harvest, two after another one."""

    def harvest(self, project: int, **arguments: Any) -> list[Harvest]:
        harvests = super().harvest(project, **arguments)
        for task in self.open_tasks(project)[: 2 if harvests else 1]:
            self.submit(project, task, [], seconds=1.0)
        return harvests


def test_images_answered_during_the_harvest_are_not_reported_as_deleted(context: LoopContext) -> None:
    sent = open_round(context).sent
    answering = replace(context, studio=AnsweringStudio(context.workspace.path / "studio" / "fake.json"))
    with pytest.raises(WorkspaceError, match=f"{sent - 1} of {sent}") as error:
        close_round(answering)
    assert "`dsmoe round open`" not in error.value.remedy
    assert close_round(answering).answered == sent


def test_deleted_project_loses_no_recorded_annotation(context: LoopContext, label: Label) -> None:
    sent = open_round(context).sent
    first, *_ = context.studio.open_tasks(context.project())
    context.studio.submit(context.project(), first, [], seconds=1.0)
    with pytest.raises(WorkspaceError, match=f"{sent - 1} of {sent}"):
        close_round(context)
    fake(context)._state.update(tasks=[], projects=[])
    open_round(context)
    sent_again = [task.key for task in context.studio.open_tasks(context.project())]
    assert len(sent_again) == sent - 1
    assert first.key not in sent_again
    label(context)
    assert close_round(context).answered == sent


@pytest.mark.parametrize("project_too", [False, True])
def test_deleted_task_of_a_closed_round_stays_deleted_unless_the_project_is_new(
    context: LoopContext, label: Label, project_too: bool
) -> None:
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


def test_withdrawn_annotation_reopens_its_image(context: LoopContext, label: Label) -> None:
    open_round(context)
    label(context)
    harvest(context, 0, False)
    (key, known), *_ = context.workspace.journal.harvests().items()
    fake(context).delete_annotation(known.annotation_id)
    with pytest.raises(WorkspaceError, match="1 of 3"):
        harvest(context, 0, False)
    assert key not in context.workspace.annotations()


def test_changed_consensus_applies_to_recorded_annotations(context: LoopContext, tmp_path: Path) -> None:
    moment = datetime(2025, 1, 1, tzinfo=UTC)
    studio = FakeStudio(tmp_path / "clock.json", now=lambda: moment)
    context = LoopContext(context.workspace, studio, context.detector, context.progress)
    open_round(context)
    first, second, *_ = studio.open_tasks(context.project())
    for user in (1, 2):
        box = Region(f"box {user}", Box(30.0 * user, 5.0, 30.0 * user + 20, 25.0), "rust", "manual", None)
        annotation = {"result": [to_result(box, first.width, first.height)], "completed_by": user}
        studio.annotate(first.task_id, annotation | {"lead_time": 3.0})
    moment += timedelta(days=1)  # a harvest usually asks for newer annotations only
    studio.submit(context.project(), second, [], seconds=1.0)
    settings = context.workspace.settings
    for consensus, boxes in (("latest", 1), ("union", 2), ("latest", 1)):
        changed = settings.studio.model_copy(update={"consensus": consensus})
        context.workspace.settings = settings.model_copy(update={"studio": changed})
        harvest(context, 0, partial=True)
        assert len(context.workspace.journal.harvests()[first.key].annotations) == boxes


def test_annotations_of_a_server_whose_clock_was_set_back_are_harvested(
    context: LoopContext, tmp_path: Path
) -> None:
    """They are dated before the last harvest."""
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
