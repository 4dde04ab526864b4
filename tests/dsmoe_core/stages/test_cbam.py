"""Tests of stage 4 against eq. 6-8 and Woo et al., computed per position."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from references import close, linear, random, randomised
from torch import Tensor

from dsmoe_core.stages.cbam import CBAM


def reference(stage: CBAM, f_enc: Tensor, *, attention_only: bool) -> Tensor:
    """Compute channel, then spatial attention, then normalise over the image.

    With ``attention_only`` as eq. 6 is printed: the product of both attentions, each computed from F_enc.
    """
    out = torch.zeros_like(f_enc)
    for b, image in enumerate(f_enc):
        logits = torch.zeros(len(image), dtype=torch.float64)
        for descriptor in (image.mean((1, 2)), image.flatten(1).max(1).values):
            logits += linear(linear(descriptor, stage.channel[0]).clamp_min(0), stage.channel[2])
        channel_attention = torch.sigmoid(logits)[:, None, None].expand_as(image)
        refined = image if attention_only else image * channel_attention
        pooled = torch.stack([refined.mean(0), refined.max(0).values])
        padded = F.pad(pooled, (3, 3, 3, 3))
        for y in range(image.shape[1]):
            for x in range(image.shape[2]):
                window = padded[:, y : y + 7, x : x + 7]
                logit = (window * stage.spatial.weight[0]).sum() + stage.spatial.bias
                factor = channel_attention if attention_only else refined
                out[b, :, y, x] = factor[:, y, x] * torch.sigmoid(logit)
        if attention_only:
            continue
        centred = out[b] - out[b].mean()
        unit = centred / (centred.square().mean() + 1e-5).sqrt()
        out[b] = unit * stage.norm.weight[:, None, None] + stage.norm.bias[:, None, None]
    return out


@torch.no_grad()
@pytest.mark.parametrize("attention_only", [False, True])
@pytest.mark.parametrize(("channels", "height", "width"), [(8, 5, 7), (80, 4, 9), (8, 1, 1)])
def test_output_equals_channel_then_spatial_attention(
    channels: int, height: int, width: int, attention_only: bool
) -> None:
    stage = randomised(CBAM(width=channels, attention_only=attention_only))
    f_enc = random(2, channels, height, width)
    close(stage(f_enc), reference(stage, f_enc, attention_only=attention_only), 1e-10)
