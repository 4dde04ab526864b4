"""Which images are shown, in which order, and why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.ui.snapshots import detection, found, labelled, snapshot
from ui.gallery import Wanted, pages, reasons, select

SEEN = snapshot(
    detections={
        f.key: f
        for f in (
            found("a", detection("dent", 0.9), doubt=0.2),
            found("b", detection("scratch", 0.5), doubt=0.6),
            found("c", detection("dent", 0.1), doubt=0.4),
            found("t", doubt=0.9),
        )
    },
    annotations={"key of a": labelled("a", "scratch")},
    sent=frozenset({"key of b"}),
)


@pytest.mark.parametrize(
    ("wanted", "classes", "names"),
    [
        ("to label", (), "bcd"),  # d was not looked at
        ("labelled", (), "a"),
        ("test set", (), "t"),
        ("all", (), "tbcad"),
        ("all", ("dent",), "ta"),  # c's dent is too faint
        ("all", ("scratch",), "ba"),  # b's was found, a's was labelled
        ("all", ("dent", "scratch"), "tba"),
        ("to label", ("dent",), ""),
    ],
)
def test_select(wanted: Wanted, classes: tuple[str, ...], names: str) -> None:
    assert "".join(p.name for p in select(SEEN, wanted, classes)) == names


def test_where_a_image_stands() -> None:
    kinds = [SEEN.kind(f"key of {name}") for name in "abct"]
    assert kinds == ["labelled", "sent", "waiting", "test"]


def test_the_reasons_begin_with_the_greatest_doubt() -> None:
    seen = found(
        "a",
        detection("dent", 0.9, entropy=0.1, scratch=0.001),
        detection("scratch", 0.5, entropy=0.6, dent=0.45),
        detection("dent", 0.7, entropy=0.3, scratch=0.2),
        detection("dent", 0.2),
        detection("scratch", 0.25),
    )
    assert reasons(seen, 0.3) == [
        "scratch 50%, or dent 45%",
        "dent 70%, or scratch 20%",
        "2 more places too faint to show, best scratch 25%",
    ]


def test_a_place_that_is_found_as_two_classes_is_shown_and_counted_once() -> None:
    sure, rival = (
        detection("dent", 0.6, entropy=0.5, scratch=0.5),
        detection("scratch", 0.5, entropy=0.5, dent=0.6),
    )
    faint, other = detection("dent", 0.2), detection("scratch", 0.1)
    apart = found("a", sure, faint).detections
    doubled = (apart[0], replace(rival, box=apart[0].box), apart[1], replace(other, box=apart[1].box))
    seen = replace(found("a"), detections=doubled)
    assert reasons(seen, 0.3) == ["dent 60%, or scratch 50%", "1 more place too faint to show, best dent 20%"]
    assert snapshot(detections={seen.key: seen}).shown(seen.key) == doubled[:1]


def test_a_sure_detection_names_no_rival() -> None:
    assert reasons(found("a", detection("dent", 0.9, scratch=0.001)), 0.3) == ["dent 90%"]


def test_nothing_seen_and_not_looked_at_are_told_apart() -> None:
    assert reasons(found("a"), 0.3) == ["The detector sees no defect here."]
    assert reasons(None, 0.3) == ["The detector has not looked at it yet."]


@pytest.mark.parametrize(("count", "expected"), [(0, 1), (1, 1), (12, 1), (13, 2), (24, 2), (25, 3)])
def test_pages(count: int, expected: int) -> None:
    assert pages(count, 12) == expected
