"""ONNX Runtime: on the CPU, or with its CUDA and TensorRT execution providers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dsmoe_core.errors import ModelError, PrerequisiteError
from dsmoe_core.runtimes.packages import import_package
from dsmoe_core.runtimes.protocol import Precision, RuntimeOutput, graph_inputs, runtime_output

ConcreteProvider = Literal["cpu", "cuda", "tensorrt"]
Provider = Literal["auto", "cpu", "cuda", "tensorrt"]
_PROVIDER_NAMES: dict[ConcreteProvider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_FALLBACKS: dict[ConcreteProvider, tuple[ConcreteProvider, ...]] = {
    "cpu": (),
    "cuda": ("cpu",),
    "tensorrt": ("cuda", "cpu"),
}
"""Providers for the operators that a provider does not support."""
_OUT_OF_MEMORY = ("failed to allocate memory", "out of memory", "available memory of")
"""Parts of the messages of ONNX Runtime, CUDA and ONNX Runtime's memory arena."""
_log = logging.getLogger(__name__)


class OnnxRuntime:
    """Runs ``model.onnx`` in fp32; TensorRT may also use bf16.

    Args:
        graph: the file.
        provider: ``auto`` is CUDA if the installed ONNX Runtime supports it and can load it, otherwise the
            CPU.
        precision: bf16 for TensorRT only.

    Raises:
        ModelError: the file is not an ONNX graph.
        PrerequisiteError: ONNX Runtime or its provider is not installed.
    """

    def __init__(self, graph: Path, provider: Provider = "auto", precision: Precision = "fp32") -> None:
        self.precision: Precision = precision
        self._session: Any = None
        if provider == "auto" and "cuda" in providers():
            try:
                self._session = _session(graph, "cuda", precision)
            except (PrerequisiteError, ModelError) as error:  # a damaged file fails on the CPU, too
                _log.warning("ONNX Runtime runs on the CPU: %s", error.problem)
        if self._session is None:
            self._session = _session(graph, "cpu" if provider == "auto" else provider, precision)
        self.name = "tensorrt" if provider == "tensorrt" else "onnxruntime"

    def run(
        self,
        images: UInt8[Tensor, "b side side 3"],
        conditioning: Float[Tensor, "s t"],
        classes: Float[Tensor, "c t"],
    ) -> RuntimeOutput:
        """Run a batch; see :class:`~dsmoe_core.runtimes.protocol.Runtime`.

        Raises:
            torch.OutOfMemoryError: the batch does not fit on the GPU.
        """
        try:
            return runtime_output(self._session.run(None, graph_inputs(images, conditioning, classes)))
        except Exception as error:  # ONNX Runtime has many exception types
            if any(words in str(error).lower() for words in _OUT_OF_MEMORY):
                raise torch.OutOfMemoryError(_first_line(error)) from error
            raise


def _session(graph: Path, provider: ConcreteProvider, precision: Precision) -> Any:
    """Create an inference session.

    Raises:
        ModelError: the file is not an ONNX graph.
        PrerequisiteError: ONNX Runtime or its provider is not installed.
    """
    package = import_package("onnxruntime")
    if provider not in providers():
        raise _missing_provider(provider)
    options: dict[str, Any] = {}
    if provider == "tensorrt":  # building an engine takes minutes, so it is cached next to the graph
        cache = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(graph.parent / "tensorrt")}
        options = {**cache, "trt_bf16_enable": precision == "bf16"}
    fallbacks: list[ConcreteProvider] = [name for name in _FALLBACKS[provider] if name in providers()]
    try:
        session = package.InferenceSession(
            str(graph),
            providers=[
                (_PROVIDER_NAMES[provider], options),
                *(_PROVIDER_NAMES[name] for name in fallbacks),
            ],
        )
    except Exception as error:  # ONNX Runtime has many exception types
        raise ModelError(f"{graph} cannot be run ({_first_line(error)})", "Export it again.") from error
    if session.get_providers()[0] != _PROVIDER_NAMES[provider]:  # it falls back without an error
        raise _missing_provider(provider)
    return session


def providers() -> list[ConcreteProvider]:
    """The providers that the installed ONNX Runtime supports.

    Raises:
        PrerequisiteError: ONNX Runtime is not installed.
    """
    available = import_package("onnxruntime").get_available_providers()
    return [provider for provider, name in _PROVIDER_NAMES.items() if name in available]


def _missing_provider(provider: ConcreteProvider) -> PrerequisiteError:
    return PrerequisiteError(
        f"this ONNX Runtime has no {_PROVIDER_NAMES[provider]}, or cannot load it",
        "Install onnxruntime-gpu with its CUDA or TensorRT libraries, or use another --provider.",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
