"""Stages 3 to 10 and the head as one ONNX graph, with the class embeddings as inputs."""

from __future__ import annotations

import warnings
from ast import literal_eval
from typing import Any

import torch
from torch import Tensor, nn

from dsmoe_core.ablation import AblatedDSMoE
from dsmoe_core.assign import flatten
from dsmoe_core.config import ModelConfig
from dsmoe_core.network import DSMoE
from dsmoe_core.runtimes.packages import import_package

INPUTS = ("images", "conditioning", "classes")
OUTPUTS = ("logits", "boxes", "experts", "weights", "probabilities")
OPSET = 20
"""The first with a GridSample that all runtimes read alike."""
_SCOPES = "pkg.torch.onnx.name_scopes"


class Graph(nn.Module):
    """The network with plain tensors in and out: images in [0, 1], T^ of stages 1 and 2, then ``OUTPUTS``.

    A network without stage 7 has the first two outputs only.
    """

    def __init__(self, network: DSMoE | AblatedDSMoE) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, conditioning: Tensor, classes: Tensor) -> tuple[Tensor, ...]:
        output = self.network(images, conditioning, classes)
        flat = flatten(output.levels)
        return flat.logits, flat.boxes, *(output.gated[:3] if output.gated is not None else ())


def onnx_graph(network: DSMoE | AblatedDSMoE, config: ModelConfig) -> Any:
    """The graph of a network in evaluation mode, as an ``onnx.ModelProto``.

    The image's side is the configuration's; the batch and both numbers of classes are free. Every node is
    named after the module that it comes from.

    Raises:
        PrerequisiteError: a package of the extra ``export`` is missing.
    """
    import_package("onnx")
    import_package("onnxscript")
    graph = Graph(network).eval()
    # No size is 1, which a trace would take for a size that never changes, and no two are equal.
    example = (
        torch.rand(2, 3, config.image_px, config.image_px),
        torch.randn(3, config.text_width),
        torch.randn(4, config.text_width),
    )
    free = [{0: torch.export.Dim(name)} for name in ("batch", "conditioning_classes", "scored_classes")]
    with torch.no_grad(), warnings.catch_warnings():
        # PyTorch's own exporter calls what PyTorch is about to remove.
        warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec\\)`", FutureWarning)
        outputs = graph(*example)  # fills TinyViT's cache of attention biases, which a trace must not
        program = torch.onnx.export(
            graph,
            example,
            dynamo=True,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS[: len(outputs)]),
            dynamic_shapes=tuple(free),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None  # noqa: S101  # None is for the exporter that we do not use
    _name_nodes(program.model.graph)
    return program.model_proto


def _name_nodes(graph: Any) -> None:
    """Call every node after its module, and drop what else it says, such as paths of our source files."""
    for number, node in enumerate(graph):
        scopes = literal_eval(node.metadata_props.get(_SCOPES, "[]"))
        module = scopes[-2].removeprefix("network.") if len(scopes) > 1 else "graph"
        node.name = f"{module or 'graph'}/{node.op_type}_{number}"
        node.metadata_props.clear()
