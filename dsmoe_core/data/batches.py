"""Training batches of letterboxed images with random augmentation.

The batch of a step is a pure function of (seed, step), so a resumed run gets the same batches as an
uninterrupted one.
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
"""Names of the augmentations; :class:`TrainingConfig` has a probability of the same name for each."""
MAX_PASTED = 3
"""Maximum number of defects that copy-paste adds to an image."""


class Batch(NamedTuple):
    """Images of one training step.

    Attributes:
        pixels: RGB, 0 to 255.
        boxes: per image, x1, y1, x2, y2 in pixels of the square.
        labels: per image, the class index of each box.
    """

    pixels: UInt8[np.ndarray, "b side side 3"]
    boxes: list[Float[np.ndarray, "_ 4"]]
    labels: list[Int[np.ndarray, " _"]]

    def slice(self, first: int, end: int) -> Batch:
        """The images from ``first`` up to, but not including, ``end``."""
        return Batch(self.pixels[first:end], self.boxes[first:end], self.labels[first:end])

    def select_classes(self, classes: Int[np.ndarray, " a"]) -> Batch:
        """The same images with the boxes of these classes only; labels become indices into ``classes``.

        Args:
            classes: class indices in ascending order.
        """
        selected = [np.isin(labels, classes) for labels in self.labels]
        boxes = [b[s] for b, s in zip(self.boxes, selected, strict=True)]
        labels = [np.searchsorted(classes, ls[s]) for ls, s in zip(self.labels, selected, strict=True)]
        return Batch(self.pixels, boxes, labels)


class StepRandom:
    """Random number generators of one training step.

    ``main`` serves the geometric augmentations, brightness and MixUp, in the order of the images. Every other
    augmentation has a stream of its own, so switching one on does not change the random numbers of the
    others.
    """

    def __init__(self, seed: int, step: int) -> None:
        self._seed_and_step = (seed, step)
        self.main = np.random.default_rng([seed, step])
        self._streams: dict[str, np.random.Generator] = {}

    def stream(self, name: str) -> np.random.Generator:
        """The generator of an augmentation."""
        if name not in self._streams:
            seed, step = self._seed_and_step
            self._streams[name] = np.random.default_rng([seed, 1 << 22, step, zlib.crc32(name.encode())])
        return self._streams[name]

    def applies(self, name: str, probability: float) -> bool:
        """Sample whether an augmentation is applied to the next image."""
        return self.stream(name).random() < probability


class TrainingSet:
    """Letterboxed images of a training run.

    Args:
        images: with all their annotations; an image without any shows no defect.
        vocabulary: class order; it must contain every label.
        reader: reads the images. With a cache they are read from it at each step; otherwise all are kept in
            memory.
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
        self._boxes = [_boxes(image, reader.side) for image in images]
        self._labels = [_labels(image, vocabulary) for image in images]
        self._with_defects = [i for i, boxes in enumerate(self._boxes) if len(boxes)]
        self._source_shares = _rare_first([self._labels[i] for i in self._with_defects])
        self._reader = reader
        self._kept_order: tuple[int, Int[np.ndarray, " n"]] = (-1, np.arange(0))
        self._in_memory: list[UInt8[np.ndarray, "side side 3"]] = []
        for labelled in images:
            square = reader.read(labelled.image)
            if isinstance(reader, LetterboxReader):
                self._in_memory.append(square)
        if isinstance(reader, LetterboxCache):
            reader.flush()

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, step: int) -> Batch:
        """The batch of a step. Every image occurs once before any is repeated."""
        samples = self.samples(step)
        return Batch(
            np.stack([s.pixels for s in samples]), [s.boxes for s in samples], [s.labels for s in samples]
        )

    def samples(self, step: int) -> list[Sample]:
        """The images of a step's batch, each with the list of augmentations applied to it."""
        size = self.training.batch
        random = StepRandom(self.training.seed, step)
        return [self._mixed(self.index(step * size + i), random) for i in range(size)]

    def index(self, position: int) -> int:
        """Index of the image at a position of the run (step * batch size + position in the batch)."""
        epoch, place = divmod(position, len(self._images))
        return int(self._order_of_epoch(epoch)[place])

    def _order_of_epoch(self, epoch: int) -> Int[np.ndarray, " n"]:
        """Order of the images in one epoch; it is kept, because a step asks for it once per image."""
        kept, order = self._kept_order
        if kept != epoch:
            order = np.random.default_rng([self.training.seed, 1 << 20, epoch]).permutation(len(self._images))
            self._kept_order = epoch, order
        return order

    def source_sample(self, index: int) -> Sample:
        """An image before augmentation."""
        pixels = self._in_memory[index] if self._in_memory else self._reader.read(self._images[index].image)
        return Sample(pixels, self._boxes[index], self._labels[index])

    def _mixed(self, index: int, random: StepRandom) -> Sample:
        """An augmented image, blended with a second one if MixUp applies."""
        sample = self._augmented(index, random)
        rng = random.main
        if rng.random() < self.training.mixup:
            second = self._augmented(int(rng.integers(len(self._images))), random)
            sample = mixup(sample, second, share=float(rng.beta(8.0, 8.0)))
        return sample

    def _augmented(self, index: int, random: StepRandom) -> Sample:
        """Copy-paste, geometry, brightness, then the rest of the photometric augmentations."""
        training, rng = self.training, random.main
        sample = self._with_pasted(index, random)
        quarters, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        rotates, flips = random.applies("turns", training.turns), random.applies("flips", training.flips)
        sample = flip_and_rotate(sample, quarters=quarters * rotates, mirrored=mirrored and flips)
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
        return self._degraded(sample, random)

    def _degraded(self, sample: Sample, random: StepRandom) -> Sample:
        """Contrast, then lens blur, then sensor noise."""
        training = self.training
        if random.applies("contrast", training.contrast):
            sample = adjust_contrast(sample, contrast=random.stream("contrast").uniform(0.7, 1.4))
        if random.applies("blur", training.blur):
            sample = gaussian_blur(sample, sigma=random.stream("blur").uniform(0.3, 1.2))
        if random.applies("noise", training.noise):
            rng = random.stream("noise")
            sample = add_noise(sample, sigma=rng.uniform(2.0, 12.0), rng=rng)
        return sample

    def _with_pasted(self, index: int, random: StepRandom) -> Sample:
        """A source image, with defects of another one pasted into it if copy-paste applies."""
        sample = self.source_sample(index)
        if not self._with_defects or not random.applies("paste", self.training.paste):
            return sample
        rng = random.stream("paste")
        if self.training.paste_rare:
            source = self._with_defects[int(rng.choice(len(self._with_defects), p=self._source_shares))]
        else:
            source = self._with_defects[int(rng.integers(len(self._with_defects)))]
        max_pasted = int(rng.integers(1, MAX_PASTED + 1))
        return paste_defects(
            sample,
            self._area(index),
            self.source_sample(source),
            self._area(source),
            max_pasted=max_pasted,
            rng=rng,
        )

    def _area(self, index: int) -> tuple[int, int, int, int]:
        width, height = self._images[index].image.width, self._images[index].image.height
        return Letterbox.of(width, height, self._reader.side).image_area(width, height)


def _boxes(labelled: LabelledImage, side: int) -> Float[np.ndarray, "m 4"]:
    letterbox = Letterbox.of(labelled.image.width, labelled.image.height, side)
    return letterbox.to_square(box_corners([a.box for a in labelled.annotations]))


def _rare_first(labels: Sequence[Int[np.ndarray, " _"]]) -> Float[np.ndarray, " n"]:
    """Probability of each image as a source of copy-paste: by the number of boxes of its rarest class.

    Args:
        labels: class indices of each image, at least one.
    """
    counts = np.bincount(np.concatenate(labels)) if labels else np.zeros(0)
    shares = np.array([1 / counts[of_image].min() for of_image in labels])
    return shares / shares.sum()


def _labels(labelled: LabelledImage, vocabulary: Vocabulary) -> Int[np.ndarray, " m"]:
    return np.array([vocabulary.index(a.label) for a in labelled.annotations], dtype=np.int64)
