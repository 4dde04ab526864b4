"""Eager runtime: output memory and caches of compiled networks with CUDA graphs, and TF32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from exports import diverse_network, sample_images, sample_texts
from torch import Tensor, nn

from dsmoe_core.runtimes.eager import EagerRuntime
from dsmoe_core.runtimes.protocol import RuntimeOutput

TEXTS = sample_texts(3), sample_texts(2, seed=1)


class CudaGraphs:
    """Replaces torch.compile with CUDA graphs: every run overwrites the outputs of the previous run."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}
        self.caches_were_filled = True

    def compile(self, graph: nn.Module, **options: Any) -> Callable[..., tuple[Tensor, ...]]:
        self.options = options
        memory: dict[int, tuple[Tensor, ...]] = {}

        def replay(images: Tensor, *texts: Tensor) -> tuple[Tensor, ...]:
            caches = [m.attention_bias_cache for m in graph.modules() if hasattr(m, "attention_bias_cache")]
            self.caches_were_filled &= bool(caches) and all(caches)
            outputs = graph(images, *texts)
            owned = memory.setdefault(len(images), tuple(torch.empty_like(o) for o in outputs))
            for buffer, output in zip(owned, outputs, strict=True):
                buffer.copy_(output)
            return owned

        return replay


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> CudaGraphs:
    stub = CudaGraphs()
    monkeypatch.setattr(torch, "compile", stub.compile)
    return stub


def tensors(output: RuntimeOutput) -> list[Tensor]:
    assert output.routing is not None
    return [output.logits, output.boxes, *output.routing]


def test_output_of_a_compiled_network_survives_the_next_run(graphs: CudaGraphs) -> None:
    network = diverse_network()
    eager = EagerRuntime(network, "fp32", device="cpu")
    batches = [sample_images(4), sample_images(4).flip(0)]
    expected = [tensors(eager.run(batch, *TEXTS)) for batch in batches]
    assert not torch.equal(expected[0][0], expected[1][0])
    compiled = EagerRuntime(network, "fp32", device="cpu", compiled=True)
    outputs = [compiled.run(batch, *TEXTS) for batch in batches]
    for output, reference in zip(outputs, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(tensors(output), reference, strict=True))


def test_caches_are_filled_before_the_graph_is_captured(graphs: CudaGraphs) -> None:
    EagerRuntime(diverse_network(), "fp32", device="cpu", compiled=True).run(sample_images(1), *TEXTS)
    assert graphs.caches_were_filled
    assert graphs.options["dynamic"] is False


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", False), ("bf16", True)])
def test_fp32_disables_tf32(precision: Any, allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    runtime, recorded = EagerRuntime(diverse_network(), precision, device="cpu"), []
    runtime.network.register_forward_hook(lambda *_: recorded.append(torch.backends.cudnn.allow_tf32))
    runtime.run(sample_images(1), *TEXTS)
    assert recorded == [allowed]
    assert torch.backends.cudnn.allow_tf32
