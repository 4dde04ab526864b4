"""Stage 8: sparse mixture of experts, ``F_MoE = sum w_i E_i`` over the chosen experts only (eq. 21-24).

- expert 0, local context: ``sum_{k in {3,5}} DSConv_{k x 1}(F_b) (+) DSConv_{1 x k}(F_b)``, then back to one
  width
- expert 1, global dependency: ``Conv1x1((+)_{s=16,32} AvgPool_{s x s}(F_b))``, upsampled back
- experts 2..N_e-1, cross-modal: ``LayerNorm(W_v^j F_b + W_t^j Expand(T^_j))``

Paper: pools of 16 and 32 are said in pixels of nothing in particular. We: in image pixels, hence 16 /
stride and 32 / stride cells of F_b, at least 2 cells. An expert that no image chose does not run: the
cross-modal ones are one gathered, batched product over the chosen (image, expert) pairs, the two others
see the images that chose them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from dsmoe_core.outputs import GatingOutput


class LocalExpert(nn.Module):
    """Expert 0: thin structures, tall and wide."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        half = width // 2
        self.reduce = nn.Conv2d(width, half, 1)
        self.tall = nn.ModuleList(
            nn.Conv2d(half, half, (k, 1), padding=(k // 2, 0), groups=half) for k in (3, 5)
        )
        self.wide = nn.ModuleList(
            nn.Conv2d(half, half, (1, k), padding=(0, k // 2), groups=half) for k in (3, 5)
        )
        self.point = nn.Conv2d(2 * half, width, 1)

    def forward(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        x = self.reduce(x)
        out: Tensor = self.point(
            sum(torch.cat([t(x), w(x)], dim=1) for t, w in zip(self.tall, self.wide, strict=True))
        )
        return out


class GlobalExpert(nn.Module):
    """Expert 1: what the wider surroundings look like."""

    def __init__(self, *, width: int, cells: tuple[int, ...]) -> None:
        super().__init__()
        self.cells = cells
        self.point = nn.Conv2d(width * len(cells), width, 1)

    def forward(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        size = x.shape[-2:]
        pooled = [
            F.interpolate(F.avg_pool2d(x, c, ceil_mode=True), size, mode="bilinear", align_corners=False)
            for c in self.cells
        ]
        out: Tensor = self.point(torch.cat(pooled, dim=1))
        return out


class CrossModalExperts(nn.Module):
    """Experts 2..N_e-1, their weights stacked so that any choice of them is one batched product."""

    def __init__(self, *, width: int, text_width: int, count: int) -> None:
        super().__init__()
        self.visual = nn.Parameter(torch.randn(count, width, width) * width**-0.5)
        self.textual = nn.Parameter(torch.randn(count, text_width, width) * text_width**-0.5)
        self.scale = nn.Parameter(torch.ones(count, 1, width))
        self.shift = nn.Parameter(torch.zeros(count, 1, width))

    def forward(
        self, x: Float[Tensor, "p l d"], chosen: Int[Tensor, " p"], text: Float[Tensor, "e t"]
    ) -> Float[Tensor, "p l d"]:
        """``x``: positions of the image of each (image, expert) pair; ``text``: one row an expert."""
        words = torch.bmm(text[chosen, None].to(x.dtype), self.textual[chosen].to(x.dtype))
        mixed = torch.bmm(x, self.visual[chosen].to(x.dtype)) + words
        normed = F.layer_norm(mixed, mixed.shape[-1:])
        return normed * self.scale[chosen].to(x.dtype) + self.shift[chosen].to(x.dtype)


class SparseExperts(nn.Module):
    """All experts and the sparse sum over them.

    Args:
        width: channels of F_b and F_MoE.
        text_width: d_t.
        experts: N_e, at least 3.
        grid_stride: of F_b, in image pixels.
    """

    def __init__(self, *, width: int, text_width: int, experts: int, grid_stride: int) -> None:
        super().__init__()
        cells = (max(16 // grid_stride, 2), max(32 // grid_stride, 4))
        self.task = nn.ModuleList([LocalExpert(width=width), GlobalExpert(width=width, cells=cells)])
        self.cross = CrossModalExperts(width=width, text_width=text_width, count=experts - len(self.task))

    def forward(self, f_b: Float[Tensor, "b d h w"], gated: GatingOutput) -> Float[Tensor, "b d h w"]:
        """F_MoE."""
        return self.of_one_shape(f_b, gated) if torch.compiler.is_compiling() else self.sparse(f_b, gated)

    def sparse(self, f_b: Float[Tensor, "b d h w"], gated: GatingOutput) -> Float[Tensor, "b d h w"]:
        """Only what was chosen runs."""
        total = torch.zeros_like(f_b)
        for index, expert in enumerate(self.task):
            image, slot = (gated.experts == index).nonzero(as_tuple=True)
            if len(image):
                weight = gated.weights[image, slot].to(f_b.dtype)[:, None, None, None]
                total = total.index_add(0, image, (expert(f_b[image]) * weight).to(f_b.dtype))
        image, slot = (gated.experts >= len(self.task)).nonzero(as_tuple=True)
        if not len(image):
            return total
        chosen = gated.experts[image, slot] - len(self.task)
        tokens = f_b.flatten(2).transpose(1, 2)
        answers = self.cross(tokens[image], chosen, gated.expert_text[len(self.task) :])
        weighted = answers * gated.weights[image, slot].to(answers.dtype)[:, None, None]
        crossed = torch.zeros_like(tokens).index_add(0, image, weighted.to(tokens.dtype))
        return total + crossed.transpose(1, 2).reshape(f_b.shape)

    def of_one_shape(self, f_b: Float[Tensor, "b d h w"], gated: GatingOutput) -> Float[Tensor, "b d h w"]:
        """The same sum in a graph that is traced once, for export and torch.compile.

        Such a graph cannot hold tensors as long as the number of images that chose an expert. So both task
        experts run on every image and count 0 where they were not chosen, and all k choices of an image go
        through the gathered product, a task expert's place being taken by some cross-modal one that counts 0.
        """
        total = torch.zeros_like(f_b)
        for index, expert in enumerate(self.task):
            weight = (gated.weights * (gated.experts == index)).sum(1).to(f_b.dtype)
            answer: Tensor = expert(f_b)
            total = total + answer * weight[:, None, None, None]
        slots = gated.experts.shape[1]
        tokens = f_b.flatten(2).transpose(1, 2)
        cross = gated.experts - len(self.task)
        answers: Tensor = self.cross(
            tokens.repeat_interleave(slots, dim=0),
            cross.clamp_min(0).flatten(),
            gated.expert_text[len(self.task) :],
        )
        weights = (gated.weights * (cross >= 0)).to(answers.dtype)[..., None, None]
        crossed = (rearrange(answers, "(b k) l d -> b k l d", k=slots) * weights).sum(1)
        return total + crossed.transpose(1, 2).reshape(f_b.shape)
