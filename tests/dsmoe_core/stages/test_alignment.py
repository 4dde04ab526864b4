"""Tests of stage 5 against eq. 9-11, computed per image and class with the ball's formulas written out."""

from __future__ import annotations

import copy

import pytest
import torch
from references import close, linear, random, randomised
from torch import Tensor

from dsmoe_core.outputs import AlignmentOutput
from dsmoe_core.stages.alignment import HyperbolicAlignment


def reference_distance(x: Tensor, y: Tensor) -> Tensor:
    """Compute d_H by the arcosh of eq. 12."""
    inner = 2 * (x - y).dot(x - y) / ((1 - x.dot(x)) * (1 - y.dot(y)))
    return torch.acosh(1 + inner)


def reference_log(x: Tensor, y: Tensor) -> Tensor:
    """Compute Log_x(y): direction of (-x) (+) y, length d_H(x, y) measured with the metric at x."""
    m = -x
    numerator = (1 + 2 * m.dot(y) + y.dot(y)) * m + (1 - m.dot(m)) * y
    direction = numerator / (1 + 2 * m.dot(y) + m.dot(m) * y.dot(y))
    conformal = 2 / (1 - x.dot(x))
    return reference_distance(x, y) / conformal * direction / direction.norm()


def reference(stage: HyperbolicAlignment, f_cs: Tensor, text: Tensor) -> AlignmentOutput:
    """Compute the equations in fp64, whatever the precision of the stage."""
    stage = copy.deepcopy(stage).double()
    batch, _, height, width = f_cs.shape
    classes, n = len(text), stage.anchor.weight.shape[0]
    out = AlignmentOutput(
        torch.zeros(batch, classes, n, dtype=torch.float64),
        torch.zeros(classes, n, dtype=torch.float64),
        torch.zeros(batch, classes, n, dtype=torch.float64),
        torch.zeros(batch, classes, dtype=torch.float64),
        torch.zeros(batch, height, width, classes + 1, dtype=torch.float64),
    )
    for i in range(classes):
        w = stage.anchor.weight @ text[i]
        out.anchors[i] = w / (1 + w.norm())
    for b in range(batch):
        cells = f_cs[b].flatten(1).T
        logits = linear(cells, stage.key) @ (text @ stage.query.weight.T).T * stage.logit_scale
        for i in range(classes):
            weights = torch.exp(logits[:, i])
            descriptor = sum(s * cell for s, cell in zip(weights / weights.sum(), cells, strict=True))
            v = linear(descriptor, stage.value)
            point = torch.tanh(v.norm()) * v / v.norm()
            out.points[b, i] = point
            out.distance[b, i] = reference_distance(out.anchors[i], point)
            at_origin = torch.atanh(point.norm()) * point / point.norm()
            out.fused[b, i] = at_origin + stage.beta * reference_log(out.anchors[i], point)
        for p in range(height * width):
            weights = torch.exp(torch.cat([logits[p], stage.background_logit.reshape(1)]))
            out.log_affinity[b, p // width, p % width] = (weights / weights.sum()).log()
    return out


@torch.no_grad()
@pytest.mark.parametrize(("classes", "height", "width"), [(1, 5, 3), (4, 3, 5), (6, 1, 1)])
def test_output_equals_the_equations(classes: int, height: int, width: int) -> None:
    stage = randomised(HyperbolicAlignment(width=10, text_width=12, ball_dim=4)).float()
    f_cs, text = random(2, 10, height, width), random(classes, 12, seed=1)
    expected = reference(stage, f_cs, text)
    assert expected.points.norm(dim=-1).max() < 0.99, "the reference is inaccurate near the boundary"
    for name, value in stage(f_cs.float(), text.float())._asdict().items():
        close(value, getattr(expected, name), 1e-4)


@torch.no_grad()
def test_ball_is_computed_in_fp32_under_autocast() -> None:
    stage = randomised(HyperbolicAlignment(width=10, text_width=12, ball_dim=4)).float()
    f_cs, text = random(2, 10, 4, 4), random(3, 12, seed=1)
    expected = reference(stage, f_cs, text)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, anchors = stage(f_cs.bfloat16(), text.float()), stage.anchors(text.float())
    assert {v.dtype for v in output} == {torch.float32}
    close(output.anchors, expected.anchors, 1e-6)
    close(anchors, expected.anchors, 1e-6)
    close(output.fused, expected.fused, 0.1)
