"""Stage 8: sparse mixture of experts, ``F_MoE = sum w_i E_i`` over the selected experts (eq. 21-24).

There are two groups of experts:

- Task experts, indices 0, 1, ...: one module each, registered by name in ``TASK_EXPERTS``.
- Cross-modal experts, all remaining indices: ``LayerNorm(W_v^j F_b + W_t^j Expand(T^_j))`` (eq. 24), with
  stacked weights.

The router selects experts per position or per image (stages/gating.py). A cross-modal expert runs at the
positions that selected it. A task expert mixes neighbouring positions, so it runs on the images of which any
position selected it.

To add a task expert, write an ``nn.Module`` here that maps F_b (n, d, h, w) to the same shape, and add an
entry to ``TASK_EXPERTS``. A model uses it when ``ModelConfig.task_experts`` lists its name. Each model stores
that list, so models trained before keep their experts and indices. The code and the tests iterate over the
registry and need no change, but the test needs a reference implementation
(``REFERENCES`` in tests/dsmoe_core/stages/test_experts.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from dsmoe_core.errors import SettingsError
from dsmoe_core.outputs import GatingOutput

BLOCK = 64
"""Pairs of a position and an expert that are computed together."""
NO_EXPERT = -1
"""Stands for the expert of a pair with weight 0, for which nothing is computed."""


class LocalExpert(nn.Module):
    """Local context: ``sum_{k in {3,5}} DSConv_{k x 1}(F_b) (+) DSConv_{1 x k}(F_b)`` (eq. 22).

    Suits thin vertical and horizontal structures. A 1 x 1 convolution brings the result back to one width.

    Args:
        width: channels of input and output.
    """

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
        """Apply both kernel sizes and sum them."""
        x = self.reduce(x)
        out: Tensor = self.point(
            sum(torch.cat([t(x), w(x)], dim=1) for t, w in zip(self.tall, self.wide, strict=True))
        )
        return out


class GlobalExpert(nn.Module):
    """Global dependency: ``Conv1x1((+)_{s=16,32} AvgPool_{s x s}(F_b))`` (eq. 23), upsampled back.

    Paper: does not say in which pixels the windows of 16 and 32 are measured. We: in image pixels, hence
    16 / stride and 32 / stride cells of F_b, at least 2 and 4.

    Args:
        width: channels of input and output.
        cells: side of each pooling window, in cells of F_b.
    """

    def __init__(self, *, width: int, cells: tuple[int, ...]) -> None:
        super().__init__()
        self.cells = cells
        self.point = nn.Conv2d(width * len(cells), width, 1)

    def forward(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        """Pool with every window size, upsample, concatenate and project."""
        size = x.shape[-2:]
        pooled = [
            F.interpolate(F.avg_pool2d(x, c, ceil_mode=True), size, mode="bilinear", align_corners=False)
            for c in self.cells
        ]
        out: Tensor = self.point(torch.cat(pooled, dim=1))
        return out


TASK_EXPERTS: dict[str, Callable[[int, int], nn.Module]] = {
    "local": lambda width, _stride: LocalExpert(width=width),
    "global": lambda width, stride: GlobalExpert(
        width=width, cells=(max(16 // stride, 2), max(32 // stride, 4))
    ),
}
"""Task experts by name; each entry builds one from the channels and the stride (in image pixels) of F_b."""


class CrossModalExperts(nn.Module):
    """All cross-modal experts, with stacked weights so that any selection is one batched product (eq. 24).

    The selected (position, expert) pairs are grouped by expert, and each group is padded to whole blocks of
    ``BLOCK`` pairs (Gale et al., "MegaBlocks", 2023). So an expert computes nothing for the positions that
    did not select it, and all shapes depend on the number of pairs alone, which a traced graph needs.

    Args:
        width: channels of input and output.
        text_width: d_t, width of the class embeddings.
        count: number of experts.
    """

    def __init__(self, *, width: int, text_width: int, count: int) -> None:
        super().__init__()
        self.visual = nn.Parameter(torch.randn(count, width, width) * width**-0.5)
        self.textual = nn.Parameter(torch.randn(count, text_width, width) * text_width**-0.5)
        self.scale = nn.Parameter(torch.ones(count, 1, width))
        self.shift = nn.Parameter(torch.zeros(count, 1, width))

    def forward(
        self,
        tokens: Float[Tensor, "b n d"],
        experts: Int[Tensor, "b n k"],
        weights: Float[Tensor, "b n k"],
        text: Float[Tensor, "e t"],
    ) -> Float[Tensor, "b n d"]:
        """Compute the weighted sum of the selected experts at every position.

        Args:
            tokens: the n positions of F_b in each image.
            experts: selected experts, counted from the first cross-modal expert; negative for no expert.
            weights: of the selected experts.
            text: text embedding of every cross-modal expert.
        """
        batch, positions, slots = experts.shape
        groups = group_by_expert(experts.flatten(1), len(self.visual))
        position = torch.arange(batch * positions, device=experts.device).repeat_interleave(slots)
        blocks = groups.experts.shape[0] * BLOCK
        source = position.new_zeros(blocks + 1).scatter(0, groups.places, position)[:blocks]
        inputs = rearrange(tokens.flatten(0, 1).index_select(0, source), "(g p) d -> g p d", p=BLOCK)
        outputs = self._run(inputs, groups.experts, text).flatten(0, 1)
        pairs = outputs.index_select(0, groups.places.clamp_max(blocks - 1))
        pairs = rearrange(pairs, "(b n k) d -> b n k d", n=positions, k=slots)
        total: Tensor = (pairs * torch.where(experts >= 0, weights, 0.0).to(pairs.dtype)[..., None]).sum(2)
        return total

    def _run(
        self, inputs: Float[Tensor, "g p d"], experts: Int[Tensor, " g"], text: Float[Tensor, "e t"]
    ) -> Float[Tensor, "g p d"]:
        """Run one expert per block."""
        texts = torch.bmm(text[:, None].to(inputs.dtype), self.textual.to(inputs.dtype))
        visual, text_term, scale, shift = (
            v.to(inputs.dtype).index_select(0, experts) for v in (self.visual, texts, self.scale, self.shift)
        )
        mixed = torch.baddbmm(text_term, inputs, visual)
        return F.layer_norm(mixed, mixed.shape[-1:]) * scale + shift


class Groups(NamedTuple):
    """Pairs grouped by expert, in blocks of ``BLOCK`` places.

    Attributes:
        places: place of each of p pairs; one behind the last place for a pair without an expert.
        experts: expert of each of g blocks.
    """

    places: Int[Tensor, " p"]
    experts: Int[Tensor, " g"]


def group_by_expert(of_image: Int[Tensor, "b q"], experts: int) -> Groups:
    """Group the pairs of all images by expert, keeping their order within a group.

    There are ``b ceil(q / BLOCK) + experts`` blocks, which is enough for any selection. A spare block belongs
    to the last expert that has pairs.

    Args:
        of_image: expert of each of q pairs of an image; negative for no expert.
        experts: number of experts.
    """
    pairs = of_image.flatten()
    index = torch.arange(experts, device=pairs.device)
    chosen = (pairs[:, None] == index).to(torch.int32)
    rank = (chosen.cumsum(0, dtype=torch.int32) * chosen).sum(1) - 1
    blocks = (chosen.sum(0) + BLOCK - 1) // BLOCK
    end = blocks.cumsum(0)
    images, of_each = of_image.shape  # not len(), which would fix the size of a traced graph
    total = images * -(-of_each // BLOCK) + experts
    places = torch.where(pairs >= 0, (end - blocks)[pairs.clamp_min(0)] * BLOCK + rank, total * BLOCK)
    owner = (torch.arange(total, device=pairs.device)[:, None] >= end).sum(1)
    return Groups(places, torch.minimum(owner, (index * (blocks > 0)).max()))


class SparseExperts(nn.Module):
    """All experts and the weighted sum over the selected ones.

    Args:
        width: channels of F_b and F_MoE.
        text_width: d_t, width of the class embeddings.
        experts: N_e, number of experts of both groups; more than there are task experts.
        grid_stride: stride of F_b in image pixels.
        task_experts: names in ``TASK_EXPERTS``, in the order of their indices.

    Raises:
        SettingsError: a name is not registered.
    """

    def __init__(
        self,
        *,
        width: int,
        text_width: int,
        experts: int,
        grid_stride: int,
        task_experts: Sequence[str] = tuple(TASK_EXPERTS),
    ) -> None:
        super().__init__()
        if unknown := [name for name in task_experts if name not in TASK_EXPERTS]:
            raise SettingsError(
                f"task_experts contains {', '.join(unknown)}; expected some of {', '.join(TASK_EXPERTS)}",
                "Correct detector.model.task_experts, or register the expert in stages/experts.py.",
            )
        self.task = nn.ModuleList(TASK_EXPERTS[name](width, grid_stride) for name in task_experts)
        self.cross = CrossModalExperts(width=width, text_width=text_width, count=experts - len(self.task))

    def forward(self, f_b: Float[Tensor, "b d h w"], gated: GatingOutput) -> Float[Tensor, "b d h w"]:
        """Compute F_MoE."""
        size = f_b.shape[-2:]
        chosen = torch.where(gated.weights > 0, gated.experts, NO_EXPERT)
        experts, weights = chosen.expand(-1, -1, *size), gated.weights.expand(-1, -1, *size)
        flat = self.cross(
            rearrange(f_b, "b d h w -> b (h w) d"),
            rearrange(experts, "b k h w -> b (h w) k") - len(self.task),
            rearrange(weights, "b k h w -> b (h w) k"),
            gated.expert_text[len(self.task) :],
        )
        total: Tensor = rearrange(flat, "b (h w) d -> b d h w", h=size[0], w=size[1])
        for index, expert in enumerate(self.task):
            weight = (weights * (experts == index)).sum(1, keepdim=True).to(f_b.dtype)
            total = self._add_task_expert(total, expert, f_b, weight)
        return total

    def _add_task_expert(
        self,
        total: Float[Tensor, "b d h w"],
        expert: nn.Module,
        f_b: Float[Tensor, "b d h w"],
        weight: Float[Tensor, "b 1 h w"],
    ) -> Float[Tensor, "b d h w"]:
        """Add a task expert, which runs on the images of which a position selected it.

        A traced graph cannot hold tensors whose length depends on that, so there it runs on all images.
        """
        output: Tensor
        if torch.compiler.is_compiling():
            output = expert(f_b)
            return total + output * weight
        images = weight.flatten(1).any(1).nonzero()[:, 0]
        if not len(images):
            return total
        output = expert(f_b if len(images) == len(f_b) else f_b[images])
        return total.index_add(0, images, (output * weight[images]).to(total.dtype))
