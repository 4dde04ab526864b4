"""Drawn images whose contrast and direction are known."""

from __future__ import annotations

from math import cos, radians, sin

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dsmoe_core.data.box_stats import Orientation, contrast, orientation
from dsmoe_core.schema import Box


def plate(ground: float = 100.0, px: int = 60) -> NDArray[np.float64]:
    return np.full((px, px), float(ground))


def bar(angle: float, px: int = 60) -> NDArray[np.float64]:
    """A dark bar 40 long and 6 wide through the middle, at this angle to the horizontal."""
    y, x = np.mgrid[0:px, 0:px] - (px - 1) / 2
    along = x * cos(radians(angle)) + y * sin(radians(angle))
    across = -x * sin(radians(angle)) + y * cos(radians(angle))
    return np.where((np.abs(along) <= 20) & (np.abs(across) <= 3), 40.0, 120.0)


@given(
    ground=st.integers(0, 255),
    inside=st.integers(0, 255),
    x=st.integers(0, 50),
    y=st.integers(0, 50),
    w=st.integers(1, 9),
    h=st.integers(1, 9),
)
def test_contrast_is_the_difference_wherever_the_box_lies(
    ground: int, inside: int, x: int, y: int, w: int, h: int
) -> None:
    grey = plate(ground)
    grey[y : y + h, x : x + w] = inside
    assert contrast(grey, Box(x, y, x + w, y + h)) == pytest.approx(inside - ground)


def test_what_is_in_other_boxes_does_not_belong_to_the_ring() -> None:
    grey = plate()
    grey[20:30, 20:30] = 150
    grey[20:30, 31:40] = 0
    box, neighbour = Box(20, 20, 30, 30), Box(31, 20, 40, 30)
    alone, known = contrast(grey, box), contrast(grey, box, [box, neighbour])
    assert alone is not None
    assert alone > 55
    assert known == pytest.approx(50)


def test_a_box_that_fills_its_image_has_no_contrast() -> None:
    assert contrast(plate(), Box(0, 0, 60, 60)) is None
    assert contrast(plate(), Box(10, 10, 20, 20), [Box(0, 0, 60, 60)]) is None


@pytest.mark.parametrize(
    ("angle", "expected"),
    [
        (0, Orientation.HORIZONTAL),
        (10, Orientation.HORIZONTAL),
        (170, Orientation.HORIZONTAL),
        (90, Orientation.VERTICAL),
        (80, Orientation.VERTICAL),
        (45, Orientation.OBLIQUE),
        (135, Orientation.OBLIQUE),
    ],
)
def test_a_bar_runs_as_it_was_drawn(angle: float, expected: Orientation) -> None:
    assert orientation(bar(angle), Box(8, 8, 52, 52)) is expected


def test_a_tight_box_sees_the_outline_of_what_is_inside() -> None:
    grey = plate()
    grey[28:32, 10:50] = 20
    assert orientation(grey, Box(10, 28, 50, 32)) is Orientation.HORIZONTAL
    assert orientation(grey.T.copy(), Box(28, 10, 32, 50)) is Orientation.VERTICAL


@pytest.mark.parametrize("kind", ["flat", "square", "disc", "noise", "one pixel"])
def test_what_has_no_direction_says_so(kind: str) -> None:
    grey = plate()
    if kind == "square":
        grey[20:40, 20:40] = 0
    if kind == "disc":
        y, x = np.mgrid[0:60, 0:60] - 29.5
        grey[x**2 + y**2 < 100] = 0
    if kind == "noise":
        grey = np.random.default_rng(1).uniform(0, 255, (60, 60))
    if kind == "one pixel":
        grey = np.array([[5.0]])
    assert orientation(grey, Box(18, 18, 42, 42)) is Orientation.NONE
