"""Task-aligned assignment: which cells of the head learn which box (Feng et al., "TOOD", 2021).

A cell can learn a box when its centre lies in the box; of those the ``top`` with the highest alignment
``t = s^a u^b`` (s the score of the box's class, u the IoU of the predicted box) do. A box so small that it
covers no cell's centre takes the nearest cell. A cell wanted by several boxes learns the one it overlaps
most.

In TOOD the box loss of a cell is weighed by its soft label, hence by its IoU. A box of three pixels is met
by no prediction of a young network: its cell gets label 0, its box loss weight 0, and it is never learned. We
weigh the box loss by the cell's alignment against the best of its box, so that the best one always counts in
full. A soft label that is the IoU alone has the same fault for the class: long thin scratches lie badly for
long, and were hardly told from the ground by then. So labels may begin at a floor and rise to 1 with the IoU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchvision.ops import box_iou

from dsmoe_core.outputs import LevelOutput

SCORE_POWER, IOU_POWER = 0.5, 4.0


class FlatPredictions(NamedTuple):
    """All levels of the head side by side, N cells in all."""

    logits: Float[Tensor, "b N c"]
    boxes: Float[Tensor, "b N 4"]
    """x1, y1, x2, y2 in pixels of the network's input."""
    centres: Float[Tensor, "N 2"]
    strides: Float[Tensor, " N"]


class Targets(NamedTuple):
    """What the cells of one image should say."""

    scores: Float[Tensor, "N c"]
    """Soft labels in [0, 1], zero off the box's class and on unassigned cells."""
    positive: Bool[Tensor, " N"]
    boxes: Float[Tensor, "P 4"]
    """Boxes of the positive cells, in their order."""
    labels: Int[Tensor, " P"]
    """Of these boxes."""
    shares: Float[Tensor, " P"]
    """Alignment of the positive cells against the best cell of the same box."""


def flatten(levels: Sequence[LevelOutput]) -> FlatPredictions:
    """Cells of all levels with their centres, boxes decoded from the distances."""
    logits, boxes, centres, strides = [], [], [], []
    for stride, level_logits, distances in levels:
        height, width = distances.shape[-2:]
        y, x = torch.meshgrid(
            (torch.arange(height, device=distances.device) + 0.5) * stride,
            (torch.arange(width, device=distances.device) + 0.5) * stride,
            indexing="ij",
        )
        centre = torch.stack([x, y], dim=-1).reshape(-1, 2)
        sides = distances.flatten(2).transpose(1, 2)
        boxes.append(torch.cat([centre - sides[..., :2], centre + sides[..., 2:]], dim=-1))
        logits.append(level_logits.flatten(2).transpose(1, 2))
        centres.append(centre)
        strides.append(centre.new_full((len(centre),), float(stride)))
    return FlatPredictions(torch.cat(logits, 1), torch.cat(boxes, 1), torch.cat(centres), torch.cat(strides))


@torch.no_grad()
def assign(
    scores: Float[Tensor, "N c"],
    predicted: Float[Tensor, "N 4"],
    centres: Float[Tensor, "N 2"],
    boxes: Float[Tensor, "M 4"],
    labels: Int[Tensor, " M"],
    *,
    top: int = 10,
    floor: float = 0.0,
) -> Targets:
    """Targets of one image, from the detector's present probabilities and boxes and the true ones.

    Args:
        floor: soft label of a box's best cell where its IoU is 0; at an IoU of 1 it is 1.
    """
    target = torch.zeros_like(scores)
    if not len(boxes):
        nowhere = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
        return Targets(target, nowhere, boxes, labels, scores.new_zeros(0))
    overlap = box_iou(boxes, predicted)
    alignment = scores[:, labels].T.clamp_min(1e-6) ** SCORE_POWER * overlap**IOU_POWER
    allowed = _may_learn(centres, boxes)
    alignment = torch.where(allowed, alignment, -1.0)
    best = alignment.topk(min(top, alignment.shape[1]), dim=1)
    chosen = torch.zeros_like(allowed).scatter_(1, best.indices, best.values >= 0)
    owner = torch.where(chosen, overlap, -1.0).max(dim=0)
    positive = owner.values >= 0
    owners = owner.indices[positive]
    own = alignment[owners, positive.nonzero()[:, 0]]
    owned = torch.zeros_like(chosen)
    owned[owners, positive.nonzero()[:, 0]] = True
    peak = torch.where(owned, alignment, 0.0).amax(1)[owners]
    reach = torch.where(owned, overlap, 0.0).amax(1)[owners]
    shares = torch.where(peak > 0, own / peak, 1.0)
    target[positive, labels[owners]] = (shares * (floor + (1 - floor) * reach)).to(target.dtype)
    return Targets(target, positive, boxes[owners], labels[owners], shares)


def _may_learn(centres: Float[Tensor, "N 2"], boxes: Float[Tensor, "M 4"]) -> Bool[Tensor, "M N"]:
    """Cells whose centre is in the box, or the nearest one where there is none."""
    inside = ((centres > boxes[:, None, :2]) & (centres < boxes[:, None, 2:])).all(-1)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    nearest = torch.cdist(middle, centres).argmin(1)
    alone = ~inside.any(1)
    inside[alone, nearest[alone]] = True
    return inside
