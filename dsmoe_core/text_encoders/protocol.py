"""The interface of all text encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class TextEncoder(Protocol):
    """Converts texts to float32 unit vectors on the CPU; deterministic.

    Models are loaded, and servers contacted, on first use, so every member may raise a ``DsmoeError``.
    """

    @property
    def name(self) -> str:
        """Identifies weights and pooling: two encoders with the same name give the same vectors."""
        ...

    @property
    def width(self) -> int:
        """Length of a vector (d_t)."""
        ...

    def encode(self, texts: Sequence[str]) -> Float[Tensor, "t w"]:
        """One vector per text, in order."""
        ...
