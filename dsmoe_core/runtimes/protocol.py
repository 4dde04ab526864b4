"""The interface of all runtimes, and the conversion of their inputs and outputs."""

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
    """The router's choice of k of e experts at every position of each of b images.

    Where the router chooses per image, h and w are 1.

    Attributes:
        experts: indices, highest weight first.
        weights: of the chosen experts; they sum to 1. 0 for a slot that is not used (``tail_top_k``).
        probabilities: of all experts.
    """

    experts: Int[Tensor, "b k h w"]
    weights: Float[Tensor, "b k h w"]
    probabilities: Float[Tensor, "b e h w"]


class NextExperts(NamedTuple):
    """Logits and boxes of a batch if the next-best experts replace the selected ones."""

    logits: Float[Tensor, "b N c"]
    boxes: Float[Tensor, "b N 4"]


class RuntimeOutput(NamedTuple):
    """Output of the network for a batch of b images, with the N cells of all levels concatenated.

    Attributes:
        logits: of c classes.
        boxes: x1, y1, x2, y2 in pixels of the letter-boxed image.
        features: F_enc, output of stage 3, at the h x w positions of the working grid.
        routing: None for a network without stage 7.
        next_experts: None unless :class:`SecondSelection` computed it.
    """

    logits: Float[Tensor, "b N c"]
    boxes: Float[Tensor, "b N 4"]
    features: Float[Tensor, "b d h w"]
    routing: RouterOutput | None
    next_experts: NextExperts | None = None


@runtime_checkable
class Runtime(Protocol):
    """Executes stages 3 to 10 and the head."""

    @property
    def name(self) -> str:
        """For reports, such as "eager" or "openvino"."""
        ...

    @property
    def precision(self) -> Precision:
        """The precision of the computation."""
        ...

    def run(
        self,
        images: UInt8[Tensor, "b side side 3"],
        conditioning: Float[Tensor, "s t"],
        classes: Float[Tensor, "c t"],
    ) -> RuntimeOutput:
        """Run a batch.

        Args:
            images: letter-boxed RGB images.
            conditioning: T^ of the classes of the training, which condition stages 5 to 9.
            classes: T^ of the classes that are scored.
        """
        ...


@runtime_checkable
class SecondSelection(Protocol):
    """A runtime that can also run the next-best experts on the same features."""

    def run_with_next_experts(
        self,
        images: UInt8[Tensor, "b side side 3"],
        conditioning: Float[Tensor, "s t"],
        classes: Float[Tensor, "c t"],
    ) -> RuntimeOutput:
        """Run a batch; ``next_experts`` is None for a network without experts."""
        ...


def to_network_input(images: UInt8[Tensor, "b side side 3"]) -> Float[Tensor, "b 3 side side"]:
    """Channels first, values from 0 to 1."""
    return images.permute(0, 3, 1, 2).float().div(255)


def graph_inputs(
    images: UInt8[Tensor, "b side side 3"], conditioning: Float[Tensor, "s t"], classes: Float[Tensor, "c t"]
) -> dict[str, NDArray[np.float32]]:
    """Inputs of an exported graph by name (``graph.INPUTS``)."""
    return {
        "images": to_network_input(images).contiguous().numpy(),
        "conditioning": conditioning.numpy(),
        "classes": classes.numpy(),
    }


def runtime_output(outputs: Iterable[Any]) -> RuntimeOutput:
    """Convert the outputs of a graph, given in the order of ``graph.OUTPUTS``."""
    logits, boxes, features, *routing = (torch.as_tensor(o) for o in outputs)
    return RuntimeOutput(logits, boxes, features, RouterOutput(*routing) if routing else None)
