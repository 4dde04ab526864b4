"""ONNX Runtime: on a processor, or through its CUDA and TensorRT providers."""

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
_NAMES: dict[ConcreteProvider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_AFTER: dict[ConcreteProvider, tuple[ConcreteProvider, ...]] = {
    "cpu": (),
    "cuda": ("cpu",),
    "tensorrt": ("cuda", "cpu"),
}
"""Who computes what a provider does not."""
_NO_ROOM = ("failed to allocate memory", "out of memory", "available memory of")
"""How ONNX Runtime, CUDA and ONNX Runtime's arena say it."""
_log = logging.getLogger(__name__)


class OnnxRuntime:
    """Runs ``model.onnx`` in fp32; TensorRT may take bf16 where it is faster.

    Args:
        graph: the file.
        provider: what computes; ``auto`` is CUDA where the installed ONNX Runtime has and can load it, else
            the processor.

    Raises:
        ModelError: the file is no ONNX graph. PrerequisiteError: ONNX Runtime or its provider is missing.
    """

    def __init__(self, graph: Path, provider: Provider = "auto", precision: Precision = "fp32") -> None:
        self.precision: Precision = precision
        self._session: Any = None
        if provider == "auto" and "cuda" in providers():
            try:
                self._session = _session(graph, "cuda", precision)
            except (PrerequisiteError, ModelError) as error:  # a damaged file is one on the processor too
                _log.warning("ONNX Runtime computes on the processor: %s", error.problem)
        if self._session is None:
            self._session = _session(graph, "cpu" if provider == "auto" else provider, precision)
        self.name = "tensorrt" if provider == "tensorrt" else "onnxruntime"

    def run(
        self,
        squares: UInt8[Tensor, "b side side 3"],
        conditioning: Float[Tensor, "s t"],
        classes: Float[Tensor, "c t"],
    ) -> RuntimeOutput:
        """One pass.

        Raises:
            torch.OutOfMemoryError: the batch does not fit on the GPU.
        """
        try:
            return runtime_output(self._session.run(None, graph_inputs(squares, conditioning, classes)))
        except Exception as error:  # as above
            if any(words in str(error).lower() for words in _NO_ROOM):
                raise torch.OutOfMemoryError(_first_line(error)) from error
            raise


def _session(graph: Path, provider: ConcreteProvider, precision: Precision) -> Any:
    """A session that computes on this provider.

    Raises:
        ModelError: the file is no ONNX graph. PrerequisiteError: ONNX Runtime or its provider is missing.
    """
    runtime = import_package("onnxruntime")
    if provider not in providers():
        raise _lacking(provider)
    options: dict[str, Any] = {}
    if provider == "tensorrt":  # an engine takes minutes to build, so it is kept beside the graph
        cache = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(graph.parent / "tensorrt")}
        options = {**cache, "trt_bf16_enable": precision == "bf16"}
    after: list[ConcreteProvider] = [one for one in _AFTER[provider] if one in providers()]
    try:
        session = runtime.InferenceSession(
            str(graph), providers=[(_NAMES[provider], options), *(_NAMES[one] for one in after)]
        )
    except Exception as error:  # it raises a type of its own for every fault of a file
        raise ModelError(f"{graph} cannot be run ({_first_line(error)})", "Export it again.") from error
    if session.get_providers()[0] != _NAMES[provider]:  # it falls back without a word
        raise _lacking(provider)
    return session


def providers() -> list[ConcreteProvider]:
    """Which of ours the installed ONNX Runtime was built with.

    Raises:
        PrerequisiteError: it is not installed.
    """
    offered = import_package("onnxruntime").get_available_providers()
    return [provider for provider, name in _NAMES.items() if name in offered]


def _lacking(provider: ConcreteProvider) -> PrerequisiteError:
    return PrerequisiteError(
        f"this ONNX Runtime has no {_NAMES[provider]}, or cannot load it",
        "Install onnxruntime-gpu with its CUDA or TensorRT libraries, or take another --provider.",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
