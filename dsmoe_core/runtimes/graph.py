"""Export of stages 3 to 10 and the head as one ONNX graph; class embeddings are inputs of the graph."""

from __future__ import annotations

import warnings
from ast import literal_eval
from typing import Any

import torch
from torch import Tensor, nn

from dsmoe_core.ablation import AblatedDSMoE
from dsmoe_core.assign import flatten_levels
from dsmoe_core.config import ModelConfig
from dsmoe_core.network import DSMoE, NetworkOutput
from dsmoe_core.runtimes.packages import import_package

INPUTS = ("images", "conditioning", "classes")
OUTPUTS = ("logits", "boxes", "features", "experts", "weights", "probabilities")
OPSET = 20
"""The first ONNX opset whose GridSample all runtimes implement in the same way."""
_SCOPES = "pkg.torch.onnx.name_scopes"


class Graph(nn.Module):
    """The network with plain tensors as inputs and outputs.

    Inputs: images with values from 0 to 1, and T^ of the conditioning and of the scored classes. Outputs:
    ``OUTPUTS``; the first three only for a network without stage 7.
    """

    def __init__(self, network: DSMoE | AblatedDSMoE) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, conditioning: Tensor, classes: Tensor) -> tuple[Tensor, ...]:
        return graph_outputs(self.network(images, conditioning, classes))


def graph_outputs(output: NetworkOutput) -> tuple[Tensor, ...]:
    """The output of the network in the order of ``OUTPUTS``."""
    flat = flatten_levels(output.levels)
    routing = output.gated[:3] if output.gated is not None else ()
    return flat.logits, flat.boxes, output.features.float(), *routing


def onnx_graph(network: DSMoE | AblatedDSMoE, config: ModelConfig) -> Any:
    """Trace a network in evaluation mode.

    The image size is fixed by the configuration; batch size and both numbers of classes are dynamic.

    Returns:
        An ``onnx.ModelProto`` whose nodes are named after the modules that they come from.

    Raises:
        PrerequisiteError: a package of the extra ``export`` is missing.
    """
    import_package("onnx")
    import_package("onnxscript")
    graph = Graph(network).eval()
    # Tracing treats a size of 1 as static. Sizes must also differ from each other.
    example = (
        torch.rand(2, 3, config.image_px, config.image_px),
        torch.randn(3, config.text_width),
        torch.randn(4, config.text_width),
    )
    dynamic = [{0: torch.export.Dim(name)} for name in ("batch", "conditioning_classes", "scored_classes")]
    with torch.no_grad(), warnings.catch_warnings():
        # PyTorch's exporter calls a function that PyTorch has deprecated.
        warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec\\)`", FutureWarning)
        outputs = graph(*example)  # fills TinyViT's cache of attention biases; tracing must not do it
        program = torch.onnx.export(
            graph,
            example,
            dynamo=True,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS[: len(outputs)]),
            dynamic_shapes=tuple(dynamic),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None  # noqa: S101  # None is returned by the old exporter only
    _name_nodes(program.model.graph)
    return program.model_proto


def _name_nodes(graph: Any) -> None:
    """Name every node after its module and remove its metadata, which has paths of source files."""
    for number, node in enumerate(graph):
        scopes = literal_eval(node.metadata_props.get(_SCOPES, "[]"))
        module = scopes[-2].removeprefix("network.") if len(scopes) > 1 else "graph"
        node.name = f"{module or 'graph'}/{node.op_type}_{number}"
        node.metadata_props.clear()
