"""One finding a place, for those who look at a picture."""

from __future__ import annotations

from dsmoe_core.cross_class_nms import one_a_place
from dsmoe_core.schema import Box
from tests.scenes import found

HERE, ALMOST, ELSEWHERE = Box(0, 0, 10, 10), Box(0, 0, 10, 11), Box(5, 5, 15, 15)


def test_the_surest_of_a_place_stays_whatever_its_class_and_the_order() -> None:
    findings = found("p", (HERE, "open", 0.4), (ALMOST, "short", 0.6), (ELSEWHERE, "open", 0.5)).findings
    for given in (findings, findings[::-1]):
        assert [(f.label, f.box) for f in one_a_place(given)] == [("short", ALMOST), ("open", ELSEWHERE)]


def test_of_no_findings_none() -> None:
    assert one_a_place([]) == []
