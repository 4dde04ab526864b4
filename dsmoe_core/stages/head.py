"""Detection head (eq. 28-30).

``F_norm = CBS(F_out)``, ``F_fuse = C2F([F_norm, F_shallow])``, then decoupled class and box branches. There
is one level per stride. The box branch is a CBS, the class branch an SPPF, which has a larger receptive
field. The level at stride 4 is the paper's tiny-object head. It has half the channels, because its map has
four times as many cells as the next one and would cost a third of the encoder at full width.

Paper: F_shallow are "shallow-layer features". We: the encoder's map at stride 4, reduced to ``SHALLOW``
channels, at stride 4 alone; elsewhere ``F_fuse = C2F(F_norm)``. With the encoder's map of every stride, the
head detected from these maps and stages 4 to 10 were hardly used.

Paper: ``P_class = Conv1x1_cls(F_fuse)`` with a fixed number of classes. We: a 1 x 1 convolution to an
embedding and its inner product with the projected T^ of each class, so that classes can be added, removed and
permuted at run time. Scale and bias of the logits are learned per level. Boxes do not depend on the class.
They are anchor-free: the distances to the four sides are a softplus in units of the stride.
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

TINY_OBJECT_STRIDE = 4
SHALLOW = 8
"""Channels of F_shallow in the head."""
PRIOR = 0.01
"""Initial probability of every class at every position (Lin et al. 2017)."""


class C2F(nn.Module):
    """Splits the channels, refines one half by a residual bottleneck, and joins all parts."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.project_in = CBS(inputs, 2 * half)
        self.refine = nn.Sequential(CBS(half, half, 3), CBS(half, half, 3))
        self.project_out = CBS(3 * half, outputs)

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h w"]:
        """Apply the block; the map size stays."""
        first, second = self.project_in(x).chunk(2, dim=1)
        out: Tensor = self.project_out(torch.cat([first, second, second + self.refine(second)], dim=1))
        return out


class SPPF(nn.Module):
    """Spatial pyramid pooling: three chained 5 x 5 max-pools, hence windows of 5, 9 and 13 cells."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project_in = CBS(width, width // 2)
        self.project_out = CBS(width * 2, width)

    def forward(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        """Apply the block; the map size stays."""
        maps = [self.project_in(x)]
        for _ in range(3):
            maps.append(F.max_pool2d(maps[-1], 5, stride=1, padding=2))
        out: Tensor = self.project_out(torch.cat(maps, dim=1))
        return out


class HeadLevel(nn.Module):
    """The head at one stride.

    Args:
        width: channels of F_out.
        shallow: channels of the encoder's map that becomes F_shallow; None for a level without it.
        hidden: channels inside the level.
        embedding: width of the projected class embeddings.
        stride: stride of the level in image pixels.
    """

    def __init__(self, *, width: int, shallow: int | None, hidden: int, embedding: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.norm = CBS(width, hidden)
        self.shallow = None if shallow is None else CBS(shallow, SHALLOW)
        self.fuse = C2F(hidden if shallow is None else hidden + SHALLOW, hidden)
        self.class_branch = nn.Sequential(SPPF(hidden), CBS(hidden, hidden, 3))
        self.box_branch = nn.Sequential(CBS(hidden, hidden, 3), CBS(hidden, hidden, 3))
        self.embed = nn.Conv2d(hidden, embedding, 1)
        self.scale = nn.Parameter(torch.tensor(0.0))
        self.bias = nn.Parameter(torch.tensor(-math.log((1 - PRIOR) / PRIOR)))
        self.box = nn.Conv2d(hidden, 4, 1)
        nn.init.constant_(self.box.bias, 1.5)  # type: ignore[arg-type]

    def forward(
        self,
        f_out: Float[Tensor, "b d h w"],
        encoded: Float[Tensor, "b s H W"],
        class_embeddings: Float[Tensor, "c x"],
    ) -> LevelOutput:
        """Compute the logits of every class and the box distances at every cell of the level.

        Args:
            f_out: output of stage 10.
            encoded: the encoder's map at this stride; a level without F_shallow uses its size alone.
            class_embeddings: projected and normalised.
        """
        size = (encoded.shape[-2], encoded.shape[-1])
        if f_out.shape[-1] > size[-1]:
            f_out = F.adaptive_avg_pool2d(f_out, size)
        normed = self.norm(f_out)
        if f_out.shape[-2:] != size:
            normed = F.interpolate(normed, size, mode="bilinear", align_corners=False)
        if self.shallow is not None:
            normed = torch.cat([normed, self.shallow(encoded)], dim=1)
        fused = self.fuse(normed)
        embedded = self.embed(self.class_branch(fused))
        logits = torch.einsum("bxhw,cx->bchw", embedded, class_embeddings.to(embedded.dtype)).float()
        distances = F.softplus(self.box(self.box_branch(fused)).float()) * self.stride
        return LevelOutput(self.stride, logits * self.scale.exp() + self.bias, distances)


class Head(nn.Module):
    """All levels of the head.

    Args:
        width: channels of F_out.
        text_width: d_t, width of the class embeddings.
        encoded: ``{stride: channels}`` of the encoder's maps at the strides to detect at.
        hidden: channels inside a level; half of them at stride 4.
        embedding: width of the projected class embeddings.
        shallow: whether the level at stride 4 reads F_shallow.
    """

    def __init__(
        self,
        *,
        width: int,
        text_width: int,
        encoded: dict[int, int],
        hidden: int,
        embedding: int = 64,
        shallow: bool = True,
    ) -> None:
        super().__init__()
        self.text_projection = nn.Linear(text_width, embedding)
        self.levels = nn.ModuleList(
            HeadLevel(
                width=width,
                shallow=channels if shallow and stride == TINY_OBJECT_STRIDE else None,
                hidden=hidden // 2 if stride == TINY_OBJECT_STRIDE else hidden,
                embedding=embedding,
                stride=stride,
            )
            for stride, channels in encoded.items()
        )

    def forward(
        self, f_out: Float[Tensor, "b d h w"], encoded: Sequence[Tensor], text: Float[Tensor, "c t"]
    ) -> list[LevelOutput]:
        """Compute the logits of every class and the box distances at every stride, finest first.

        Args:
            f_out: output of stage 10.
            encoded: the encoder's maps, one per level.
            text: T^ of the classes to score.
        """
        class_embeddings = F.normalize(self.text_projection(text), dim=-1)
        return [
            level(f_out, encoder_map, class_embeddings)
            for level, encoder_map in zip(self.levels, encoded, strict=True)
        ]
