"""From a model folder to a folder that runs without PyTorch's network: ONNX Runtime, OpenVINO, TensorRT."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dsmoe_core.build import build_class_encoder
from dsmoe_core.checkpoint import WEIGHTS, TrainedModel, check_text_encoder, load_model
from dsmoe_core.config import ModelConfig
from dsmoe_core.data.external_images import evenly_spaced
from dsmoe_core.data.letterbox import LetterboxReader
from dsmoe_core.digest import sha256_of
from dsmoe_core.errors import DataError, ModelError, SettingsError
from dsmoe_core.network import ClassEncoding
from dsmoe_core.runtimes.eager import EagerRuntime
from dsmoe_core.runtimes.exported import CARD, GRAPHS, ExportCard, ExportFormat, write_text_branch
from dsmoe_core.runtimes.graph import onnx_graph
from dsmoe_core.runtimes.int8 import MAX_SAMPLES, ImageArray, quantise
from dsmoe_core.runtimes.onnx import OnnxRuntime
from dsmoe_core.runtimes.openvino import OpenVinoRuntime
from dsmoe_core.runtimes.packages import Package, import_package
from dsmoe_core.runtimes.protocol import Precision
from dsmoe_core.schema import ImageRecord
from dsmoe_core.text_embeddings import embed_vocabulary, vocabulary_texts
from dsmoe_core.text_encoders.protocol import TextEncoder
from dsmoe_core.tiling import image_views

MAX_DIFFERENCE = 0.01
"""Of a logit, from PyTorch's; more is a wrong graph, not rounding."""


def export(
    model: Path,
    folder: Path,
    *,
    export_format: ExportFormat,
    precision: Precision = "fp32",
    text_encoder: TextEncoder,
    calibration: Sequence[ImageRecord] = (),
) -> ExportCard:
    """Export the model of a folder into another, which is there and empty; the card is written last.

    Args:
        precision: something else than fp32 for OpenVINO alone: bf16 is a wish that goes with the fp32 graph,
            int8 needs ``calibration``.
        calibration: images like those that the model will see.

    Raises:
        ModelError: no whole model is there, the text encoder is another, or the graph does not answer as
            PyTorch does.
        SettingsError: the precision is not one of the form.
        DataError: int8 without an image to calibrate with.
        PrerequisiteError: a package of the extra ``export`` is missing.
    """
    _check(export_format, precision, calibration)
    check_text_encoder(model, text_encoder)
    loaded = load_model(model)
    network, config, vocabulary, _ = loaded
    words = embed_vocabulary(vocabulary, text_encoder)
    with torch.no_grad():
        read = network.encode_classes(words.classes, words.inner)
    graph = onnx_graph(network, config)
    path = folder / GRAPHS["onnx"]
    import_package("onnx").save(graph, path)
    if export_format == "openvino":
        squares = _squares(config, calibration) if precision == "int8" else []
        path = _to_openvino(path, squares, read)
    _write_text(loaded, folder, text_encoder)
    card = ExportCard(
        format=export_format,
        precision=precision,
        config=config,
        inputs={value.name: _shape(value) for value in graph.graph.input},
        outputs={value.name: _shape(value) for value in graph.graph.output},
        vocabulary=vocabulary.to_dict(),
        text_encoder=text_encoder.name,
        source=sha256_of(model / WEIGHTS),
        difference=None if precision == "int8" else _difference(loaded, path, export_format, read),
        tools={name: version(name) for name in ("torch", *_tools(export_format, precision))},
    )
    (folder / CARD).write_text(card.model_dump_json(indent=1) + "\n", "utf-8")
    return card


def _check(export_format: ExportFormat, precision: Precision, calibration: Sequence[ImageRecord]) -> None:
    """Find out before the work what cannot be."""
    if export_format == "onnx" and precision != "fp32":
        raise SettingsError(
            f"an ONNX graph is exported in fp32, not {precision}",
            "Take --format openvino, or --precision fp32 and let TensorRT build with --bf16.",
        )
    if precision == "int8" and not calibration:
        raise DataError("int8 needs images to calibrate with", "Give a folder of them with --calibration.")
    for tool in _tools(export_format, precision):
        import_package(tool)


def _tools(export_format: ExportFormat, precision: Precision) -> tuple[Package, ...]:
    """What makes and checks it."""
    runs: tuple[Package, ...] = ("onnxruntime",) if export_format == "onnx" else ("openvino",)
    return ("onnx", "onnxscript", *runs, *(("nncf",) if precision == "int8" else ()))


def _write_text(model: TrainedModel, folder: Path, text_encoder: TextEncoder) -> None:
    """Stages 1 and 2, and the vectors of what the training read."""
    class_encoder = build_class_encoder(model.config).state_dict().keys()
    texts = vocabulary_texts(model.vocabulary)
    write_text_branch(
        folder,
        {name: value for name, value in model.network.state_dict().items() if name in class_encoder},
        dict(zip(texts, text_encoder.encode(texts), strict=True)),
    )


def _squares(config: ModelConfig, images: Sequence[ImageRecord]) -> list[ImageArray]:
    """What the network is shown of the images: their tiles, where it looks at tiles."""
    tiles, squares = config.tiles, LetterboxReader.for_model(config)
    views = images if tiles is None else [v for p in images for v in image_views(p, tiles)]
    return [squares.read(view) for view in evenly_spaced(views, MAX_SAMPLES)]


def _to_openvino(path: Path, squares: Sequence[ImageArray], read: ClassEncoding) -> Path:
    """Turn the ONNX file into OpenVINO's two; 8 bits where there are images to calibrate with."""
    openvino = import_package("openvino")
    graph = openvino.Core().read_model(path)
    if squares:
        graph = quantise(graph, squares, read)
    made = path.with_name(GRAPHS["openvino"])
    openvino.save_model(graph, made, compress_to_fp16=False)
    path.unlink()
    return made


def _difference(
    model: TrainedModel, path: Path, export_format: ExportFormat, read: ClassEncoding
) -> tuple[float, float]:
    """How far the graph is from eager PyTorch, both in fp32, on a random image.

    Raises:
        ModelError: further than rounding explains.
    """
    side = model.config.image_px
    squares = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8))
    runtime = OnnxRuntime(path, "cpu") if export_format == "onnx" else OpenVinoRuntime(path)
    ours = EagerRuntime(model.network, "fp32").run(squares, read.conditioning, read.classes)
    theirs = runtime.run(squares, read.conditioning, read.classes)
    logits = float((ours.logits.cpu() - theirs.logits).abs().max())
    boxes = float((ours.boxes.cpu() - theirs.boxes).abs().max())
    if not logits <= MAX_DIFFERENCE:
        raise ModelError(
            f"the exported graph does not answer as PyTorch does: a logit differs by {logits:.3g}",
            "Try other versions of onnxscript and of the runtime, and report it.",
        )
    return logits, boxes


def _shape(value: Any) -> tuple[str | int, ...]:
    return tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)
