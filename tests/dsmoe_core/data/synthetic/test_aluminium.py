"""Drawn aluminium: a defect's box is where it changed the foil, and each class looks like itself."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dsmoe_core.data.synthetic.aluminium_defects import CLASSES, add_defect
from dsmoe_core.data.synthetic.rendering import FloatImage
from dsmoe_core.schema import Annotation, Box

PX = 200
Mask = NDArray[np.bool_]


def lid() -> tuple[FloatImage, FloatImage]:
    """An even grey foil and where it is: a disc."""
    y, x = np.mgrid[:PX, :PX]
    metal = (np.hypot(x - PX / 2, y - PX / 2) < 0.45 * PX).astype(np.float32)
    return np.full((PX, PX), 120, np.float32), metal


def made(name: str, count: int = 12) -> list[tuple[FloatImage, Box]]:
    """What a defect of a class did to the brightness of an even foil, and its box."""
    found = []
    for seed in range(count):
        foil, metal = lid()
        after, annotation = add_defect(name, foil, metal, [], np.random.default_rng(seed))
        assert annotation is not None
        assert annotation.label == name
        found.append((after - foil, annotation.box))
    return found


@pytest.mark.parametrize("name", CLASSES)
def test_the_box_is_that_of_what_is_seen(name: str) -> None:
    for change, box in made(name):
        rows, columns = np.nonzero(np.abs(change) > 10)
        seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert np.abs(np.array(box.corners) - seen).max() < 2.0  # the margin, and values cut off at black


@pytest.mark.parametrize("name", CLASSES)
def test_nothing_changes_beyond_the_foil(name: str) -> None:
    beyond = lid()[1] == 0
    assert all((change[beyond] == 0).all() for change, _ in made(name))


def test_a_pinhole_is_a_small_dark_dot() -> None:
    for change, box in made("zhen_kong"):
        assert max(box.width, box.height) < 0.05 * PX
        assert box.width < 2 * box.height < 4 * box.width
        middle = change[int((box.y1 + box.y2) / 2), int((box.x1 + box.x2) / 2)]
        assert middle < -60


def test_a_scratch_is_long_and_covers_little_of_its_box() -> None:
    for change, box in made("ca_shang"):
        seen = np.abs(change) > 10
        assert np.hypot(box.width, box.height) > 0.05 * PX
        assert seen.sum() < 0.06 * PX * np.hypot(box.width, box.height)


def test_contamination_only_darkens_and_fills_its_box() -> None:
    for change, box in made("zang_wu"):
        assert (change < -10).sum() > 0.3 * box.area
        assert change.max() < 60  # cracks in a black scab shine less than the foil did


def test_a_crease_has_a_bright_flank_beside_a_dark_one() -> None:
    for change, _ in made("zhe_zhou"):
        brighter, darker = (change > 10).sum(), (change < -10).sum()
        assert min(brighter, darker) > 0.1 * max(brighter, darker)


def test_a_defect_keeps_away_from_earlier_ones() -> None:
    foil, metal = lid()
    all_of_it = [Annotation(Box(0, 0, PX, PX), "ca_shang")]
    after, added = add_defect("zhen_kong", foil, metal, all_of_it, np.random.default_rng(0))
    assert added is None
    assert after is foil


def test_no_foil_no_defect() -> None:
    foil, metal = lid()
    assert add_defect("zhen_kong", foil, metal * 0, [], np.random.default_rng(0))[1] is None
