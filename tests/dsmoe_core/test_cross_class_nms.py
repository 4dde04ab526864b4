"""One detection a place, for those who look at an image."""

from __future__ import annotations

from dsmoe_core.cross_class_nms import suppress_across_classes
from dsmoe_core.schema import Box
from tests.scenes import prediction

HERE, ALMOST, ELSEWHERE = Box(0, 0, 10, 10), Box(0, 0, 10, 11), Box(5, 5, 15, 15)


def test_the_surest_of_a_place_stays_whatever_its_class_and_the_order() -> None:
    detections = prediction(
        "p", (HERE, "open", 0.4), (ALMOST, "short", 0.6), (ELSEWHERE, "open", 0.5)
    ).detections
    for given in (detections, detections[::-1]):
        assert [(f.label, f.box) for f in suppress_across_classes(given)] == [
            ("short", ALMOST),
            ("open", ELSEWHERE),
        ]


def test_of_no_detections_none() -> None:
    assert suppress_across_classes([]) == []
