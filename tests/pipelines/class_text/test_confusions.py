"""What is taken for what.

By the detector on labelled images, and in pre-annotations that people relabelled.
"""

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
    return Box(30.0 * place + shift, 10.0, 30.0 * place + 20 + shift, 30.0)


def prediction(key: str, *found: tuple[str, int, float]) -> Prediction:
    """Class, place and score of each."""
    marks = tuple(Detection(box(place), label, score, {label: score}, 0.1) for label, place, score in found)
    return Prediction(key, marks, Routing((0,), (1.0,), 0.0), 0.1, VERSION)


def test_the_detector_s_confusions_are_counted_in_both_directions() -> None:
    truth = [
        LabelledImage(
            ImageRecord(key, key, Path(key), 200, 100),
            (Annotation(box(0), "rust"), Annotation(box(1), "brick"), Annotation(box(2), "plum")),
        )
        for key in ("a", "b")
    ]
    found = {
        "a": prediction("a", ("brick", 0, 0.8), ("brick", 1, 0.9), ("plum", 2, 0.9)),
        "b": prediction("b", ("brick", 0, 0.02), ("plum", 0, 0.01), ("rust", 1, 0.8), ("plum", 2, 0.9)),
    }
    counts = detector_confusions(found, truth)
    assert counts == {("rust", "brick"): 2, ("brick", "rust"): 1}
    assert detector_confusions({}, truth) == Counter()


def came_back(
    workspace: Workspace,
    shown: tuple[tuple[str, int, float], ...],
    left: tuple[tuple[str, Box], ...],
    relabelled: int,
    number: int = 0,
) -> None:
    """An image whose pre-annotations people corrected, as detections store and journal hold it."""
    key = workspace.images("pool")[number].key
    list(workspace.prediction_store.add(VERSION, [prediction(key, *shown)]))
    outcomes = dict.fromkeys(Outcome, 0) | {Outcome.RELABELLED: relabelled}
    annotations = tuple(Annotation(place, label) for label, place in left)
    moment = datetime(2026, 1, 1 + number, tzinfo=UTC)
    workspace.journal.record_harvests([Harvest(key, annotations, 1, moment, False, outcomes, VERSION, 9.0)])


def test_people_s_corrections_are_told_by_what_was_shown_and_what_came_back(workspace: Workspace) -> None:
    came_back(
        workspace,
        (("rust", 0, 0.9), ("rust", 1, 0.9), ("plum", 2, 0.9), ("plum", 0, 0.1)),
        (("brick", box(0, 2)), ("rust", box(1)), ("brick", box(2)), ("plum", Box(0, 60, 20, 80))),
        relabelled=2,
    )
    came_back(workspace, (("rust", 0, 0.5),), (("brick", box(0)),), relabelled=1, number=1)
    assert annotator_corrections(workspace, workspace.class_book()) == {
        ("rust", "brick"): 2,
        ("plum", "brick"): 1,
    }


def test_a_box_that_was_deleted_and_drawn_anew_is_no_correction(workspace: Workspace) -> None:
    came_back(workspace, (("rust", 0, 0.9),), (("brick", box(0)),), relabelled=0)
    assert annotator_corrections(workspace, workspace.class_book()) == Counter()


def test_no_more_are_counted_than_the_journal_says_and_those_in_place_first(workspace: Workspace) -> None:
    came_back(
        workspace,
        (("rust", 0, 0.9), ("plum", 1, 0.9)),
        (("brick", box(0, 12)), ("rust", box(1))),
        relabelled=1,
    )
    assert annotator_corrections(workspace, workspace.class_book()) == {("plum", "rust"): 1}


def test_a_class_that_is_gone_or_is_one_with_the_other_does_not_count(workspace: Workspace) -> None:
    came_back(
        workspace,
        (("Rust", 0, 0.9), ("dent", 1, 0.9)),
        (("rust", box(0)), ("brick", box(1))),
        relabelled=2,
    )
    assert annotator_corrections(workspace, workspace.class_book()) == Counter()


def test_pairs_are_in_the_order_of_how_often_they_are_confused() -> None:
    found = Counter({("b", "a"): 3, ("a", "c"): 1})
    corrected = Counter({("c", "a"): 14, ("x", "a"): 99})
    pairs = confused_pairs(found, corrected, ["a", "b", "c"], 5)
    assert pairs == [
        ConfusedPair(first="a", second="c", detector=(1, 0), annotators=(0, 14)),
        ConfusedPair(first="a", second="b", detector=(0, 3), annotators=(0, 0)),
    ]
    assert confused_pairs(found, corrected, ["a", "b", "c"], 1) == pairs[:1]
