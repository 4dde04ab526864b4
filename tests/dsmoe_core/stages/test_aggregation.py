"""Tests of stage 10 against eq. 26, and of the closed form of eq. 27 against per-position gradients."""

from __future__ import annotations

import pytest
import torch
from references import close, linear, random, randomised
from torch import Tensor

from dsmoe_core.stages.aggregation import Aggregation


def reference_at_position(stage: Aggregation, e: Tensor, m: Tensor) -> Tensor:
    """Compute F_out of one position from F_e and F_MoE at that position."""
    out = linear(e * torch.sigmoid(linear(m, stage.gate)), stage.project)
    return out if stage.gate_only else out + m


@pytest.mark.parametrize("gate_only", [False, True])
@pytest.mark.parametrize("minimise_cosine", [False, True])
@pytest.mark.parametrize(("height", "width"), [(5, 3), (1, 1)])
def test_output_and_loss_equal_the_equations(
    height: int, width: int, minimise_cosine: bool, gate_only: bool
) -> None:
    stage = Aggregation(width=6, gate_only=gate_only, minimise_cosine=minimise_cosine)
    stage = randomised(stage).train()
    stage.turn.zero_()
    f_e, f_moe = random(2, 6, height, width), random(2, 6, height, width, seed=1)
    for turn in (0, 1, 2):  # another combination of the channels in every step
        expected, losses = torch.zeros_like(f_e), []
        for b in range(2):
            for y in range(height):
                for x in range(width):
                    e, m = (f[b, :, y, x].clone().requires_grad_() for f in (f_e, f_moe))
                    out = reference_at_position(stage, e, m)
                    grad_e, grad_m = torch.autograd.grad(out.dot(stage.combinations[turn]), (e, m))
                    cosine = grad_e.dot(grad_m) / (grad_e.norm() * grad_m.norm())
                    losses.append(cosine if minimise_cosine else 1 - cosine)
                    expected[b, :, y, x] = out.detach()
        f_out, loss = stage(f_e, f_moe)
        close(f_out, expected, 1e-10)
        close(loss, torch.stack(losses).mean(), 1e-6)


def test_combinations_are_orthonormal_and_taken_in_turn() -> None:
    stage = Aggregation(width=6).double().train()
    close(stage.combinations @ stage.combinations.T, torch.eye(6).double(), 1e-6)
    for _ in range(8):
        stage(random(1, 6, 2, 2), random(1, 6, 2, 2, seed=1))
    assert int(stage.turn) == 8 % 6


def test_loss_has_gradients_for_gate_projection_and_both_inputs() -> None:
    stage = randomised(Aggregation(width=6)).train()
    f_e, f_moe = (random(1, 6, 3, 3, seed=s).requires_grad_() for s in (0, 1))
    stage(f_e, f_moe).misalignment.backward()
    for tensor in (f_e, f_moe, stage.gate.weight, stage.project.weight):
        assert tensor.grad is not None
        assert tensor.grad.abs().max() > 0


def test_loss_is_zero_in_evaluation_mode() -> None:
    stage = randomised(Aggregation(width=6))
    assert stage(random(1, 6, 3, 3), random(1, 6, 3, 3, seed=1)).misalignment == 0
