"""Warm-start files: the image encoder's tensors as safetensors, with a card as JSON.

The file contains stage 3, TinyViT and its neck. These depend on neither text nor classes, so one file serves
every text encoder, every head and rows C to F of the ablation. Matrices are stored in 16 bit, vectors (norms
and their statistics, which have a larger range) in 32 bit. This keeps ``base`` below ``MAX_BYTES``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationError
from torch import Tensor, nn

from dsmoe_core.checkpoint import WeightMatch, read_tensors, write_tensors
from dsmoe_core.config import Frozen
from dsmoe_core.digest import sha256_of
from dsmoe_core.efficientnet import weights as efficientnet
from dsmoe_core.errors import ModelError, PrerequisiteError
from dsmoe_core.mobile_sam import weights as mobile_sam

FORMAT: Final = "dsmoe-warm-start-1"
MAX_BYTES = 12_000_000
PREFIX = "image_encoder."
"""Prefix of the stored tensors' names in the network."""
_FOLDER = Path(__file__).parent
_REMEDY = "Make one with `dsmoe pretrain`, or copy the file and its card again from their source."


class WarmStartCard(Frozen):
    """Card of a warm-start file.

    Attributes:
        format: format of file and card.
        size: preset of the detector that the file fits.
        licence: licence of the file, determined by its training data.
        sha256: hash of the file.
        made: recipe, images, seed, generator version, and the metrics on held-out synthetic images.
    """

    format: Literal["dsmoe-warm-start-1"] = FORMAT
    size: Literal["nano", "base"]
    licence: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    made: dict[str, Any]


def card_path(weights: Path) -> Path:
    """Return the path of a file's card."""
    return weights.with_suffix(".json")


def save_warm_start(
    path: Path, network: nn.Module, *, size: Literal["nano", "base"], licence: str, made: dict[str, Any]
) -> WarmStartCard:
    """Write the image encoder of a network, then its card. A file whose card has its hash is complete.

    Args:
        path: file to write; the card goes next to it.
        network: network with an image encoder.
        size, licence, made: entries of the card.

    Raises:
        ModelError: a weight is not finite in 16 bit, or the file is larger than ``MAX_BYTES``.
    """
    tensors = {k: _compressed(v) for k, v in network.state_dict().items() if k.startswith(PREFIX)}
    if bad := [k for k, v in tensors.items() if not v.isfinite().all()]:
        raise ModelError(f"{bad[0]} has values that are not finite", "Pretrain with a lower learning rate.")
    size_bytes = sum(v.numel() * v.element_size() for v in tensors.values())
    if size_bytes > MAX_BYTES:
        raise ModelError(
            f"the warm start has {size_bytes} bytes; expected at most {MAX_BYTES}", "Use a preset."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, tensors, {"format": FORMAT})
    card = WarmStartCard(size=size, licence=licence, sha256=sha256_of(path), made=made)
    part = card_path(path).with_suffix(".json.part")
    part.write_text(json.dumps(card.model_dump(), indent=2, ensure_ascii=False) + "\n", "utf-8")
    part.replace(card_path(path))
    return card


def read_card(path: Path) -> WarmStartCard:
    """Read the card of a file and check the file's hash.

    Raises:
        PrerequisiteError: file or card is missing.
        ModelError: the card is invalid or belongs to another file.
    """
    require_file(path)
    card = read_unchecked_card(path)
    if card.sha256 != sha256_of(path):
        raise ModelError(f"{path} does not have the sha256 of its card", _REMEDY)
    return card


def read_unchecked_card(path: Path) -> WarmStartCard:
    """Read the card of a file that may be missing, damaged, or newer than the card.

    Raises:
        PrerequisiteError: the card is missing.
        ModelError: the card is invalid.
    """
    require_file(card_path(path))
    try:
        return WarmStartCard.model_validate_json(card_path(path).read_text("utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise ModelError(f"{card_path(path)} is not a valid warm-start card", _REMEDY) from error


def load_warm_start(network: nn.Module, path: Path) -> WarmStartCard:
    """Load the image encoder of a network from a file, after checking every name and shape.

    Raises:
        PrerequisiteError, ModelError: as :func:`read_card`, or the network has another image encoder.
    """
    card = read_card(path)
    encoder = network.get_submodule(PREFIX.removesuffix("."))
    tensors = {k.removeprefix(PREFIX): v for k, v in read_tensors(path)[0].items()}
    expected = encoder.state_dict()
    if problems := WeightMatch.of(tensors, expected).problems:
        raise ModelError(
            f"the warm start {path} is for size {card.size} and does not fit ({'; '.join(problems)})",
            "Use the preset of that size and one of the rows C to F, make a warm start for your model with "
            "`dsmoe pretrain`, or start from scratch.",
        )
    encoder.load_state_dict({k: v.to(expected[k].dtype) for k, v in tensors.items()})
    return card


def load_initial_encoder(network: nn.Module, path: Path) -> None:
    """Load a network's image encoder: a warm-start file, MobileSAM's or EfficientNet-Lite0's weights.

    The format in the file's metadata decides which of them it is.

    Raises:
        PrerequisiteError: the file does not exist.
        ModelError: it has another format, is damaged, or does not fit.
    """
    require_file(path)
    file_format = read_tensors(path)[1].get("format")
    if file_format == FORMAT:
        load_warm_start(network, path)
    elif file_format == mobile_sam.FORMAT:
        mobile_sam.load_encoder(network, path)
    elif file_format == efficientnet.FORMAT:
        efficientnet.load_encoder(network, path)
    else:
        raise ModelError(
            f"{path} has the format {file_format}; expected {FORMAT}, {mobile_sam.FORMAT} or "
            f"{efficientnet.FORMAT}",
            _REMEDY,
        )


def shipped_path(size: Literal["nano", "base"]) -> Path:
    """Return the path of this size's warm start in the package; the file may not exist."""
    return _FOLDER / f"{size}.safetensors"


def require_file(path: Path) -> None:
    """Check that a file with weights, or a card, exists.

    Raises:
        PrerequisiteError: it does not exist; the remedy says how to get it.
    """
    if path.is_file():
        return
    if path.name == mobile_sam.FILE:
        problem, remedy = f"MobileSAM's weights were not found at {path}", "Run `dsmoe weights mobile-sam`."
    elif path.name == efficientnet.FILE:
        problem, remedy = (
            f"the ImageNet weights were not found at {path}",
            "Run `dsmoe weights imagenet-lite`.",
        )
    elif path.parent == _FOLDER:
        problem = f"dsmoe ships no warm start for size {path.stem}"
        remedy = "Make one with `dsmoe pretrain` and set detector.warm_start to it, or start from scratch."
    else:
        problem, remedy = f"the warm-start file {path} does not exist", _REMEDY
    raise PrerequisiteError(problem, remedy)


def _compressed(tensor: Tensor) -> Tensor:
    return tensor.half() if tensor.is_floating_point() and tensor.ndim > 1 else tensor
