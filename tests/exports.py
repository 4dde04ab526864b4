"""A tiny model, its exports, and inputs whose images are routed to different experts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from tiny import SMALL, HashEncoder

from dsmoe_core.build import build_full_network
from dsmoe_core.checkpoint import load_model, save_model
from dsmoe_core.config import ModelConfig
from dsmoe_core.export import export
from dsmoe_core.network import DSMoE
from dsmoe_core.runtimes.graph import onnx_graph
from dsmoe_core.runtimes.protocol import to_network_input
from dsmoe_core.schema import ClassText, Vocabulary

VOCABULARY = Vocabulary(
    (
        ClassText("dark", "a dark square", "mark", ("a black block",)),
        ClassText("light", "a light square", "mark"),
    ),
    (ClassText("mark", "a square"),),
    "v1",
)


@dataclass(frozen=True)
class Exports:
    """Folders of a model and of its exports, and the ONNX graph."""

    model: Path
    onnx: Path
    openvino: Path
    graph: Any

    def traced(self) -> Any:
        """Patch that makes exports inside the block reuse this graph, because tracing is slow."""
        return patch("dsmoe_core.export.onnx_graph", lambda *_: self.graph)


def make_exports(folder: Path) -> Exports:
    """Save a model and export it to ONNX and to OpenVINO."""
    model, onnx, openvino = (folder / name for name in ("model", "onnx", "openvino"))
    save_model(model, diverse_network(), SMALL, VOCABULARY, {"text_encoder": HashEncoder.name})
    network, config, *_ = load_model(model)
    exports = Exports(model, onnx, openvino, onnx_graph(network, config))
    with exports.traced():
        for out, export_format in ((onnx, "onnx"), (openvino, "openvino")):
            out.mkdir()
            export(model, out, export_format=export_format, text_encoder=HashEncoder())
    return exports


def sample_images(batch: int) -> torch.Tensor:
    """Letter-boxed images of four kinds in turn: dark, bright, red and striped noise."""
    pixels = torch.randint(0, 256, (4, 64, 64, 3), generator=torch.Generator().manual_seed(0))
    pixels[0] //= 8
    pixels[1] = 200 + pixels[1] // 8
    pixels[2, ..., 1:] //= 8
    pixels[3, ::8] = 0
    return pixels.to(torch.uint8)[torch.arange(batch) % 4]


def sample_texts(count: int, seed: int = 0, width: int = SMALL.text_width) -> torch.Tensor:
    """Random T^ of ``count`` classes."""
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def diverse_network(config: ModelConfig = SMALL) -> DSMoE:
    """A network that has detections everywhere and routes the four sample images to different experts.

    Initial weights give every image the same output, so the running statistics are fitted to the images
    first.
    """
    torch.manual_seed(11)  # with this seed the router's choices have clear margins
    network = build_full_network(config)
    images, text = to_network_input(sample_images(4)), sample_texts(3)
    with torch.no_grad():
        for _ in range(80):
            network.train()(images, text, text)
        network.eval()
        for level in network.head.levels:
            level.bias.fill_(0.0)
    return network
