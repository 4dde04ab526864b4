"""From a folder on disk, a model's or an exported one's, to a network that answers."""

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
from dsmoe_core.errors import SettingsError
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
    """What shall run a model; None leaves it to the folder.

    A model folder is run by PyTorch in bf16, an exported one by the runtime and in the precision that it was
    made for.
    """

    runtime: RuntimeName | None = None
    precision: Precision | None = None
    provider: Provider = "auto"


class InferenceModel(NamedTuple):
    """A folder's network, ready to be asked."""

    folder: Path
    runtime: Runtime
    class_encoder: ClassEncoder
    config: ModelConfig
    vocabulary: Vocabulary
    """What it was trained on."""
    text_encoder: str | None
    """The name of the one that it was trained with, where it is known."""
    texts: dict[str, Tensor]
    """Vectors of texts that came with it."""
    version: str
    """Names the weights: the first digits of their hash."""


class ModelTextEncoder:
    """The text encoder of an opened model, which is asked only for texts whose vectors did not come with it.

    Raises:
        ModelError: it will be asked and is not the one that the model was trained with.
    """

    def __init__(self, model: InferenceModel, encoder: TextEncoder) -> None:
        self._model = model
        self._encoder = encoder
        if not model.texts:
            self._refuse_another()

    @property
    def name(self) -> str:
        return self._model.text_encoder or self._encoder.name

    @property
    def width(self) -> int:
        return self._model.config.text_width

    def encode(self, texts: Sequence[str]) -> Float[Tensor, "t w"]:
        """One vector a text, in order.

        Raises:
            ModelError: there is a new text, and the encoder is not the one that the model was trained with.
        """
        known = dict(self._model.texts)
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            self._refuse_another()
            known |= zip(new, self._encoder.encode(new), strict=True)
        return torch.stack([known[text] for text in texts]) if texts else torch.zeros(0, self.width)

    def _refuse_another(self) -> None:
        model = self._model
        check_encoder_matches(model.folder, model.config, model.text_encoder, self._encoder)


def load_inference_model(folder: Path, options: RuntimeOptions) -> InferenceModel:
    """Open a folder.

    Raises:
        ModelError: there is no whole model in it, or it does not fit.
        SettingsError: what is asked for cannot run this folder.
        PrerequisiteError: a package or a processor's ability is missing.
    """
    if is_export(folder):
        exported = read_export(folder)
        card = exported.card
        return InferenceModel(
            folder,
            _runtime(exported, options),
            exported.class_encoder,
            card.config,
            exported.vocabulary,
            card.text_encoder,
            exported.texts,
            version=card.source[:12],
        )
    if options.runtime not in (None, "eager"):
        raise SettingsError(
            f"{folder} is no exported model, which {options.runtime} needs", "Make one with `dsmoe export`."
        )
    precision = options.precision or "bf16"
    if precision == "int8":
        raise SettingsError(
            "PyTorch does not run int8 here", "Export with --format openvino --precision int8."
        )
    network, config, vocabulary, text_encoder = load_model(folder)
    version = sha256_of(folder / WEIGHTS)[:12]
    runtime = EagerRuntime(network, precision)
    return InferenceModel(folder, runtime, network, config, vocabulary, text_encoder, {}, version)


def training_vocabulary(folder: Path) -> Vocabulary:
    """The classes that the model of a folder was trained on.

    Raises:
        ModelError: there is no model in it.
    """
    return read_export_card(folder)[1] if is_export(folder) else read_card(folder).vocabulary


def _runtime(exported: ExportedModel, options: RuntimeOptions) -> Runtime:
    export_format, made_for = exported.card.format, exported.card.precision
    name = options.runtime or ("onnxruntime" if export_format == "onnx" else "openvino")
    if name == "eager" or (name == "onnxruntime" and export_format == "openvino"):
        raise SettingsError(
            f"{exported.folder} holds an exported {export_format} graph, which {name} cannot run",
            "Give the model folder itself." if name == "eager" else "Export it with --format onnx.",
        )
    precision = options.precision or made_for
    if (precision == "int8") != (made_for == "int8"):
        raise SettingsError(
            f"{exported.folder} was exported for {made_for}; {precision} needs an export of its own",
            f"Export it with --precision {precision}, or leave --precision out.",
        )
    if name == "openvino":
        return OpenVinoRuntime(exported.graph, precision)
    if precision != "fp32" and options.provider != "tensorrt":
        raise SettingsError(
            f"ONNX Runtime computes in fp32 here, not {precision}; only its TensorRT provider takes bf16",
            "Take --precision fp32, or --provider tensorrt.",
        )
    return OnnxRuntime(exported.graph, options.provider, precision)
