"""The store of runs, and the rows and tests of result files."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scenes import CLASSES, random_scene, resampled_scene

from dsmoe_core.evaluation import bootstrap
from dsmoe_core.evaluation.coco_metrics import evaluate
from dsmoe_core.evaluation.seed_stats import paired_t_test
from dsmoe_core.schema import ClassText, LabelledImage, Prediction, Vocabulary
from pipelines.benchmarks.comparison.dataset import with_train_share
from pipelines.benchmarks.comparison.protocol import BenchmarkDataset, Budget
from pipelines.benchmarks.comparison.rows import comparison_rows, result_row
from pipelines.benchmarks.comparison.run_store import RESAMPLE_SEED, RunStore
from tests.pipelines.benchmarks.comparison.conftest import FakeModel, RecordingProgress

SHORT = Budget(epochs=2)


def test_run_is_trained_once_and_evaluated_like_everywhere(
    store: RunStore, dataset: BenchmarkDataset
) -> None:
    model = FakeModel("a", 0.5)
    first, second = (store.run(model, dataset, SHORT, 1) for _ in range(2))
    assert len(model.trainings) == 1
    assert first == second
    assert first.record == second.record
    expected = evaluate(
        [model.predict(image, 1) for image in dataset.val], dataset.val, dataset.vocabulary.names
    )
    assert first.metrics["map50"] == pytest.approx(expected.map50)
    assert first.metrics["map"] == pytest.approx(expected.map)
    assert (first.record["epochs"], first.record["minutes"]) == (2.0, 1.5)
    assert first.resampled.shape == (100, 2)


def test_mean_of_some_classes_is_resampled_over_the_images(
    store: RunStore, dataset: BenchmarkDataset
) -> None:
    """Compares with pycocotools on repeated images."""
    predictions, truth = random_scene(3)
    scene = replace(
        dataset, vocabulary=Vocabulary(tuple(ClassText(name, "") for name in CLASSES)), val=tuple(truth)
    )
    trained = store.run(FakeModel("a", 0.5), dataset, SHORT, 1)
    result = store.evaluate_again(trained, "scene", lambda _: list(predictions.values()), scene)
    names = CLASSES[:2]
    assert result.map50_of(names) == pytest.approx(mean_map50(predictions, truth, names))
    resampled = result.resampled_map50_of(names)
    assert resampled.shape == (100,)
    counts = bootstrap.resample_counts(len(truth), 100, RESAMPLE_SEED)
    for b in range(10):
        repeated = resampled_scene((predictions, truth), counts[b].tolist())
        assert resampled[b] == pytest.approx(mean_map50(*repeated, names), abs=1e-5)


def mean_map50(predictions: dict[str, Prediction], truth: list[LabelledImage], names: Sequence[str]) -> float:
    """mAP@.5 of these classes by pycocotools; those without a box are left out."""
    metrics = evaluate(predictions.values(), truth, CLASSES).per_class
    values = [metrics[name].map50 for name in names if name in metrics]
    return sum(values) / len(values)


def test_every_determinant_makes_another_run(
    store: RunStore, dataset: BenchmarkDataset, tmp_path: Path
) -> None:
    model = FakeModel("a", 0.5)
    fewer_labels = replace(dataset, val=(replace(dataset.val[0], annotations=()), *dataset.val[1:]))
    other_file = tmp_path / "other.png"
    shutil.copy(dataset.train[1].image.path, other_file)
    other_image = replace(dataset.train[0].image, path=other_file)
    other_pixels = replace(dataset, train=(replace(dataset.train[0], image=other_image), *dataset.train[1:]))
    for arguments in (
        (model, dataset, SHORT, 1),
        (model, dataset, SHORT, 2),
        (model, dataset, Budget(epochs=3), 1),
        (model, dataset, Budget(minutes=2), 1),
        (replace(model, version=2), dataset, SHORT, 1),
        (model, fewer_labels, SHORT, 1),
        (model, other_pixels, SHORT, 1),
        (model, with_train_share(dataset, 0.5, 1), SHORT, 1),
    ):
        store.run(*arguments)
    assert len(model.trainings) == 8
    assert len(list((tmp_path / "work").iterdir())) == 8


@pytest.mark.parametrize(
    ("budget", "trainings"), [(Budget(minutes=2), 3), (SHORT, 2)], ids=["minutes", "epochs"]
)
def test_another_machine_makes_another_run(
    store: RunStore,
    dataset: BenchmarkDataset,
    budget: Budget,
    trainings: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For minutes every difference counts, for epochs only the GPU."""
    model, here = FakeModel("a", 0.5), {"cpu": "one", "cores": 2, "gpu": None}
    for machine in (here, here | {"cores": 1}, here | {"gpu": "H200"}):
        monkeypatch.setattr("pipelines.benchmarks.comparison.run_store.machine", lambda there=machine: there)
        store.run(model, dataset, budget, 1)
    assert len(model.trainings) == trainings


