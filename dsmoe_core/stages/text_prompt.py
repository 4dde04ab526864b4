"""Stage 1: text prompt initialisation, ``T = Enc(P) + PE(C, d_t)`` (eq. 1).

The frozen text encoder ``Enc`` is outside the network (``text_encoders/``). Its embeddings are an input, so
that they can be cached per class book and exported models take them as an input too.

Paper: uses T as the encoder returns it. We: subtract a running mean of the class embeddings, because sentence
embeddings of defects from one domain are almost parallel, and a network that starts from them learns boxes
long before classes. The mean is learned in training and fixed afterwards, so adding or removing a class does
not change the other embeddings. The literal form is ``centred=False``.

Paper: PE is a learnable trigonometric projection of the class index, which makes the result depend on the
order of the classes. We: make it optional and off by default, because classes are added, removed and permuted
at run time.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dsmoe_core.errors import ModelError
from dsmoe_core.running_mean import RunningMean

CENTRE_MOMENTUM = 0.01


class TextPrompt(nn.Module):
    """Centres the class embeddings and optionally adds a positional code.

    Args:
        width: d_t, width of the class embeddings.
        position: add the learnable trigonometric code of the class index.
        centred: subtract the running mean of the class embeddings.
    """

    def __init__(self, *, width: int, position: bool, centred: bool = True) -> None:
        super().__init__()
        self.centre = RunningMean(width, momentum=CENTRE_MOMENTUM) if centred else None
        self.frequency = nn.Parameter(torch.logspace(0, -4, width // 2)) if position else None
        self.amplitude = nn.Parameter(torch.full((width // 2 * 2,), 0.02)) if position else None

    def forward(self, text: Float[Tensor, "c t"]) -> Float[Tensor, "c t"]:
        """Compute T of eq. 1 from Enc(P)."""
        if self.centre is not None:
            text = self.centre(text)
        if self.frequency is None or self.amplitude is None:
            return text
        phase = torch.arange(len(text), device=text.device)[:, None] * self.frequency
        code = torch.cat([phase.sin(), phase.cos()], dim=-1) * self.amplitude
        return text + nn.functional.pad(code, (0, text.shape[-1] - code.shape[-1]))

    def update(self, text: Float[Tensor, "c t"]) -> None:
        """Move the running mean towards the mean of these classes; a single class leaves it unchanged."""
        if self.centre is not None and len(text) > 1:
            self.centre.update(text)


class ClassIndex(nn.Module):
    """Replaces stage 1 in a network without text: class i is the i-th unit vector.

    The head's projection then holds one learned vector per class, as in a detector without text.
    """

    def forward(self, text: Float[Tensor, "c t"]) -> Float[Tensor, "c t"]:
        """Return one unit vector per class, whatever the texts are.

        Raises:
            ModelError: there are more classes than the embeddings are wide.
        """
        count, width = text.shape
        if count > width:
            raise ModelError(
                f"{count} classes; a network without text supports at most text_width = {width}",
                "Increase text_width, or use an ablation row with text (B to F).",
            )
        return torch.eye(count, width, dtype=text.dtype, device=text.device)

    def update(self, text: Float[Tensor, "c t"]) -> None:
        """Do nothing: there are no statistics of the texts."""
