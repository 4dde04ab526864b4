"""Metrics over several trainings from different seeds: means, intervals, and tests against another model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dsmoe_core.errors import SettingsError
from dsmoe_core.evaluation.bootstrap import mean_over_classes
from dsmoe_core.evaluation.metrics import EvaluationTables
from dsmoe_core.evaluation.operating_point import best_threshold, operating_point
from dsmoe_core.evaluation.seed_stats import mean_over_seeds
from pipelines.evaluation.report.paired import paired_tests

METRICS = ("map50", "map", "precision", "recall", "f1")
RESAMPLED = ("map50", "map")
"""In the order of ``EvaluationTables.resampled``."""


def check_pairs(models: int, baselines: int) -> None:
    """Check that each model has a baseline of the same seed.

    Raises:
        SettingsError: the numbers of models and baselines differ.
    """
    if baselines and models != baselines:
        raise SettingsError(
            f"{models} trainings are to be compared with {baselines}",
            "Give --against as often as there are models, in the same order of seeds.",
        )


def metrics_over_trainings(
    models: Sequence[EvaluationTables], baselines: Sequence[EvaluationTables], given: float
) -> dict[str, Any]:
    """Mean and 95 % interval of each metric over trainings, and paired tests if there are baselines.

    Precision, recall and F1 of each training are those at its own best-F1 threshold, or at ``given`` if it
    has none. A metric that is undefined for one training is absent.

    Args:
        given: score threshold.

    Returns:
        ``metrics``: ``values``, ``mean`` and ``ci95`` by metric. With baselines also ``against``: their
        ``metrics``, and ``tests`` over ``seeds`` (Student's paired t) and, for mAP, over ``images`` (paired
        bootstrap of the means over seeds).
    """
    values, baseline_values = (_values(side, given) for side in (models, baselines))
    result: dict[str, Any] = {"metrics": _means(values)}
    if baselines:
        tests = {
            name: _tests(name, (values, baseline_values), (models, baselines))
            for name in values
            if name in baseline_values
        }
        result["against"] = {"metrics": _means(baseline_values), "tests": tests}
    return result


def _values(trainings: Sequence[EvaluationTables], given: float) -> dict[str, list[float]]:
    """Values of all trainings by metric."""
    rows = [_metrics(tables, given) for tables in trainings]
    return {
        name: [row[name] for row in rows] for name in METRICS if rows and all(name in row for row in rows)
    }


def _metrics(tables: EvaluationTables, given: float) -> dict[str, float]:
    best, mean = best_threshold(tables.matched), tables.tables.mean()
    point = operating_point(tables.matched, tables.tables.classes, given if best is None else best).total
    shares = {"precision": point.precision, "recall": point.recall, "f1": point.f1}
    defined = {name: value for name, value in shares.items() if value is not None}
    return defined if mean is None else {"map50": mean[0], "map": mean[1], **defined}


def _means(values: dict[str, list[float]]) -> dict[str, Any]:
    return {name: {"values": row, **mean_over_seeds(row)._asdict()} for name, row in values.items()}


def _tests(
    name: str,
    values: tuple[dict[str, list[float]], dict[str, list[float]]],
    trainings: tuple[Sequence[EvaluationTables], Sequence[EvaluationTables]],
) -> dict[str, Any]:
    resampled = None
    if name in RESAMPLED:
        resampled = _resampled(name, trainings[0]), _resampled(name, trainings[1])
    tests = paired_tests(values[0][name], values[1][name], resampled)
    result = {kind: test._asdict() for kind, test in tests._asdict().items() if test is not None}
    if tests.seeds is not None and math.isinf(tests.seeds.t):  # all differences are equal; not valid JSON
        del result["seeds"]["t"]
    return result


def _resampled(name: str, trainings: Sequence[EvaluationTables]) -> list[Any]:
    return [mean_over_classes(tables.resampled)[:, RESAMPLED.index(name)] for tables in trainings]
