"""Instead of stage 3 in rows A and B of the ablation: ResNet-50 and a plain neck."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dsmoe_core.outputs import EncoderOutput


class ResNetEncoder(nn.Module):
    """ResNet's four maps, each brought to one width by a 1 x 1 convolution and to the working grid.

    Args:
        backbone: gives the maps by ``forward_intermediates`` (timm), the stem's first, then finest first.
        widths: channels of the four maps after the stem's.
        grid_stride: stride of F_enc.
        width: channels of F_enc.
    """

    def __init__(self, *, backbone: nn.Module, widths: Sequence[int], grid_stride: int, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.grid_stride = grid_stride
        self.bring = nn.ModuleList(nn.Conv2d(w, width // 2, 1, bias=False) for w in widths)
        self.mix = nn.Sequential(
            nn.Conv2d(width // 2 * len(widths), width, 1, bias=False), nn.BatchNorm2d(width)
        )

    def maps(self, images: Float[Tensor, "b 3 H W"]) -> list[Tensor]:
        """The backbone's four maps, finest first."""
        return list(self.backbone.forward_intermediates(images - 0.5, intermediates_only=True)[1:])  # type: ignore[operator]

    def forward(self, images: Float[Tensor, "b 3 H W"], maps: list[Tensor] | None = None) -> EncoderOutput:
        """F_enc; ``images`` are RGB in [0, 1], H and W multiples of 32; ``maps`` are theirs, where known."""
        pyramid = self.maps(images) if maps is None else maps
        height, width = (s // self.grid_stride for s in images.shape[-2:])
        on_grid = []
        for level, bring in zip(pyramid, self.bring, strict=True):
            if level.shape[-2] > height:
                on_grid.append(bring(F.adaptive_avg_pool2d(level, (height, width))))
            else:
                on_grid.append(
                    F.interpolate(bring(level), (height, width), mode="bilinear", align_corners=False)
                )
        return EncoderOutput(self.mix(torch.cat(on_grid, dim=1)), pyramid)
