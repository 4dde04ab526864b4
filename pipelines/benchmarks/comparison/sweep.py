"""Runs a list of models on all data sets and seeds, and reports the results after each run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.benchmarks.comparison.dataset import load_datasets, with_train_images, with_train_share
from pipelines.benchmarks.comparison.protocol import (
    MAX_PER_IMAGE,
    MIN_SCORE,
    BenchmarkDataset,
    BenchmarkModel,
    Budget,
)
from pipelines.benchmarks.comparison.rows import comparison_rows, result_row
from pipelines.benchmarks.comparison.run_store import RunResult, RunStore
from pipelines.benchmarks.comparison.selection import ON_VAL, Procedure

ReportCallback = Callable[[dict[str, Any], Sequence[int]], None]
"""Called after each run with the keys of a result file and the seeds that were started."""


@dataclass(frozen=True, slots=True)
class SweepEntry:
    """One model of a sweep; it has one row in the result file for each data set.

    Attributes:
        keys: identify the entry in its rows.
        train_share: share of the training images that it is trained on.
        train_images: number of training images that it is trained on; replaces the share.
        budget: replaces the budget of the sweep.
        alternatives: the model with other settings; the procedure selects one.
    """

    keys: dict[str, Any]
    model: BenchmarkModel
    train_share: float = 1.0
    budget: Budget | None = None
    alternatives: tuple[BenchmarkModel, ...] = ()
    train_images: int | None = None

    def sample(self, dataset: BenchmarkDataset, seed: int) -> BenchmarkDataset:
        """The data set with the training images that the model is trained on.

        Raises:
            SettingsError: it has fewer than ``train_images``.
        """
        if self.train_images is not None:
            return with_train_images(dataset, self.train_images, seed)
        return with_train_share(dataset, self.train_share, seed)


class EntryPair(NamedTuple):
    """Two entries to compare, by index: first minus second; ``keys`` identify the pair in its tests."""

    first: int
    second: int
    keys: dict[str, Any]


class Sweep(NamedTuple):
    """Models to train, and the pairs of them to compare."""

    entries: Sequence[SweepEntry]
    pairs: Sequence[EntryPair]


def run_sweep(
    sweep: Sweep,
    data: Sequence[Path],
    budget: Budget,
    seeds: Sequence[int],
    store: RunStore,
    report: ReportCallback,
    procedure: Procedure = ON_VAL,
) -> None:
    """Train and evaluate all entries on all data sets, seed by seed.

    An interrupted sweep therefore has complete results for the first seeds.

    Args:
        data: folders with images/, train.json and val.json.
        budget: of all entries without a budget of their own.
        procedure: how an entry is trained and evaluated.

    Raises:
        DataError: a data set cannot be read.
        SettingsError: a data set has fewer training images than an entry wants; nothing is trained.
        ModelError, PrerequisiteError: a model cannot be trained; finished runs are kept.
    """
    results: dict[tuple[str, int], list[RunResult]] = {}
    progress = store.progress
    with load_datasets(data, (), progress) as datasets:
        names = [dataset.name for dataset in datasets]
        runs = [
            (seed, i, entry.sample(dataset, seed))
            for seed in seeds
            for dataset in datasets
            for i, entry in enumerate(sweep.entries)
        ]
        for number, (seed, i, dataset) in enumerate(runs, start=1):
            entry = sweep.entries[i]
            description = ", ".join([dataset.name, *map(str, entry.keys.values()), f"seed {seed}"])
            progress.line(f"{number} of {len(runs)}: {description}")
            candidates = (entry.model, *entry.alternatives)
            result = procedure.run(candidates, dataset, entry.budget or budget, seed, store)
            results.setdefault((dataset.name, i), []).append(result)
            metrics = result.metrics
            progress.line(f"  mAP@.5 {metrics['map50']:.3f}, mAP@.5:.95 {metrics['map']:.3f}")
            head = {"min_score": MIN_SCORE, "most_findings": MAX_PER_IMAGE, **procedure.plain(budget)}
            report({**head, **_rows_and_tests(sweep, names, results)}, seeds[: seeds.index(seed) + 1])


def _rows_and_tests(
    sweep: Sweep, data: Sequence[str], results: dict[tuple[str, int], list[RunResult]]
) -> dict[str, Any]:
    rows = [
        {"data": name, **entry.keys, **result_row(results[name, i])}
        for name in data
        for i, entry in enumerate(sweep.entries)
        if (name, i) in results
    ]
    tests = [
        {"data": name, **pair.keys, **test}
        for name in data
        for pair in sweep.pairs
        for test in comparison_rows(results.get((name, pair.first), ()), results.get((name, pair.second), ()))
    ]
    return {"rows": rows, "tests": tests}
