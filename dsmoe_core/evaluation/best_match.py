"""What the detector takes each true box for: the surest finding on it, of whatever class, however faint."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from dsmoe_core.evaluation.matching import IOU, overlaps
from dsmoe_core.schema import Annotation, Finding


def surest(boxes: Sequence[Annotation], findings: Sequence[Finding]) -> list[Finding | None]:
    """Of each box the finding of the highest score that overlaps it by half; None where there is none.

    No threshold of scores: one would hide the confusions of a detector that is less sure where it is wrong.
    """
    return surest_of(findings, overlaps([f.box for f in findings], [a.box for a in boxes]))


def surest_of(findings: Sequence[Finding], overlap: Float[np.ndarray, "f t"]) -> list[Finding | None]:
    """The same where the IoU of every finding with every box is known."""
    on_them = [[findings[row] for row in np.flatnonzero(column >= IOU)] for column in overlap.T]
    return [max(found, key=lambda f: f.score, default=None) for found in on_them]
