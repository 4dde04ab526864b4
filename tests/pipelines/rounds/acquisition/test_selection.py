"""Selection of a round's images from their scores: both arms, blind images, the seed round."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from dsmoe_core.schema import Arm
from pipelines.rounds.acquisition.selection import ranked_round, sample, seed_round

SCORES = st.dictionaries(st.text(min_size=1, max_size=4), st.floats(0, 1), max_size=30)


@given(SCORES, st.integers(1, 12), st.floats(0, 1), st.integers(0, 5))
def test_round_is_within_budget_without_duplicates_and_ordered_by_score(
    scores: dict[str, float], budget: int, share: float, seed: int
) -> None:
    choices = ranked_round(scores, budget=budget, random_share=share, seed=seed)
    assert len(choices) == min(budget, len(scores)) == len({c.key for c in choices})
    assert [c.rank for c in choices] == list(range(len(choices)))
    assert [c.score for c in choices] == [scores[c.key] for c in choices]
    assert [c.score for c in choices] == sorted((scores[c.key] for c in choices), reverse=True)
    assert sum(c.arm == Arm.RANDOM for c in choices) == round(len(choices) * share)


@given(SCORES, st.integers(1, 12), st.floats(0, 1))
def test_blind_share_changes_nothing_but_the_blind_flags(
    scores: dict[str, float], budget: int, share: float
) -> None:
    plain = ranked_round(scores, budget=budget, random_share=0.2, seed=1)
    choices = ranked_round(scores, budget=budget, random_share=0.2, blind_share=share, seed=1)
    assert sum(c.blind for c in choices) == round(len(choices) * share)
    assert tuple(replace(c, blind=False) for c in choices) == plain


@given(SCORES, st.integers(1, 12), st.floats(0, 1))
def test_ranked_images_have_the_highest_scores(scores: dict[str, float], budget: int, share: float) -> None:
    choices = ranked_round(scores, budget=budget, random_share=share, seed=0)
    ranked = [scores[c.key] for c in choices if c.arm == Arm.RANKED]
    left = [score for key, score in scores.items() if key not in {c.key for c in choices}]
    assert not ranked or not left or min(ranked) >= max(left)


def test_selection_depends_on_the_seed_and_not_on_the_order_of_the_images() -> None:
    scores = {f"p{i}": 0.5 for i in range(40)}
    backwards = dict(reversed(list(scores.items())))
    first, second = (ranked_round(s, budget=8, random_share=0.25, seed=3) for s in (scores, backwards))
    assert first == second
    other_seed = ranked_round(scores, budget=8, random_share=0.25, seed=4)
    assert {c.key for c in first} != {c.key for c in other_seed}


def test_seed_round_is_random_and_has_no_scores() -> None:
    choices = seed_round((f"p{i}" for i in range(50)), budget=5, seed=1)
    assert [c.arm for c in choices] == [Arm.SEED] * 5
    assert all(c.score is None for c in choices)
    assert [c.key for c in choices] != sorted(c.key for c in choices)
    assert sample(["a", "b"], 9, seed=1) in (["a", "b"], ["b", "a"])
