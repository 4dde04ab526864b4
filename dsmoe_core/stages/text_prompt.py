"""Stage 1: text prompt initialisation, ``T = Enc(P) + PE(C, d_t)`` (eq. 1).

The frozen encoder ``Enc`` stands outside the network (``text_encoder.py``): its vectors come in, so that
they can be cached per class book and exported models take them as an input.

Paper: PE is a learnable trigonometric projection of the class index. That makes the result depend on the
order of the classes. We: keep it switchable and off by default, because classes are added, removed and
permuted at run time.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class TextPrompt(nn.Module):
    """Class vectors, with or without a code of their position.

    Args:
        width: d_t.
        position: add the learnable trigonometric code.
    """

    def __init__(self, *, width: int, position: bool) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.logspace(0, -4, width // 2)) if position else None
        self.amplitude = nn.Parameter(torch.full((width // 2 * 2,), 0.02)) if position else None

    def forward(self, text: Float[Tensor, "c t"]) -> Float[Tensor, "c t"]:
        """T of eq. 1, from Enc(P)."""
        if self.frequency is None or self.amplitude is None:
            return text
        phase = torch.arange(len(text), device=text.device)[:, None] * self.frequency
        code = torch.cat([phase.sin(), phase.cos()], dim=-1) * self.amplitude
        return text + nn.functional.pad(code, (0, text.shape[-1] - code.shape[-1]))
