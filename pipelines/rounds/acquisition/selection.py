"""Selects the images of a round from their acquisition scores, as pure functions of scores and seed.

A share of every round is sampled at random from the images that the ranking did not select: the control arm.
It shows whether ranking by the acquisition function is better than random selection on this data.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dsmoe_core.schema import Arm
from pipelines.rounds.acquisition.limits import Limits

MIN_FOR_ONE = 20
"""Images of a round from which on control arm and blind audit have at least one."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One selected image.

    Attributes:
        rank: place in the round, from 0.
        score: acquisition score; None in a seed round.
        blind: whether it is shown without pre-annotations, to measure what annotators find without them.
    """

    key: str
    arm: Arm
    rank: int
    score: float | None
    blind: bool = False


def seed_round(keys: Iterable[str], *, budget: int, seed: int) -> tuple[Choice, ...]:
    """A random selection of at most ``budget`` images, for a round without a model."""
    return tuple(
        Choice(key, Arm.SEED, rank, None) for rank, key in enumerate(sample(keys, budget, seed=seed))
    )


def ranked_round(
    scores: Mapping[str, float],
    *,
    budget: int,
    random_share: float,
    seed: int,
    blind_share: float = 0.0,
    limits: Limits | None = None,
) -> tuple[Choice, ...]:
    """The images with the highest scores and a random sample of the rest, ordered by score.

    Both arms are in one order, so that annotators cannot tell them apart and the images with the highest
    scores are annotated first.

    Args:
        scores: acquisition score by image key; higher = label sooner.
        budget: maximum number of images.
        random_share: share of the budget for the control arm, 0 to 1; rounded to whole images.
        blind_share: share of the selected images, of both arms, to show without pre-annotations.
        limits: images that may not be selected, and budgets in boxes and minutes; None: no such limits. The
            control arm gets its share of these budgets as well.
    """
    limits = limits or Limits()
    shuffled = sample(scores, len(scores), seed=seed)  # the order of equal scores is random
    by_score = sorted(shuffled, key=lambda key: -scores[key])
    budget = min(budget, len(by_score))
    controls = share_of(budget, random_share)
    ranked = _take(by_score, budget - controls, limits, 1 - random_share)
    left = set(by_score).difference(ranked, limits.refused)
    control_arm = _take(sample(left, len(left), seed=seed + 1), controls, limits, 1.0)
    arms = dict.fromkeys(ranked, Arm.RANKED) | dict.fromkeys(control_arm, Arm.RANDOM)
    order = [key for key in by_score if key in arms]
    blind = set(sample(order, share_of(len(order), blind_share), seed=seed + 2))
    return tuple(Choice(key, arms[key], rank, scores[key], key in blind) for rank, key in enumerate(order))


def share_of(images: int, share: float) -> int:
    """A share in whole images; at least one if the share is above 0 and there are ``MIN_FOR_ONE`` images."""
    return max(round(images * share), int(share > 0 and images >= MIN_FOR_ONE))


def _take(keys: Sequence[str], count: int, limits: Limits, share: float) -> list[str]:
    """The first keys that the limits admit, until ``count`` or this share of a budget is reached."""
    taken: list[str] = []
    start = 0
    while len(taken) < count and start < len(keys) and not limits.reached(share):
        block = keys[start : start + count - len(taken)]
        limits.prepare(block)
        for key in block:
            if limits.reached(share):
                break
            if limits.admit(key):
                taken.append(key)
        start += len(block)
    return taken


def sample(keys: Iterable[str], count: int, *, seed: int) -> list[str]:
    """At most ``count`` keys, sampled without replacement; the order of the keys does not matter."""
    ordered = sorted(keys)
    return random.Random(seed).sample(ordered, min(count, len(ordered)))  # noqa: S311  # not for secrets
