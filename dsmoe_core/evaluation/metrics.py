"""All metrics of one model as plain values: the content of evaluation.json.

Shares are in the range 0 to 1. Undefined values (for example, precision without detections) are absent.
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
from dsmoe_core.evaluation.confusion import BACKGROUND_ROW, MISSED_COLUMN, confusion
from dsmoe_core.evaluation.error_types import DESCRIPTIONS, error_costs
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
"""Values that JSON can hold."""


class EvaluationTables(NamedTuple):
    """Predictions of one model, matched with the ground truth; the input of all metrics.

    Attributes:
        tables: results of pycocotools.
        matched: matches of each image.
        resampled: mAP@.5 and mAP@.5:.95 of each class in each resample of the images.
    """

    tables: CocoTables
    matched: list[ImageMatches]
    resampled: Float[np.ndarray, "b c 2"]


def evaluation_tables(
    predictions: Mapping[str, Prediction],
    truth: Sequence[LabelledImage],
    classes: Sequence[str],
    counts: Int[np.ndarray, "b p"],
    progress: CountCallback,
) -> EvaluationTables:
    """Match predictions with the ground truth and resample mAP.

    Args:
        predictions: by image key.
        counts: how often each image occurs in each resample (``bootstrap.resample_counts``).
        progress: called with (resamples done, resamples in total).
    """
    tables = coco_tables(predictions, truth, classes)
    resampled = bootstrap.resampled_map(tables, counts, progress)
    return EvaluationTables(tables, match_images(predictions, truth), resampled)


def compute_metrics(
    tables: EvaluationTables, counts: Int[np.ndarray, "b p"], *, given: float, seed: int
) -> Plain:
    """All metrics of one model.

    Args:
        counts: the resamples that ``tables`` was made with.
        given: score threshold to evaluate at, in addition to the best-F1 threshold, and instead of it if no
            detection is correct.
        seed: of the split of the images for temperature scaling.
    """
    coco, matched = tables.tables, tables.matched
    best = best_threshold(matched)
    threshold = given if best is None else best
    points = {"best": operating_point(matched, coco.classes, threshold)} if best is not None else {}
    points["given"] = operating_point(matched, coco.classes, given)
    table = confusion(matched, coco.classes, threshold)
    costs = error_costs(matched, coco.classes, threshold)
    return {
        "threshold": threshold,
        "total": _total(tables, points, counts, threshold),
        "classes": [_class(tables, points, name) for name in coco.classes],
        "sizes": [_size(tables, points, size) for size in Size],
        "confusion": {
            "rows": [*coco.classes, BACKGROUND_ROW],
            "columns": [*coco.classes, MISSED_COLUMN],
            "table": table.tolist(),
        },
        "errors": [
            {"kind": str(kind), "description": DESCRIPTIONS[kind], **asdict(cost)}
            for kind, cost in costs.items()
        ],
        "calibration": _without_none(asdict(calibration(matched, seed))),
    }


def compare_map(first: EvaluationTables, second: EvaluationTables) -> Plain:
    """Paired comparison of mAP: first model ("this") minus second model ("other"), on the same resamples."""
    names = ("map50", "map")
    means = first.tables.mean(), second.tables.mean()
    if means[0] is None or means[1] is None:
        return {}
    resampled = [bootstrap.mean_over_classes(tables.resampled) for tables in (first, second)]
    result: Plain = {}
    for i, name in enumerate(names):
        compared = bootstrap.compare(means[0][i] - means[1][i], resampled[0][:, i], resampled[1][:, i])
        if compared is not None:
            result[name] = {"this": means[0][i], "other": means[1][i], **compared._asdict()}
    return result


def _total(
    tables: EvaluationTables,
    points: Mapping[str, OperatingPoint],
    counts: Int[np.ndarray, "b p"],
    threshold: float,
) -> Plain:
    resampled = bootstrap.mean_over_classes(tables.resampled)
    shares = bootstrap.resampled_precision_recall(tables.matched, threshold, counts)
    intervals = {
        name: bootstrap.interval(column)
        for name, column in zip(("precision", "recall", "f1"), shares.T, strict=True)
    }
    return {
        "images": len(tables.matched),
        "boxes": sum(len(p.truth) for p in tables.matched),
        "detections": sum(len(p.detections) for p in tables.matched),
        **_map(tables.tables.mean(), resampled),
        **_points({name: point.total for name, point in points.items()}, points),
        "ci95": _without_none(intervals),
    }


def _class(tables: EvaluationTables, points: Mapping[str, OperatingPoint], name: str) -> Plain:
    coco, matched = tables.tables, tables.matched
    index = coco.classes.index(name)
    own = best_threshold(matched, name)
    mean = coco.mean(label=name)
    result = {
        "name": name,
        "boxes": sum(a.label == name for p in matched for a in p.truth),
        "detections": sum(f.label == name for p in matched for f in p.detections),
        **_map(mean, tables.resampled[:, index]),
        **_points({key: point.per_class[name] for key, point in points.items()}, points),
    }
    if own is not None:
        counts = operating_point(matched, coco.classes, own).per_class[name]
        result["own_best"] = {"threshold": own, **_counts(counts)}
    if mean is not None:
        result["curve"] = {
            "recall": RECALLS.round(2).tolist(),
            "precision": coco.precision[0, :, index, 0].round(6).tolist(),
            "score": coco.score[:, index].round(6).tolist(),
        }
    return result


def _size(tables: EvaluationTables, points: Mapping[str, OperatingPoint], size: Size) -> Plain:
    return {
        "size": str(size),
        "boxes": sum(Size.of(a.box) is size for p in tables.matched for a in p.truth),
        **_map(tables.tables.mean(size=size), None),
        **_points({name: point.per_size[size] for name, point in points.items()}, points),
    }


def _map(mean: tuple[float, float] | None, resampled: Float[np.ndarray, "b 2"] | None) -> Plain:
    """mAP@.5 and mAP@.5:.95 with their intervals, where they are defined."""
    if mean is None:
        return {}
    result: Plain = {"map50": mean[0], "map": mean[1]}
    if resampled is not None:
        intervals = {f"{n}_ci95": bootstrap.interval(resampled[:, i]) for i, n in enumerate(("map50", "map"))}
        result |= _without_none(intervals)
    return result


def _points(counts: Mapping[str, Counts], points: Mapping[str, OperatingPoint]) -> Plain:
    return {name: {"threshold": points[name].threshold, **_counts(row)} for name, row in counts.items()}


def _counts(counts: Counts) -> Plain:
    shares = {"precision": counts.precision, "recall": counts.recall, "f1": counts.f1}
    return {**asdict(counts), **_without_none(shares)}


def _without_none(values: Mapping[str, Any]) -> Plain:
    """Remove undefined values, also from nested mappings and lists."""
    return {key: _cleaned(value) for key, value in values.items() if value is not None}


def _cleaned(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _without_none(value)
    return [_cleaned(item) for item in value] if isinstance(value, list | tuple) else value
