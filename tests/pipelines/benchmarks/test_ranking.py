"""Ranking of a pool from synthetic stores: every step is measured, and memory is bounded by the pool."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.benchmarks.ranking import CLASSES, MEAN_DETECTIONS, measure_size, synthetic_predictions
from pipelines.benchmarks.ranking_table import ranking_table


def test_every_step_has_a_time_and_a_peak_that_never_falls() -> None:
    rows = measure_size(60, ("random", "entropy", "core-set"), seed=0)
    steps = [row["step"] for row in rows]
    assert steps[:4] == ["import", "write", "lookup", "map embeddings"]
    assert steps[4:] == [s for name in ("random", "entropy", "core-set") for s in (name, f"{name}: select")]
    assert all(row["seconds"] >= 0 for row in rows[1:])
    peaks = [row["peak_mb"] for row in rows]
    assert peaks == sorted(peaks)
    assert peaks[0] > 10


def test_synthetic_predictions_are_as_described() -> None:
    found = list(synthetic_predictions([f"k{i}" for i in range(400)], seed=1))
    assert np.mean([len(p.detections) for p in found]) == pytest.approx(MEAN_DETECTIONS, abs=0.5)
    for p in found:
        assert [d.score for d in p.detections] == sorted((d.score for d in p.detections), reverse=True)
        assert all(d.is_top_class and set(d.probabilities) == set(CLASSES) for d in p.detections)


def test_table_has_each_step_of_a_round_at_each_size() -> None:
    steps = [("import", None), ("write", 3.0), ("lookup", 0.5), ("ppal", 0.25)]
    rows = [
        {"images": size, "step": step, "peak_mb": float(size), **({} if cpu is None else {"cpu_s": cpu})}
        for size in (1000, 10)
        for step, cpu in steps
    ]
    lines = ranking_table({"rows": rows}).splitlines()
    assert lines[0] == "| processor seconds | 10 images | 1,000 images |"
    assert lines[2:] == [
        "| lookup | 0.5 | 0.5 |",
        "| ppal | 0.2 | 0.2 |",
        "| peak memory, MB | 10 | 1,000 |",
    ]
