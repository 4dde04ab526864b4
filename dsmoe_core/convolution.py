"""Convolution blocks shared by several stages."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


class CBS(nn.Sequential):
    """Conv-BatchNorm-SiLU (eq. 28); keeps the map size at stride 1.

    Args:
        inputs, outputs: channels.
        kernel: side of the kernel, odd.
        stride, groups: as in ``nn.Conv2d``.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.SiLU(inplace=True),
        )


class AnisotropicDSConv(nn.Module):
    """Depthwise ``k x 1``, then ``1 x k``, then a pointwise convolution: the factorisation of eq. 4.

    Args:
        inputs, outputs: channels.
        kernel: k, odd.
        dilation: r of both depthwise kernels.
    """

    def __init__(self, inputs: int, outputs: int, *, kernel: int = 3, dilation: int = 1) -> None:
        super().__init__()
        half = kernel // 2
        self.dilation = dilation
        self.depthwise = nn.Sequential(
            nn.Conv2d(inputs, inputs, (kernel, 1), padding=(half, 0), groups=inputs, bias=False),
            nn.Conv2d(inputs, inputs, (1, kernel), padding=(0, half), groups=inputs, bias=False),
        )
        self.point = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        start_as_identity(*self.depthwise)

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h w"]:
        """Apply the block; the map size stays."""
        filtered = on_phases(self.depthwise, x, rows=self.dilation, columns=self.dilation)
        out: Tensor = self.norm(self.point(filtered))
        return out


def start_as_identity(*depthwise: nn.Module) -> None:
    """Set depthwise kernels to 1 at their centre and 0 elsewhere.

    Random kernels blur and shift every channel, which a chain of such blocks needs hundreds of steps to undo.
    """
    for convolution in depthwise:
        kernel = convolution.get_parameter("weight")
        nn.init.dirac_(kernel, groups=len(kernel))


def on_phases(
    convolution: Callable[[Tensor], Tensor], x: Float[Tensor, "b i h w"], *, rows: int, columns: int
) -> Float[Tensor, "b i h w"]:
    """Run a size-keeping convolution as if it were dilated by (rows, columns).

    Every ``rows``-th row and ``columns``-th column forms an image of its own. Running the undilated kernel on
    each of them equals the dilated convolution. PyTorch's own dilation is not used, because oneDNN's bf16
    weight gradient of a dilated depthwise convolution in channels_last contains uninitialised memory (torch
    2.13, CPU; see tests/dsmoe_core/test_convolution.py).
    """
    if rows == columns == 1:
        return convolution(x)
    height, width = x.shape[-2:]
    padded = F.pad(x, (0, -width % columns, 0, -height % rows))
    phases = rearrange(padded, "b d (h p) (w q) -> (b p q) d h w", p=rows, q=columns)
    filtered = convolution(phases.contiguous(memory_format=torch.channels_last))
    joined = rearrange(filtered, "(b p q) d h w -> b d (h p) (w q)", p=rows, q=columns)
    return joined[..., :height, :width].contiguous(memory_format=torch.channels_last)
