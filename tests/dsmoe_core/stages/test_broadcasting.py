"""Tests of stage 6 against eq. 14-19, computed per scale, position and tap."""

from __future__ import annotations

import math

import pytest
import torch
from references import (
    aligned,
    anisotropic,
    bilinear,
    close,
    linear,
    normed,
    pointwise,
    pooled,
    random,
    randomised,
    spread,
)
from torch import Tensor

from dsmoe_core.outputs import AlignmentOutput
from dsmoe_core.stages.broadcasting import (
    MAX_DILATION,
    MAX_ROTATION,
    ScaleBranch,
    SpaceBroadcasting,
    sample_taps,
)

TAPS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]


def reference_taps(
    features: Tensor, length: Tensor, rotation: Tensor, dilation: Tensor, step: float
) -> Tensor:
    """Sample every tap of every position of one image; returns (k, d, h, w)."""
    height, width = length.shape[-2:]
    rows, columns = features.shape[-2:]
    out = torch.zeros(len(TAPS), len(features), height, width, dtype=torch.float64)
    for k, (dy, dx) in enumerate(TAPS):
        for i in range(height):
            for j in range(width):
                offset, r = float(length[k, i, j]), float(dilation[i, j])
                angle = math.atan2(dy, dx) + float(rotation[k, i, j])
                if (dy, dx) == (0, 0):
                    offset = 0.0
                y = i + step * (r * dy + offset * math.sin(angle))
                x = j + step * (r * dx + offset * math.cos(angle))
                # A pooled map covers the same area as the grid that it was pooled from.
                y, x = (y + 0.5) * rows / height - 0.5, (x + 0.5) * columns / width - 0.5
                out[k, :, i, j] = bilinear(features, y, x)
    return out


def reference_branch(
    branch: ScaleBranch, psi: Tensor, context: Tensor, gate: Tensor, distance: Tensor
) -> Tensor:
    """Compute G_s * D_s of one scale."""
    features = pointwise(psi, branch.reduce)
    if branch.scale < 1:
        features = pooled(features, round(1 / branch.scale))
    polar = anisotropic(context, branch.offsets)
    length, rotation = torch.sigmoid(polar[:, :9]), torch.tanh(polar[:, 9:]) * math.radians(15)
    dilation = torch.clamp(1 + distance[:, 0] / torch.exp(branch.log_delta), max=3.0)
    dilation = torch.floor(dilation) if branch.floor_dilation else dilation
    gates = torch.sigmoid(pointwise(gate, branch.gate))
    modulated = torch.stack(
        [
            reference_taps(features[b], length[b], rotation[b], dilation[b], 1 / branch.scale)
            * gates[b, :, None]
            for b in range(len(psi))
        ]
    )
    kernel = branch.mix.weight.reshape(-1, 9, features.shape[1])
    return torch.einsum("okd,bkdhw->bohw", kernel, modulated)


def reference(stage: SpaceBroadcasting, f_cs: Tensor, signal: AlignmentOutput, text: Tensor) -> Tensor:
    length = signal.fused.norm(dim=-1, keepdim=True)
    inside = length.clamp(max=1 - 1e-5)  # Log_0 is defined inside the ball only
    tangent = torch.atanh(inside) / length * signal.fused if stage.log_mapped else signal.fused
    gamma = linear(tangent, stage.gamma)
    text_features = linear(text, stage.text)
    psi = torch.cat([f_cs, spread(signal, gamma)], dim=1)
    mean = signal.fused.mean(1)[:, :, None, None].expand(-1, -1, *f_cs.shape[-2:])
    context = torch.cat([mean, spread(signal, text_features.expand_as(gamma))], dim=1)
    gate, distance = spread(signal, gamma * text_features), spread(signal, signal.distance[..., None])
    total = sum(reference_branch(branch, psi, context, gate, distance) for branch in stage.scales)
    return f_cs + normed(total, stage.norm)


