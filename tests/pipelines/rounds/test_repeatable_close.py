"""A round that cannot be closed can be closed by the same command once its cause is mended.

Runs with the fake and, marked ``labelstudio``, with a real Label Studio.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from annotate.studio.convert import to_result
from annotate.studio.protocol import OpenTask, Region
from dsmoe_core.data.import_account import Conversion, ImportAccount, Kind, Reason
from dsmoe_core.errors import ClassBookError, StudioError, WorkspaceError
from dsmoe_core.schema import Box
from pipelines.detectors.stub_detector import StubDetector
from pipelines.rounds.context import LoopContext
from pipelines.rounds.dispatch import choose
from pipelines.rounds.loop import close_round, open_round
from pipelines.workspace.workspace import Workspace
from prompts.class_book import ClassBook
from tests.pipelines.rounds.conftest import Users
from tests.pipelines.rounds.test_label_studio_faults import check_documented

pytestmark = pytest.mark.timeout(600)
Label = Callable[[LoopContext], None]
Shared = tuple[LoopContext, Users]
Json = dict[str, Any]


def rectangle(task: OpenTask, label: str | None, name: str = "hand", **value: Any) -> Json:
    """A region of 20 x 20 px; ``value`` overrides its percentages."""
    region = Region(name, Box(10.0, 10.0, 30.0, 30.0), label or "", "manual", None)
    result = to_result(region, task.width, task.height)
    result["value"] |= value
    if label is None:
        del result["value"]["rectanglelabels"]
    return result


def new_process(context: LoopContext) -> LoopContext:
    """The context as a new process opens it."""
    settings = context.workspace.settings
    workspace = Workspace.open(context.workspace.path)
    workspace.settings = settings
    return replace(context, workspace=workspace)


def open_tasks(context: LoopContext) -> list[OpenTask]:
    return context.studio.open_tasks(context.project())


def publish(
    context: LoopContext, *, add: str = "", remove: str = "", alias: Mapping[str, str] | None = None
) -> LoopContext:
    """Publish a changed class book; returns the context of a new process.

    Args:
        add, remove: name of a class.
        alias: name of a class -> its new alias.
    """
    workspace = context.workspace
    content = workspace.class_book().model_dump(mode="json")
    content["classes"] = [entry for entry in content["classes"] if entry["name"] != remove]
    for entry in content["classes"]:
        if alias and entry["name"] in alias:
            entry["aliases"] = [*entry["aliases"], alias[entry["name"]]]
    if add:
        content["classes"].append({"name": add, "description": "a line in the surface"})
    ClassBook.from_content(content, "as changed").save(workspace.path / "classes.yaml")
    before = workspace.class_books.published_version()
    workspace.class_books.publish(None, author="someone", force_reason="for a test", over=before)
    return new_process(context)


def state(context: LoopContext) -> str:
    return context.workspace.journal.rounds()[-1].state


def account(context: LoopContext) -> ImportAccount:
    saved = context.workspace.round_account(context.workspace.journal.rounds()[-1].round)
    assert saved is not None
    assert saved.is_balanced
    return saved


def plant_unknown_class(context: LoopContext, users: Users, label: Label) -> tuple[OpenTask, int]:
    """Open a round and annotate one image with a class that the class book lacks, the others correctly."""
    open_round(context)
    first, *_ = open_tasks(context)
    annotation = users.annotate(first.task_id, [rectangle(first, "crack")])
    label(context)
    return first, annotation


@pytest.mark.parametrize("times", [1, 2])
def test_round_closes_after_the_class_is_corrected_in_label_studio(
    shared: Shared, label: Label, times: int
) -> None:
    context, users = shared
    task, annotation = plant_unknown_class(context, users, label)
    name = context.workspace.images_by_key()[task.key].name
    for _ in range(times):
        with pytest.raises(ClassBookError) as caught:
            close_round(new_process(context))
        text = str(caught.value)
        assert all(
            part in text for part in (name, f"task {task.task_id}", f"annotation {annotation}", "crack")
        )
        check_documented(text, name, f"task {task.task_id}, annotation {annotation}")
    users.correct(annotation, [rectangle(task, "rust")])
    row = close_round(new_process(context))
    assert (row.state, row.sent, row.new_images) == ("closed", 3, 3)
    (item,) = [
        i for i in context.workspace.dataset_version(row.dataset_version or "").train if i.key == task.key
    ]
    assert [box.label for box in item.boxes] == ["rust"]


def test_round_closes_after_the_class_is_added_to_the_class_book(shared: Shared, label: Label) -> None:
    context, users = shared
    task, _ = plant_unknown_class(context, users, label)
    with pytest.raises(ClassBookError):
        close_round(context)
    row = close_round(publish(context, add="crack"))
    assert row.state == "closed"
    items = context.workspace.dataset_version(row.dataset_version or "").train
    assert [box.label for i in items if i.key == task.key for box in i.boxes] == ["crack"]


def test_every_image_with_an_unknown_class_is_named(context: LoopContext, label: Label) -> None:
    open_round(context)
    tasks = open_tasks(context)
    for number, task in enumerate(tasks):
        context.studio.annotate(task.task_id, {"result": [rectangle(task, f"crack {number}")]})  # type: ignore[attr-defined]
    with pytest.raises(ClassBookError) as caught:
        close_round(context)
    assert len(caught.value.details) == len(tasks)
    names = {context.workspace.images_by_key()[task.key].name for task in tasks}
    assert all(any(name in line for line in caught.value.details) for name in names)


class InterruptedDetector(StubDetector):
    """Is interrupted when it is trained."""

    def fit(self, **_: Any) -> dict[str, Any]:
        raise KeyboardInterrupt


def close_interrupted(context: LoopContext) -> str:
    """Close a round up to its training; returns its dataset version."""
    with pytest.raises(KeyboardInterrupt):
        close_round(replace(context, detector=InterruptedDetector()))
    assert state(context) == "closing"
    number = context.workspace.journal.rounds()[-1].round
    return str((context.workspace.journal.finished(number, "dataset") or {})["dataset_version"])


def test_interrupted_training_keeps_its_dataset_version(shared: Shared, label: Label) -> None:
    context, users = shared
    open_round(context)
    first, *_ = open_tasks(context)
    annotation = users.annotate(first.task_id, [rectangle(first, "rust")])
    label(context)
    dataset = close_interrupted(context)
    users.correct(annotation, [rectangle(first, "plum")])  # counts in the next round
    assert close_round(new_process(context)).dataset_version == dataset


def test_dataset_version_is_made_again_if_its_class_was_removed(shared: Shared, label: Label) -> None:
    context, users = shared
    context = publish(context, add="crack")
    open_round(context)
    first, *_ = open_tasks(context)
    annotation = users.annotate(first.task_id, [rectangle(first, "crack")])
    label(context)
    dataset = close_interrupted(context)
    smaller = publish(context, remove="crack")
    with pytest.raises(StudioError, match=f"task {first.task_id}, annotation {annotation}"):
        close_round(smaller)
    assert state(smaller) == "closing"
    users.correct(annotation, [rectangle(first, "rust")])
    row = close_round(new_process(smaller))
    assert row.state == "closed"
    assert row.dataset_version != dataset


def test_project_that_was_renamed_is_still_used(shared: Shared, label: Label) -> None:
    context, users = shared
    open_round(context)
    project = context.project()
    label(context)
    users.rename_project(project, "another title")
    assert context.project() == project
    assert close_round(new_process(context)).new_images == 3
    other = context.workspace.settings.model_copy(update={"title": f"{context.workspace.settings.title} b"})
    context.workspace.settings = other
    assert context.project() != project  # another title in the settings asks for another project


def test_round_closes_after_a_deleted_project_was_sent_again(shared: Shared, label: Label) -> None:
    context, users = shared
    open_round(context)
    users.delete_project(context.project())
    with pytest.raises(WorkspaceError):
        close_round(new_process(context))
    assert state(context) == "open"
    open_round(new_process(context))
    label(context)
    assert close_round(new_process(context)).new_images == 3


def test_round_closes_after_a_deleted_task_was_sent_again(shared: Shared, label: Label) -> None:
    context, users = shared
    open_round(context)
    first, *_ = open_tasks(context)
    users.delete_task(first.task_id)
    label(context)
    with pytest.raises(WorkspaceError):
        close_round(new_process(context))
    open_round(new_process(context))
    label(context)
    assert close_round(new_process(context)).new_images == 3


def test_round_closes_after_a_missing_image_file_is_back(context: LoopContext, label: Label) -> None:
    open_round(context)
    first, *_ = open_tasks(context)
    label(context)
    file = context.workspace.images_by_key()[first.key].path
    kept = file.with_suffix(".kept")
    shutil.move(file, kept)
    with pytest.raises(WorkspaceError) as caught:
        close_round(new_process(context))
    check_documented(str(caught.value), str(file), context.workspace.images_by_key()[first.key].name)
    shutil.move(kept, file)
    assert close_round(new_process(context)).state == "closed"


def test_round_is_sent_although_its_predictions_were_lost(context: LoopContext, label: Label) -> None:
    open_round(context)
    label(context)
    close_round(context)
    context.workspace.journal.start_round(1, context.workspace.champion())
    record = context.workspace.journal.rounds()[-1]
    choose(context, record)
    for file in (context.workspace.path / "predictions").iterdir():
        file.unlink()
    row = open_round(new_process(context))
    assert (row.state, row.sent) == ("open", 3)
    assert any(task.pre_annotations for task in open_tasks(context))


def test_test_image_with_a_class_that_was_removed_is_named(context: LoopContext) -> None:
    open_round(context)
    studio: Any = context.studio
    for task in open_tasks(context):
        studio.annotate(task.task_id, {"result": [rectangle(task, "rust")]})
    with_plum = [
        p.image.name for p in context.workspace.test_set() if "plum" in {a.label for a in p.annotations}
    ]
    smaller = publish(context, remove="plum")
    with pytest.raises(ClassBookError) as caught:
        close_round(smaller)
    assert any(name in caught.value.problem for name in with_plum)
    assert state(smaller) == "closing"
    assert close_round(publish(smaller, alias={"rust": "plum"})).state == "closed"


def test_annotation_of_a_deleted_account_counts(context: LoopContext, label: Label) -> None:
    open_round(context)
    first, *_ = open_tasks(context)
    studio: Any = context.studio
    annotation = studio.annotate(first.task_id, {"result": [rectangle(first, "rust")]})
    studio.update_annotation(annotation, completed_by=None)
    label(context)
    assert close_round(new_process(context)).new_images == 3


def test_regions_of_every_kind(shared: Shared, label: Label) -> None:
    context, users = shared
    context.workspace.settings = context.workspace.settings.model_copy(
        update={"round": context.workspace.settings.round.model_copy(update={"budget": 6})}
    )
    open_round(context)
    negative, polygon, rotated, unlabelled, empty, _ = tasks = open_tasks(context)
    users.annotate(negative.task_id, [rectangle(negative, "rust", x=50, y=50, width=-20, height=-20)])
    points = [[10, 10], [40, 10], [25, 40]]
    value = {"points": points, "closed": True, "polygonlabels": ["rust"]}
    outline = rectangle(polygon, "rust") | {"type": "polygonlabels", "value": value}
    users.annotate(polygon.task_id, [outline])
    users.annotate(rotated.task_id, [rectangle(rotated, "rust", x=50, y=50, rotation=45)])
    lost = users.annotate(unlabelled.task_id, [rectangle(unlabelled, None, "lost")])
    users.annotate(empty.task_id, [rectangle(empty, "rust", width=0), rectangle(empty, "rust", "good")])
    label(context)
    row = close_round(context)
    assert (row.answered, row.new_images, row.doubtful) == (6, 4, 2)
    harvests = context.workspace.journal.harvests()
    assert [harvests[task.key].doubt for task in tasks] == [None, None, None, "unsure", "unsure", None]
    assert "lost" in harvests[unlabelled.key].note
    (turned,) = harvests[negative.key].annotations
    assert turned.box.corners == pytest.approx((28.8, 28.8, 48.0, 48.0))
    (around,) = harvests[polygon.key].annotations
    assert around.box.corners == pytest.approx((9.6, 9.6, 38.4, 38.4))
    saved = account(context)
    assert (saved.images_in, saved.images_taken, saved.images_left_out) == (6, 4, 2)
    assert saved.boxes_in == saved.boxes_taken + 3
    assert saved.conversions == {Conversion.TURNED: 1, Conversion.POLYGON: 1, Conversion.ROTATED: 1}
    boxes = {entry.where: entry.reason for entry in saved.entries if entry.kind is Kind.BOX}
    assert boxes[f"task {unlabelled.task_id}, annotation {lost}, region lost"] is Reason.NO_CLASS
    assert sorted(boxes.values()) == sorted([Reason.NO_CLASS, Reason.NO_AREA])
