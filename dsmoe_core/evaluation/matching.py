"""Which detection is which true box: greedy, highest score first, one to one.

The same rule as COCO's: detections take their turn by score, and each takes the free true box of its own
class
that it overlaps most, where the overlap (intersection over union) is at least a half. What a score threshold
leaves is therefore matched as it was among all detections. Where scores are equal the boxes' corners decide,
so that no result depends on the order in which detections or true boxes come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from dsmoe_core.schema import Annotation, Box, Detection, ImageRecord, LabelledImage, Prediction

IOU_THRESHOLD = 0.5
UNMATCHED = -1
"""Stands for "no true box"."""


@dataclass(frozen=True, slots=True)
class ImageMatches:
    """One image whose detections and true boxes are brought together.

    Attributes:
        detections: highest score first.
        truth: in order of their corners.
        scores: of the detections.
        overlap: IoU of every detection (row) with every true box (column), whatever their classes.
        truth_index: the true box that each detection found, or NONE.
    """

    image: ImageRecord
    detections: tuple[Detection, ...]
    truth: tuple[Annotation, ...]
    scores: Float[np.ndarray, " f"]
    overlap: Float[np.ndarray, "f t"]
    truth_index: Int[np.ndarray, " f"]

    @property
    def right(self) -> Bool[np.ndarray, " f"]:
        """Which detections found a true box."""
        return self.truth_index != UNMATCHED

    @property
    def best_score(self) -> Float[np.ndarray, " t"]:
        """The score with which each true box was found; minus infinity where it was not."""
        best = np.full(len(self.truth), -np.inf)
        best[self.truth_index[self.right]] = self.scores[self.right]
        return best

    @property
    def same_class(self) -> Bool[np.ndarray, "f t"]:
        """Whether a detection and a true box are of one class."""
        found = np.array([f.label for f in self.detections], dtype=object)
        return np.asarray(found[:, None] == np.array([a.label for a in self.truth], dtype=object), dtype=bool)


def match_images(detections: Mapping[str, Prediction], truth: Sequence[LabelledImage]) -> list[ImageMatches]:
    """Every image of the test set with what was found on it; an image without detections has none.

    Args:
        detections: by image key; those of other images are left out.
    """
    return [_match(p, detections[p.image.key].detections if p.image.key in detections else ()) for p in truth]


def _match(labelled: LabelledImage, detections: Sequence[Detection]) -> ImageMatches:
    found = tuple(sorted(detections, key=lambda f: (-f.score, f.box.corners, f.label)))
    truth = tuple(sorted(labelled.annotations, key=lambda a: (a.box.corners, a.label)))
    overlap = pairwise_iou([f.box for f in found], [a.box for a in truth])
    scores = np.array([f.score for f in found], dtype=np.float64)
    unmatched = ImageMatches(labelled.image, found, truth, scores, overlap, np.full(len(found), UNMATCHED))
    truth_index = greedy_match(np.where(unmatched.same_class, overlap, 0.0))
    return ImageMatches(labelled.image, found, truth, scores, overlap, truth_index)


def greedy_match(overlap: Float[np.ndarray, "f t"], at_least: float = IOU_THRESHOLD) -> Int[np.ndarray, " f"]:
    """Rows take their turn; each takes the free column it overlaps most, if by this much, else NONE."""
    free = overlap.copy()
    taken = np.full(len(overlap), UNMATCHED)
    for row in range(len(overlap)) if overlap.size else ():
        best = int(free[row].argmax())
        if free[row, best] >= at_least:
            taken[row] = best
            free[:, best] = -1.0
    return taken


def pairwise_iou(rows: Sequence[Box], columns: Sequence[Box]) -> Float[np.ndarray, "f t"]:
    """Intersection over union of every two boxes."""
    a = np.array([b.corners for b in rows], dtype=np.float64).reshape(-1, 1, 4)
    b = np.array([b.corners for b in columns], dtype=np.float64).reshape(1, -1, 4)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    both = sides.clip(0).prod(-1)
    areas = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1)
    answer: Float[np.ndarray, "f t"] = both / (areas - both)
    return answer
