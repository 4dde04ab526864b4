"""Tests of the losses of the stages against eq. 12, 13 and their definitions, computed per pair or cell."""

from __future__ import annotations

import math

import pytest
import torch
from references import aligned, close, gated, random
from torch import Tensor

from dsmoe_core.config import LossWeights
from dsmoe_core.losses import BatchCounts, GroundTruth, Taxonomy, assign_targets
from dsmoe_core.network import ClassEncoding, NetworkOutput
from dsmoe_core.outputs import LevelOutput
from dsmoe_core.stage_losses import (
    CONTRAST_TAU,
    CellLabels,
    affinity_loss,
    angle_hinge,
    auxiliary_losses,
    contrast,
    specialisation_loss,
    taxonomy_hinge,
)

CONE, MARGIN = math.radians(15), 0.1


def geodesic(x: Tensor, y: Tensor) -> Tensor:
    """Compute d_H by the arcosh of eq. 12."""
    return torch.acosh(1 + 2 * (x - y).dot(x - y) / ((1 - x.dot(x)) * (1 - y.dot(y))))


# Leaves 0 to 4, then inner nodes: 5 and 6 are children of 7; leaf 4 is a child of the root itself.
TREE = {0: 5, 1: 5, 2: 6, 3: 6, 4: 7, 5: 7, 6: 7}


def taxonomy(tree: dict[int, int]) -> Taxonomy:
    return Taxonomy(torch.tensor([*tree], dtype=torch.long), torch.tensor([*tree.values()], dtype=torch.long))


def tree_hinge(anchors: Tensor, tree: dict[int, int]) -> Tensor:
    """Compute eq. 12 over each parent-child pair and every class k that is not related to the parent."""
    hinges = []
    for child, parent in tree.items():
        for k in range(len(anchors)):
            if k == parent or tree.get(k) == parent or tree.get(parent) == k:
                continue
            near, far = geodesic(anchors[parent], anchors[child]), geodesic(anchors[parent], anchors[k])
            hinges.append((near - far + MARGIN).clamp_min(0))
    return torch.stack(hinges).mean()


@pytest.mark.parametrize("spread", [0.01, 0.15, 0.3])
def test_taxonomy_hinge_equals_the_loop_over_pairs_and_other_classes(spread: float) -> None:
    anchors = random(8, 4) * spread
    close(taxonomy_hinge(anchors, taxonomy(TREE)), tree_hinge(anchors, TREE), 1e-7)


def test_taxonomy_hinge_is_zero_for_a_well_separated_tree_and_without_a_tree() -> None:
    """Children are close to their parents and far from the other subtree."""
    angle = torch.tensor([0.0, 0.1, 3.0, 3.1, 0.05, 3.05], dtype=torch.float64)
    anchors = torch.stack([angle.cos(), angle.sin()], dim=-1) * 0.9
    assert taxonomy_hinge(anchors, taxonomy({0: 4, 1: 4, 2: 5, 3: 5})) == 0
    assert taxonomy_hinge(anchors, taxonomy({2: 4, 1: 4, 0: 5, 3: 5})) > 5 * MARGIN
    assert taxonomy_hinge(anchors, taxonomy({})) == 0


def cone_hinge(anchors: Tensor, points: Tensor, present: list[list[int]]) -> Tensor:
    """Compute eq. 13 over the classes in each image."""
    hinges = []
    for b, classes in enumerate(present):
        for i in classes:
            cosine = anchors[i].dot(points[b, i]) / (anchors[i].norm() * points[b, i].norm())
            hinges.append((torch.acos(cosine) - CONE).clamp_min(0))
    return torch.stack(hinges).mean()


def test_angle_hinge_equals_the_loop_over_classes_in_the_image() -> None:
    signal = aligned(3, 4, 5, 2, 2)
    present = torch.zeros(3, 4)
    present[0, 1] = present[0, 3] = present[2, 0] = 1
    close(
        angle_hinge(signal, present, present.sum()),
        cone_hinge(signal.anchors, signal.points, [[1, 3], [], [0]]),
        1e-7,
    )
    assert angle_hinge(signal, torch.zeros(3, 4), torch.zeros(())) == 0


