"""Chooses score thresholds for pre-annotations so that the expected correction time is least.

Showing a detection costs the time to check it and, if it is wrong, to delete it. Not showing it costs the
time to draw its box, if there is one. With the probability p that annotators keep it, the expected seconds
are::

    shown:      p * t_kept + (1 - p) * t_deleted
    not shown:  p * t_added

so it is shown from p = t_deleted / (t_deleted + t_added - t_kept) on. The calibrated curve of its class turns
p into a score. t_kept is the mean over accepted, moved and relabelled boxes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from annotate.studio.simulate import EDIT_IOU
from dsmoe_core.cross_class_nms import suppress_across_classes
from dsmoe_core.evaluation.matching import match_images, pairwise_iou
from dsmoe_core.evaluation.probability_calibration import Calibrator, fit_by_class, fit_detections
from dsmoe_core.schema import Annotation, Detection, LabelledImage, Outcome, Prediction
from dsmoe_core.uncertainty import MIN_SCORE, filter_by_score
from pipelines.workspace.annotation_time import CorrectionSeconds
from pipelines.workspace.operating_points import OperatingPoints

ACCEPT_IOU = 0.75
"""IoU from which on an annotator leaves a box as it is."""
_BISECTIONS = 30


def choose_operating_points(
    predictions: Iterable[Prediction],
    truth: Sequence[LabelledImage],
    seconds: CorrectionSeconds,
    evaluated_on: str,
) -> OperatingPoints:
    """The thresholds of the least expected correction time on labelled images.

    Args:
        predictions: of images that the model was not trained on, with detections from ``MIN_SCORE`` on.
        truth: their ground truth; images without a prediction count as images without detections.
        seconds: per correction.
        evaluated_on: name of the labelled images and the class book, ``DATASET+BOOK``.
    """
    shown = {p.key: _candidates(p) for p in predictions}
    rows: dict[str, list[tuple[float, bool]]] = {}
    counts: Counter[Outcome] = Counter()
    for labelled in truth:
        detections = shown[labelled.image.key].detections if labelled.image.key in shown else ()
        for detection, outcome in zip(
            detections, detection_outcomes(detections, labelled.annotations), strict=True
        ):
            rows.setdefault(detection.label, []).append((detection.score, outcome is not Outcome.DELETED))
            counts[outcome] += 1
    kept = fit_by_class(rows)
    needed = _min_probability(counts, seconds)
    return OperatingPoints(
        evaluated_on=evaluated_on,
        images=len(truth),
        seconds=seconds,
        min_probability=needed,
        thresholds={label: lowest_score(curve, needed) for label, curve in kept.per_class.items()},
        other_classes=lowest_score(kept.pooled, needed),
        correct=fit_detections(match_images(shown, truth)),
        kept=kept,
    )


def detection_outcomes(detections: Sequence[Detection], truth: Sequence[Annotation]) -> list[Outcome]:
    """What an annotator does with each detection: accept, move, relabel or delete it.

    In order of descending score each detection takes a free ground-truth box, so a score threshold does not
    change the outcome of the detections that stay. The IoU limits are those of the simulated annotator.
    """
    order = sorted(range(len(detections)), key=lambda i: -detections[i].score)
    iou = pairwise_iou([d.box for d in detections], [a.box for a in truth])
    free, outcomes = set(range(len(truth))), [Outcome.DELETED] * len(detections)
    for row in order:
        same = {c: float(iou[row, c]) for c in free if truth[c].label == detections[row].label}
        other = {c: float(iou[row, c]) for c in free if truth[c].label != detections[row].label}
        for candidates, limit, outcome in (
            (same, ACCEPT_IOU, Outcome.ACCEPTED),
            (same, EDIT_IOU, Outcome.MOVED),
            (other, EDIT_IOU, Outcome.RELABELLED),
        ):
            best = max(candidates, key=candidates.__getitem__, default=None)
            if best is not None and candidates[best] >= limit:
                outcomes[row] = outcome
                free.remove(best)
                break
    return outcomes


def lowest_score(curve: Calibrator, probability: float) -> float:
    """The lowest score, from ``MIN_SCORE`` on, with at least this probability; 1 if there is none."""
    low, high = MIN_SCORE, 1.0
    if curve.probability(low) >= probability:
        return low
    if curve.probability(high) < probability:
        return high
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if curve.probability(middle) >= probability else (middle, high)
    return round(high, 4)


def _candidates(prediction: Prediction) -> Prediction:
    """The detections that annotators could be shown."""
    detections = suppress_across_classes(filter_by_score(prediction).detections)
    return replace(prediction, detections=tuple(detections))


def _min_probability(counts: Mapping[Outcome, int], seconds: CorrectionSeconds) -> float:
    """Probability of being kept from which on a detection is shown; 1 if drawing a box is never slower."""
    kinds = (Outcome.ACCEPTED, Outcome.MOVED, Outcome.RELABELLED)
    weights = {kind: counts.get(kind, 0) + 1 for kind in kinds}
    kept = sum(seconds.of(kind) * weight for kind, weight in weights.items()) / sum(weights.values())
    saved, lost = seconds.added - kept, seconds.deleted
    return 1.0 if saved <= 0 else lost / (lost + saved)
