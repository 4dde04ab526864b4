"""MobileSAM's weights: read as they are published, checked by name and shape, kept under our names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from dsmoe_core.checkpoint import WeightMatch, read_tensors, write_tensors
from dsmoe_core.errors import ModelError, PrerequisiteError
from dsmoe_core.mobile_sam.names import COMPONENTS, ENCODER, component_of, converted_name
from dsmoe_core.mobile_sam.network import MEAN, STD, MobileSam

FILE = "mobile-sam.safetensors"
FORMAT = "dsmoe-mobile-sam-1"
_STEM = "patch_embed.conv1"


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """What became of the tensors of a file.

    Attributes:
        fit: to the network they are meant for, in our names; unknown ones in the file's.
        left_out: in the file's names: what nothing of ours needs.
    """

    fit: WeightMatch
    left_out: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """For people: a line for each part of the network, and one for each kind of difference."""
        matched = Counter(map(component_of, self.fit.matched))
        different = (*self.fit.missing, *self.fit.wrong_shape)
        wanted = matched + Counter(map(component_of, different))
        lines = [
            f"{part}: {matched[part]} of {wanted[part]} tensors match" for part in COMPONENTS if wanted[part]
        ]
        if self.left_out:
            lines.append(f"left out on purpose: {', '.join(self.left_out)}")
        return lines + self.fit.problems


def read_original(path: Path) -> dict[str, Tensor]:
    """The tensors of ``mobile_sam.pt``, or of the same as safetensors, under the names they have there.

    Raises:
        ModelError: the file is torn, or holds anything but tensors; nothing in it is ever run.
    """
    remedy = "Give mobile_sam.pt as its authors publish it, or its tensors as safetensors."
    if path.suffix == ".safetensors":
        try:
            return read_tensors(path)[0]
        except ModelError as error:
            raise ModelError(error.problem, remedy) from error
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror})", remedy) from error
    except UnpicklingError as error:
        raise ModelError(
            f"{path} holds something else than tensors; nothing of it was run", remedy
        ) from error
    except Exception as error:  # torch has no type of its own for a torn file
        raise ModelError(f"{path} is torn, or no file of torch's", remedy) from error
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise ModelError(f"{path} holds something else than tensors under their names", remedy)
    return {str(name): tensor for name, tensor in found.items()}


def translate(original: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], ConversionReport]:
    """The tensors under our names, in our precision, and what became of each."""
    with torch.device("meta"):
        own = MobileSam().state_dict()
    left_out, twice = [], []
    ours: dict[str, Tensor] = {}
    theirs: dict[str, str] = {}
    for name, tensor in original.items():
        translated = converted_name(name)
        if translated is None:
            left_out.append(name)
        elif translated in ours:
            twice.append(name)
        else:
            ours[translated] = tensor.to(own[translated].dtype) if translated in own else tensor
            theirs[translated] = name
    fit = WeightMatch.of(ours, own)
    fit = replace(fit, unknown=tuple(sorted([*(theirs[name] for name in fit.unknown), *twice])))
    return ours, ConversionReport(fit, tuple(sorted(left_out)))


def write_weights(
    tensors: dict[str, Tensor], report: ConversionReport, path: Path, source: Mapping[str, str]
) -> None:
    """Write what :func:`translate` gave, whole or not at all, with a note of where it comes from.

    Raises:
        ModelError: not everything fits.
    """
    if report.fit.problems:
        raise ModelError(
            f"{source.get('from', 'the file')} is not MobileSAM ({'; '.join(report.fit.problems)})",
            "Give mobile_sam.pt as its authors publish it.",
        )
    write_tensors(path, tensors, {"format": FORMAT, **source})


def read_encoder_weights(path: Path) -> dict[str, Tensor]:
    """The image encoder's tensors under timm's names, from a file that ``dsmoe weights mobile-sam`` wrote.

    Raises:
        PrerequisiteError: no such file is there.
        ModelError: it is not one of ours, or torn.
    """
    prefix = f"{ENCODER}."
    return {k.removeprefix(prefix): v for k, v in read_weights(path).items() if k.startswith(prefix)}


def read_weights(path: Path) -> dict[str, Tensor]:
    """All tensors, from a file that ``dsmoe weights mobile-sam`` wrote.

    Raises:
        PrerequisiteError: no such file is there.
        ModelError: it is not one of ours, or torn.
    """
    remedy = "Run `dsmoe weights mobile-sam`."
    if not path.is_file():
        raise PrerequisiteError(f"MobileSAM's weights are not at {path}", remedy)
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise ModelError(
            f"{path} holds weights of format {metadata.get('format')}; expected {FORMAT}", remedy
        )
    return tensors


def load_encoder(network: nn.Module, path: Path) -> ConversionReport:
    """Let a detector of the size ``base`` start from MobileSAM's encoder.

    MobileSAM sees RGB as (value - mean) / deviation, stage 3 as value / 255 - 1/2. The difference is put into
    the first convolution and its batch normalisation, so both see the same; only in the outermost ring of its
    output, where the convolution reaches over the edge, is the edge a grey of 1/2 instead of the mean.

    Raises:
        PrerequisiteError, ModelError: as :func:`read_encoder_weights`; or the detector has another encoder.
    """
    weights = _for_stage_3(read_encoder_weights(path))
    backbone = network.get_submodule("image_encoder.backbone")
    fit = WeightMatch.of(weights, backbone.state_dict())
    if fit.problems:
        raise ModelError(
            f"MobileSAM's encoder does not fit this detector ({'; '.join(fit.problems)})",
            "Take the size `base`, whose encoder it is, or start without.",
        )
    backbone.load_state_dict(weights)
    return ConversionReport(replace(fit, matched=tuple(f"{ENCODER}.{name}" for name in fit.matched)))


def _for_stage_3(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """For an input u = v / 255 - 1/2, where (v - mean) / std = scale * u + shift."""
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    scale, shift = 255 / std, (255 / 2 - mean) / std
    kernel = weights[f"{_STEM}.conv.weight"]
    offset = kernel.sum((2, 3)) @ shift
    return {
        **weights,
        f"{_STEM}.conv.weight": kernel * scale[:, None, None],
        f"{_STEM}.bn.running_mean": weights[f"{_STEM}.bn.running_mean"] - offset,
    }
