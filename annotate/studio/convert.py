"""Conversion of boxes (pixel corners) to Label Studio results (percent, corner and size)."""

from __future__ import annotations

import hashlib
from typing import Any

from annotate.studio.controls import CONTROL, OBJECT
from annotate.studio.protocol import Region
from dsmoe_core.errors import BoxError
from dsmoe_core.schema import Box, Detection, Prediction

Json = dict[str, Any]
"""A JSON object of Label Studio's API."""


def to_percent(box: Box, width: int, height: int) -> Json:
    """Top-left corner and size in percent of the image, each 0 to 100.

    Args:
        width, height: of the image, in pixels.

    Raises:
        BoxError: the box exceeds the image by more than one pixel.
    """
    if not box.inside(width, height):
        raise BoxError(
            f"box {box.corners} lies outside its image of {width} x {height} px",
            "Correct or remove this box.",
        )
    inside = box.clipped(width, height)
    return {
        "x": 100 * inside.x1 / width,
        "y": 100 * inside.y1 / height,
        "width": 100 * inside.width / width,
        "height": 100 * inside.height / height,
    }


def to_result(region: Region, width: int, height: int, reason: str | None = None) -> Json:
    """Label Studio result of a region.

    Args:
        width, height: of the image, in pixels.
        reason: text that the labelling interface shows for the region.

    Raises:
        BoxError: the region lies outside the image.
    """
    result: Json = {
        "id": region.id,
        "type": "rectanglelabels",
        "from_name": CONTROL,
        "to_name": OBJECT,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {**to_percent(region.box, width, height), "rotation": 0, "rectanglelabels": [region.label]},
        "origin": region.origin,
    }
    if region.score is not None:
        result["score"] = region.score
    if reason:
        result["meta"] = {"text": [reason]}
    return result


def pre_annotations(prediction: Prediction) -> tuple[tuple[Region, str], ...]:
    """Pre-annotations of an image: a region and the text to show with it for each detection.

    The id of a region depends only on image, model version and position, so it is the same in every import.
    """
    return tuple(
        (
            Region(
                id=hashlib.sha256(f"{prediction.version}/{prediction.key}/{i}".encode()).hexdigest()[:10],
                box=detection.box,
                label=detection.label,
                origin="prediction",
                score=min(max(detection.score, 0.0), 1.0),
            ),
            _reason(detection),
        )
        for i, detection in enumerate(prediction.detections)
    )


def _reason(detection: Detection) -> str:
    """Text of a pre-annotation: score, second-best class and why the detector is uncertain, if it is."""
    second, score = detection.second_best, detection.score
    alternative = f", or {second[0]} {second[1]:.0%}" if second and second[1] >= 0.01 else ""
    doubts = []
    if second and second[1] >= score / 2:
        doubts.append("class uncertain")
    if score < 0.5:
        doubts.append("may not be a defect")
    return f"{detection.label} {score:.0%}{alternative}" + (f": {', '.join(doubts)}" if doubts else "")
