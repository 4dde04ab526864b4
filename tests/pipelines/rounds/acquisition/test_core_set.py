"""Acquisition function ``core-set``."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsmoe_core.errors import SettingsError
from pipelines.rounds.acquisition.core_set import core_set_scores
from tests.pipelines.rounds.acquisition.candidates import pool, ranking, unit


def test_the_image_farthest_from_all_centres_is_next() -> None:
    vectors = {"near": (1.0, 0.1), "up": (0.0, 1.0), "up2": (0.05, 1.0), "back": (-1.0, 0.0)}
    scores = core_set_scores(pool(dict.fromkeys(vectors, ()), vectors, [(1.0, 0.0)], budget=2))
    assert ranking(scores)[:2] == ["back", "up"]
    assert scores["back"] == pytest.approx(2.0)
    assert scores["up"] == pytest.approx(np.sqrt(2), abs=1e-3)
    assert scores["up2"] < 0.1


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.integers(1, 12), st.integers(0, 4), st.integers(0, 1000))
def test_selection_is_that_of_the_naive_algorithm(count: int, budget: int, labelled: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = unit(rng.normal(size=(count, 4)).tolist())
    known = unit(rng.normal(size=(labelled, 4)).tolist()) if labelled else None
    keys = [f"k{i:02}" for i in range(count)]
    vectors = {key: row.tolist() for key, row in zip(keys, rows, strict=True)}
    found = ranking(
        core_set_scores(
            pool(dict.fromkeys(keys, ()), vectors, [] if known is None else known.tolist(), budget=budget)
        )
    )[: min(budget, count)]
    centres = [] if known is None else list(known)
    for key in found:  # each has the largest distance to the centres before it
        if centres:
            distances = {k: min(np.linalg.norm(rows[keys.index(k)] - c) for c in centres) for k in keys}
            assert distances[key] == pytest.approx(max(distances.values()), abs=1e-3)
        centres.append(rows[keys.index(key)])


def test_a_detector_without_embeddings_is_refused() -> None:
    with pytest.raises(SettingsError, match="core-set"):
        core_set_scores(pool({"a": ()}))
