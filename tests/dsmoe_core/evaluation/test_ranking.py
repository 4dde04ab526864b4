"""AUROC and rank correlation: reference values, weights, and bootstrap comparison."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, spearmanr

from dsmoe_core.evaluation.bootstrap import resample_counts
from dsmoe_core.evaluation.ranking import auroc, compare_auroc, compare_spearman, spearman

ROWS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 5), st.booleans(), st.integers(0, 3)), min_size=4, max_size=30
)


@given(ROWS)
def test_weights_stand_for_repeated_samples(rows: list[tuple[int, int, bool, int]]) -> None:
    scores, target, positive, weight = (np.array(column) for column in zip(*rows, strict=True))
    scores, target = scores.astype(float), target.astype(float)
    repeated = np.repeat(np.arange(len(rows)), weight)
    ones = np.ones(len(repeated))
    weighted = auroc(scores, positive, weight.astype(float))
    plain = auroc(scores[repeated], positive[repeated], ones)
    assert weighted == pytest.approx(plain, nan_ok=True)
    weighted = spearman(scores, target, weight.astype(float))
    assert weighted == pytest.approx(spearman(scores[repeated], target[repeated], ones), nan_ok=True)


@given(ROWS)
def test_values_are_those_of_scipy(rows: list[tuple[int, int, bool, int]]) -> None:
    scores, target, positive, _ = (np.array(column) for column in zip(*rows, strict=True))
    scores, target, ones = scores.astype(float), target.astype(float), np.ones(len(rows))
    if positive.any() and not positive.all():
        u = mannwhitneyu(scores[positive], scores[~positive]).statistic
        expected = u / (positive.sum() * (~positive).sum())
        assert auroc(scores, positive, ones) == pytest.approx(expected)
    else:
        assert np.isnan(auroc(scores, positive, ones))
    if len(set(scores)) > 1 and len(set(target)) > 1:
        assert spearman(scores, target, ones) == pytest.approx(spearmanr(scores, target).statistic)
    else:
        assert np.isnan(spearman(scores, target, ones))


def test_better_score_beats_the_baseline() -> None:
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(40), 10)
    error = rng.random(400) < 0.3
    good, noise = error + rng.normal(0, 0.5, 400), rng.normal(size=400)
    counts = resample_counts(40, 200, 0)
    ranking = compare_auroc(good, noise, error, image, counts)
    assert ranking.value is not None
    assert ranking.value > 0.8
    assert ranking.beats_baseline
    assert ranking.ci95 is not None
    assert ranking.ci95[0] < ranking.value < ranking.ci95[1]
    assert not compare_auroc(noise, good, error, image, counts).beats_baseline
    assert not compare_auroc(good, good, error, image, counts).beats_baseline
    assert compare_spearman(good, noise, error.astype(float), image, counts).beats_baseline


def test_no_error_gives_no_value() -> None:
    counts = resample_counts(2, 100, 0)
    ranking = compare_auroc(np.arange(2.0), np.arange(2.0), np.zeros(2, bool), np.arange(2), counts)
    assert (ranking.value, ranking.ci95, ranking.beats_baseline) == (None, None, False)
