"""Tests of the distillation losses against BCKD's equations, computed cell by cell in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import close, random
from torch import Tensor

from dsmoe_core.assign import FlatPredictions
from dsmoe_core.config import LossWeights
from dsmoe_core.knowledge_distillation import distillation_losses, giou_loss
from dsmoe_core.losses import BatchCounts

Side = st.integers(1, 5)
UNIT = LossWeights(teacher_class=1.0, teacher_box=1.0)


def predictions(images: int, cells: int, classes: int, seed: int) -> FlatPredictions:
    """Random logits, and boxes of all shapes around random centres."""
    centres = random(cells, 2, seed=seed) * 20
    sides = random(2, images, cells, 2, seed=seed + 1).exp() * 10
    return FlatPredictions(
        random(images, cells, classes, seed=seed + 2) * 3,
        torch.cat([centres - sides[0], centres + sides[1]], dim=-1),
        centres,
        torch.ones(cells, dtype=torch.float64),
    )


def counts(positives: float) -> BatchCounts:
    return BatchCounts(*(torch.tensor(float(n), dtype=torch.float64) for n in (2, 5, 5, 3, positives)))


def giou(a: list[float], b: list[float]) -> float:
    """Compute GIoU of Rezatofighi et al. 2019 of two boxes with area."""
    overlap = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    union = sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b)) - overlap
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return overlap / union - (hull - union) / hull


def reference(student: FlatPredictions, teacher: FlatPredictions, positives: float) -> tuple[float, float]:
    """Compute both sums with loops over images, cells and classes."""
    class_sum = box_sum = 0.0
    for i in range(student.logits.shape[0]):
        for cell in range(student.logits.shape[1]):
            weights = [0.0]
            for s, t in zip(student.logits[i, cell].tolist(), teacher.logits[i, cell].tolist(), strict=True):
                p_s, p_t = 1 / (1 + math.exp(-s)), 1 / (1 + math.exp(-t))
                weights.append(abs(p_t - p_s))
                class_sum -= weights[-1] * (p_t * math.log(p_s) + (1 - p_t) * math.log(1 - p_s))
            pair = student.boxes[i, cell].tolist(), teacher.boxes[i, cell].tolist()
            box_sum += max(weights) * (1 - giou(*pair))
    return class_sum / max(positives, 1), box_sum / positives if positives else 0.0


@settings(max_examples=25, deadline=None)
@given(
    images=Side, cells=Side, classes=st.integers(0, 4), positives=st.integers(0, 7), seed=st.integers(0, 99)
)
def test_losses_equal_the_equations(images: int, cells: int, classes: int, positives: int, seed: int) -> None:
    student, teacher = (predictions(images, cells, classes, seed + k) for k in (0, 1000))
    losses = distillation_losses(student, teacher, counts(positives), UNIT)
    assert list(losses) == ["teacher_class", "teacher_box"]
    expected = reference(student, teacher, positives)
    for loss, value in zip(losses.values(), expected, strict=True):
        close(loss, torch.tensor(value, dtype=torch.float64), 1e-6)


def test_default_weights_are_those_of_the_paper() -> None:
    student, teacher = (predictions(2, 6, 3, seed) for seed in (0, 9))
    unit = distillation_losses(student, teacher, counts(4), UNIT)
    losses = distillation_losses(student, teacher, counts(4), LossWeights())
    close(losses["teacher_class"], unit["teacher_class"])
    close(losses["teacher_box"], 4 * unit["teacher_box"])


@pytest.mark.parametrize("sizes", [[1, 1, 2], [3, 1]])
def test_losses_of_the_parts_add_up_to_those_of_the_batch(sizes: list[int]) -> None:
    student, teacher = (predictions(4, 6, 3, seed) for seed in (0, 9))
    whole = distillation_losses(student, teacher, counts(5), UNIT)
    parts = [
        distillation_losses(*pair, counts(5), UNIT)
        for pair in zip(split(student, sizes), split(teacher, sizes), strict=True)
    ]
    for name, loss in whole.items():
        close(sum((part[name] for part in parts), torch.zeros(())), loss, 1e-9)


def split(flat: FlatPredictions, sizes: list[int]) -> list[FlatPredictions]:
    pairs = zip(flat.logits.split(sizes), flat.boxes.split(sizes), strict=True)
    return [flat._replace(logits=logits, boxes=boxes) for logits, boxes in pairs]


def with_gradients(flat: FlatPredictions) -> FlatPredictions:
    return flat._replace(
        logits=flat.logits.clone().requires_grad_(), boxes=flat.boxes.clone().requires_grad_()
    )


def gradient(loss: Tensor, weights: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
    return torch.zeros_like(weights) if found is None else found


def test_gradients_flow_to_the_student_only_and_each_loss_has_its_own_branch() -> None:
    student, teacher = (with_gradients(predictions(2, 6, 3, seed)) for seed in (0, 9))
    losses = distillation_losses(student, teacher, counts(4), UNIT)
    for loss in losses.values():
        assert not gradient(loss, teacher.logits).any()
        assert not gradient(loss, teacher.boxes).any()
    assert gradient(losses["teacher_class"], student.logits).all()
    assert not gradient(losses["teacher_class"], student.boxes).any()
    assert gradient(losses["teacher_box"], student.boxes).any()
    assert not gradient(losses["teacher_box"], student.logits).any()


def test_gradient_of_the_class_loss_is_correct_and_points_to_the_teacher() -> None:
    student, teacher = (predictions(1, 4, 3, seed) for seed in (0, 9))

    def loss(logits: Tensor) -> Tensor:
        given = student._replace(logits=logits)
        return distillation_losses(given, teacher, counts(4), UNIT)["teacher_class"]

    logits = student.logits.clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, (logits,))
    (found,) = torch.autograd.grad(loss(logits), logits)
    assert torch.equal(found.sign(), (student.logits - teacher.logits).sign())


def test_a_student_equal_to_the_teacher_has_no_loss() -> None:
    student = with_gradients(predictions(2, 6, 3, seed=0))
    teacher = FlatPredictions(*(values.detach() for values in student))
    losses = distillation_losses(student, teacher, counts(4), UNIT)
    assert [loss.item() for loss in losses.values()] == [0.0, 0.0]


@pytest.mark.parametrize("box", [(11, 11, 11, 11), (11, 11, 12, 11), (30, 30, 30, 30)])
@pytest.mark.parametrize("other", [(10, 10, 12, 13), (11, 11, 11, 11)])
def test_giou_of_degenerate_boxes_has_a_finite_loss_and_gradient(
    box: tuple[int, ...], other: tuple[int, ...]
) -> None:
    predicted = torch.tensor([box], dtype=torch.float32, requires_grad=True)
    loss = giou_loss(predicted, torch.tensor([other], dtype=torch.float32))
    loss.sum().backward()
    assert predicted.grad is not None
    assert loss.isfinite().all()
    assert predicted.grad.isfinite().all()
    assert predicted.grad.abs().max() < 100


def test_extreme_logits_have_finite_losses_and_gradients() -> None:
    far = torch.tensor([-200.0, 200.0, -200.0, 200.0])
    student = predictions(1, 2, 2, seed=0)._replace(logits=far.view(1, 2, 2).clone().requires_grad_())
    teacher = predictions(1, 2, 2, seed=0)._replace(logits=-far.view(1, 2, 2))
    loss = distillation_losses(student, teacher, counts(1), UNIT)["teacher_class"]
    loss.backward()
    assert student.logits.grad is not None
    assert loss.item() == 800
    assert student.logits.grad.isfinite().all()