@pytest.mark.parametrize(("degrees", "free"), [(0.0, True), (14.0, True), (16.0, False), (180.0, False)])
def test_angle_hinge_is_zero_up_to_fifteen_degrees(degrees: float, free: bool) -> None:
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


def class_contrast(anchors: Tensor, points: Tensor, present: list[list[int]]) -> Tensor:
    """Compute the cross-entropy over the classes in each image."""
    losses = []
    for b, classes in enumerate(present):
        for i in classes:
            near = torch.stack([torch.exp(-geodesic(a, points[b, i]) / CONTRAST_TAU) for a in anchors])
            losses.append(-torch.log(near[i] / near.sum()))
    return torch.stack(losses).mean()


def test_contrast_equals_the_loop_over_classes_in_the_image() -> None:
    signal = aligned(3, 4, 5, 2, 2)
    present = torch.zeros(3, 4)
    present[0, 1] = present[0, 3] = present[2, 0] = 1
    expected = class_contrast(signal.anchors, signal.points, [[1, 3], [], [0]])
    close(contrast(signal, present, present.sum()), expected, 1e-6)
    assert contrast(signal, torch.zeros(3, 4), torch.zeros(())) == 0


def test_contrast_is_high_where_all_classes_coincide() -> None:
    """There the angle hinge is zero."""
    point = torch.tensor([0.3, 0.1])
    signal = aligned(1, 4, 2, 1, 1)._replace(anchors=point.expand(4, 2), points=point.expand(1, 4, 2))
    present = torch.ones(1, 4)
    close(contrast(signal, present, present.sum()), torch.tensor(math.log(4)).double(), 1e-5)
    assert angle_hinge(signal, present, present.sum()) == 0


TRUTH = [
    GroundTruth(
        torch.tensor([[0.0, 0.0, 48.0, 48.0], [0.0, 0.0, 16.0, 16.0], [50.0, 50.0, 53.0, 53.0]]),
        torch.tensor([2, 0, 1]),
    ),
    GroundTruth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)),
    GroundTruth(torch.tensor([[32.0, 0.0, 64.0, 16.0]]), torch.tensor([2])),
]
LABELS = [
    [[0, 2, 2, 3], [2, 2, 2, 3], [2, 2, 2, 3], [3, 3, 3, 1]],
    [[3, 3, 3, 3]] * 4,
    [[3, 3, 2, 2], [3, 3, 3, 3], [3, 3, 3, 3], [3, 3, 3, 3]],
]
"""Classes of 4 x 4 cells of 16 pixels: the smallest box counts, and a tiny box has its nearest cell."""


def test_cells_have_the_class_of_the_smallest_box_around_their_centre() -> None:
    cells = CellLabels.of(TRUTH, 4, 4, 16, 3)
    assert cells.labels.tolist() == LABELS
    assert torch.equal(cells.inside, torch.tensor(LABELS) != 3)


def cell_entropy(log_affinity: Tensor) -> Tensor:
    """Compute the affinity loss cell by cell: halves of boxes and background, mean over images."""
    losses = []
    for image, labels in zip(log_affinity, LABELS, strict=True):
        values: dict[bool, list[Tensor]] = {True: [], False: []}
        for y, row in enumerate(labels):
            for x, label in enumerate(row):
                values[label != 3].append(-image[y, x, label])
        losses.append(sum(sum(part) / len(part) for part in values.values() if part) / 2)
    return torch.stack(losses).mean()


def test_affinity_loss_equals_the_loop_over_cells_and_its_parts_add_up() -> None:
    signal, cells, images = aligned(3, 3, 5, 4, 4), CellLabels.of(TRUTH, 4, 4, 16, 3), torch.tensor(3.0)
    whole = affinity_loss(signal, cells, images)
    close(whole, cell_entropy(signal.log_affinity), 1e-10)
    parts = [
        affinity_loss(
            signal._replace(log_affinity=signal.log_affinity[part]),
            CellLabels(*(v[part] for v in cells)),
            images,
        )
        for part in (slice(0, 1), slice(1, 3))
    ]
    close(whole, sum(parts), 1e-12)


