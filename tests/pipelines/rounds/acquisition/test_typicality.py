"""Acquisition function ``typicality``."""

from __future__ import annotations

import numpy as np

from pipelines.rounds.acquisition.typicality import typicality_scores
from tests.pipelines.rounds.acquisition.candidates import pool, ranking


def groups(sizes: tuple[int, ...], spread: float = 0.05) -> dict[str, tuple[float, ...]]:
    """Vectors around the axes; the name of an image begins with its axis."""
    rng = np.random.default_rng(0)
    return {
        f"{axis}-{i}": tuple(np.eye(len(sizes))[axis] + rng.normal(0, spread, len(sizes)))
        for axis, size in enumerate(sizes)
        for i in range(size)
    }


def test_each_group_gives_one_image() -> None:
    vectors = groups((20, 12, 8))
    chosen = ranking(typicality_scores(pool(dict.fromkeys(vectors, ()), vectors, budget=3)))[:3]
    assert sorted(key[0] for key in chosen) == ["0", "1", "2"]


def test_groups_with_labels_come_last() -> None:
    vectors = groups((20, 12, 8))
    labelled = [(1.0, 0.0, 0.0)]
    chosen = ranking(typicality_scores(pool(dict.fromkeys(vectors, ()), vectors, labelled, budget=2)))[:2]
    assert sorted(key[0] for key in chosen) == ["1", "2"]


def test_the_selected_image_is_in_the_middle_of_its_group() -> None:
    rng = np.random.default_rng(1)
    vectors = {f"k{i:02}": (1.0, float(rng.normal(0, 0.1)), float(rng.normal(0, 0.1))) for i in range(30)}
    chosen = ranking(typicality_scores(pool(dict.fromkeys(vectors, ()), vectors, budget=1)))[0]
    from_middle = {key: np.hypot(*v[1:]) for key, v in vectors.items()}
    assert from_middle[chosen] < np.median(list(from_middle.values()))
