"""The images on which a model does worst, drawn with what is there and what was found."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsmoe_core.evaluation.matching import UNMATCHED, ImageMatches
from pipelines.datasets.drawing import BoxOverlay, draw_boxes

MOST = 12
LONGEST_PX = 960
LARGEST_SCALE = 4.0
"""A small image is enlarged no further than this."""
FOUND, MISSED = "true box, found", "true box, missed"
RIGHT, FALSE = "detection, right", "detection, false"
COLOURS = {FOUND: "#009e73", MISSED: "#cc3399", RIGHT: "#0072b2", FALSE: "#d55e00"}
"""Of the boxes; told apart by most colour-blind people, and by whole and broken lines by all."""


def loss(image: ImageMatches) -> float:
    """What is missed and what is false, without a threshold.

    For each true box 1 less the score that it was found with (0 where it was not), for each false detection
    its score.
    """
    return float((1 - image.best_score.clip(0)).sum() + image.scores[~image.right].sum())


def worst(matched: Sequence[ImageMatches], threshold: float) -> list[tuple[ImageMatches, dict[str, Any]]]:
    """The images that lose most, the worst first, with what is said of them."""
    losing = sorted(((loss(p), p) for p in matched), key=lambda row: (-row[0], row[1].image.name))
    return [
        (p, _said(place, lost, p, threshold)) for place, (lost, p) in enumerate(losing[:MOST], 1) if lost > 0
    ]


def _said(place: int, lost: float, image: ImageMatches, threshold: float) -> dict[str, Any]:
    stem = re.sub(r"[^\w.-]+", "_", Path(image.image.name).stem)[:60]
    false = (image.scores >= threshold) & ~image.right
    return {
        "name": image.image.name,
        "file": f"{place:02d}-{stem}.jpg",
        "loss": round(lost, 4),
        "boxes": len(image.truth),
        "missed": int((image.best_score < threshold).sum()),
        "false": int(false.sum()),
    }


def draw(image: ImageMatches, threshold: float) -> bytes:
    """A JPEG with every true box and every detection from this score up.

    Raises:
        OSError: the image cannot be read.
    """
    width, height = image.image.width, image.image.height
    scale = min(LONGEST_PX / max(width, height), LARGEST_SCALE)
    marks = [
        BoxOverlay(
            f.box, f"{f.label} {f.score:.0%}", COLOURS[FALSE if j == UNMATCHED else RIGHT], dashed=True
        )
        for f, j in zip(reversed(image.detections), reversed(image.truth_index), strict=True)
        if f.score >= threshold
    ]
    marks += [
        BoxOverlay(a.box, a.label, COLOURS[FOUND if score >= threshold else MISSED], dashed=False)
        for a, score in zip(image.truth, image.best_score, strict=True)
    ]
    return draw_boxes(image.image.path, marks, max(1, round(width * scale)))
