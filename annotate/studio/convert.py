"""Between our boxes (pixels, corners) and Label Studio's results (percent, corner and size, any rotation)."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from math import cos, radians, sin
from typing import Any

from annotate.studio.controls import CONTROL, FRAME, OBJECT, is_image_feedback, is_smart_prompt
from annotate.studio.protocol import Region
from dsmoe_core.errors import BoxError
from dsmoe_core.schema import Box, Detection, Prediction

Json = dict[str, Any]  # what Label Studio sends and takes

log = logging.getLogger(__name__)

_ORIGINS = {"manual": "manual", "prediction": "prediction", "prediction-changed": "prediction-changed"}


def to_percent(box: Box, width: int, height: int) -> Json:
    """Top-left corner and size in percent of the image, each 0 to 100.

    Raises:
        BoxError: the box lies outside an image of this size by more than a pixel.
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
    """The pixels of a percent box, cut at the image's edges.

    A rotated box (Label Studio turns it clockwise about its top-left corner) becomes the upright box
    around it: other tools than our page can send one.

    Raises:
        BoxError: nothing of it is inside the image, it has no area, or a part is missing or no number.
    """
    left, top = _number(value, "x") * width / 100, _number(value, "y") * height / 100
    w, h = _number(value, "width") * width / 100, _number(value, "height") * height / 100
    turn = radians(_number(value, "rotation") if value.get("rotation") else 0)
    if turn == 0:
        return Box(left, top, left + w, top + h).clipped(width, height)
    corners = [
        (dx * cos(turn) - dy * sin(turn), dx * sin(turn) + dy * cos(turn)) for dx in (0, w) for dy in (0, h)
    ]
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    return Box(left + min(xs), top + min(ys), left + max(xs), top + max(ys)).clipped(width, height)


def _number(value: Mapping[str, Any], name: str) -> float:
    """A part of a value: the server stores whatever another program sends.

    Raises:
        BoxError: it is missing, or no number.
    """
    number = value.get(name)
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise BoxError(
            f"a region's {name} is {number!r}; expected a number", "Correct or remove it in Label Studio."
        )
    return number


def to_result(region: Region, width: int, height: int, why: str | None = None) -> Json:
    """A region as Label Studio stores it.

    Args:
        why: shown beside the region on the page.

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
    if why:
        result["meta"] = {"text": [why]}
    return result


def from_result(result: Mapping[str, Any], width: int, height: int) -> Region:
    """A region from what Label Studio stores.

    Raises:
        BoxError: it has no area inside the image, or is no rectangle with exactly one class.
    """
    value = result.get("value") or {}
    labels = value.get("rectanglelabels") or []
    if result.get("type") != "rectanglelabels" or len(labels) != 1:
        raise BoxError(
            f"region {result.get('id')} is a {result.get('type')} with classes {labels}; "
            "expected a rectangle with one class",
            "Correct or remove it in Label Studio.",
        )
    origin = _ORIGINS.get(str(result.get("origin")), "manual")
    return Region(
        id=str(result.get("id")),
        box=from_percent(value, width, height),
        label=str(labels[0]),
        origin=origin,  # type: ignore[arg-type]  # the table holds the literals only
        score=result.get("score"),
    )


def from_prompt(result: Mapping[str, Any], width: int, height: int) -> Region:
    """What a smart tool was pointed at: a frame as it was drawn, a click as a box of two pixels around it.

    Raises:
        BoxError: see from_result.
    """
    if result.get("from_name") == FRAME:
        return from_result(result, width, height)
    value = result.get("value") or {}
    x, y = _number(value, "x") - 100 / width, _number(value, "y") - 100 / height
    dot = {"x": x, "y": y, "width": 200 / width, "height": 200 / height}
    box = {**dot, "rectanglelabels": value.get("keypointlabels")}
    return from_result({**result, "type": "rectanglelabels", "value": box}, width, height)


def parse_regions(
    results: Iterable[Mapping[str, Any]], width: int, height: int, where: str
) -> tuple[Region, ...]:
    """All boxes of a list of results; one that cannot be read is left out, with a warning that names it.

    What is said about the image as a whole is no box (see controls.remark), nor is what a smart tool was
    pointed at (see parse_prompts).
    """
    boxes = (result for result in results if not is_image_feedback(result) and not is_smart_prompt(result))
    return _readable(boxes, from_result, width, height, where)


def parse_prompts(
    results: Iterable[Mapping[str, Any]], width: int, height: int, where: str
) -> tuple[Region, ...]:
    """All that smart tools were pointed at and that is still there; else like parse_regions."""
    meant = (
        result for result in results if is_smart_prompt(result) and result.get("is_positive") is not False
    )
    return _readable(meant, from_prompt, width, height, where)


def _readable(
    results: Iterable[Mapping[str, Any]],
    read: Callable[[Mapping[str, Any], int, int], Region],
    width: int,
    height: int,
    where: str,
) -> tuple[Region, ...]:
    regions: dict[str, Region] = {}
    for result in results:
        try:
            region = read(result, width, height)
        except BoxError as error:
            log.warning("%s: %s", where, error)
            continue
        regions[region.id] = region
    return tuple(regions.values())


def pre_annotations(detections: Prediction) -> tuple[tuple[Region, str], ...]:
    """Every detection as a region with the reason to show beside it.

    A region's id depends on image, version and place in the list alone: sent again, it is the same.
    """
    return tuple(
        (
            Region(
                id=hashlib.sha256(f"{detections.version}/{detections.key}/{i}".encode()).hexdigest()[:10],
                box=detection.box,
                label=detection.label,
                origin="prediction",
                score=min(max(detection.score, 0.0), 1.0),
            ),
            _why(detection),
        )
        for i, detection in enumerate(detections.detections)
    )


def _why(detection: Detection) -> str:
    """The score, the runner-up, and what the detector is unsure of, if anything."""
    other, score = detection.second_best, detection.score
    but = f", or {other[0]} {other[1]:.0%}" if other and other[1] >= 0.01 else ""
    doubts = []
    if other and other[1] >= score / 2:
        doubts.append("unsure which class")
    if score < 0.5:
        doubts.append("unsure whether it is a defect")
    return f"{detection.label} {score:.0%}{but}" + (f": {' and '.join(doubts)}" if doubts else "")
