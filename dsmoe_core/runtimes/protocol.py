"""What a detector asks of whoever runs its network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

Precision = Literal["fp32", "bf16", "int8"]


class RouterOutput(NamedTuple):
    """The router's choice for every image, best expert first."""

    experts: Int[Tensor, "b k"]
    weights: Float[Tensor, "b k"]
    probabilities: Float[Tensor, "b e"]


class RuntimeOutput(NamedTuple):
    """What the network says of a batch, the cells of all its levels side by side."""

    logits: Float[Tensor, "b N c"]
    boxes: Float[Tensor, "b N 4"]
    """x1, y1, x2, y2 in pixels of the square."""
    chosen: RouterOutput | None
    """None for a network without stage 7."""


@runtime_checkable
class Runtime(Protocol):
    """Stages 3 to 10 and the head."""

    @property
    def name(self) -> str: ...

    @property
    def precision(self) -> Precision: ...

    def run(
        self,
        squares: UInt8[Tensor, "b side side 3"],
        conditioning: Float[Tensor, "s t"],
        classes: Float[Tensor, "c t"],
    ) -> RuntimeOutput:
        """One pass over letter-boxed RGB images, with T^ of the conditioning and of the scored classes."""
        ...


def to_network_input(squares: UInt8[Tensor, "b side side 3"]) -> Float[Tensor, "b 3 side side"]:
    """What the network takes: channels first, 0 to 1."""
    return squares.permute(0, 3, 1, 2).float().div(255)


def graph_inputs(
    squares: UInt8[Tensor, "b side side 3"], conditioning: Float[Tensor, "s t"], classes: Float[Tensor, "c t"]
) -> dict[str, NDArray[np.float32]]:
    """The arrays that an exported graph takes, by name (``graph.INPUTS``)."""
    return {
        "images": to_network_input(squares).contiguous().numpy(),
        "conditioning": conditioning.numpy(),
        "classes": classes.numpy(),
    }


def runtime_output(outputs: Iterable[Any]) -> RuntimeOutput:
    """From the arrays that an exported graph puts out, in their order (``graph.OUTPUTS``)."""
    logits, boxes, *routing = (torch.as_tensor(o) for o in outputs)
    return RuntimeOutput(logits, boxes, RouterOutput(*routing) if routing else None)
