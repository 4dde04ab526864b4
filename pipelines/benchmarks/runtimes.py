"""Everything on this machine that can run a network, and why the rest cannot."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dsmoe_core.config import ModelConfig
from dsmoe_core.errors import ModelError, PrerequisiteError
from dsmoe_core.network import ClassEncoding
from dsmoe_core.runtimes.eager import EagerRuntime
from dsmoe_core.runtimes.graph import onnx_graph
from dsmoe_core.runtimes.int8 import quantise
from dsmoe_core.runtimes.onnx import ConcreteProvider, OnnxRuntime
from dsmoe_core.runtimes.openvino import OpenVinoRuntime
from dsmoe_core.runtimes.packages import import_package
from dsmoe_core.runtimes.protocol import Runtime

Device = Literal["cpu", "cuda"]
CALIBRATION = 8
TRIES = 3
"""A CUDA graph is made, recorded and played: what is wrong with one shows by the third pass."""


class Contestant(NamedTuple):
    """One runtime on one device."""

    device: str
    runtime: Runtime

    @property
    def names(self) -> dict[str, str]:
        return {"device": self.device, "runtime": self.runtime.name, "dtype": self.runtime.precision}


class Field(NamedTuple):
    """Who runs, and who does not: what it is and why."""

    running: list[Contestant]
    left_out: dict[str, str]


def contestants(
    network: nn.Module,
    config: ModelConfig,
    read: ClassEncoding,
    folder: Path,
    *,
    devices: Collection[Device],
    compiled: bool,
) -> Field:
    """Everything on these devices that can run the network; eager fp32 first on each.

    Args:
        folder: an empty one for exported graphs, which stay in use.
        compiled: torch.compile on the processor too.
    """
    field = Field([], {})
    for device in devices:
        own: Any = copy.deepcopy(network)
        field.running.extend(
            Contestant(device, EagerRuntime(own, p, device=device)) for p in ("fp32", "bf16")
        )
        if compiled or device == "cuda":
            own = copy.deepcopy(network)
            made = Contestant(device, EagerRuntime(own, "bf16", device=device, compiled=True))
            if (reason := _fault(made, config, read)) is None:
                field.running.append(made)
            else:
                field.left_out[f"compile, bf16, {device}"] = reason
    for name, build in _exported(network, config, read, folder, devices):
        try:
            field.running.append(build())
        except (PrerequisiteError, ModelError) as error:
            field.left_out[name] = error.problem
    return field


def _fault(one: Contestant, config: ModelConfig, read: ClassEncoding) -> str | None:
    """Why it does not run, where it does not."""
    try:
        for number in range(TRIES):
            one.runtime.run(random_squares(1, config.image_px, seed=number), read.conditioning, read.classes)
    except RuntimeError as error:
        return str(error).strip().splitlines()[0]
    return None


def _exported(
    network: nn.Module, config: ModelConfig, read: ClassEncoding, folder: Path, devices: Collection[Device]
) -> list[tuple[str, Callable[[], Contestant]]]:
    """What runs the exported graph, by name, each still to be built."""

    @cache
    def graph() -> Path:
        path = folder / "model.onnx"
        made: Any = onnx_graph(copy.deepcopy(network), config)  # type: ignore[arg-type]
        import_package("onnx").save(made, path)
        return path

    def onnx(provider: ConcreteProvider, device: Device) -> Contestant:
        precision: Literal["fp32", "bf16"] = "bf16" if provider == "tensorrt" else "fp32"
        return Contestant(device, OnnxRuntime(graph(), provider, precision))

    def openvino(precision: Literal["fp32", "bf16"]) -> Contestant:
        import_package("openvino")  # before a graph is traced in vain
        return Contestant("cpu", OpenVinoRuntime(graph(), precision))

    def int8() -> Contestant:
        tools, eight = import_package("openvino"), folder / "int8.xml"
        import_package("nncf")
        squares = random_squares(CALIBRATION, config.image_px, seed=0).numpy()
        tools.save_model(quantise(tools.Core().read_model(graph()), list(squares), read), eight)
        return Contestant("cpu", OpenVinoRuntime(eight, "int8"))

    built: list[tuple[str, Callable[[], Contestant]]] = []
    if "cpu" in devices:
        built.append(("onnxruntime, fp32, cpu", partial(onnx, "cpu", "cpu")))
    if "cuda" in devices:
        built.append(("onnxruntime, fp32, cuda", partial(onnx, "cuda", "cuda")))
        built.append(("tensorrt, bf16, cuda", partial(onnx, "tensorrt", "cuda")))
    if "cpu" in devices:
        built.append(("openvino, fp32, cpu", partial(openvino, "fp32")))
        built.append(("openvino, bf16, cpu", partial(openvino, "bf16")))
        built.append(("openvino, int8, cpu", int8))
    return built


def random_squares(batch: int, side: int, *, seed: int) -> Tensor:
    """Images of noise: time does not depend on what is shown, but for which experts are chosen."""
    pixels = np.random.default_rng(seed).integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
    return torch.from_numpy(pixels)
