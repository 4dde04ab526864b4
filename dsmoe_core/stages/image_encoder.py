"""Stage 3: MobileSAM encoder, ``F_enc = (+)_l psi_l(DSConv_l(phi_l(I)))``, l = 1..4 (eq. 3-5).

- ``phi_l``: the four stages of TinyViT, MobileSAM's image encoder, at strides 4, 8, 16, 32.
- ``DSConv_l``: depthwise ``3 x 1`` and ``1 x 3`` convolutions with dilation ``2^(l-1)`` (eq. 4).
- ``psi_l``: depthwise-separable convolution and ReLU6.
- (+): all four maps are resampled to the working grid, concatenated, and projected to one width.

Gradient-aware pooling (eq. 5): ``s_l = 2^floor(log2(1 + E|grad I| / theta))``, theta = 0.25, E over 3 x 3
windows. Paper: the formula gives a larger s where gradients are high, but the prose asks for a higher
resolution there. We: read s as a resolution factor. Where a finer map is pooled ``r`` to 1, a cell with s = 1
takes the mean of its window, a cell with s >= r takes the maximum, and values between are interpolated
linearly. The literal form is ``as_stride``: s is the stride of the pooling, so mean and maximum are swapped.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dsmoe_core.convolution import AnisotropicDSConv, start_as_identity
from dsmoe_core.outputs import EncoderOutput

THETA = 0.25


class ImageEncoder(nn.Module):
    """TinyViT backbone with a multi-scale neck.

    Args:
        backbone: timm model whose ``forward_intermediates`` returns four maps, finest first.
        widths, strides: channels and stride (in image pixels) of the four maps.
        grid_stride: stride of F_enc in image pixels.
        width: channels of F_enc.
        as_stride: interpret s_l as a stride instead of a resolution factor.
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
        self.refine = nn.ModuleList(_refinement(share) for _ in widths)
        self.mix = nn.Sequential(nn.Conv2d(share * len(widths), width, 1, bias=False), nn.BatchNorm2d(width))

    def maps(self, images: Float[Tensor, "b 3 H W"]) -> list[Tensor]:
        """Return the backbone's four maps, finest first."""
        return list(self.backbone.forward_intermediates(images - 0.5, intermediates_only=True))  # type: ignore[operator]

    def forward(self, images: Float[Tensor, "b 3 H W"], maps: list[Tensor] | None = None) -> EncoderOutput:
        """Compute F_enc.

        Args:
            images: RGB in [0, 1]; H and W are multiples of 32.
            maps: the backbone's maps of these images, if they are already computed.
        """
        pyramid = self.maps(images) if maps is None else maps
        height, width = (s // self.grid_stride for s in images.shape[-2:])
        resolution = resolution_factor(images, self.grid_stride)
        on_grid = []
        for level, stride, anisotropic, refine in zip(
            pyramid, self.strides, self.anisotropic, self.refine, strict=True
        ):
            if stride < self.grid_stride:  # pool first, so that the convolutions run on the smaller map
                level = gradient_aware_pool(
                    level, self.grid_stride // stride, resolution, as_stride=self.as_stride
                )
            features = refine(anisotropic(level))
            if stride > self.grid_stride:
                features = F.interpolate(features, (height, width), mode="bilinear", align_corners=False)
            on_grid.append(features)
        return EncoderOutput(self.mix(torch.cat(on_grid, dim=1)), pyramid)


def _refinement(width: int) -> nn.Sequential:
    """psi of one level."""
    depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
    start_as_identity(depthwise)
    return nn.Sequential(depthwise, nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU6())


def resolution_factor(images: Float[Tensor, "b 3 H W"], stride: int) -> Float[Tensor, "b 1 h w"]:
    """Compute s of eq. 5 (1, 2, 4, ...) for every cell of a grid with this stride."""
    grey = images.mean(1, keepdim=True)
    dx = F.pad((grey[..., 1:] - grey[..., :-1]).abs(), (0, 1))
    dy = F.pad((grey[..., 1:, :] - grey[..., :-1, :]).abs(), (0, 0, 0, 1))
    local = F.avg_pool2d(dx + dy, 3, stride=1, padding=1, count_include_pad=False)
    energy = F.max_pool2d(local, stride)
    return torch.exp2(torch.floor(torch.log2(1 + energy / THETA)))


def gradient_aware_pool(
    x: Float[Tensor, "b d H W"], ratio: int, resolution: Float[Tensor, "b 1 h w"], *, as_stride: bool = False
) -> Float[Tensor, "b d h w"]:
    """Pool ``ratio`` to 1: the mean in flat areas of the image, the maximum in detailed ones.

    Args:
        x: map to pool.
        ratio: side of the pooling window, in cells of ``x``.
        resolution: s of eq. 5 per output cell.
        as_stride: use the mean in detailed areas and the maximum in flat ones.
    """
    detail = ((resolution - 1) / (ratio - 1)).clamp(0, 1).to(x.dtype)
    if as_stride:
        detail = 1 - detail
    mean, maximum = F.avg_pool2d(x, ratio), F.max_pool2d(x, ratio)
    return torch.lerp(mean, maximum, detail.expand(-1, x.shape[1], -1, -1))
