"""PyTorch as it comes, on a GPU where there is one."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dsmoe_core.ablation import AblatedDSMoE
from dsmoe_core.network import DSMoE
from dsmoe_core.runtimes.graph import Graph
from dsmoe_core.runtimes.protocol import RuntimeOutput, runtime_output, to_network_input

MAX_GRAPHS = 64
"""Of one compiled network: a graph is made for each size of batch and book, and PyTorch stops at eight."""


class EagerRuntime:
    """Runs the network itself.

    Args:
        network: in evaluation mode; it is moved to the device.
        precision: bf16 where PyTorch's autocast takes it, or fp32 throughout, without a GPU's TF32.
        device: none: a GPU where there is one.
        compiled: let torch.compile make one graph of it, with CUDA graphs on a GPU; the first pass over a
            batch of each size then takes minutes.
    """

    def __init__(
        self,
        network: DSMoE | AblatedDSMoE,
        precision: Literal["fp32", "bf16"] = "bf16",
        *,
        device: str | None = None,
        compiled: bool = False,
    ) -> None:
        self.name = "compile" if compiled else "eager"
        self.precision: Literal["fp32", "bf16"] = precision
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.network = network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._graph = Graph(self.network)
        self._compiled: Any = _compiled(self._graph, self.device) if compiled else None
        self._has_looked = False

    @torch.inference_mode()
    def run(
        self,
        squares: UInt8[Tensor, "b side side 3"],
        conditioning: Float[Tensor, "s t"],
        classes: Float[Tensor, "c t"],
    ) -> RuntimeOutput:
        """One pass.

        Raises:
            RuntimeError: no CUDA graph can be made of a compiled network.
            torch.OutOfMemoryError: the batch does not fit on the GPU.
        """
        images = to_network_input(squares.to(self.device)).contiguous(memory_format=torch.channels_last)
        feed = images, conditioning.to(self.device), classes.to(self.device)
        exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        with (
            torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"),
            exact if self.precision == "fp32" else nullcontext(),
        ):
            if self._compiled is None:
                return runtime_output(self._graph(*feed))
            if not self._has_looked:
                # TinyViT keeps what its first pass after a move makes of its attention biases. In a CUDA
                # graph that would be the graph's own memory, which its next pass overwrites.
                self._graph(*feed)
                self._has_looked = True
            return runtime_output(output.clone() for output in self._compiled(*feed))  # for the same reason


def _compiled(graph: Graph, device: torch.device) -> Any:
    """One graph for each size of its inputs: sizes that are left open cost speed."""
    torch._dynamo.config.recompile_limit = MAX_GRAPHS
    graphs: dict[str, Any] = {"triton.cudagraphs": True, "triton.cudagraph_or_error": True}
    options = graphs if device.type == "cuda" else None
    return torch.compile(graph, fullgraph=True, dynamic=False, options=options)
