"""Stage 3: MobileSAM encoder, ``F_enc = (+)_l psi_l(DSConv_l(phi_l(I)))``, l = 1..4 (eq. 3-5).

- ``phi_l``: the four stages of TinyViT, MobileSAM's image encoder, at strides 4, 8, 16, 32.
- ``DSConv_l``: depthwise ``3 x 1`` and ``1 x 3``, dilation ``2^(l-1)`` (eq. 4).
- ``psi_l``: depthwise-separable convolution and ReLU6.
- (+): all four resampled to the working grid, concatenated, and mixed to one width.

Gradient-aware pooling (eq. 5), ``s_l = 2^floor(log2(1 + E|grad I| / theta))``, theta = 0.25, E over 3 x 3
windows. Paper: the formula gives a larger s where gradients are high, the prose a higher resolution there.
We: read s as a resolution factor. Where a finer level is pooled ``r`` to 1 onto the grid, a cell with s = 1
takes the mean of its window and a cell with s >= r keeps its strongest response, with a straight line
between. The letter is ``as_stride``: s is the stride of the pooling, so the two change places.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dsmoe_core.convolution import AnisotropicDSConv
from dsmoe_core.outputs import EncoderOutput

THETA = 0.25


class ImageEncoder(nn.Module):
    """TinyViT and the multi-scale neck.

    Args:
        backbone: gives four maps by ``forward_intermediates`` (timm), finest first.
        widths, strides: channels and stride of the four maps.
        grid_stride: stride of F_enc.
        width: channels of F_enc.
        as_stride: read s_l as a stride instead of a resolution.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        widths: Sequence[int],
        strides: Sequence[int],
        grid_stride: int,
        width: int,
        as_stride: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.as_stride = as_stride
        self.grid_stride = grid_stride
        self.strides = tuple(strides)
        share = width // 2
        self.anisotropic = nn.ModuleList(
            AnisotropicDSConv(w, share, dilation=2**level) for level, w in enumerate(widths)
        )
        self.refine = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(share, share, 3, padding=1, groups=share, bias=False),
                nn.Conv2d(share, share, 1, bias=False),
                nn.BatchNorm2d(share),
                nn.ReLU6(),
            )
            for _ in widths
        )
        self.mix = nn.Sequential(nn.Conv2d(share * len(widths), width, 1, bias=False), nn.BatchNorm2d(width))

    def maps(self, images: Float[Tensor, "b 3 H W"]) -> list[Tensor]:
        """The backbone's four maps, finest first."""
        return list(self.backbone.forward_intermediates(images - 0.5, intermediates_only=True))  # type: ignore[operator]

    def forward(self, images: Float[Tensor, "b 3 H W"], maps: list[Tensor] | None = None) -> EncoderOutput:
        """F_enc; ``images`` are RGB in [0, 1], H and W multiples of 32; ``maps`` are theirs, where known."""
        pyramid = self.maps(images) if maps is None else maps
        height, width = (s // self.grid_stride for s in images.shape[-2:])
        resolution = resolution_factor(images, self.grid_stride)
        on_grid = []
        for level, stride, anisotropic, refine in zip(
            pyramid, self.strides, self.anisotropic, self.refine, strict=True
        ):
            if stride < self.grid_stride:  # pool first: the convolutions then run on the small map
                level = gradient_aware_pool(
                    level, self.grid_stride // stride, resolution, as_stride=self.as_stride
                )
            features = refine(anisotropic(level))
            if stride > self.grid_stride:
                features = F.interpolate(features, (height, width), mode="bilinear", align_corners=False)
            on_grid.append(features)
        return EncoderOutput(self.mix(torch.cat(on_grid, dim=1)), pyramid)


def resolution_factor(images: Float[Tensor, "b 3 H W"], stride: int) -> Float[Tensor, "b 1 h w"]:
    """s of eq. 5 for every cell of a grid with this stride: 1, 2, 4, ..."""
    grey = images.mean(1, keepdim=True)
    dx = F.pad((grey[..., 1:] - grey[..., :-1]).abs(), (0, 1))
    dy = F.pad((grey[..., 1:, :] - grey[..., :-1, :]).abs(), (0, 0, 0, 1))
    local = F.avg_pool2d(dx + dy, 3, stride=1, padding=1, count_include_pad=False)
    energy = F.max_pool2d(local, stride)
    return torch.exp2(torch.floor(torch.log2(1 + energy / THETA)))


def gradient_aware_pool(
    x: Float[Tensor, "b d H W"], ratio: int, resolution: Float[Tensor, "b 1 h w"], *, as_stride: bool = False
) -> Float[Tensor, "b d h w"]:
    """Pool ``ratio`` to 1: mean where the image is flat, strongest response where it has detail.

    With ``as_stride`` the other way round.
    """
    detail = ((resolution - 1) / (ratio - 1)).clamp(0, 1).to(x.dtype)
    if as_stride:
        detail = 1 - detail
    mean, strongest = F.avg_pool2d(x, ratio), F.max_pool2d(x, ratio)
    return torch.lerp(mean, strongest, detail.expand(-1, x.shape[1], -1, -1))
