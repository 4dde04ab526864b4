"""Limits of a selection: near duplicates and budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from dsmoe_core.schema import Arm
from pipelines.rounds.acquisition.limits import Budgets, DuplicateFilter, ImageEffort, Limits, Refusal
from pipelines.rounds.acquisition.selection import ranked_round
from tests.pipelines.rounds.acquisition.candidates import unit

VECTORS = {"a": (1.0, 0.0), "a2": (1.0, 0.001), "b": (0.0, 1.0), "t": (-1.0, 0.0), "c": (0.7, 0.7)}
SCORES = {"a": 5.0, "a2": 4.0, "t": 3.0, "b": 2.0, "c": 1.0}


def duplicates(*test: tuple[float, float], same: bool = True) -> DuplicateFilter:
    """Compares with test images of these embeddings; the pixels of all images are the same, or of none."""
    vectors = VECTORS | {f"test {i}": vector for i, vector in enumerate(test)}
    tests = [f"test {i}" for i in range(len(test))]
    return DuplicateFilter(0.999, lambda keys: unit([vectors[k] for k in keys]), tests, lambda *_: same)


def test_near_duplicates_are_replaced_by_the_next_images() -> None:
    limits = Limits(duplicates=duplicates((-1.0, 0.001)))
    choices = ranked_round(SCORES, budget=3, random_share=0.0, seed=0, limits=limits)
    assert [c.key for c in choices] == ["a", "b", "c"]
    assert limits.refused == {"a2": Refusal.DUPLICATE_IN_ROUND, "t": Refusal.DUPLICATE_OF_TEST}


def test_the_control_arm_has_no_near_duplicates_either() -> None:
    limits = Limits(duplicates=duplicates((-1.0, 0.0)))
    choices = ranked_round(SCORES, budget=4, random_share=0.75, seed=0, limits=limits)
    assert [c.key for c in choices if c.arm == Arm.RANKED] == ["a"]
    assert {c.key for c in choices if c.arm == Arm.RANDOM} == {"b", "c"}


def test_similar_embeddings_of_other_pixels_are_no_duplicates() -> None:
    limits = Limits(duplicates=duplicates((-1.0, 0.0), same=False))
    choices = ranked_round(SCORES, budget=5, random_share=0.0, seed=0, limits=limits)
    assert [c.key for c in choices] == list(SCORES)
    assert limits.refused == {}


def test_a_detector_without_embeddings_has_no_duplicates() -> None:
    limits = Limits(duplicates=DuplicateFilter(0.9, lambda _: unit([]), [], lambda *_: True))
    assert len(ranked_round(SCORES, budget=5, random_share=0.0, seed=0, limits=limits)) == 5


@pytest.mark.parametrize(
    ("boxes", "minutes", "expected"), [(4, None, 2), (None, 1.0, 1), (5, 1.1, 2), (99, 99, 5)]
)
def test_the_first_budget_that_is_reached_ends_the_selection(
    boxes: float | None, minutes: float | None, expected: int
) -> None:
    def effort(keys: Sequence[str]) -> Mapping[str, ImageEffort]:
        return {key: ImageEffort(boxes=2.0, minutes=1.0) for key in keys}

    limits = Limits(Budgets(boxes, minutes, effort))
    choices = ranked_round(SCORES, budget=5, random_share=0.0, seed=0, limits=limits)
    assert [c.key for c in choices] == list(SCORES)[:expected]


def test_the_control_arm_gets_its_share_of_a_budget_in_boxes() -> None:
    scores = {f"k{i:02}": float(-i) for i in range(40)}
    limits = Limits(Budgets(10, None, lambda keys: {key: ImageEffort(1.0, 1.0) for key in keys}))
    choices = ranked_round(scores, budget=20, random_share=0.2, seed=0, limits=limits)
    assert sum(c.arm == Arm.RANKED for c in choices) == 8
    assert sum(c.arm == Arm.RANDOM for c in choices) == 2
