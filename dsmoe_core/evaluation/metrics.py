"""Everything that is measured of one model's detections, as plain values: what evaluation.json holds.

Shares are of 1. A figure that is not defined (no detection, no true box) is absent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from dsmoe_core.evaluation import bootstrap
from dsmoe_core.evaluation.average_precision import RECALLS
from dsmoe_core.evaluation.calibration import calibration
from dsmoe_core.evaluation.coco_metrics import CocoTables, coco_tables
from dsmoe_core.evaluation.confusion import BACKGROUND, MISSED, confusion
from dsmoe_core.evaluation.error_types import MEANING, error_costs
from dsmoe_core.evaluation.matching import ImageMatches, match_images
from dsmoe_core.evaluation.operating_point import (
    Counts,
    OperatingPoint,
    Size,
    best_threshold,
    operating_point,
)
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import LabelledImage, Prediction

Plain = dict[str, Any]


class EvaluationTables(NamedTuple):
    """One model's detections beside the truth, and its mAP in each resample of the images."""

    tables: CocoTables
    matched: list[ImageMatches]
    resampled: Float[np.ndarray, "b c 2"]


def evaluation_tables(
    detections: Mapping[str, Prediction],
    truth: Sequence[LabelledImage],
    classes: Sequence[str],
    counts: Int[np.ndarray, "b p"],
    progress: CountCallback,
) -> EvaluationTables:
    """Match and count, once for all figures.

    Args:
        detections: by image key.
        counts: how often each image comes in each resample (``bootstrap.draws``).
        progress: called with (resamples done, resamples in all).
    """
    tables = coco_tables(detections, truth, classes)
    resampled = bootstrap.resampled_map(tables, counts, progress)
    return EvaluationTables(tables, match_images(detections, truth), resampled)


def compute_metrics(
    one: EvaluationTables, counts: Int[np.ndarray, "b p"], *, given: float, seed: int
) -> Plain:
    """All figures of one model.

    Args:
        given: score threshold to judge at, beside that of the best F1, and in its place where there is none.
        seed: of the halves for temperature scaling.
    """
    tables, matched = one.tables, one.matched
    best = best_threshold(matched)
    used = given if best is None else best
    points = {"best": operating_point(matched, tables.classes, used)} if best is not None else {}
    points["given"] = operating_point(matched, tables.classes, given)
    table = confusion(matched, tables.classes, used)
    costs = error_costs(matched, tables.classes, used)
    return {
        "threshold": used,
        "total": _total(one, points, counts, used),
        "classes": [_class(one, points, name) for name in tables.classes],
        "sizes": [_size(one, points, size) for size in Size],
        "confusion": {
            "rows": [*tables.classes, BACKGROUND],
            "columns": [*tables.classes, MISSED],
            "table": table.tolist(),
        },
        "errors": [
            {"kind": str(kind), "meaning": MEANING[kind], **asdict(cost)} for kind, cost in costs.items()
        ],
        "calibration": _without_none(asdict(calibration(matched, seed))),
    }


def compare_map(one: EvaluationTables, other: EvaluationTables) -> Plain:
    """mAP of two models on the same draws: the first one's less the second one's."""
    names = ("map50", "map")
    means = one.tables.mean(), other.tables.mean()
    if means[0] is None or means[1] is None:
        return {}
    resampled = [bootstrap.mean_over_classes(j.resampled) for j in (one, other)]
    answer: Plain = {}
    for i, name in enumerate(names):
        compared = bootstrap.compare(means[0][i] - means[1][i], resampled[0][:, i], resampled[1][:, i])
        if compared is not None:
            answer[name] = {"this": means[0][i], "other": means[1][i], **compared._asdict()}
    return answer


def _total(
    one: EvaluationTables, points: Mapping[str, OperatingPoint], counts: Int[np.ndarray, "b p"], used: float
) -> Plain:
    resampled = bootstrap.mean_over_classes(one.resampled)
    shares = bootstrap.resampled_precision_recall(one.matched, used, counts)
    boxes = sum(len(p.truth) for p in one.matched)
    ends = {
        name: bootstrap.interval(column)
        for name, column in zip(("precision", "recall", "f1"), shares.T, strict=True)
    }
    return {
        "images": len(one.matched),
        "boxes": boxes,
        "detections": sum(len(p.detections) for p in one.matched),
        **_map(one.tables.mean(), resampled),
        **_points({name: point.total for name, point in points.items()}, points),
        "ci95": _without_none(ends),
    }


def _class(one: EvaluationTables, points: Mapping[str, OperatingPoint], name: str) -> Plain:
    index = one.tables.classes.index(name)
    own = best_threshold(one.matched, name)
    scores = one.tables.score[:, index]
    mean = one.tables.mean(label=name)
    answer = {
        "name": name,
        "boxes": sum(a.label == name for p in one.matched for a in p.truth),
        "detections": sum(f.label == name for p in one.matched for f in p.detections),
        **_map(mean, one.resampled[:, index]),
        **_points({key: point.per_class[name] for key, point in points.items()}, points),
    }
    if own is not None:
        counts = operating_point(one.matched, one.tables.classes, own).per_class[name]
        answer["own_best"] = {"threshold": own, **_counts(counts)}
    if mean is not None:
        answer["curve"] = {
            "recall": RECALLS.round(2).tolist(),
            "precision": one.tables.precision[0, :, index, 0].round(6).tolist(),
            "score": scores.round(6).tolist(),
        }
    return answer


def _size(one: EvaluationTables, points: Mapping[str, OperatingPoint], size: Size) -> Plain:
    return {
        "size": str(size),
        "boxes": sum(Size.of(a.box) is size for p in one.matched for a in p.truth),
        **_map(one.tables.mean(size=size), None),
        **_points({name: point.per_size[size] for name, point in points.items()}, points),
    }


def _map(mean: tuple[float, float] | None, resampled: Float[np.ndarray, "b 2"] | None) -> Plain:
    """mAP@.5 and mAP@.5:.95 with their intervals, where they are defined."""
    if mean is None:
        return {}
    answer: Plain = {"map50": mean[0], "map": mean[1]}
    if resampled is not None:
        ends = {f"{n}_ci95": bootstrap.interval(resampled[:, i]) for i, n in enumerate(("map50", "map"))}
        answer |= _without_none(ends)
    return answer


def _points(counts: Mapping[str, Counts], points: Mapping[str, OperatingPoint]) -> Plain:
    return {name: {"threshold": points[name].threshold, **_counts(one)} for name, one in counts.items()}


def _counts(counts: Counts) -> Plain:
    shares = {"precision": counts.precision, "recall": counts.recall, "f1": counts.f1}
    return {**asdict(counts), **_without_none(shares)}


def _without_none(values: Mapping[str, Any]) -> Plain:
    """The same without what is not defined, in what is nested too."""
    return {key: _cleaned(value) for key, value in values.items() if value is not None}


def _cleaned(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _without_none(value)
    return [_cleaned(one) for one in value] if isinstance(value, list | tuple) else value
