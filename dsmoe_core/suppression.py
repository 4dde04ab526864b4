"""Non-maximum suppression of the detections of one image."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor
from torchvision.ops import batched_nms

NMS_IOU = 0.6
MAX_CANDIDATES = 1000
"""Detections per image before non-maximum suppression."""
MAX_DETECTIONS = 100
"""Detections per image."""


class KeptBoxes(NamedTuple):
    """The f detections of an image, by descending score.

    Attributes:
        boxes: x1, y1, x2, y2.
        probabilities: of all classes.
        labels: class index.
        cells: the cell that each comes from.
    """

    boxes: Float[Tensor, "f 4"]
    probabilities: Float[Tensor, "f c"]
    labels: Int[Tensor, " f"]
    cells: Int[Tensor, " f"]


def nms_per_class(
    probabilities: Float[Tensor, "N c"], boxes: Float[Tensor, "N 4"], min_score: float
) -> KeptBoxes:
    """Non-maximum suppression within each class.

    A cell can give one detection per class, and detections of different classes do not suppress each other.
    Therefore rounding cannot decide between two equally likely classes, and adding a class to the vocabulary
    does not remove detections of the others.

    Args:
        probabilities: of c classes in N cells.
        boxes: of the cells.
        min_score: minimum probability of a detection.
    """
    cell, label = (probabilities >= min_score).nonzero(as_tuple=True)
    score = probabilities[cell, label]
    top = score.topk(min(MAX_CANDIDATES, len(score))).indices
    cell, label, score = cell[top], label[top], score[top]
    kept = batched_nms(boxes[cell], score, label, NMS_IOU)[:MAX_DETECTIONS]
    return KeptBoxes(boxes[cell[kept]], probabilities[cell[kept]], label[kept], cell[kept])
