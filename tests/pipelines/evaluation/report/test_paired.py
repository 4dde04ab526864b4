"""Two sides of paired trainings: which of the two tests there are, and that the pairs are kept."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.evaluation.report.paired import paired_tests

DRAWS = np.linspace(0.4, 0.6, 50)


def test_one_training_a_side_says_nothing_over_seeds() -> None:
    seeds, images = paired_tests([0.6], [0.5], ([DRAWS + 0.1], [DRAWS]))
    assert seeds is None
    assert images is not None
    assert images.delta == pytest.approx(0.1)
    assert images.ci95 == pytest.approx((0.1, 0.1))


def test_without_resamples_there_is_only_the_test_over_seeds() -> None:
    seeds, images = paired_tests([0.6, 0.8], [0.5, 0.5])
    assert images is None
    assert seeds is not None
    assert seeds.delta == pytest.approx(0.2)


def test_the_bootstrap_compares_the_means_over_seeds() -> None:
    ours, theirs = [DRAWS, DRAWS + 0.2], [DRAWS + 0.3, DRAWS - 0.1]
    _, images = paired_tests([0.5, 0.7], [0.8, 0.4], (ours, theirs))
    assert images is not None
    assert images.delta == pytest.approx(0.0)
    assert images.ci95 == pytest.approx((0.0, 0.0))
