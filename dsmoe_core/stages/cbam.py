"""Stage 4: CBAM, ``F_cs = F_enc * Gamma_c(F_enc) * Gamma_s(F_enc)`` (eq. 6-8).

Paper: eq. 6 omits the leading F_enc, so the stage would output attention alone. We: follow Woo et al. 2018,
where the spatial attention is computed from the channel-refined map. The literal form is ``attention_only``,
where both attentions are computed from F_enc as in eq. 6.

Two sigmoids shrink the features, in our trainings to a tenth, and stage 5 then saw hardly any. We: normalise
F_cs over channels and positions of an image, which keeps the attention between positions. The literal form
is not normalised.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class CBAM(nn.Module):
    """Channel attention followed by spatial attention.

    Args:
        width: channels of F_enc.
        reduction: factor by which the hidden layer of the channel MLP is narrower.
        attention_only: output the product of the two attentions without the features.
    """

    def __init__(self, *, width: int, reduction: int = 8, attention_only: bool = False) -> None:
        super().__init__()
        self.attention_only = attention_only
        hidden = max(width // reduction, 8)
        self.channel = nn.Sequential(nn.Conv2d(width, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, width, 1))
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)
        self.norm = nn.Identity() if attention_only else nn.GroupNorm(1, width)

    def forward(self, f_enc: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        """Compute F_cs, of the same shape."""
        mean, maximum = f_enc.mean((2, 3), keepdim=True), f_enc.amax((2, 3), keepdim=True)
        channel_attention = torch.sigmoid(self.channel(mean) + self.channel(maximum))
        refined = f_enc if self.attention_only else f_enc * channel_attention
        pooled = torch.cat([refined.mean(1, keepdim=True), refined.amax(1, keepdim=True)], dim=1)
        spatial_attention = torch.sigmoid(self.spatial(pooled))
        out: Tensor = self.norm((channel_attention if self.attention_only else refined) * spatial_attention)
        return out
