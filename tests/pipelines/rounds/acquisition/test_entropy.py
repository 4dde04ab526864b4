"""Acquisition function ``entropy``."""

from __future__ import annotations

import pytest

from pipelines.rounds.acquisition.entropy import entropy_scores
from tests.pipelines.rounds.acquisition.candidates import candidates


def test_score_is_the_summed_entropy_of_the_detections() -> None:
    scores = entropy_scores(candidates({"none": (), "one": (0.5,), "two": (0.25, 0.5)}))
    assert scores == {"none": 0.0, "one": pytest.approx(0.5), "two": pytest.approx(0.75)}
