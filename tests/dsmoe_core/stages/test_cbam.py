"""Stage 4 against eq. 6-8 and Woo et al., position by position."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from references import close, linear, random, randomised
from torch import Tensor

from dsmoe_core.stages.cbam import CBAM


def attended(stage: CBAM, f_enc: Tensor, *, bare: bool) -> Tensor:
    """``bare``: eq. 6 as printed, the product of the two attentions, both read from F_enc."""
    out = torch.zeros_like(f_enc)
    for b, image in enumerate(f_enc):
        votes = torch.zeros(len(image), dtype=torch.float64)
        for seen in (image.mean((1, 2)), image.flatten(1).max(1).values):
            votes += linear(linear(seen, stage.channel[0]).clamp_min(0), stage.channel[2])
        of_channels = torch.sigmoid(votes)[:, None, None].expand_as(image)
        refined = image if bare else image * of_channels
        two = torch.stack([refined.mean(0), refined.max(0).values])
        framed = F.pad(two, (3, 3, 3, 3))
        for y in range(image.shape[1]):
            for x in range(image.shape[2]):
                window = framed[:, y : y + 7, x : x + 7]
                vote = (window * stage.spatial.weight[0]).sum() + stage.spatial.bias
                out[b, :, y, x] = (of_channels if bare else refined)[:, y, x] * torch.sigmoid(vote)
    return out


@torch.no_grad()
@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize(("width", "height", "across"), [(8, 5, 7), (80, 4, 9), (8, 1, 1)])
def test_equals_channel_then_spatial_attention(width: int, height: int, across: int, bare: bool) -> None:
    stage = randomised(CBAM(width=width, bare=bare))
    f_enc = random(2, width, height, across)
    close(stage(f_enc), attended(stage, f_enc, bare=bare), 1e-10)
