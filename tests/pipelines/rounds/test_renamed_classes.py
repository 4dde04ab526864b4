"""Rounds in which a class of the class book is renamed or removed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from annotate.studio.fake import FakeStudio
from dsmoe_core.schema import Annotation, Box, Detection, Prediction, Routing
from pipelines.detectors.stub_detector import StubDetector
from pipelines.rounds.context import LoopContext
from pipelines.rounds.loop import close_round, open_round
from pipelines.services.review import review_samples
from pipelines.workspace.relabel import or_drop, or_keep, relabel_image, relabel_prediction
from pipelines.workspace.workspace import Workspace
from prompts.class_book import ClassBook
from prompts.class_entry import ClassEntry
from ui.state import read_snapshot

Label = Callable[[LoopContext], None]


def published(context: LoopContext, **renamed: str) -> LoopContext:
    """Publish a class book in which these classes have new names and the old ones as aliases.

    Returns:
        The context with the workspace and the server as a new process opens them.
    """
    workspace = context.workspace
    content = workspace.class_book().model_dump(mode="json")
    for entry in content["classes"]:
        if entry["name"] in renamed:
            entry.update(name=renamed[entry["name"]], aliases=[*entry["aliases"], entry["name"]])
    ClassBook.from_content(content, "as changed").save(workspace.path / "classes.yaml")
    workspace.class_books.publish(None, author="someone", force_reason="for a test")
    studio = FakeStudio(workspace.path / "studio" / "fake.json")
    return replace(context, workspace=Workspace.open(workspace.path), studio=studio)


def test_evaluation_uses_the_new_name(context: LoopContext, label: Label) -> None:
    open_round(context)
    label(context)
    renamed = published(context, rust="red_block")
    row = close_round(renamed)
    metrics = renamed.workspace.registry.evaluation(row.model or "")
    assert metrics is not None
    assert metrics.per_class.keys() == {"red_block", "brick", "plum"}


class InterruptedDetector(StubDetector):
    """Is interrupted when it is trained."""

    def fit(self, **_: Any) -> dict[str, Any]:
        raise KeyboardInterrupt


def test_interrupted_training_continues_with_the_new_name(context: LoopContext, label: Label) -> None:
    open_round(context)
    label(context)
    with pytest.raises(KeyboardInterrupt):
        close_round(replace(context, detector=InterruptedDetector()))
    renamed = published(context, rust="red_block")
    row = close_round(renamed)
    card = renamed.workspace.registry.card(row.model or "")
    assert (row.promoted, card.class_book) == (True, renamed.workspace.class_book().version)


def test_pre_annotations_of_an_open_round_are_sent_with_the_new_name(
    context: LoopContext, label: Label
) -> None:
    open_round(context)
    label(context)
    close_round(context)
    open_round(context)

    def labels(context: LoopContext) -> list[tuple[str, list[str]]]:
        return [
            (t.key, [r.label for r in t.pre_annotations])
            for t in context.studio.open_tasks(context.project())
        ]

    before = labels(context)
    old = next(name for _, names in before for name in names)
    assert isinstance(context.studio, FakeStudio)
    context.studio._state["tasks"] = [
        row for row in context.studio._state["tasks"] if row["data"]["round"] == 0
    ]
    context.studio._save()
    renamed = published(context, **{old: "new_name"})
    open_round(renamed)
    assert labels(renamed) == [
        (key, ["new_name" if name == old else name for name in names]) for key, names in before
    ]


def test_review_and_pages_show_all_boxes_with_the_new_names(context: LoopContext, label: Label) -> None:
    open_round(context)
    label(context)
    close_round(context)
    renamed = published(context, rust="red_block")
    truth = [a.label for sample in review_samples(renamed.workspace) for a in sample.annotations or ()]
    snapshot = read_snapshot(renamed.workspace.path)
    labelled = [*snapshot.annotations.values(), *snapshot.test_set.values()]
    assert {"red_block", "brick", "plum"} == set(truth) == {a.label for p in labelled for a in p.annotations}


def test_boxes_of_a_removed_class_keep_their_name(workspace: Workspace) -> None:
    (first, *_) = workspace.test_set()
    box = Annotation(Box(0.0, 0.0, 5.0, 5.0), "long_gone")
    assert relabel_image(replace(first, annotations=(box,)), or_keep(workspace.class_book())).annotations == (
        box,
    )


def test_detections_of_a_removed_class_are_left_out() -> None:
    entries = [ClassEntry(name="rust", description="red", aliases=("paint",))]
    book = ClassBook(classes=(*entries, ClassEntry(name="dent", description="flat")))
    probabilities = {"rust": 0.3, "paint": 0.6, "plum": 0.5, "dent": 0.1}
    boxes = (Box(0.0, 0.0, 5.0, 5.0), Box(9.0, 9.0, 15.0, 15.0))
    detections = tuple(
        Detection(box, name, probabilities[name], probabilities, 0.1)
        for box, name in zip(boxes, ("paint", "plum"), strict=True)
    )
    prediction = Prediction("k", detections, Routing((0,), (1.0,), 0.0), 0.4, "m+b")
    (detection,) = relabel_prediction(prediction, or_drop(book)).detections
    assert (detection.box, detection.label, detection.score) == (boxes[0], "rust", 0.6)
    assert detection.probabilities == {"rust": 0.6, "dent": 0.1}
