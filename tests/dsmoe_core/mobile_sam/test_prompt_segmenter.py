"""Clicks and boxes on an image become masks of that image."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from dsmoe_core.errors import BoxError, DataError
from dsmoe_core.mobile_sam.network import MobileSam
from dsmoe_core.mobile_sam.prompt_segmenter import PromptSegmenter, ResizeAndPad, box_of
from dsmoe_core.mobile_sam.weights import convert
from dsmoe_core.schema import Box
from tests.dsmoe_core.mobile_sam import restated
from tests.dsmoe_core.mobile_sam.original import Weights

SIDE = 128
sides = st.integers(1, 3000)


def image(seed: int, height: int = 60, width: int = 90) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


class Counting(PromptSegmenter):
    """Counts how often the encoder runs."""

    def __init__(self, network: MobileSam, remembered: int = 8) -> None:
        super().__init__(network, remembered)
        self.runs = 0
        network.neck.register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.runs += 1


@pytest.fixture(scope="module")
def weights(original: Weights) -> Weights:
    return convert(original)[0]


@pytest.fixture
def asked(weights: Weights) -> Counting:
    network = MobileSam(SIDE)
    network.load_state_dict(weights)
    return Counting(network)


@pytest.mark.parametrize(("height", "width"), [(60, 90), (301, 200), (128, 128)])
def test_it_is_the_original_from_image_to_mask(
    asked: PromptSegmenter, original: Weights, height: int, width: int
) -> None:
    """Scaling, padding, prompts in the square's pixels, and the way back, restated."""
    pixels, (x, y), box = image(1, height, width), (20.0, 30.0), Box(10.0, 5.0, 55.0, 50.0)
    found = asked.segment(pixels, points=[(x, y)], labels=[0], box=box)
    scale = SIDE / max(height, width)
    h, w = round(height * scale), round(width * scale)
    small = torch.from_numpy(np.array(Image.fromarray(pixels).resize((w, h), Image.Resampling.BILINEAR)))
    square = torch.zeros(1, 3, SIDE, SIDE)
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    square[0, :, :h, :w] = ((small.float() - mean) / std).movedim(-1, 0)
    sx, sy = w / width, h / height
    corners = (box.x1 * sx, box.y1 * sy, box.x2 * sx, box.y2 * sy)
    prompts = restated.run_prompts(original, SIDE, [(x * sx, y * sy, 0)], corners)
    masks, scores = restated.run_decoder(original, restated.run_encoder(original, square)[0], prompts)
    fine = F.interpolate(masks[None, :1], (SIDE, SIDE), mode="bilinear")[..., :h, :w]
    expected = (F.interpolate(fine, (height, width), mode="bilinear")[0] > 0).numpy()
    assert found.masks.shape == (1, height, width)
    assert 0.05 < expected.mean() < 0.95
    assert (found.masks == expected).mean() > 0.999
    np.testing.assert_allclose(found.scores, scores[:1].numpy(), atol=1e-4)


def test_a_lone_point_may_mean_three_things_best_first(asked: PromptSegmenter) -> None:
    found = asked.segment(image(1), points=[(45.0, 30.0)])
    assert found.masks.shape == (3, 60, 90)
    assert found.masks.dtype == bool
    assert list(found.scores) == sorted(found.scores, reverse=True)
    assert len({mask.tobytes() for mask in found.masks}) == 3
    for mask, box in zip(found.masks, found.boxes, strict=True):
        assert box == box_of(mask)


def test_more_than_a_point_means_one_thing(asked: PromptSegmenter) -> None:
    two = asked.segment(image(1), points=[(45.0, 30.0), (3.0, 3.0)], labels=[1, 0])
    boxed = asked.segment(image(1), points=[(45.0, 30.0)], box=Box(30.0, 20.0, 60.0, 45.0))
    assert len(two.masks) == len(boxed.masks) == 1


def test_labels_matter_and_are_inside_by_default(asked: PromptSegmenter) -> None:
    point = [(45.0, 30.0)]
    silent, inside, outside = (
        asked.segment(image(1), points=point, labels=labels).scores for labels in (None, [1], [0])
    )
    assert np.array_equal(silent, inside)
    assert not np.allclose(silent, outside)


def test_a_image_is_encoded_once(asked: Counting) -> None:
    first, second = image(1), image(2)
    before = asked.segment(first, points=[(4.0, 4.0)])
    asked.segment(first, box=Box(0.0, 0.0, 9.0, 9.0))
    asked.segment(first.copy(), points=[(50.0, 50.0)])
    assert asked.runs == 1
    asked.segment(second, points=[(4.0, 4.0)])
    assert asked.runs == 2
    again = asked.segment(first, points=[(4.0, 4.0)])
    assert asked.runs == 2
    assert np.array_equal(before.scores, again.scores)


