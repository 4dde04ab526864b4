"""Ranking: pure, deterministic, most useful first, with an honest control arm."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pipelines.rounds.acquisition import ranked_round, sample, seed_round

POOLS = st.dictionaries(st.text(min_size=1, max_size=4), st.floats(0, 1), max_size=30)


@given(POOLS, st.integers(1, 12), st.floats(0, 1), st.integers(0, 5))
def test_a_round_is_within_budget_unique_and_most_useful_first(
    pool: dict[str, float], budget: int, share: float, seed: int
) -> None:
    chosen = ranked_round(pool, budget=budget, random_share=share, seed=seed)
    assert len(chosen) == min(budget, len(pool)) == len({c.key for c in chosen})
    assert [c.rank for c in chosen] == list(range(len(chosen)))
    doubts = [pool[c.key] for c in chosen]
    assert doubts == sorted(doubts, reverse=True)
    assert sum(c.arm == "random" for c in chosen) == round(len(chosen) * share)


@given(POOLS, st.integers(1, 12), st.floats(0, 1))
def test_a_share_is_shown_blind_and_changes_nothing_else(
    pool: dict[str, float], budget: int, share: float
) -> None:
    plain = ranked_round(pool, budget=budget, random_share=0.2, seed=1)
    chosen = ranked_round(pool, budget=budget, random_share=0.2, blind_share=share, seed=1)
    assert sum(c.blind for c in chosen) == round(len(chosen) * share)
    assert tuple(replace(c, blind=False) for c in chosen) == plain


@given(POOLS, st.integers(1, 12), st.floats(0, 1))
def test_nothing_left_behind_is_more_uncertain_than_what_was_asked_for(
    pool: dict[str, float], budget: int, share: float
) -> None:
    chosen = ranked_round(pool, budget=budget, random_share=share, seed=0)
    asked = [pool[c.key] for c in chosen if c.arm == "ranked"]
    left = [doubt for key, doubt in pool.items() if key not in {c.key for c in chosen}]
    assert not asked or not left or min(asked) >= max(left)


def test_the_order_images_come_in_does_not_matter_but_the_seed_does() -> None:
    pool = {f"p{i}": 0.5 for i in range(40)}
    backwards = dict(reversed(list(pool.items())))
    one, two = (ranked_round(p, budget=8, random_share=0.25, seed=3) for p in (pool, backwards))
    assert one == two
    assert {c.key for c in one} != {c.key for c in ranked_round(pool, budget=8, random_share=0.25, seed=4)}


def test_a_seed_round_is_drawn_at_random_without_figures() -> None:
    chosen = seed_round((f"p{i}" for i in range(50)), budget=5, seed=1)
    assert [c.arm for c in chosen] == ["seed"] * 5
    assert all(c.uncertainty is None for c in chosen)
    assert [c.key for c in chosen] != sorted(c.key for c in chosen)
    assert sample(["a", "b"], 9, seed=1) in (["a", "b"], ["b", "a"])