def information_of_cells(probabilities: Tensor) -> Tensor:
    """Compute the mutual information from its definition, H(expert) + H(class) - H(expert, class)."""
    joint = torch.zeros(3, probabilities.shape[1], dtype=torch.float64)
    for image, labels in zip(probabilities, LABELS, strict=True):
        for y, row in enumerate(labels):
            for x, label in enumerate(row):
                if label != 3:
                    joint[label] += image[:, y, x]
    joint /= joint.sum()

    def entropy(p: Tensor) -> Tensor:
        return -(p * p.clamp_min(1e-300).log()).sum()

    return entropy(joint.sum(0)) + entropy(joint.sum(1)) - entropy(joint)


def test_specialisation_loss_is_minus_the_mutual_information() -> None:
    cells = CellLabels.of(TRUTH, 4, 4, 16, 3)
    probabilities = gated(3, 6, 2, 10, 4, 4).probabilities
    close(specialisation_loss(probabilities, cells, 3), -information_of_cells(probabilities), 1e-6)
    own = torch.zeros(3, 6, 4, 4).double()
    for b, y, x in cells.inside.nonzero().tolist():
        own[b, cells.labels[b, y, x], y, x] = 1  # an expert for each class
    shares = torch.bincount(cells.labels[cells.inside]) / cells.inside.sum()
    close(specialisation_loss(own, cells, 3), (shares * shares.log()).sum().double(), 1e-6)


def test_specialisation_loss_is_zero_per_image_and_without_boxes() -> None:
    cells = CellLabels.of(TRUTH, 4, 4, 16, 3)
    assert specialisation_loss(gated(3, 6, 2, 10).probabilities, cells, 3) == 0
    empty = CellLabels.of(TRUTH[1:2], 4, 4, 16, 3)
    assert specialisation_loss(gated(1, 6, 2, 10, 4, 4).probabilities, empty, 3) == 0


def test_auxiliary_losses_are_weighted_by_name() -> None:
    levels = [LevelOutput(16, random(3, 3, 4, 4).float(), random(3, 4, 4, 4, seed=1).exp().float() * 16)]
    signal, gating = aligned(3, 3, 4, 4, 4), gated(3, 6, 2, 10, 4, 4)
    features = random(3, 8, 4, 4)
    output = NetworkOutput(levels, signal, gating, misalignment=torch.tensor(0.7), features=features)
    conditioning, inner_text = random(3, 10), random(2, 10)
    encoding = ClassEncoding(
        conditioning, classes=conditioning, inner=inner_text, value_overlap=torch.tensor(0.3)
    )
    inner = random(2, 4, seed=9) * 0.1
    tree = {0: 3, 1: 3, 2: 4}
    present = [[2, 0, 1], [], [2]]
    weights = LossWeights(
        value_overlap=2, taxonomy=3, angle=5, contrast=11, affinity=13, specialisation=17, misalignment=7
    )
    expected = {
        "value_overlap": torch.tensor(2 * 0.3),
        "taxonomy": 3 * tree_hinge(torch.cat([signal.anchors, inner]), tree),
        "angle": 5 * cone_hinge(signal.anchors, signal.points, present),
        "contrast": 11 * class_contrast(signal.anchors, signal.points, present),
        "affinity": 13 * cell_entropy(signal.log_affinity),
        "specialisation": -17 * information_of_cells(gating.probabilities),
        "misalignment": torch.tensor(7 * 0.7),
    }
    counts = BatchCounts.from_targets(assign_targets(output, TRUTH), TRUTH)
    losses = auxiliary_losses(output, encoding, inner, taxonomy(tree), TRUTH, counts, weights)
    assert set(losses) == set(expected)
    for name, value in losses.items():
        close(value, expected[name].double(), 1e-5)
    off = weights.model_copy(update={"angle": 0.0, "contrast": 0.0})
    losses = auxiliary_losses(output, encoding, inner, taxonomy(tree), TRUTH, counts, off)
    assert set(losses) == set(expected) - {"angle", "contrast"}