@torch.no_grad()
@pytest.mark.parametrize("literal", [{}, {"floor_dilation": True}, {"log_mapped": True}])
@pytest.mark.parametrize(("classes", "height", "width"), [(1, 4, 6), (3, 5, 3)])
def test_output_equals_the_equations(classes: int, height: int, width: int, literal: dict[str, bool]) -> None:
    stage = randomised(SpaceBroadcasting(width=8, text_width=10, ball_dim=4, **literal))
    f_cs, text = random(2, 8, height, width), random(classes, 10, seed=1)
    signal = aligned(2, classes, 4, height, width)
    output = stage(f_cs, signal._replace(distance=signal.distance.float()), text)
    close(output, reference(stage, f_cs, signal, text), 1e-5)


@torch.no_grad()
@pytest.mark.parametrize("step", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("coarse", [(5, 7), (3, 4)])
def test_taps_sample_the_map_at_their_offsets(step: float, coarse: tuple[int, int]) -> None:
    features = random(2, 3, *coarse)
    length, rotation = random(2, 9, 5, 7, seed=1), random(2, 9, 5, 7, seed=2)
    dilation = random(2, 1, 5, 7, seed=3).abs() + 1
    samples = sample_taps(features, length, rotation, dilation, step)
    for b in range(2):
        expected = reference_taps(features[b], length[b], rotation[b], dilation[b, 0], step)
        close(samples[b].transpose(0, 1), expected, 1e-10)


@torch.no_grad()
def test_rotation_and_dilation_are_bounded_for_extreme_inputs() -> None:
    assert math.isclose(MAX_ROTATION, math.radians(15))
    branch = randomised(ScaleBranch(inputs=8, outputs=8, context=5, gate=2, scale=1.0, floor_dilation=False))
    psi, gate = random(2, 8, 4, 4), random(2, 2, 4, 4, seed=1)
    context, distance = random(2, 5, 4, 4, seed=2) * 1e3, torch.full((2, 1, 4, 4), 1e3)
    expected = reference_branch(branch, psi, context, gate, distance.double())
    close(branch(psi, context, gate, distance), expected, 1e-5)
    close(branch(psi, context, gate, distance * 1e3), expected, 1e-5)
    assert MAX_DILATION == 3


def test_gradients_of_features_offsets_and_dilation_are_correct() -> None:
    """Uses positions between cell centres, where bilinear sampling is differentiable."""
    features = random(1, 2, 4, 5).requires_grad_()
    length = (random(1, 9, 3, 4, seed=1).tanh() * 0.1 + 0.25).requires_grad_()
    rotation = (random(1, 9, 3, 4, seed=2).tanh() * 0.1).requires_grad_()
    dilation = (random(1, 1, 3, 4, seed=3).tanh() * 0.05 + 1.2).requires_grad_()

    def taps(f: Tensor, n: Tensor, t: Tensor, r: Tensor) -> Tensor:
        return sample_taps(f, n, t, r, 1.0)

    assert torch.autograd.gradcheck(taps, (features, length, rotation, dilation))


def test_floored_dilation_has_a_straight_through_gradient() -> None:
    """The output is constant between integer dilations, but delta still gets a gradient."""
    branch = randomised(ScaleBranch(inputs=8, outputs=8, context=5, gate=2, scale=1.0, floor_dilation=True))
    inputs = random(1, 8, 5, 5), random(1, 5, 5, 5, seed=1), random(1, 2, 5, 5, seed=2)
    with torch.no_grad():
        branch.log_delta.zero_()
    distances = [torch.full((1, 1, 5, 5), r, requires_grad=True) for r in (0.2, 0.8, 1.1)]
    first, same, larger = (branch(*inputs, distance) for distance in distances)
    close(first, same, 1e-6)
    assert not torch.allclose(first, larger)
    same.square().sum().backward()
    assert distances[1].grad is not None
    assert distances[1].grad.abs().max() > 0
    assert branch.log_delta.grad
