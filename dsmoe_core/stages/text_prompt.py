"""Stage 1: text prompt initialisation, ``T = Enc(P) + PE(C, d_t)`` (eq. 1).

The frozen encoder ``Enc`` stands outside the network (``text_encoders/``): its vectors come in, so that
they can be cached per class book and exported models take them as an input.

Paper: T is used as the encoder gives it. We: take off what all classes have in common, because sentence
vectors of one trade's defects point almost the same way, and a network that starts from them learns boxes
long before classes. The centre is learned as a running mean while training and is fixed afterwards, so that
a class that is added or removed does not move the others. The letter is ``centred=False``.

Paper: PE is a learnable trigonometric projection of the class index. That makes the result depend on the
order of the classes. We: keep it switchable and off by default, because classes are added, removed and
permuted at run time.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dsmoe_core.errors import ModelError
from dsmoe_core.running_mean import RunningMean

CENTRE_MOMENTUM = 0.01


class TextPrompt(nn.Module):
    """Class vectors, with or without a code of their position.

    Args:
        width: d_t.
        position: add the learnable trigonometric code.
        centred: take off what all classes have in common.
    """

    def __init__(self, *, width: int, position: bool, centred: bool = True) -> None:
        super().__init__()
        self.centre = RunningMean(width, momentum=CENTRE_MOMENTUM) if centred else None
        self.frequency = nn.Parameter(torch.logspace(0, -4, width // 2)) if position else None
        self.amplitude = nn.Parameter(torch.full((width // 2 * 2,), 0.02)) if position else None

    def forward(self, text: Float[Tensor, "c t"]) -> Float[Tensor, "c t"]:
        """T of eq. 1, from Enc(P)."""
        if self.centre is not None:
            text = self.centre(text)
        if self.frequency is None or self.amplitude is None:
            return text
        phase = torch.arange(len(text), device=text.device)[:, None] * self.frequency
        code = torch.cat([phase.sin(), phase.cos()], dim=-1) * self.amplitude
        return text + nn.functional.pad(code, (0, text.shape[-1] - code.shape[-1]))

    def follow(self, text: Float[Tensor, "c t"]) -> None:
        """Move the centre towards the mean of these classes; one alone has nothing in common."""
        if self.centre is not None and len(text) > 1:
            self.centre.follow(text)


class ClassIndex(nn.Module):
    """Instead of stage 1 where classes are numbers without words: class i is the i-th unit vector.

    The head's projection of it is then a learned vector of its own for every class, as in a detector without
    text.
    """

    def forward(self, text: Float[Tensor, "c t"]) -> Float[Tensor, "c t"]:
        """One row a class, whatever it is called.

        Raises:
            ModelError: there are more classes than the rows are wide.
        """
        count, width = text.shape
        if count > width:
            raise ModelError(
                f"{count} classes; without text at most {width} can be told apart",
                "Widen text_width, or use the text.",
            )
        return torch.eye(count, width, dtype=text.dtype, device=text.device)

    def follow(self, text: Float[Tensor, "c t"]) -> None:
        """Nothing is learned of the words."""
