"""Stage 10 against eq. 26, and its closed form of eq. 27 against a gradient a position."""

from __future__ import annotations

import pytest
import torch
from references import close, linear, random, randomised
from torch import Tensor

from dsmoe_core.stages.aggregation import Aggregation


def at(stage: Aggregation, e: Tensor, m: Tensor) -> Tensor:
    """F_out of one position, from F_e and F_MoE there."""
    return linear(e * torch.sigmoid(linear(m, stage.attend)), stage.point)


@pytest.mark.parametrize("letter", [False, True])
@pytest.mark.parametrize(("height", "width"), [(5, 3), (1, 1)])
def test_equals_the_equations(height: int, width: int, letter: bool) -> None:
    stage = randomised(Aggregation(width=6, minimise_cosine=letter)).train()
    f_e, f_moe = random(2, 6, height, width), random(2, 6, height, width, seed=1)
    expected, misaligned = torch.zeros_like(f_e), []
    for b in range(2):
        for y in range(height):
            for x in range(width):
                e, m = (f[b, :, y, x].clone().requires_grad_() for f in (f_e, f_moe))
                out = at(stage, e, m)
                by_e, by_m = torch.autograd.grad(out.sum(), (e, m))
                cosine = by_e.dot(by_m) / (by_e.norm() * by_m.norm())
                misaligned.append(cosine if letter else 1 - cosine)
                expected[b, :, y, x] = out.detach()
    f_out, loss = stage(f_e, f_moe)
    close(f_out, expected, 1e-10)
    close(loss, torch.stack(misaligned).mean(), 1e-6)


def test_the_loss_trains_the_gate_the_projection_and_both_inputs() -> None:
    stage = randomised(Aggregation(width=6)).train()
    f_e, f_moe = (random(1, 6, 3, 3, seed=s).requires_grad_() for s in (0, 1))
    stage(f_e, f_moe).misalignment.backward()
    for reached in (f_e, f_moe, stage.attend.weight, stage.point.weight):
        assert reached.grad is not None
        assert reached.grad.abs().max() > 0


def test_inference_does_not_pay_for_the_loss() -> None:
    stage = randomised(Aggregation(width=6))
    assert stage(random(1, 6, 3, 3), random(1, 6, 3, 3, seed=1)).misalignment == 0