def test_only_so_many_images_are_remembered(weights: Weights) -> None:
    network = MobileSam(SIDE)
    network.load_state_dict(weights)
    asked = Counting(network, remembered=2)
    for seed in (1, 2, 1, 3, 1, 2):  # 3 drives out 2, which was not asked for since
        asked.segment(image(seed), points=[(4.0, 4.0)])
    assert asked.runs == 4


def test_images_with_the_same_bytes_in_another_shape_are_others(asked: Counting) -> None:
    flat = image(1, 60, 90)
    asked.segment(flat, points=[(4.0, 4.0)])
    assert asked.segment(flat.reshape(90, 60, 3), points=[(4.0, 4.0)]).masks.shape == (3, 90, 60)
    assert asked.runs == 2


def test_threads_take_turns(asked: Counting) -> None:
    def ask(x: float) -> np.ndarray[Any, Any]:
        return asked.segment(image(1), points=[(x, 30.0)]).scores

    places = [10.0, 30.0, 50.0, 70.0]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(ask, places))
    assert asked.runs == 1
    for scores, x in zip(together, places, strict=True):
        np.testing.assert_allclose(scores, ask(x), atol=1e-6)


def test_it_loads_what_was_kept(kept_file: Path, asked: PromptSegmenter) -> None:
    loaded = PromptSegmenter.load(kept_file, SIDE)
    ours, theirs = (one.segment(image(1), points=[(45.0, 30.0)]) for one in (loaded, asked))
    assert np.array_equal(ours.scores, theirs.scores)


POINT = (4.0, 4.0)
REFUSED: list[tuple[dict[str, Any], type[DataError], str]] = [
    ({}, DataError, "Give a point or a box"),
    ({"points": [POINT], "labels": []}, DataError, "1 for each point"),
    ({"points": [POINT], "labels": [2]}, DataError, r"labels \[2\]"),
    ({"points": [(91.0, 4.0)]}, DataError, r"point \(91.0, 4.0\) is outside the image of 90 x 60"),
    ({"points": [(4.0, -0.5)]}, DataError, "outside the image"),
    ({"points": [(float("nan"), 4.0)]}, DataError, "outside the image"),
    ({"box": Box(0.0, 0.0, 120.0, 20.0)}, BoxError, "outside the image of 90 x 60"),
]


@pytest.mark.parametrize(("prompt", "error", "expected"), REFUSED)
def test_a_wrong_prompt_says_so_before_anything_is_computed(
    asked: Counting, prompt: dict[str, Any], error: type[DataError], expected: str
) -> None:
    with pytest.raises(error, match=expected):
        asked.segment(image(1), **prompt)
    assert asked.runs == 0


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_the_box_of_a_mask_holds_all_of_it_and_no_empty_edge(mask: np.ndarray[Any, Any]) -> None:
    box = box_of(mask)
    if box is None:
        assert not mask.any()
        return
    x1, y1, x2, y2 = map(int, box.corners)
    inner = mask[y1:y2, x1:x2]
    assert inner.sum() == mask.sum()
    assert all(edge.any() for edge in (inner[0], inner[-1], inner[:, 0], inner[:, -1]))


@given(sides, sides)
def test_long_side_fills_the_square(height: int, width: int) -> None:
    frame = ResizeAndPad.of(height, width, 1024)
    assert max(frame.inner_height, frame.inner_width) == 1024
    assert min(frame.inner_height, frame.inner_width) >= 1
    corner = frame.points_to_square(np.array([[float(width), float(height)]]))
    np.testing.assert_allclose(corner, [[frame.inner_width, frame.inner_height]])


@given(st.integers(200, 900), st.integers(200, 900), st.data())
def test_mask_of_the_square_is_mapped_to_the_image(height: int, width: int, data: st.DataObject) -> None:
    """Accurate to one cell of the mask grid, whose side is a quarter of the square."""
    side, grid = 256, 64
    frame = ResizeAndPad.of(height, width, side)
    columns, rows = frame.inner_width * grid // side, frame.inner_height * grid // side
    x1, y1 = (data.draw(st.integers(0, n - 3)) for n in (columns, rows))
    x2, y2 = (data.draw(st.integers(a + 2, n)) for a, n in ((x1, columns), (y1, rows)))
    logits = torch.full((1, grid, grid), -1.0)
    logits[0, y1:y2, x1:x2] = 1.0
    (mask,) = frame.masks_to_image(logits, side).numpy()
    box = box_of(mask)
    assert mask.shape == (height, width)
    assert box is not None
    cell = max(height, width) / grid
    np.testing.assert_allclose(box.corners, np.array([x1, y1, x2, y2]) * cell, atol=cell + 1)
