"""Registry of the synthetic image generators, by the name that commands and settings use."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from dsmoe_core.config import SyntheticKind
from dsmoe_core.data.synthetic import aluminium, glass, pcb
from dsmoe_core.data.synthetic.rendering import SyntheticImage


class SyntheticGenerator(NamedTuple):
    """Renders images of one kind.

    Attributes:
        render: from a seed and the side in pixels; equal arguments give equal images.
        classes: every class that can occur.
    """

    render: Callable[[int, int], SyntheticImage]
    classes: tuple[str, ...]


GENERATORS: dict[SyntheticKind, SyntheticGenerator] = {
    "pcb": SyntheticGenerator(pcb.render, pcb.CLASSES),
    "aluminium": SyntheticGenerator(aluminium.render, aluminium.CLASSES),
    "glass": SyntheticGenerator(glass.render, glass.CLASSES),
}


@cache
def generator_version() -> str:
    """Hash of the rendering code, 12 hexadecimal digits; while it is the same, so are the images."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
