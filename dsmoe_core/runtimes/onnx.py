"""ONNX Runtime: on a processor, or through its CUDA and TensorRT providers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from jaxtyping import Float, UInt8
from torch import Tensor

from dsmoe_core.errors import ModelError, PrerequisiteError
from dsmoe_core.runtimes.packages import need
from dsmoe_core.runtimes.protocol import Answer, Precision, answer_of, feed_of

Provider = Literal["auto", "cpu", "cuda", "tensorrt"]
_NAMES: dict[Literal["cpu", "cuda", "tensorrt"], str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


class OnnxRuntime:
    """Runs ``model.onnx`` in fp32; TensorRT may take bf16 where it is faster.

    Args:
        graph: the file.
        provider: what computes; ``auto`` is CUDA where the installed ONNX Runtime has it, else the processor.

    Raises:
        ModelError: the file is no ONNX graph. PrerequisiteError: ONNX Runtime or its provider is missing.
    """

    def __init__(self, graph: Path, provider: Provider = "auto", precision: Precision = "fp32") -> None:
        runtime = need("onnxruntime")
        if provider == "auto":
            provider = "cuda" if "cuda" in providers() else "cpu"
        if provider not in providers():
            raise _lacking(provider)
        self.name = "tensorrt" if provider == "tensorrt" else "onnxruntime"
        self.precision: Precision = precision
        options: dict[str, Any] = {}
        if provider == "tensorrt":  # an engine takes minutes to build, so it is kept beside the graph
            cache = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(graph.parent / "tensorrt")}
            options = {**cache, "trt_bf16_enable": precision == "bf16"}
        try:
            self._session = runtime.InferenceSession(
                str(graph), providers=[(_NAMES[provider], options), _NAMES["cpu"]][: 1 + (provider != "cpu")]
            )
        except Exception as error:  # it raises a type of its own for every fault of a file
            raise ModelError(f"{graph} cannot be run ({_first_line(error)})", "Export it again.") from error
        if self._session.get_providers()[0] != _NAMES[provider]:  # it falls back without a word
            raise _lacking(provider)

    def look(
        self,
        squares: UInt8[Tensor, "b side side 3"],
        steering: Float[Tensor, "s t"],
        classes: Float[Tensor, "c t"],
    ) -> Answer:
        return answer_of(self._session.run(None, feed_of(squares, steering, classes)))


def providers() -> list[Literal["cpu", "cuda", "tensorrt"]]:
    """Which of ours the installed ONNX Runtime was built with.

    Raises:
        PrerequisiteError: it is not installed.
    """
    offered = need("onnxruntime").get_available_providers()
    return [provider for provider, name in _NAMES.items() if name in offered]


def _lacking(provider: Literal["cpu", "cuda", "tensorrt"]) -> PrerequisiteError:
    return PrerequisiteError(
        f"this ONNX Runtime has no {_NAMES[provider]}, or cannot load it",
        "Install onnxruntime-gpu with its CUDA or TensorRT libraries, or take another --provider.",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
