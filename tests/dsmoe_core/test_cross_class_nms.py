"""Non-maximum suppression across classes."""

from __future__ import annotations

from dsmoe_core.cross_class_nms import suppress_across_classes
from dsmoe_core.schema import Box
from tests.scenes import prediction

HERE, ALMOST, ELSEWHERE = Box(0, 0, 10, 10), Box(0, 0, 10, 11), Box(5, 5, 15, 15)


def test_highest_score_is_kept_regardless_of_class_and_order() -> None:
    detections = prediction(
        "p", (HERE, "open", 0.4), (ALMOST, "short", 0.6), (ELSEWHERE, "open", 0.5)
    ).detections
    for ordered in (detections, detections[::-1]):
        assert [(d.label, d.box) for d in suppress_across_classes(ordered)] == [
            ("short", ALMOST),
            ("open", ELSEWHERE),
        ]


def test_no_detections_give_an_empty_list() -> None:
    assert suppress_across_classes([]) == []
