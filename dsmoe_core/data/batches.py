"""Training batches: letter-boxed images, augmented anew each time they are shown.

The batch of a step is a pure function of (seed, step), so a resumed run sees what an uninterrupted one would
have seen.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from dsmoe_core.config import TrainingConfig
from dsmoe_core.data.augment.geometry import shift, turn
from dsmoe_core.data.augment.mixup import mix
from dsmoe_core.data.augment.paste import paste
from dsmoe_core.data.augment.photometric import add_noise, blur, brighten, stretch
from dsmoe_core.data.augment.sample import Sample
from dsmoe_core.data.letterbox import LetterBox, Squares, corners
from dsmoe_core.data.letterbox_cache import SquareCache
from dsmoe_core.schema import LabelledImage, Vocabulary

AUGMENTATIONS = (
    "flips",
    "turns",
    "zoom",
    "brightness",
    "contrast",
    "noise",
    "blur",
    "paste",
    "mixup",
)
"""Those that :class:`TrainingConfig` has a probability for, by that name."""
MAX_PASTED = 3


class Batch(NamedTuple):
    """What one step sees."""

    pixels: UInt8[np.ndarray, "b side side 3"]
    boxes: list[Float[np.ndarray, "_ 4"]]
    labels: list[Int[np.ndarray, " _"]]

    def part(self, first: int, end: int) -> Batch:
        """The images from ``first`` to before ``end``."""
        return Batch(self.pixels[first:end], self.boxes[first:end], self.labels[first:end])

    def about(self, asked: Int[np.ndarray, " a"]) -> Batch:
        """The same images with the boxes of these classes alone, which are counted anew.

        Args:
            asked: rows of the class book, rising.
        """
        kept = [np.isin(labels, asked) for labels in self.labels]
        boxes = [b[k] for b, k in zip(self.boxes, kept, strict=True)]
        labels = [np.searchsorted(asked, one[k]) for one, k in zip(self.labels, kept, strict=True)]
        return Batch(self.pixels, boxes, labels)


class Chance:
    """The random numbers of one step.

    ``first`` draws what has always been drawn, in the order of the images. Everything else draws from a
    stream of its own, so that switching one augmentation on leaves the draws of all others as they were.
    """

    def __init__(self, seed: int, step: int) -> None:
        self._place = (seed, step)
        self.first = np.random.default_rng([seed, step])
        self._streams: dict[str, np.random.Generator] = {}

    def stream(self, name: str) -> np.random.Generator:
        """The generator of this name."""
        if name not in self._streams:
            seed, step = self._place
            self._streams[name] = np.random.default_rng([seed, 1 << 22, step, zlib.crc32(name.encode())])
        return self._streams[name]

    def strikes(self, name: str, share: float) -> bool:
        """Whether an augmentation that concerns this share of the images concerns the next one."""
        return self.stream(name).random() < share


class TrainingSet:
    """All images of a training run, letter-boxed once.

    Args:
        images: with everything that is on them; none on one means it shows no defect.
        vocabulary: gives the class order; every label must be in it.
        squares: reads the images. Where it is a cache, squares are taken from there at each step; else they
            are all held in memory.
        training: augmentation and seed.

    Raises:
        ClassBookError: a label is not in the vocabulary.
        PrerequisiteError: the disk of the cache is full.
    """

    def __init__(
        self,
        images: Sequence[LabelledImage],
        vocabulary: Vocabulary,
        squares: Squares | SquareCache,
        training: TrainingConfig,
    ) -> None:
        self.training = training
        self._images = images
        self._boxes = [_boxes(p, squares.side) for p in images]
        self._labels = [_labels(p, vocabulary) for p in images]
        self._defective = [i for i, boxes in enumerate(self._boxes) if len(boxes)]
        self._squares = squares
        self._held: list[UInt8[np.ndarray, "side side 3"]] = []
        for labelled in images:
            square = squares.read(labelled.image)
            if isinstance(squares, Squares):
                self._held.append(square)
        if isinstance(squares, SquareCache):
            squares.flush()

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, step: int) -> Batch:
        """The batch of this step: every image once before any comes again."""
        shown = self.shown(step)
        return Batch(np.stack([s.pixels for s in shown]), [s.boxes for s in shown], [s.labels for s in shown])

    def shown(self, step: int) -> list[Sample]:
        """The images of this step's batch, with what was done to each."""
        size = self.training.batch
        chance = Chance(self.training.seed, step)
        return [self._show(self.index(step * size + i), chance) for i in range(size)]

    def index(self, position: int) -> int:
        """Which image comes at this position of the run."""
        epoch, place = divmod(position, len(self._images))
        return int(
            np.random.default_rng([self.training.seed, 1 << 20, epoch]).permutation(len(self._images))[place]
        )

    def sample(self, index: int) -> Sample:
        """An image as it is before augmentation."""
        held = self._held[index] if self._held else self._squares.read(self._images[index].image)
        return Sample(held, self._boxes[index], self._labels[index])

    def _show(self, index: int, chance: Chance) -> Sample:
        sample = self._augment(index, chance)
        rng = chance.first
        if rng.random() < self.training.mixup:
            other = self._augment(int(rng.integers(len(self._images))), chance)
            sample = mix(sample, other, share=float(rng.beta(8.0, 8.0)))
        return sample

    def _augment(self, index: int, chance: Chance) -> Sample:
        training, rng = self.training, chance.first
        sample = self._paste(index, chance)
        quarters, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        turned, flipped = chance.strikes("turns", training.turns), chance.strikes("flips", training.flips)
        sample = turn(sample, quarters=quarters * turned, mirrored=mirrored and flipped)
        if rng.random() < training.zoom:
            sample = shift(
                sample,
                scale=float(rng.uniform(0.8, 1.25)),
                dx=rng.uniform(-0.1, 0.1),
                dy=rng.uniform(-0.1, 0.1),
            )
        gain, offset = rng.uniform(0.8, 1.2), rng.uniform(-20.0, 20.0)
        if chance.strikes("brightness", training.brightness):
            sample = brighten(sample, gain=gain, offset=offset)
        return self._disturb(sample, chance)

    def _disturb(self, sample: Sample, chance: Chance) -> Sample:
        """Contrast, then what a lens does, then what a sensor does."""
        training = self.training
        if chance.strikes("contrast", training.contrast):
            sample = stretch(sample, contrast=chance.stream("contrast").uniform(0.7, 1.4))
        if chance.strikes("blur", training.blur):
            sample = blur(sample, sigma=chance.stream("blur").uniform(0.3, 1.2))
        if chance.strikes("noise", training.noise):
            rng = chance.stream("noise")
            sample = add_noise(sample, sigma=rng.uniform(2.0, 12.0), rng=rng)
        return sample

    def _paste(self, index: int, chance: Chance) -> Sample:
        sample = self.sample(index)
        if not self._defective or not chance.strikes("paste", self.training.paste):
            return sample
        rng = chance.stream("paste")
        other = self._defective[int(rng.integers(len(self._defective)))]
        most = int(rng.integers(1, MAX_PASTED + 1))
        return paste(sample, self._area(index), self.sample(other), self._area(other), most=most, rng=rng)

    def _area(self, index: int) -> tuple[int, int, int, int]:
        width, height = self._images[index].image.width, self._images[index].image.height
        return LetterBox.of(width, height, self._squares.side).area(width, height)


def _boxes(labelled: LabelledImage, side: int) -> Float[np.ndarray, "m 4"]:
    letterbox = LetterBox.of(labelled.image.width, labelled.image.height, side)
    return letterbox.into(corners([a.box for a in labelled.annotations]))


def _labels(labelled: LabelledImage, vocabulary: Vocabulary) -> Int[np.ndarray, " m"]:
    return np.array([vocabulary.index(a.label) for a in labelled.annotations], dtype=np.int64)
