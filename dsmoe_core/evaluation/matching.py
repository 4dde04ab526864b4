"""One-to-one matching of detections with ground-truth boxes, greedy by score, as COCO does it.

In order of descending score, each detection takes the free ground-truth box of its own class with the highest
IoU, if that is at least 0.5. A score threshold therefore does not change the matches of the detections that
stay. Ties of the score are broken by the box corners, so results do not depend on the order of detections or
boxes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from dsmoe_core.schema import Annotation, Box, Detection, ImageRecord, LabelledImage, Prediction

IOU_THRESHOLD = 0.5
UNMATCHED = -1
"""Index that stands for "no ground-truth box"."""


@dataclass(frozen=True, slots=True)
class ImageMatches:
    """The detections and ground-truth boxes of one image, matched.

    Attributes:
        detections: by descending score.
        truth: ground-truth boxes, ordered by their corners.
        scores: of the detections.
        iou: of every detection (row) with every ground-truth box (column), whatever their classes.
        truth_index: the ground-truth box matched with each detection, or UNMATCHED.
    """

    image: ImageRecord
    detections: tuple[Detection, ...]
    truth: tuple[Annotation, ...]
    scores: Float[np.ndarray, " f"]
    iou: Float[np.ndarray, "f t"]
    truth_index: Int[np.ndarray, " f"]

    @property
    def correct(self) -> Bool[np.ndarray, " f"]:
        """Which detections are matched with a ground-truth box."""
        return self.truth_index != UNMATCHED

    @property
    def truth_scores(self) -> Float[np.ndarray, " t"]:
        """Score of the detection matched with each ground-truth box; -inf for an unmatched box."""
        scores = np.full(len(self.truth), -np.inf)
        scores[self.truth_index[self.correct]] = self.scores[self.correct]
        return scores

    @property
    def same_class(self) -> Bool[np.ndarray, "f t"]:
        """Whether each detection and each ground-truth box have the same class."""
        labels = np.array([f.label for f in self.detections], dtype=object)
        truth_labels = np.array([a.label for a in self.truth], dtype=object)
        return np.asarray(labels[:, None] == truth_labels, dtype=bool)


class AnyClassMatches(NamedTuple):
    """The box that each of f detections is matched with, or UNMATCHED; a box is in at most one of the two.

    Attributes:
        same_class: boxes of the detection's class, which are matched first.
        other_class: of the remaining detections and boxes.
    """

    same_class: Int[np.ndarray, " f"]
    other_class: Int[np.ndarray, " f"]


def match_any_class(
    iou: Float[np.ndarray, "f t"], labels: Sequence[str], truth_labels: Sequence[str]
) -> AnyClassMatches:
    """Match detections with boxes of their own class, then the remaining ones with any remaining box.

    Args:
        iou: of each detection, by descending score, with each box.
        labels: of the detections.
        truth_labels: of the boxes.
    """
    same = np.array(labels, dtype=object)[:, None] == np.array(truth_labels, dtype=object)
    first = greedy_match(np.where(same, iou, 0.0))
    rest = iou.copy()
    rest[first != UNMATCHED] = 0.0
    rest[:, first[first != UNMATCHED]] = 0.0
    return AnyClassMatches(first, greedy_match(rest))


def match_images(detections: Mapping[str, Prediction], truth: Sequence[LabelledImage]) -> list[ImageMatches]:
    """Match the detections of every image of the test set. Images without a prediction have no detections.

    Args:
        detections: by image key; those of images outside the test set are ignored.
    """
    return [_match(p, detections[p.image.key].detections if p.image.key in detections else ()) for p in truth]


def _match(labelled: LabelledImage, unsorted: Sequence[Detection]) -> ImageMatches:
    detections = tuple(sorted(unsorted, key=lambda f: (-f.score, f.box.corners, f.label)))
    truth = tuple(sorted(labelled.annotations, key=lambda a: (a.box.corners, a.label)))
    iou = pairwise_iou([f.box for f in detections], [a.box for a in truth])
    scores = np.array([f.score for f in detections], dtype=np.float64)
    nothing = np.full(len(detections), UNMATCHED)
    unmatched = ImageMatches(labelled.image, detections, truth, scores, iou, nothing)
    truth_index = greedy_match(np.where(unmatched.same_class, iou, 0.0))
    return ImageMatches(labelled.image, detections, truth, scores, iou, truth_index)


def greedy_match(iou: Float[np.ndarray, "f t"], threshold: float = IOU_THRESHOLD) -> Int[np.ndarray, " f"]:
    """Give each row, in order, the free column of the highest IoU if it reaches the threshold, else
    UNMATCHED."""
    free = iou.copy()
    matches = np.full(len(iou), UNMATCHED)
    for row in range(len(iou)) if iou.size else ():
        best = int(free[row].argmax())
        if free[row, best] >= threshold:
            matches[row] = best
            free[:, best] = -1.0
    return matches


def pairwise_iou(rows: Sequence[Box], columns: Sequence[Box]) -> Float[np.ndarray, "f t"]:
    """Intersection over union of each box of ``rows`` with each box of ``columns``."""
    a = np.array([b.corners for b in rows], dtype=np.float64).reshape(-1, 1, 4)
    b = np.array([b.corners for b in columns], dtype=np.float64).reshape(1, -1, 4)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    intersection = sides.clip(0).prod(-1)
    areas = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1)
    iou: Float[np.ndarray, "f t"] = intersection / (areas - intersection)
    return iou
