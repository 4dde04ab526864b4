"""Acquisition function ``margin``."""

from __future__ import annotations

import pytest

from pipelines.rounds.acquisition.margin import margin_scores
from tests.pipelines.rounds.acquisition.candidates import detection, pool


def test_score_is_the_summed_square_of_one_minus_the_margin() -> None:
    scores = margin_scores(
        pool(
            {
                "none": (),
                "sure": (detection("rust", 0.9, plum=0.05),),  # background 0.1 is second
                "two": (detection("rust", 0.6, plum=0.5), detection("plum", 0.1, rust=0.05)),
            }
        )
    )
    assert scores["none"] == 0
    assert scores["sure"] == pytest.approx((1 - 0.8) ** 2)
    assert scores["two"] == pytest.approx((1 - 0.1) ** 2 + (1 - 0.8) ** 2)


def test_a_place_detected_as_two_classes_counts_once() -> None:
    both = (detection("rust", 0.6, plum=0.5), detection("plum", 0.5, rust=0.6))
    assert margin_scores(pool({"a": both})) == margin_scores(pool({"a": both[:1]}))
