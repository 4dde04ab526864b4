"""Which images to label next. Pure functions; **higher = label sooner**; same seed, same answer.

A share of every round is drawn at random from what the model did not ask for: the control arm. Without it
nobody can say whether asking for uncertain images was worth anything on this data.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Choice:
    """One chosen image: why (arm), and its place in the round, 0 first.

    Attributes:
        blind: shown without pre-annotations, to see what people find who are not led by them.
    """

    key: str
    arm: Literal["seed", "ranked", "random"]
    rank: int
    uncertainty: float | None
    blind: bool = False


def seed_round(keys: Iterable[str], *, budget: int, seed: int) -> tuple[Choice, ...]:
    """Images for a round without a model: drawn at random, at most ``budget``."""
    drawn = sample(keys, budget, seed=seed)
    return tuple(Choice(key, "seed", rank, None) for rank, key in enumerate(drawn))


def ranked_round(
    uncertainty: Mapping[str, float], *, budget: int, random_share: float, seed: int, blind_share: float = 0.0
) -> tuple[Choice, ...]:
    """The most uncertain images, and a random share of the rest, in one order: most useful first.

    Both arms are sorted together, so that an annotator cannot tell them apart and one who stops early has
    done the most useful ones.

    Args:
        uncertainty: per image key; higher = label sooner.
        budget: at most so many images.
        random_share: share of the budget for the control arm, 0 to 1; rounded to whole images.
        blind_share: share of the chosen ones, of both arms, to show without pre-annotations; drawn at random.
    """
    shuffled = sample(uncertainty, len(uncertainty), seed=seed)  # ties fall at random, not by name
    by_use = sorted(shuffled, key=lambda key: -uncertainty[key])
    budget = min(budget, len(by_use))
    controls = round(budget * random_share)
    asked = by_use[: budget - controls]
    drawn = sample(by_use[budget - controls :], controls, seed=seed + 1)
    arms: dict[str, Literal["seed", "ranked", "random"]] = dict.fromkeys(asked, "ranked")
    arms.update(dict.fromkeys(drawn, "random"))
    order = [key for key in by_use if key in arms]
    blind = set(sample(order, round(len(order) * blind_share), seed=seed + 2))
    return tuple(
        Choice(key, arms[key], rank, uncertainty[key], key in blind) for rank, key in enumerate(order)
    )


def sample(keys: Iterable[str], count: int, *, seed: int) -> list[str]:
    """At most ``count`` keys, drawn without replacement; does not depend on the order they come in."""
    ordered = sorted(keys)
    return random.Random(seed).sample(ordered, min(count, len(ordered)))  # noqa: S311  # not for secrets
