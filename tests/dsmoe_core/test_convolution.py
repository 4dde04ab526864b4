"""Tests of the factorised kernel against eq. 4, and of dilation by phases, also for bf16 gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from references import anisotropic, close, random, randomised
from torch import nn

from dsmoe_core.convolution import AnisotropicDSConv, on_phases


@settings(max_examples=30)
@given(rows=st.integers(1, 4), columns=st.integers(1, 4), height=st.integers(1, 11), width=st.integers(1, 11))
def test_on_phases_equals_the_dilated_convolution(rows: int, columns: int, height: int, width: int) -> None:
    x = torch.randn(2, 3, height, width)
    conv = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)
    expected = F.conv2d(x, conv.weight, None, 1, (rows, columns), (rows, columns), 3)
    torch.testing.assert_close(on_phases(conv, x, rows=rows, columns=columns), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("dilation", [1, 2, 4, 8])
def test_column_then_row_equals_the_dilated_outer_product_kernel(kernel: int, dilation: int) -> None:
    """The map's sides are not divisible by any dilation, and one is smaller than the kernel's extent."""
    block = randomised(AnisotropicDSConv(4, 6, kernel=kernel, dilation=dilation))
    x = random(2, 4, 13, 7)
    close(block(x), anisotropic(x, block), 1e-10)


@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_bf16_weight_gradients_equal_those_of_fp32(dilation: int) -> None:
    """PyTorch's own dilated depthwise convolution fails this on CPUs."""
    torch.manual_seed(0)
    block = AnisotropicDSConv(16, 16, dilation=dilation).to(memory_format=torch.channels_last)
    for _ in range(10):
        x, weight = torch.randn(2, 4, 16, 20, 20)
        x = x.contiguous(memory_format=torch.channels_last)
        gradients = []
        for enabled in (False, True):
            block.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                mixed = on_phases(block.depthwise, x, rows=dilation, columns=dilation)
            (mixed.float() * weight).sum().backward()
            gradients.append(block.depthwise[0].weight.grad.clone())
        scale = gradients[0].abs().max().clamp_min(1.0)
        assert ((gradients[0] - gradients[1]).abs().max() / scale) < 0.05
