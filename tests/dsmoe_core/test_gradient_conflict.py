"""Tests of STGC against its equations, computed pair by pair."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import close, gated, random, randomised
from torch import Tensor

from dsmoe_core.config import LossWeights
from dsmoe_core.gradient_conflict import conflicting_pairs, gradient_conflict_loss, recorded_mixture
from dsmoe_core.outputs import GatingOutput
from dsmoe_core.stages.experts import TASK_EXPERTS, SparseExperts

Pair = tuple[int, int, int, int]
"""Image, expert, row, column."""


def pair_gradients(signal: GatingOutput, gradient: Tensor) -> dict[Pair, Tensor]:
    """Compute the token gradient of every selected pair."""
    pairs: dict[Pair, Tensor] = {}
    images, slots, height, width = signal.weights.shape
    for b, k, y, x in product(range(images), range(slots), range(height), range(width)):
        at = (
            gradient[b, :, y, x]
            if signal.weights.shape[2:] == gradient.shape[2:]
            else gradient[b].sum((1, 2))
        )
        if signal.weights[b, k, y, x] > 0:
            pairs[b, int(signal.experts[b, k, y, x]), y, x] = signal.weights[b, k, y, x] * at
    return pairs


def conflicts_reference(pairs: dict[Pair, Tensor], threshold: float) -> set[Pair]:
    conflicts = set()
    for pair, own in pairs.items():
        of_expert = [g for other, g in pairs.items() if other[1] == pair[1]]
        mean = sum(of_expert) / len(of_expert)
        if own.any() and mean.any() and own.dot(mean) / (own.norm() * mean.norm()) < threshold:
            conflicts.add(pair)
    return conflicts


def loss_reference(signal: GatingOutput, conflicts: set[Pair]) -> float:
    """Compute the mean of ``-log(exp(-l_i) / sum_j exp(-l_j))``."""
    total = 0.0
    for b, e, y, x in conflicts:
        negated = torch.exp(-signal.logits[b, :, y, x])
        total -= float(torch.log(negated[e] / negated.sum()))
    return total / max(len(conflicts), 1)


def pairs_of(mask: Tensor) -> set[Pair]:
    return {(b, e, y, x) for b, e, y, x in mask.nonzero().tolist()}


@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(2, 6),
    st.sampled_from([-0.9, -0.3, 0.0, 0.4, 0.9]),
    st.booleans(),
    st.data(),
)
@settings(deadline=None)
def test_loss_equals_the_equation(
    images: int, side: int, experts: int, threshold: float, per_image: bool, data: st.DataObject
) -> None:
    top_k, seed = data.draw(st.integers(1, experts)), data.draw(st.integers(0, 99))
    size = (1, 1) if per_image else (side, side + 1)
    signal = gated(images, experts, top_k, 10, *size, seed=seed)
    gradient = random(images, 5, side, side + 1, seed=seed + 7)
    expected = conflicts_reference(pair_gradients(signal, gradient), threshold)
    assert pairs_of(conflicting_pairs(signal, gradient, threshold=threshold)) == expected
    loss = gradient_conflict_loss(signal, gradient, threshold=threshold)
    assert float(loss) == pytest.approx(loss_reference(signal, expected))


def test_gradient_of_a_pair_is_that_of_the_experts_additive_parameter() -> None:
    tasks = len(TASK_EXPERTS)
    stage = randomised(SparseExperts(width=6, text_width=10, experts=tasks + 3, grid_stride=8))
    f_b, signal = random(2, 6, 4, 5), gated(2, tasks + 3, 2, 10, 4, 5)
    with recorded_mixture(stage) as mixture:
        out = stage(f_b, signal)
    assert [one is out for one in mixture] == [True]
    loss = (out.sin() * random(*out.shape, seed=4)).sum()
    (gradient,) = torch.autograd.grad(loss, out, retain_graph=True)
    loss.backward()
    pairs = pair_gradients(signal, gradient)
    for e in range(tasks + 3):
        total = sum(g for pair, g in pairs.items() if pair[1] == e)
        bias = stage.task[e].point.bias.grad if e < tasks else stage.cross.shift.grad[e - tasks, 0]
        close(bias, total, 1e-10)


def test_nothing_is_recorded_without_stage_8_or_outside_the_block() -> None:
    stage = randomised(SparseExperts(width=6, text_width=10, experts=6, grid_stride=8))
    with recorded_mixture(torch.nn.Linear(2, 2)) as nothing, recorded_mixture(stage) as mixture:
        pass
    stage(random(1, 6, 4, 4), gated(1, 6, 2, 10))
    assert nothing == mixture == []


@pytest.mark.parametrize("threshold", [-1.0, 0.0, 1.0])
def test_without_a_gradient_nothing_conflicts(threshold: float) -> None:
    signal = gated(2, 4, 2, 10, 3, 3)
    signal = signal._replace(logits=signal.logits.requires_grad_())
    loss = gradient_conflict_loss(signal, torch.zeros(2, 5, 3, 3).double(), threshold=threshold)
    loss.backward()
    assert loss.item() == 0
    assert signal.logits.grad is not None
    assert not signal.logits.grad.any()


def test_gradients_of_any_length_conflict_alike() -> None:
    signal, gradient = gated(2, 4, 2, 10, 3, 3), random(2, 5, 3, 3, seed=3)
    single = GatingOutput(*(v.float() if v.is_floating_point() else v for v in signal))
    expected = conflicting_pairs(signal, gradient, threshold=0.0)
    assert expected.any()
    for scale in (1e-12, 1.0, 1e6):
        assert torch.equal(conflicting_pairs(single, (gradient * scale).float(), threshold=0.0), expected)


def test_expert_without_positions_and_unused_slots_do_not_conflict() -> None:
    signal, gradient = gated(2, 5, 3, 10, 3, 3), random(2, 5, 3, 3, seed=3)
    signal = signal._replace(experts=torch.tensor([0, 1, 4]).view(1, 3, 1, 1).expand(2, 3, 3, 3).clone())
    weights = signal.weights.clone()
    weights[:, 2] = 0
    signal = signal._replace(weights=weights)
    conflicts = conflicting_pairs(signal, gradient, threshold=1.0)
    assert conflicts.sum((0, 2, 3)).tolist() == [18, 18, 0, 0, 0]


def test_the_gradient_lowers_the_logit_of_the_present_expert() -> None:
    signal, gradient = gated(2, 4, 1, 10, 3, 3), random(2, 5, 3, 3, seed=3)
    logits = signal.logits.clone().requires_grad_()
    conflicts = conflicting_pairs(signal, gradient, threshold=0.0)
    gradient_conflict_loss(signal._replace(logits=logits), gradient, threshold=0.0).backward()
    assert logits.grad is not None
    present = conflicts.any(1, keepdim=True).expand_as(conflicts)
    assert (logits.grad[conflicts] > 0).all()
    assert (logits.grad[present & ~conflicts] < 0).all()
    assert not logits.grad[~present].any()


def test_results_of_processes_add_up_to_the_loss_of_all_images() -> None:
    signal, gradient = gated(5, 4, 2, 10, 3, 3), random(5, 5, 3, 3, seed=3)
    whole = gradient_conflict_loss(signal, gradient, threshold=0.0)
    parts = [(part_of(signal, part), gradient[part]) for part in (slice(0, 2), slice(2, 5))]
    known: list[Tensor] = []
    while len(known) < 2:  # every sum over the processes needs the ones before it
        values = [sent(part, of_part, known)[len(known)] for part, of_part in parts]
        known.append(values[0] + values[1])
    losses = []
    for part, of_part in parts:
        answers = iter(known)
        losses.append(
            gradient_conflict_loss(
                part, of_part, threshold=0.0, total=lambda _value, answers=answers: next(answers)
            )
        )
    assert all(loss > 0 for loss in losses)
    close(losses[0] + losses[1], whole, 1e-10)


def part_of(signal: GatingOutput, images: slice) -> GatingOutput:
    return GatingOutput(*(v if name == "expert_text" else v[images] for name, v in signal._asdict().items()))


def sent(signal: GatingOutput, gradient: Tensor, known: list[Tensor]) -> list[Tensor]:
    """The values that a process sends, if it gets the known sums and its own values after them."""
    values: list[Tensor] = []

    def total(value: Tensor) -> Tensor:
        values.append(value)
        return known[len(values) - 1] if len(values) <= len(known) else value

    gradient_conflict_loss(signal, gradient, threshold=0.0, total=total)
    return values


def test_off_by_default() -> None:
    assert LossWeights().gradient_conflict == LossWeights().conflict_threshold == 0
