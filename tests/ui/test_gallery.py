"""Selection and order of the gallery's images, and the reasons shown with them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.settings.rounds import RoundSettings
from tests.ui.snapshots import detection, labelled, prediction, snapshot
from ui.gallery import GalleryFilter, page_count, reasons, select_images

SNAPSHOT = snapshot(
    predictions={
        p.key: p
        for p in (
            prediction("a", detection("dent", 0.9), uncertainty=0.2),
            prediction("b", detection("scratch", 0.5), uncertainty=0.6),
            prediction("c", detection("dent", 0.1), uncertainty=0.4),
            prediction("t", uncertainty=0.9),
        )
    },
    annotations={"key of a": labelled("a", "scratch")},
    sent=frozenset({"key of b"}),
)


@pytest.mark.parametrize(
    ("chosen", "classes", "names"),
    [
        ("to label", (), "bcd"),  # d has no prediction
        ("labelled", (), "a"),
        ("test set", (), "t"),
        ("all", (), "tbcad"),
        ("all", ("dent",), "ta"),  # the score of c's dent is too low for a pre-annotation
        ("all", ("scratch",), "ba"),  # a pre-annotation on b, an annotation on a
        ("all", ("dent", "scratch"), "tba"),
        ("to label", ("dent",), ""),
    ],
)
def test_images_are_filtered_and_sorted_by_uncertainty(
    chosen: GalleryFilter, classes: tuple[str, ...], names: str
) -> None:
    assert "".join(i.name for i in select_images(SNAPSHOT, chosen, classes)) == names


def test_status_of_an_image() -> None:
    statuses = [SNAPSHOT.status(f"key of {name}") for name in "abct"]
    assert statuses == ["labelled", "sent", "waiting", "test"]


def test_reasons_begin_with_the_most_uncertain_pre_annotation() -> None:
    predicted = prediction(
        "a",
        detection("dent", 0.9, entropy=0.1, scratch=0.001),
        detection("scratch", 0.5, entropy=0.6, dent=0.45),
        detection("dent", 0.7, entropy=0.3, scratch=0.2),
        detection("dent", 0.2),
        detection("scratch", 0.25),
    )
    shown = snapshot(predictions={predicted.key: predicted}).pre_annotations(predicted.key)
    assert reasons(predicted, shown) == [
        "scratch 50%, or dent 45%",
        "dent 70%, or scratch 20%",
        "2 more detections not shown to annotators, best scratch 25%",
    ]


def test_detections_of_two_classes_on_one_place_count_once() -> None:
    best, rival = (
        detection("dent", 0.6, entropy=0.5, scratch=0.5),
        detection("scratch", 0.5, entropy=0.5, dent=0.6),
    )
    low, other = detection("dent", 0.2), detection("scratch", 0.1)
    apart = prediction("a", best, low).detections
    detections = (apart[0], replace(rival, box=apart[0].box), apart[1], replace(other, box=apart[1].box))
    predicted = replace(prediction("a"), detections=detections)
    shown = snapshot(predictions={predicted.key: predicted}).pre_annotations(predicted.key)
    assert shown == detections[:1]
    assert reasons(predicted, shown) == [
        "dent 60%, or scratch 50%",
        "1 more detection not shown to annotators, best dent 20%",
    ]


def test_no_more_boxes_are_shown_than_annotators_see() -> None:
    scores = (0.9, 0.5, 0.7)
    predicted = prediction("a", *(detection("dent", score) for score in scores))
    limited = snapshot(
        predictions={predicted.key: predicted},
        round_settings=RoundSettings(pre_annotation_score=0.3, max_pre_annotations=2),
    )
    shown = limited.pre_annotations(predicted.key)
    assert [d.score for d in shown] == [0.9, 0.7]
    assert reasons(predicted, shown)[-1] == "1 more detection not shown to annotators, best dent 50%"


def test_improbable_second_class_is_not_named() -> None:
    predicted = prediction("a", detection("dent", 0.9, scratch=0.001))
    assert reasons(predicted, predicted.detections) == ["dent 90%"]


def test_image_without_detections_differs_from_image_without_prediction() -> None:
    assert reasons(prediction("a"), ()) != reasons(None, ())


@pytest.mark.parametrize(("count", "expected"), [(0, 1), (1, 1), (12, 1), (13, 2), (24, 2), (25, 3)])
def test_page_count(count: int, expected: int) -> None:
    assert page_count(count, 12) == expected
