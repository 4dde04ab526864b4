"""Score ``localisation``: spread of the boxes that non-maximum suppression merged into a detection.

Many cells detect the same object. Where their boxes agree, the box is certain. The spread is the mean of
1 - IoU with the kept box over the suppressed boxes of the class, weighted by their probability. It starts
from one box as probable as the kept one at the largest distance that is suppressed, so a detection with
little support is uncertain, and the more boxes agree the less that counts. The same idea with another
statistic: Roy et al., "Deep Active Learning for Object Detection", 2018 (disagreement of overlapping boxes).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.ops import box_iou

from dsmoe_core.suppression import MAX_CANDIDATES

MIN_SUPPORT = 0.01
"""Lowest probability of a box that counts; of more than ``MAX_CANDIDATES`` the most probable ones count."""


def box_spread(
    kept: Float[Tensor, "f 4"],
    labels: Int[Tensor, " f"],
    scores: Float[Tensor, " f"],
    probabilities: Float[Tensor, "N c"],
    boxes: Float[Tensor, "N 4"],
    *,
    nms_iou: float,
) -> Float[Tensor, " f"]:
    """Compute the spread of f detections, 0 (all boxes are equal) to ``1 - nms_iou`` (no other box).

    Args:
        kept: boxes of the detections; ``labels`` and ``scores`` are their classes and probabilities.
        probabilities: of all classes in all N cells.
        boxes: of the cells, in the same unit as ``kept``.
        nms_iou: boxes with a higher IoU are suppressed.
    """
    cell, label = (probabilities >= MIN_SUPPORT).nonzero(as_tuple=True)
    support = probabilities[cell, label].float()
    top = support.topk(min(MAX_CANDIDATES, len(support))).indices
    cell, label, support = cell[top], label[top], support[top]
    iou = box_iou(kept.float(), boxes[cell].float())
    suppressed = (iou > nms_iou) & (labels[:, None] == label[None])
    support = torch.where(suppressed, support[None], 0.0)
    own = scores.float()
    total = torch.maximum(support.sum(1), own)  # contains the kept box itself, at distance 0
    spread: Tensor = ((support * (1 - iou)).sum(1) + own * (1 - nms_iou)) / total.clamp_min(MIN_SUPPORT)
    return spread.clamp(0, 1 - nms_iou)
