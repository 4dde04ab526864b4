"""The kinds of images that can be drawn, by the name that commands and settings know them by."""

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
    """Draws images of one kind.

    Attributes:
        render: from a seed and the side in pixels; the same give the same image.
        classes: of everything that may be on one.
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
    """A hash of the code that draws, 12 hexadecimal digits: as long as it stays, so do the images."""
    found = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()[:12]
