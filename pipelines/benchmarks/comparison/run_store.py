"""Stores trainings with their evaluation, so that no benchmark repeats a training.

A run is the training of one model on one data set with one budget and one seed. The name of its folder ends
in a hash of everything that determines the result: a changed setting, label or line of code makes a new run,
and benchmarks that need the same run share it. ``result.json`` is written last and marks a finished run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotate.environments import process_lock
from dsmoe_core import evaluation
from dsmoe_core.atomic import atomic_write
from dsmoe_core.digest import content_id
from dsmoe_core.evaluation import bootstrap
from dsmoe_core.evaluation.metrics import compute_metrics, evaluation_tables
from dsmoe_core.schema import Prediction
from pipelines.benchmarks.comparison.digests import dataset_digest, package_digest
from pipelines.benchmarks.comparison.protocol import BenchmarkDataset, BenchmarkModel, Budget
from pipelines.benchmarks.results import machine
from pipelines.evaluation.report.groups import group_names
from pipelines.progress import ProgressReporter
from pipelines.workspace.registry import source_commit

RESAMPLES = 1000
RESAMPLE_SEED = 42
GIVEN_THRESHOLD = 0.3
"""Score threshold that is evaluated in addition to the one with the best F1."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """The evaluation of a run.

    Attributes:
        folder: of the run, with everything that the model stored.
        record: ``figures`` (as in evaluation.json), ``resampled``, ``resampled_map50`` (of each class) and
            ``leading_experts``; of a training also ``epochs``, ``minutes``, ``commit``, and ``peak_mb``
            where it is measured.
    """

    seed: int
    folder: Path
    record: dict[str, Any] = field(repr=False)

    @property
    def metrics(self) -> dict[str, float]:
        """map50, map, and precision, recall and f1 at the best threshold; 0 without a correct detection."""
        total = self.record["figures"]["total"]
        best = total.get("best", {})
        shares = {name: best.get(name, 0.0) for name in ("precision", "recall", "f1")}
        return {"map50": total["map50"], "map": total["map"], **shares}

    @property
    def resampled(self) -> NDArray[np.float64]:
        """mAP@.5 and mAP@.5:.95 in each resample of the images, (b, 2); all runs have the same resamples."""
        return np.array(self.record["resampled"], dtype=np.float64)

    def map50_of(self, names: Collection[str]) -> float:
        """mAP@.5 of these classes; those without a box are left out."""
        entries = self.record["figures"]["classes"]
        return fmean(entry["map50"] for entry in entries if entry["name"] in names and entry["boxes"])

    def resampled_map50_of(self, names: Collection[str]) -> NDArray[np.float64]:
        """mAP@.5 of these classes in each resample, (b,); NaN where a resample has no box of them."""
        by_class = [self.record["resampled_map50"][name] for name in names]
        return bootstrap.mean_over_classes(np.array(by_class, dtype=np.float64).T[..., None])[:, 0]


class RunStore:
    """Folder of runs.

    Args:
        work: the folder.
        resamples: number of bootstrap resamples of the images, for confidence intervals.
        by: part of the file names that dependent images share, such as their board design; whole groups are
            resampled. None: every image is resampled on its own. Another ``by`` evaluates again and does not
            train again.
    """

    def __init__(
        self,
        work: Path,
        progress: ProgressReporter,
        resamples: int = RESAMPLES,
        by: re.Pattern[str] | None = None,
    ) -> None:
        self.progress = progress
        self._work = work
        self._resamples = resamples
        self._by = by

    def run(self, model: BenchmarkModel, dataset: BenchmarkDataset, budget: Budget, seed: int) -> RunResult:
        """Train and evaluate, or read the stored result.

        A lock makes a second process wait for the same run.

        Raises:
            ModelError, PrerequisiteError: the model cannot be trained.
        """
        folder = self._folder(model, dataset, budget, seed)

        def train() -> dict[str, Any]:
            training = model.train(dataset, budget, seed, folder, self.progress)
            commit = source_commit()
            return {
                "model": model.name,
                "data": dataset.name,
                "budget": budget.plain,
                **({"commit": commit} if commit else {}),
                "epochs": round(training.epochs, 2),
                "minutes": round(training.seconds / 60, 2),
                **({} if training.peak_mb is None else {"peak_mb": training.peak_mb}),
                "notes": training.notes,
                **self._evaluate(training.predictions, dataset),
            }

        return self._load_or_make(folder, "result", seed, train)

    def evaluate_again(
        self,
        result: RunResult,
        name: str,
        predict: Callable[[Path], Sequence[Prediction]],
        dataset: BenchmarkDataset,
    ) -> RunResult:
        """Evaluate other predictions of a trained model, or read the stored evaluation.

        Args:
            name: of the file in the run's folder; must identify everything that changes the predictions.
            predict: called with the run's folder.
        """
        return self._load_or_make(
            result.folder, name, result.seed, lambda: self._evaluate(predict(result.folder), dataset)
        )

    def _load_or_make(
        self, folder: Path, name: str, seed: int, make: Callable[[], dict[str, Any]]
    ) -> RunResult:
        folder.mkdir(parents=True, exist_ok=True)
        resampled_by = "" if self._by is None else f"-by-{content_id(self._by.pattern)}"
        path = folder / f"{name}{resampled_by}.json"
        with process_lock(folder / "lock", self.progress.status):
            if path.is_file():
                record = json.loads(path.read_text(encoding="utf-8"))
            else:
                record = make()
                atomic_write(path, json.dumps(record, ensure_ascii=False) + "\n")
        return RunResult(seed, folder, record)

    def _folder(self, model: BenchmarkModel, dataset: BenchmarkDataset, budget: Budget, seed: int) -> Path:
        determinants = {
            "model": model.identity(dataset),
            "evaluation": package_digest(Path(evaluation.__file__)),
            "data": dataset_digest(dataset),
            "budget": budget.plain,
            "seed": seed,
            "resamples": self._resamples,
            **_hardware(budget),
        }
        return self._work / f"{dataset.name}-{model.name}-seed{seed}-{content_id(determinants)}"

    def _evaluate(self, predictions: Sequence[Prediction], dataset: BenchmarkDataset) -> dict[str, Any]:
        """All metrics, and the mAP and the AP@.5 of each class in each resample."""
        self.progress.status("evaluating")
        groups = None if self._by is None else group_names(self._by, dataset.val)
        counts = bootstrap.resample_counts(len(dataset.val), self._resamples, RESAMPLE_SEED, groups)
        by_key = {prediction.key: prediction for prediction in predictions}
        tables = evaluation_tables(
            by_key, dataset.val, dataset.vocabulary.names, counts, self.progress.advance
        )
        means = bootstrap.mean_over_classes(tables.resampled)
        return {
            "figures": compute_metrics(tables, counts, given=GIVEN_THRESHOLD, seed=RESAMPLE_SEED),
            "resampled": np.nan_to_num(means).round(6).tolist(),
            "resampled_map50": {
                name: [None if np.isnan(value) else round(value, 6) for value in values]
                for name, values in zip(
                    dataset.vocabulary.names, tables.resampled[..., 0].T.tolist(), strict=True
                )
            },
            "leading_experts": _leading_experts(predictions),
        }


def _leading_experts(predictions: Sequence[Prediction]) -> list[int]:
    """The expert with the highest mean weight in each image; empty if the network has no router."""
    experts = [prediction.routing.experts for prediction in predictions]
    return [chosen[0] for chosen in experts] if all(experts) else []


def _hardware(budget: Budget) -> dict[str, Any]:
    """Hardware that changes the result: all of it for minutes; for epochs only the GPU, by its rounding."""
    here = machine()
    if budget.minutes is not None:
        return {"machine": here}
    return {"gpu": here["gpu"]} if here["gpu"] else {}
