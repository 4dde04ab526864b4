"""Loading of a model folder or an export folder for inference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dsmoe_core.checkpoint import WEIGHTS, check_encoder_matches, load_model, read_card
from dsmoe_core.config import ModelConfig
from dsmoe_core.digest import sha256_of
from dsmoe_core.errors import ModelError, SettingsError
from dsmoe_core.network import ClassEncoder
from dsmoe_core.runtimes.eager import EagerRuntime
from dsmoe_core.runtimes.exported import ExportedModel, is_export, read_export, read_export_card
from dsmoe_core.runtimes.onnx import OnnxRuntime, Provider
from dsmoe_core.runtimes.openvino import OpenVinoRuntime
from dsmoe_core.runtimes.protocol import Precision, Runtime
from dsmoe_core.schema import Vocabulary
from dsmoe_core.text_encoders.protocol import TextEncoder

RuntimeName = Literal["eager", "onnxruntime", "openvino"]


@dataclass(frozen=True)
class RuntimeOptions:
    """Choice of the runtime. None stands for the default of the folder.

    Defaults: PyTorch in bf16 for a model folder; the runtime and the precision of the export for an export
        folder.
    """

    runtime: RuntimeName | None = None
    precision: Precision | None = None
    provider: Provider = "auto"


class InferenceModel(NamedTuple):
    """A model that is loaded for inference.

    Attributes:
        runtime: stages 3 to 10 and the head.
        class_encoder: stages 1 and 2.
        vocabulary: the classes of the training.
        text_encoder: name of the text encoder of the training; None if unknown.
        texts: vectors of texts that are stored with an export, by text.
        version: identifies the weights: the first digits of their hash.
        intensity_max: value that was white in the training images of more than 8 bits; None: there were none.
    """

    folder: Path
    runtime: Runtime
    class_encoder: ClassEncoder
    config: ModelConfig
    vocabulary: Vocabulary
    text_encoder: str | None
    texts: dict[str, Tensor]
    version: str
    intensity_max: int | None = None


class ModelTextEncoder:
    """The text encoder of a model: returns vectors that are stored with the model, and encodes other texts.

    Args:
        encoder: for texts that are not stored with the model.

    Raises:
        ModelError: no texts are stored, and ``encoder`` is not the one of the training.
    """

    def __init__(self, model: InferenceModel, encoder: TextEncoder) -> None:
        self._model = model
        self._encoder = encoder
        if not model.texts:
            self._check_encoder()

    @property
    def name(self) -> str:
        """Name of the text encoder of the training."""
        return self._model.text_encoder or self._encoder.name

    @property
    def width(self) -> int:
        """Length of a vector."""
        return self._model.config.text_width

    def encode(self, texts: Sequence[str]) -> Float[Tensor, "t w"]:
        """One vector per text, in order.

        Raises:
            ModelError: a text is not stored, and the encoder is not the one of the training.
        """
        known = dict(self._model.texts)
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            self._check_encoder()
            known |= zip(new, self._encoder.encode(new), strict=True)
        return torch.stack([known[text] for text in texts]) if texts else torch.zeros(0, self.width)

    def _check_encoder(self) -> None:
        model = self._model
        check_encoder_matches(model.folder, model.config, model.text_encoder, self._encoder)


def load_inference_model(folder: Path, options: RuntimeOptions) -> InferenceModel:
    """Load a model folder or an export folder.

    Raises:
        ModelError: the folder does not hold a complete model, or its parts do not fit together.
        SettingsError: the options do not fit the folder.
        PrerequisiteError: a package is not installed, or the CPU does not support the precision.
    """
    if is_export(folder):
        exported = read_export(folder)
        card = exported.card
        return InferenceModel(
            folder,
            _export_runtime(exported, options),
            exported.class_encoder,
            card.config,
            exported.vocabulary,
            card.text_encoder,
            exported.texts,
            version=card.source[:12],
            intensity_max=card.intensity_max,
        )
    if options.runtime not in (None, "eager"):
        raise SettingsError(
            f"{folder} is not an exported model, which {options.runtime} needs",
            "Make one with `dsmoe export`.",
        )
    precision = options.precision or "bf16"
    if precision == "int8":
        raise SettingsError(
            "PyTorch does not run int8 here", "Export with --format openvino --precision int8."
        )
    network, config, vocabulary, text_encoder, intensity_max = load_model(folder)
    version = sha256_of(folder / WEIGHTS)[:12]
    runtime = EagerRuntime(network, precision)
    return InferenceModel(
        folder, runtime, network, config, vocabulary, text_encoder, {}, version, intensity_max
    )


def training_vocabulary(folder: Path) -> Vocabulary:
    """The classes that the model of a folder was trained on; reads the card only.

    Raises:
        ModelError: there is no model in the folder.
    """
    return read_export_card(folder)[1] if is_export(folder) else read_card(folder).vocabulary


def training_intensity_max(folder: Path) -> int | None:
    """Value that was white in a model's training images of more than 8 bits; reads the card only.

    None if there were no such images, or the folder has no card of this kind of model.
    """
    try:
        return (
            read_export_card(folder)[0].intensity_max
            if is_export(folder)
            else read_card(folder).intensity_max
        )
    except ModelError:
        return None


def _export_runtime(exported: ExportedModel, options: RuntimeOptions) -> Runtime:
    export_format, export_precision = exported.card.format, exported.card.precision
    name = options.runtime or ("onnxruntime" if export_format == "onnx" else "openvino")
    if name == "eager" or (name == "onnxruntime" and export_format == "openvino"):
        raise SettingsError(
            f"{exported.folder} holds an exported {export_format} graph, which {name} cannot run",
            "Give the model folder itself." if name == "eager" else "Export it with --format onnx.",
        )
    precision = options.precision or export_precision
    if (precision == "int8") != (export_precision == "int8"):
        raise SettingsError(
            f"{exported.folder} was exported for {export_precision}; {precision} needs another export",
            f"Export it with --precision {precision}, or leave --precision out.",
        )
    if name == "openvino":
        return OpenVinoRuntime(exported.graph, precision)
    if precision != "fp32" and options.provider != "tensorrt":
        raise SettingsError(
            f"ONNX Runtime computes in fp32 here, not {precision}; only its TensorRT provider supports bf16",
            "Use --precision fp32, or --provider tensorrt.",
        )
    return OnnxRuntime(exported.graph, options.provider, precision)
