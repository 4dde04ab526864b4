"""The Pareto set of candidates: what goes, what stays, and from which one the next is made."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from prompts.refinement import Candidate, ConfusedPair, Refinement, TextScores, count_best_metrics

PAIR = ConfusedPair(first="a", second="b", detector=(3, 1), annotators=(14, 0))
FIGURES = st.lists(st.tuples(*[st.sampled_from([0.0, 0.25, 0.5, 1.0])] * 3), min_size=1, max_size=9)


def refinement(rows: list[tuple[float, float, float]]) -> Refinement:
    """Candidates with these figures: precision of a and of b, and the margin."""
    candidates = tuple(
        Candidate(id=i, scores=TextScores(class_ap={"b": b, "a": a}, pair_margins={PAIR.title: margin}))
        for i, (a, b, margin) in enumerate(rows)
    )
    return Refinement(id="x", book="v", evaluator="e", pairs=(PAIR,), candidates=candidates)


@given(FIGURES)
def test_the_front_is_what_nothing_dominates(rows: list[tuple[float, float, float]]) -> None:
    pareto_front = {c.id for c in refinement(rows).pareto_front()}
    for i, mine in enumerate(rows):
        beaten = any(
            other != mine and all(x >= y for x, y in zip(other, mine, strict=True)) for other in rows
        )
        assert (i in pareto_front) == (not beaten and rows.index(mine) == i)


@given(FIGURES, st.integers(0, 99))
def test_a_parent_is_of_the_front_and_the_same_each_time(
    rows: list[tuple[float, float, float]], seed: int
) -> None:
    state = refinement(rows)
    parent = state.sample_parent(seed)
    assert parent in state.pareto_front()
    assert parent == refinement(rows).sample_parent(seed)


def test_who_is_best_in_more_figures_is_a_parent_more_often() -> None:
    state = refinement([(1.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0)])
    assert count_best_metrics(state.pareto_front()) == [2, 1]
    drawn = Counter(state.sample_parent(seed).id for seed in range(300))
    assert set(drawn) == {0, 1}
    assert 160 < drawn[0] < 240


def test_the_best_has_the_highest_total_and_is_the_start_where_nothing_is_gained() -> None:
    better = refinement([(0.5, 0.5, 0.0), (0.5, 0.5, 0.25), (0.5, 0.0, 0.5)])
    assert better.candidates[1].scores.total == 0.375
    assert (better.best.id, better.is_improved) == (1, True)
    same = refinement([(0.5, 0.5, 0.0), (0.5, 0.5, 0.0), (0.5, 0.0, 0.25)])
    assert (same.best.id, same.is_improved) == (0, False)


def test_it_is_the_same_when_it_is_read_again() -> None:
    state = refinement([(0.5, 1 / 3, 0.1)])
    assert Refinement.model_validate_json(state.model_dump_json()) == state
    assert PAIR.count == 18
