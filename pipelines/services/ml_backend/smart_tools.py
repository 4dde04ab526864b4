"""Which of the detector's boxes is meant by a click or a frame, and what to say where it has none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from annotate.studio.agreement import iou
from annotate.studio.ml_backend import Click, Prompt
from dsmoe_core.schema import Box, Detection

if TYPE_CHECKING:
    from dsmoe_core.mobile_sam.prompt_segmenter import PromptSegmenter

MIN_OVERLAP = 0.1
"""IoU of a drawn frame and a box below which they are not about the same thing."""
SAME = 0.5
"""IoU of the detector's box and a mask's from which on the mask is taken for the same thing."""
LARGEST = 0.25
"""Share of the image above which a mask at a click is the background or the whole part, and no defect."""
WINDOW = 0.25
"""The wand looks at this share of the image's longer side to each side of the click."""
_WAND_PX = 160  # the window is thinned out to about this many pixels a side: a wand needs no more
_LEAST_CONTRAST = 12.0  # of 255, as the root mean square over the channels: less is grain

Pixels = NDArray[np.uint8]


class PromptResult(NamedTuple):
    """What is meant, with the reason to show beside it; no score where no detector said it."""

    box: Box
    label: str
    score: float | None
    why: str


def box_for_prompt(
    detections: Iterable[Detection], prompt: Prompt, width: int, height: int
) -> PromptResult | None:
    """The detector's best box for a prompt; None where it has none there.

    A click takes the box with the highest product of probability and centre-ness (FCOS, arXiv:1904.01355,
    equation 3) among those around the last click: people click on the middle of what they mean, so a small
    box wins over the large one it lies in. A frame takes the highest product of probability and IoU. The
    probability is that of the tool's class; where the tool has none, of the box's own.
    """
    frame = prompt.box(width, height)
    positive = [c for c in prompt.clicks if c.positive]
    if frame is None and not positive:
        return None
    best, best_rank = None, 0.0
    for detection in detections:
        label = prompt.label or detection.label
        score = detection.probabilities.get(label, 0.0)
        if frame is not None:
            overlap = iou(detection.box, frame)
            fit = overlap if overlap >= MIN_OVERLAP else 0.0
        elif any(_centreness(detection.box, c, width, height) > 0 for c in prompt.clicks if not c.positive):
            continue
        else:
            fit = _centreness(detection.box, positive[-1], width, height)
        if score * fit > best_rank:
            best, best_rank = PromptResult(detection.box, label, score, f"{label} {score:.0%}"), score * fit
    return best


def tighten_with_mask(
    pointed: PromptResult | None, pixels: Pixels, prompt: Prompt, masks: PromptSegmenter
) -> PromptResult | None:
    """The same with the tight box of MobileSAM's mask.

    Where the detector has a box, it is the prompt: the mask may make it tighter, but never another thing.
    Where it has none, the best mask at the prompt counts, if the tool has a class and the mask is no
    background.
    """
    height, width = pixels.shape[:2]
    points = [(c.x * width, c.y * height) for c in prompt.clicks]
    signs = [int(c.positive) for c in prompt.clicks]
    frame = prompt.box(width, height)
    if pointed is not None:
        (box,) = masks.segment(pixels, points=points, labels=signs, box=pointed.box).boxes
        same = box is not None and iou(box, pointed.box) >= SAME
        return pointed._replace(box=box) if box is not None and same else pointed
    if prompt.label is None or not (frame or any(signs)):
        return None
    found = masks.segment(pixels, points=points, labels=signs, box=frame)
    for mask, box in zip(found.masks, found.boxes, strict=True):
        if box is not None and mask.mean() <= LARGEST:
            return PromptResult(box, prompt.label, None, "by its outline: the detector sees nothing here")
    return None


def box_without_detector(pixels: Pixels, prompt: Prompt) -> PromptResult | None:
    """Where the detector has no box: the frame as it was drawn, or what stands out at the click.

    Only for a tool with a class, since nothing but the annotator names one here.

    Args:
        pixels: (height, width, 3), RGB.
    """
    if prompt.label is None:
        return None
    height, width = pixels.shape[:2]
    frame = prompt.box(width, height)
    if frame is not None:
        return PromptResult(frame, prompt.label, None, "as drawn: the detector sees nothing here")
    positive = [c for c in prompt.clicks if c.positive]
    box = magic_wand(pixels, positive[-1]) if positive else None
    if box is None:
        return None
    return PromptResult(box, prompt.label, None, "by contrast: the detector sees nothing here")


def magic_wand(pixels: Pixels, click: Click) -> Box | None:
    """The tight box around the patch at a click that stands out from what is around it.

    A pixel belongs to the patch if its colour is nearer to the click's than to the window's usual one (the
    median of its border). None where nothing stands out, or the patch runs out of the window: that is the
    background, or a thing too large to be guessed.
    """
    height, width = pixels.shape[:2]
    reach = max(int(WINDOW * max(height, width)), 8)
    x, y = min(int(click.x * width), width - 1), min(int(click.y * height), height - 1)
    left, top = max(x - reach, 0), max(y - reach, 0)
    stride = max(1, 2 * reach // _WAND_PX)
    window = pixels[top : y + reach + 1 : stride, left : x + reach + 1 : stride].astype(np.float64)
    row, column = (y - top) // stride, (x - left) // stride
    around = np.concatenate([window[0], window[-1], window[:, 0], window[:, -1]])
    usual = np.median(around, axis=0)
    here = np.median(
        window[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].reshape(-1, 3), axis=0
    )
    if np.sqrt(((here - usual) ** 2).mean()) < _LEAST_CONTRAST:
        return None
    like = ((window - here) ** 2).sum(2) < ((window - usual) ** 2).sum(2)
    like[row, column] = True
    patch = _connected(like, row, column)
    if patch[0].any() or patch[-1].any() or patch[:, 0].any() or patch[:, -1].any():
        return None
    rows, columns = np.flatnonzero(patch.any(1)), np.flatnonzero(patch.any(0))
    x1, y1 = left + int(columns[0]) * stride, top + int(rows[0]) * stride
    x2, y2 = left + (int(columns[-1]) + 1) * stride, top + (int(rows[-1]) + 1) * stride
    return Box(float(x1), float(y1), float(min(x2, width)), float(min(y2, height)))


def _centreness(box: Box, click: Click, width: int, height: int) -> float:
    """1 in the middle, falling to 0 at the edges and outside."""
    x, y = click.x * width, click.y * height
    left, right, top, bottom = x - box.x1, box.x2 - x, y - box.y1, box.y2 - y
    if min(left, right, top, bottom) <= 0:
        return 0.0
    across, down = min(left, right) / max(left, right), min(top, bottom) / max(top, bottom)
    return float((across * down) ** 0.5)


def _connected(like: NDArray[np.bool_], row: int, column: int) -> NDArray[np.bool_]:
    """The part of a mask that hangs together with one of its pixels, by edges."""
    patch = np.zeros_like(like)
    patch[row, column] = True
    size = 0
    while (grown := int(patch.sum())) != size:
        size = grown
        more = patch.copy()
        more[1:] |= patch[:-1]
        more[:-1] |= patch[1:]
        more[:, 1:] |= patch[:, :-1]
        more[:, :-1] |= patch[:, 1:]
        patch = more & like
    return patch
