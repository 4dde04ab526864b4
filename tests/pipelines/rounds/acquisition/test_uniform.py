"""Acquisition function ``random``."""

from __future__ import annotations

from collections.abc import Iterator

from dsmoe_core.schema import Prediction
from pipelines.rounds.acquisition.function import Candidates
from pipelines.rounds.acquisition.uniform import uniform_scores


def refuse() -> Iterator[Prediction]:
    raise AssertionError("random scores need no predictions")


def test_score_depends_on_the_key_and_the_seed_only() -> None:
    first = uniform_scores(Candidates(["a", "b", "c"], refuse, seed=1))
    assert uniform_scores(Candidates(["c", "a"], refuse, seed=1)) == {"a": first["a"], "c": first["c"]}
    assert uniform_scores(Candidates(["a"], refuse, seed=2))["a"] != first["a"]


def test_scores_are_spread_over_zero_to_one() -> None:
    scores = uniform_scores(Candidates([f"p{i}" for i in range(1000)], refuse, seed=0)).values()
    assert 0 <= min(scores) < 0.01
    assert 0.99 < max(scores) < 1
    assert 0.45 < sum(scores) / 1000 < 0.55
