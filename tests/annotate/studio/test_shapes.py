"""Tests of the boxes of Label Studio's region shapes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk.converter.brush import encode_rle

from annotate.studio.shapes import RegionError, outline
from dsmoe_core.data.import_account import Conversion, Reason
from dsmoe_core.schema import Box

WIDTH, HEIGHT = 200, 100
PERCENT = st.floats(-20, 120)


def region(kind: str, **value: Any) -> dict[str, Any]:
    return {"id": "r", "type": kind, "value": value}


def brush(mask: np.ndarray) -> dict[str, Any]:
    """A brush region as the labelling interface writes it."""
    rgba = np.repeat(mask[..., None].astype(np.uint8) * 255, 4, axis=2)
    return region("brushlabels", format="rle", rle=encode_rle(rgba.ravel()), brushlabels=["a"])


def mask(*parts: tuple[int, int, int, int]) -> np.ndarray:
    """Mask of rectangles (x1, y1, x2, y2)."""
    painted = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for x1, y1, x2, y2 in parts:
        painted[y1:y2, x1:x2] = True
    return painted


RECTANGLE = {"x": 10, "y": 20, "width": 30, "height": 40}
TRIANGLE = [[10, 20], [40, 20], [25, 60]]
SHAPES = [
    (region("rectanglelabels", **RECTANGLE), (20, 20, 80, 60), None),
    (region("rectangle", **RECTANGLE), (20, 20, 80, 60), None),
    (region("labels", **RECTANGLE), (20, 20, 80, 60), None),
    (region("rectanglelabels", x=40, y=60, width=-30, height=-40), (20, 20, 80, 60), Conversion.TURNED),
    (region("rectanglelabels", x=40, y=20, width=-30, height=40), (20, 20, 80, 60), Conversion.TURNED),
    (
        region("rectanglelabels", x=50, y=25, width=20, height=10, rotation=90),
        (90, 25, 100, 65),
        Conversion.ROTATED,
    ),
    (
        region("rectanglelabels", x=50, y=25, width=-20, height=-10, rotation=180),
        (100, 25, 140, 35),
        Conversion.ROTATED,
    ),
    (region("ellipselabels", x=50, y=50, radiusX=10, radiusY=20), (80, 30, 120, 70), Conversion.ELLIPSE),
    (
        region("ellipselabels", x=50, y=50, radiusX=10, radiusY=5, rotation=90),
        (95, 30, 105, 70),
        Conversion.ELLIPSE,
    ),
    (region("ellipse", x=50, y=50, radiusX=-10, radiusY=20), (80, 30, 120, 70), Conversion.ELLIPSE),
    (region("polygonlabels", points=TRIANGLE, closed=True), (20, 20, 80, 60), Conversion.POLYGON),
    (region("polygon", points=TRIANGLE), (20, 20, 80, 60), Conversion.POLYGON),
    (region("labels", points=TRIANGLE), (20, 20, 80, 60), Conversion.POLYGON),
    (brush(mask((20, 20, 80, 60))), (20, 20, 80, 60), Conversion.MASK),
    (brush(mask((20, 20, 50, 60), (49, 59, 80, 60))), (20, 20, 80, 60), Conversion.MASK),
]


@pytest.mark.parametrize(("result", "corners", "conversion"), SHAPES)
def test_shape_has_its_box(
    result: dict[str, Any], corners: tuple[float, ...], conversion: Conversion | None
) -> None:
    around = outline(result, WIDTH, HEIGHT)
    assert around.box(WIDTH, HEIGHT).corners == pytest.approx(corners)
    assert around.conversion is conversion


LEFT_OUT = [
    (region("rectanglelabels", **(RECTANGLE | {"width": 0})), Reason.NO_AREA),
    (region("rectanglelabels", **(RECTANGLE | {"width": 0, "rotation": 45})), Reason.NO_AREA),
    (region("rectanglelabels", **(RECTANGLE | {"height": 1e-9})), Reason.NO_AREA),
    (region("rectanglelabels", **(RECTANGLE | {"x": 120})), Reason.OUTSIDE_IMAGE),
    (region("rectanglelabels", **(RECTANGLE | {"x": -30})), Reason.OUTSIDE_IMAGE),
    (region("rectanglelabels", **(RECTANGLE | {"x": math.nan})), Reason.NOT_FINITE),
    (region("rectanglelabels", **(RECTANGLE | {"y": math.inf})), Reason.NOT_FINITE),
    (region("rectanglelabels", **(RECTANGLE | {"x": None})), Reason.NOT_NUMBERS),
    (region("rectanglelabels", **(RECTANGLE | {"width": "5"})), Reason.NOT_NUMBERS),
    (region("rectanglelabels", **(RECTANGLE | {"width": True})), Reason.NOT_NUMBERS),
    (region("rectanglelabels", **(RECTANGLE | {"rotation": "90"})), Reason.NOT_NUMBERS),
    (region("rectanglelabels", x=1, width=5, height=5), Reason.NOT_NUMBERS),
    (region("ellipselabels", x=50, y=50, radiusX=0, radiusY=5), Reason.NO_AREA),
    (region("ellipselabels", x=50, y=50, radiusX=5), Reason.NOT_NUMBERS),
    (region("polygonlabels", points=TRIANGLE[:2]), Reason.NO_AREA),
    (region("polygonlabels", points=[[10, 20]] * 3), Reason.NO_AREA),
    (region("polygonlabels", points=[[10, 20], [20, 20], [30, 20]]), Reason.NO_AREA),
    (region("polygonlabels", points=TRIANGLE, closed=False), Reason.NOT_CLOSED),
    (region("polygonlabels", points=[[1, 2, 3]]), Reason.NOT_NUMBERS),
    (region("polygonlabels", points=[["1", 2], [3, 4], [5, 1]]), Reason.NOT_NUMBERS),
    (region("polygonlabels"), Reason.NOT_NUMBERS),
    (brush(mask()), Reason.NO_AREA),
    (brush(mask((20, 20, 40, 40), (60, 20, 80, 40))), Reason.SEVERAL_PARTS),
    (brush(np.ones((5, 5), dtype=bool)), Reason.WRONG_MASK),
    (region("brushlabels", rle=[0, 0, 3]), Reason.WRONG_MASK),
    (region("brushlabels", rle=[255, 255, 255, 255, 0]), Reason.WRONG_MASK),
    (region("brushlabels", rle=["a"]), Reason.WRONG_MASK),
    (region("brushlabels"), Reason.WRONG_MASK),
    (region("keypointlabels", x=50, y=50, width=1), Reason.NO_BOX),
    (region("vectorlabels", vertices=[]), Reason.NO_BOX),
    (region("labels"), Reason.NO_BOX),
    ({"id": "r", "type": "rectanglelabels", "value": None}, Reason.NOT_AN_ENTRY),
    ({"id": "r", "type": ["rectangle"], "value": [1, 2]}, Reason.NOT_AN_ENTRY),
]


@pytest.mark.parametrize(("result", "reason"), LEFT_OUT)
def test_region_without_a_box_is_refused_with_its_reason(result: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(RegionError) as caught:
        outline(result, WIDTH, HEIGHT).box(WIDTH, HEIGHT)
    assert caught.value.reason is reason


def test_damaged_mask_of_the_right_size_is_refused() -> None:
    whole = brush(mask((20, 20, 80, 60)))
    whole["value"]["rle"] = whole["value"]["rle"][:9]
    with pytest.raises(RegionError) as caught:
        outline(whole, WIDTH, HEIGHT)
    assert caught.value.reason is Reason.WRONG_MASK


@given(PERCENT, PERCENT, st.floats(-50, 50), st.floats(-50, 50), st.floats(-360, 360))
def test_every_rectangle_has_a_box_inside_its_image_or_a_reason(
    x: float, y: float, width: float, height: float, rotation: float
) -> None:
    result = region("rectanglelabels", x=x, y=y, width=width, height=height, rotation=rotation)
    found: Box | Reason
    try:
        found = outline(result, WIDTH, HEIGHT).box(WIDTH, HEIGHT)
    except RegionError as error:
        found = error.reason
    inside = isinstance(found, Box) and found.inside(WIDTH, HEIGHT, tolerance=0.0)
    assert inside or found in (Reason.NO_AREA, Reason.OUTSIDE_IMAGE)
