"""Tests of the losses against eq. 31-34, computed per element."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from references import aligned, close, gated, random
from torch import Tensor
from torchvision.ops import complete_box_iou_loss

from dsmoe_core.assign import assign, flatten_levels
from dsmoe_core.config import LossWeights
from dsmoe_core.losses import (
    BatchCounts,
    GroundTruth,
    assign_targets,
    ciou_loss,
    detection_losses,
    iou_loss,
    quality_focal,
)
from dsmoe_core.network import NetworkOutput
from dsmoe_core.outputs import LevelOutput


def focal(logit: Tensor, y: Tensor, beta: float = 2.0, positive_beta: float = 2.0) -> Tensor:
    """Compute eq. 32 without alpha_t, with exponent ``positive_beta`` where y > 0."""
    s = 1 / (1 + torch.exp(-logit))
    power = positive_beta if y > 0 else beta
    return -((y - s).abs() ** power) * ((1 - y) * torch.log(1 - s) + y * torch.log(s))


def iou(box: Tensor, true: Tensor) -> Tensor:
    shared = torch.minimum(box[2:], true[2:]) - torch.maximum(box[:2], true[:2])
    overlap = shared.clamp_min(0).prod()
    return overlap / ((box[2:] - box[:2]).prod() + (true[2:] - true[:2]).prod() - overlap)


def shape_gap(box: Tensor, true: Tensor) -> Tensor:
    """Compute v, the difference of the aspect ratios."""
    (width, height), (a, b) = box[2:] - box[:2], true[2:] - true[:2]
    return 4 / math.pi**2 * (torch.atan(a / b) - torch.atan(width / height)) ** 2


def trade_off(box: Tensor, true: Tensor) -> Tensor:
    """Compute alpha, which Zheng et al. treat as a constant in the gradient."""
    v = shape_gap(box, true)
    return (v / (1 - iou(box, true) + v)).detach()


def complete_iou(box: Tensor, true: Tensor, alpha: Tensor) -> Tensor:
    """Compute 1 - IoU + rho^2 / c^2 + alpha v of Zheng et al. 2020."""
    centre_distance = ((box[:2] + box[2:] - true[:2] - true[2:]) / 2).square().sum()
    enclosing = torch.maximum(box[2:], true[2:]) - torch.minimum(box[:2], true[:2])
    return 1 - iou(box, true) + centre_distance / enclosing.square().sum() + alpha * shape_gap(box, true)


def box_pairs(count: int) -> tuple[Tensor, Tensor]:
    """Make pairs of boxes of all shapes, some disjoint, some nested."""
    corners = random(2, count, 2) * 5
    sides = random(2, count, 2, seed=1).exp() * 15
    both = torch.cat([corners, corners + sides], dim=-1)
    return both[0], both[1]


@pytest.mark.parametrize(
    ("beta", "positive_beta"), [(1.0, 1.0), (2.0, 2.0), (3.0, 3.0), (2.0, 0.0), (2.0, 0.5)]
)
def test_quality_focal_equals_the_equation(beta: float, positive_beta: float) -> None:
    logits, target = random(40) * 4, random(40, seed=1).sigmoid()
    target[:10], target[10:20] = 0, 1
    expected = torch.stack([focal(z, y, beta, positive_beta) for z, y in zip(logits, target, strict=True)])
    close(quality_focal(logits, target, beta=beta, positive_beta=positive_beta), expected, 1e-10)


@pytest.mark.parametrize("positive_beta", [2.0, 0.0])
def test_quality_focal_has_the_correct_gradient(positive_beta: float) -> None:
    focused = partial(quality_focal, positive_beta=positive_beta)
    logits, target = random(12).requires_grad_(), random(12, seed=1).sigmoid()
    target[:3], target[3:6] = 0, 1
    assert torch.autograd.gradcheck(lambda z: focused(z, target), (logits,))
    far = torch.tensor([-200.0, 200.0, -200.0, 200.0], requires_grad=True)
    loss = focused(far, torch.tensor([0.0, 1.0, 1.0, 0.0]))
    loss.sum().backward()
    assert far.grad is not None
    assert loss.tolist() == [0, 0, 200, 200]
    assert far.grad.tolist() == [0, 0, -1, 1]


def test_box_losses_equal_the_equations() -> None:
    predicted, true = box_pairs(60)
    pairs = list(zip(predicted, true, strict=True))
    expected = torch.stack([complete_iou(a, b, trade_off(a, b)) for a, b in pairs])
    assert (expected > 1).any(), "some pairs are disjoint"
    assert (expected < 0.5).any(), "some pairs overlap"
    close(ciou_loss(predicted, true), expected, 1e-6)
    expected = torch.stack([1 - iou(a, b) for a, b in pairs])
    close(iou_loss(predicted, true), expected, 1e-6)


def test_ciou_loss_has_the_correct_gradient() -> None:
    """Compares the equation with finite differences, and the loss with the equation."""
    for box, true in zip(*box_pairs(20), strict=True):
        moved, alpha = box.clone().requires_grad_(), trade_off(box, true)
        assert torch.autograd.gradcheck(lambda b, t=true, a=alpha: complete_iou(b, t, a), (moved,))
        (expected,) = torch.autograd.grad(complete_iou(moved, true, alpha), moved)
        (actual,) = torch.autograd.grad(ciou_loss(moved[None], true[None]).sum(), moved)
        close(actual, expected, 1e-6)


TRUTH = [
    GroundTruth(torch.tensor([[4.0, 6.0, 30.0, 26.0], [40.0, 8.0, 60.0, 60.0]]), torch.tensor([2, 0])),
    GroundTruth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)),
    GroundTruth(torch.tensor([[33.0, 33.0, 34.0, 34.0]]), torch.tensor([2])),
]


def network_output(images: int = 3, classes: int = 3) -> NetworkOutput:
    """Make a random network output for images of 64 pixels."""
    levels = [
        LevelOutput(
            stride,
            random(images, classes, 64 // stride, 64 // stride, seed=stride).float(),
            random(images, 4, 64 // stride, 64 // stride, seed=stride + 1).exp().float() * stride,
        )
        for stride in (8, 16)
    ]
    return NetworkOutput(
        levels=levels,
        aligned=aligned(images, classes, 4, 4, 4),
        gated=gated(images, 6, 2, 10),
        misalignment=torch.tensor(0.7),
        features=random(images, 8, 4, 4),
    )


@pytest.mark.parametrize(
    ("weights", "quality", "alpha", "positive_beta", "box", "equal", "bce_iou"),
    [
        (LossWeights(quality=1.5, box=2.5), 1.5, None, 0.0, 2.5, False, False),
        (LossWeights(quality=1.5, box=2.5), 1.5, None, 0.0, 2.5, True, False),
        (LossWeights.paper(), 2 * 0.45, 0.45, 2.0, 0.05, True, False),
        (LossWeights(quality=1.5, box=2.5), 1.5, None, 0.0, 2.5, True, True),
    ],
    ids=["weighted boxes", "equal boxes", "paper", "bce_iou"],
)
def test_detection_losses_are_sums_over_cells_divided_by_the_label_sum(
    weights: LossWeights,
    quality: float,
    alpha: float | None,
    positive_beta: float,
    box: float,
    equal: bool,
    bce_iou: bool,
) -> None:
    """Compares with eq. 31 and 33, or with cross-entropy and IoU. test_assign.py tests the assignment."""
    output = network_output()
    flat = flatten_levels(output.levels)
    class_sum = box_sum = label_sum = weight_sum = torch.zeros(())
    for i, truth in enumerate(TRUTH):
        targets = assign(flat.logits[i].sigmoid(), flat.boxes[i], flat.centres, truth.boxes, truth.labels)
        assert targets.positive.any() == (len(truth.boxes) > 0)
        positives = iter(zip(targets.boxes, targets.labels, targets.box_weights, strict=True))
        for cell, labels in enumerate(targets.scores):
            assigned = next(positives) if targets.positive[cell] else None
            if bce_iou and assigned is not None:
                labels = torch.eye(3)[assigned[1]]
            for logit, y in zip(flat.logits[i, cell], labels, strict=True):
                weight = 1.0 if alpha is None else y * alpha + (1 - y) * (1 - alpha)
                betas = (0.0, 0.0) if bce_iou else (2.0, positive_beta)
                class_sum = class_sum + weight * focal(logit, y, *betas)
                label_sum = label_sum + y
            if assigned is not None:
                pair, weight = (flat.boxes[i, cell], assigned[0]), 1.0 if equal else assigned[2]
                loss = 1 - iou(*pair) if bce_iou else complete_iou(*pair, trade_off(*pair))
                box_sum, weight_sum = box_sum + loss * weight, weight_sum + weight
    all_targets = assign_targets(output, TRUTH, equal_boxes=equal and not bce_iou, bce_iou=bce_iou)
    counts = BatchCounts.from_targets(all_targets, TRUTH)
    losses = detection_losses(output, all_targets, counts, weights, bce_iou=bce_iou)
    assert set(losses) == {"class", "box"}
    close(losses["class"], (quality * class_sum / label_sum.clamp_min(1)).double(), 1e-4)
    close(losses["box"], (box * box_sum / weight_sum.clamp_min(1)).double(), 1e-4)


@pytest.mark.parametrize("bce_iou", [False, True])
def test_a_box_without_overlapping_prediction_has_full_box_weight(bce_iou: bool) -> None:
    """The box has two pixels, and the predicted box is eight pixels away."""
    distances = torch.full((1, 4, 8, 8), -8.0)
    distances[:, 2:] = 12.0  # to the right and below the cell's centre
    distances.requires_grad_()
    logits = torch.zeros(1, 3, 8, 8, requires_grad=True)
    output = network_output(1)._replace(levels=[LevelOutput(8, logits, distances)])
    truth = [GroundTruth(torch.tensor([[18.0, 18.0, 20.0, 20.0]]), torch.tensor([1]))]
    assigned = assign_targets(output, truth, bce_iou=bce_iou)
    assert assigned[0].box_weights.tolist() == [1.0]
    losses = detection_losses(
        output, assigned, BatchCounts.from_targets(assigned, truth), LossWeights(), bce_iou=bce_iou
    )
    assert losses["box"].item() >= LossWeights().box
    if not bce_iou:  # 1 - IoU has no gradient where boxes do not overlap
        losses["box"].backward()
        assert distances.grad is not None
        assert distances.grad[0, :, 2, 2].abs().min() > 0


def test_without_boxes_the_box_loss_is_zero() -> None:
    output = network_output(1)
    assigned = assign_targets(output, [TRUTH[1]])
    counts = BatchCounts.from_targets(assigned, [TRUTH[1]])
    losses = detection_losses(output, assigned, counts, LossWeights(quality=1.0))
    logits = torch.cat([level.logits.flatten() for level in output.levels]).double()
    close(losses["class"], sum(focal(z, torch.zeros(())) for z in logits), 1e-5)
    assert losses["box"] == 0


@pytest.mark.parametrize(
    "predicted", [(11, 11, 11, 11), (11, 11, 12, 11), (11, 11, 11, 12), (30, 30, 30, 30)]
)
def test_ciou_of_a_degenerate_predicted_box_has_a_finite_loss_and_gradient(
    predicted: tuple[float, ...],
) -> None:
    box = torch.tensor([predicted], dtype=torch.float32, requires_grad=True)
    loss = ciou_loss(box, torch.tensor([[10.0, 10.0, 12.0, 13.0]]))
    loss.sum().backward()
    assert box.grad is not None
    assert loss.isfinite().all()
    assert box.grad.isfinite().all()
    assert box.grad.abs().sum() > 0


def test_ciou_of_other_boxes_is_bit_identical_to_torchvision() -> None:
    predicted = torch.rand(200, 2, generator=torch.Generator().manual_seed(1)) * 300
    predicted = torch.cat([predicted, predicted + 0.11 + random(200, 2).abs() * 40], dim=1)
    true = predicted + random(200, 4, seed=2) * 0.02
    assert torch.equal(ciou_loss(predicted, true), complete_box_iou_loss(predicted, true, reduction="none"))


def test_the_papers_weights_have_its_losses_only() -> None:
    paper, ours = LossWeights.paper(), LossWeights()
    assert paper.angle > 0
    assert (paper.contrast, paper.affinity, paper.specialisation) == (0, 0, 0)
    assert (paper.text_balance, paper.gradient_conflict) == (0, 0)
    for name in ("value_overlap", "taxonomy", "misalignment"):
        assert getattr(paper, name) == getattr(ours, name) > 0
