"""Several trainings of one thing: how far their figures wander, and whether two things really differ."""

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

FIGURES = ("map50", "map", "precision", "recall", "f1")
RESAMPLED = ("map50", "map")
"""In the order of ``EvaluationTables.resampled``."""


def check_pairs(these: int, others: int) -> None:
    """Two things are compared seed by seed.

    Raises:
        SettingsError: there are not as many of one as of the other.
    """
    if others and these != others:
        raise SettingsError(
            f"{these} trainings are to be compared with {others}",
            "Give --against as often as there are models, in the same order of seeds.",
        )


def metrics_over_trainings(
    these: Sequence[EvaluationTables], others: Sequence[EvaluationTables], given: float
) -> dict[str, Any]:
    """Mean and 95 % interval of each figure over trainings, and the paired tests where others are given.

    Precision, recall and F1 are each training's at its own best threshold, or at ``given`` where it has none.
    A figure that one training lacks is absent.

    Returns:
        ``figures``: by name ``values``, ``mean``, ``ci95``. With others, ``against``: the same of them and
        their ``tests``, over ``seeds`` (Student's paired t) and, for mAP, over ``images`` (paired bootstrap
        of the means over seeds).
    """
    ours, theirs = (_values(side, given) for side in (these, others))
    answer: dict[str, Any] = {"figures": _figures(ours)}
    if others:
        tests = {name: _tests(name, ours, theirs, these, others) for name in ours if name in theirs}
        answer["against"] = {"figures": _figures(theirs), "tests": tests}
    return answer


def _values(side: Sequence[EvaluationTables], given: float) -> dict[str, list[float]]:
    each = [_of(one, given) for one in side]
    return {name: [e[name] for e in each] for name in FIGURES if each and all(name in e for e in each)}


def _of(one: EvaluationTables, given: float) -> dict[str, float]:
    best, mean = best_threshold(one.matched), one.tables.mean()
    point = operating_point(one.matched, one.tables.classes, given if best is None else best).total
    shares = {"precision": point.precision, "recall": point.recall, "f1": point.f1}
    found = {name: value for name, value in shares.items() if value is not None}
    return found if mean is None else {"map50": mean[0], "map": mean[1], **found}


def _figures(values: dict[str, list[float]]) -> dict[str, Any]:
    return {name: {"values": row, **mean_over_seeds(row)._asdict()} for name, row in values.items()}


def _tests(
    name: str,
    ours: dict[str, list[float]],
    theirs: dict[str, list[float]],
    these: Sequence[EvaluationTables],
    others: Sequence[EvaluationTables],
) -> dict[str, Any]:
    resampled = (_resampled(name, these), _resampled(name, others)) if name in RESAMPLED else None
    over = paired_tests(ours[name], theirs[name], resampled)
    answer = {kind: test._asdict() for kind, test in over._asdict().items() if test is not None}
    if over.seeds is not None and math.isinf(over.seeds.t):  # where all differences are equal; JSON has none
        del answer["seeds"]["t"]
    return answer


def _resampled(name: str, side: Sequence[EvaluationTables]) -> list[Any]:
    return [mean_over_classes(one.resampled)[:, RESAMPLED.index(name)] for one in side]
