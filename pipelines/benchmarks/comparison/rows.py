"""Rows and tests of result files: metrics of a model over its seeds, and paired tests between two models."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.benchmarks.comparison.run_store import RunResult
from pipelines.evaluation.report.paired import paired_tests

METRICS = ("map50", "map", "precision", "recall", "f1")
TEST_NAMES = {"seeds": "seeds", "images": "pictures"}
"""Values of ``over`` in result files, by field of :class:`pipelines.evaluation.report.paired.PairedTests`."""


def result_row(results: Sequence[RunResult]) -> dict[str, Any]:
    """Metrics of one model, each a list in the order of ``seeds``.

    ``classes`` has AP@.5 and recall by class, and ``errors`` the loss of mAP@.5 by kind of error.
    ``selected`` says what was selected on the inner split, if anything was.
    """
    row: dict[str, Any] = {"seeds": [result.seed for result in results]}
    for name in ("epochs", "minutes", "peak_mb"):
        if values := [result.record[name] for result in results if name in result.record]:
            row[name] = round(float(np.mean(values)), 2)
    for name in METRICS:
        row[name] = [round(result.metrics[name], 4) for result in results]
    figures = [result.record["figures"] for result in results]
    labels = [entry["name"] for entry in figures[0]["classes"] if entry["boxes"]]
    if all("selected" in result.record for result in results):
        row["selected"] = [result.record["selected"] for result in results]
    row["classes"] = {label: _class_metrics(label, figures) for label in labels}
    row["errors"] = {
        cost["kind"]: [round(_entry(one["errors"], "kind", cost["kind"])["map50_gain"], 4) for one in figures]
        for cost in figures[0]["errors"]
    }
    return row


class Metric(NamedTuple):
    """A metric of a run that two models are compared by.

    Attributes:
        name: key of the difference in a test.
        value: the metric.
        resampled: the metric in each resample of the images, (b,).
    """

    name: str
    value: Callable[[RunResult], float]
    resampled: Callable[[RunResult], NDArray[np.float64]]


MAP = Metric("delta_map", lambda run: run.metrics["map"], lambda run: run.resampled[:, 1])
"""mAP@.5:.95."""


def map50_of_classes(names: Collection[str]) -> Metric:
    """mAP@.5 of these classes."""
    return Metric("delta", lambda run: run.map50_of(names), lambda run: run.resampled_map50_of(names))


def comparison_rows(
    first: Sequence[RunResult], second: Sequence[RunResult], metric: Metric = MAP
) -> list[dict[str, Any]]:
    """Tests of the difference in a metric, first minus second, on the seeds that both have.

    Up to two entries: over seeds (with at least two seeds) and over images.
    """
    pairs = [(a, b) for a in first for b in second if a.seed == b.seed]
    if not pairs:
        return []
    firsts, seconds = zip(*pairs, strict=True)
    tests = paired_tests(
        [metric.value(run) for run in firsts],
        [metric.value(run) for run in seconds],
        ([metric.resampled(run) for run in firsts], [metric.resampled(run) for run in seconds]),
    )
    return [
        {
            "over": TEST_NAMES[over],
            metric.name: round(test.delta, 4),
            "ci95": [round(end, 4) for end in test.ci95],
            "p": round(test.p, 5),
        }
        for over, test in tests._asdict().items()
        if test is not None
    ]


def _class_metrics(label: str, figures: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    entries = [_entry(one["classes"], "name", label) for one in figures]
    return {
        "map50": [round(entry["map50"], 4) for entry in entries],
        "recall": [round(entry.get("best", {}).get("recall", 0.0), 4) for entry in entries],
    }


def _entry(entries: Sequence[dict[str, Any]], key: str, value: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry[key] == value)
