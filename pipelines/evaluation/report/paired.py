"""Whether two things that were trained on the same seeds and judged on the same images really differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsmoe_core.evaluation.bootstrap import Comparison, compare
from dsmoe_core.evaluation.seed_stats import PairedTest, paired_t_test


class PairedTests(NamedTuple):
    """One figure of the first one less that of the second one.

    Attributes:
        seeds: Student's paired t over seeds; None below two. It says nothing of other images.
        images: the paired bootstrap of the means over seeds; None without a resample that has the figure.
            It says nothing of other trainings.
    """

    seeds: PairedTest | None
    images: Comparison | None


def paired_tests(
    ours: Sequence[float],
    theirs: Sequence[float],
    resampled: tuple[Sequence[NDArray[np.float64]], Sequence[NDArray[np.float64]]] | None = None,
) -> PairedTests:
    """Compare two sides of as many trainings, in the same order of seeds.

    Args:
        ours: the figure, one a training.
        resampled: of either side the figure in the same b resamples of the images, (b,) a training.
    """
    seeds = paired_t_test(ours, theirs) if len(ours) > 1 else None
    if resampled is None:
        return PairedTests(seeds, None)
    delta = float(np.mean(ours) - np.mean(theirs))
    return PairedTests(seeds, compare(delta, *(np.mean(side, axis=0) for side in resampled)))
