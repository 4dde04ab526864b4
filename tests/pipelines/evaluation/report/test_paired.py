"""Paired tests of two models over seeds and over images."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.evaluation.report.paired import paired_tests

RESAMPLED = np.linspace(0.4, 0.6, 50)


def test_single_training_has_no_test_over_seeds() -> None:
    seeds, images = paired_tests([0.6], [0.5], ([RESAMPLED + 0.1], [RESAMPLED]))
    assert seeds is None
    assert images is not None
    assert images.delta == pytest.approx(0.1)
    assert images.ci95 == pytest.approx((0.1, 0.1))


def test_without_resamples_there_is_no_test_over_images() -> None:
    seeds, images = paired_tests([0.6, 0.8], [0.5, 0.5])
    assert images is None
    assert seeds is not None
    assert seeds.delta == pytest.approx(0.2)


def test_bootstrap_compares_the_means_over_seeds() -> None:
    first, second = [RESAMPLED, RESAMPLED + 0.2], [RESAMPLED + 0.3, RESAMPLED - 0.1]
    _, images = paired_tests([0.5, 0.7], [0.8, 0.4], (first, second))
    assert images is not None
    assert images.delta == pytest.approx(0.0)
    assert images.ci95 == pytest.approx((0.0, 0.0))
