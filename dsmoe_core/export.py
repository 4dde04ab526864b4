"""Export of a model folder for ONNX Runtime, OpenVINO and TensorRT."""

from __future__ import annotations

import shutil
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
from dsmoe_core.uncertainty.calibration import FILE as CALIBRATION_FILE
from dsmoe_core.uncertainty.novelty import FILE as KNOWN_FILE

MAX_DIFFERENCE = 0.01
"""Largest difference of a logit from PyTorch's that rounding explains; a larger one means a wrong graph."""


def export(
    model: Path,
    folder: Path,
    *,
    export_format: ExportFormat,
    precision: Precision = "fp32",
    text_encoder: TextEncoder,
    calibration: Sequence[ImageRecord] = (),
) -> ExportCard:
    """Export a model folder into an existing empty folder. The card is written last.

    Args:
        export_format: ONNX, or OpenVINO's own format.
        precision: ONNX graphs are fp32. For OpenVINO, bf16 exports an fp32 graph with a setting for the
            runtime, and int8 needs ``calibration``.
        calibration: images that are similar to those of the application.

    Raises:
        ModelError: the model is incomplete, was trained with another text encoder, or the exported graph
            gives another output than PyTorch.
        SettingsError: the format does not support the precision.
        DataError: int8 without calibration images.
        PrerequisiteError: a package of the extra ``export`` is not installed.
    """
    _check(export_format, precision, calibration)
    check_text_encoder(model, text_encoder)
    loaded = load_model(model)
    network, config, vocabulary, *_ = loaded
    texts = embed_vocabulary(vocabulary, text_encoder)
    with torch.no_grad():
        encoding = network.encode_classes(texts.classes, texts.inner)
    graph = onnx_graph(network, config)
    path = folder / GRAPHS["onnx"]
    import_package("onnx").save(graph, path)
    if export_format == "openvino":
        images = _letterboxed(config, calibration) if precision == "int8" else []
        path = _to_openvino(path, images, encoding)
    _write_text_branch(loaded, folder, text_encoder)
    for name in (KNOWN_FILE, CALIBRATION_FILE):
        if (model / name).is_file():
            shutil.copyfile(model / name, folder / name)
    card = ExportCard(
        format=export_format,
        precision=precision,
        config=config,
        inputs={value.name: _shape(value) for value in graph.graph.input},
        outputs={value.name: _shape(value) for value in graph.graph.output},
        vocabulary=vocabulary.to_dict(),
        text_encoder=text_encoder.name,
        source=sha256_of(model / WEIGHTS),
        intensity_max=loaded.intensity_max,
        difference=None if precision == "int8" else _difference(loaded, path, export_format, encoding),
        tools={name: version(name) for name in ("torch", *_packages(export_format, precision))},
    )
    (folder / CARD).write_text(card.model_dump_json(indent=1) + "\n", "utf-8")
    return card


def _check(export_format: ExportFormat, precision: Precision, calibration: Sequence[ImageRecord]) -> None:
    """Check the options and the installed packages before the work begins."""
    if export_format == "onnx" and precision != "fp32":
        raise SettingsError(
            f"an ONNX graph is exported in fp32, not {precision}",
            "Use --format openvino, or --precision fp32 and TensorRT with bf16 at run time.",
        )
    if precision == "int8" and not calibration:
        raise DataError("int8 needs images to calibrate with", "Give a folder of them with --calibration.")
    for package in _packages(export_format, precision):
        import_package(package)


def _packages(export_format: ExportFormat, precision: Precision) -> tuple[Package, ...]:
    """Packages that make and check an export."""
    runtime: tuple[Package, ...] = ("onnxruntime",) if export_format == "onnx" else ("openvino",)
    return ("onnx", "onnxscript", *runtime, *(("nncf",) if precision == "int8" else ()))


def _write_text_branch(model: TrainedModel, folder: Path, text_encoder: TextEncoder) -> None:
    """Write stages 1 and 2, and the vectors of the texts of the training."""
    class_encoder = build_class_encoder(model.config).state_dict().keys()
    texts = vocabulary_texts(model.vocabulary)
    write_text_branch(
        folder,
        {name: value for name, value in model.network.state_dict().items() if name in class_encoder},
        dict(zip(texts, text_encoder.encode(texts), strict=True)),
    )


def _letterboxed(config: ModelConfig, images: Sequence[ImageRecord]) -> list[ImageArray]:
    """Calibration images as the network sees them; tiles if the model works on tiles."""
    tiles, reader = config.tiles, LetterboxReader.for_model(config)
    views = images if tiles is None else [v for p in images for v in image_views(p, tiles)]
    return [reader.read(view) for view in evenly_spaced(views, MAX_SAMPLES)]


def _to_openvino(path: Path, images: Sequence[ImageArray], encoding: ClassEncoding) -> Path:
    """Replace an ONNX file by OpenVINO's two files, quantised to 8 bits if there are calibration images."""
    openvino = import_package("openvino")
    graph = openvino.Core().read_model(path)
    if images:
        graph = quantise(graph, images, encoding)
    converted = path.with_name(GRAPHS["openvino"])
    openvino.save_model(graph, converted, compress_to_fp16=False)
    path.unlink()
    return converted


def _difference(
    model: TrainedModel, path: Path, export_format: ExportFormat, encoding: ClassEncoding
) -> tuple[float, float]:
    """Largest differences between the exported graph and eager PyTorch, both in fp32, on a random image.

    Returns:
        Difference of a logit, and of a box coordinate in pixels.

    Raises:
        ModelError: the logits differ by more than ``MAX_DIFFERENCE``.
    """
    side = model.config.image_px
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8))
    runtime = OnnxRuntime(path, "cpu") if export_format == "onnx" else OpenVinoRuntime(path)
    expected = EagerRuntime(model.network, "fp32").run(image, encoding.conditioning, encoding.classes)
    exported = runtime.run(image, encoding.conditioning, encoding.classes)
    logits = float((expected.logits.cpu() - exported.logits).abs().max())
    boxes = float((expected.boxes.cpu() - exported.boxes).abs().max())
    if not logits <= MAX_DIFFERENCE:
        raise ModelError(
            f"the output of the exported graph differs from PyTorch's: by {logits:.3g} in a logit",
            "Try other versions of onnxscript and of the runtime, and report it.",
        )
    return logits, boxes


def _shape(value: Any) -> tuple[str | int, ...]:
    return tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)
