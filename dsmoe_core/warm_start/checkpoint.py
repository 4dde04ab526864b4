"""A warm start on disk: the image encoder's tensors as safetensors, and beside them a card as JSON.

What is kept is stage 3, TinyViT and its neck. It knows neither words nor classes, so one file serves every
text encoder, head and row of the ablation from C on. Matrices are kept in 16 bit, vectors (norms and their
statistics, whose values span more) in 32, which keeps ``base`` below MAX_BYTES.
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
from dsmoe_core.errors import ModelError, PrerequisiteError
from dsmoe_core.mobile_sam import weights as mobile_sam

FORMAT: Final = "dsmoe-warm-start-1"
MAX_BYTES = 12_000_000
PART = "image_encoder."
"""The tensors of the network that are kept begin with this."""
_HERE = Path(__file__).parent
_REMEDY = "Make one with `dsmoe pretrain`, or take the file and its card from where they were made."


class WarmStartCard(Frozen):
    """Where a warm start comes from.

    Attributes:
        size: preset of the detector that it fits.
        licence: of the file, by what it was trained on.
        sha256: of the file beside the card.
        made: how: recipe, images, seed, generator version, and how well it did on drawn images held out.
    """

    format: Literal["dsmoe-warm-start-1"] = FORMAT
    size: Literal["nano", "base"]
    licence: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    made: dict[str, Any]


def card_path(weights: Path) -> Path:
    """Where the card of a file lies."""
    return weights.with_suffix(".json")


def save_warm_start(
    path: Path, network: nn.Module, *, size: Literal["nano", "base"], licence: str, made: dict[str, Any]
) -> WarmStartCard:
    """Write the file, then its card: one with a card that knows its hash is whole.

    Raises:
        ModelError: a weight is not finite, in 16 bit, or the file is larger than MAX_BYTES.
    """
    kept = {k: _stored(v) for k, v in network.state_dict().items() if k.startswith(PART)}
    if bad := [k for k, v in kept.items() if not v.isfinite().all()]:
        raise ModelError(f"{bad[0]} has values that are not finite", "Pretrain with a lower learning rate.")
    bytes_ = sum(v.numel() * v.element_size() for v in kept.values())
    if bytes_ > MAX_BYTES:
        raise ModelError(f"the warm start has {bytes_} bytes; expected at most {MAX_BYTES}", "Use a preset.")
    path.parent.mkdir(parents=True, exist_ok=True)
    card_path(path).unlink(missing_ok=True)
    write_tensors(path, kept, {"format": FORMAT})
    card = WarmStartCard(size=size, licence=licence, sha256=sha256_of(path), made=made)
    part = card_path(path).with_suffix(".json.part")
    part.write_text(json.dumps(card.model_dump(), indent=2, ensure_ascii=False) + "\n", "utf-8")
    part.replace(card_path(path))
    return card


def read_card(path: Path) -> WarmStartCard:
    """The card of a file, whose hash is checked.

    Raises:
        PrerequisiteError: file or card is missing.
        ModelError: the card is wrong, or of another file.
    """
    require_file(path)
    require_file(card_path(path))
    try:
        card = WarmStartCard.model_validate_json(card_path(path).read_text("utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise ModelError(f"{card_path(path)} is no card of a warm start", _REMEDY) from error
    if card.sha256 != sha256_of(path):
        raise ModelError(f"{path} is not the file that its card describes (another sha256)", _REMEDY)
    return card


def load_warm_start(network: nn.Module, path: Path) -> WarmStartCard:
    """Let a network start from a file; every name and shape is checked before anything changes.

    Raises:
        PrerequisiteError, ModelError: as :func:`read_card`; or the network has another image encoder.
    """
    card = read_card(path)
    encoder = network.get_submodule(PART.removesuffix("."))
    found = {k.removeprefix(PART): v for k, v in read_tensors(path)[0].items()}
    own = encoder.state_dict()
    if problems := WeightMatch.of(found, own).problems:
        raise ModelError(
            f"the warm start {path} is for size {card.size} and does not fit ({'; '.join(problems)})",
            "Take the preset of that size and a row from C on, make one for yours with `dsmoe pretrain`, "
            "or start from scratch.",
        )
    encoder.load_state_dict({k: v.to(own[k].dtype) for k, v in found.items()})
    return card


def load_initial_encoder(network: nn.Module, path: Path) -> None:
    """Begin with the image encoder of a file, MobileSAM's or a warm start; its content tells which.

    Raises:
        PrerequisiteError: it is not there. ModelError: it is neither, torn, or does not fit.
    """
    require_file(path)
    found = read_tensors(path)[1].get("format")
    if found == FORMAT:
        load_warm_start(network, path)
    elif found == mobile_sam.FORMAT:
        mobile_sam.load_encoder(network, path)
    else:
        raise ModelError(
            f"{path} holds weights of format {found}; expected {FORMAT} or {mobile_sam.FORMAT}", _REMEDY
        )


def shipped_path(size: Literal["nano", "base"]) -> Path:
    """Where the warm start of this size lies in the package, if one ships: see :func:`require_file`."""
    return _HERE / f"{size}.safetensors"


def require_file(path: Path) -> None:
    """Refuse to go on without a file.

    Raises:
        PrerequisiteError: it is not there; the remedy says how to get it.
    """
    if path.is_file():
        return
    if path.name == mobile_sam.FILE:
        problem, remedy = f"MobileSAM's weights are not at {path}", "Run `dsmoe weights mobile-sam`."
    elif path.parent == _HERE:
        problem = f"no warm start for size {path.stem} comes with dsmoe"
        remedy = "Make one with `dsmoe pretrain` and name it (detector.warm_start), or start from scratch."
    else:
        problem, remedy = f"{path} of a warm start is not there", _REMEDY
    raise PrerequisiteError(problem, remedy)


def _stored(tensor: Tensor) -> Tensor:
    return tensor.half() if tensor.is_floating_point() and tensor.ndim > 1 else tensor
