"""The loop with a class book in which a class was renamed or removed while it went on; on the stub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from annotate.studio.fake import FakeStudio
from dsmoe_core.schema import Annotation, Box, Detection, Prediction, Routing
from pipelines.datasets.relabel import in_published_classes
from pipelines.detectors.stub_detector import StubDetector
from pipelines.rounds.context import LoopContext
from pipelines.rounds.dispatch import as_called_now
from pipelines.rounds.loop import close_round, open_round
from pipelines.services.review import review_samples
from pipelines.workspace.workspace import Workspace
from prompts.class_book import ClassBook
from prompts.class_entry import ClassEntry
from ui.state import read_snapshot

Label = Callable[[LoopContext], None]


def published(context: LoopContext, **renamed: str) -> LoopContext:
    """Publishes a book in which these classes have new names, and the old ones as aliases.

    Returns:
        Everybody, as the next process would find them.
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


def test_the_test_set_is_judged_under_the_new_name(context: LoopContext, label: Label) -> None:
    open_round(context)
    label(context)
    renamed = published(context, rust="red_block")
    row = close_round(renamed)
    judged = renamed.workspace.registry.card(row.model or "").evaluation
    assert judged is not None
    assert judged.per_class.keys() == {"red_block", "brick", "plum"}


def test_an_interrupted_training_goes_on_under_the_new_name(
    context: LoopContext, label: Label, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> dict[str, Any]:
        raise KeyboardInterrupt

    open_round(context)
    label(context)
    with monkeypatch.context() as patch:
        patch.setattr(StubDetector, "fit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            close_round(context)
    renamed = published(context, rust="red_block")
    row = close_round(renamed)
    card = renamed.workspace.registry.card(row.model or "")
    assert (row.promoted, card.class_book) == (True, renamed.workspace.class_book().version)


def test_a_round_chosen_before_is_sent_under_the_new_name(context: LoopContext, label: Label) -> None:
    open_round(context)
    label(context)
    close_round(context)
    open_round(context)

    def shown(context: LoopContext) -> list[tuple[str, list[str]]]:
        return [
            (t.key, [r.label for r in t.pre_annotations])
            for t in context.studio.open_tasks(context.project())
        ]

    before = shown(context)
    old = next(name for _, labels in before for name in labels)
    assert isinstance(context.studio, FakeStudio)
    context.studio._state["tasks"] = [
        row for row in context.studio._state["tasks"] if row["data"]["round"] == 0
    ]
    context.studio._save()
    renamed = published(context, **{old: "new_name"})
    open_round(renamed)
    assert shown(renamed) == [
        (key, ["new_name" if name == old else name for name in labels]) for key, labels in before
    ]


def test_people_are_shown_all_boxes_under_todays_names(context: LoopContext, label: Label) -> None:
    open_round(context)
    label(context)
    close_round(context)
    renamed = published(context, rust="red_block")
    truth = [a.label for sample in review_samples(renamed.workspace) for a in sample.annotations or ()]
    snapshot = read_snapshot(renamed.workspace.path)
    labelled = [*snapshot.annotations.values(), *snapshot.test_set.values()]
    assert {"red_block", "brick", "plum"} == set(truth) == {a.label for p in labelled for a in p.annotations}


def test_boxes_of_a_class_that_is_gone_are_shown_under_their_old_name(workspace: Workspace) -> None:
    (first, *_) = workspace.test_set()
    box = Annotation(Box(0.0, 0.0, 5.0, 5.0), "long_gone")
    assert in_published_classes(replace(first, annotations=(box,)), workspace.class_book()).annotations == (
        box,
    )


def test_detections_of_a_class_that_is_gone_are_not_sent() -> None:
    entries = [ClassEntry(name="rust", description="red", aliases=("paint",))]
    book = ClassBook(classes=(*entries, ClassEntry(name="dent", description="flat")))
    odds = {"rust": 0.3, "paint": 0.6, "plum": 0.5, "dent": 0.1}
    boxes = (Box(0.0, 0.0, 5.0, 5.0), Box(9.0, 9.0, 15.0, 15.0))
    found = tuple(
        Detection(box, name, odds[name], odds, 0.1)
        for box, name in zip(boxes, ("paint", "plum"), strict=True)
    )
    image = Prediction("k", found, Routing((0,), (1.0,), 0.0), 0.4, "m+b")
    (kept,) = as_called_now(image, book).detections
    assert (kept.box, kept.label, kept.score) == (boxes[0], "rust", 0.6)
    assert kept.probabilities == {"rust": 0.6, "dent": 0.1}
