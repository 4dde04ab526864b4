"""Model folders and training checkpoints: safetensors and JSON, written atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

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
"""File names in a model folder: weights, card, and the state of an unfinished training run."""


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors to a safetensors file and replace ``path`` atomically."""
    part = path.with_suffix(".part")
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, part, metadata)
    with part.open("rb") as handle:
        os.fsync(handle.fileno())
    part.replace(path)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a safetensors file.

    Raises:
        ModelError: the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{path} cannot be read as safetensors ({error})", "Use another model, or train again."
        ) from error


class ModelCard(NamedTuple):
    """The description of a model in model.json.

    Attributes:
        vocabulary: the classes that it was trained on.
        text_encoder: name of the text encoder that it was trained with; None if unknown.
        intensity_max: value that was white in its training images of more than 8 bits; None: there were none.
        encoder: the training's setting for the image encoder; None if unknown.
        held_out: keys of the images on which the training was stopped.
        trained_on: keys of the images that it, or a model before it, was trained on; None if unknown.
    """

    config: ModelConfig
    vocabulary: Vocabulary
    text_encoder: str | None
    intensity_max: int | None = None
    encoder: Literal["train", "frozen"] | None = None
    held_out: tuple[str, ...] = ()
    trained_on: tuple[str, ...] | None = None


class TrainedModel(NamedTuple):
    """The network of a model folder, with the fields of its :class:`ModelCard` that predictions need."""

    network: DSMoE | AblatedDSMoE
    config: ModelConfig
    vocabulary: Vocabulary
    text_encoder: str | None
    intensity_max: int | None = None


def save_model(
    folder: Path, network: nn.Module, config: ModelConfig, vocabulary: Vocabulary, card: dict[str, Any]
) -> None:
    """Write the weights, then the card; a folder with a card is therefore complete.

    Args:
        card: further fields of model.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WEIGHTS, network.state_dict(), {"format": "dsmoe-1"})
    part = folder / (CARD + ".part")
    content = {"config": config.model_dump(mode="json"), "vocabulary": vocabulary.to_dict(), **card}
    part.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    part.replace(folder / CARD)


def read_card(folder: Path) -> ModelCard:
    """Read model.json of a model folder, without the weights.

    Raises:
        ModelError: the folder does not hold a complete model.
    """
    try:
        card = json.loads((folder / CARD).read_text("utf-8"))
        trained_on = card.get("trained_on")
        return ModelCard(
            ModelConfig.model_validate(card["config"]),
            Vocabulary.from_dict(card["vocabulary"]),
            card.get("text_encoder"),
            card.get("intensity_max"),
            card.get("training", {}).get("encoder"),
            tuple(card.get("held_out", ())),
            None if trained_on is None else tuple(trained_on),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{folder} does not hold a complete model ({error})",
            "Give a folder with model.json and model.safetensors.",
        ) from error


def load_model(folder: Path) -> TrainedModel:
    """Load the model of a folder; the network is in evaluation mode.

    Raises:
        ModelError: the folder does not hold a complete model, or its weights do not fit its configuration.
    """
    card = read_card(folder)
    tensors, _ = read_tensors(folder / WEIGHTS)
    network = build(card.config)
    load_weights(network, tensors, str(folder))
    return TrainedModel(network.eval(), card.config, card.vocabulary, card.text_encoder, card.intensity_max)


def check_text_encoder(folder: Path, encoder: TextEncoder) -> None:
    """Check that a model folder was trained with this text encoder.

    Another encoder gives other vectors for the same text, even if they have the same width.

    Raises:
        ModelError: it was trained with another encoder, or the folder does not hold a complete model.
    """
    card = read_card(folder)
    check_encoder_matches(folder, card.config, card.text_encoder, encoder)


def check_encoder_matches(
    folder: Path, config: ModelConfig, trained_with: str | None, encoder: TextEncoder
) -> None:
    """Same as :func:`check_text_encoder` for a card that is already read.

    Args:
        folder: for the message.
        trained_with: name of the text encoder of the training; None if unknown.

    Raises:
        ModelError: the model was trained with another encoder.
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
        problem,
        "Use the text encoder of the training; in a workspace, set detector.text_encoder in dsmoe.yaml.",
    )


@dataclass(frozen=True, slots=True)
class WeightMatch:
    """Comparison of tensors with a network's state dict, by name and shape.

    Attributes:
        matched: names of the tensors that fit.
        missing: names in the network only.
        unknown: names in the tensors only.
        wrong_shape: names with actual and expected shape.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    wrong_shape: tuple[str, ...]

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> WeightMatch:
        """Compare tensors with the state dict ``own`` of a network."""
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
        """What does not fit, one line per kind; empty if everything fits."""
        mismatches = {"wrong shape": self.wrong_shape, "missing": self.missing, "unknown": self.unknown}
        return [f"{what}: {_shortened(names)}" for what, names in mismatches.items() if names]


def _shortened(names: tuple[str, ...], max_names: int = 5) -> str:
    rest = f" and {len(names) - max_names} more" if len(names) > max_names else ""
    return ", ".join(names[:max_names]) + rest


def load_weights(network: nn.Module, tensors: dict[str, Tensor], origin: str) -> None:
    """Load weights into a network after a check of all names and shapes.

    Args:
        origin: where the weights come from, for the message.

    Raises:
        ModelError: tensors are missing, unknown, or of the wrong shape.
    """
    own = network.state_dict()
    problems = WeightMatch.of(tensors, own).problems
    if problems:
        raise ModelError(
            f"weights of {origin} do not fit the network ({'; '.join(problems)})",
            "Use the model configuration of the training.",
        )
    network.load_state_dict({k: v.to(own[k].dtype) for k, v in tensors.items()})


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimizer as named tensors."""
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{i}.{k}": torch.as_tensor(v) for i, entry in state.items() for k, v in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Inverse of :func:`optimizer_tensors`.

    Moments get the memory layout of their weights, which fused optimizer steps need.
    """
    content = optimizer.state_dict()
    content["state"] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            content["state"].setdefault(int(index), {})[key] = value
    optimizer.load_state_dict(content)
    for weight, state in optimizer.state.items():
        for key, value in state.items():
            if value.shape == weight.shape:
                state[key] = torch.empty_like(weight).copy_(value)
