"""Auxiliary losses of the stages: classes in the Poincare ball, positions of the classes, and routing.

The paper has four: the overlap of the value vectors (stage 2), the taxonomy (eq. 12), the angle between text
and image (eq. 13), and the alignment of the gradients (eq. 27). Trained with these alone, the stages hardly
take part: all visual descriptors coincide, the class-position affinity is constant, and experts and classes
share no information. So there are three more. Each compares the classes with each other, which eq. 13 does
not do:

- contrast: the visual descriptor of a class is nearer to its own anchor than to the others (stage 5).
- affinity: a position inside a true box has the affinity of the box's class, any other that of background
  (stage 5).
- specialisation: the mutual information of expert and class at the positions inside true boxes (stage 7).

All are sums over images divided by counts over the whole batch, so the losses of the parts of a batch add up.
The exception is the specialisation, which is estimated from each micro-batch, over all processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dsmoe_core import poincare
from dsmoe_core.assign import candidate_cells, cell_centres
from dsmoe_core.config import LossWeights
from dsmoe_core.losses import BatchCounts, GroundTruth, Taxonomy, present_classes
from dsmoe_core.network import ClassEncoding, NetworkOutput
from dsmoe_core.outputs import AlignmentOutput

MAX_ANGLE = math.radians(15)
TAXONOMY_MARGIN = 0.1
CONTRAST_TAU = 0.2
"""Temperature of the contrast, in units of d_H."""
SMALLEST_JOINT = 1e-9


class CellLabels(NamedTuple):
    """Class of every cell of the working grid: that of the smallest true box around its centre.

    A box without a cell's centre inside gets the nearest cell.
    """

    labels: Int[Tensor, "b h w"]
    """Row of the class; the number of classes stands for background."""
    inside: Int[Tensor, "b h w"]
    """Whether the cell is inside a box."""

    @classmethod
    def of(
        cls, truth: Sequence[GroundTruth], height: int, width: int, stride: int, classes: int
    ) -> CellLabels:
        """Label the cells of a grid with this size and stride (in image pixels)."""
        centres = cell_centres(height, width, stride, truth[0].boxes.device)
        labels = torch.stack([_labels_of(t, centres, classes) for t in truth]).reshape(-1, height, width)
        return cls(labels, labels < classes)


def _labels_of(truth: GroundTruth, centres: Float[Tensor, "N 2"], background: int) -> Int[Tensor, " N"]:
    labels = torch.full((len(centres),), background, device=centres.device)
    if not len(truth.boxes):
        return labels
    areas = (truth.boxes[:, 2:] - truth.boxes[:, :2]).prod(-1)
    smallest = torch.where(candidate_cells(centres, truth.boxes), areas[:, None], torch.inf).min(0)
    return torch.where(smallest.values.isfinite(), truth.labels[smallest.indices], labels)


def taxonomy_hinge(anchors: Float[Tensor, "a n"], taxonomy: Taxonomy) -> Float[Tensor, ""]:
    """Compute eq. 12 as a hinge: a parent is nearer to each of its children than to other classes.

    The parent's own parent is not counted among the other classes.
    """
    if not len(taxonomy.child):
        return anchors.sum() * 0.0
    parents = anchors[taxonomy.parent]
    to_child = poincare.distance(parents, anchors[taxonomy.child])
    to_all = poincare.distance(
        parents[:, None].expand(-1, len(anchors), -1), anchors[None].expand(len(parents), -1, -1)
    )
    related = torch.zeros(len(anchors), len(anchors), dtype=torch.bool, device=anchors.device)
    related[taxonomy.parent, taxonomy.child] = True
    related.fill_diagonal_(True)
    related = related | related.T
    unrelated = ~related[taxonomy.parent]
    hinge = F.relu(to_child[:, None] - to_all + TAXONOMY_MARGIN) * unrelated
    return hinge.sum() / unrelated.sum().clamp_min(1)


def angle_hinge(
    aligned: AlignmentOutput, present: Float[Tensor, "b c"], pairs: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Compute eq. 13 as a hinge: t^_i and P(v_i) are within 15 degrees, for classes in the image.

    Paper: "the angle between grad t^_i and grad P(v_i)", without naming the function. We: the gradients of
    d_H to the origin, which are the directions of the two points. Classes that are not in the image are left
    out, because they have no visual descriptor to align. The hinge is also 0 where the anchors of all classes
    coincide, which is what trainings reached; so it is off by default, and :func:`contrast` is used.

    Args:
        aligned: output of stage 5.
        present: 1 where the class occurs in the image.
        pairs: number of such pairs in the whole batch.
    """
    cosine = F.cosine_similarity(aligned.anchors.expand_as(aligned.points), aligned.points, dim=-1)
    angle = torch.acos(cosine.clamp(-1 + 1e-4, 1 - 1e-4))
    return (F.relu(angle - MAX_ANGLE) * present).sum() / pairs.clamp_min(1)


