"""What a compiled network may keep and give away where CUDA graphs own the memory, and what fp32 means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from exports import diverse_network, sample_images, sample_texts
from torch import Tensor, nn

from dsmoe_core.runtimes.eager import EagerRuntime
from dsmoe_core.runtimes.protocol import RuntimeOutput

WORDS = sample_texts(3), sample_texts(2, seed=1)


class CudaGraphs:
    """Stands for torch.compile with CUDA graphs: every pass writes its outputs over those of the last."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}
        self.kept_before = True

    def compile(self, graph: nn.Module, **options: Any) -> Callable[..., tuple[Tensor, ...]]:
        self.options = options
        memory: dict[int, tuple[Tensor, ...]] = {}

        def replay(images: Tensor, *words: Tensor) -> tuple[Tensor, ...]:
            caches = [m.attention_bias_cache for m in graph.modules() if hasattr(m, "attention_bias_cache")]
            self.kept_before &= bool(caches) and all(caches)
            outputs = graph(images, *words)
            own = memory.setdefault(len(images), tuple(torch.empty_like(o) for o in outputs))
            for mine, output in zip(own, outputs, strict=True):
                mine.copy_(output)
            return own

        return replay


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> CudaGraphs:
    stub = CudaGraphs()
    monkeypatch.setattr(torch, "compile", stub.compile)
    return stub


def parts(answer: RuntimeOutput) -> list[Tensor]:
    assert answer.routing is not None
    return [answer.logits, answer.boxes, *answer.routing]


def test_an_answer_outlives_the_next_pass_of_a_compiled_network(graphs: CudaGraphs) -> None:
    network = diverse_network()
    eager = EagerRuntime(network, "fp32", device="cpu")
    shown = [sample_images(4), sample_images(4).flip(0)]
    expected = [parts(eager.run(one, *WORDS)) for one in shown]
    assert not torch.equal(expected[0][0], expected[1][0])
    compiled = EagerRuntime(network, "fp32", device="cpu", compiled=True)
    answers = [compiled.run(one, *WORDS) for one in shown]
    for answer, wanted in zip(answers, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(parts(answer), wanted, strict=True))


def test_what_the_encoder_keeps_of_its_first_pass_is_none_of_the_graph_s(graphs: CudaGraphs) -> None:
    EagerRuntime(diverse_network(), "fp32", device="cpu", compiled=True).run(sample_images(1), *WORDS)
    assert graphs.kept_before
    assert graphs.options["dynamic"] is False, "a graph that leaves the batch open is slower"


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", False), ("bf16", True)])
def test_fp32_is_no_tf32(precision: Any, allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    runtime, seen = EagerRuntime(diverse_network(), precision, device="cpu"), []
    runtime.network.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    runtime.run(sample_images(1), *WORDS)
    assert seen == [allowed]
    assert torch.backends.cudnn.allow_tf32
