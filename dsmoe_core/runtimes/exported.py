"""Folders of exported models: the graph, its card, the class encoder and precomputed text vectors.

Such a folder runs without the model folder. The classes of the training also need no text encoder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import Tensor

from dsmoe_core.build import build_class_encoder
from dsmoe_core.checkpoint import load_weights, read_tensors, write_tensors
from dsmoe_core.config import Frozen, ModelConfig
from dsmoe_core.errors import ModelError
from dsmoe_core.network import ClassEncoder
from dsmoe_core.runtimes.graph import OUTPUTS
from dsmoe_core.runtimes.protocol import Precision
from dsmoe_core.schema import Vocabulary

CARD, TEXT = "export.json", "text.safetensors"
GRAPHS = {"onnx": "model.onnx", "openvino": "model.xml"}
FILES = (
    CARD,
    TEXT,
    "model.onnx",
    "model.xml",
    "model.bin",
    "tensorrt",
    "known_features.safetensors",
    "uncertainty.json",
)
"""All names that an export, or a runtime, writes into the folder."""
ExportFormat = Literal["onnx", "openvino"]


class ExportCard(Frozen):
    """Content of export.json, which is written last.

    Attributes:
        format: of the graph.
        precision: int8 is part of the graph; bf16 is a setting for the runtime, and the graph is fp32.
        inputs, outputs: names and shapes of the graph's inputs and outputs; a string stands for a dynamic
            size.
        vocabulary: of the training, as a dictionary.
        text_encoder: name of the text encoder of the training.
        source: SHA-256 of the exported weights.
        difference: largest differences from eager PyTorch in fp32 on a random image: of a logit, and of a box
            coordinate in pixels; None for int8, which differs by design.
        tools: versions of the packages that made the export.
        intensity_max: value that was white in the training images of more than 8 bits; None: there were none.
    """

    format: ExportFormat
    precision: Precision
    config: ModelConfig
    inputs: dict[str, tuple[str | int, ...]]
    outputs: dict[str, tuple[str | int, ...]]
    vocabulary: dict[str, Any]
    text_encoder: str
    source: str
    difference: tuple[float, float] | None
    tools: dict[str, str]
    intensity_max: int | None = None


@dataclass(frozen=True)
class ExportedModel:
    """The content of an export folder, without the graph.

    Attributes:
        vocabulary: the classes of the training.
        class_encoder: stages 1 and 2, in evaluation mode.
        texts: vectors of the texts of the training, by text.
    """

    folder: Path
    card: ExportCard
    vocabulary: Vocabulary
    class_encoder: ClassEncoder
    texts: dict[str, Tensor]

    @property
    def graph(self) -> Path:
        """The graph's file."""
        return self.folder / GRAPHS[self.card.format]


def is_export(folder: Path) -> bool:
    """Whether a folder holds an exported model."""
    return (folder / CARD).is_file()


def write_text_branch(folder: Path, class_encoder: dict[str, Tensor], texts: dict[str, Tensor]) -> None:
    """Write the weights of stages 1 and 2, and vectors of texts."""
    vectors = {"texts": torch.stack(list(texts.values()))}
    write_tensors(folder / TEXT, {**class_encoder, **vectors}, {"texts": json.dumps(list(texts))})
    (folder / TEXT).chmod(0o644)  # safetensors makes it readable for its owner only


def read_export(folder: Path) -> ExportedModel:
    """Read an export folder. The graph is left to the runtime.

    Raises:
        ModelError: the export is incomplete, or its parts do not fit together.
    """
    card, vocabulary = read_export_card(folder)
    tensors, metadata = read_tensors(folder / TEXT)
    vectors = tensors.pop("texts", torch.zeros(0, card.config.text_width))
    class_encoder = build_class_encoder(card.config)
    load_weights(class_encoder, tensors, str(folder / TEXT))
    texts = dict(zip(json.loads(metadata.get("texts", "[]")), vectors, strict=True))
    return ExportedModel(folder, card, vocabulary, class_encoder.eval(), texts)


def read_export_card(folder: Path) -> tuple[ExportCard, Vocabulary]:
    """Read the card of an export folder, and the vocabulary of the training.

    Raises:
        ModelError: the export is incomplete.
    """
    try:
        card = ExportCard.model_validate_json((folder / CARD).read_text("utf-8"))
        vocabulary = Vocabulary.from_dict(card.vocabulary)
    except (OSError, ValueError, KeyError, TypeError) as error:
        details = error.errors() if isinstance(error, ValidationError) else [{"msg": str(error)}]
        reason = "; ".join(detail["msg"] for detail in details)
        raise ModelError(
            f"{folder} does not hold a complete exported model ({reason})",
            "Export it again with `dsmoe export`.",
        ) from error
    if tuple(card.outputs) not in (OUTPUTS[:3], OUTPUTS):
        raise ModelError(
            f"the graph in {folder} is of another version: its outputs are {', '.join(card.outputs)}, "
            f"expected are {', '.join(OUTPUTS)}, without the last three for a network without experts",
            "Export it again with `dsmoe export`.",
        )
    return card, vocabulary
