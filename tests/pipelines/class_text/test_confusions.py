"""Counts of confused classes: by the detector, and in relabelled pre-annotations."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from dsmoe_core.schema import (
    Annotation,
    Box,
    Detection,
    Harvest,
    ImageRecord,
    LabelledImage,
    Outcome,
    Prediction,
    Routing,
)
from pipelines.class_text.confusions import annotator_corrections, confused_pairs, detector_confusions
from pipelines.workspace.workspace import Workspace
from prompts.refinement import ConfusedPair

VERSION = "r0-model+book"


def box(place: int, shift: float = 0.0) -> Box:
    """One of several boxes side by side, moved to the right by ``shift`` pixels."""
    return Box(30.0 * place + shift, 10.0, 30.0 * place + 20 + shift, 30.0)


def prediction(key: str, *detections: tuple[str, int, float]) -> Prediction:
    """A prediction with detections of (class, place, score)."""
    made = tuple(
        Detection(box(place), label, score, {label: score}, 0.1) for label, place, score in detections
    )
    return Prediction(key, made, Routing((0,), (1.0,), 0.0), 0.1, VERSION)


def test_confusions_of_the_detector_are_counted_in_both_directions() -> None:
    truth = [
        LabelledImage(
            ImageRecord(key, key, Path(key), 200, 100),
            (Annotation(box(0), "rust"), Annotation(box(1), "brick"), Annotation(box(2), "plum")),
        )
        for key in ("a", "b")
    ]
    predictions = {
        "a": prediction("a", ("brick", 0, 0.8), ("brick", 1, 0.9), ("plum", 2, 0.9)),
        "b": prediction("b", ("brick", 0, 0.02), ("plum", 0, 0.01), ("rust", 1, 0.8), ("plum", 2, 0.9)),
    }
    assert detector_confusions(predictions, truth) == {("rust", "brick"): 2, ("brick", "rust"): 1}
    assert detector_confusions({}, truth) == Counter()


def record_harvest(
    workspace: Workspace,
    detections: tuple[tuple[str, int, float], ...],
    annotations: tuple[tuple[str, Box], ...],
    relabelled: int,
    number: int = 0,
) -> None:
    """Store the prediction of an image, and the annotations that came back for it."""
    key = workspace.images("pool")[number].key
    workspace.prediction_store.append(VERSION, [prediction(key, *detections)])
    outcomes = dict.fromkeys(Outcome, 0) | {Outcome.RELABELLED: relabelled}
    made = tuple(Annotation(place, label) for label, place in annotations)
    time = datetime(2026, 1, 1 + number, tzinfo=UTC)
    workspace.journal.record_harvests([Harvest(key, made, 1, time, False, outcomes, VERSION, 9.0)])


def test_relabelled_boxes_are_found_by_matching_with_the_annotations(workspace: Workspace) -> None:
    record_harvest(
        workspace,
        (("rust", 0, 0.9), ("rust", 1, 0.9), ("plum", 2, 0.9), ("plum", 0, 0.1)),
        (("brick", box(0, 2)), ("rust", box(1)), ("brick", box(2)), ("plum", Box(0, 60, 20, 80))),
        relabelled=2,
    )
    record_harvest(workspace, (("rust", 0, 0.5),), (("brick", box(0)),), relabelled=1, number=1)
    assert annotator_corrections(workspace, workspace.class_book()) == {
        ("rust", "brick"): 2,
        ("plum", "brick"): 1,
    }


def test_deleted_and_redrawn_box_is_not_a_correction(workspace: Workspace) -> None:
    record_harvest(workspace, (("rust", 0, 0.9),), (("brick", box(0)),), relabelled=0)
    assert annotator_corrections(workspace, workspace.class_book()) == Counter()


def test_count_is_limited_to_that_of_the_journal_with_the_highest_iou_first(workspace: Workspace) -> None:
    record_harvest(
        workspace,
        (("rust", 0, 0.9), ("plum", 1, 0.9)),
        (("brick", box(0, 12)), ("rust", box(1))),
        relabelled=1,
    )
    assert annotator_corrections(workspace, workspace.class_book()) == {("plum", "rust"): 1}


def test_removed_and_merged_classes_are_not_counted(workspace: Workspace) -> None:
    record_harvest(
        workspace,
        (("Rust", 0, 0.9), ("dent", 1, 0.9)),
        (("rust", box(0)), ("brick", box(1))),
        relabelled=2,
    )
    assert annotator_corrections(workspace, workspace.class_book()) == Counter()


def test_pairs_are_sorted_by_confusions_and_corrections_together() -> None:
    by_detector = Counter({("b", "a"): 3, ("a", "c"): 1})
    by_annotators = Counter({("c", "a"): 14, ("x", "a"): 99})
    pairs = confused_pairs(by_detector, by_annotators, ["a", "b", "c"], 5)
    assert pairs == [
        ConfusedPair(first="a", second="c", detector=(1, 0), annotators=(0, 14)),
        ConfusedPair(first="a", second="b", detector=(0, 3), annotators=(0, 0)),
    ]
    assert confused_pairs(by_detector, by_annotators, ["a", "b", "c"], 1) == pairs[:1]
