"""Label Studio's own Python environment, built once per machine from label-studio.lock."""

from __future__ import annotations

from pathlib import Path

from annotate import environments
from annotate.environments import LockedEnvironment
from dsmoe_core.progress import StatusCallback

LOCK = Path(__file__).parent / "label-studio.lock"
LABEL_STUDIO = LockedEnvironment(
    "label-studio", "Label Studio", LOCK, required_bytes=1_500_000_000, size="1 GB"
)


def ensure(folder: Path, on_status: StatusCallback) -> Path:
    """Path of the ``label-studio`` program; see ``annotate.environments.ensure``."""
    return environments.ensure(LABEL_STUDIO, folder, on_status) / "bin" / "label-studio"
