"""Stage 5 against eq. 9-11: image by image and class by class, the ball written out again."""

from __future__ import annotations

import copy

import pytest
import torch
from references import close, linear, random, randomised
from torch import Tensor

from dsmoe_core.outputs import AlignmentOutput
from dsmoe_core.stages.alignment import HyperbolicAlignment


def far(x: Tensor, y: Tensor) -> Tensor:
    """d_H by the arcosh of eq. 12."""
    inner = 2 * (x - y).dot(x - y) / ((1 - x.dot(x)) * (1 - y.dot(y)))
    return torch.acosh(1 + inner)


def towards(x: Tensor, y: Tensor) -> Tensor:
    """Log_x(y): along (-x) (+) y, as long as the metric at x says that the way to y is."""
    m = -x
    above = (1 + 2 * m.dot(y) + y.dot(y)) * m + (1 - m.dot(m)) * y
    moved = above / (1 + 2 * m.dot(y) + m.dot(m) * y.dot(y))
    conformal = 2 / (1 - x.dot(x))
    return far(x, y) / conformal * moved / moved.norm()


def reference(stage: HyperbolicAlignment, f_cs: Tensor, text: Tensor) -> AlignmentOutput:
    """The equations in fp64, whatever the stage's own precision."""
    stage = copy.deepcopy(stage).double()
    batch, _, height, width = f_cs.shape
    classes, n = len(text), stage.anchor.weight.shape[0]
    out = AlignmentOutput(
        torch.zeros(batch, classes, n, dtype=torch.float64),
        torch.zeros(classes, n, dtype=torch.float64),
        torch.zeros(batch, classes, n, dtype=torch.float64),
        torch.zeros(batch, classes, dtype=torch.float64),
        torch.zeros(batch, height, width, classes, dtype=torch.float64),
    )
    for i in range(classes):
        w = stage.anchor.weight @ text[i]
        out.anchors[i] = w / (1 + w.norm())
    for b in range(batch):
        cells = f_cs[b].flatten(1).T
        likeness = linear(cells, stage.key) @ (text @ stage.query.weight.T).T * stage.sharpness
        for i in range(classes):
            strength = torch.exp(likeness[:, i])
            descriptor = sum(s * cell for s, cell in zip(strength / strength.sum(), cells, strict=True))
            v = linear(descriptor, stage.value)
            point = torch.tanh(v.norm()) * v / v.norm()
            out.points[b, i] = point
            out.distance[b, i] = far(out.anchors[i], point)
            at_origin = torch.atanh(point.norm()) * point / point.norm()
            out.fused[b, i] = at_origin + stage.beta * towards(out.anchors[i], point)
        for p in range(height * width):
            share = torch.exp(likeness[p])
            out.affinity[b, p // width, p % width] = share / (share.sum() + torch.exp(stage.nothing))
    return out


@torch.no_grad()
@pytest.mark.parametrize(("classes", "height", "width"), [(1, 5, 3), (4, 3, 5), (6, 1, 1)])
def test_equals_the_equations(classes: int, height: int, width: int) -> None:
    stage = randomised(HyperbolicAlignment(width=10, text_width=12, ball_dim=4)).float()
    f_cs, text = random(2, 10, height, width), random(classes, 12, seed=1)
    expected = reference(stage, f_cs, text)
    assert expected.points.norm(dim=-1).max() < 0.99, "the reference itself needs room to the rim"
    for name, value in stage(f_cs.float(), text.float())._asdict().items():
        close(value, getattr(expected, name), 1e-4)


@torch.no_grad()
def test_the_ball_is_fp32_under_autocast() -> None:
    stage = randomised(HyperbolicAlignment(width=10, text_width=12, ball_dim=4)).float()
    f_cs, text = random(2, 10, 4, 4), random(3, 12, seed=1)
    expected = reference(stage, f_cs, text)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, anchors = stage(f_cs.bfloat16(), text.float()), stage.anchors(text.float())
    assert {v.dtype for v in found} == {torch.float32}
    close(found.anchors, expected.anchors, 1e-6)
    close(anchors, expected.anchors, 1e-6)
    close(found.fused, expected.fused, 0.1)
