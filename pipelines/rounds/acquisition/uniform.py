"""Acquisition function ``random``: uniform scores, the baseline that other functions are compared with."""

from __future__ import annotations

import random

from pipelines.rounds.acquisition.function import AcquisitionFunction, Candidates


def uniform_scores(candidates: Candidates) -> dict[str, float]:
    """A uniform score in [0, 1) per image, which depends on the seed and the image key only."""
    return {
        key: random.Random(f"{candidates.seed}:{key}").random()  # noqa: S311  # not for secrets
        for key in candidates.keys
    }


UNIFORM = AcquisitionFunction("images at random", uniform_scores)
