"""Annotation effort with pre-annotations at chosen thresholds and at a fixed score (effort.json).

The thresholds are chosen on one half of the images and used on the other half, then the halves change places.
The corrections are those of the simulated annotator; the seconds per correction are assumed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from annotate.studio.convert import pre_annotations as regions_of
from annotate.studio.harvest import outcomes
from annotate.studio.simulate import correct_regions
from dsmoe_core.evaluation.bootstrap import interval, resample_counts
from dsmoe_core.schema import LabelledImage, Outcome, Prediction
from pipelines.detectors.operating_points import choose_operating_points
from pipelines.detectors.pre_annotations import UNMEASURED_SCORE, pre_annotations
from pipelines.settings.rounds import RoundSettings
from pipelines.workspace.annotation_time import CorrectionSeconds
from pipelines.workspace.operating_points import OperatingPoints

ASSUMPTIONS = {
    "default": CorrectionSeconds(),
    "fast drawing": CorrectionSeconds(deleted=2.5, added=7.0),
}
"""Seconds per correction that the effort is computed with."""
Counts = Counter[Outcome]
Plain = dict[str, Any]
GRID = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Fixed scores among which the best one is looked up afterwards."""


def measure_effort(
    predictions: Mapping[str, Prediction],
    truth: Sequence[LabelledImage],
    seconds: CorrectionSeconds,
    *,
    seed: int,
    resamples: int = 1000,
) -> Plain:
    """Corrections and seconds per image with chosen thresholds, fixed scores and no pre-annotations.

    Args:
        predictions: by image key, with detections of low scores.
        truth: at least two images.
        seconds: per correction.
        seed: of the halves and of the resamples.
    """
    order = np.random.default_rng(seed).permutation(len(truth))
    halves = [[truth[i] for i in half] for half in (order[::2], order[1::2])]
    points = [
        choose_operating_points(
            [predictions[p.image.key] for p in half if p.image.key in predictions], half, seconds, "half"
        )
        for half in halves
    ]
    images = halves[1] + halves[0]
    fitted = [points[0]] * len(halves[1]) + [points[1]] * len(halves[0])
    fixed = [_corrected(predictions, image, UNMEASURED_SCORE, None) for image in images]
    chosen = [_corrected(predictions, image, None, p) for image, p in zip(images, fitted, strict=True)]
    on_grid = {score: [_corrected(predictions, image, score, None) for image in images] for score in GRID}
    best = min(GRID, key=lambda score: _seconds_per_image(on_grid[score], seconds))
    none = [_corrected({}, image, None, None) for image in images]
    first = slice(0, len(halves[1]))
    return {
        "seconds_per_correction": seconds.model_dump(exclude={"images"}),
        "min_probability": [round(p.min_probability, 4) for p in points],
        "thresholds": [{**p.thresholds, "other classes": p.other_classes} for p in points],
        "rows": {
            "chosen": _row(chosen, seconds),
            "fixed": {"score": UNMEASURED_SCORE, **_row(fixed, seconds)},
            "best fixed, known afterwards": {"score": best, **_row(on_grid[best], seconds)},
            "no pre-annotations": _row(none, seconds),
        },
        "first_direction": {"chosen": _row(chosen[first], seconds), "fixed": _row(fixed[first], seconds)},
        "chosen_minus_fixed": _difference(chosen, fixed, seconds, resamples, seed),
        "calibration_error": [
            _calibration_error(p, predictions, half) for p, half in zip(points, reversed(halves), strict=True)
        ],
    }


def _corrected(
    predictions: Mapping[str, Prediction],
    image: LabelledImage,
    score: float | None,
    points: OperatingPoints | None,
) -> Counts:
    """Outcomes of one image that the simulated annotator corrects."""
    prediction = predictions.get(image.image.key)
    settings = RoundSettings(pre_annotation_score=score)
    shown = [] if prediction is None else regions_of(pre_annotations(prediction, settings, points))
    regions = [region for region, _ in shown]
    return Counter(outcomes(regions, correct_regions(regions, image.annotations)))


def _row(images: Sequence[Counts], seconds: CorrectionSeconds) -> Plain:
    """Shares of the shown boxes, share of added boxes, and seconds."""
    total: Counts = sum(images, Counter())
    shown = sum(total[o] for o in Outcome if o is not Outcome.ADDED)
    final = shown - total[Outcome.DELETED] + total[Outcome.ADDED]
    kinds = (Outcome.ACCEPTED, Outcome.MOVED, Outcome.RELABELLED, Outcome.DELETED)
    return {
        "shown": shown,
        **{str(kind): _share(total[kind], shown) for kind in kinds},
        "added": _share(total[Outcome.ADDED], final),
        "seconds_per_image": round(_seconds_per_image(images, seconds), 2),
    }


def _share(count: int, total: int) -> float | None:
    return round(count / total, 4) if total else None


def _seconds_per_image(images: Sequence[Counts], seconds: CorrectionSeconds) -> float:
    return sum(map(seconds.total, images)) / len(images)


def _difference(
    first: Sequence[Counts], second: Sequence[Counts], seconds: CorrectionSeconds, resamples: int, seed: int
) -> Plain:
    """Seconds per image, first minus second, with a 95 % bootstrap interval over the images."""
    delta = np.array([seconds.total(a) - seconds.total(b) for a, b in zip(first, second, strict=True)])
    means = resample_counts(len(delta), resamples, seed) @ delta / len(delta)
    ends = interval(means)
    return {"seconds": round(float(delta.mean()), 3), "ci95": [round(v, 3) for v in ends] if ends else None}


def _calibration_error(
    points: OperatingPoints, predictions: Mapping[str, Prediction], images: Sequence[LabelledImage]
) -> Plain:
    """ECE of the probability of being correct on the other half, of raw scores and of calibrated ones."""
    from dsmoe_core.evaluation.calibration import expected_calibration_error
    from dsmoe_core.evaluation.matching import match_images
    from dsmoe_core.uncertainty import filter_by_score

    kept = {key: filter_by_score(value) for key, value in predictions.items()}
    rows = [
        (d.label, d.score, bool(correct))
        for image in match_images(kept, images)
        for d, correct in zip(image.detections, image.correct, strict=True)
    ]
    events = np.array([event for _, _, event in rows], dtype=bool)

    def error(probability: Callable[[str, float], float]) -> float | None:
        values = np.array([probability(label, score) for label, score, _ in rows], dtype=np.float64)
        found = expected_calibration_error(values, events)
        return None if found is None else round(found, 4)

    return {"scores": error(lambda _, score: score), "calibrated": error(points.correct.probability)}
