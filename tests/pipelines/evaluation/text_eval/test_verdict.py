"""Every interval has one verdict, and the sentence says what the figures are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.evaluation.text_eval.verdict import nothing_correct, reason, text_effect, verdict

TABLE = [
    # low, high, tolerance, verdict
    (0.001, 0.050, 0.01, "better"),
    (0.000, 0.050, 0.01, "no worse"),
    (0.000, 0.000, 0.00, "no worse"),
    (-0.010, 0.050, 0.01, "no worse"),
    (-0.010, -0.001, 0.01, "no worse"),  # a loss that is sure and tolerated
    (-0.011, -0.001, 0.01, "worse"),
    (-0.500, -0.400, 0.01, "worse"),
    (-0.001, -0.0005, 0.00, "worse"),
    (-0.011, 0.000, 0.01, "undecided"),
    (-0.011, 0.500, 0.01, "undecided"),
    (-0.001, 0.001, 0.00, "undecided"),
]


@pytest.mark.parametrize(("low", "high", "tolerance", "said"), TABLE)
def test_an_interval_s_verdict(low: float, high: float, tolerance: float, said: str) -> None:
    assert verdict(low, high, tolerance) == said
    gain = {"this": 0.5, "other": 0.5, "delta": (low + high) / 2, "ci95": [low, high]}
    sentence = reason(verdict(low, high, tolerance), gain, tolerance, 1200)
    assert sentence.startswith(f"{said}: mAP@.5:.95 ")
    assert f"[{low:+.3f}, {high:+.3f}] on 1,200 images" in sentence


def test_a_model_that_finds_nothing_has_no_say() -> None:
    """Else a model that was never trained would let any text be published."""
    gain = {"this": 0.0, "other": 0.0, "delta": 0.0, "ci95": [0.0, 0.0]}
    assert nothing_correct(gain)
    assert not nothing_correct({**gain, "other": 0.1})
    assert verdict(0.0, 0.0, 0.01, blind=True) == "undecided"
    assert reason("undecided", gain, 0.01, 7) == (
        "undecided: the model finds nothing right on 7 images, in neither book"
    )


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=2).map(sorted), st.floats(0, 1), st.floats(0, 1))
def test_what_is_better_stays_so_when_all_shifts_up(ends: list[float], tolerance: float, up: float) -> None:
    """An order of verdicts: a book whose interval lies higher is never judged lower."""
    order = ["worse", "undecided", "no worse", "better"]
    low, high = ends
    assert order.index(verdict(low + up, high + up, tolerance)) >= order.index(verdict(low, high, tolerance))


@pytest.mark.parametrize(
    ("ends", "answer", "said"),
    [
        ([0.01, 0.05], "yes", "The model reads these words (right less random"),
        ([0.0, 0.05], "not shown", "The model does not read these words, as far as shown"),
        ([-0.02, 0.05], "not shown", "The model does not read these words, as far as shown"),
        ([-0.05, -0.01], "backwards", "The model does better in random words"),
    ],
)
def test_whether_words_are_read_is_said_plainly(ends: list[float], answer: str, said: str) -> None:
    found = text_effect({"delta": sum(ends) / 2, "ci95": ends, "p": 0.5})
    assert found["answer"] == answer
    assert found["sentence"].startswith(said)
    assert f"[{ends[0]:+.3f}, {ends[1]:+.3f}]" in found["sentence"]
    assert "by draw" not in found["sentence"]
    of_three = text_effect({"delta": 0.0, "ci95": ends, "p": 0.5, "spread": [-0.03, 0.06]})
    assert of_three["answer"] == answer
    assert "; -0.030 to +0.060 by draw)" in of_three["sentence"]
