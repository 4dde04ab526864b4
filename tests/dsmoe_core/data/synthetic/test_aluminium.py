"""Synthetic aluminium: boxes are at the changed pixels, and each class has its own appearance."""

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
    """A uniform grey foil, and its coverage: a disc."""
    y, x = np.mgrid[:PX, :PX]
    metal = (np.hypot(x - PX / 2, y - PX / 2) < 0.45 * PX).astype(np.float32)
    return np.full((PX, PX), 120, np.float32), metal


def rendered_defects(name: str, count: int = 12) -> list[tuple[FloatImage, Box]]:
    """Changes of the grey levels of a uniform foil by defects of a class, and their boxes."""
    defects = []
    for seed in range(count):
        foil, metal = lid()
        after, annotation = add_defect(name, foil, metal, [], np.random.default_rng(seed))
        assert annotation is not None
        assert annotation.label == name
        defects.append((after - foil, annotation.box))
    return defects


@pytest.mark.parametrize("name", CLASSES)
def test_box_is_at_the_visible_change(name: str) -> None:
    for change, box in rendered_defects(name):
        rows, columns = np.nonzero(np.abs(change) > 10)
        visible = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert np.abs(np.array(box.corners) - visible).max() < 2.0  # margin, and values clipped at black


@pytest.mark.parametrize("name", CLASSES)
def test_pixels_outside_the_foil_do_not_change(name: str) -> None:
    outside = lid()[1] == 0
    assert all((change[outside] == 0).all() for change, _ in rendered_defects(name))


def test_pinhole_is_a_small_dark_dot() -> None:
    for change, box in rendered_defects("zhen_kong"):
        assert max(box.width, box.height) < 0.05 * PX
        assert box.width < 2 * box.height < 4 * box.width
        middle = change[int((box.y1 + box.y2) / 2), int((box.x1 + box.x2) / 2)]
        assert middle < -60


def test_scratch_is_long_and_covers_little_of_its_box() -> None:
    for change, box in rendered_defects("ca_shang"):
        visible = np.abs(change) > 10
        assert np.hypot(box.width, box.height) > 0.05 * PX
        assert visible.sum() < 0.06 * PX * np.hypot(box.width, box.height)


def test_contamination_darkens_and_fills_its_box() -> None:
    for change, box in rendered_defects("zang_wu"):
        assert (change < -10).sum() > 0.3 * box.area
        assert change.max() < 60  # cracks in a deposit are darker than the foil


def test_crease_has_a_bright_and_a_dark_flank() -> None:
    for change, _ in rendered_defects("zhe_zhou"):
        brighter, darker = (change > 10).sum(), (change < -10).sum()
        assert min(brighter, darker) > 0.1 * max(brighter, darker)


def test_defect_does_not_overlap_earlier_ones() -> None:
    foil, metal = lid()
    earlier = [Annotation(Box(0, 0, PX, PX), "ca_shang")]
    after, added = add_defect("zhen_kong", foil, metal, earlier, np.random.default_rng(0))
    assert added is None
    assert after is foil


def test_no_defect_without_foil() -> None:
    foil, metal = lid()
    assert add_defect("zhen_kong", foil, metal * 0, [], np.random.default_rng(0))[1] is None
