"""Forgetting: a detector is trained on some classes, then fine-tuned on images of new ones.

The protocol is that of class-incremental detection (Shmelkov et al., "Incremental Learning of Object
Detectors without Catastrophic Forgetting", ICCV 2017). The first training has the images with a box of an old
class, and the boxes of the old classes only. The second has the images with a box of a new class, and the
boxes of the new classes only; it is done with and without distillation from the first model. Old defects in
the images of the second training are not labelled: they count as background, as long as no teacher says
otherwise. All three models are evaluated on all classes and images of val.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dsmoe_core.digest import content_id
from dsmoe_core.errors import DataError, SettingsError
from dsmoe_core.evaluation.bootstrap import interval
from dsmoe_core.schema import LabelledImage, Prediction, Vocabulary
from pipelines.benchmarks.comparison.dataset import (
    filter_boxes,
    filter_classes,
    load_datasets,
    with_train_share,
)
from pipelines.benchmarks.comparison.digests import dataset_digest
from pipelines.benchmarks.comparison.models import ModelBuilder, Size
from pipelines.benchmarks.comparison.protocol import BenchmarkDataset, Budget
from pipelines.benchmarks.comparison.rows import MAP, comparison_rows, map50_of_classes, result_row
from pipelines.benchmarks.comparison.run_store import RunResult, RunStore
from pipelines.benchmarks.comparison.sweep import ReportCallback

FIRST, FINE_TUNED, DISTILLED = "first", "fine-tuned", "distilled"
"""The three models: trained on the old classes, and fine-tuned on the new ones without and with a teacher."""
MODELS = (FIRST, FINE_TUNED, DISTILLED)
Results = dict[tuple[str, str], list[RunResult]]
"""Runs of each seed, by data set and model."""


def run_forgetting(
    models: ModelBuilder,
    size: Size,
    data: Sequence[Path],
    new: Sequence[str],
    budget: Budget,
    seeds: Sequence[int],
    store: RunStore,
    report: ReportCallback,
    *,
    train_share: float = 1.0,
) -> None:
    """Train and evaluate the three models for every data set and seed.

    Args:
        size: preset of all models.
        data: folders with images/, train.json and val.json.
        new: names of the classes of the second training.
        budget: of each training.
        train_share: share of the training images, sampled before the classes are separated.

    Raises:
        SettingsError: ``new`` is empty.
        DataError: a data set cannot be read, lacks a new class, or has no other class.
        ModelError: a model cannot be trained; finished runs are kept.
    """
    new = list(dict.fromkeys(new))
    if not new:
        raise SettingsError("--new has no class; expected at least one", "Separate names by commas.")
    results: Results = {}
    head = {"new": new, "start": models.start, "size": size, "image_px": models.px, "labels": train_share}
    with load_datasets(data, (), store.progress) as datasets:
        steps = {
            seed: [split_by_class(with_train_share(dataset, train_share, seed), new) for dataset in datasets]
            for seed in seeds
        }
        for seed in seeds:
            for before, after in steps[seed]:
                store.progress.line(f"{after.name}, {', '.join(new)} later, seed {seed}")
                for name, result in _train(models, size, before, after, budget, seed, store).items():
                    results.setdefault((after.name, name), []).append(result)
                    old, added = (result.map50_of(group) for group in (before.vocabulary.names, new))
                    store.progress.line(f"  {name}: mAP@.5 {old:.3f} old classes, {added:.3f} new classes")
            measured = {**head, "budget": budget.plain, **_rows_and_tests(results, datasets, new)}
            report(measured, seeds[: seeds.index(seed) + 1])


def split_by_class(
    dataset: BenchmarkDataset, new: Sequence[str]
) -> tuple[BenchmarkDataset, BenchmarkDataset]:
    """The data sets of the first and of the second training.

    The second one has the vocabulary of all classes and all images of val.json, with all their boxes.

    Raises:
        DataError: a class has no box in one of the parts, or no class or no training image remains.
    """
    sampled = dataset.train_share < 1
    train = f"{dataset.train_share:.0%} of train.json" if sampled else "train.json"
    for part, images in ((train, dataset.train), ("val.json", dataset.val)):
        labels = {a.label for image in images for a in image.annotations}
        if missing := [name for name in new if name not in labels]:
            raise DataError(
                f"{part} of {dataset.name} has no box of {missing[0]!r}; it has {', '.join(sorted(labels))}",
                f"Give other classes to --new{', or more --labels' if sampled else ''}.",
            )
        if not labels - set(new):
            raise DataError(
                f"{part} of {dataset.name} has boxes of the new classes {', '.join(new)} only",
                "Leave at least one class out of --new.",
            )
    old = filter_classes(dataset.vocabulary, lambda name: name not in new)
    added = filter_classes(dataset.vocabulary, lambda name: name in new)
    before = replace(
        dataset, vocabulary=old, train=_labelled(dataset.train, old), val=filter_boxes(dataset.val, old)
    )
    return before, replace(dataset, train=_labelled(dataset.train, added))


def _train(
    models: ModelBuilder,
    size: Size,
    before: BenchmarkDataset,
    after: BenchmarkDataset,
    budget: Budget,
    seed: int,
    store: RunStore,
) -> dict[str, RunResult]:
    """The runs of one seed, all evaluated on ``after.val``, by name of the model."""
    config = models.preset(size)
    first = models.dsmoe(FIRST, config)
    trained = store.run(first, before, budget, seed)
    folder = trained.folder / "model"
    images = [labelled.image for labelled in after.val]

    def predict(run: Path) -> list[Prediction]:
        return first.predict(run / "model", after.vocabulary, images, store.progress)

    name = f"all-classes-{content_id([after.vocabulary.to_dict(), dataset_digest(after)])}"
    fine_tuned = models.dsmoe(FINE_TUNED, config, start_from=folder)
    distilled = models.dsmoe(DISTILLED, config, start_from=folder, teacher=folder)
    return {
        FIRST: store.evaluate_again(trained, name, predict, after),
        FINE_TUNED: store.run(fine_tuned, after, budget, seed),
        DISTILLED: store.run(distilled, after, budget, seed),
    }


def _rows_and_tests(
    results: Results, datasets: Sequence[BenchmarkDataset], new: Sequence[str]
) -> dict[str, Any]:
    """One row for each data set and model, and the tests of distilled minus fine-tuned."""
    rows, tests = [], []
    for dataset in datasets:
        old = [name for name in dataset.vocabulary.names if name not in new]
        groups = {"old_map50": old, "new_map50": list(new)}
        for model in MODELS:
            runs = results[dataset.name, model]
            means: dict[str, Any] = {}
            for key, names in groups.items():
                means |= _mean_and_interval(key, names, runs)
            rows.append({"data": dataset.name, "model": model, **means, **result_row(runs)})
        pair = {"data": dataset.name, "model": DISTILLED, "against": FINE_TUNED}
        metrics = {"map": MAP, **{key: map50_of_classes(names) for key, names in groups.items()}}
        distilled, fine_tuned = (results[dataset.name, model] for model in (DISTILLED, FINE_TUNED))
        tests += [
            {**pair, "of": of, **test}
            for of, metric in metrics.items()
            for test in comparison_rows(distilled, fine_tuned, metric)
        ]
    return {"rows": rows, "tests": tests}


def _mean_and_interval(key: str, names: Sequence[str], runs: Sequence[RunResult]) -> dict[str, Any]:
    """mAP@.5 of these classes in each run, and its 95 % interval over the images."""
    intervals = [interval(run.resampled_map50_of(names)) for run in runs]
    return {
        key: [round(run.map50_of(names), 4) for run in runs],
        f"{key}_ci95": [ends and [round(end, 4) for end in ends] for ends in intervals],
    }


def _labelled(images: Sequence[LabelledImage], vocabulary: Vocabulary) -> tuple[LabelledImage, ...]:
    """The images with a box of these classes, with the boxes of these classes only."""
    return tuple(image for image in filter_boxes(images, vocabulary) if image.annotations)
