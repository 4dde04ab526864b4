"""Training losses of the detections (eq. 31-34). stage_losses.py has those of the stages.

Paper: ``Total = 2 alpha QFL + lambda CIoU`` with alpha = 0.45 and lambda = 0.05; "alpha_t = y alpha +
(1-y)(1-alpha)" in one place and "gamma = 2, alpha = 0.25" in another. We: cross-entropy with labels of 0
and 1, and 1 - IoU, by default, because they are more accurate on textures (docs/learning.md).
``ModelConfig.ablation`` F selects QFL and CIoU. Their default weights are others, because lambda = 0.05
leaves the boxes almost untrained next to a classification loss that is summed over all cells.
``LossWeights.paper()`` has the paper's weights.

A batch that does not fit into memory, or that several processes share, is processed in parts. Every loss is a
sum over images or cells divided by a count over the whole batch (:class:`BatchCounts`). So the losses and
gradients of the parts add up to those of the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.ops import complete_box_iou_loss

from dsmoe_core.assign import Targets, assign, flatten_levels
from dsmoe_core.config import LossWeights
from dsmoe_core.network import NetworkOutput

MIN_BOX_SIDE = 0.1
"""Pixels. CIoU widens narrower predicted boxes to this about their centre; its gradient at 0 is NaN."""


class GroundTruth(NamedTuple):
    """True boxes of one image, in pixels of the network's input."""

    boxes: Float[Tensor, "m 4"]
    labels: Int[Tensor, " m"]


class Taxonomy(NamedTuple):
    """Parent-child pairs of the class taxonomy as row numbers: leaf classes first, then inner nodes."""

    child: Int[Tensor, " p"]
    parent: Int[Tensor, " p"]

    def subset(self, leaves: Int[Tensor, " a"], classes: int, inner: int) -> Taxonomy:
        """Keep some leaf rows and all inner nodes, and renumber the rows.

        Args:
            leaves: leaf rows to keep, ascending.
            classes, inner: number of leaf rows and of inner nodes in this taxonomy.
        """
        rows = torch.cat([leaves, torch.arange(classes, classes + inner)])
        new_row = torch.full((classes + inner,), -1).scatter(0, rows, torch.arange(len(rows)))
        child, parent = new_row[self.child], new_row[self.parent]
        both = (child >= 0) & (parent >= 0)
        return Taxonomy(child[both], parent[both])


class BatchCounts(NamedTuple):
    """Denominators of the losses, counted over a whole batch."""

    images: Float[Tensor, ""]
    soft_labels: Float[Tensor, ""]
    """Sum of the soft labels."""
    box_weights: Float[Tensor, ""]
    """Sum of the weights of the box loss."""
    image_class_pairs: Float[Tensor, ""]
    """Number of pairs of an image and a class that occurs in it."""
    positives: Float[Tensor, ""]
    """Number of cells that are assigned to a box."""

    @classmethod
    def from_targets(cls, targets: Sequence[Targets], truth: Sequence[GroundTruth]) -> BatchCounts:
        """Count over these images."""
        scores = torch.stack([t.scores for t in targets])
        present = present_classes(truth, scores.shape[-1])
        box_weights = torch.cat([t.box_weights for t in targets])
        positives = scores.new_tensor(len(box_weights))
        return cls(scores.new_tensor(len(truth)), scores.sum(), box_weights.sum(), present.sum(), positives)

    @classmethod
    def add(cls, parts: Sequence[BatchCounts]) -> BatchCounts:
        """Add the counts of the parts of a batch."""
        return cls(*(torch.stack(counts).sum(0) for counts in zip(*parts, strict=True)))


def quality_focal(
    logits: Float[Tensor, "*s"], target: Float[Tensor, "*s"], *, positive_beta: float, beta: float = 2.0
) -> Float[Tensor, "*s"]:
    """Compute QFL (eq. 32) per element: ``|y - s|^beta`` times the cross-entropy with the soft label y.

    Paper: one beta, 2. We: ``positive_beta`` where y > 0. The focus is meant for the many, mostly easy cells
    without a label (Zhang et al., "VarifocalNet", 2021, also down-weight these only).
    """
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    gap = (target - logits.sigmoid()).abs()
    return torch.where(target > 0, gap.pow(positive_beta), gap.pow(beta)) * entropy


