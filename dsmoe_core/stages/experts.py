"""Stage 8: sparse mixture of experts, ``F_MoE = sum w_i E_i`` over the selected experts (eq. 21-24).

There are two groups of experts:

- Task experts, indices 0, 1, ...: one module each, registered by name in ``TASK_EXPERTS``.
- Cross-modal experts, all remaining indices: ``LayerNorm(W_v^j F_b + W_t^j Expand(T^_j))`` (eq. 24), with
  stacked weights.

An expert that no image selected does not run. The cross-modal experts are computed as one gathered, batched
product over the selected (image, expert) pairs; a task expert gets the images that selected it.

To add a task expert, write an ``nn.Module`` here that maps F_b (n, d, h, w) to the same shape, and add an
entry to ``TASK_EXPERTS``. A model uses it when ``ModelConfig.task_experts`` lists its name. Each model stores
that list, so models trained before keep their experts and indices. The sparse path, the export path and the
tests iterate over the registry and need no change, but the test needs a reference implementation
(``REFERENCES`` in tests/dsmoe_core/stages/test_experts.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from dsmoe_core.errors import SettingsError
from dsmoe_core.outputs import GatingOutput


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
        self, x: Float[Tensor, "p l d"], selected: Int[Tensor, " p"], text: Float[Tensor, "e t"]
    ) -> Float[Tensor, "p l d"]:
        """Run one expert per (image, expert) pair.

        Args:
            x: positions of the image of each pair.
            selected: expert of each pair, counted from the first cross-modal expert.
            text: text embedding of every cross-modal expert.
        """
        text_term = torch.bmm(text[selected, None].to(x.dtype), self.textual[selected].to(x.dtype))
        mixed = torch.bmm(x, self.visual[selected].to(x.dtype)) + text_term
        normed = F.layer_norm(mixed, mixed.shape[-1:])
        return normed * self.scale[selected].to(x.dtype) + self.shift[selected].to(x.dtype)


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
        if torch.compiler.is_compiling():
            return self.forward_traceable(f_b, gated)
        return self.forward_sparse(f_b, gated)

    def forward_sparse(self, f_b: Float[Tensor, "b d h w"], gated: GatingOutput) -> Float[Tensor, "b d h w"]:
        """Run only the selected experts."""
        total = torch.zeros_like(f_b)
        for index, expert in enumerate(self.task):
            image, slot = (gated.experts == index).nonzero(as_tuple=True)
            if len(image):
                weight = gated.weights[image, slot].to(f_b.dtype)[:, None, None, None]
                total = total.index_add(0, image, (expert(f_b[image]) * weight).to(f_b.dtype))
        image, slot = (gated.experts >= len(self.task)).nonzero(as_tuple=True)
        if not len(image):
            return total
        selected = gated.experts[image, slot] - len(self.task)
        tokens = f_b.flatten(2).transpose(1, 2)
        outputs = self.cross(tokens[image], selected, gated.expert_text[len(self.task) :])
        weighted = outputs * gated.weights[image, slot].to(outputs.dtype)[:, None, None]
        cross_modal = torch.zeros_like(tokens).index_add(0, image, weighted.to(tokens.dtype))
        return total + cross_modal.transpose(1, 2).reshape(f_b.shape)

    def forward_traceable(
        self, f_b: Float[Tensor, "b d h w"], gated: GatingOutput
    ) -> Float[Tensor, "b d h w"]:
        """Compute the same sum with static shapes, for export and torch.compile.

        A traced graph cannot hold tensors whose length depends on how many images selected an expert. So all
        task experts run on every image, with weight 0 where they were not selected. All k selections of an
        image go through the gathered product; in place of a task expert, the first cross-modal expert runs
        with weight 0.
        """
        total = torch.zeros_like(f_b)
        for index, expert in enumerate(self.task):
            weight = (gated.weights * (gated.experts == index)).sum(1).to(f_b.dtype)
            output: Tensor = expert(f_b)
            total = total + output * weight[:, None, None, None]
        slots = gated.experts.shape[1]
        tokens = f_b.flatten(2).transpose(1, 2)
        selected = gated.experts - len(self.task)
        outputs: Tensor = self.cross(
            tokens.repeat_interleave(slots, dim=0),
            selected.clamp_min(0).flatten(),
            gated.expert_text[len(self.task) :],
        )
        weights = (gated.weights * (selected >= 0)).to(outputs.dtype)[..., None, None]
        cross_modal = (rearrange(outputs, "(b k) l d -> b k l d", k=slots) * weights).sum(1)
        return total + cross_modal.transpose(1, 2).reshape(f_b.shape)
