"""The snapshot of a workspace that the policy decides on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from dsmoe_core.schema import Annotation, Box, ImageRecord, LabelledImage, Vocabulary
from pipelines.rounds.context import LoopContext
from pipelines.rounds.loop import close_round, open_round
from pipelines.rounds.policy_snapshot import count_classes, new_labels, take_snapshot
from pipelines.workspace.dataset_version import DatasetVersion
from pipelines.workspace.workspace import Workspace

BOX, OTHER = Box(1.0, 2.0, 30.00049, 40.0), Box(50.0, 50.0, 60.0, 60.0)


def labelled(key: str, *boxes: tuple[Box, str]) -> LabelledImage:
    image = ImageRecord(key, f"{key}.png", Path(f"{key}.png"), 96, 96)
    return LabelledImage(image, tuple(Annotation(box, label) for box, label in boxes))


def test_snapshot_follows_a_round(
    workspace: Workspace, context: LoopContext, label: Callable[[LoopContext], None]
) -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    empty = take_snapshot(workspace, now)
    assert (empty.round, empty.state, empty.unlabelled) == (None, None, 12)
    assert empty.class_boxes == {"rust": 0, "brick": 0, "plum": 0}
    open_round(context)
    label(context)
    from pipelines.rounds.harvesting import record_new_annotations

    record_new_annotations(context)
    answered = take_snapshot(workspace, now)
    assert (answered.state, answered.sent, answered.answered, answered.unlabelled) == ("open", 3, 3, 9)
    assert answered.new_images == 3
    assert answered.new_boxes == sum(answered.class_boxes.values()) > 0
    assert answered.champion_since is None
    close_round(context)
    closed = take_snapshot(workspace, now)
    assert (closed.state, closed.new_images, closed.new_boxes) == ("closed", 0, 0)
    assert closed.champion_since is not None
    assert closed.last_closed is not None
    assert closed.now == now


def test_new_labels_are_those_that_the_last_training_did_not_have(workspace: Workspace) -> None:
    book = workspace.class_book()
    vocabulary: Vocabulary = book.vocabulary()
    before = [labelled("a", (BOX, "rust")), labelled("b", (BOX, "rust"), (OTHER, "plum")), labelled("c")]
    trained = DatasetVersion.of(before, vocabulary)
    same = {item.image.key: item for item in before}
    assert new_labels(same, trained, book) == (0, 0)
    assert new_labels(same, None, book) == (3, 3)
    changed = same | {
        "a": labelled("a", (BOX, "brick")),  # relabelled: one new box
        "b": labelled("b", (BOX, "rust")),  # one deleted: a new image state, no new box
        "d": labelled("d", (BOX, "rust"), (BOX, "rust")),
    }
    assert new_labels(changed, trained, book) == (3, 3)
    assert count_classes(changed, book) == {"rust": 3, "brick": 1, "plum": 0}


def test_class_that_the_book_lacks_is_counted_nowhere(workspace: Workspace) -> None:
    strange = {"a": labelled("a", (BOX, "unknown"), (replace(OTHER), "rust"))}
    assert new_labels(strange, None, workspace.class_book()) == (1, 2)
    assert count_classes(strange, workspace.class_book())["rust"] == 1