def assign_targets(
    output: NetworkOutput,
    truth: Sequence[GroundTruth],
    *,
    label_floor: float = 0.0,
    equal_boxes: bool = False,
    bce_iou: bool = False,
) -> list[Targets]:
    """Assign the cells of every image to its ground-truth boxes.

    Args:
        output, truth: predictions and ground truth of the same images.
        label_floor: as in :func:`assign`.
        equal_boxes: give every cell of a box the same weight in the box loss.
        bce_iou: use labels of 0 and 1 and equal box weights, as in rows A to E of the ablation.
    """
    flat = flatten_levels(output.levels)
    scores = flat.logits.detach().sigmoid()
    targets = [
        assign(scores[i], flat.boxes[i].detach(), flat.centres, t.boxes, t.labels, label_floor=label_floor)
        for i, t in enumerate(truth)
    ]
    if bce_iou:
        targets = [_with_hard_labels(t) for t in targets]
    return [_with_equal_boxes(t) for t in targets] if bce_iou or equal_boxes else targets


def _with_hard_labels(targets: Targets) -> Targets:
    scores = torch.zeros_like(targets.scores)
    scores[targets.positive, targets.labels] = 1.0
    return targets._replace(scores=scores)


def _with_equal_boxes(targets: Targets) -> Targets:
    return targets._replace(box_weights=torch.ones_like(targets.box_weights))


def detection_losses(
    output: NetworkOutput,
    targets: Sequence[Targets],
    counts: BatchCounts,
    weights: LossWeights,
    *,
    bce_iou: bool = False,
) -> dict[str, Float[Tensor, ""]]:
    """Compute the weighted losses ``class`` and ``box`` of a batch or a part of one (eq. 31).

    Args:
        output, targets: predictions and targets of the same images.
        counts: counts over the whole batch.
        weights: weights of the losses and the form of QFL.
        bce_iou: use cross-entropy and 1 - IoU, as in rows A to E of the ablation.
    """
    flat = flatten_levels(output.levels)
    labels = torch.stack([t.scores for t in targets])
    if bce_iou:
        class_loss = F.binary_cross_entropy_with_logits(flat.logits, labels, reduction="none")
    else:
        class_loss = quality_focal(flat.logits, labels, positive_beta=weights.positive_beta)
    label_sum = counts.soft_labels.clamp_min(1.0)
    if weights.balance_alpha is not None:
        alpha = weights.balance_alpha
        class_loss = class_loss * (labels * alpha + (1 - labels) * (1 - alpha))
    positive = torch.stack([t.positive for t in targets])
    if not positive.any():
        return {"class": weights.quality * class_loss.sum() / label_sum, "box": flat.boxes.sum() * 0.0}
    predicted, true = flat.boxes[positive], torch.cat([t.boxes for t in targets])
    box_loss = iou_loss(predicted, true) if bce_iou else ciou_loss(predicted, true)
    box_loss = box_loss * torch.cat([t.box_weights for t in targets])
    return {
        "class": weights.quality * class_loss.sum() / label_sum,
        "box": weights.box * box_loss.sum() / counts.box_weights.clamp_min(1.0),
    }


def ciou_loss(predicted: Float[Tensor, "p 4"], true: Float[Tensor, "p 4"]) -> Float[Tensor, " p"]:
    """Compute the CIoU loss (eq. 33 and 34) of every pair of boxes.

    It is finite also for a predicted box without width or height. These occur: cells of a coarse level that
    are assigned to a box of a few pixels shrink their prediction until a side is 0 in float32.
    """
    loss: Tensor = complete_box_iou_loss(widened(predicted), true, reduction="none")
    return loss


def widened(boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """Widen sides below ``MIN_BOX_SIDE`` to it, about the centre of the box."""
    grow = ((MIN_BOX_SIDE - (boxes[..., 2:] - boxes[..., :2])) / 2).clamp_min(0)
    return torch.cat([boxes[..., :2] - grow, boxes[..., 2:] + grow], dim=-1)


def iou_loss(predicted: Float[Tensor, "p 4"], true: Float[Tensor, "p 4"]) -> Float[Tensor, " p"]:
    """Compute 1 - IoU of every pair of boxes; the gradient is 0 where they do not overlap."""
    width, height = (
        (torch.minimum(predicted[:, 2:], true[:, 2:]) - torch.maximum(predicted[:, :2], true[:, :2]))
        .clamp_min(0)
        .unbind(-1)
    )
    intersection = width * height
    areas = (predicted[:, 2:] - predicted[:, :2]).prod(-1) + (true[:, 2:] - true[:, :2]).prod(-1)
    return 1 - intersection / (areas - intersection).clamp_min(1e-7)


def present_classes(truth: Sequence[GroundTruth], classes: int) -> Float[Tensor, "b c"]:
    """Mark with 1 the classes of which an image has a box."""
    rows = [
        F.one_hot(t.labels, classes).amax(0) if len(t.labels) else t.labels.new_zeros(classes) for t in truth
    ]
    return torch.stack(rows).float()
