"""Verdicts for intervals, and the statement whether a model uses the text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.evaluation.text_eval.verdict import has_nothing_correct, reason, text_effect, verdict

TABLE = [
    # low, high, tolerance, verdict
    (0.001, 0.050, 0.01, "better"),
    (0.000, 0.050, 0.01, "no worse"),
    (0.000, 0.000, 0.00, "no worse"),
    (-0.010, 0.050, 0.01, "no worse"),
    (-0.010, -0.001, 0.01, "no worse"),  # a certain loss within the tolerance
    (-0.011, -0.001, 0.01, "worse"),
    (-0.500, -0.400, 0.01, "worse"),
    (-0.001, -0.0005, 0.00, "worse"),
    (-0.011, 0.000, 0.01, "undecided"),
    (-0.011, 0.500, 0.01, "undecided"),
    (-0.001, 0.001, 0.00, "undecided"),
]


@pytest.mark.parametrize(("low", "high", "tolerance", "expected"), TABLE)
def test_verdict_of_an_interval(low: float, high: float, tolerance: float, expected: str) -> None:
    assert verdict(low, high, tolerance) == expected
    gain = {"this": 0.5, "other": 0.5, "delta": (low + high) / 2, "ci95": [low, high]}
    sentence = reason(verdict(low, high, tolerance), gain, tolerance, 1200)
    assert sentence.startswith(f"{expected}: mAP@.5:.95 ")
    assert f"[{low:+.3f}, {high:+.3f}]" in sentence
    assert "1,200" in sentence


def test_model_without_correct_detections_is_undecided() -> None:
    """Otherwise an untrained model would allow any text to be published."""
    gain = {"this": 0.0, "other": 0.0, "delta": 0.0, "ci95": [0.0, 0.0]}
    assert has_nothing_correct(gain)
    assert not has_nothing_correct({**gain, "other": 0.1})
    assert verdict(0.0, 0.0, 0.01, nothing_correct=True) == "undecided"
    assert reason("undecided", gain, 0.01, 7).startswith("undecided: ")


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=2).map(sorted), st.floats(0, 1), st.floats(0, 1))
def test_higher_interval_never_has_a_lower_verdict(ends: list[float], tolerance: float, up: float) -> None:
    order = ["worse", "undecided", "no worse", "better"]
    low, high = ends
    assert order.index(verdict(low + up, high + up, tolerance)) >= order.index(verdict(low, high, tolerance))


@pytest.mark.parametrize(
    ("ends", "answer"),
    [
        ([0.01, 0.05], "yes"),
        ([0.0, 0.05], "not shown"),
        ([-0.02, 0.05], "not shown"),
        ([-0.05, -0.01], "backwards"),
    ],
)
def test_text_effect_depends_on_the_interval(ends: list[float], answer: str) -> None:
    effect = text_effect({"delta": sum(ends) / 2, "ci95": ends, "p": 0.5})
    assert effect["answer"] == answer
    assert f"[{ends[0]:+.3f}, {ends[1]:+.3f}]" in effect["sentence"]
    averaged = text_effect({"delta": 0.0, "ci95": ends, "p": 0.5, "spread": [-0.03, 0.06]})
    assert averaged["answer"] == answer
    assert "-0.030 to +0.060" in averaged["sentence"]
    assert "-0.030 to" not in effect["sentence"]
