"""The exported graph: dynamic sizes, node names, data types, and all network variants."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from exports import Exports, diverse_network, sample_images, sample_texts
from tiny import SMALL

from dsmoe_core.build import build
from dsmoe_core.config import ModelConfig, PaperForms
from dsmoe_core.outputs import GatingOutput
from dsmoe_core.runtimes.eager import EagerRuntime
from dsmoe_core.runtimes.graph import INPUTS, OUTPUTS, onnx_graph
from dsmoe_core.runtimes.packages import import_package
from dsmoe_core.runtimes.protocol import to_network_input
from dsmoe_core.stages.experts import SparseExperts

COUNT = 6


@pytest.mark.parametrize("size", [(7, 6), (1, 1)], ids=["per position", "per image"])
def test_experts_of_a_traced_graph_equal_the_eager_ones(size: tuple[int, int]) -> None:
    """Other selections than that of the trace, also without any task expert or cross-modal expert."""
    torch.manual_seed(0)
    experts = SparseExperts(width=16, text_width=12, experts=COUNT, grid_stride=8).eval()
    f_b, texts = torch.randn(5, 16, 7, 6), torch.randn(COUNT, 12)

    def gated(low: int, high: int) -> GatingOutput:
        chosen = torch.randint(low, high, (5, 2, *size))
        return GatingOutput(
            chosen, torch.rand(5, 2, *size), torch.rand(5, COUNT, *size), texts, torch.rand(5, COUNT, *size)
        )

    with torch.no_grad():
        traced = torch.export.export(experts, (f_b, gated(0, COUNT))).module()
        for low, high in ((0, COUNT), (0, 1), (0, 2), (2, COUNT), (3, 4)):
            signal = gated(low, high)
            assert (traced(f_b, signal) - experts(f_b, signal)).abs().max() < 1e-5


def test_batch_and_numbers_of_classes_are_dynamic(exports: Exports) -> None:
    graph = exports.graph.graph
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    side, width = SMALL.image_px, SMALL.text_width
    assert tuple(shapes) == INPUTS + OUTPUTS
    assert shapes["images"] == ["batch", 3, side, side]
    assert shapes["conditioning"] == ["conditioning_classes", width]
    assert shapes["classes"] == ["scored_classes", width]
    assert shapes["logits"] == ["batch", 80, "scored_classes"]
    assert shapes["boxes"] == ["batch", 80, 4]
    cells = side // SMALL.grid_stride
    assert shapes["features"] == ["batch", SMALL.width, cells, cells]
    assert shapes["experts"] == ["batch", SMALL.top_k, cells, cells]
    assert shapes["probabilities"] == ["batch", SMALL.experts, cells, cells]


def test_nodes_are_named_after_modules_and_have_no_paths(exports: Exports) -> None:
    graph = exports.graph.graph
    stages = {node.name.partition("/")[0].partition(".")[0] for node in graph.node}
    every = {"image_encoder", "cbam", "alignment", "broadcasting", "gating", "experts", "ensemble"}
    assert every | {"aggregation", "head"} <= stages
    assert len({node.name for node in graph.node}) == len(graph.node)
    assert b".py" not in exports.graph.SerializeToString()


def test_graph_is_fp32(exports: Exports) -> None:
    """Autocast must not be part of the graph."""
    kinds = import_package("onnx").TensorProto
    weights = {w.data_type for w in exports.graph.graph.initializer}
    casts = {
        a.i for n in exports.graph.graph.node if n.op_type == "Cast" for a in n.attribute if a.name == "to"
    }
    assert not (weights | casts) & {kinds.BFLOAT16, kinds.FLOAT16, kinds.DOUBLE}


def with_forms(config: ModelConfig) -> ModelConfig:
    return config.model_copy(update={"paper": PaperForms.all_literal()})


SHAPES: dict[str, Callable[[ModelConfig], ModelConfig]] = {
    **{f"row {row}": lambda c, row=row: c.model_copy(update={"ablation": row}) for row in "ABCD"},
    "one expert of four": lambda c: c.model_copy(update={"top_k": 1}),
    "all experts": lambda c: c.model_copy(update={"top_k": 4}),
    "more experts for the tail": lambda c: c.model_copy(update={"tail_top_k": 4}),
    "to the letter of the paper": with_forms,
    "routing per image": lambda c: c.model_copy(update={"routing": "image"}),
    "all levels, coarse grid": lambda c: c.model_copy(
        update={"head_strides": (4, 8, 16, 32), "grid_stride": 16}
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_every_network_variant_can_be_exported(name: str) -> None:
    config = SHAPES[name](SMALL)
    torch.manual_seed(0)
    network = diverse_network(config) if config.dynamic_experts else build(config).eval()
    session = import_package("onnxruntime").InferenceSession(
        onnx_graph(network, config).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    eager = EagerRuntime(network, "fp32")
    for batch, conditioning, scored in ((1, 3, 2), (3, 3, 5)):
        texts = sample_texts(conditioning), sample_texts(scored, seed=1)
        expected = eager.run(sample_images(batch), *texts)
        inputs = (to_network_input(sample_images(batch)).contiguous(), *texts)
        outputs = session.run(None, dict(zip(INPUTS, (t.numpy() for t in inputs), strict=True)))
        assert len(outputs) == (6 if config.dynamic_experts else 3)
        tensors = [*expected[:3], *(expected.routing or ())]
        for tensor, output in zip(tensors, outputs, strict=True):
            assert np.abs(tensor.numpy() - output).max() < 1e-4
