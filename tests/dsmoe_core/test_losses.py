"""The losses against eq. 12, 13 and 31-34, element by element and pair by pair."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from references import aligned, close, gated, random
from torch import Tensor
from torchvision.ops import complete_box_iou_loss

from dsmoe_core.assign import assign, flatten
from dsmoe_core.config import LossWeights
from dsmoe_core.losses import (
    BatchCounts,
    GroundTruth,
    Taxonomy,
    angle_hinge,
    assign_targets,
    auxiliary_losses,
    ciou_loss,
    detection_losses,
    iou_loss,
    quality_focal,
    taxonomy_hinge,
)
from dsmoe_core.network import ClassEncoding, NetworkOutput
from dsmoe_core.outputs import LevelOutput

CONE, MARGIN = math.radians(15), 0.1


def focal(logit: Tensor, y: Tensor, beta: float = 2.0, positive_beta: float = 2.0) -> Tensor:
    """Eq. 32 without alpha_t, of the paper or with another focus where there is a label."""
    s = 1 / (1 + torch.exp(-logit))
    power = positive_beta if y > 0 else beta
    return -((y - s).abs() ** power) * ((1 - y) * torch.log(1 - s) + y * torch.log(s))


def iou(box: Tensor, true: Tensor) -> Tensor:
    shared = torch.minimum(box[2:], true[2:]) - torch.maximum(box[:2], true[:2])
    overlap = shared.clamp_min(0).prod()
    return overlap / ((box[2:] - box[:2]).prod() + (true[2:] - true[:2]).prod() - overlap)


def shape_gap(box: Tensor, true: Tensor) -> Tensor:
    """v, how much the aspect ratios differ."""
    (width, height), (a, b) = box[2:] - box[:2], true[2:] - true[:2]
    return 4 / math.pi**2 * (torch.atan(a / b) - torch.atan(width / height)) ** 2


def trade_off(box: Tensor, true: Tensor) -> Tensor:
    """alpha, which the gradient of Zheng et al. takes as a constant."""
    v = shape_gap(box, true)
    return (v / (1 - iou(box, true) + v)).detach()


def complete_iou(box: Tensor, true: Tensor, alpha: Tensor) -> Tensor:
    """The loss 1 - IoU + rho^2 / c^2 + alpha v of Zheng et al. 2020."""
    apart = ((box[:2] + box[2:] - true[:2] - true[2:]) / 2).square().sum()
    around = torch.maximum(box[2:], true[2:]) - torch.minimum(box[:2], true[:2])
    return 1 - iou(box, true) + apart / around.square().sum() + alpha * shape_gap(box, true)


def box_pairs(count: int) -> tuple[Tensor, Tensor]:
    """Boxes of all shapes, some apart, some inside each other."""
    corners = random(2, count, 2) * 5
    sides = random(2, count, 2, seed=1).exp() * 15
    both = torch.cat([corners, corners + sides], dim=-1)
    return both[0], both[1]


@pytest.mark.parametrize(
    ("beta", "positive_beta"), [(1.0, 1.0), (2.0, 2.0), (3.0, 3.0), (2.0, 0.0), (2.0, 0.5)]
)
def test_quality_focal_is_the_equation(beta: float, positive_beta: float) -> None:
    logits, target = random(40) * 4, random(40, seed=1).sigmoid()
    target[:10], target[10:20] = 0, 1
    expected = torch.stack([focal(z, y, beta, positive_beta) for z, y in zip(logits, target, strict=True)])
    close(quality_focal(logits, target, beta=beta, positive_beta=positive_beta), expected, 1e-10)


@pytest.mark.parametrize("positive_beta", [2.0, 0.0])
def test_quality_focal_has_the_right_gradient(positive_beta: float) -> None:
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


def test_complete_iou_is_that_of_zheng() -> None:
    found, true = box_pairs(60)
    expected = torch.stack([complete_iou(a, b, trade_off(a, b)) for a, b in zip(found, true, strict=True)])
    assert (expected > 1).any(), "some lie apart"
    assert (expected < 0.5).any(), "some overlap"
    close(ciou_loss(found, true), expected, 1e-6)
    close(iou_loss(found, true), torch.stack([1 - iou(a, b) for a, b in zip(found, true, strict=True)]), 1e-6)


def test_complete_iou_has_the_right_gradient() -> None:
    """The equation against finite differences, and the loss in use against the equation."""
    for box, true in zip(*box_pairs(20), strict=True):
        moved, alpha = box.clone().requires_grad_(), trade_off(box, true)
        assert torch.autograd.gradcheck(lambda b, t=true, a=alpha: complete_iou(b, t, a), (moved,))
        (by_equation,) = torch.autograd.grad(complete_iou(moved, true, alpha), moved)
        (in_use,) = torch.autograd.grad(ciou_loss(moved[None], true[None]).sum(), moved)
        close(in_use, by_equation, 1e-6)


TRUTH = [
    GroundTruth(torch.tensor([[4.0, 6.0, 30.0, 26.0], [40.0, 8.0, 60.0, 60.0]]), torch.tensor([2, 0])),
    GroundTruth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)),
    GroundTruth(torch.tensor([[33.0, 33.0, 34.0, 34.0]]), torch.tensor([2])),
]


def answer(images: int = 3, classes: int = 3) -> NetworkOutput:
    """What the network might say of images of 64 pixels."""
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
    )


@pytest.mark.parametrize(
    ("weights", "quality", "alpha", "positive_beta", "box", "plain"),
    [
        (LossWeights(quality=1.5, box=2.5), 1.5, None, 0.0, 2.5, False),
        (LossWeights.paper(), 2 * 0.45, 0.45, 2.0, 0.05, False),
        (LossWeights(quality=1.5, box=2.5), 1.5, None, 0.0, 2.5, True),
    ],
    ids=["ours", "paper", "plain"],
)
def test_detection_losses_are_sums_over_cells_by_the_mass_of_the_labels(
    weights: LossWeights, quality: float, alpha: float | None, positive_beta: float, box: float, plain: bool
) -> None:
    """Eq. 31 and 33, or cross-entropy and IoU; which cell learns which box is test_assign.py's."""
    output = answer()
    flat = flatten(output.levels)
    classified = located = mass = shares = torch.zeros(())
    for i, truth in enumerate(TRUTH):
        targets = assign(flat.logits[i].sigmoid(), flat.boxes[i], flat.centres, truth.boxes, truth.labels)
        assert targets.positive.any() == (len(truth.boxes) > 0)
        positives = iter(zip(targets.boxes, targets.labels, targets.shares, strict=True))
        for cell, wanted in enumerate(targets.scores):
            learned = next(positives) if targets.positive[cell] else None
            if plain and learned is not None:
                wanted = torch.eye(3)[learned[1]]
            for logit, y in zip(flat.logits[i, cell], wanted, strict=True):
                weight = 1.0 if alpha is None else y * alpha + (1 - y) * (1 - alpha)
                betas = (0.0, 0.0) if plain else (2.0, positive_beta)
                classified = classified + weight * focal(logit, y, *betas)
                mass = mass + y
            if learned is not None:
                pair, share = (flat.boxes[i, cell], learned[0]), 1.0 if plain else learned[2]
                missed = 1 - iou(*pair) if plain else complete_iou(*pair, trade_off(*pair))
                located, shares = located + missed * share, shares + share
    assigned = assign_targets(output, TRUTH, plain=plain)
    found = detection_losses(output, assigned, BatchCounts.of(assigned, TRUTH), weights, plain=plain)
    assert set(found) == {"class", "box"}
    close(found["class"], (quality * classified / mass.clamp_min(1)).double(), 1e-4)
    close(found["box"], (box * located / shares.clamp_min(1)).double(), 1e-4)


