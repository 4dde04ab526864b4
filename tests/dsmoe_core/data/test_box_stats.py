"""Contrast and orientation of synthetic images for which both are known."""

from __future__ import annotations

from math import cos, radians, sin

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dsmoe_core.data.box_stats import Orientation, contrast, orientation
from dsmoe_core.schema import Box


def uniform(background: float = 100.0, px: int = 60) -> NDArray[np.float64]:
    return np.full((px, px), float(background))


def bar(angle: float, px: int = 60) -> NDArray[np.float64]:
    """A dark bar in the middle, 40 pixels long and 6 wide, at this angle to the horizontal in degrees."""
    y, x = np.mgrid[0:px, 0:px] - (px - 1) / 2
    along = x * cos(radians(angle)) + y * sin(radians(angle))
    across = -x * sin(radians(angle)) + y * cos(radians(angle))
    return np.where((np.abs(along) <= 20) & (np.abs(across) <= 3), 40.0, 120.0)


@given(
    background=st.integers(0, 255),
    inside=st.integers(0, 255),
    x=st.integers(0, 50),
    y=st.integers(0, 50),
    w=st.integers(1, 9),
    h=st.integers(1, 9),
)
def test_contrast_is_the_difference_of_grey_levels(
    background: int, inside: int, x: int, y: int, w: int, h: int
) -> None:
    grey = uniform(background)
    grey[y : y + h, x : x + w] = inside
    assert contrast(grey, Box(x, y, x + w, y + h)) == pytest.approx(inside - background)


def test_other_boxes_are_left_out_of_the_ring() -> None:
    grey = uniform()
    grey[20:30, 20:30] = 150
    grey[20:30, 31:40] = 0
    box, neighbour = Box(20, 20, 30, 30), Box(31, 20, 40, 30)
    without_others, with_others = contrast(grey, box), contrast(grey, box, [box, neighbour])
    assert without_others is not None
    assert without_others > 55
    assert with_others == pytest.approx(50)


def test_contrast_is_none_if_no_ring_is_left() -> None:
    assert contrast(uniform(), Box(0, 0, 60, 60)) is None
    assert contrast(uniform(), Box(10, 10, 20, 20), [Box(0, 0, 60, 60)]) is None


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
def test_orientation_of_a_bar(angle: float, expected: Orientation) -> None:
    assert orientation(bar(angle), Box(8, 8, 52, 52)) is expected


def test_orientation_is_measured_from_the_outline_in_a_tight_box() -> None:
    grey = uniform()
    grey[28:32, 10:50] = 20
    assert orientation(grey, Box(10, 28, 50, 32)) is Orientation.HORIZONTAL
    assert orientation(grey.T.copy(), Box(28, 10, 32, 50)) is Orientation.VERTICAL


@pytest.mark.parametrize("kind", ["flat", "square", "disc", "noise", "one pixel"])
def test_content_without_a_direction(kind: str) -> None:
    grey = uniform()
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
