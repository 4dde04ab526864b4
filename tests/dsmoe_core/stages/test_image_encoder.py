"""Tests of stage 3 against eq. 3-5, with a stub backbone and gradient-aware pooling per window."""

from __future__ import annotations

import math

import pytest
import torch
from references import anisotropic, close, normed, pointwise, random, randomised, resized, same
from torch import Tensor, nn

from dsmoe_core.stages.image_encoder import ImageEncoder, gradient_aware_pool, resolution_factor

WIDTHS, STRIDES = (3, 4, 6, 5), (4, 8, 16, 32)


class StubBackbone(nn.Module):
    """Backbone that returns four random maps and records its inputs."""

    def __init__(self, batch: int, height: int, width: int) -> None:
        super().__init__()
        self.maps = [
            random(batch, w, height // s, width // s, seed=s) * 100
            for w, s in zip(WIDTHS, STRIDES, strict=True)
        ]
        self.inputs: list[Tensor] = []

    def forward_intermediates(self, images: Tensor, *, intermediates_only: bool) -> list[Tensor]:
        assert intermediates_only
        self.inputs.append(images)
        return self.maps


def factor_reference(image: Tensor, stride: int) -> Tensor:
    """Compute s of eq. 5 (h, w) from the largest 3 x 3 mean of |grad I| within each cell."""
    grey = image.mean(0)
    height, width = grey.shape
    gradient = torch.zeros_like(grey)
    for y in range(height):
        for x in range(width):
            down = abs(float(grey[y + 1, x] - grey[y, x])) if y + 1 < height else 0.0
            right = abs(float(grey[y, x + 1] - grey[y, x])) if x + 1 < width else 0.0
            gradient[y, x] = down + right
    out = torch.zeros(height // stride, width // stride, dtype=torch.float64)
    for i in range(height // stride):
        for j in range(width // stride):
            energy = 0.0
            for y in range(i * stride, (i + 1) * stride):
                for x in range(j * stride, (j + 1) * stride):
                    window = gradient[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
                    energy = max(energy, float(window.mean()))
            out[i, j] = 2 ** math.floor(math.log2(1 + energy / 0.25))
    return out


def pool_reference(fine: Tensor, ratio: int, resolution: Tensor, *, as_stride: bool) -> Tensor:
    """Interpolate between mean and maximum of each window according to s of the cell; returns (d, h, w)."""
    height, width = resolution.shape
    out = torch.zeros(len(fine), height, width, dtype=torch.float64)
    for i in range(height):
        for j in range(width):
            window = fine[:, i * ratio : (i + 1) * ratio, j * ratio : (j + 1) * ratio].flatten(1)
            detail = min(max((float(resolution[i, j]) - 1) / (ratio - 1), 0.0), 1.0)
            detail = 1 - detail if as_stride else detail
            out[:, i, j] = (1 - detail) * window.mean(1) + detail * window.max(1).values
    return out


def reference(stage: ImageEncoder, images: Tensor, maps: list[Tensor], grid: int) -> Tensor:
    size = (images.shape[2] // grid, images.shape[3] // grid)
    on_grid = []
    for level, (fine, stride) in enumerate(zip(maps, STRIDES, strict=True)):
        if stride < grid:
            fine = torch.stack(
                [
                    pool_reference(f, grid // stride, factor_reference(i, grid), as_stride=stage.as_stride)
                    for f, i in zip(fine, images, strict=True)
                ]
            )
        block, refine = stage.anisotropic[level], stage.refine[level]
        assert block.dilation == 2**level
        mixed = pointwise(same(anisotropic(fine, block), refine[0]), refine[1])
        features = normed(mixed, refine[2])
        assert features.max() > 6, "the upper limit of ReLU6 must take effect"
        on_grid.append(resized(features.clamp(0, 6), *size))
    return normed(pointwise(torch.cat(on_grid, dim=1), stage.mix[0]), stage.mix[1])


def random_images(height: int, width: int) -> Tensor:
    """Make images that are flat on the left and full of edges on the right, for many resolution factors."""
    rough = random(2, 1, height, width).sign() / 2 + random(2, 3, height, width, seed=1) * 0.1
    contrast = torch.linspace(0, 1, width, dtype=torch.float64)
    return (0.5 + rough * contrast).clamp(0, 1)


@torch.no_grad()
@pytest.mark.parametrize(("grid", "as_stride"), [(4, False), (8, False), (16, False), (8, True)])
def test_output_equals_the_equations(grid: int, as_stride: bool) -> None:
    backbone = StubBackbone(2, 32, 96)
    stage = randomised(
        ImageEncoder(
            backbone=backbone,
            widths=WIDTHS,
            strides=STRIDES,
            grid_stride=grid,
            width=8,
            as_stride=as_stride,
        )
    )
    images = random_images(32, 96)
    output = stage(images)
    close(output.f_enc, reference(stage, images, backbone.maps, grid), 1e-9)
    assert all(a is b for a, b in zip(output.pyramid, backbone.maps, strict=True))
    close(backbone.inputs[0], images - 0.5, 0)


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_resolution_factor_is_the_power_of_two_of_eq_5(stride: int) -> None:
    images = random_images(24, 48)
    expected = torch.stack([factor_reference(image, stride) for image in images])[:, None]
    assert {1.0, 2.0, 4.0} <= set(expected.unique().tolist())
    close(resolution_factor(images, stride), expected, 0)


@pytest.mark.parametrize("as_stride", [False, True])
@pytest.mark.parametrize("ratio", [2, 4])
def test_pooling_interpolates_between_mean_and_maximum_by_resolution(ratio: int, as_stride: bool) -> None:
    fine = random(2, 5, 3 * ratio, 7 * ratio)
    resolution = 2.0 ** torch.randint(0, 4, (2, 1, 3, 7), generator=torch.Generator().manual_seed(0)).double()
    expected = torch.stack(
        [pool_reference(f, ratio, r[0], as_stride=as_stride) for f, r in zip(fine, resolution, strict=True)]
    )
    close(gradient_aware_pool(fine, ratio, resolution, as_stride=as_stride), expected, 1e-12)
