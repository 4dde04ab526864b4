"""Training batches: letter-boxed pictures in memory, augmented anew each time they are shown.

The batch of a step is a pure function of (seed, step), so a resumed run sees what an uninterrupted one would
have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from dsmoe_core.config import TrainingConfig
from dsmoe_core.data.letterbox import GREY, LetterBox, corners, read_square
from dsmoe_core.schema import LabelledPicture, Vocabulary

SMALLEST_PX = 2.0
"""A box that augmentation cut below this side is dropped."""


class Sample(NamedTuple):
    """One letter-boxed picture with its boxes in the square's pixels."""

    pixels: UInt8[np.ndarray, "side side 3"]
    boxes: Float[np.ndarray, "m 4"]
    labels: Int[np.ndarray, " m"]


class Batch(NamedTuple):
    """What one step sees."""

    pixels: UInt8[np.ndarray, "b side side 3"]
    boxes: list[Float[np.ndarray, "_ 4"]]
    labels: list[Int[np.ndarray, " _"]]


class TrainingSet:
    """All pictures of a training run, letter-boxed once.

    Args:
        pictures: with everything that is on them; none on one means it shows no defect.
        vocabulary: gives the class order; every label must be in it.
        side: of the network's input, in pixels.
        training: augmentation and seed.

    Raises:
        ClassBookError: a label is not in the vocabulary.
    """

    def __init__(
        self, pictures: Sequence[LabelledPicture], vocabulary: Vocabulary, side: int, training: TrainingConfig
    ) -> None:
        self.samples = [_sample(p, vocabulary, side) for p in pictures]
        self.training = training

    def batch(self, step: int) -> Batch:
        """The batch of this step: every picture once before any comes again."""
        size = self.training.batch
        rng = np.random.default_rng([self.training.seed, step])
        shown = [self._show(self._index(step * size + i), rng) for i in range(size)]
        return Batch(np.stack([s.pixels for s in shown]), [s.boxes for s in shown], [s.labels for s in shown])

    def _index(self, position: int) -> int:
        epoch, place = divmod(position, len(self.samples))
        return int(
            np.random.default_rng([self.training.seed, 1 << 20, epoch]).permutation(len(self.samples))[place]
        )

    def _show(self, index: int, rng: np.random.Generator) -> Sample:
        sample = self._augment(self.samples[index], rng)
        if rng.random() < self.training.mixup:
            other = self._augment(self.samples[int(rng.integers(len(self.samples)))], rng)
            sample = mix(sample, other, share=float(rng.beta(8.0, 8.0)))
        return sample

    def _augment(self, sample: Sample, rng: np.random.Generator) -> Sample:
        sample = turn(sample, quarters=int(rng.integers(4)), mirrored=bool(rng.integers(2)))
        if rng.random() < self.training.zoom:
            sample = shift(
                sample,
                scale=float(rng.uniform(0.8, 1.25)),
                dx=rng.uniform(-0.1, 0.1),
                dy=rng.uniform(-0.1, 0.1),
            )
        gain, offset = rng.uniform(0.8, 1.2), rng.uniform(-20.0, 20.0)
        bright = np.clip(sample.pixels * np.float32(gain) + np.float32(offset), 0, 255).astype(np.uint8)
        return sample._replace(pixels=bright)


def _sample(labelled: LabelledPicture, vocabulary: Vocabulary, side: int) -> Sample:
    picture = labelled.picture
    letterbox = LetterBox.of(picture.width, picture.height, side)
    boxes = letterbox.into(corners([a.box for a in labelled.annotations]))
    labels = np.array([vocabulary.index(a.label) for a in labelled.annotations], dtype=np.int64)
    return Sample(read_square(picture, side), boxes, labels)


def turn(sample: Sample, *, quarters: int, mirrored: bool) -> Sample:
    """Mirror left to right, then turn counter-clockwise by quarters. The defects of flat goods have no up."""
    pixels, boxes, side = sample.pixels, sample.boxes, sample.pixels.shape[0]
    if mirrored:
        pixels = pixels[:, ::-1]
        boxes = np.stack([side - boxes[:, 2], boxes[:, 1], side - boxes[:, 0], boxes[:, 3]], axis=1)
    for _ in range(quarters):
        boxes = np.stack([boxes[:, 1], side - boxes[:, 2], boxes[:, 3], side - boxes[:, 0]], axis=1)
    return sample._replace(pixels=np.ascontiguousarray(np.rot90(pixels, quarters)), boxes=boxes)


def shift(sample: Sample, *, scale: float, dx: float, dy: float) -> Sample:
    """Zoom about the middle and move by shares of the side; boxes are clipped, lost ones dropped."""
    from PIL import Image

    side = sample.pixels.shape[0]
    left = side / 2 - side / 2 / scale - dx * side
    top = side / 2 - side / 2 / scale - dy * side
    image = Image.fromarray(sample.pixels).transform(
        (side, side),
        Image.Transform.AFFINE,
        (1 / scale, 0, left, 0, 1 / scale, top),
        resample=Image.Resampling.BILINEAR,
        fillcolor=(GREY, GREY, GREY),
    )
    moved = (sample.boxes - np.array([left, top] * 2, dtype=np.float32)) * np.float32(scale)
    clipped = moved.clip(0, side)
    sizes = clipped[:, 2:] - clipped[:, :2]
    whole = np.maximum((moved[:, 2:] - moved[:, :2]).prod(1), 1e-6)
    kept = (sizes.min(1, initial=np.inf) >= SMALLEST_PX) & (sizes.prod(1) / whole > 0.5)
    return Sample(np.asarray(image), clipped[kept], sample.labels[kept])


def mix(first: Sample, second: Sample, *, share: float) -> Sample:
    """MixUp for detection: pixels blended, boxes of both kept (Zhang et al. 2019)."""
    pixels = first.pixels * np.float32(share) + second.pixels * np.float32(1 - share)
    return Sample(
        pixels.astype(np.uint8),
        np.concatenate([first.boxes, second.boxes]),
        np.concatenate([first.labels, second.labels]),
    )
