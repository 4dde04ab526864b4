"""Task-aligned assignment: decides which cells of the head learn which box (Feng et al., "TOOD", 2021).

A cell can learn a box if its centre lies in the box. Of these cells, the ``top_k`` with the highest
alignment ``t = s^a u^b`` learn it, where s is the score of the box's class and u the IoU of the predicted
box. A box too small to contain any cell's centre is assigned to the nearest cell. A cell that several boxes
select learns the one it overlaps most.

Differences from TOOD:

- Box loss. TOOD weights the box loss of a cell by its soft label, hence by its IoU. A young network's
  predictions do not overlap a box of three pixels at all, so its cell gets label 0 and box weight 0 and
  never learns. Our cells have equal weights, or the cell's alignment relative to the best cell of its box, so
  that the best cell always has weight 1 (``LossWeights.box_weighting``).
- Class label. A soft label equal to the IoU has the same problem for the class: long thin scratches keep a
  low IoU for many steps and were hardly separated from the background. So labels can start at a floor and
  rise to 1 with the IoU (``label_floor``).
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
"""a and b of the alignment."""


class FlatPredictions(NamedTuple):
    """Predictions of all levels concatenated, N cells in total."""

    logits: Float[Tensor, "b N c"]
    boxes: Float[Tensor, "b N 4"]
    """x1, y1, x2, y2 in pixels of the network's input."""
    centres: Float[Tensor, "N 2"]
    strides: Float[Tensor, " N"]


class Targets(NamedTuple):
    """Training targets of the cells of one image."""

    scores: Float[Tensor, "N c"]
    """Soft labels in [0, 1]; zero for other classes than the box's and for unassigned cells."""
    positive: Bool[Tensor, " N"]
    """Whether the cell is assigned to a box."""
    boxes: Float[Tensor, "P 4"]
    """Ground-truth boxes of the positive cells, in their order."""
    labels: Int[Tensor, " P"]
    """Classes of these boxes."""
    box_weights: Float[Tensor, " P"]
    """Weight of each positive cell in the box loss."""


def flatten_levels(levels: Sequence[LevelOutput]) -> FlatPredictions:
    """Concatenate the cells of all levels and decode their distances to boxes."""
    logits, boxes, centres, strides = [], [], [], []
    for stride, level_logits, distances in levels:
        height, width = distances.shape[-2:]
        centre = cell_centres(height, width, stride, distances.device)
        sides = distances.flatten(2).transpose(1, 2)
        boxes.append(torch.cat([centre - sides[..., :2], centre + sides[..., 2:]], dim=-1))
        logits.append(level_logits.flatten(2).transpose(1, 2))
        centres.append(centre)
        strides.append(centre.new_full((len(centre),), float(stride)))
    return FlatPredictions(torch.cat(logits, 1), torch.cat(boxes, 1), torch.cat(centres), torch.cat(strides))


def cell_centres(height: int, width: int, stride: int, device: torch.device) -> Float[Tensor, "N 2"]:
    """Centres (x, y) of the cells of a grid in image pixels, row by row."""
    y, x = ((torch.arange(size, device=device) + 0.5) * stride for size in (height, width))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 2)


@torch.no_grad()
def assign(
    scores: Float[Tensor, "N c"],
    predicted: Float[Tensor, "N 4"],
    centres: Float[Tensor, "N 2"],
    boxes: Float[Tensor, "M 4"],
    labels: Int[Tensor, " M"],
    *,
    top_k: int = 10,
    label_floor: float = 0.0,
) -> Targets:
    """Compute the targets of one image.

    Args:
        scores, predicted, centres: current class probabilities, predicted boxes, and centres of the cells.
        boxes, labels: ground truth.
        top_k: maximum number of cells per box.
        label_floor: soft label of a box's best cell at an IoU of 0; at an IoU of 1 it is 1.
    """
    target = torch.zeros_like(scores)
    if not len(boxes):
        positive = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
        return Targets(target, positive, boxes, labels, scores.new_zeros(0))
    overlap = box_iou(boxes, predicted)
    alignment = scores[:, labels].T.clamp_min(1e-6) ** SCORE_POWER * overlap**IOU_POWER
    candidates = candidate_cells(centres, boxes)
    alignment = torch.where(candidates, alignment, -1.0)
    best = alignment.topk(min(top_k, alignment.shape[1]), dim=1)
    selected = torch.zeros_like(candidates).scatter_(1, best.indices, best.values >= 0)
    owner = torch.where(selected, overlap, -1.0).max(dim=0)
    positive = owner.values >= 0
    owners = owner.indices[positive]
    own_alignment = alignment[owners, positive.nonzero()[:, 0]]
    assigned = torch.zeros_like(selected)
    assigned[owners, positive.nonzero()[:, 0]] = True
    best_alignment = torch.where(assigned, alignment, 0.0).amax(1)[owners]
    best_overlap = torch.where(assigned, overlap, 0.0).amax(1)[owners]
    box_weights = torch.where(best_alignment > 0, own_alignment / best_alignment, 1.0)
    soft_labels = box_weights * (label_floor + (1 - label_floor) * best_overlap)
    target[positive, labels[owners]] = soft_labels.to(target.dtype)
    return Targets(target, positive, boxes[owners], labels[owners], box_weights)


def candidate_cells(centres: Float[Tensor, "N 2"], boxes: Float[Tensor, "M 4"]) -> Bool[Tensor, "M N"]:
    """Mark the cells whose centre is in the box, or the nearest cell if there is none."""
    inside = ((centres > boxes[:, None, :2]) & (centres < boxes[:, None, 2:])).all(-1)
    box_centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    nearest = torch.cdist(box_centres, centres).argmin(1)
    empty = ~inside.any(1)
    inside[empty, nearest[empty]] = True
    return inside
