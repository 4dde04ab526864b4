"""Paired tests of two models that were trained on the same seeds and evaluated on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsmoe_core.evaluation.bootstrap import Comparison, compare
from dsmoe_core.evaluation.seed_stats import PairedTest, paired_t_test


class PairedTests(NamedTuple):
    """Tests of one metric, first model minus second model.

    Attributes:
        seeds: Student's paired t test over seeds: the variation of another training, on the same images. None
            with fewer than two seeds.
        images: paired bootstrap of the means over seeds: the variation of other images, with the same
            trainings. None if the metric is undefined in all resamples.
    """

    seeds: PairedTest | None
    images: Comparison | None


def paired_tests(
    first: Sequence[float],
    second: Sequence[float],
    resampled: tuple[Sequence[NDArray[np.float64]], Sequence[NDArray[np.float64]]] | None = None,
) -> PairedTests:
    """Compare two models, each with the same number of trainings, in the same order of seeds.

    Args:
        first, second: the metric of each training.
        resampled: for each model and training, the metric in b resamples of the images, (b,); the resamples
            are the same for all.
    """
    seeds = paired_t_test(first, second) if len(first) > 1 else None
    if resampled is None:
        return PairedTests(seeds, None)
    delta = float(np.mean(first) - np.mean(second))
    return PairedTests(seeds, compare(delta, *(np.mean(side, axis=0) for side in resampled)))
