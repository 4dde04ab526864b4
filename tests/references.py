"""Slow reference implementations of network blocks, and random inputs for tests of the stages."""

from __future__ import annotations

import math
from itertools import chain
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsmoe_core.convolution import AnisotropicDSConv
from dsmoe_core.outputs import AlignmentOutput, GatingOutput

M = TypeVar("M", bound=nn.Module)


def random(*shape: int, seed: int = 0) -> Tensor:
    """Normal random numbers in fp64, reproducible by seed."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def randomised(module: M, seed: int = 0) -> M:
    """The module in evaluation mode and fp64 with random weights and statistics.

    Initial weights hide terms of an equation: biases of zero, norms of one, projections of zero.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in chain(module.named_parameters(), module.named_buffers()):
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.is_floating_point():
            fan_in = tensor[0].numel() if tensor.ndim > 1 else 4
            tensor.normal_(0, fan_in**-0.5, generator=generator)
    return module.double().eval()


def aligned(
    batch: int, classes: int, ball_dim: int, height: int, width: int, seed: int = 0
) -> AlignmentOutput:
    """Random output of stage 5 with valid value ranges."""
    log_affinity = random(batch, height, width, classes + 1, seed=seed).log_softmax(-1)
    return AlignmentOutput(
        fused=random(batch, classes, ball_dim, seed=seed + 1),
        anchors=random(classes, ball_dim, seed=seed + 2) * 0.1,
        points=random(batch, classes, ball_dim, seed=seed + 3) * 0.1,
        distance=random(batch, classes, seed=seed + 4).abs() * 3,
        log_affinity=log_affinity,
    )


def gated(
    batch: int, experts: int, top_k: int, text_width: int, height: int = 1, width: int = 1, seed: int = 0
) -> GatingOutput:
    """Random output of stage 7; each position, or each image, has its own choice of experts."""
    probabilities = random(batch, experts, height, width, seed=seed).softmax(1)
    weights, chosen = probabilities.topk(top_k, dim=1)
    weights = weights / weights.sum(1, keepdim=True)
    return GatingOutput(
        chosen, weights, probabilities, random(experts, text_width, seed=seed + 1), probabilities.log()
    )


def spread(aligned: AlignmentOutput, classes: Tensor) -> Tensor:
    """Sum of the class vectors (b, c, d) at every position, weighted by the affinity of the classes."""
    batch, height, width, count = aligned.affinity.shape
    out = torch.zeros(batch, classes.shape[-1], height, width, dtype=torch.float64)
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                for c in range(count):
                    out[b, :, y, x] += aligned.affinity[b, y, x, c] * classes[b, c]
    return out


def linear(x: Tensor, layer: nn.Module) -> Tensor:
    """A 1 x 1 convolution or a linear layer, applied to the last axis."""
    weight, bias = layer.get_parameter("weight"), getattr(layer, "bias", None)
    out = x @ weight.flatten(1).T
    return out if bias is None else out + bias


def pointwise(x: Tensor, layer: nn.Module) -> Tensor:
    """A 1 x 1 convolution of a feature map: a linear layer at every position."""
    return linear(x.permute(0, 2, 3, 1), layer).permute(0, 3, 1, 2)


def normed(x: Tensor, norm: nn.Module) -> Tensor:
    """Batch norm with running statistics."""
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    scale = norm.get_parameter("weight") / (variance + 1e-5).sqrt()
    return (x - mean[:, None, None]) * scale[:, None, None] + norm.get_parameter("bias")[:, None, None]


def convolved(x: Tensor, kernel: Tensor, *, top: int, left: int, rows: int = 1) -> Tensor:
    """Cross-correlation tap by tap with zero padding.

    Args:
        kernel: (o, i, kh, kw), or (d, 1, kh, kw) for a depthwise convolution.
        top, left: offset of tap (0, 0), up and to the left.
        rows: vertical dilation.
    """
    height, width = x.shape[-2:]
    reach = max(kernel.shape[2] * rows, kernel.shape[3]) + max(top, left)
    padded = F.pad(x, (reach,) * 4)
    total = x.new_zeros(())
    for i in range(kernel.shape[2]):
        for j in range(kernel.shape[3]):
            y, z = reach - top + i * rows, reach - left + j
            shifted = padded[:, :, y : y + height, z : z + width]
            tap = kernel[:, :, i, j]
            depthwise = tap.shape[1] == 1 and x.shape[1] == tap.shape[0]
            out = shifted * tap[:, :, None] if depthwise else torch.einsum("oi,bihw->bohw", tap, shifted)
            total = total + out
    return total


def same(x: Tensor, layer: nn.Module) -> Tensor:
    """A size-preserving convolution with odd kernel and without dilation."""
    kernel = layer.get_parameter("weight")
    out = convolved(x, kernel, top=kernel.shape[2] // 2, left=kernel.shape[3] // 2)
    bias = getattr(layer, "bias", None)
    return out if bias is None else out + bias[:, None, None]


def cbs(x: Tensor, block: nn.Module) -> Tensor:
    """Conv-BatchNorm-SiLU (eq. 28)."""
    out = normed(same(x, block.get_submodule("0")), block.get_submodule("1"))
    return out * torch.sigmoid(out)


def anisotropic(x: Tensor, block: AnisotropicDSConv) -> Tensor:
    """Eq. 4: a dilated depthwise k x k kernel, the outer product of a column and a row."""
    column, row = (block.depthwise.get_submodule(i).get_parameter("weight") for i in "01")
    kernel, r = column * row, block.dilation
    reach = kernel.shape[-1] // 2 * r
    mixed = F.conv2d(x, kernel, padding=reach, dilation=r, groups=x.shape[1])
    return normed(pointwise(mixed, block.point), block.norm)


def bilinear(image: Tensor, y: float, x: float) -> Tensor:
    """Bilinear sample of a feature map (d, h, w), with zero padding."""
    top, left = math.floor(y), math.floor(x)
    out = image.new_zeros(image.shape[0])
    for i in (top, top + 1):
        for j in (left, left + 1):
            if 0 <= i < image.shape[1] and 0 <= j < image.shape[2]:
                out = out + image[:, i, j] * (1 - abs(y - i)) * (1 - abs(x - j))
    return out


def resized(image: Tensor, height: int, width: int) -> Tensor:
    """Bilinear resize of feature maps (b, d, h, w) with replicated borders (align_corners=False)."""
    rows, columns = image.shape[-2:]
    out = image.new_zeros(*image.shape[:2], height, width)
    for b in range(len(image)):
        for i in range(height):
            for j in range(width):
                y = min(max((i + 0.5) * rows / height - 0.5, 0.0), rows - 1.0)
                x = min(max((j + 0.5) * columns / width - 0.5, 0.0), columns - 1.0)
                out[b, :, i, j] = bilinear(image[b], y, x)
    return out


def pooled(image: Tensor, side: int) -> Tensor:
    """Means over ``side`` x ``side`` windows; windows at the border use the cells inside only."""
    height, width = (math.ceil(s / side) for s in image.shape[-2:])
    out = image.new_zeros(*image.shape[:2], height, width)
    for i in range(height):
        for j in range(width):
            window = image[:, :, i * side : (i + 1) * side, j * side : (j + 1) * side]
            out[:, :, i, j] = window.mean((2, 3))
    return out


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Assert that values are equal up to a relative and absolute tolerance, whatever the dtype."""
    torch.testing.assert_close(actual.detach().double(), expected.detach(), atol=tolerance, rtol=tolerance)
