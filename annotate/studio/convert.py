"""Conversion between boxes (pixel corners) and Label Studio results (percent, corner and size, rotation)."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from math import cos, radians, sin
from typing import Any

from annotate.studio.controls import CONTROL, FRAME, OBJECT, is_image_feedback, is_smart_prompt
from annotate.studio.protocol import Origin, Region
from dsmoe_core.errors import BoxError
from dsmoe_core.schema import Box, Detection, Prediction

Json = dict[str, Any]
"""A JSON object of Label Studio's API."""

log = logging.getLogger(__name__)

_ORIGINS: dict[str, Origin] = {
    "manual": "manual",
    "prediction": "prediction",
    "prediction-changed": "prediction-changed",
}
_REMEDY = "Correct or remove it in Label Studio."


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


def from_percent(value: Mapping[str, Any], width: int, height: int) -> Box:
    """Box in pixels from percent values, clipped to the image.

    A rotated box becomes its axis-aligned bounding box. Label Studio rotates clockwise about the top-left
    corner. Our labelling config does not allow rotation, but other programs can store rotated boxes.

    Args:
        value: x, y, width, height in percent and, optionally, rotation in degrees.
        width, height: of the image, in pixels.

    Raises:
        BoxError: the box has no area inside the image, or a value is missing or not a number.
    """
    left, top = _number(value, "x") * width / 100, _number(value, "y") * height / 100
    w, h = _number(value, "width") * width / 100, _number(value, "height") * height / 100
    angle = radians(_number(value, "rotation") if value.get("rotation") else 0)
    if angle == 0:
        return Box(left, top, left + w, top + h).clipped(width, height)
    corners = [
        (dx * cos(angle) - dy * sin(angle), dx * sin(angle) + dy * cos(angle))
        for dx in (0, w)
        for dy in (0, h)
    ]
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    return Box(left + min(xs), top + min(ys), left + max(xs), top + max(ys)).clipped(width, height)


def _number(value: Mapping[str, Any], name: str) -> float:
    """A number of a result's value. The server does not validate what other programs store.

    Raises:
        BoxError: it is missing or not a number.
    """
    number = value.get(name)
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise BoxError(f"a region's {name} is {number!r}; expected a number", _REMEDY)
    return number


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


def from_result(result: Mapping[str, Any], width: int, height: int) -> Region:
    """Region from a Label Studio result.

    Args:
        width, height: of the image, in pixels.

    Raises:
        BoxError: the result is not a rectangle with exactly one class, or has no area inside the image.
    """
    value = result.get("value") or {}
    labels = value.get("rectanglelabels") or []
    if result.get("type") != "rectanglelabels" or len(labels) != 1:
        raise BoxError(
            f"region {result.get('id')} has type {result.get('type')} and classes {labels}; "
            "expected a rectangle with one class",
            _REMEDY,
        )
    return Region(
        id=str(result.get("id")),
        box=from_percent(value, width, height),
        label=str(labels[0]),
        origin=_ORIGINS.get(str(result.get("origin")), "manual"),
        score=result.get("score"),
    )


def from_prompt(result: Mapping[str, Any], width: int, height: int) -> Region:
    """Region from the prompt of a smart tool: the frame, or a 2 x 2 px box around the click.

    Raises:
        BoxError: see ``from_result``.
    """
    if result.get("from_name") == FRAME:
        return from_result(result, width, height)
    value = result.get("value") or {}
    x, y = _number(value, "x") - 100 / width, _number(value, "y") - 100 / height
    box: Json = {"x": x, "y": y, "width": 200 / width, "height": 200 / height}
    box["rectanglelabels"] = value.get("keypointlabels")
    return from_result({**result, "type": "rectanglelabels", "value": box}, width, height)


def parse_regions(
    results: Iterable[Mapping[str, Any]], width: int, height: int, where: str
) -> tuple[Region, ...]:
    """All boxes in the results of an annotation or prediction.

    Image-level results (``controls.image_feedback``) and prompts of smart tools (``parse_prompts``) are not
    boxes. An invalid result is skipped with a warning.

    Args:
        width, height: of the image, in pixels.
        where: name of the task, for the warning.
    """
    boxes = (result for result in results if not is_image_feedback(result) and not is_smart_prompt(result))
    return _parse(boxes, from_result, width, height, where)


def parse_prompts(
    results: Iterable[Mapping[str, Any]], width: int, height: int, where: str
) -> tuple[Region, ...]:
    """All positive smart-tool prompts left in the results of an annotation; see ``parse_regions``."""
    prompts = (r for r in results if is_smart_prompt(r) and r.get("is_positive") is not False)
    return _parse(prompts, from_prompt, width, height, where)


def _parse(
    results: Iterable[Mapping[str, Any]],
    parse_result: Callable[[Mapping[str, Any], int, int], Region],
    width: int,
    height: int,
    where: str,
) -> tuple[Region, ...]:
    regions: dict[str, Region] = {}
    for result in results:
        try:
            region = parse_result(result, width, height)
        except BoxError as error:
            log.warning("%s: %s", where, error)
            continue
        regions[region.id] = region
    return tuple(regions.values())


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
