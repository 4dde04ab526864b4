"""Stage 9: heterogeneous ensembling (eq. 25).

``F_e = sum_{k=1..3} D_k(F_g) * K_{k x 1} + Conv3x3(F_b (+) T^)``:
``D_k`` dilates by k, ``F_g`` are the gated features, and T^ is spread over space by the class-position
affinity.

Paper: the sum needs equal widths, but the text says that the result has C_g + C_b channels. We: concatenate
the two parts and project them. The literal form of the equation is ``summed``, with both parts of one width.

F_g is F_b with channel weights computed from the router's whole distribution, not from the top-k alone. So
the router also gets a gradient from experts that were not selected.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dsmoe_core.convolution import on_phases
from dsmoe_core.outputs import AlignmentOutput, GatingOutput


class ChannelScale(nn.Conv2d):
    """Depthwise 1 x 1 convolution, computed as a product: PyTorch's CPU kernel calls one GEMM per channel."""

    def forward(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        """Multiply every channel by its weight."""
        return x * self.weight[:, 0].to(x.dtype)


class HeterogeneousEnsemble(nn.Module):
    """Dilated column kernels in parallel with a convolution over image and text features.

    Args:
        width: channels of F_b and F_e.
        text_width: d_t, width of the class embeddings.
        text_channels: channels of T^ after its projection.
        experts: N_e, number of experts.
        summed: add the two parts instead of concatenating them.
    """

    def __init__(
        self, *, width: int, text_width: int, text_channels: int, experts: int, summed: bool = False
    ) -> None:
        super().__init__()
        self.summed = summed
        half = width if summed else width // 2
        self.gate = nn.Conv2d(experts, width, 1)
        self.columns = nn.ModuleList(
            nn.Sequential(
                nn.ZeroPad2d((0, 0, (k - 1) // 2, k // 2)),
                (nn.Conv2d if k > 1 else ChannelScale)(width, width, (k, 1), groups=width, bias=False),
            )
            for k in (1, 2, 3)
        )
        self.text_projection = nn.Linear(text_width, text_channels)
        self.textual = nn.Sequential(
            nn.Conv2d(width + text_channels, half, 1, bias=False),
            nn.Conv2d(half, half, 3, padding=1, bias=False),
            nn.BatchNorm2d(half),
        )
        joined = width if summed else width + half
        self.project = nn.Sequential(
            nn.Conv2d(joined, width, 1, bias=False), nn.BatchNorm2d(width), nn.SiLU()
        )

    def forward(
        self,
        f_b: Float[Tensor, "b d h w"],
        text: Float[Tensor, "c t"],
        aligned: AlignmentOutput,
        gated: GatingOutput,
    ) -> Float[Tensor, "b d h w"]:
        """Compute the ensemble features F_e from F_b, class texts, alignment and gating."""
        channel_weights = torch.sigmoid(self.gate(gated.probabilities))
        f_g = f_b * channel_weights.to(f_b.dtype)
        columns = torch.stack(
            [on_phases(conv, f_g, rows=k, columns=1) for k, conv in enumerate(self.columns, start=1)]
        ).sum(0)
        text_map = aligned.spread(self.text_projection(text))
        textual = self.textual(torch.cat([f_b, text_map], dim=1))
        joined = columns + textual if self.summed else torch.cat([columns, textual], dim=1)
        out: Tensor = self.project(joined)
        return out
