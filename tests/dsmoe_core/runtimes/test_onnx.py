"""ONNX Runtime: fallback providers and out-of-memory errors, with a stub of the package."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from exports import Exports, sample_images, sample_texts

from dsmoe_core.runtimes.onnx import OnnxRuntime, Provider

EXPECTED: dict[Provider, list[str]] = {
    "cpu": ["CPU"],
    "cuda": ["CUDA", "CPU"],
    "tensorrt": ["Tensorrt", "CUDA", "CPU"],
    "auto": ["CUDA", "CPU"],
}


@pytest.mark.parametrize(("provider", "expected"), EXPECTED.items())
def test_provider_has_its_fallbacks(
    provider: Provider, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []

    def session(path: str, providers: list[Any]) -> Any:
        names.extend(entry if isinstance(entry, str) else entry[0] for entry in providers)
        return SimpleNamespace(get_providers=lambda: names)

    package = SimpleNamespace(
        InferenceSession=session,
        get_available_providers=lambda: [f"{name}ExecutionProvider" for name in ("Tensorrt", "CUDA", "CPU")],
    )
    monkeypatch.setattr("dsmoe_core.runtimes.onnx.import_package", lambda name: package)
    OnnxRuntime(Path("model.onnx"), provider)
    assert names == [f"{name}ExecutionProvider" for name in expected]


@pytest.mark.parametrize(
    ("message", "out_of_memory"),
    [
        ("RUNTIME_EXCEPTION : BFCArena Failed to allocate memory for requested buffer", True),
        ("CUDA failure 2: out of memory ; GPU=0", True),
        ("INVALID_ARGUMENT : Unexpected input data type", False),
    ],
)
def test_out_of_memory_is_distinguished_from_other_errors(
    exports: Exports, message: str, out_of_memory: bool
) -> None:
    def fail(*_: Any) -> Any:
        raise ValueError(message)

    runtime = OnnxRuntime(exports.onnx / "model.onnx", "cpu")
    runtime._session = SimpleNamespace(run=fail)
    with pytest.raises(torch.OutOfMemoryError if out_of_memory else ValueError, match=message.split()[0]):
        runtime.run(sample_images(1), sample_texts(3), sample_texts(2))
