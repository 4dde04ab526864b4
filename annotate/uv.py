"""Where uv is: it builds Label Studio's environment and repairs FiftyOne's database."""

from __future__ import annotations

import shutil

from dsmoe_core.errors import PrerequisiteError


def find_uv(purpose: str) -> str:
    """The uv of this environment, else the one on PATH.

    Args:
        purpose: what it is needed for, for the message.

    Raises:
        PrerequisiteError: there is none.
    """
    try:
        from uv import find_uv_bin

        return find_uv_bin()
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if found is None:
        raise PrerequisiteError(
            f"uv is neither in this environment nor on PATH; it {purpose}",
            "Install it: pip install 'dsmoe[annotate]'.",
        )
    return found