def contrast(
    aligned: AlignmentOutput, present: Float[Tensor, "b c"], pairs: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Compute the cross-entropy of the classes by the distances of their descriptors to the anchors.

    ``-log softmax_j(-d_H(t^_j, P(v_i)) / tau)_i`` (InfoNCE, van den Oord et al. 2018), for classes in the
    image.

    Args:
        aligned: output of stage 5.
        present: 1 where the class occurs in the image.
        pairs: number of such pairs in the whole batch.
    """
    batch, classes, _ = aligned.points.shape
    points = aligned.points[:, :, None].expand(-1, -1, classes, -1)
    distances = poincare.distance(points, aligned.anchors.expand(batch, classes, -1, -1))
    own = (-distances / CONTRAST_TAU).log_softmax(-1).diagonal(dim1=1, dim2=2)
    return -(own * present).sum() / pairs.clamp_min(1)


def affinity_loss(
    aligned: AlignmentOutput, cells: CellLabels, images: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Compute the cross-entropy of the class-position affinity with the true boxes.

    In each image, the cells inside boxes and the background cells have half of the weight each, whatever
    their numbers are.

    Args:
        aligned: output of stage 5.
        cells: classes of the cells of its grid.
        images: number of images in the whole batch.
    """
    loss = -aligned.log_affinity.gather(-1, cells.labels[..., None])[..., 0].flatten(1)
    inside = cells.inside.flatten(1)
    halves = [(loss * part).sum(1) / part.sum(1).clamp_min(1) for part in (inside, ~inside)]
    return torch.stack(halves).sum() / 2 / images


def of_one_process(value: Tensor) -> Tensor:
    """Return the sum over the processes that train together where there is one."""
    return value


def specialisation_loss(
    probabilities: Float[Tensor, "b e h w"],
    cells: CellLabels,
    classes: int,
    total: Callable[[Tensor], Tensor] = of_one_process,
) -> Float[Tensor, ""]:
    """Compute minus the mutual information of expert and class, in nats, at the cells inside true boxes.

    The joint distribution is the mean of the router's distributions at the cells of each class. It is 0 for a
    router that selects per image.

    Args:
        probabilities: the router's distribution at every cell.
        cells: classes of the cells.
        classes: number of classes.
        total: sums over the processes that train together, with gradients.
    """
    if probabilities.shape[2:] != cells.labels.shape[1:]:
        return probabilities.sum() * 0.0
    routed = probabilities.permute(0, 2, 3, 1)[cells.inside]
    of_class = F.one_hot(cells.labels[cells.inside], classes).to(routed.dtype)
    joint = total(of_class.T @ routed) / total(cells.inside.sum().to(routed)).clamp_min(1)
    independent = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    ratio = (joint + SMALLEST_JOINT) / (independent + SMALLEST_JOINT)
    return -(joint * ratio.log()).sum()


def auxiliary_losses(
    output: NetworkOutput,
    encoding: ClassEncoding,
    inner_anchors: Float[Tensor, "i n"] | None,
    taxonomy: Taxonomy,
    truth: Sequence[GroundTruth],
    counts: BatchCounts,
    weights: LossWeights,
    total: Callable[[Tensor], Tensor] = of_one_process,
) -> dict[str, Float[Tensor, ""]]:
    """Compute the weighted losses, by name, of the stages that the network has.

    Losses that depend on the texts only, or are means over images, are scaled by this part's share of the
    batch.

    Args:
        output, truth: predictions and ground truth of the same images.
        encoding: the class encoding that conditioned them.
        inner_anchors: t^ of the taxonomy's inner nodes; None in a network without stage 5.
        taxonomy: parent-child pairs.
        counts: counts over the whole batch.
        weights: weights of the losses.
        total: sums over the processes that train together, with gradients.
    """
    share = len(truth) / counts.images
    losses = {"value_overlap": share * weights.value_overlap * encoding.value_overlap}
    if output.aligned is None or inner_anchors is None:
        return losses
    classes, pairs = len(encoding.classes), counts.image_class_pairs
    anchors = torch.cat([output.aligned.anchors, inner_anchors])
    present = present_classes(truth, classes)
    cells = _cell_labels(output, truth, classes)
    losses["taxonomy"] = share * weights.taxonomy * taxonomy_hinge(anchors, taxonomy)
    losses["angle"] = weights.angle * angle_hinge(output.aligned, present, pairs)
    losses["contrast"] = weights.contrast * contrast(output.aligned, present, pairs)
    losses["affinity"] = weights.affinity * affinity_loss(output.aligned, cells, counts.images)
    if output.gated is not None:
        specialisation = specialisation_loss(output.gated.probabilities, cells, classes, total)
        losses["specialisation"] = share * weights.specialisation * specialisation
        losses["misalignment"] = share * weights.misalignment * output.misalignment
    return {name: loss for name, loss in losses.items() if getattr(weights, name)}


def _cell_labels(output: NetworkOutput, truth: Sequence[GroundTruth], classes: int) -> CellLabels:
    """Label the cells of the working grid."""
    assert output.aligned is not None  # noqa: S101 - the caller checked it
    height, width = output.aligned.log_affinity.shape[1:3]
    finest = output.levels[0]
    return CellLabels.of(truth, height, width, finest.stride * finest.logits.shape[-1] // width, classes)
