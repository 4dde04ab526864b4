"""An exported folder: the graph, its card, and stages 1 and 2 with the texts that the training knew.

It needs nothing else to run: no model folder, and for the classes of the training not even the text encoder.
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
from dsmoe_core.runtimes.protocol import Precision
from dsmoe_core.schema import Vocabulary

CARD, TEXT = "export.json", "text.safetensors"
GRAPHS = {"onnx": "model.onnx", "openvino": "model.xml"}
FILES = (CARD, TEXT, "model.onnx", "model.xml", "model.bin", "tensorrt")
"""Everything that an export, or running it, leaves in its folder."""
ExportFormat = Literal["onnx", "openvino"]


class ExportCard(Frozen):
    """export.json; written last.

    Attributes:
        form: which graph lies beside it.
        precision: what it was made for; int8 is in the graph, bf16 is a wish that goes with the fp32 graph.
        inputs, outputs: names and shapes of the graph's; a word stands for a size that is free.
        vocabulary: of the training, as JSON.
        text_encoder: the one that the model was trained with.
        source: sha256 of the weights that it was made from.
        difference: the largest one from eager PyTorch in fp32 on a random image: of a logit, and of a box's
            side in pixels; none for int8, which differs by design.
        tools: versions of the packages that made it.
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


@dataclass(frozen=True)
class ExportedModel:
    """An exported folder, read."""

    folder: Path
    card: ExportCard
    vocabulary: Vocabulary
    class_encoder: ClassEncoder
    texts: dict[str, Tensor]

    @property
    def graph(self) -> Path:
        return self.folder / GRAPHS[self.card.format]


def is_export(folder: Path) -> bool:
    """Whether this folder was made by an export."""
    return (folder / CARD).is_file()


def write_text_branch(folder: Path, class_encoder: dict[str, Tensor], texts: dict[str, Tensor]) -> None:
    """Weights of stages 1 and 2, and vectors of texts."""
    vectors = {"texts": torch.stack(list(texts.values()))}
    write_tensors(folder / TEXT, {**class_encoder, **vectors}, {"texts": json.dumps(list(texts))})
    (folder / TEXT).chmod(0o644)  # like the files beside it; safetensors leaves it to its owner


def read_export(folder: Path) -> ExportedModel:
    """Read an exported folder; the graph itself is left to a runtime.

    Raises:
        ModelError: it is not whole, or its parts do not fit.
    """
    card, vocabulary = read_export_card(folder)
    tensors, metadata = read_tensors(folder / TEXT)
    vectors = tensors.pop("texts", torch.zeros(0, card.config.text_width))
    class_encoder = build_class_encoder(card.config)
    load_weights(class_encoder, tensors, str(folder / TEXT))
    texts = dict(zip(json.loads(metadata.get("texts", "[]")), vectors, strict=True))
    return ExportedModel(folder, card, vocabulary, class_encoder.eval(), texts)


def read_export_card(folder: Path) -> tuple[ExportCard, Vocabulary]:
    """What an exported folder says of itself, and the vocabulary of the training.

    Raises:
        ModelError: it is not whole.
    """
    try:
        card = ExportCard.model_validate_json((folder / CARD).read_text("utf-8"))
        return card, Vocabulary.from_dict(card.vocabulary)
    except (OSError, ValueError, KeyError, TypeError) as error:
        details = error.errors() if isinstance(error, ValidationError) else [{"msg": str(error)}]
        reason = "; ".join(detail["msg"] for detail in details)
        raise ModelError(
            f"{folder} holds no whole exported model ({reason})", "Export it again with `dsmoe export`."
        ) from error
