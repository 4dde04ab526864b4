"""Small convolution blocks that several stages are built from."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class CBS(nn.Sequential):
    """Conv-BatchNorm-SiLU (eq. 28), keeping the size at stride 1."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.SiLU(inplace=True),
        )


class AnisotropicDSConv(nn.Module):
    """Depthwise ``k x 1`` then ``1 x k``, then a pointwise convolution: the factorisation of eq. 4.

    Args:
        inputs, outputs: channels.
        kernel: k.
        dilation: r of both depthwise kernels.
    """

    def __init__(self, inputs: int, outputs: int, *, kernel: int = 3, dilation: int = 1) -> None:
        super().__init__()
        pad = kernel // 2 * dilation
        self.tall = nn.Conv2d(
            inputs, inputs, (kernel, 1), padding=(pad, 0), dilation=(dilation, 1), groups=inputs, bias=False
        )
        self.wide = nn.Conv2d(
            inputs, inputs, (1, kernel), padding=(0, pad), dilation=(1, dilation), groups=inputs, bias=False
        )
        self.point = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h w"]:
        return self.norm(self.point(self.wide(self.tall(x))))
