"""The head (eq. 28-30): ``F_norm = CBS(F_out)``, ``F_fuse = C2F([F_norm, F_shallow])``, then class and box
apart.

One level a stride; F_shallow is the encoder's map of that stride, so stride 4 is the paper's tiny-object
head. It has half the channels: its map has four times the cells of the next, and at full width it costs a
third of the encoder. The box branch is a CBS, the class branch an SPPF, which sees more surroundings.

Paper: ``P_class = Conv1x1_cls(F_fuse)`` with a fixed number of classes. We: a 1 x 1 convolution to an
embedding, and its inner product with each class's projected T^, so that classes may be added, removed and
permuted at run time; scale and bias are learned per level. Boxes do not know the classes. Distances to the
four sides are free of anchors: a softplus in units of the stride.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dsmoe_core.convolution import CBS
from dsmoe_core.outputs import LevelOutput

TINY = 4
"""Stride of the tiny-object head."""
PRIOR = 0.01
"""Probability of a class at a random position, before training (Lin et al. 2017)."""


class C2F(nn.Module):
    """Split, refine one half by a bottleneck, join."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.enter = CBS(inputs, 2 * half)
        self.refine = nn.Sequential(CBS(half, half, 3), CBS(half, half, 3))
        self.leave = CBS(3 * half, outputs)

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h w"]:
        kept, rest = self.enter(x).chunk(2, dim=1)
        out: Tensor = self.leave(torch.cat([kept, rest, rest + self.refine(rest)], dim=1))
        return out


class SPPF(nn.Module):
    """Three chained 5 x 5 maxima: windows of 5, 9 and 13 cells."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter = CBS(width, width // 2)
        self.leave = CBS(width * 2, width)

    def forward(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        maps = [self.enter(x)]
        for _ in range(3):
            maps.append(F.max_pool2d(maps[-1], 5, stride=1, padding=2))
        out: Tensor = self.leave(torch.cat(maps, dim=1))
        return out


class HeadLevel(nn.Module):
    """The head at one stride."""

    def __init__(self, *, width: int, shallow: int, hidden: int, embedding: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.norm = CBS(width, hidden)
        self.fuse = C2F(hidden + shallow, hidden)
        self.class_branch = nn.Sequential(SPPF(hidden), CBS(hidden, hidden, 3))
        self.box_branch = nn.Sequential(CBS(hidden, hidden, 3), CBS(hidden, hidden, 3))
        self.embed = nn.Conv2d(hidden, embedding, 1)
        self.scale = nn.Parameter(torch.tensor(0.0))
        self.bias = nn.Parameter(torch.tensor(-math.log((1 - PRIOR) / PRIOR)))
        self.box = nn.Conv2d(hidden, 4, 1)
        nn.init.constant_(self.box.bias, 1.5)  # type: ignore[arg-type]

    def forward(
        self, f_out: Float[Tensor, "b d h w"], shallow: Float[Tensor, "b s H W"], words: Float[Tensor, "c x"]
    ) -> LevelOutput:
        size = (shallow.shape[-2], shallow.shape[-1])
        if f_out.shape[-1] > size[-1]:
            f_out = F.adaptive_avg_pool2d(f_out, size)
        normed = self.norm(f_out)
        if f_out.shape[-2:] != size:
            normed = F.interpolate(normed, size, mode="bilinear", align_corners=False)
        fused = self.fuse(torch.cat([normed, shallow], dim=1))
        embedded = self.embed(self.class_branch(fused))
        logits = torch.einsum("bxhw,cx->bchw", embedded, words.to(embedded.dtype)).float()
        distances = F.softplus(self.box(self.box_branch(fused)).float()) * self.stride
        return LevelOutput(self.stride, logits * self.scale.exp() + self.bias, distances)


class Head(nn.Module):
    """All levels.

    Args:
        width: channels of F_out.
        text_width: d_t.
        shallow: ``{stride: channels}`` of the encoder's maps, for the strides to detect at.
        hidden: channels within the head; half of them at stride 4.
    """

    def __init__(
        self, *, width: int, text_width: int, shallow: dict[int, int], hidden: int, embedding: int = 64
    ) -> None:
        super().__init__()
        self.words = nn.Linear(text_width, embedding)
        self.levels = nn.ModuleList(
            HeadLevel(
                width=width,
                shallow=c,
                hidden=hidden // 2 if s == TINY else hidden,
                embedding=embedding,
                stride=s,
            )
            for s, c in shallow.items()
        )

    def forward(
        self, f_out: Float[Tensor, "b d h w"], shallow: Sequence[Tensor], text: Float[Tensor, "c t"]
    ) -> list[LevelOutput]:
        """Logits of every class and box distances at every stride, finest first."""
        words = F.normalize(self.words(text), dim=-1)
        return [level(f_out, s, words) for level, s in zip(self.levels, shallow, strict=True)]
