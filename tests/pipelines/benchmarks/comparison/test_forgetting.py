"""Forgetting: the parts of the data set, the three models, rows and tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import SMALL, HashEncoder

from dsmoe_core.config import ModelConfig, TrainingConfig
from dsmoe_core.errors import DataError
from pipelines.benchmarks.comparison.dataset import load_dataset, with_train_share
from pipelines.benchmarks.comparison.forgetting import MODELS, run_forgetting, split_by_class
from pipelines.benchmarks.comparison.models import ModelBuilder, Size
from pipelines.benchmarks.comparison.protocol import BenchmarkDataset, Budget
from pipelines.benchmarks.comparison.rows import comparison_rows, map50_of_classes
from pipelines.benchmarks.comparison.run_store import RunResult, RunStore


class TinyModels(ModelBuilder):
    """Builds a tiny network for every preset."""

    def __init__(self) -> None:
        training = TrainingConfig(batch=5, precision="32-true")
        super().__init__(64, HashEncoder(), lambda _: Path("python"), training=training)

    def preset(self, size: Size) -> ModelConfig:
        return SMALL


def labels(images: Any) -> set[str]:
    return {a.label for image in images for a in image.annotations}


def test_each_training_has_the_images_and_boxes_of_its_classes(dataset: BenchmarkDataset) -> None:
    before, after = split_by_class(dataset, ["plum"])
    assert labels(before.train) == labels(before.val) == set(before.vocabulary.names) == {"rust", "brick"}
    assert labels(after.train) == {"plum"}
    assert after.vocabulary == dataset.vocabulary
    assert after.val == dataset.val
    for part, names in ((before, {"rust", "brick"}), (after, {"plum"})):
        expected = [p.image for p in dataset.train if names & {a.label for a in p.annotations}]
        assert [p.image for p in part.train] == expected
        assert all(p.annotations for p in part.train)


@pytest.mark.slow
def test_both_trainings_have_the_sampled_images(data: Path, store: RunStore, trainings: list[Any]) -> None:
    run_forgetting(
        TinyModels(),
        "nano",
        [data],
        ["plum"],
        Budget(images=5),
        [1],
        store,
        lambda *_: None,
        train_share=0.6,
    )
    first, fine_tuned, _ = ({item.image.key for item in training["images"]} for training in trainings)
    with load_dataset(data, store.progress) as whole:
        sampled = {item.image.key for item in with_train_share(whole, 0.6, 1).train}
    assert len(sampled) == 6
    assert first | fine_tuned <= sampled
    assert first
    assert fine_tuned


@pytest.mark.parametrize("new", [["dent"], ["rust", "brick", "plum"]])
def test_unknown_and_all_classes_are_refused(dataset: BenchmarkDataset, new: list[str]) -> None:
    with pytest.raises(DataError, match=new[0]):
        split_by_class(dataset, new)


@pytest.mark.slow
def test_three_models_are_trained_once_and_evaluated_on_all_classes(
    data: Path, store: RunStore, trainings: list[dict[str, Any]]
) -> None:
    reports: list[dict[str, Any]] = []

    def measure() -> dict[str, Any]:
        budget = Budget(images=10)
        run_forgetting(
            TinyModels(), "nano", [data], ["plum"], budget, [1, 2], store, lambda m, _: reports.append(m)
        )
        return reports[-1]

    result = measure()
    assert result["budget"] == {"images": 10}
    assert result["new"] == ["plum"]
    assert [len(row["seeds"]) for report in reports for row in report["rows"]] == [1] * 3 + [2] * 3
    assert [row["model"] for row in result["rows"]] == list(MODELS)
    for row in result["rows"]:
        assert set(row["classes"]) == {"rust", "brick", "plum"}
        old = [sum(row["classes"][name]["map50"][i] for name in ("rust", "brick")) / 2 for i in range(2)]
        assert row["old_map50"] == pytest.approx(old, abs=1e-3)
        assert row["new_map50"] == pytest.approx(row["classes"]["plum"]["map50"], abs=1e-3)
        assert all(0 <= low <= high <= 1 for low, high in row["old_map50_ci95"] + row["new_map50_ci95"])
    assert {(test["of"], test["over"]) for test in result["tests"]} >= {
        ("old_map50", "seeds"),
        ("new_map50", "seeds"),
        ("map", "seeds"),
        ("old_map50", "pictures"),
        ("new_map50", "pictures"),
    }
    first, fine_tuned, distilled = trainings[:3]
    assert (first["start_from"], first["teacher"]) == (None, None)
    assert first["vocabulary"].names == ("rust", "brick")
    model = first["out"]
    assert (fine_tuned["start_from"], fine_tuned["teacher"]) == (model, None)
    assert (distilled["start_from"], distilled["teacher"]) == (model, model)
    assert {len(given["vocabulary"]) for given in (fine_tuned, distilled)} == {3}
    assert all(given["training"].images_seen == 10 for given in trainings)
    assert len(trainings) == 6
    assert measure() == result
    assert len(trainings) == 6


@pytest.mark.parametrize("seeds", [1, 3])
def test_difference_of_some_classes_has_an_interval_over_the_images(seeds: int) -> None:
    """Class c has no box in every third resample."""
    rng = np.random.default_rng(1)

    def runs(offset: float) -> list[RunResult]:
        return [
            RunResult(seed, Path(), _record({name: list(rng.uniform(0, 0.5, 60) + offset) for name in "abc"}))
            for seed in range(seeds)
        ]

    first, second = runs(0.2), runs(0.0)
    for run in (*first, *second):
        run.record["resampled_map50"]["c"][::3] = [None] * 20
    *over_seeds, over_images = comparison_rows(first, second, map50_of_classes(["a", "c"]))
    assert [test["over"] for test in over_seeds] == ["seeds"] * (seeds > 1)

    def resampled(run: RunResult, b: int) -> float:
        values = [run.record["resampled_map50"][name][b] for name in ("a", "c")]
        known = [value for value in values if value is not None]
        return sum(known) / len(known)

    differences = [
        sum(resampled(a, b) - resampled(z, b) for a, z in zip(first, second, strict=True)) / seeds
        for b in range(60)
    ]
    deltas = [
        sum(
            a.record["figures"]["classes"][i]["map50"] - z.record["figures"]["classes"][i]["map50"]
            for i in (0, 2)
        )
        / 2
        for a, z in zip(first, second, strict=True)
    ]
    assert over_images["over"] == "pictures"
    assert over_images["delta"] == pytest.approx(sum(deltas) / seeds, abs=1e-4)
    low, high = over_images["ci95"]
    assert low == pytest.approx(np.percentile(differences, 2.5), abs=1e-4)
    assert high == pytest.approx(np.percentile(differences, 97.5), abs=1e-4)


def _record(by_class: dict[str, list[float]]) -> dict[str, Any]:
    classes = [{"name": name, "boxes": 3, "map50": sum(v) / len(v)} for name, v in by_class.items()]
    return {"figures": {"classes": classes}, "resampled_map50": by_class}


def test_identity_depends_on_the_model_to_start_from_and_the_teacher(
    dataset: BenchmarkDataset, store: RunStore
) -> None:
    models = TinyModels()
    trained = store.run(models.dsmoe("first", SMALL), dataset, Budget(images=5), 1)
    folder = trained.folder / "model"
    built = [
        models.dsmoe("one", SMALL),
        models.dsmoe("one", SMALL, start_from=folder),
        models.dsmoe("one", SMALL, start_from=folder, teacher=folder),
    ]
    assert len({str(model.identity(dataset)) for model in built}) == 3
    changed = replace(dataset, train=dataset.train[:5])
    other = store.run(models.dsmoe("first", SMALL), changed, Budget(images=5), 1)
    again = models.dsmoe("one", SMALL, start_from=other.folder / "model")
    assert str(again.identity(dataset)) != str(built[1].identity(dataset))
