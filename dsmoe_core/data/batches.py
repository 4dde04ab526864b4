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
from dsmoe_core.data.augment.geometry import flip_and_rotate, zoom_and_shift
from dsmoe_core.data.augment.mixup import mixup
from dsmoe_core.data.augment.paste import paste_defects
from dsmoe_core.data.augment.photometric import add_noise, adjust_brightness, adjust_contrast, gaussian_blur
from dsmoe_core.data.augment.sample import Sample
from dsmoe_core.data.letterbox import Letterbox, LetterboxReader, box_corners
from dsmoe_core.data.letterbox_cache import LetterboxCache
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

    def slice(self, first: int, end: int) -> Batch:
        """The images from ``main`` to before ``end``."""
        return Batch(self.pixels[first:end], self.boxes[first:end], self.labels[first:end])

    def select_classes(self, classes: Int[np.ndarray, " a"]) -> Batch:
        """The same images with the boxes of these classes alone, which are counted anew.

        Args:
            classes: rows of the class book, rising.
        """
        kept = [np.isin(labels, classes) for labels in self.labels]
        boxes = [b[k] for b, k in zip(self.boxes, kept, strict=True)]
        labels = [np.searchsorted(classes, one[k]) for one, k in zip(self.labels, kept, strict=True)]
        return Batch(self.pixels, boxes, labels)


class StepRandom:
    """The random numbers of one step.

    ``main`` draws what has always been drawn, in the order of the images. Everything else draws from a
    stream of its own, so that switching one augmentation on leaves the draws of all others as they were.
    """

    def __init__(self, seed: int, step: int) -> None:
        self._place = (seed, step)
        self.main = np.random.default_rng([seed, step])
        self._streams: dict[str, np.random.Generator] = {}

    def stream(self, name: str) -> np.random.Generator:
        """The generator of this name."""
        if name not in self._streams:
            seed, step = self._place
            self._streams[name] = np.random.default_rng([seed, 1 << 22, step, zlib.crc32(name.encode())])
        return self._streams[name]

    def applies(self, name: str, share: float) -> bool:
        """Whether an augmentation that concerns this share of the images concerns the next one."""
        return self.stream(name).random() < share


class TrainingSet:
    """All images of a training run, letter-boxed once.

    Args:
        images: with everything that is on them; none on one means it shows no defect.
        vocabulary: gives the class order; every label must be in it.
        reader: reads the images. Where it is a cache, squares are taken from there at each step; else they
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
        reader: LetterboxReader | LetterboxCache,
        training: TrainingConfig,
    ) -> None:
        self.training = training
        self._images = images
        self._boxes = [_boxes(p, reader.side) for p in images]
        self._labels = [_labels(p, vocabulary) for p in images]
        self._defective = [i for i, boxes in enumerate(self._boxes) if len(boxes)]
        self._reader = reader
        self._held: list[UInt8[np.ndarray, "side side 3"]] = []
        for labelled in images:
            square = reader.read(labelled.image)
            if isinstance(reader, LetterboxReader):
                self._held.append(square)
        if isinstance(reader, LetterboxCache):
            reader.flush()

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, step: int) -> Batch:
        """The batch of this step: every image once before any comes again."""
        shown = self.samples(step)
        return Batch(np.stack([s.pixels for s in shown]), [s.boxes for s in shown], [s.labels for s in shown])

    def samples(self, step: int) -> list[Sample]:
        """The images of this step's batch, with what was done to each."""
        size = self.training.batch
        random = StepRandom(self.training.seed, step)
        return [self._mixup_sample(self.index(step * size + i), random) for i in range(size)]

    def index(self, position: int) -> int:
        """Which image comes at this position of the run."""
        epoch, place = divmod(position, len(self._images))
        return int(
            np.random.default_rng([self.training.seed, 1 << 20, epoch]).permutation(len(self._images))[place]
        )

    def source_sample(self, index: int) -> Sample:
        """An image as it is before augmentation."""
        held = self._held[index] if self._held else self._reader.read(self._images[index].image)
        return Sample(held, self._boxes[index], self._labels[index])

    def _mixup_sample(self, index: int, random: StepRandom) -> Sample:
        sample = self._augment(index, random)
        rng = random.main
        if rng.random() < self.training.mixup:
            other = self._augment(int(rng.integers(len(self._images))), random)
            sample = mixup(sample, other, share=float(rng.beta(8.0, 8.0)))
        return sample

    def _augment(self, index: int, random: StepRandom) -> Sample:
        training, rng = self.training, random.main
        sample = self._paste(index, random)
        quarters, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        turned, flipped = random.applies("turns", training.turns), random.applies("flips", training.flips)
        sample = flip_and_rotate(sample, quarters=quarters * turned, mirrored=mirrored and flipped)
        if rng.random() < training.zoom:
            sample = zoom_and_shift(
                sample,
                scale=float(rng.uniform(0.8, 1.25)),
                dx=rng.uniform(-0.1, 0.1),
                dy=rng.uniform(-0.1, 0.1),
            )
        gain, offset = rng.uniform(0.8, 1.2), rng.uniform(-20.0, 20.0)
        if random.applies("brightness", training.brightness):
            sample = adjust_brightness(sample, gain=gain, offset=offset)
        return self._disturb(sample, random)

    def _disturb(self, sample: Sample, random: StepRandom) -> Sample:
        """Contrast, then what a lens does, then what a sensor does."""
        training = self.training
        if random.applies("contrast", training.contrast):
            sample = adjust_contrast(sample, contrast=random.stream("contrast").uniform(0.7, 1.4))
        if random.applies("blur", training.blur):
            sample = gaussian_blur(sample, sigma=random.stream("blur").uniform(0.3, 1.2))
        if random.applies("noise", training.noise):
            rng = random.stream("noise")
            sample = add_noise(sample, sigma=rng.uniform(2.0, 12.0), rng=rng)
        return sample

    def _paste(self, index: int, random: StepRandom) -> Sample:
        sample = self.source_sample(index)
        if not self._defective or not random.applies("paste", self.training.paste):
            return sample
        rng = random.stream("paste")
        other = self._defective[int(rng.integers(len(self._defective)))]
        max_pasted = int(rng.integers(1, MAX_PASTED + 1))
        return paste_defects(
            sample,
            self._area(index),
            self.source_sample(other),
            self._area(other),
            max_pasted=max_pasted,
            rng=rng,
        )

    def _area(self, index: int) -> tuple[int, int, int, int]:
        width, height = self._images[index].image.width, self._images[index].image.height
        return Letterbox.of(width, height, self._reader.side).image_area(width, height)


def _boxes(labelled: LabelledImage, side: int) -> Float[np.ndarray, "m 4"]:
    letterbox = Letterbox.of(labelled.image.width, labelled.image.height, side)
    return letterbox.to_square(box_corners([a.box for a in labelled.annotations]))


def _labels(labelled: LabelledImage, vocabulary: Vocabulary) -> Int[np.ndarray, " m"]:
    return np.array([vocabulary.index(a.label) for a in labelled.annotations], dtype=np.int64)
