"""The confusion margin: probability of the true class minus the highest probability of another class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsmoe_core.evaluation.best_match import best_matches_from_iou
from dsmoe_core.evaluation.matching import ImageMatches

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class BoxProbabilities(NamedTuple):
    """Class probabilities on each of t ground-truth boxes, for c classes and p images.

    Attributes:
        image, label: index of the image and of the class of each box, (t,).
        probabilities: of each class, (t, c), from the detection of the highest score with IoU >= 0.5,
            whatever its class; all 0 for a box without such a detection.
        images: p.
    """

    image: Ints
    label: Ints
    probabilities: Floats
    images: int


def box_probabilities(matched: Sequence[ImageMatches], classes: Sequence[str]) -> BoxProbabilities:
    """Find the best detection on each ground-truth box."""
    index = {name: i for i, name in enumerate(classes)}
    images, labels, rows = [], [], []
    for number, image in enumerate(matched):
        best = best_matches_from_iou(image.detections, image.iou)
        for annotation, detection in zip(image.truth, best, strict=True):
            probabilities = detection.probabilities if detection else {}
            images.append(number)
            labels.append(index[annotation.label])
            rows.append([probabilities.get(name, 0.0) for name in classes])
    table = np.array(rows, dtype=np.float64).reshape(-1, len(classes))
    return BoxProbabilities(
        np.array(images, dtype=np.int64), np.array(labels, dtype=np.int64), table, len(matched)
    )


def margins(boxes: BoxProbabilities) -> Floats:
    """Confusion margin of each box, -1 to 1, (t,).

    Positive if the box is detected as its true class, negative if as another one. A box without detection has
    margin 0, the limit of ever lower scores; so the margin covers the same boxes for every class book. With a
    single class the margin is the probability itself.
    """
    rows = np.arange(len(boxes.label))
    others = boxes.probabilities.copy()
    own = others[rows, boxes.label]
    others[rows, boxes.label] = 0.0
    margin: Floats = own - others.max(axis=1, initial=0.0)
    return margin


def mean_margins(boxes: BoxProbabilities, counts: Ints) -> tuple[Floats, Floats]:
    """Mean margin of each class on the original images, (c,), and in each of b resamples, (b, c).

    NaN for a class without ground-truth boxes.

    Args:
        counts: how often each image occurs in each resample (``bootstrap.resample_counts``), (b, p).
    """
    sums, totals = (np.zeros((boxes.images, boxes.probabilities.shape[1])) for _ in range(2))
    np.add.at(sums, (boxes.image, boxes.label), margins(boxes))
    np.add.at(totals, (boxes.image, boxes.label), 1.0)
    once = np.ones((1, boxes.images))
    return _ratio(once @ sums, once @ totals)[0], _ratio(counts @ sums, counts @ totals)


def most_confused_classes(boxes: BoxProbabilities) -> list[int | None]:
    """For each class, the other class with the highest mean probability on its boxes.

    None if there is no detection on any of its boxes, or no other class.
    """
    result: list[int | None] = []
    for label in range(boxes.probabilities.shape[1]):
        sums = boxes.probabilities[boxes.label == label].sum(axis=0)
        sums[label] = 0.0
        result.append(int(sums.argmax()) if sums.max(initial=0.0) > 0 else None)
    return result


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    ratio: Floats = np.where(denominator > 0, numerator / np.maximum(denominator, 1.0), np.nan)
    return ratio
