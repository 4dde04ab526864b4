"""What training makes small: QFL and CIoU (eq. 31-34), and the auxiliary losses of the stages (eq. 12, 13,
27).

Paper: ``Total = 2 alpha QFL + lambda CIoU`` with alpha = 0.45 and lambda = 0.05; "alpha_t = y alpha +
(1-y)(1-alpha)" in one place and "gamma = 2, alpha = 0.25" in another. We: the form is kept, the default
weights are ours, because lambda = 0.05 leaves the boxes almost untrained next to a classification loss that
is summed over all cells; ``LossWeights.paper()`` has theirs.

A batch that does not fit into memory, or that several processes share, is learned in parts. Every loss is a
sum over images or cells divided by something that is counted over the batch, so each part divides
by the count of the whole (:class:`BatchCounts`); the losses and gradients of the parts then add up to the
whole's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.ops import complete_box_iou_loss

from dsmoe_core import poincare
from dsmoe_core.assign import Targets, assign, flatten
from dsmoe_core.config import LossWeights
from dsmoe_core.network import ClassEncoding, NetworkOutput
from dsmoe_core.outputs import AlignmentOutput

CONE = math.radians(15)
MARGIN = 0.1
NARROW = 0.1
"""Pixels. In CIoU a narrower predicted box is so wide, about the same middle: its slope at 0 is no number."""


class GroundTruth(NamedTuple):
    """The true boxes of one image, in pixels of the network's input."""

    boxes: Float[Tensor, "m 4"]
    labels: Int[Tensor, " m"]


class Taxonomy(NamedTuple):
    """The taxonomy by rows: ``child`` has ``parent``; leaf rows first, then inner nodes."""

    child: Int[Tensor, " p"]
    parent: Int[Tensor, " p"]

    def subset(self, asked: Int[Tensor, " a"], classes: int, inner: int) -> Taxonomy:
        """Of these leaf rows, out of so many classes, and all so many inner nodes; rows are counted anew."""
        kept = torch.cat([asked, torch.arange(classes, classes + inner)])
        row = torch.full((classes + inner,), -1).scatter(0, kept, torch.arange(len(kept)))
        child, parent = row[self.child], row[self.parent]
        both = (child >= 0) & (parent >= 0)
        return Taxonomy(child[both], parent[both])


class BatchCounts(NamedTuple):
    """What is counted over a whole batch, and divides the losses of each part of it."""

    images: Float[Tensor, ""]
    mass: Float[Tensor, ""]
    """Sum of the soft labels."""
    shares: Float[Tensor, ""]
    """Sum of the weights of the box loss."""
    present: Float[Tensor, ""]
    """Pairs of an image and a class that is in it."""

    @classmethod
    def of(cls, targets: Sequence[Targets], truth: Sequence[GroundTruth]) -> BatchCounts:
        """Of these images alone."""
        scores = torch.stack([t.scores for t in targets])
        present = _present(truth, scores.shape[-1])
        shares = torch.cat([t.shares for t in targets])
        return cls(scores.new_tensor(len(truth)), scores.sum(), shares.sum(), present.sum())

    @classmethod
    def together(cls, parts: Sequence[BatchCounts]) -> BatchCounts:
        """Of a batch in parts."""
        return cls(*(torch.stack(counts).sum(0) for counts in zip(*parts, strict=True)))


def quality_focal(
    logits: Float[Tensor, "*s"], target: Float[Tensor, "*s"], *, positive_beta: float, beta: float = 2.0
) -> Float[Tensor, "*s"]:
    """QFL (eq. 32) of every element: ``|y - s|^beta`` times the cross-entropy with the soft label y.

    Paper: one beta, 2. We: ``positive_beta`` where there is a label. Cells without one are many and mostly
    easy, which the focus is for; those with one are few (Zhang et al., "VarifocalNet", 2021, focus on the
    others alone).
    """
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    gap = (target - logits.sigmoid()).abs()
    return torch.where(target > 0, gap.pow(positive_beta), gap.pow(beta)) * entropy


def assign_targets(
    output: NetworkOutput, truth: Sequence[GroundTruth], *, label_floor: float = 0.0, plain: bool = False
) -> list[Targets]:
    """What the cells of every image should say.

    Args:
        label_floor: as :func:`assign` has it.
        plain: labels of 0 and 1, every positive cell alike, as rows A to E of the ablation have them.
    """
    flat = flatten(output.levels)
    scores = flat.logits.detach().sigmoid()
    targets = [
        assign(scores[i], flat.boxes[i].detach(), flat.centres, t.boxes, t.labels, floor=label_floor)
        for i, t in enumerate(truth)
    ]
    return [_plain(t) for t in targets] if plain else targets


def _plain(targets: Targets) -> Targets:
    scores = torch.zeros_like(targets.scores)
    scores[targets.positive, targets.labels] = 1.0
    return targets._replace(scores=scores, shares=torch.ones_like(targets.shares))


