"""The runtimes that can run a network on this machine, and the reasons why the others cannot."""

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
CALIBRATION_IMAGES = 8
TRIAL_PASSES = 3
"""CUDA graphs warm up, record and replay in the first three passes; a faulty one fails by then."""


class DeviceRuntime(NamedTuple):
    """A runtime on a device."""

    device: str
    runtime: Runtime

    @property
    def names(self) -> dict[str, str]:
        """The keys that identify it in a result row."""
        return {"device": self.device, "runtime": self.runtime.name, "dtype": self.runtime.precision}


class RuntimeSet(NamedTuple):
    """The runtimes that work, and the reason for each that does not, by ``runtime, dtype, device``."""

    available: list[DeviceRuntime]
    left_out: dict[str, str]


def available_runtimes(
    network: nn.Module,
    config: ModelConfig,
    encoding: ClassEncoding,
    folder: Path,
    *,
    devices: Collection[Device],
    compiled: bool,
) -> RuntimeSet:
    """All runtimes that can run the network on these devices; eager fp32 is the first of a device.

    Args:
        folder: empty, for the exported graphs, which the runtimes keep using.
        compiled: torch.compile on the CPU too; on a GPU it is always included.
    """
    runtimes = eager_runtimes(network, config, encoding, devices=devices, compiled=compiled)
    for name, build in _exported_runtimes(network, config, encoding, folder, devices):
        try:
            runtimes.available.append(build())
        except (PrerequisiteError, ModelError) as error:
            runtimes.left_out[name] = error.problem
    return runtimes


def eager_runtimes(
    network: nn.Module,
    config: ModelConfig,
    encoding: ClassEncoding,
    *,
    devices: Collection[Device],
    compiled: bool,
) -> RuntimeSet:
    """PyTorch on these devices, eager and compiled; see :func:`available_runtimes`."""
    runtimes = RuntimeSet([], {})
    for device in devices:
        on_device: Any = copy.deepcopy(network)
        runtimes.available.extend(
            DeviceRuntime(device, EagerRuntime(on_device, precision, device=device))
            for precision in ("fp32", "bf16")
        )
        if compiled or device == "cuda":
            on_device = copy.deepcopy(network)
            runtime = DeviceRuntime(device, EagerRuntime(on_device, "bf16", device=device, compiled=True))
            if (reason := _failure(runtime, config, encoding)) is None:
                runtimes.available.append(runtime)
            else:
                runtimes.left_out[f"compile, bf16, {device}"] = reason
    return runtimes


def _failure(tested: DeviceRuntime, config: ModelConfig, encoding: ClassEncoding) -> str | None:
    """The first line of the error with which a trial pass fails; None if all pass."""
    try:
        for number in range(TRIAL_PASSES):
            images = random_images(1, config.image_px, seed=number)
            tested.runtime.run(images, encoding.conditioning, encoding.classes)
    except RuntimeError as error:
        return str(error).strip().splitlines()[0]
    return None


def _exported_runtimes(
    network: nn.Module,
    config: ModelConfig,
    encoding: ClassEncoding,
    folder: Path,
    devices: Collection[Device],
) -> list[tuple[str, Callable[[], DeviceRuntime]]]:
    """Names of the runtimes that run an exported graph, with functions that build them."""

    @cache
    def graph() -> Path:
        path = folder / "model.onnx"
        exported: Any = onnx_graph(copy.deepcopy(network), config)  # type: ignore[arg-type]
        import_package("onnx").save(exported, path)
        return path

    def onnx(provider: ConcreteProvider, device: Device) -> DeviceRuntime:
        precision: Literal["fp32", "bf16"] = "bf16" if provider == "tensorrt" else "fp32"
        return DeviceRuntime(device, OnnxRuntime(graph(), provider, precision))

    def openvino(precision: Literal["fp32", "bf16"]) -> DeviceRuntime:
        import_package("openvino")  # fails before the slow export
        return DeviceRuntime("cpu", OpenVinoRuntime(graph(), precision))

    def int8() -> DeviceRuntime:
        package, path = import_package("openvino"), folder / "int8.xml"
        import_package("nncf")
        images = random_images(CALIBRATION_IMAGES, config.image_px, seed=0).numpy()
        package.save_model(quantise(package.Core().read_model(graph()), list(images), encoding), path)
        return DeviceRuntime("cpu", OpenVinoRuntime(path, "int8"))

    builders: list[tuple[str, Callable[[], DeviceRuntime]]] = []
    if "cpu" in devices:
        builders.append(("onnxruntime, fp32, cpu", partial(onnx, "cpu", "cpu")))
    if "cuda" in devices:
        builders.append(("onnxruntime, fp32, cuda", partial(onnx, "cuda", "cuda")))
        builders.append(("tensorrt, bf16, cuda", partial(onnx, "tensorrt", "cuda")))
    if "cpu" in devices:
        builders.append(("openvino, fp32, cpu", partial(openvino, "fp32")))
        builders.append(("openvino, bf16, cpu", partial(openvino, "bf16")))
        builders.append(("openvino, int8, cpu", int8))
    return builders


def random_images(batch: int, side: int, *, seed: int) -> Tensor:
    """Uniform noise, uint8 (batch, side, side, 3); only the selected experts change the time."""
    pixels = np.random.default_rng(seed).integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
    return torch.from_numpy(pixels)
