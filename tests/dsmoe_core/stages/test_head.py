"""Tests of the head against eq. 28-30, with SPPF and C2F by their definitions and logits per class."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from references import cbs, close, linear, pointwise, random, randomised, resized
from torch import Tensor

from dsmoe_core.outputs import LevelOutput
from dsmoe_core.stages.head import C2F, PRIOR, SPPF, Head, HeadLevel


def c2f_reference(block: C2F, x: Tensor) -> Tensor:
    projected = cbs(x, block.project_in)
    half = projected.shape[1] // 2
    second = projected[:, half:]
    refined = cbs(cbs(second, block.refine[0]), block.refine[1])
    return cbs(torch.cat([projected[:, :half], second, second + refined], dim=1), block.project_out)


def sppf_reference(block: SPPF, x: Tensor) -> Tensor:
    """Concatenate the map and its maxima over 5 x 5, 9 x 9 and 13 x 13 cells, clipped to the image."""
    projected = cbs(x, block.project_in)
    maps = [projected]
    for reach in (2, 4, 6):
        peak = torch.zeros_like(projected)
        for y in range(x.shape[2]):
            for z in range(x.shape[3]):
                rows, columns = (
                    slice(max(y - reach, 0), y + reach + 1),
                    slice(max(z - reach, 0), z + reach + 1),
                )
                peak[:, :, y, z] = projected[:, :, rows, columns].amax((2, 3))
        maps.append(peak)
    return cbs(torch.cat(maps, dim=1), block.project_out)


def average_pooled(x: Tensor, height: int, width: int) -> Tensor:
    """Compute each cell as the mean of all input cells that it overlaps."""
    out = torch.zeros(*x.shape[:2], height, width, dtype=torch.float64)
    for i in range(height):
        for j in range(width):
            rows = slice(i * x.shape[2] // height, math.ceil((i + 1) * x.shape[2] / height))
            columns = slice(j * x.shape[3] // width, math.ceil((j + 1) * x.shape[3] / width))
            out[:, :, i, j] = x[:, :, rows, columns].mean((2, 3))
    return out


def reference(level: HeadLevel, f_out: Tensor, encoded: Tensor, embeddings: Tensor) -> LevelOutput:
    height, width = encoded.shape[-2:]
    f_out = average_pooled(f_out, height, width) if f_out.shape[-1] > width else f_out
    normed = resized(cbs(f_out, level.norm), height, width)
    shallow = [] if level.shallow is None else [cbs(encoded, level.shallow)]
    fused = c2f_reference(level.fuse, torch.cat([normed, *shallow], dim=1))
    pooled = sppf_reference(level.class_branch[0], fused)
    embedded = pointwise(cbs(pooled, level.class_branch[1]), level.embed)
    logits = torch.zeros(len(f_out), len(embeddings), height, width, dtype=torch.float64)
    for c, embedding in enumerate(embeddings):
        similarity = (embedded * embedding[:, None, None]).sum(1)
        logits[:, c] = similarity * torch.exp(level.scale) + level.bias
    sides = pointwise(cbs(cbs(fused, level.box_branch[0]), level.box_branch[1]), level.box)
    return LevelOutput(level.stride, logits, torch.log(1 + torch.exp(sides)) * level.stride)


def unit(rows: Tensor) -> Tensor:
    return torch.stack([row / row.norm() for row in rows])


@torch.no_grad()
@pytest.mark.parametrize("classes", [1, 4])
def test_output_equals_the_equations_at_every_stride(classes: int) -> None:
    """The levels have a finer grid than F_out, the same, and a coarser one."""
    stage = randomised(Head(width=6, text_width=10, encoded={4: 3, 8: 4, 16: 5}, hidden=8, embedding=7))
    f_out, text = random(2, 6, 6, 10), random(classes, 10, seed=1)
    shallow = [random(2, 3, 12, 20, seed=2), random(2, 4, 6, 10, seed=3), random(2, 5, 3, 5, seed=4)]
    embeddings = unit(linear(text, stage.text_projection))
    for output, level, side in zip(stage(f_out, shallow, text), stage.levels, shallow, strict=True):
        expected = reference(level, f_out, side, embeddings)
        assert output.stride == expected.stride
        assert level.embed.in_channels == (4 if output.stride == 4 else 8)  # the tiny-object head is narrower
        assert (level.shallow is not None) == (output.stride == 4)
        close(output.logits, expected.logits, 1e-5)
        close(output.distances, expected.distances, 1e-5)


@torch.no_grad()
@pytest.mark.parametrize("channels", [3, None])
@pytest.mark.parametrize(("height", "width"), [(9, 7), (1, 3)])
def test_output_equals_the_equations_for_odd_map_sizes(height: int, width: int, channels: int | None) -> None:
    level = randomised(HeadLevel(width=6, shallow=channels, hidden=8, embedding=7, stride=8))
    f_out, shallow = random(2, 6, height + 2, width + 4), random(2, 3, height, width, seed=1)
    embeddings = unit(random(3, 7, seed=2))
    expected, output = reference(level, f_out, shallow, embeddings), level(f_out, shallow, embeddings)
    close(output.logits, expected.logits, 1e-5)
    close(output.distances, expected.distances, 1e-5)


@torch.no_grad()
def test_sppf_and_c2f_equal_their_definitions() -> None:
    x = random(2, 8, 15, 9)
    sppf, c2f = randomised(SPPF(8)), randomised(C2F(8, 6))
    close(sppf(x), sppf_reference(copy.deepcopy(sppf), x), 1e-10)
    close(c2f(x), c2f_reference(copy.deepcopy(c2f), x), 1e-10)


@torch.no_grad()
def test_initial_probability_of_every_class_is_the_prior() -> None:
    torch.manual_seed(0)
    level = HeadLevel(width=6, shallow=3, hidden=8, embedding=64, stride=8).eval()
    embeddings = unit(random(3, 64)).float()
    logits = level(torch.zeros(1, 6, 4, 4), torch.zeros(1, 3, 4, 4), embeddings * 0).logits
    close(logits.sigmoid(), torch.full((1, 3, 4, 4), PRIOR).double(), 1e-6)
