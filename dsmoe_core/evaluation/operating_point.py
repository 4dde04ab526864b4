"""Precision, recall and F1 of what a score threshold lets through."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from dsmoe_core.evaluation.matching import ImageMatches
from dsmoe_core.schema import Box


class Size(StrEnum):
    """COCO's sizes, by the area of a box in pixels of the image: below 32 x 32, below 96 x 96, above."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"

    @classmethod
    def of(cls, box: Box) -> Size:
        """The size of a box."""
        return cls.SMALL if box.area < 32**2 else cls.MEDIUM if box.area < 96**2 else cls.LARGE


@dataclass(frozen=True, slots=True)
class Counts:
    """How many detections are right, how many false, and how many true boxes are missed."""

    right: int = 0
    false: int = 0
    missed: int = 0

    @property
    def precision(self) -> float | None:
        """Share of the detections that are right; None where nothing was found."""
        return self.right / (self.right + self.false) if self.right + self.false else None

    @property
    def recall(self) -> float | None:
        """Share of the true boxes that were found; None where there is none."""
        return self.right / (self.right + self.missed) if self.right + self.missed else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of the two; None where nothing was found and nothing is there."""
        every = 2 * self.right + self.false + self.missed
        return 2 * self.right / every if every else None


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What detections from a score up are worth.

    Attributes:
        total: over all classes, every box counting once.
        per_size: a right detection counts to the size of the true box, a false one to its own.
    """

    threshold: float
    total: Counts
    per_class: dict[str, Counts]
    per_size: dict[Size, Counts]


def operating_point(
    matched: Iterable[ImageMatches], classes: Sequence[str], threshold: float
) -> OperatingPoint:
    """Count what is right, false and missed among detections from this score up."""
    total = [0, 0, 0]
    per_class = {name: [0, 0, 0] for name in classes}
    per_size = {size: [0, 0, 0] for size in Size}
    for image in matched:
        for label, size, kind in _tallies(image, threshold):
            for row in (total, per_class[label], per_size[size]):
                row[kind] += 1
    return OperatingPoint(
        threshold,
        Counts(*total),
        {name: Counts(*row) for name, row in per_class.items()},
        {size: Counts(*row) for size, row in per_size.items()},
    )


def _tallies(image: ImageMatches, threshold: float) -> Iterable[tuple[str, Size, int]]:
    """Class, size, and 0, 1 or 2 for right, false or missed."""
    for detection, truth in zip(image.detections, image.truth_index, strict=True):
        if detection.score >= threshold:
            box = image.truth[truth].box if truth >= 0 else detection.box
            yield detection.label, Size.of(box), 0 if truth >= 0 else 1
    for annotation, score in zip(image.truth, image.best_score, strict=True):
        if score < threshold:
            yield annotation.label, Size.of(annotation.box), 2


def best_threshold(matched: Iterable[ImageMatches], label: str | None = None) -> float | None:
    """The score from which on F1 is highest, the higher one of two; None where nothing found is right.

    It is chosen on the images that are judged, so its F1 is the best that a threshold could have given
    here, not a promise for others.

    Args:
        label: of this class alone; None: of all together, every box counting once.
    """
    rows, boxes = [], 0
    for image in matched:
        boxes += sum(label in (None, annotation.label) for annotation in image.truth)
        scored = zip(image.detections, image.right, strict=True)
        rows += [(detection.score, right) for detection, right in scored if label in (None, detection.label)]
    if not rows:
        return None
    score, hit = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    order = np.argsort(-score, kind="stable")
    score, hits = score[order], np.cumsum(hit[order])
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + boxes)
    ends = np.append(score[1:] != score[:-1], True)  # equal scores go together
    best = int(np.where(ends, f1, -1.0).argmax())
    return float(score[best]) if hits[best] else None
