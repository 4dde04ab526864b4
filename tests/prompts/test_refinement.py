"""State of a refinement: the Pareto front of its candidates, parents and the best candidate."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from prompts.refinement import Candidate, ConfusedPair, Refinement, TextScores, count_best_metrics

PAIR = ConfusedPair(first="a", second="b", detector=(3, 1), annotators=(14, 0))
METRICS = st.lists(st.tuples(*[st.sampled_from([0.0, 0.25, 0.5, 1.0])] * 3), min_size=1, max_size=9)


def refinement(rows: list[tuple[float, float, float]]) -> Refinement:
    """A refinement whose candidates have these metrics: AP of a, AP of b, and the margin."""
    candidates = tuple(
        Candidate(id=i, scores=TextScores(class_ap={"b": b, "a": a}, pair_margins={PAIR.title: margin}))
        for i, (a, b, margin) in enumerate(rows)
    )
    return Refinement(id="x", book="v", evaluator="e", pairs=(PAIR,), candidates=candidates)


@given(METRICS)
def test_pareto_front_has_the_candidates_that_no_other_dominates(
    rows: list[tuple[float, float, float]],
) -> None:
    front = {c.id for c in refinement(rows).pareto_front()}
    for i, row in enumerate(rows):
        dominated = any(
            other != row and all(x >= y for x, y in zip(other, row, strict=True)) for other in rows
        )
        assert (i in front) == (not dominated and rows.index(row) == i)


@given(METRICS, st.integers(0, 99))
def test_sampled_parent_is_on_the_front_and_reproducible(
    rows: list[tuple[float, float, float]], seed: int
) -> None:
    state = refinement(rows)
    parent = state.sample_parent(seed)
    assert parent in state.pareto_front()
    assert parent == refinement(rows).sample_parent(seed)


def test_candidate_that_is_best_in_more_metrics_is_sampled_more_often() -> None:
    state = refinement([(1.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0)])
    assert count_best_metrics(state.pareto_front()) == [2, 1]
    parents = Counter(state.sample_parent(seed).id for seed in range(300))
    assert set(parents) == {0, 1}
    assert 160 < parents[0] < 240


def test_best_candidate_has_the_highest_total_and_is_the_original_without_gain() -> None:
    better = refinement([(0.5, 0.5, 0.0), (0.5, 0.5, 0.25), (0.5, 0.0, 0.5)])
    assert better.candidates[1].scores.total == 0.375
    assert (better.best.id, better.is_improved) == (1, True)
    equal = refinement([(0.5, 0.5, 0.0), (0.5, 0.5, 0.0), (0.5, 0.0, 0.25)])
    assert (equal.best.id, equal.is_improved) == (0, False)


def test_json_round_trip() -> None:
    state = refinement([(0.5, 1 / 3, 0.1)])
    assert Refinement.model_validate_json(state.model_dump_json()) == state
    assert PAIR.count == 18
