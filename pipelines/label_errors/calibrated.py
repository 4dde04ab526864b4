"""Method ``dsmoe``: label errors from calibrated class pairs and calibrated localisation.

Two probabilities are estimated from the given labels, out of fold (``calibration.py``), so that they mean
the same for a weak detector with low scores as for a strong one:

- of every class for an annotated box, given the detector's probabilities of all classes there. There is one
  coefficient for each pair of classes, so two classes that the detector always confuses raise no suspicion;
- that a place which the detector marks has a defect, given its probabilities.

A box is mislabelled with the probability of the most probable other class. A place without a box is missed
with the probability that it has a defect. A box is misplaced with the probability that its best place has a
defect, times the square of one minus their IoU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dsmoe_core.evaluation.calibration import logit
from dsmoe_core.evaluation.matching import IOU_THRESHOLD, greedy_match, pairwise_iou
from dsmoe_core.schema import Box, Detection, LabelledImage, Prediction
from pipelines.label_errors.calibration import Floats, Indices, out_of_fold_probabilities
from pipelines.label_errors.label_error import (
    ErrorKind,
    LabelError,
    detections_from,
    missed,
    ranked,
)

MIN_SCORE = 0.01
"""Detections with a lower score are ignored."""
PLACE_IOU = 0.4
"""IoU from which on two detections are the same place."""
NEAR_IOU = 0.1
"""IoU from which on a detection can be of an annotated box (the lower limit of TIDE)."""
OTHER_CLASS = 0.5
"""Weight of a place of another class as evidence of where a box belongs."""
_PAIR_PENALTY = 3.0
_PRECISION_PENALTY = 0.1
_EPSILON = 1e-4
"""Distance from 0 and 1 at which probabilities are clipped before the logit."""


@dataclass(frozen=True, slots=True)
class _Image:
    """The places that the detector marks in one image.

    Attributes:
        places: the best detection of each place, whatever its class.
        probabilities: (places, classes), the highest of all detections of the place.
        iou: (places, annotated boxes).
        on: annotated box that each place is matched with, or -1.
    """

    labelled: LabelledImage
    places: tuple[Detection, ...]
    probabilities: Floats
    iou: Floats
    on: Indices


def calibrated_label_errors(
    labelled: Sequence[LabelledImage], predictions: Mapping[str, Prediction], classes: Sequence[str]
) -> list[LabelError]:
    """See ``FindLabelErrors``: one candidate of each kind per box, and one per place without a box."""
    images = [_image(item, predictions[item.image.key], classes) for item in labelled]
    precision = _place_precision(images)
    posterior = _class_posterior(images, classes)
    errors: list[LabelError] = []
    for image, correct, of_boxes in zip(images, precision, posterior, strict=True):
        errors += _mislabelled(image, of_boxes, classes)
        errors += _misplaced(image, correct)
        errors += _missed(image, correct)
    return ranked(errors)


def _image(item: LabelledImage, prediction: Prediction, classes: Sequence[str]) -> _Image:
    """Group the detections by place, and match the places with the boxes without regard to classes."""
    detections = detections_from(prediction, MIN_SCORE)
    places: list[Detection] = []
    rows: list[Floats] = []
    for detection in detections:
        row = np.array([detection.probabilities.get(name, 0.0) for name in classes])
        iou = pairwise_iou([detection.box], [p.box for p in places])[0]
        if len(iou) and iou.max() >= PLACE_IOU:
            same = int(iou.argmax())
            rows[same] = np.maximum(rows[same], row)
        else:
            places.append(detection)
            rows.append(row)
    iou = pairwise_iou([p.box for p in places], [a.box for a in item.annotations])
    probabilities = np.array(rows).reshape(-1, len(classes))
    return _Image(item, tuple(places), probabilities, iou, greedy_match(iou))


def _place_precision(images: Sequence[_Image]) -> list[Floats]:
    """Probability that each place has an annotated box at IoU 0.5, by image; from its score and class."""
    features = [np.hstack([logit(i.probabilities, _EPSILON), _peak(i.probabilities)]) for i in images]
    matched = [(i.on >= 0).astype(np.intp) for i in images]
    lengths = [len(i.places) for i in images]
    probability = out_of_fold_probabilities(
        np.vstack(features),
        np.concatenate(matched),
        2,
        np.repeat(np.arange(len(images)), lengths),
        penalty=_PRECISION_PENALTY,
    )[:, 1]
    return np.split(probability, np.cumsum(lengths)[:-1])


def _peak(probabilities: Floats) -> Floats:
    """Log odds of the highest probability of each row, (n, 1)."""
    return logit(probabilities.max(axis=1, initial=0.0), _EPSILON)[:, None]


def _class_posterior(images: Sequence[_Image], classes: Sequence[str]) -> list[Floats]:
    """Probability of every class for each annotated box, (boxes, classes) by image."""
    index = {name: i for i, name in enumerate(classes)}
    features, targets, lengths = [], [], []
    for image in images:
        boxes = image.labelled.annotations
        evidence = np.zeros((len(boxes), len(classes)))
        for place, box in enumerate(image.on):
            if box >= 0:
                evidence[box] = image.probabilities[place]
        features.append(logit(evidence, _EPSILON))
        targets.append(np.array([index[a.label] for a in boxes], dtype=np.intp))
        lengths.append(len(boxes))
    posterior = out_of_fold_probabilities(
        np.vstack(features),
        np.concatenate(targets),
        len(classes),
        np.repeat(np.arange(len(images)), lengths),
        penalty=_PAIR_PENALTY,
    )
    return np.split(posterior, np.cumsum(lengths)[:-1])


def _mislabelled(image: _Image, posterior: Floats, classes: Sequence[str]) -> list[LabelError]:
    errors: list[LabelError] = []
    if len(classes) < 2:
        return errors
    for i, (annotation, row) in enumerate(zip(image.labelled.annotations, posterior, strict=True)):
        given = list(classes).index(annotation.label)
        others = np.where(np.arange(len(classes)) == given, -1.0, row)
        best = int(others.argmax())
        score = float(others[best])
        reason = (
            f"annotated as {annotation.label} ({row[given]:.0%}); the detector's probabilities there "
            f"mean {classes[best]} ({score:.0%})"
        )
        errors.append(_of_box(image, i, ErrorKind.MISLABELLED, score, None, classes[best], reason))
    return errors


def _misplaced(image: _Image, correct: Floats) -> list[LabelError]:
    """One candidate for each box, from the best place that overlaps it more than any other box."""
    errors = []
    nearest = image.iou.argmax(axis=1) if image.iou.size else np.zeros(len(image.places), dtype=np.intp)
    for i, annotation in enumerate(image.labelled.annotations):
        same = np.array([p.label == annotation.label for p in image.places], dtype=bool)
        near = (nearest == i) & (image.iou[:, i] >= NEAR_IOU)
        agreement = np.where(same, 1.0, OTHER_CLASS)
        support = np.where(near, correct * image.iou[:, i] * agreement, 0.0)
        score, suggested = 0.0, None
        reason = "no detection is near enough to compare"
        if support.any():
            best = int(support.argmax())
            iou = float(image.iou[best, i])
            score = float(correct[best] * agreement[best]) * (1 - iou) ** 2
            suggested = image.places[best].box
            reason = f"IoU {iou:.2f} with a detection that is a defect with {correct[best]:.0%}"
        errors.append(_of_box(image, i, ErrorKind.MISPLACED, score, suggested, annotation.label, reason))
    return errors


def _missed(image: _Image, correct: Floats) -> list[LabelError]:
    errors = []
    for place, detection in enumerate(image.places):
        overlap = float(image.iou[place].max(initial=0.0))
        score = float(correct[place]) * max(0.0, 1 - overlap / IOU_THRESHOLD)
        if score > 0:
            reason = (
                f"no box explains this detection; {correct[place]:.0%} of such detections lie on a defect"
            )
            errors.append(missed(image.labelled.image, detection, score, reason))
    return errors


def _of_box(
    image: _Image,
    index: int,
    kind: ErrorKind,
    score: float,
    suggested_box: Box | None,
    suggested_label: str,
    reason: str,
) -> LabelError:
    """An error of an annotated box."""
    item = image.labelled
    box, label = item.annotations[index].box, item.annotations[index].label
    return LabelError(item.image, kind, score, index, box, label, suggested_box, suggested_label, reason)
