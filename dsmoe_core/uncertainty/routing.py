"""Scores ``routing`` and ``routing_entropy``: whether a detection depends on the choice of the experts.

``routing`` runs stages 8 and 10 and the head once more, with the experts that the router ranked next
(``runtimes/next_experts.py``), and compares the two detections of each cell. An exported graph has one fixed
selection, so there ``routing_entropy``, the entropy of the router at the box's centre, is the only score.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dsmoe_core.box_centres import centre_cells
from dsmoe_core.runtimes.protocol import NextExperts, RouterOutput


def router_entropy(
    routing: RouterOutput, index: int, boxes: Float[Tensor, "f 4"], side: int
) -> Float[Tensor, " f"]:
    """Entropy of the router at the centre of each box, divided by that of the uniform distribution, 0 to 1.

    Args:
        index: of the image in the batch.
        boxes: in pixels of the letterboxed image.
        side: of the letterboxed image in pixels.
    """
    probabilities = routing.probabilities[index].float()
    row, column = centre_cells(boxes.to(probabilities.device), probabilities, side)
    p = probabilities[:, row, column]
    entropy: Tensor = -(p * p.clamp_min(1e-12).log()).sum(0) / max(math.log(len(p)), 1e-12)
    return entropy


def expert_disagreement(
    following: NextExperts,
    index: int,
    cells: Int[Tensor, " f"],
    labels: Int[Tensor, " f"],
    boxes: Float[Tensor, "f 4"],
    scores: Float[Tensor, " f"],
) -> Float[Tensor, " f"]:
    """How much each detection changes with the next-best experts, 0 to 1.

    It is 1 minus the product of the IoU of the two boxes and of 1 minus the difference of the probabilities.

    Args:
        index: of the image in the batch.
        cells, labels, boxes, scores: cell, class, box and probability of each detection.
    """
    other_boxes = following.boxes[index][cells].float()
    other_scores = following.logits[index][cells, labels].sigmoid().float()
    agreement = paired_iou(boxes.float(), other_boxes) * (1 - (scores.float() - other_scores).abs())
    return 1 - agreement


def paired_iou(first: Float[Tensor, "f 4"], second: Float[Tensor, "f 4"]) -> Float[Tensor, " f"]:
    """IoU of each box of the first list with the box of the same row of the second."""
    low = torch.maximum(first[:, :2], second[:, :2])
    high = torch.minimum(first[:, 2:], second[:, 2:])
    common = (high - low).clamp_min(0).prod(1)
    areas = [(b[:, 2:] - b[:, :2]).clamp_min(0).prod(1) for b in (first, second)]
    iou: Tensor = common / (areas[0] + areas[1] - common).clamp_min(1e-9)
    return iou
