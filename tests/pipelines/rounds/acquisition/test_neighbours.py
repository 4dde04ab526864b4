"""Nearest neighbours: approximate ones agree with exact ones."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.rounds.acquisition import neighbours
from pipelines.rounds.acquisition.neighbours import nearest_similarity
from tests.pipelines.rounds.acquisition.candidates import unit


def test_exact_and_approximate_similarity_agree() -> None:
    pytest.importorskip("usearch")
    rng = np.random.default_rng(0)
    queries, targets = (unit(rng.normal(size=(n, 8)).tolist()) for n in (50, 200))
    exact = nearest_similarity(queries, targets)
    assert exact == pytest.approx((queries @ targets.T).max(1), abs=1e-5)
    assert nearest_similarity(queries, targets, exact_limit=10) == pytest.approx(exact, abs=0.01)


def test_without_targets_nothing_is_similar() -> None:
    queries = unit([(1.0, 0.0)])
    assert nearest_similarity(queries, unit([])).tolist() == [-1.0]
    assert nearest_similarity(unit([]), queries).shape == (0,)


def test_few_queries_need_no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    def index(*_: object) -> None:
        pytest.fail("an index was built")

    monkeypatch.setattr(neighbours, "near_index", index)
    monkeypatch.setattr(neighbours, "_MAX_CELLS", 100)  # fewer than the targets: one query at a time
    rng = np.random.default_rng(0)
    queries, targets = (unit(rng.normal(size=(n, 8)).tolist()) for n in (9, 200))
    found = nearest_similarity(queries, targets, exact_limit=10)
    assert found == pytest.approx((queries @ targets.T).max(1), abs=1e-5)
