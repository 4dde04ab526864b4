"""Sweeps over models, data sets and seeds."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipelines.benchmarks.comparison.protocol import Budget
from pipelines.benchmarks.comparison.run_store import RunStore
from pipelines.benchmarks.comparison.sweep import EntryPair, Sweep, SweepEntry, run_sweep
from tests.pipelines.benchmarks.comparison.conftest import FakeModel, RecordingProgress

SHORT = Budget(epochs=2)


def sweep_of(*models: FakeModel) -> Sweep:
    entries = [SweepEntry({"model": model.name}, model) for model in models]
    return Sweep(entries, [EntryPair(0, 1, {"model": models[0].name, "against": models[1].name})])


def test_sweep_goes_seed_by_seed_and_reports_after_each_run(
    data: Path, store: RunStore, progress: RecordingProgress, tmp_path: Path
) -> None:
    second_data = Path(shutil.copytree(data, tmp_path / "second"))
    first, second = FakeModel("first", 0.6), FakeModel("second", 0.2)
    reports: list[tuple[dict[str, Any], Sequence[int]]] = []

    def report(measured: dict[str, Any], seeds: Sequence[int]) -> None:
        reports.append((measured, seeds))

    run_sweep(sweep_of(first, second), [data, second_data], SHORT, [1, 2], store, report)
    assert [len(measured["rows"]) for measured, _ in reports] == [1, 2, 3, 4, 4, 4, 4, 4]
    assert [list(seeds) for _, seeds in reports] == [[1]] * 4 + [[1, 2]] * 4
    assert first.trainings == [(name, seed, 10) for seed in (1, 2) for name in ("squares", "second")]
    assert reports[0][0]["tests"] == []
    last = reports[-1][0]
    assert (last["budget"], last["min_score"], last["most_findings"]) == ({"epochs": 2}, 0.001, 100)
    assert [(row["data"], row["model"], row["seeds"]) for row in last["rows"]] == [
        (name, model, [1, 2]) for name in ("squares", "second") for model in ("first", "second")
    ]
    assert {(test["data"], test["over"]) for test in last["tests"]} == {
        (name, over) for name in ("squares", "second") for over in ("seeds", "pictures")
    }
    assert any("8 of 8" in line for line in progress.lines)


def test_interrupted_sweep_continues(data: Path, store: RunStore) -> None:
    first, second = FakeModel("first", 0.6), FakeModel("second", 0.2)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep_of(first, second), [data], SHORT, [1], store, stop)
    run_sweep(sweep_of(first, second), [data], SHORT, [1], store, lambda *_: None)
    assert len(first.trainings) == len(second.trainings) == 1
