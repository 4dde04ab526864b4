"""The head against eq. 28-30: SPPF and C2F by their definitions, logits class by class."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from references import cbs, close, linear, pointwise, random, randomised, resized
from torch import Tensor

from dsmoe_core.outputs import LevelOutput
from dsmoe_core.stages.head import C2F, PRIOR, SPPF, Head, HeadLevel


def split_and_joined(block: C2F, x: Tensor) -> Tensor:
    entered = cbs(x, block.enter)
    half = entered.shape[1] // 2
    rest = entered[:, half:]
    refined = cbs(cbs(rest, block.refine[0]), block.refine[1])
    return cbs(torch.cat([entered[:, :half], rest, rest + refined], dim=1), block.leave)


def pyramid(block: SPPF, x: Tensor) -> Tensor:
    """The map beside its maxima over 5 x 5, 9 x 9 and 13 x 13 cells, as far as they are in the image."""
    entered = cbs(x, block.enter)
    maps = [entered]
    for reach in (2, 4, 6):
        peak = torch.zeros_like(entered)
        for y in range(x.shape[2]):
            for z in range(x.shape[3]):
                window = entered[:, :, max(y - reach, 0) : y + reach + 1, max(z - reach, 0) : z + reach + 1]
                peak[:, :, y, z] = window.amax((2, 3))
        maps.append(peak)
    return cbs(torch.cat(maps, dim=1), block.leave)


def shrunk(x: Tensor, height: int, width: int) -> Tensor:
    """Each cell the mean of all cells that it touches."""
    out = torch.zeros(*x.shape[:2], height, width, dtype=torch.float64)
    for i in range(height):
        for j in range(width):
            rows = slice(i * x.shape[2] // height, math.ceil((i + 1) * x.shape[2] / height))
            columns = slice(j * x.shape[3] // width, math.ceil((j + 1) * x.shape[3] / width))
            out[:, :, i, j] = x[:, :, rows, columns].mean((2, 3))
    return out


def reference(level: HeadLevel, f_out: Tensor, shallow: Tensor, words: Tensor) -> LevelOutput:
    height, width = shallow.shape[-2:]
    f_out = shrunk(f_out, height, width) if f_out.shape[-1] > width else f_out
    normed = resized(cbs(f_out, level.norm), height, width)
    fused = split_and_joined(level.fuse, torch.cat([normed, shallow], dim=1))
    embedded = pointwise(cbs(pyramid(level.class_branch[0], fused), level.class_branch[1]), level.embed)
    logits = torch.zeros(len(f_out), len(words), height, width, dtype=torch.float64)
    for c, word in enumerate(words):
        likeness = (embedded * word[:, None, None]).sum(1)
        logits[:, c] = likeness * torch.exp(level.scale) + level.bias
    sides = pointwise(cbs(cbs(fused, level.box_branch[0]), level.box_branch[1]), level.box)
    return LevelOutput(level.stride, logits, torch.log(1 + torch.exp(sides)) * level.stride)


def unit(rows: Tensor) -> Tensor:
    return torch.stack([row / row.norm() for row in rows])


@torch.no_grad()
@pytest.mark.parametrize("classes", [1, 4])
def test_equals_the_equations_at_every_stride(classes: int) -> None:
    """A finer, the same and a coarser grid than that of F_out."""
    stage = randomised(Head(width=6, text_width=10, shallow={4: 3, 8: 4, 16: 5}, hidden=8, embedding=7))
    f_out, text = random(2, 6, 6, 10), random(classes, 10, seed=1)
    shallow = [random(2, 3, 12, 20, seed=2), random(2, 4, 6, 10, seed=3), random(2, 5, 3, 5, seed=4)]
    words = unit(linear(text, stage.words))
    for found, level, side in zip(stage(f_out, shallow, text), stage.levels, shallow, strict=True):
        expected = reference(level, f_out, side, words)
        assert found.stride == expected.stride
        assert level.embed.in_channels == (4 if found.stride == 4 else 8)  # the tiny-object head
        close(found.logits, expected.logits, 1e-5)
        close(found.distances, expected.distances, 1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(9, 7), (1, 3)])
def test_odd_maps(height: int, width: int) -> None:
    level = randomised(HeadLevel(width=6, shallow=3, hidden=8, embedding=7, stride=8))
    f_out, shallow = random(2, 6, height + 2, width + 4), random(2, 3, height, width, seed=1)
    words = unit(random(3, 7, seed=2))
    expected, found = reference(level, f_out, shallow, words), level(f_out, shallow, words)
    close(found.logits, expected.logits, 1e-5)
    close(found.distances, expected.distances, 1e-5)


@torch.no_grad()
def test_sppf_and_c2f_alone() -> None:
    x = random(2, 8, 15, 9)
    sppf, c2f = randomised(SPPF(8)), randomised(C2F(8, 6))
    close(sppf(x), pyramid(copy.deepcopy(sppf), x), 1e-10)
    close(c2f(x), split_and_joined(copy.deepcopy(c2f), x), 1e-10)


@torch.no_grad()
def test_before_training_every_class_is_as_rare_as_the_prior_says() -> None:
    torch.manual_seed(0)
    level = HeadLevel(width=6, shallow=3, hidden=8, embedding=64, stride=8).eval()
    words = unit(random(3, 64)).float()
    logits = level(torch.zeros(1, 6, 4, 4), torch.zeros(1, 3, 4, 4), words * 0).logits
    close(logits.sigmoid(), torch.full((1, 3, 4, 4), PRIOR).double(), 1e-6)
