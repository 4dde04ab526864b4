"""What every text encoder is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class TextEncoder(Protocol):
    """Texts to float32 vectors of length 1 on the CPU, the same ones every time.

    Nothing is loaded or asked before the first use, so each of the three may raise a ``DsmoeError``.
    """

    @property
    def name(self) -> str:
        """Identifies weights and pooling: two encoders of one name give the same vectors."""
        ...

    @property
    def width(self) -> int:
        """d_t, length of a vector."""
        ...

    def encode(self, texts: Sequence[str]) -> Float[Tensor, "t w"]:
        """One vector a text, in order."""
        ...