@pytest.mark.parametrize("plain", [False, True])
def test_a_box_that_no_prediction_meets_is_learned_all_the_same(plain: bool) -> None:
    """A pinhole of two pixels, and a network that so far predicts eight pixels beside it."""
    distances = torch.full((1, 4, 8, 8), -8.0)
    distances[:, 2:] = 12.0  # right and below of the cell's centre
    distances.requires_grad_()
    logits = torch.zeros(1, 3, 8, 8, requires_grad=True)
    output = answer(1)._replace(levels=[LevelOutput(8, logits, distances)])
    truth = [GroundTruth(torch.tensor([[18.0, 18.0, 20.0, 20.0]]), torch.tensor([1]))]
    assigned = assign_targets(output, truth, plain=plain)
    assert assigned[0].shares.tolist() == [1.0]
    losses = detection_losses(output, assigned, BatchCounts.of(assigned, truth), LossWeights(), plain=plain)
    assert losses["box"].item() >= LossWeights().box
    if not plain:  # 1 - IoU has no gradient where boxes do not meet
        losses["box"].backward()
        assert distances.grad is not None
        assert distances.grad[0, :, 2, 2].abs().min() > 0


def test_without_any_box_only_the_classes_learn() -> None:
    output = answer(1)
    assigned = assign_targets(output, [TRUTH[1]])
    whole = BatchCounts.of(assigned, [TRUTH[1]])
    found = detection_losses(output, assigned, whole, LossWeights(quality=1.0))
    logits = torch.cat([level.logits.flatten() for level in output.levels]).double()
    close(found["class"], sum(focal(z, torch.zeros(())) for z in logits), 1e-5)
    assert found["box"] == 0


