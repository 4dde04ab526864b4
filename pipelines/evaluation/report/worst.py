"""The images with the largest loss, rendered with their ground-truth boxes and detections."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsmoe_core.evaluation.matching import UNMATCHED, ImageMatches
from pipelines.datasets.drawing import BoxOverlay, draw_boxes

MAX_IMAGES = 12
MAX_SIDE_PX = 960
MAX_SCALE = 4.0
"""Limit of the enlargement of small images."""
DETECTED, MISSED = "ground truth, detected", "ground truth, missed"
CORRECT, FALSE = "detection, correct", "detection, false"
COLOURS = {DETECTED: "#009e73", MISSED: "#cc3399", CORRECT: "#0072b2", FALSE: "#d55e00"}
"""Of the boxes. Distinct for most colour-blind people; detections also have dashed lines."""


def image_loss(image: ImageMatches) -> float:
    """Loss of an image, independent of a score threshold.

    The sum of 1 - score over ground-truth boxes (score 0 for an undetected box) and of the scores of false
    detections.
    """
    return float((1 - image.truth_scores.clip(0)).sum() + image.scores[~image.correct].sum())


def worst_images(
    matched: Sequence[ImageMatches], threshold: float
) -> list[tuple[ImageMatches, dict[str, Any]]]:
    """The images with the largest loss, in descending order, each with its summary for the report.

    Args:
        threshold: score threshold of the counts in the summary.
    """
    ranked = sorted(((image_loss(p), p) for p in matched), key=lambda row: (-row[0], row[1].image.name))
    return [
        (image, _summary(rank, loss, image, threshold))
        for rank, (loss, image) in enumerate(ranked[:MAX_IMAGES], 1)
        if loss > 0
    ]


def _summary(rank: int, loss: float, image: ImageMatches, threshold: float) -> dict[str, Any]:
    stem = re.sub(r"[^\w.-]+", "_", Path(image.image.name).stem)[:60]
    false = (image.scores >= threshold) & ~image.correct
    return {
        "name": image.image.name,
        "file": f"{rank:02d}-{stem}.jpg",
        "loss": round(loss, 4),
        "boxes": len(image.truth),
        "false_negatives": int((image.truth_scores < threshold).sum()),
        "false_positives": int(false.sum()),
    }


def render_image(image: ImageMatches, threshold: float) -> bytes:
    """JPEG of an image with all ground-truth boxes and the detections at a score threshold.

    Raises:
        OSError: the image cannot be read.
    """
    width, height = image.image.width, image.image.height
    scale = min(MAX_SIDE_PX / max(width, height), MAX_SCALE)
    overlays = [
        BoxOverlay(
            f.box, f"{f.label} {f.score:.0%}", COLOURS[FALSE if j == UNMATCHED else CORRECT], dashed=True
        )
        for f, j in zip(reversed(image.detections), reversed(image.truth_index), strict=True)
        if f.score >= threshold
    ]
    overlays += [
        BoxOverlay(a.box, a.label, COLOURS[DETECTED if score >= threshold else MISSED], dashed=False)
        for a, score in zip(image.truth, image.truth_scores, strict=True)
    ]
    return draw_boxes(image.image.path, overlays, max(1, round(width * scale)))
