"""Router weights at the true boxes of images that are cut into tiles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from dsmoe_core.config import Tiles
from dsmoe_core.knockout.routing import measure_specialisation
from dsmoe_core.predict import Detector
from dsmoe_core.schema import Annotation, Box, ImageRecord, LabelledImage


class RouterByTile(Detector):
    """A detector whose router gives expert 0 on the left tile of an image and expert 1 on every other."""

    def __init__(self, tiles: Tiles | None) -> None:
        self.model = cast(Any, SimpleNamespace(config=SimpleNamespace(tiles=tiles)))
        self.views: list[str] = []

    def weights_at(
        self, boxes: Iterable[tuple[ImageRecord, Sequence[Box]]], *, batch: int = 8
    ) -> Iterator[np.ndarray[Any, Any]]:
        for view, of_view in boxes:
            self.views.append(view.key)
            left = view.region is not None and view.region[0] == 0
            yield np.tile([1.0, 0.0] if left else [0.0, 1.0], (len(of_view), 1))


def board(key: str, *places: tuple[str, float]) -> LabelledImage:
    record = ImageRecord(key, f"{key}.png", Path("none.png"), 200, 100)
    return LabelledImage(record, tuple(Annotation(Box(x, 10, x + 10, 20), label) for label, x in places))


TRUTH = [board("a", ("right", 150), ("left", 5), ("right", 170)), board("b"), board("c", ("left", 20))]


def test_boxes_are_routed_on_their_tiles() -> None:
    detector = RouterByTile(Tiles(px=100, overlap=0.0))
    found = measure_specialisation(detector, TRUTH, ["left", "right"], permutations=20)
    assert found is not None
    assert found.weights.tolist() == [[1, 0], [0, 1]]
    assert found.by_class.share == pytest.approx(1.0)
    assert len(detector.views) == len(set(detector.views)) == 3  # one forward pass a tile


def test_boxes_of_a_model_without_tiles_are_routed_on_the_whole_image() -> None:
    detector = RouterByTile(None)
    found = measure_specialisation(detector, TRUTH, ["left", "right"], permutations=20)
    assert found is not None
    assert found.weights.tolist() == [[0, 1], [0, 1]]
    assert detector.views == ["a", "c"]


def test_images_without_boxes_have_no_specialisation() -> None:
    assert measure_specialisation(RouterByTile(None), [board("b")], ["left"]) is None
