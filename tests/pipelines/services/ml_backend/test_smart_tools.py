"""The box for a click or frame: from detections, from masks, and without a detection."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.studio.agreement import iou
from annotate.studio.ml_backend import Click, Prompt
from dsmoe_core.schema import Box, Detection
from pipelines.services.ml_backend.smart_tools import (
    MIN_FRAME_IOU,
    PromptResult,
    box_for_prompt,
    box_without_detector,
    magic_wand,
    tighten_with_mask,
)
from tests.pipelines.services.ml_backend.stubs import FakeMasks

WIDTH, HEIGHT = 200, 100


def detection(x1: float, y1: float, x2: float, y2: float, score: float, label: str = "open") -> Detection:
    other = "spur" if label == "open" else "open"
    return Detection(Box(x1, y1, x2, y2), label, score, {label: score, other: score / 2}, 0.1)


share = st.floats(0, 1)
corner = st.floats(0, 1, exclude_max=True)


@st.composite
def detections(draw: st.DrawFn) -> list[Detection]:
    def one() -> Detection:
        x1, y1 = draw(corner) * (WIDTH - 2), draw(corner) * (HEIGHT - 2)
        x2 = x1 + 1 + draw(share) * (WIDTH - x1 - 1)
        y2 = y1 + 1 + draw(share) * (HEIGHT - y1 - 1)
        return detection(x1, y1, x2, y2, draw(st.floats(0.01, 1)), draw(st.sampled_from(["open", "spur"])))

    return [one() for _ in range(draw(st.integers(0, 6)))]


@given(detections(), share, share, st.sampled_from(["open", "spur", None]))
def test_click_selects_a_box_around_it_or_none(
    candidates: list[Detection], x: float, y: float, label: str
) -> None:
    around = [f for f in candidates if f.box.x1 < x * WIDTH < f.box.x2 and f.box.y1 < y * HEIGHT < f.box.y2]
    got = box_for_prompt(candidates, Prompt((Click(x, y),), label=label), WIDTH, HEIGHT)
    assert (got is None) == (not around)
    if got is not None:
        (selected, *_) = [f for f in around if f.box == got.box and f.probabilities[got.label] == got.score]
        assert got.label == (label or selected.label)


@given(detections(), corner, corner, share, share)
def test_frame_selects_an_overlapping_box_or_none(
    candidates: list[Detection], left: float, top: float, w: float, h: float
) -> None:
    frame = (left, top, left + (1 - left) * w, top + (1 - top) * h)
    if frame[0] >= frame[2] or frame[1] >= frame[3]:
        return
    frame_box = Box(frame[0] * WIDTH, frame[1] * HEIGHT, frame[2] * WIDTH, frame[3] * HEIGHT)
    got = box_for_prompt(candidates, Prompt(frame=frame), WIDTH, HEIGHT)
    overlaps = [iou(f.box, frame_box) for f in candidates]
    assert (got is None) == all(overlap < MIN_FRAME_IOU for overlap in overlaps)
    assert got is None or iou(got.box, frame_box) >= MIN_FRAME_IOU


def test_click_selects_the_box_with_the_nearest_centre() -> None:
    large, small = detection(0, 0, 190, 90, 0.8), detection(20, 20, 40, 40, 0.4)
    got = box_for_prompt([large, small], Prompt((Click(0.15, 0.3),)), WIDTH, HEIGHT)
    assert got is not None
    assert got.box == small.box
    got = box_for_prompt([large, small], Prompt((Click(0.475, 0.45),)), WIDTH, HEIGHT)
    assert got is not None
    assert got.box == large.box


def test_negative_click_excludes_boxes_around_it() -> None:
    large, small = detection(0, 0, 190, 90, 0.9), detection(20, 20, 40, 40, 0.1)
    prompt = Prompt((Click(0.15, 0.3), Click(0.8, 0.5, positive=False)))
    got = box_for_prompt([large, small], prompt, WIDTH, HEIGHT)
    assert got is not None
    assert got.box == small.box
    assert box_for_prompt([large], Prompt((Click(0.15, 0.3, positive=False),)), WIDTH, HEIGHT) is None


def test_empty_prompt_selects_nothing() -> None:
    assert box_for_prompt([detection(0, 0, 9, 9, 0.9)], Prompt(label="open"), WIDTH, HEIGHT) is None
    assert box_without_detector(np.zeros((9, 9, 3), np.uint8), Prompt(label="open")) is None


def plate(*blocks: tuple[int, int, int, int], noise: float = 0.0) -> np.ndarray[Any, Any]:
    """A grey image with light blocks."""
    pixels = np.full((HEIGHT, WIDTH, 3), 90.0)
    for x1, y1, x2, y2 in blocks:
        pixels[y1:y2, x1:x2] = (200, 190, 120)
    pixels += np.random.default_rng(1).normal(0, noise, pixels.shape)
    return pixels.clip(0, 255).astype(np.uint8)


@given(st.integers(2, 150), st.integers(2, 60), st.integers(3, 30), st.integers(3, 30))
def test_magic_wand_outlines_the_clicked_block_only(x: int, y: int, w: int, h: int) -> None:
    block = (x, y, x + w, y + h)
    neighbour = (x + w + 3, 2, x + w + 9, 8)
    pixels = plate(block, neighbour)
    box = magic_wand(pixels, Click((x + w / 2) / WIDTH, (y + h / 2) / HEIGHT))
    assert box is not None
    assert box.corners == pytest.approx(tuple(map(float, block)), abs=1)


def test_magic_wand_tolerates_noise_and_ignores_background() -> None:
    pixels = plate((60, 30, 90, 50), noise=10)
    box = magic_wand(pixels, Click(0.375, 0.4))
    assert box is not None
    assert iou(box, Box(60, 30, 90, 50)) > 0.8
    assert magic_wand(plate(), Click(0.5, 0.5)) is None
    assert magic_wand(plate((60, 30, 90, 50)), Click(0.1, 0.1)) is None
    assert magic_wand(plate(noise=5), Click(0.5, 0.5)) is None
    assert magic_wand(np.zeros((1, 1, 3), np.uint8), Click(1, 1)) is None


def test_without_detection_the_frame_is_the_box_if_the_tool_has_a_class() -> None:
    prompt = Prompt(frame=(0.1, 0.2, 0.3, 0.4), label="open")
    got = box_without_detector(plate(), prompt)
    assert got is not None
    assert got.box.corners == pytest.approx((20, 20, 60, 40))
    assert (got.label, got.score) == ("open", None)
    assert box_without_detector(plate(), Prompt(frame=prompt.frame)) is None


def test_mask_tightens_the_box_unless_it_covers_something_else() -> None:
    result = PromptResult(Box(20, 20, 60, 60), "open", 0.7, "open 70%")
    prompt = Prompt((Click(0.2, 0.4), Click(0.9, 0.9, positive=False)), label="open")
    tight = FakeMasks(WIDTH, HEIGHT, (24, 22, 58, 59))
    got = tighten_with_mask(result, plate(), prompt, tight)  # type: ignore[arg-type]
    assert got == result._replace(box=Box(24, 22, 58, 59))
    assert tight.last_prompt == {"points": [(40, 40), (180, 90)], "labels": [1, 0], "box": result.box}
    for other in ((100, 20, 140, 60), (0, 0, 200, 100), (30, 30, 30, 30)):
        assert tighten_with_mask(result, plate(), prompt, FakeMasks(WIDTH, HEIGHT, other)) == result  # type: ignore[arg-type]


def test_without_detection_the_best_mask_smaller_than_the_limit_is_taken() -> None:
    prompt = Prompt((Click(0.2, 0.4),), label="open")
    masks = FakeMasks(WIDTH, HEIGHT, (0, 0, 200, 90), (10, 10, 10, 10), (30, 30, 50, 50), (38, 38, 42, 42))
    got = tighten_with_mask(None, plate(), prompt, masks)  # type: ignore[arg-type]
    assert got is not None
    assert (got.box, got.label, got.score) == (Box(30, 30, 50, 50), "open", None)
    assert tighten_with_mask(None, plate(), Prompt((Click(0.2, 0.4),)), masks) is None  # type: ignore[arg-type]
    assert tighten_with_mask(None, plate(), prompt, FakeMasks(WIDTH, HEIGHT, (0, 0, 200, 90))) is None  # type: ignore[arg-type]