def test_killed_run_is_repeated_in_its_folder(store: RunStore, dataset: BenchmarkDataset) -> None:
    class KilledModel(FakeModel):
        def train(
            self, dataset: BenchmarkDataset, budget: Budget, seed: int, folder: Path, progress: Any
        ) -> Any:
            (folder / "started").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.run(KilledModel("a", 0.5), dataset, SHORT, 1)
    result = store.run(FakeModel("a", 0.5), dataset, SHORT, 1)
    assert (result.folder / "started").exists()
    assert (result.folder / "result.json").exists()


def test_groups_change_the_intervals_and_not_the_run(
    store: RunStore, dataset: BenchmarkDataset, progress: RecordingProgress, tmp_path: Path
) -> None:
    """With one group, every resample is the whole set."""
    by_group = RunStore(tmp_path / "work", progress, resamples=100, by=re.compile("val"))
    model = FakeModel("a", 0.5)
    images, groups = store.run(model, dataset, SHORT, 1), by_group.run(model, dataset, SHORT, 1)
    assert groups.folder == images.folder
    assert groups.metrics["map"] == images.metrics["map"]
    assert images.resampled.std() > 0
    assert groups.resampled[:, 1].tolist() == pytest.approx([groups.metrics["map"]] * 100, abs=1e-6)
    assert store.run(model, dataset, SHORT, 1) == images


def test_other_predictions_of_a_run_are_evaluated_once(store: RunStore, dataset: BenchmarkDataset) -> None:
    result = store.run(FakeModel("a", 0.9), dataset, SHORT, 1)
    folders: list[Path] = []

    def predict(folder: Path) -> list[Any]:
        folders.append(folder)
        return []

    for _ in range(2):
        again = store.evaluate_again(result, "silent", predict, dataset)
    assert folders == [result.folder]
    assert again.metrics["map"] == 0.0 < result.metrics["map"]
    assert again.seed == 1


def test_rows_have_a_value_per_seed_and_tests_are_paired(store: RunStore, dataset: BenchmarkDataset) -> None:
    good, bad = FakeModel("good", 0.6), FakeModel("bad", 0.2)
    good_runs = [store.run(good, dataset, SHORT, seed) for seed in (1, 2, 3)]
    bad_runs = [store.run(bad, dataset, SHORT, seed) for seed in (3, 2, 1)]
    row = result_row(good_runs)
    assert row["seeds"] == [1, 2, 3]
    assert row["map"] == [round(run.metrics["map"], 4) for run in good_runs]
    assert set(row["classes"]) <= set(dataset.vocabulary.names)
    assert all(len(values) == 3 for metrics in row["classes"].values() for values in metrics.values())
    assert len(row["errors"]["missed"]) == 3
    over_seeds, over_images = comparison_rows(good_runs, bad_runs)
    expected = paired_t_test(
        [run.metrics["map"] for run in good_runs], [run.metrics["map"] for run in reversed(bad_runs)]
    )
    assert over_seeds == {
        "over": "seeds",
        "delta_map": round(expected.delta, 4),
        "ci95": [round(end, 4) for end in expected.ci95],
        "p": round(expected.p, 5),
    }
    assert over_images["over"] == "pictures"
    assert over_images["delta_map"] == over_seeds["delta_map"] > 0
    assert over_images["ci95"][0] <= over_images["delta_map"] <= over_images["ci95"][1]


def test_runs_without_a_common_seed_are_not_compared(store: RunStore, dataset: BenchmarkDataset) -> None:
    first, second = (store.run(FakeModel("a", 0.5), dataset, SHORT, seed) for seed in (1, 2))
    assert comparison_rows([first], [second]) == []
    assert [test["over"] for test in comparison_rows([first], [first])] == ["pictures"]