def geodesic(x: Tensor, y: Tensor) -> Tensor:
    """d_H by its arcosh."""
    return torch.acosh(1 + 2 * (x - y).dot(x - y) / ((1 - x.dot(x)) * (1 - y.dot(y))))


# Leaves 0 to 4, then inner nodes: 5 and 6 below 7; leaf 4 hangs on the root itself.
TREE = {0: 5, 1: 5, 2: 6, 3: 6, 4: 7, 5: 7, 6: 7}


def taxonomy(tree: dict[int, int]) -> Taxonomy:
    return Taxonomy(torch.tensor([*tree], dtype=torch.long), torch.tensor([*tree.values()], dtype=torch.long))


def tree_hinge(anchors: Tensor, tree: dict[int, int]) -> Tensor:
    """Eq. 12: for each parent and child, every k that is neither a child nor the parent of that parent."""
    hinges = []
    for child, parent in tree.items():
        for k in range(len(anchors)):
            if k == parent or tree.get(k) == parent or tree.get(parent) == k:
                continue
            near, far = geodesic(anchors[parent], anchors[child]), geodesic(anchors[parent], anchors[k])
            hinges.append((near - far + MARGIN).clamp_min(0))
    return torch.stack(hinges).mean()


@pytest.mark.parametrize("spread", [0.01, 0.15, 0.3])
def test_taxonomy_hinge_is_a_loop_over_families_and_strangers(spread: float) -> None:
    anchors = random(8, 4) * spread
    close(taxonomy_hinge(anchors, taxonomy(TREE)), tree_hinge(anchors, TREE), 1e-7)


def test_a_well_ordered_tree_and_no_tree_cost_nothing() -> None:
    """Children beside their parents, far from the other family."""
    angle = torch.tensor([0.0, 0.1, 3.0, 3.1, 0.05, 3.05], dtype=torch.float64)
    anchors = torch.stack([angle.cos(), angle.sin()], dim=-1) * 0.9
    assert taxonomy_hinge(anchors, taxonomy({0: 4, 1: 4, 2: 5, 3: 5})) == 0
    assert taxonomy_hinge(anchors, taxonomy({2: 4, 1: 4, 0: 5, 3: 5})) > 5 * MARGIN
    assert taxonomy_hinge(anchors, taxonomy({})) == 0


