"""Precision, recall and F1 at a score threshold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from dsmoe_core.evaluation.matching import ImageMatches
from dsmoe_core.schema import Box


class Size(StrEnum):
    """COCO's box sizes, by area in image pixels: below 32 x 32, below 96 x 96, and larger."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"

    @classmethod
    def of(cls, box: Box) -> Size:
        """The size of a box."""
        return cls.SMALL if box.area < 32**2 else cls.MEDIUM if box.area < 96**2 else cls.LARGE


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of true positives, false positives and false negatives (missed ground-truth boxes)."""

    true_positives: int = 0
    false_positives: int = 0
    false_negatives: int = 0

    @property
    def precision(self) -> float | None:
        """Share of the detections that are true positives; None without detections."""
        detections = self.true_positives + self.false_positives
        return self.true_positives / detections if detections else None

    @property
    def recall(self) -> float | None:
        """Share of the ground-truth boxes that are detected; None without boxes."""
        boxes = self.true_positives + self.false_negatives
        return self.true_positives / boxes if boxes else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; None without detections and boxes."""
        total = 2 * self.true_positives + self.false_positives + self.false_negatives
        return 2 * self.true_positives / total if total else None


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Counts at one score threshold.

    Attributes:
        total: over all classes; each box counts once.
        per_size: a true positive counts by the size of the ground-truth box, a false positive by its own
            size.
    """

    threshold: float
    total: Counts
    per_class: dict[str, Counts]
    per_size: dict[Size, Counts]


def operating_point(
    matched: Iterable[ImageMatches], classes: Sequence[str], threshold: float
) -> OperatingPoint:
    """Count true positives, false positives and false negatives at a score threshold."""
    total = [0, 0, 0]
    per_class = {name: [0, 0, 0] for name in classes}
    per_size = {size: [0, 0, 0] for size in Size}
    for image in matched:
        for label, size, kind in _outcomes(image, threshold):
            for row in (total, per_class[label], per_size[size]):
                row[kind] += 1
    return OperatingPoint(
        threshold,
        Counts(*total),
        {name: Counts(*row) for name, row in per_class.items()},
        {size: Counts(*row) for size, row in per_size.items()},
    )


def _outcomes(image: ImageMatches, threshold: float) -> Iterable[tuple[str, Size, int]]:
    """Class, size, and the index of the field of :class:`Counts`."""
    for detection, truth in zip(image.detections, image.truth_index, strict=True):
        if detection.score >= threshold:
            box = image.truth[truth].box if truth >= 0 else detection.box
            yield detection.label, Size.of(box), 0 if truth >= 0 else 1
    for annotation, score in zip(image.truth, image.truth_scores, strict=True):
        if score < threshold:
            yield annotation.label, Size.of(annotation.box), 2


def best_threshold(matched: Iterable[ImageMatches], label: str | None = None) -> float | None:
    """The score threshold of the highest F1; the higher one of two; None if no detection is correct.

    The threshold is chosen on the evaluated images, so its F1 is an upper bound and not an estimate for other
    images.

    Args:
        label: use this class alone; default: all classes together, each box counting once.
    """
    rows, boxes = [], 0
    for image in matched:
        boxes += sum(label in (None, annotation.label) for annotation in image.truth)
        scored = zip(image.detections, image.correct, strict=True)
        rows += [(detection.score, hit) for detection, hit in scored if label in (None, detection.label)]
    if not rows:
        return None
    score, hit = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    order = np.argsort(-score, kind="stable")
    score, hits = score[order], np.cumsum(hit[order])
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + boxes)
    ends = np.append(score[1:] != score[:-1], True)  # a threshold cannot separate equal scores
    best = int(np.where(ends, f1, -1.0).argmax())
    return float(score[best]) if hits[best] else None
