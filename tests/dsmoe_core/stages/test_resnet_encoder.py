"""Tests of the ResNet encoder's neck (rows A and B) with a stub backbone."""

from __future__ import annotations

import pytest
import torch
from references import close, normed, pointwise, pooled, random, randomised, resized
from torch import Tensor, nn

from dsmoe_core.stages.resnet_encoder import ResNetEncoder

WIDTHS = {2: 2, 4: 3, 8: 4, 16: 6, 32: 5}


class StubBackbone(nn.Module):
    """Backbone that returns random maps, the stem's first."""

    def __init__(self, batch: int, height: int, width: int) -> None:
        super().__init__()
        self.maps = [random(batch, w, height // s, width // s, seed=s) for s, w in WIDTHS.items()]

    def forward_intermediates(self, images: Tensor, *, intermediates_only: bool) -> list[Tensor]:
        assert intermediates_only
        return [m + images.mean() + 0.5 for m in self.maps]


@torch.no_grad()
@pytest.mark.parametrize("grid", [8, 16])
def test_maps_are_pooled_or_resized_to_one_grid(grid: int) -> None:
    backbone = StubBackbone(2, 64, 96)
    stage = randomised(
        ResNetEncoder(backbone=backbone, widths=list(WIDTHS.values())[1:], grid_stride=grid, width=8)
    )
    images = random(2, 3, 64, 96).sigmoid()
    on_grid = []
    for stride, fine, project in zip(list(WIDTHS)[1:], backbone.maps[1:], stage.project, strict=True):
        fine = fine + images.mean()
        if stride < grid:
            fine = pooled(fine, grid // stride)
        on_grid.append(resized(pointwise(fine, project), 64 // grid, 96 // grid))
    expected = normed(pointwise(torch.cat(on_grid, dim=1), stage.mix[0]), stage.mix[1])
    output = stage(images)
    close(output.f_enc, expected, 1e-10)
    assert [m.shape[1] for m in output.pyramid] == list(WIDTHS.values())[1:]
