"""PyTorch as it comes, on a GPU where there is one."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dsmoe_core.ablation import AblatedDSMoE
from dsmoe_core.assign import flatten
from dsmoe_core.network import DSMoE
from dsmoe_core.runtimes.protocol import Answer, Chosen, as_images


class EagerRuntime:
    """Runs the network itself.

    Args:
        network: in evaluation mode; it is moved to the device.
        precision: bf16 where PyTorch's autocast takes it, or fp32 throughout.
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
        mode = "reduce-overhead" if self.device.type == "cuda" else None
        self._forward = torch.compile(self.network, fullgraph=True, mode=mode) if compiled else self.network

    @torch.inference_mode()
    def look(
        self,
        squares: UInt8[Tensor, "b side side 3"],
        steering: Float[Tensor, "s t"],
        classes: Float[Tensor, "c t"],
    ) -> Answer:
        images = as_images(squares.to(self.device)).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            output = self._forward(images, steering.to(self.device), classes.to(self.device))
        flat = flatten(output.levels)
        return Answer(flat.logits, flat.boxes, output.gated and Chosen(*output.gated[:3]))
