"""ONNX Runtime's providers, which its package for a processor does not have, and its memory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from exports import Exports, sample_images, sample_texts

from dsmoe_core.runtimes.onnx import OnnxRuntime, Provider

ASKED: dict[Provider, list[str]] = {
    "cpu": ["CPU"],
    "cuda": ["CUDA", "CPU"],
    "tensorrt": ["Tensorrt", "CUDA", "CPU"],
    "auto": ["CUDA", "CPU"],
}


@pytest.mark.parametrize(("provider", "asked"), ASKED.items())
def test_what_one_provider_does_not_compute_the_next_best_does(
    provider: Provider, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def session(path: str, providers: list[Any]) -> Any:
        made.extend(one if isinstance(one, str) else one[0] for one in providers)
        return SimpleNamespace(get_providers=lambda: made)

    package = SimpleNamespace(
        InferenceSession=session,
        get_available_providers=lambda: [f"{name}ExecutionProvider" for name in ("Tensorrt", "CUDA", "CPU")],
    )
    monkeypatch.setattr("dsmoe_core.runtimes.onnx.import_package", lambda name: package)
    OnnxRuntime(Path("model.onnx"), provider)
    assert made == [f"{name}ExecutionProvider" for name in asked]


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("RUNTIME_EXCEPTION : BFCArena Failed to allocate memory for requested buffer", True),
        ("CUDA failure 2: out of memory ; GPU=0", True),
        ("INVALID_ARGUMENT : Unexpected input data type", False),
    ],
)
def test_a_batch_that_finds_no_room_is_told_from_other_faults(
    exports: Exports, said: str, error: bool
) -> None:
    def fail(*_: Any) -> Any:
        raise ValueError(said)

    runtime = OnnxRuntime(exports.onnx / "model.onnx", "cpu")
    runtime._session = SimpleNamespace(run=fail)
    with pytest.raises(torch.OutOfMemoryError if error else ValueError, match=said.split()[0]):
        runtime.run(sample_images(1), sample_texts(3), sample_texts(2))
