"""Smart tools: the box for an annotator's click or frame, from the detector, MobileSAM or the pixels."""

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

MIN_FRAME_IOU = 0.1
"""A detection with a lower IoU with the annotator's frame is not taken for it."""
MIN_MASK_IOU = 0.5
"""A mask's box with a lower IoU with the detection does not replace the detection's box."""
MAX_MASK_AREA = 0.25
"""Share of the image; a larger mask is taken for the background or the whole part, not for a defect."""
WAND_WINDOW = 0.25
"""Half side of the magic wand's window, as a share of the image's longer side."""
_WAND_PX = 160  # the window is subsampled to about this many pixels a side
_MIN_CONTRAST = 12.0  # of 255, root mean square over the channels; less is taken for noise

Pixels = NDArray[np.uint8]


class PromptResult(NamedTuple):
    """The box for a prompt.

    Attributes:
        box: in pixels.
        label: class name.
        score: probability of the class; None where the box is not the detector's.
        reason: shown to the annotator.
    """

    box: Box
    label: str
    score: float | None
    reason: str


def box_for_prompt(
    detections: Iterable[Detection], prompt: Prompt, width: int, height: int
) -> PromptResult | None:
    """Select the detection that fits a prompt best.

    For a click: the highest product of probability and centre-ness (FCOS, arXiv:1904.01355, equation 3)
    among the boxes around the last positive click. Annotators click on the middle of an object, so a small
    box wins over a large one around it. Boxes around a negative click are excluded. For a frame: the highest
    product of probability and IoU. The probability is that of the tool's class, or of the box's own class
    where the tool has none.

    Args:
        detections: of the image, boxes in pixels.
        prompt: clicks or a frame, in shares of the image.
        width: of the image in pixels.
        height: of the image in pixels.

    Returns:
        None where no detection fits.
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
            fit = overlap if overlap >= MIN_FRAME_IOU else 0.0
        elif any(_centreness(detection.box, c, width, height) > 0 for c in prompt.clicks if not c.positive):
            continue
        else:
            fit = _centreness(detection.box, positive[-1], width, height)
        if score * fit > best_rank:
            best, best_rank = PromptResult(detection.box, label, score, f"{label} {score:.0%}"), score * fit
    return best


def tighten_with_mask(
    result: PromptResult | None, pixels: Pixels, prompt: Prompt, masks: PromptSegmenter
) -> PromptResult | None:
    """Replace the box by the tight box of MobileSAM's mask.

    With a detection, its box is MobileSAM's prompt, and a mask with an IoU below ``MIN_MASK_IOU`` is
    ignored. Without one, the best mask at the annotator's prompt is taken, if the tool has a class and the
    mask covers at most ``MAX_MASK_AREA``.

    Args:
        result: from ``box_for_prompt``.
        pixels: (height, width, 3), RGB.
        prompt: clicks or a frame, in shares of the image.
        masks: MobileSAM.
    """
    height, width = pixels.shape[:2]
    points = [(c.x * width, c.y * height) for c in prompt.clicks]
    signs = [int(c.positive) for c in prompt.clicks]
    frame = prompt.box(width, height)
    if result is not None:
        (box,) = masks.segment(pixels, points=points, labels=signs, box=result.box).boxes
        fits = box is not None and iou(box, result.box) >= MIN_MASK_IOU
        return result._replace(box=box) if box is not None and fits else result
    if prompt.label is None or not (frame or any(signs)):
        return None
    candidates = masks.segment(pixels, points=points, labels=signs, box=frame)
    for mask, box in zip(candidates.masks, candidates.boxes, strict=True):
        if box is not None and mask.mean() <= MAX_MASK_AREA:
            return PromptResult(box, prompt.label, None, "from the mask: no detection here")
    return None


def box_without_detector(pixels: Pixels, prompt: Prompt) -> PromptResult | None:
    """Box for a prompt without a fitting detection: the frame itself, or the patch around the click.

    Only for a tool with a class, as there is no other source for the class.

    Args:
        pixels: (height, width, 3), RGB.
        prompt: clicks or a frame, in shares of the image.
    """
    if prompt.label is None:
        return None
    height, width = pixels.shape[:2]
    frame = prompt.box(width, height)
    if frame is not None:
        return PromptResult(frame, prompt.label, None, "your frame: no detection here")
    positive = [c for c in prompt.clicks if c.positive]
    box = magic_wand(pixels, positive[-1]) if positive else None
    if box is None:
        return None
    return PromptResult(box, prompt.label, None, "from the contrast: no detection here")


def magic_wand(pixels: Pixels, click: Click) -> Box | None:
    """Tight box of the connected patch at a click that differs in colour from its surroundings.

    A pixel belongs to the patch if its colour is nearer to the click's than to the median colour of the
    window's border.

    Args:
        pixels: (height, width, 3), RGB.
        click: in shares of the image.

    Returns:
        None where the contrast is too low, or where the patch reaches the window's border: it is then
        background, or too large to be outlined by colour.
    """
    height, width = pixels.shape[:2]
    reach = max(int(WAND_WINDOW * max(height, width)), 8)
    x, y = min(int(click.x * width), width - 1), min(int(click.y * height), height - 1)
    left, top = max(x - reach, 0), max(y - reach, 0)
    stride = max(1, 2 * reach // _WAND_PX)
    window = pixels[top : y + reach + 1 : stride, left : x + reach + 1 : stride].astype(np.float64)
    row, column = (y - top) // stride, (x - left) // stride
    border = np.concatenate([window[0], window[-1], window[:, 0], window[:, -1]])
    background = np.median(border, axis=0)
    colour = np.median(
        window[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].reshape(-1, 3), axis=0
    )
    if np.sqrt(((colour - background) ** 2).mean()) < _MIN_CONTRAST:
        return None
    similar = ((window - colour) ** 2).sum(2) < ((window - background) ** 2).sum(2)
    similar[row, column] = True
    patch = _connected_component(similar, row, column)
    if patch[0].any() or patch[-1].any() or patch[:, 0].any() or patch[:, -1].any():
        return None
    rows, columns = np.flatnonzero(patch.any(1)), np.flatnonzero(patch.any(0))
    x1, y1 = left + int(columns[0]) * stride, top + int(rows[0]) * stride
    x2, y2 = left + (int(columns[-1]) + 1) * stride, top + (int(rows[-1]) + 1) * stride
    return Box(float(x1), float(y1), float(min(x2, width)), float(min(y2, height)))


def _centreness(box: Box, click: Click, width: int, height: int) -> float:
    """Centre-ness of a click in a box: 1 in the middle, 0 at the edges and outside."""
    x, y = click.x * width, click.y * height
    left, right, top, bottom = x - box.x1, box.x2 - x, y - box.y1, box.y2 - y
    if min(left, right, top, bottom) <= 0:
        return 0.0
    horizontal, vertical = min(left, right) / max(left, right), min(top, bottom) / max(top, bottom)
    return float((horizontal * vertical) ** 0.5)


def _connected_component(mask: NDArray[np.bool_], row: int, column: int) -> NDArray[np.bool_]:
    """The 4-connected component of a mask (height, width) that contains one pixel."""
    patch = np.zeros_like(mask)
    patch[row, column] = True
    size = 0
    while (grown := int(patch.sum())) != size:
        size = grown
        dilated = patch.copy()
        dilated[1:] |= patch[:-1]
        dilated[:-1] |= patch[1:]
        dilated[:, 1:] |= patch[:, :-1]
        dilated[:, :-1] |= patch[:, 1:]
        patch = dilated & mask
    return patch
