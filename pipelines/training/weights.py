"""Pretrained weights from elsewhere: fetched or taken from a file, checked, and kept where we find them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import hf_hub_download
from safetensors import SafetensorError, safe_open

from dsmoe_core.digest import sha256_of
from dsmoe_core.errors import DISK_FULL_ERRNOS, PrerequisiteError, SettingsError
from dsmoe_core.mobile_sam.weights import (
    FILE,
    FORMAT,
    ConversionReport,
    convert,
    read_original,
    write_weights,
)

HUB_REPOSITORY, HUB_FILE = "dhkim2810/MobileSAM", "mobile_sam.pt"


@dataclass(frozen=True, slots=True)
class InstalledWeights:
    """Weights that are in place.

    Attributes:
        path: the file.
        source: where they come from, for people.
        new: whether they were written just now.
    """

    path: Path
    source: str
    new: bool


def install_mobile_sam(
    folder: Path, given: Path | None, tell: Callable[[ConversionReport], None]
) -> InstalledWeights:
    """Put MobileSAM's weights into a folder; where the same are there already, do nothing.

    Args:
        folder: made if missing.
        given: ``mobile_sam.pt`` or its tensors as safetensors; None: whatever is there, or else from the hub.
        tell: told what of the file matches, before it is refused or written.

    Raises:
        PrerequisiteError: the hub cannot be reached.
        ModelError: the file is torn, or is not MobileSAM.
        SettingsError: the folder cannot be written.
    """
    path = folder / FILE
    there = _noted(path)
    digest = sha256_of(given) if given else None
    if there and digest in (None, there.get("sha256")):
        return InstalledWeights(path, there.get("from", "an unknown place"), new=False)
    _writable(folder)
    source = given or _from_hub()
    name = str(given) if given else f"{HUB_REPOSITORY}/{HUB_FILE}"
    tensors, report = convert(read_original(source))
    tell(report)
    write_weights(tensors, report, path, {"from": name, "sha256": digest or sha256_of(source)})
    return InstalledWeights(path, name, new=True)


def _from_hub() -> Path:
    """The published file, in the hub's own cache."""
    try:
        return Path(hf_hub_download(HUB_REPOSITORY, HUB_FILE))
    except Exception as error:  # of the hub's own types, its transport's, and the system's
        if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
            raise
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise PrerequisiteError(
            f"{HUB_FILE} cannot be fetched from {HUB_REPOSITORY} on the Hugging Face hub ({reason})",
            "Download it elsewhere and pass it with --from FILE.",
        ) from error


def _noted(path: Path) -> dict[str, str] | None:
    """What is noted in weights of ours; None where none are, or torn or old ones."""
    try:
        with safe_open(path, framework="pt") as file:
            noted = dict(file.metadata() or {})
    except (OSError, SafetensorError):
        return None
    return noted if noted.get("format") == FORMAT else None


def _writable(folder: Path) -> None:
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
        f"{folder} cannot be written ({reason})", "Give a folder of yours with --to or DSMOE_WEIGHTS."
    )
