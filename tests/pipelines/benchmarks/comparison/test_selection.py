"""Selection of settings and of the length of a training on the inner split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.benchmarks.comparison.dataset import InnerSplit
from pipelines.benchmarks.comparison.protocol import BenchmarkDataset, Budget
from pipelines.benchmarks.comparison.run_store import RunStore
from pipelines.benchmarks.comparison.selection import OneTraining, Selected
from pipelines.benchmarks.comparison.sweep import Sweep, SweepEntry, run_sweep
from tests.pipelines.benchmarks.comparison.conftest import FakeModel

SPLIT = InnerSplit(0.4)
FIRST = Budget(epochs=2)


def lengths(selected: dict[str, Any]) -> list[int]:
    return [trial["epochs"] for trial in selected["tried"]]


@pytest.mark.parametrize(
    ("patience", "shares", "tried", "chosen", "converged"),
    [
        (1, {2: 0.2, 4: 0.6, 8: 0.6, 16: 0.9}, [2, 4, 8], 4, True),
        (2, {2: 0.2, 4: 0.6, 8: 0.4, 16: 0.9}, [2, 4, 8, 16], 16, False),
        (2, {2: 0.6, 4: 0.3, 8: 0.2, 16: 0.9}, [2, 4, 8], 2, True),
        (3, {2: 0.9, 4: 0.3, 8: 0.2, 16: 0.2}, [2, 4, 8, 16], 2, True),
    ],
)
def test_training_doubles_until_the_inner_split_stands_still(
    store: RunStore,
    dataset: BenchmarkDataset,
    patience: int,
    shares: dict[int, float],
    tried: list[int],
    chosen: int,
    converged: bool,
) -> None:
    model = FakeModel("a", 0.0, of_epochs=shares)
    result = Selected(SPLIT, patience, max_epochs=31).run([model], dataset, FIRST, 1, store)
    selected = result.record["selected"]
    assert lengths(selected) == tried
    assert (selected["epochs"], selected["converged"]) == (chosen, converged)
    assert model.trainings == [("squares", 1, 6)] * len(tried)


def test_selected_training_is_evaluated_on_val_once(store: RunStore, dataset: BenchmarkDataset) -> None:
    model = FakeModel("a", 0.0, of_epochs={2: 0.2, 4: 0.6})
    selection = Selected(SPLIT, 1, max_epochs=4)
    result = selection.run([model], dataset, FIRST, 1, store)
    expected = store.run(FakeModel("b", 0.6), dataset, FIRST, 1)
    assert result.metrics == expected.metrics
    assert result.record["selected"]["inner_map"] != round(result.metrics["map"], 4)
    assert (result.record["epochs"], result.seed) == (2.0, 1)
    on_val = [path for path in (result.folder.parent).rglob("val-*.json") if path.is_file()]
    assert [path.parent for path in on_val] == [result.folder]
    assert selection.run([model], dataset, FIRST, 1, store) == result
    assert len(model.trainings) == 2, "stored"


def test_interrupted_selection_continues(store: RunStore, dataset: BenchmarkDataset) -> None:
    class KilledModel(FakeModel):
        def train(
            self, dataset: BenchmarkDataset, budget: Budget, seed: int, folder: Path, progress: Any
        ) -> Any:
            if budget.epochs == 4:
                raise KeyboardInterrupt
            return super().train(dataset, budget, seed, folder, progress)

    selection, shares = Selected(SPLIT, 1, max_epochs=8), {2: 0.2, 4: 0.6, 8: 0.6}
    with pytest.raises(KeyboardInterrupt):
        selection.run([KilledModel("a", 0.0, of_epochs=shares)], dataset, FIRST, 1, store)
    model = FakeModel("a", 0.0, of_epochs=shares)
    assert lengths(selection.run([model], dataset, FIRST, 1, store).record["selected"]) == [2, 4, 8]
    assert len(model.trainings) == 2


def test_best_setting_is_selected_at_a_fixed_length(store: RunStore, dataset: BenchmarkDataset) -> None:
    models = [FakeModel("low", 0.2), FakeModel("high", 0.6), FakeModel("same", 0.6)]
    selected = Selected(SPLIT).run(models, dataset, FIRST, 1, store).record["selected"]
    assert (selected["model"], selected["converged"]) == ("high", False)
    assert [trial["model"] for trial in selected["tried"]] == ["low", "high", "same"]


def test_sweep_writes_what_was_selected(data: Path, store: RunStore) -> None:
    entry = SweepEntry({"model": "a"}, FakeModel("a", 0.2), alternatives=(FakeModel("a-rate2", 0.6),))
    reports: list[dict[str, Any]] = []
    run_sweep(
        Sweep([entry], []),
        [data],
        FIRST,
        [1, 2],
        store,
        lambda measured, _: reports.append(measured),
        Selected(SPLIT, 1, max_epochs=4),
    )
    (row,) = reports[-1]["rows"]
    assert [one["model"] for one in row["selected"]] == ["a-rate2", "a-rate2"]
    assert reports[-1]["budget"] == {"epochs": 2, "max_epochs": 4, "converge": 1}
    assert reports[-1]["inner"] == {"share": 0.4, "by": None}


def test_settings_are_evaluated_within_the_training_images(
    store: RunStore, dataset: BenchmarkDataset
) -> None:
    result = OneTraining(SPLIT).run([FakeModel("a", 0.5)], dataset, FIRST, 1, store)
    assert result == store.run(FakeModel("a", 0.5), SPLIT.cut(dataset), FIRST, 1)
    assert OneTraining(SPLIT).plain(FIRST)["evaluated_on"] == "inner"
