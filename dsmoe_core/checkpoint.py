"""Models and unfinished training runs on disk: safetensors and JSON, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dsmoe_core.ablation import AblatedDSMoE
from dsmoe_core.build import build
from dsmoe_core.config import ModelConfig
from dsmoe_core.errors import ModelError
from dsmoe_core.network import DSMoE
from dsmoe_core.schema import Vocabulary
from dsmoe_core.text_encoders.protocol import TextEncoder

WEIGHTS, CARD, CHECKPOINT = "model.safetensors", "model.json", "checkpoint.safetensors"


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Atomically replace ``path``."""
    part = path.with_suffix(".part")
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, part, metadata)
    with part.open("rb") as handle:
        os.fsync(handle.fileno())
    part.replace(path)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata.

    Raises:
        ModelError: the file is missing or torn.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{path} cannot be read as safetensors ({error})", "Take another model, or train again."
        ) from error


class ModelCard(NamedTuple):
    """What is said of a model."""

    config: ModelConfig
    vocabulary: Vocabulary
    """What it was trained on."""
    text_encoder: str | None
    """The name of the one that it was trained with, where it is known."""


class TrainedModel(NamedTuple):
    """A model folder, read; the network beside what :class:`ModelCard` has."""

    network: DSMoE | AblatedDSMoE
    config: ModelConfig
    vocabulary: Vocabulary
    text_encoder: str | None


def save_model(
    folder: Path, network: nn.Module, config: ModelConfig, vocabulary: Vocabulary, card: dict[str, Any]
) -> None:
    """Write the weights, then the card: a folder with a card is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WEIGHTS, network.state_dict(), {"format": "dsmoe-1"})
    part = folder / (CARD + ".part")
    whole = {"config": config.model_dump(mode="json"), "vocabulary": vocabulary.to_dict(), **card}
    part.write_text(json.dumps(whole, indent=2) + "\n", "utf-8")
    part.replace(folder / CARD)


def read_card(folder: Path) -> ModelCard:
    """What a folder says of its model, without the weights.

    Raises:
        ModelError: no whole model is there.
    """
    try:
        card = json.loads((folder / CARD).read_text("utf-8"))
        return ModelCard(
            ModelConfig.model_validate(card["config"]),
            Vocabulary.from_dict(card["vocabulary"]),
            card.get("text_encoder"),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{folder} holds no whole model ({error})", "Give a folder with model.json and model.safetensors."
        ) from error


def load_model(folder: Path) -> TrainedModel:
    """The model of a folder, its network in evaluation mode.

    Raises:
        ModelError: no whole model is there, or its weights do not fit its configuration.
    """
    card = read_card(folder)
    tensors, _ = read_tensors(folder / WEIGHTS)
    network = build(card.config)
    load_weights(network, tensors, str(folder))
    return TrainedModel(network.eval(), *card)


def check_text_encoder(folder: Path, encoder: TextEncoder) -> None:
    """Refuse a model that learned other vectors for the same words, even where they are as wide.

    Raises:
        ModelError: it was trained with another encoder, or no whole model is there.
    """
    card = read_card(folder)
    check_encoder_matches(folder, card.config, card.text_encoder, encoder)


def check_encoder_matches(
    folder: Path, config: ModelConfig, trained_with: str | None, encoder: TextEncoder
) -> None:
    """The same for a folder that was read already.

    Raises:
        ModelError: it was trained with another encoder.
    """
    if trained_with is not None and trained_with != encoder.name:
        problem = f"{folder} was trained with text encoder {trained_with}; this one is {encoder.name}"
    elif encoder.width != config.text_width:
        problem = (
            f"text encoder {encoder.name} is {encoder.width} wide; the model expects {config.text_width}"
        )
    else:
        return
    raise ModelError(
        problem, "Use the one that it was trained with; in a workspace, detector.text_encoder in dsmoe.yaml."
    )


@dataclass(frozen=True, slots=True)
class WeightMatch:
    """How tensors fit a network, by name and shape.

    Attributes:
        matched, missing, unknown: names.
        wrong_shape: names with the shape found and the shape expected.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    wrong_shape: tuple[str, ...]

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> WeightMatch:
        """Of ``tensors`` to a network with the state dict ``own``."""
        shared = sorted(own.keys() & tensors.keys())
        return cls(
            matched=tuple(k for k in shared if own[k].shape == tensors[k].shape),
            missing=tuple(sorted(own.keys() - tensors.keys())),
            unknown=tuple(sorted(tensors.keys() - own.keys())),
            wrong_shape=tuple(
                f"{k} {tuple(tensors[k].shape)} (expected {tuple(own[k].shape)})"
                for k in shared
                if own[k].shape != tensors[k].shape
            ),
        )

    @property
    def problems(self) -> list[str]:
        """What does not fit, a line for each kind; none where all does."""
        found = {"wrong shape": self.wrong_shape, "missing": self.missing, "unknown": self.unknown}
        return [f"{what}: {_some(names)}" for what, names in found.items() if names]


def _some(names: tuple[str, ...], most: int = 5) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def load_weights(network: nn.Module, tensors: dict[str, Tensor], origin: str) -> None:
    """Load by name, every name and shape checked.

    Raises:
        ModelError: names what is missing, too much, or of another shape.
    """
    own = network.state_dict()
    problems = WeightMatch.of(tensors, own).problems
    if problems:
        raise ModelError(
            f"weights of {origin} do not fit the network ({'; '.join(problems)})",
            "Use the size that they were trained with.",
        )
    network.load_state_dict({k: v.to(own[k].dtype) for k, v in tensors.items()})


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's state under plain names."""
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{i}.{k}": torch.as_tensor(v) for i, entry in state.items() for k, v in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of :func:`optimizer_tensors`; moments lie as their weights do, which fused steps need."""
    whole = optimizer.state_dict()
    whole["state"] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            whole["state"].setdefault(int(index), {})[key] = value
    optimizer.load_state_dict(whole)
    for weight, state in optimizer.state.items():
        for key, value in state.items():
            if value.shape == weight.shape:
                state[key] = torch.empty_like(weight).copy_(value)
