"""Several product lines in one model: trained on all sets together, against one model for each set.

Each set is a line with a class book of its own. The joint model is trained on batches of all lines. It is
evaluated on val.json of each line, with the class book of that line. The single model of a line is shown as
many images of it as the joint model was, so neither has seen more of a line. The benchmark also measures
whether the router separates the lines: the mutual information between the leading expert of an image and its
line, as a share of the entropy of the lines, I(expert; line) / H(line).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dsmoe_core.digest import content_id
from dsmoe_core.errors import SettingsError
from dsmoe_core.evaluation.bootstrap import compare
from dsmoe_core.evaluation.information import information
from pipelines.benchmarks.comparison.dataset import load_datasets, with_train_share
from pipelines.benchmarks.comparison.digests import dataset_digest
from pipelines.benchmarks.comparison.dsmoe_model import DsmoeModel
from pipelines.benchmarks.comparison.protocol import BenchmarkDataset, Budget
from pipelines.benchmarks.comparison.rows import result_row
from pipelines.benchmarks.comparison.run_store import RunResult, RunStore
from pipelines.benchmarks.comparison.sweep import ReportCallback
from pipelines.benchmarks.comparison.variants import UNCHANGED

TOGETHER, ALONE = "together", "alone"
"""Values of ``trained`` in result files: one model for all lines, one model for each line."""
MEAN = "mean"
"""Value of ``data`` in result files for the mean over the lines."""
METRICS = ("map50", "map")


class LineKey(NamedTuple):
    """Identifies the results of one model on one line: settings, ``TOGETHER`` or ``ALONE``, data set."""

    settings: str
    trained: str
    data: str


Results = dict[LineKey, list[RunResult]]
"""The runs by seed."""


def run_lines(
    models: Mapping[str, DsmoeModel],
    data: Sequence[Path],
    images_seen: int,
    seeds: Sequence[int],
    store: RunStore,
    report: ReportCallback,
    *,
    start: str = "scratch",
    train_share: float = 1.0,
    common: str = "",
) -> None:
    """Train the joint model with each of the settings and the single models without a change, seed by seed.

    Args:
        models: by settings; the joint models of the others are compared with that of ``UNCHANGED``.
        data: folders with images/, train.json and val.json, one for each line.
        images_seen: images of all lines together that a joint model is shown.
        start: initial weights of the image encoder, for the result file.
        train_share: share of the training images of each line.
        common: settings of all models, for the result file.

    Raises:
        DataError: a data set cannot be read.
        SettingsError: there are fewer than two lines or two of the same name, or the joint training shows no
            image of a line.
        ModelError: a model cannot be trained; finished runs are kept.
    """
    results: Results = {}
    with load_datasets(data, (), store.progress) as lines:
        names = [line.name for line in lines]
        if len(names) < 2 or len(set(names)) < len(names):
            raise SettingsError(
                f"the lines are {', '.join(names)}; expected at least two with different names",
                "Repeat --data with different folders.",
            )
        for seed in seeds:
            sampled = [with_train_share(line, train_share, seed) for line in lines]
            for settings, model in models.items():
                store.progress.line(f"{', '.join(names)}: {settings}, seed {seed}")
                _run(settings, model, sampled, images_seen, seed, store, results)
                head = {"budget": {"images": images_seen}, "start": start, "labels": train_share}
                report(
                    {**head, "common": common, **_measured(results, names)}, seeds[: seeds.index(seed) + 1]
                )


def _run(
    settings: str,
    model: DsmoeModel,
    lines: Sequence[BenchmarkDataset],
    images_seen: int,
    seed: int,
    store: RunStore,
    results: Results,
) -> None:
    """Train and evaluate the joint model of one setting and seed, and without a change the single models."""
    joint_set = replace(lines[0], extra_sets=tuple(lines[1:]))
    shown = model.images_of_each_set(joint_set, images_seen, seed)
    if not all(shown):
        missing = lines[shown.index(0)].name
        raise SettingsError(
            f"{images_seen} images of all lines include none of {missing}", "Give a higher --images-seen."
        )
    trained = store.run(model, joint_set, Budget(images=images_seen), seed)
    for line, images in zip(lines, shown, strict=True):
        of_line = {TOGETHER: trained if line is lines[0] else _evaluate(model, trained, line, store)}
        if settings == UNCHANGED:
            of_line[ALONE] = store.run(model, line, Budget(images=images), seed)
        for name, result in of_line.items():
            results.setdefault(LineKey(settings, name, line.name), []).append(result)
        metrics = ", ".join(f"{result.metrics['map']:.3f} {name}" for name, result in of_line.items())
        store.progress.line(f"  {line.name}, {images} images shown: mAP@.5:.95 {metrics}")


def _evaluate(model: DsmoeModel, trained: RunResult, line: BenchmarkDataset, store: RunStore) -> RunResult:
    """Evaluate the joint model on a line that is not the first."""
    return store.evaluate_again(
        trained,
        f"line-{content_id(dataset_digest(line))}",
        lambda folder: model.predict_trained(line, folder, store.progress),
        line,
    )


def _measured(results: Results, names: Sequence[str]) -> dict[str, Any]:
    """``rows``, ``tests`` and ``specialisation`` of a result file."""
    rows: list[dict[str, Any]] = []
    tests: list[dict[str, Any]] = []
    specialisation: list[dict[str, Any]] = []
    for settings in dict.fromkeys(key.settings for key in results):
        by_training = {
            trained: [results[LineKey(settings, trained, name)] for name in names]
            for trained in ((TOGETHER, ALONE) if settings == UNCHANGED else (TOGETHER,))
        }
        for trained, of_lines in by_training.items():
            keys = {"settings": settings, "trained": trained}
            rows += [
                {"data": name, **keys, **result_row(runs)} for name, runs in zip(names, of_lines, strict=True)
            ]
            rows.append({"data": MEAN, **keys, **_mean_row(of_lines)})
        joint = by_training[TOGETHER]
        if settings == UNCHANGED:
            tests += _tests(names, joint, by_training[ALONE], {"settings": settings, "against": ALONE})
        else:
            unchanged = [results[LineKey(UNCHANGED, TOGETHER, name)] for name in names]
            tests += _tests(names, joint, unchanged, {"settings": settings, "against": UNCHANGED})
        specialisation += [
            {"settings": settings, "seed": of_seed[0].seed, **values}
            for of_seed in zip(*joint, strict=True)
            if (values := _expert_information(of_seed)) is not None
        ]
    return {"rows": rows, "tests": tests, "specialisation": specialisation}


def _mean_row(lines: Sequence[Sequence[RunResult]]) -> dict[str, Any]:
    """Metrics of each seed, averaged over the lines."""
    metrics = {
        name: [
            round(float(np.mean([run.metrics[name] for run in seed])), 4) for seed in zip(*lines, strict=True)
        ]
        for name in METRICS
    }
    return {"seeds": [run.seed for run in lines[0]], **metrics}


def _tests(
    names: Sequence[str],
    first: Sequence[Sequence[RunResult]],
    second: Sequence[Sequence[RunResult]],
    keys: dict[str, Any],
) -> list[dict[str, Any]]:
    """Differences of both metrics on each line and in the mean, first minus second, with intervals."""
    pairs = dict(zip(names, zip(first, second, strict=True), strict=True))
    tests = []
    for data in (*names, MEAN):
        chosen = list(pairs.values()) if data == MEAN else [pairs[data]]
        test = {"data": data, **keys}
        for column, metric in enumerate(METRICS):
            test[metric] = _difference(chosen, metric, column)
        tests.append(test)
    return tests


def _difference(
    pairs: Sequence[tuple[Sequence[RunResult], Sequence[RunResult]]], metric: str, column: int
) -> dict[str, Any] | None:
    """Difference of one metric, averaged over pairs and seeds, on the same resamples of the images."""
    count = min(len(side) for pair in pairs for side in pair)
    runs = [[run for pair in pairs for run in pair[side][:count]] for side in (0, 1)]
    means = [float(np.mean([run.metrics[metric] for run in one_side])) for one_side in runs]
    resampled = [np.mean([run.resampled[:, column] for run in one_side], axis=0) for one_side in runs]
    comparison = compare(means[0] - means[1], *resampled)
    if comparison is None:
        return None
    interval = [round(end, 4) for end in comparison.ci95]
    return {"delta": round(comparison.delta, 4), "ci95": interval, "p": round(comparison.p, 5)}


def _expert_information(lines: Sequence[RunResult]) -> dict[str, Any] | None:
    """What the leading expert of an image says about its line; None for a network without a router."""
    experts = [run.record["leading_experts"] for run in lines]
    if not all(experts):
        return None
    line = np.repeat(np.arange(len(experts)), [len(images) for images in experts])
    leading = np.array([expert for images in experts for expert in images])
    counts = [Counter(images) for images in experts]
    return {
        **information(leading, line, image=np.arange(len(line)))._asdict(),
        "images_by_expert": [[count[expert] for expert in range(max(leading) + 1)] for count in counts],
    }