def cone_hinge(anchors: Tensor, points: Tensor, present: list[list[int]]) -> Tensor:
    """Eq. 13 over the classes that each image shows."""
    hinges = []
    for b, classes in enumerate(present):
        for i in classes:
            cosine = anchors[i].dot(points[b, i]) / (anchors[i].norm() * points[b, i].norm())
            hinges.append((torch.acos(cosine) - CONE).clamp_min(0))
    return torch.stack(hinges).mean()


def test_angle_hinge_is_a_loop_over_the_classes_in_the_image() -> None:
    signal = aligned(3, 4, 5, 2, 2)
    shown = torch.zeros(3, 4)
    shown[0, 1] = shown[0, 3] = shown[2, 0] = 1
    close(
        angle_hinge(signal, shown, shown.sum()),
        cone_hinge(signal.anchors, signal.points, [[1, 3], [], [0]]),
        1e-7,
    )
    assert angle_hinge(signal, torch.zeros(3, 4), torch.zeros(())) == 0


@pytest.mark.parametrize(("degrees", "free"), [(0.0, True), (14.0, True), (16.0, False), (180.0, False)])
def test_fifteen_degrees_are_free(degrees: float, free: bool) -> None:
    a = math.radians(degrees)
    signal = aligned(1, 1, 2, 1, 1)._replace(
        anchors=torch.tensor([[0.5, 0.0]]), points=torch.tensor([[[math.cos(a), math.sin(a)]]]) * 0.3
    )
    signal.points.requires_grad_()
    loss = angle_hinge(signal, torch.ones(1, 1), torch.ones(()))
    loss.backward()
    assert (loss == 0) == free
    assert signal.points.grad is not None
    assert signal.points.grad.isfinite().all()


def test_auxiliary_losses_are_weighed_by_name() -> None:
    output = answer()
    conditioning, inner_text = random(3, 10), random(2, 10)
    read = ClassEncoding(
        conditioning, classes=conditioning, inner=inner_text, value_overlap=torch.tensor(0.3)
    )
    inner = random(2, 4, seed=9) * 0.1
    tree = {0: 3, 1: 3, 2: 4}
    weights = LossWeights(value_overlap=2, taxonomy=3, angle=5, misalignment=7)
    signal = output.aligned
    expected = {
        "value_overlap": torch.tensor(2 * 0.3),
        "taxonomy": 3 * tree_hinge(torch.cat([signal.anchors, inner]), tree),
        "angle": 5 * cone_hinge(signal.anchors, signal.points, [[0, 2], [], [2]]),
        "misalignment": torch.tensor(7 * 0.7),
    }
    whole = BatchCounts.of(assign_targets(output, TRUTH), TRUTH)
    found = auxiliary_losses(output, read, inner, taxonomy(tree), TRUTH, whole, weights)
    assert set(found) == set(expected)
    for name, value in found.items():
        close(value, expected[name].double(), 1e-6)


@pytest.mark.parametrize("found", [(11, 11, 11, 11), (11, 11, 12, 11), (11, 11, 11, 12), (30, 30, 30, 30)])
def test_a_predicted_box_without_width_or_height_has_a_loss_and_a_slope(found: tuple[float, ...]) -> None:
    box = torch.tensor([found], dtype=torch.float32, requires_grad=True)
    loss = ciou_loss(box, torch.tensor([[10.0, 10.0, 12.0, 13.0]]))
    loss.sum().backward()
    assert box.grad is not None
    assert loss.isfinite().all()
    assert box.grad.isfinite().all()
    assert box.grad.abs().sum() > 0


def test_wider_boxes_have_the_ciou_of_torchvision_to_the_bit() -> None:
    found = torch.rand(200, 2, generator=torch.Generator().manual_seed(1)) * 300
    found = torch.cat([found, found + 0.11 + random(200, 2).abs() * 40], dim=1)
    true = found + random(200, 4, seed=2) * 0.02
    assert torch.equal(ciou_loss(found, true), complete_box_iou_loss(found, true, reduction="none"))
