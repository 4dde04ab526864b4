"""Stage 4: CBAM, ``F_cs = F_enc * Gamma_c(F_enc) * Gamma_s(F_enc)`` (eq. 6-8).

Paper: eq. 6 omits the leading F_enc; without it the stage puts out attention alone. We: Woo et al. 2018, with
the spatial attention read from the channel-refined map, as there. The letter is ``bare``, where both are read
from F_enc, as eq. 6 writes them.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class CBAM(nn.Module):
    """Channel attention, then spatial attention.

    Args:
        width: channels of F_enc.
        reduction: of the channel MLP's hidden layer.
        bare: leave the features themselves out of the product.
    """

    def __init__(self, *, width: int, reduction: int = 8, bare: bool = False) -> None:
        super().__init__()
        self.bare = bare
        hidden = max(width // reduction, 8)
        self.channel = nn.Sequential(nn.Conv2d(width, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, width, 1))
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, f_enc: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        """F_cs, same shape."""
        mean, peak = f_enc.mean((2, 3), keepdim=True), f_enc.amax((2, 3), keepdim=True)
        of_channels = torch.sigmoid(self.channel(mean) + self.channel(peak))
        refined = f_enc if self.bare else f_enc * of_channels
        pooled = torch.cat([refined.mean(1, keepdim=True), refined.amax(1, keepdim=True)], dim=1)
        of_places = torch.sigmoid(self.spatial(pooled))
        return (of_channels if self.bare else refined) * of_places