def detection_losses(
    output: NetworkOutput,
    targets: Sequence[Targets],
    whole: BatchCounts,
    weights: LossWeights,
    *,
    plain: bool = False,
) -> dict[str, Float[Tensor, ""]]:
    """``class`` and ``box``, weighted, of a batch or of a part of one.

    Args:
        plain: cross-entropy, and 1 - IoU, as rows A to E of the ablation have them.
    """
    flat = flatten(output.levels)
    wanted = torch.stack([t.scores for t in targets])
    if plain:
        element = F.binary_cross_entropy_with_logits(flat.logits, wanted, reduction="none")
    else:
        element = quality_focal(flat.logits, wanted, positive_beta=weights.positive_beta)
    mass = whole.mass.clamp_min(1.0)
    if weights.balance_alpha is not None:
        element = element * (wanted * weights.balance_alpha + (1 - wanted) * (1 - weights.balance_alpha))
    positive = torch.stack([t.positive for t in targets])
    if not positive.any():
        return {"class": weights.quality * element.sum() / mass, "box": flat.boxes.sum() * 0.0}
    found, true = flat.boxes[positive], torch.cat([t.boxes for t in targets])
    missed = iou_loss(found, true) if plain else ciou_loss(found, true)
    missed = missed * torch.cat([t.shares for t in targets])
    return {
        "class": weights.quality * element.sum() / mass,
        "box": weights.box * missed.sum() / whole.shares.clamp_min(1.0),
    }


def ciou_loss(found: Float[Tensor, "p 4"], true: Float[Tensor, "p 4"]) -> Float[Tensor, " p"]:
    """CIoU (eq. 33 and 34) of every pair of boxes; finite also for a predicted box without width or height.

    Cells of a coarse level that lie in a box of few pixels draw theirs together until a side is 0 in float32.
    """
    grow = ((NARROW - (found[:, 2:] - found[:, :2])) / 2).clamp_min(0)
    whole = torch.cat([found[:, :2] - grow, found[:, 2:] + grow], dim=1)
    loss: Tensor = complete_box_iou_loss(whole, true, reduction="none")
    return loss


def iou_loss(found: Float[Tensor, "p 4"], true: Float[Tensor, "p 4"]) -> Float[Tensor, " p"]:
    """1 - IoU of every pair of boxes; no gradient where the two do not meet."""
    width, height = (
        (torch.minimum(found[:, 2:], true[:, 2:]) - torch.maximum(found[:, :2], true[:, :2]))
        .clamp_min(0)
        .unbind(-1)
    )
    common = width * height
    either = (found[:, 2:] - found[:, :2]).prod(-1) + (true[:, 2:] - true[:, :2]).prod(-1) - common
    return 1 - common / either.clamp_min(1e-7)


def taxonomy_hinge(anchors: Float[Tensor, "a n"], taxonomy: Taxonomy) -> Float[Tensor, ""]:
    """Eq. 12 as a hinge: a parent is nearer to each child than to any class that is not its child."""
    if not len(taxonomy.child):
        return anchors.sum() * 0.0
    parents = anchors[taxonomy.parent]
    own = poincare.distance(parents, anchors[taxonomy.child])
    every = poincare.distance(
        parents[:, None].expand(-1, len(anchors), -1), anchors[None].expand(len(parents), -1, -1)
    )
    kin = torch.zeros(len(anchors), len(anchors), dtype=torch.bool, device=anchors.device)
    kin[taxonomy.parent, taxonomy.child] = True
    kin.fill_diagonal_(True)
    kin = kin | kin.T  # a node's own parent is no stranger to it
    strangers = ~kin[taxonomy.parent]
    hinge = F.relu(own[:, None] - every + MARGIN) * strangers
    return hinge.sum() / strangers.sum().clamp_min(1)


def angle_hinge(
    aligned: AlignmentOutput, present: Float[Tensor, "b c"], pairs: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Eq. 13 as a hinge: t^_i and P(v_i) lie within 15 degrees of each other, for classes in the image.

    Paper: "the angle between grad t^_i and grad P(v_i)", of a function that is not named. We: of d_H to the
    origin, whose gradients are the two radii. A class that is not in the image has no visual descriptor to
    align, so it is left out. ``pairs``: how many are present in the whole batch.
    """
    cosine = F.cosine_similarity(aligned.anchors.expand_as(aligned.points), aligned.points, dim=-1)
    angle = torch.acos(cosine.clamp(-1 + 1e-4, 1 - 1e-4))
    return (F.relu(angle - CONE) * present).sum() / pairs.clamp_min(1)


def auxiliary_losses(
    output: NetworkOutput,
    read: ClassEncoding,
    inner_anchors: Float[Tensor, "i n"] | None,
    taxonomy: Taxonomy,
    truth: Sequence[GroundTruth],
    whole: BatchCounts,
    weights: LossWeights,
) -> dict[str, Float[Tensor, ""]]:
    """The losses, by name and weighted, of the stages that the network has.

    Of what hangs on the words alone, or is a mean over images, a part of a batch has its share.
    """
    share = len(truth) / whole.images
    losses = {"value_overlap": share * weights.value_overlap * read.value_overlap}
    if output.aligned is not None and inner_anchors is not None:
        anchors = torch.cat([output.aligned.anchors, inner_anchors])
        present = _present(truth, len(read.classes))
        losses["taxonomy"] = share * weights.taxonomy * taxonomy_hinge(anchors, taxonomy)
        losses["angle"] = weights.angle * angle_hinge(output.aligned, present, whole.present)
    if output.gated is not None:
        losses["misalignment"] = share * weights.misalignment * output.misalignment
    return losses


def _present(truth: Sequence[GroundTruth], classes: int) -> Float[Tensor, "b c"]:
    """One where an image has a box of the class."""
    rows = [
        F.one_hot(t.labels, classes).amax(0) if len(t.labels) else t.labels.new_zeros(classes) for t in truth
    ]
    return torch.stack(rows).float()
