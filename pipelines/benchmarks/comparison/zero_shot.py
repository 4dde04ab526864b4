"""Zero-shot detection: a class is left out of training and then detected by its description.

The boxes of the class are removed from the training images and its text from the vocabulary. The images stay,
so the detector learns that the defects of the class are background. This is harder than a class that is new
to the factory. Removing the images instead would make the training set smaller and take boxes from the other
classes.

The trained model is evaluated with the right description of the class, its bare name, and random words of the
same length. The other classes keep their right descriptions. There are two scopes: all classes
(``asked`` is ``beside`` in result files), where the classes compete for the detections of an image, and the
held-out class only (``alone``). AP is of the held-out class, on all validation images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dsmoe_core.digest import content_id
from dsmoe_core.errors import DataError
from dsmoe_core.schema import Prediction, Vocabulary
from pipelines.benchmarks.comparison.dataset import filter_boxes, filter_classes, load_datasets
from pipelines.benchmarks.comparison.digests import dataset_digest
from pipelines.benchmarks.comparison.dsmoe_model import DsmoeModel
from pipelines.benchmarks.comparison.protocol import BenchmarkDataset, Budget
from pipelines.benchmarks.comparison.rows import comparison_rows
from pipelines.benchmarks.comparison.run_store import RunResult, RunStore
from pipelines.benchmarks.comparison.sweep import ReportCallback
from prompts.text_controls import TEXT_CONTROLS

ALL_CLASSES, HELD_OUT_ONLY = "beside", "alone"
"""Scopes: values of ``asked`` in result files."""
SCOPES = {ALL_CLASSES: "all classes", HELD_OUT_ONLY: "this class only"}
CONTROLS = ("right", "name", "random")
RowKey = tuple[str, str, str]
"""Data set, scope, name of the text control."""


def run_zero_shot(
    model: DsmoeModel,
    data: Sequence[Path],
    label: str | None,
    budget: Budget,
    seeds: Sequence[int],
    store: RunStore,
    report: ReportCallback,
    *,
    start: str = "scratch",
    extra: Sequence[Path] = (),
) -> None:
    """Train without a class and evaluate it with each text, for every seed and data set.

    Args:
        label: the class to hold out; None: the class with most boxes of each data set.
        start: initial weights of the image encoder, for the result file.
        extra: other data sets to train on as well.

    Raises:
        DataError: a data set cannot be read, lacks the class or has no other, or an extra set has the class.
        SettingsError: a folder is in ``data`` and in ``extra``.
        ModelError: the model cannot be trained.
    """
    results: dict[RowKey, list[RunResult]] = {}
    with load_datasets(data, extra, store.progress) as datasets:
        settings = {"start": start, **model.text_settings(datasets[0])}
        held_out = {dataset.name: held_out_class(dataset, label) for dataset in datasets}
        for seed in seeds:
            for dataset in datasets:
                name = held_out[dataset.name]
                training_set, evaluation_set = split(dataset, name)
                store.progress.line(f"{dataset.name} without {name}, seed {seed}")
                trained = store.run(model, training_set, budget, seed)
                digest = dataset_digest(evaluation_set)
                for scope, scope_text in SCOPES.items():
                    for control in CONTROLS:
                        vocabulary = controlled_vocabulary(dataset.vocabulary, name, control, scope, seed)
                        result = _evaluate(model, trained, vocabulary, evaluation_set, digest, store)
                        results.setdefault((dataset.name, scope, control), []).append(result)
                        metrics = (
                            f"AP@.5 {result.metrics['map50']:.3f}, AP@.5:.95 {result.metrics['map']:.3f}"
                        )
                        store.progress.line(f"  {scope_text}, {control} text: {metrics}")
            report(
                {"held_out_class": _rows(results, held_out, {"budget": budget.plain, **settings})},
                seeds[: seeds.index(seed) + 1],
            )


def split(dataset: BenchmarkDataset, label: str) -> tuple[BenchmarkDataset, BenchmarkDataset]:
    """The data set without a class, for training, and with this class only, for evaluation."""
    others = filter_classes(dataset.vocabulary, lambda name: name != label)
    only = filter_classes(dataset.vocabulary, lambda name: name == label)
    train, val = dataset.train, dataset.val
    without = replace(
        dataset, vocabulary=others, train=filter_boxes(train, others), val=filter_boxes(val, others)
    )
    return without, replace(dataset, vocabulary=only, train=(), val=filter_boxes(val, only))


def controlled_vocabulary(
    vocabulary: Vocabulary, label: str, control: str, scope: str, seed: int
) -> Vocabulary:
    """The vocabulary for evaluation: the held-out class with a text control, and the others unless alone."""
    only = filter_classes(vocabulary, lambda name: name == label)
    (text,) = TEXT_CONTROLS[control](only, {}, seed).classes
    classes = tuple(text if entry.name == label else entry for entry in vocabulary.classes)
    return Vocabulary(classes if scope == ALL_CLASSES else (text,), vocabulary.inner, vocabulary.version)


def held_out_class(dataset: BenchmarkDataset, label: str | None) -> str:
    """The class to hold out: ``label``, or the class of val.json with most training boxes.

    Raises:
        DataError: a part of the data set lacks the class, there is no other class, or an extra set has it.
    """
    train_boxes, val_boxes = (
        Counter(a.label for labelled in part for a in labelled.annotations)
        for part in (dataset.train, dataset.val)
    )
    name = label or max(val_boxes, key=lambda one: train_boxes[one])
    if not train_boxes[name] or not val_boxes[name]:
        known = ", ".join(sorted(val_boxes))
        raise DataError(
            f"{dataset.name} lacks boxes of {name!r} in a part; val.json has {known}", "Name one of these."
        )
    if {name} in (set(train_boxes), set(val_boxes)):
        raise DataError(
            f"{dataset.name} has the class {name!r} only; expected several", "Give a set of several classes."
        )
    _require_unknown_to_extra_sets(dataset, name)
    return name


def _require_unknown_to_extra_sets(dataset: BenchmarkDataset, label: str) -> None:
    """Extra sets must not contain the class, by its name or by its description."""
    text = dataset.vocabulary.classes[dataset.vocabulary.index(label)]
    for extra in dataset.extra_sets:
        for entry in extra.vocabulary:
            if entry.name == label or (text.description and entry.description == text.description):
                raise DataError(
                    f"{extra.name} has the class {entry.name!r}, which is held out of {dataset.name}",
                    "Hold out another class, or leave that set out of --with.",
                )


def _evaluate(
    model: DsmoeModel,
    trained: RunResult,
    vocabulary: Vocabulary,
    evaluation_set: BenchmarkDataset,
    digest: str,
    store: RunStore,
) -> RunResult:
    """Evaluate the detections of the held-out class.

    Args:
        digest: of the evaluation set; the hash of the run does not cover its boxes.
    """
    (label,) = evaluation_set.vocabulary.names
    images = [labelled.image for labelled in evaluation_set.val]

    def predict(folder: Path) -> list[Prediction]:
        predictions = model.predict(folder / "model", vocabulary, images, store.progress)
        return [
            replace(p, detections=tuple(d for d in p.detections if d.label == label)) for p in predictions
        ]

    name = f"held-out-{content_id([vocabulary.to_dict(), digest])}"
    return store.evaluate_again(trained, name, predict, evaluation_set)


def _rows(
    results: dict[RowKey, list[RunResult]], held_out: dict[str, str], settings: dict[str, Any]
) -> list[dict[str, Any]]:
    """One row for each data set and scope, with AP@.5:.95 and AP@.5 of each seed and text control."""
    rows = []
    for name, scope in dict.fromkeys((name, scope) for name, scope, _ in results):
        by_control = {control: results[name, scope, control] for control in CONTROLS}
        row: dict[str, Any] = {"data": name, "class": held_out[name], "asked": scope, **settings}
        row["seeds"] = [result.seed for result in by_control["right"]]
        for control, runs in by_control.items():
            row[control] = [round(result.metrics["map"], 4) for result in runs]
            row[f"{control}_map50"] = [round(result.metrics["map50"], 4) for result in runs]
        row["tests"] = [
            {"against": control, **test}
            for control in CONTROLS[1:]
            for test in comparison_rows(by_control["right"], by_control[control])
        ]
        rows.append(row)
    return rows
