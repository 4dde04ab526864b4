"""Training batches: letterboxing, determinism, and independent augmentations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dsmoe_core.config import TrainingConfig
from dsmoe_core.data.batches import AUGMENTATIONS, Batch, TrainingSet
from dsmoe_core.data.letterbox import GREY, Letterbox, LetterboxReader, box_corners
from dsmoe_core.data.letterbox_cache import CacheConfig, LetterboxCache
from dsmoe_core.schema import LabelledImage, Vocabulary

SIDE = 64
ALL_OFF = dict.fromkeys(AUGMENTATIONS, 0.0)


@settings(max_examples=50)
@given(st.integers(20, 3000), st.integers(20, 3000), st.floats(0, 0.9), st.floats(0, 0.9))
def test_letterboxing_is_invertible(width: int, height: int, x: float, y: float) -> None:
    box = np.array([[x * width, y * height, (x + 0.1) * width, (y + 0.1) * height]], np.float32)
    letterbox = Letterbox.of(width, height, 320)
    inside = letterbox.to_square(box)
    assert inside.min() >= 0
    assert inside.max() <= 321
    assert np.abs(letterbox.to_image(inside) - box).max() < 1e-3 * max(width, height)


def test_square_contains_the_image_and_padding(images: list[LabelledImage]) -> None:
    square = LetterboxReader(SIDE).read(images[0].image)
    assert square.shape == (SIDE, SIDE, 3)
    assert (square[0] == GREY).all()  # 100 x 80 is padded above and below
    assert square[SIDE // 2].std() > 0


def assert_equal(first: Batch, second: Batch) -> None:
    np.testing.assert_array_equal(first.pixels, second.pixels)
    for a, b in zip(first.boxes + first.labels, second.boxes + second.labels, strict=True):
        np.testing.assert_array_equal(a, b)


def test_every_image_occurs_once_per_epoch_and_a_step_is_reproducible(
    images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    training = TrainingConfig(batch=3, seed=7, **dict.fromkeys(AUGMENTATIONS, 0.7))
    data, repeated = (TrainingSet(images, vocabulary, LetterboxReader(SIDE), training) for _ in range(2))
    assert sorted(data.index(i) for i in range(6)) == list(range(6))
    assert sorted(data.index(i) for i in range(6, 12)) == list(range(6))
    repeated.batch(3)  # earlier steps have no influence
    assert_equal(data.batch(4), repeated.batch(4))


def reference_batch(
    images: list[LabelledImage], vocabulary: Vocabulary, training: TrainingConfig, step: int
) -> Batch:
    """An independent implementation of the default augmentations.

    Published results were measured with these batches, so the order of the random numbers and the arithmetic
    must not change.
    """
    rng = np.random.default_rng([training.seed, step])

    def augmented(index: int) -> tuple[Any, Any, Any]:
        labelled = images[index]
        box = Letterbox.of(labelled.image.width, labelled.image.height, SIDE)
        pixels = LetterboxReader(SIDE).read(labelled.image)
        boxes = box.to_square(box_corners([a.box for a in labelled.annotations]))
        labels = np.array([vocabulary.index(a.label) for a in labelled.annotations], np.int64)
        quarters = int(rng.integers(4))
        if rng.integers(2):
            pixels = pixels[:, ::-1]
            boxes = np.stack([SIDE - boxes[:, 2], boxes[:, 1], SIDE - boxes[:, 0], boxes[:, 3]], axis=1)
        for _ in range(quarters):
            pixels = np.rot90(pixels)
            boxes = np.stack([boxes[:, 1], SIDE - boxes[:, 2], boxes[:, 3], SIDE - boxes[:, 0]], axis=1)
        if rng.random() < training.zoom:
            scale, dx, dy = float(rng.uniform(0.8, 1.25)), rng.uniform(-0.1, 0.1), rng.uniform(-0.1, 0.1)
            left, top = (SIDE / 2 - SIDE / 2 / scale - d * SIDE for d in (dx, dy))
            pixels = np.asarray(
                Image.fromarray(np.ascontiguousarray(pixels)).transform(
                    (SIDE, SIDE),
                    Image.Transform.AFFINE,
                    (1 / scale, 0, left, 0, 1 / scale, top),
                    resample=Image.Resampling.BILINEAR,
                    fillcolor=(GREY, GREY, GREY),
                )
            )
            moved = (boxes - np.array([left, top] * 2, dtype=np.float32)) * np.float32(scale)
            boxes = moved.clip(0, SIDE)
            sizes, before = boxes[:, 2:] - boxes[:, :2], (moved[:, 2:] - moved[:, :2]).prod(1)
            selected = (sizes.min(1, initial=np.inf) >= 2) & (sizes.prod(1) / np.maximum(before, 1e-6) > 0.5)
            boxes, labels = boxes[selected], labels[selected]
        gain, offset = rng.uniform(0.8, 1.2), rng.uniform(-20.0, 20.0)
        brightened = np.clip(pixels * np.float32(gain) + np.float32(offset), 0, 255).astype(np.uint8)
        return brightened, boxes, labels

    samples = []
    for position in range(step * training.batch, (step + 1) * training.batch):
        epoch, place = divmod(position, len(images))
        order = np.random.default_rng([training.seed, 1 << 20, epoch]).permutation(len(images))
        pixels, boxes, labels = augmented(int(order[place]))
        if rng.random() < training.mixup:
            second = augmented(int(rng.integers(len(images))))
            share = np.float32(rng.beta(8.0, 8.0))
            pixels = (pixels * share + second[0] * np.float32(1 - float(share))).astype(np.uint8)
            boxes, labels = np.concatenate([boxes, second[1]]), np.concatenate([labels, second[2]])
        samples.append((pixels, boxes, labels))
    return Batch(np.stack([s[0] for s in samples]), [s[1] for s in samples], [s[2] for s in samples])


@pytest.mark.parametrize("mixup", [0.0, 0.5])
@pytest.mark.parametrize("step", [0, 1, 7, 1000])
def test_batch_with_default_settings_equals_the_reference(
    images: list[LabelledImage], vocabulary: Vocabulary, mixup: float, step: int
) -> None:
    training = TrainingConfig(batch=5, seed=42, mixup=mixup)
    data = TrainingSet(images, vocabulary, LetterboxReader(SIDE), training)
    assert_equal(data.batch(step), reference_batch(images, vocabulary, training, step))


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_augmentation_is_controlled_by_its_own_probability(
    images: list[LabelledImage], vocabulary: Vocabulary, name: str
) -> None:
    def samples(**probabilities: float) -> list[Any]:
        training = TrainingConfig(batch=6, seed=3, **{**ALL_OFF, **probabilities})
        return TrainingSet(images, vocabulary, LetterboxReader(SIDE), training).samples(0)

    without, with_augmentation = samples(), samples(**{name: 1.0})
    assert [s.applied for s in without] == [()] * 6
    assert any(s.applied for s in with_augmentation)
    assert any((a.pixels != b.pixels).any() for a, b in zip(without, with_augmentation, strict=True))


def test_switching_an_augmentation_on_does_not_change_the_others(
    images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    def applied(**probabilities: float) -> list[tuple[str, ...]]:
        training = TrainingConfig(batch=6, seed=3, **probabilities)
        return [
            s.applied for s in TrainingSet(images, vocabulary, LetterboxReader(SIDE), training).samples(0)
        ]

    switched_on = ("contrast", "noise", "blur", "paste")
    before, after = applied(), applied(**dict.fromkeys(switched_on, 1.0))
    added = ("contrast", "noise", "blur", "1 pasted", "2 pasted", "3 pasted")
    assert [tuple(a for a in s if not a.startswith(added)) for s in after] == before
    assert all(len(s) >= 3 for s in after)


def test_batches_through_the_cache_are_the_same(
    images: list[LabelledImage], vocabulary: Vocabulary, tmp_path: Any
) -> None:
    training = TrainingConfig(batch=4)
    uncached = TrainingSet(images, vocabulary, LetterboxReader(SIDE), training)
    reader = LetterboxCache(LetterboxReader(SIDE), CacheConfig(tmp_path / "cache"))
    for _ in range(2):
        data = TrainingSet(images, vocabulary, reader, training)
        assert_equal(data.batch(2), uncached.batch(2))
