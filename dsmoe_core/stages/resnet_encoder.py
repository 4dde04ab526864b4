"""ResNet-50 encoder with a plain neck, used instead of stage 3 in rows A and B of the ablation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dsmoe_core.outputs import EncoderOutput


class ResNetEncoder(nn.Module):
    """Projects the four feature maps of a ResNet to one width and resizes them to the working grid.

    Args:
        backbone: timm model whose ``forward_intermediates`` returns the map of the stem, then four maps,
            finest first.
        widths: channels of the four maps.
        grid_stride: stride of F_enc in image pixels.
        width: channels of F_enc.
    """

    def __init__(self, *, backbone: nn.Module, widths: Sequence[int], grid_stride: int, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.grid_stride = grid_stride
        self.project = nn.ModuleList(nn.Conv2d(w, width // 2, 1, bias=False) for w in widths)
        self.mix = nn.Sequential(
            nn.Conv2d(width // 2 * len(widths), width, 1, bias=False), nn.BatchNorm2d(width)
        )

    def maps(self, images: Float[Tensor, "b 3 H W"]) -> list[Tensor]:
        """Return the backbone's four maps, finest first."""
        return list(self.backbone.forward_intermediates(images - 0.5, intermediates_only=True)[1:])  # type: ignore[operator]

    def forward(self, images: Float[Tensor, "b 3 H W"], maps: list[Tensor] | None = None) -> EncoderOutput:
        """Compute F_enc.

        Args:
            images: RGB in [0, 1]; H and W are multiples of 32.
            maps: the backbone's maps of these images, if they are already computed.
        """
        pyramid = self.maps(images) if maps is None else maps
        height, width = (s // self.grid_stride for s in images.shape[-2:])
        on_grid = []
        for level, project in zip(pyramid, self.project, strict=True):
            if level.shape[-2] > height:
                on_grid.append(project(F.adaptive_avg_pool2d(level, (height, width))))
            else:
                on_grid.append(
                    F.interpolate(project(level), (height, width), mode="bilinear", align_corners=False)
                )
        return EncoderOutput(self.mix(torch.cat(on_grid, dim=1)), pyramid)
