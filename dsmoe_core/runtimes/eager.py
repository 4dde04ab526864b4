"""PyTorch runtime, eager or compiled, on a GPU if there is one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dsmoe_core.ablation import AblatedDSMoE
from dsmoe_core.allocator import keep_freed_memory
from dsmoe_core.network import DSMoE
from dsmoe_core.runtimes.graph import Graph, graph_outputs
from dsmoe_core.runtimes.next_experts import forward_with_next_experts
from dsmoe_core.runtimes.protocol import RuntimeOutput, runtime_output, to_network_input

MAX_GRAPHS = 64
"""Limit of compiled graphs per network; one is needed for each batch size and number of classes, and
PyTorch's default is 8."""


class EagerRuntime:
    """Runs the PyTorch network.

    Args:
        network: in evaluation mode; it is moved to the device.
        precision: bf16 uses PyTorch's autocast; fp32 also disables TF32 on a GPU.
        device: default: a GPU if there is one.
        compiled: compile the network with torch.compile, on a GPU with CUDA graphs. The first run of each
            batch size then takes minutes.
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
        keep_freed_memory()
        self.network = network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._graph = Graph(self.network)
        self._compiled: Any = _compiled(self._graph, self.device) if compiled else None
        self._warmed_up = False

    @torch.inference_mode()
    def run(
        self,
        images: UInt8[Tensor, "b side side 3"],
        conditioning: Float[Tensor, "s t"],
        classes: Float[Tensor, "c t"],
    ) -> RuntimeOutput:
        """Run a batch; see :class:`~dsmoe_core.runtimes.protocol.Runtime`.

        Raises:
            RuntimeError: a CUDA graph of the compiled network cannot be made.
            torch.OutOfMemoryError: the batch does not fit on the GPU.
        """
        inputs = self._inputs(images, conditioning, classes)
        with self._precision():
            if self._compiled is None:
                return runtime_output(self._graph(*inputs))
            if not self._warmed_up:
                # TinyViT caches its attention biases in the first run. Made inside a CUDA graph, the cache
                # would lie in the graph's memory, which the next run overwrites.
                self._graph(*inputs)
                self._warmed_up = True
            # The outputs lie in the graph's memory, too.
            return runtime_output(output.clone() for output in self._compiled(*inputs))

    @torch.inference_mode()
    def run_with_next_experts(
        self,
        images: UInt8[Tensor, "b side side 3"],
        conditioning: Float[Tensor, "s t"],
        classes: Float[Tensor, "c t"],
    ) -> RuntimeOutput:
        """See :class:`~dsmoe_core.runtimes.protocol.SecondSelection`; never compiled."""
        if not isinstance(self.network, DSMoE):
            return self.run(images, conditioning, classes)
        with self._precision():
            output, following = forward_with_next_experts(
                self.network, *self._inputs(images, conditioning, classes)
            )
        return runtime_output(graph_outputs(output))._replace(next_experts=following)

    def _inputs(self, images: Tensor, conditioning: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pixels = to_network_input(images.to(self.device)).contiguous(memory_format=torch.channels_last)
        return pixels, conditioning.to(self.device), classes.to(self.device)

    @contextmanager
    def _precision(self) -> Iterator[None]:
        without_tf32 = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        with (
            torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"),
            without_tf32 if self.precision == "fp32" else nullcontext(),
        ):
            yield


def _compiled(graph: Graph, device: torch.device) -> Any:
    """Compile one graph per input size; graphs of dynamic sizes are slower."""
    torch._dynamo.config.recompile_limit = MAX_GRAPHS
    graphs: dict[str, Any] = {"triton.cudagraphs": True, "triton.cudagraph_or_error": True}
    options = graphs if device.type == "cuda" else None
    return torch.compile(graph, fullgraph=True, dynamic=False, options=options)
