"""Reads MobileSAM's published weights, checks them by name and shape, and stores them under our names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from dsmoe_core.checkpoint import WeightMatch, read_tensors, write_tensors
from dsmoe_core.errors import ModelError, PrerequisiteError
from dsmoe_core.mobile_sam.names import COMPONENTS, ENCODER, component_of, converted_name
from dsmoe_core.mobile_sam.network import MEAN, STD, MobileSam
from dsmoe_core.published_weights import read_published

FILE = "mobile-sam.safetensors"
FORMAT = "dsmoe-mobile-sam-1"
_STEM = "patch_embed.conv1"


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """Result of converting a file.

    Attributes:
        fit: comparison with the network, in our names; unknown tensors in the names of the file.
        ignored: tensors that our network does not need, in the names of the file.
    """

    fit: WeightMatch
    ignored: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """Describe the result: a line per component of the network, and one per kind of difference."""
        matched = Counter(map(component_of, self.fit.matched))
        different = (*self.fit.missing, *self.fit.wrong_shape)
        expected = matched + Counter(map(component_of, different))
        lines = [
            f"{component}: {matched[component]} of {expected[component]} tensors match"
            for component in COMPONENTS
            if expected[component]
        ]
        if self.ignored:
            lines.append(f"ignored (not needed): {', '.join(self.ignored)}")
        return lines + self.fit.problems


def read_original(path: Path) -> dict[str, Tensor]:
    """Read the tensors of ``mobile_sam.pt``, or of its safetensors form, under their original names.

    Raises:
        ModelError: the file is damaged, or contains anything but tensors. Code in it is never executed.
    """
    return read_published(
        path, "Give mobile_sam.pt as its authors publish it, or its tensors as safetensors."
    )


def convert(original: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], ConversionReport]:
    """Convert tensors to our names and dtypes, and report how they fit our network."""
    with torch.device("meta"):
        expected = MobileSam().state_dict()
    ignored, duplicates = [], []
    converted: dict[str, Tensor] = {}
    original_names: dict[str, str] = {}
    for original_name, tensor in original.items():
        name = converted_name(original_name)
        if name is None:
            ignored.append(original_name)
        elif name in converted:
            duplicates.append(original_name)
        else:
            converted[name] = tensor.to(expected[name].dtype) if name in expected else tensor
            original_names[name] = original_name
    fit = WeightMatch.of(converted, expected)
    unknown = sorted([*(original_names[name] for name in fit.unknown), *duplicates])
    return converted, ConversionReport(replace(fit, unknown=tuple(unknown)), tuple(sorted(ignored)))


def write_weights(
    tensors: dict[str, Tensor], report: ConversionReport, path: Path, source: Mapping[str, str]
) -> None:
    """Write converted tensors atomically, with their source as metadata.

    Args:
        tensors, report: result of :func:`convert`.
        path: file to write.
        source: metadata, such as the name and sha256 of the published file.

    Raises:
        ModelError: the tensors do not fit the network.
    """
    if report.fit.problems:
        raise ModelError(
            f"{source.get('from', 'the file')} does not contain MobileSAM ({'; '.join(report.fit.problems)})",
            "Give mobile_sam.pt as its authors publish it.",
        )
    write_tensors(path, tensors, {"format": FORMAT, **source})


def read_encoder_weights(path: Path) -> dict[str, Tensor]:
    """Read the image encoder's tensors, under timm's names, from a file of ``dsmoe weights mobile-sam``.

    Raises:
        PrerequisiteError: the file does not exist.
        ModelError: it was not written by ``dsmoe weights``, or is damaged.
    """
    prefix = f"{ENCODER}."
    return {k.removeprefix(prefix): v for k, v in read_weights(path).items() if k.startswith(prefix)}


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read all tensors from a file of ``dsmoe weights mobile-sam``.

    Raises:
        PrerequisiteError: the file does not exist.
        ModelError: it was not written by ``dsmoe weights``, or is damaged.
    """
    remedy = "Run `dsmoe weights mobile-sam`."
    if not path.is_file():
        raise PrerequisiteError(f"MobileSAM's weights were not found at {path}", remedy)
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise ModelError(
            f"{path} contains weights of format {metadata.get('format')}; expected {FORMAT}", remedy
        )
    return tensors


def load_encoder(network: nn.Module, path: Path) -> ConversionReport:
    """Load MobileSAM's encoder into a detector of the size ``base``.

    MobileSAM's input is (value - mean) / std, that of stage 3 is value / 255 - 1/2. The difference is folded
    into the first convolution and its batch normalisation, so the outputs are the same except in the
    outermost ring of cells, where the zero padding means a grey of 1/2 instead of the mean.

    Raises:
        PrerequisiteError, ModelError: as :func:`read_encoder_weights`, or the detector has another encoder.
    """
    weights = _adapt_input_scale(read_encoder_weights(path))
    backbone = network.get_submodule("image_encoder.backbone")
    fit = WeightMatch.of(weights, backbone.state_dict())
    if fit.problems:
        raise ModelError(
            f"MobileSAM's encoder does not fit this detector ({'; '.join(fit.problems)})",
            "Use the size `base`, which has this encoder, or start without these weights.",
        )
    backbone.load_state_dict(weights)
    return ConversionReport(replace(fit, matched=tuple(f"{ENCODER}.{name}" for name in fit.matched)))


def _adapt_input_scale(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Adapt the stem to inputs u = v / 255 - 1/2, where (v - mean) / std = scale * u + shift."""
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    scale, shift = 255 / std, (255 / 2 - mean) / std
    kernel = weights[f"{_STEM}.conv.weight"]
    offset = kernel.sum((2, 3)) @ shift
    return {
        **weights,
        f"{_STEM}.conv.weight": kernel * scale[:, None, None],
        f"{_STEM}.bn.running_mean": weights[f"{_STEM}.bn.running_mean"] - offset,
    }
