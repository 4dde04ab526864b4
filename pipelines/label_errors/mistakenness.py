"""Method ``mistakenness``: the formulas of FiftyOne's mistakenness on our matches.

The matching is FiftyOne's: any class, IoU 0.5, greedy by score. FiftyOne calls a detection missed if its
score exceeds 0.95; here all unmatched detections are ranked by score, which has that list as its beginning.
Computing it through FiftyOne would need its database for the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dsmoe_core.evaluation.matching import IOU_THRESHOLD, greedy_match, pairwise_iou
from dsmoe_core.schema import LabelledImage, Prediction
from pipelines.label_errors.label_error import (
    ErrorKind,
    LabelError,
    detections_from,
    missed,
    ranked,
)

MIN_SCORE = 0.05
"""Detections with a lower score are ignored."""


def mistakenness_of_class(score: float, *, same_class: bool) -> float:
    """(1 + s) / 2 for a detection of another class with score s, (1 - s) / 2 for one of the same class."""
    return (1 - score if same_class else 1 + score) / 2


def mistakenness_of_location(score: float, iou: float) -> float:
    """From 0 to 1; 0.5 at an IoU half way between 0.5 and 1, and for a score of 0.

    Args:
        iou: with the matched detection, 0.5 to 1.
    """
    error = (1 - iou) / (1 - IOU_THRESHOLD)
    return (score * (2 * error - 1) + 1) / 2


def mistakenness_label_errors(
    labelled: Sequence[LabelledImage], predictions: Mapping[str, Prediction], classes: Sequence[str]
) -> list[LabelError]:
    """See ``FindLabelErrors``; boxes without a matched detection get 0, as FiftyOne gives them no value."""
    del classes
    return ranked([error for item in labelled for error in _of_image(item, predictions[item.image.key])])


def _of_image(item: LabelledImage, prediction: Prediction) -> list[LabelError]:
    detections = detections_from(prediction, MIN_SCORE)
    iou = pairwise_iou([d.box for d in detections], [a.box for a in item.annotations])
    matches = greedy_match(iou)
    errors = [
        missed(item.image, d, d.score, f"unmatched detection with score {d.score:.2f}")
        for d, match in zip(detections, matches, strict=True)
        if match < 0
    ]
    of_box = {int(match): row for row, match in enumerate(matches) if match >= 0}
    for i, annotation in enumerate(item.annotations):
        row = of_box.get(i)
        scores = {ErrorKind.MISLABELLED: 0.0, ErrorKind.MISPLACED: 0.0}
        detection = None if row is None else detections[row]
        if detection is not None and row is not None:
            same = detection.label == annotation.label
            scores[ErrorKind.MISLABELLED] = mistakenness_of_class(detection.score, same_class=same)
            scores[ErrorKind.MISPLACED] = mistakenness_of_location(detection.score, float(iou[row, i]))
        for kind, score in scores.items():
            box, label = (detection.box, detection.label) if detection else (None, None)
            reason = f"mistakenness {score:.2f}"
            errors.append(
                LabelError(item.image, kind, score, i, annotation.box, annotation.label, box, label, reason)
            )
    return errors
