"""The pictures on which a model does worst, drawn with what is there and what was found."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsmoe_core.evaluation.matching import NONE, Matched
from pipelines.datasets.drawing import Mark, drawn

MOST = 12
LONGEST_PX = 960
LARGEST_SCALE = 4.0
"""A small picture is enlarged no further than this."""
FOUND, MISSED = "true box, found", "true box, missed"
RIGHT, FALSE = "finding, right", "finding, false"
COLOURS = {FOUND: "#009e73", MISSED: "#cc3399", RIGHT: "#0072b2", FALSE: "#d55e00"}
"""Of the boxes; told apart by most colour-blind people, and by whole and broken lines by all."""


def loss(picture: Matched) -> float:
    """What is missed and what is false, without a threshold.

    For each true box 1 less the score that it was found with (0 where it was not), for each false finding
    its score.
    """
    return float((1 - picture.best_score.clip(0)).sum() + picture.scores[~picture.right].sum())


def worst(matched: Sequence[Matched], threshold: float) -> list[tuple[Matched, dict[str, Any]]]:
    """The pictures that lose most, the worst first, with what is said of them."""
    losing = sorted(((loss(p), p) for p in matched), key=lambda row: (-row[0], row[1].picture.name))
    return [
        (p, _said(place, lost, p, threshold)) for place, (lost, p) in enumerate(losing[:MOST], 1) if lost > 0
    ]


def _said(place: int, lost: float, picture: Matched, threshold: float) -> dict[str, Any]:
    stem = re.sub(r"[^\w.-]+", "_", Path(picture.picture.name).stem)[:60]
    false = (picture.scores >= threshold) & ~picture.right
    return {
        "name": picture.picture.name,
        "file": f"{place:02d}-{stem}.jpg",
        "loss": round(lost, 4),
        "boxes": len(picture.truth),
        "missed": int((picture.best_score < threshold).sum()),
        "false": int(false.sum()),
    }


def draw(picture: Matched, threshold: float) -> bytes:
    """A JPEG with every true box and every finding from this score up.

    Raises:
        OSError: the picture cannot be read.
    """
    width, height = picture.picture.width, picture.picture.height
    scale = min(LONGEST_PX / max(width, height), LARGEST_SCALE)
    marks = [
        Mark(f.box, f"{f.label} {f.score:.0%}", COLOURS[FALSE if j == NONE else RIGHT], broken=True)
        for f, j in zip(reversed(picture.findings), reversed(picture.truth_of), strict=True)
        if f.score >= threshold
    ]
    marks += [
        Mark(a.box, a.label, COLOURS[FOUND if score >= threshold else MISSED], broken=False)
        for a, score in zip(picture.truth, picture.best_score, strict=True)
    ]
    return drawn(picture.picture.path, marks, max(1, round(width * scale)))
