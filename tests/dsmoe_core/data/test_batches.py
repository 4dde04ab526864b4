"""Batches repeat themselves, and what is switched off changes nothing."""

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
NOTHING = dict.fromkeys(AUGMENTATIONS, 0.0)


@settings(max_examples=50)
@given(st.integers(20, 3000), st.integers(20, 3000), st.floats(0, 0.9), st.floats(0, 0.9))
def test_letter_boxing_there_and_back(width: int, height: int, x: float, y: float) -> None:
    box = np.array([[x * width, y * height, (x + 0.1) * width, (y + 0.1) * height]], np.float32)
    letterbox = Letterbox.of(width, height, 320)
    inside = letterbox.to_square(box)
    assert inside.min() >= 0
    assert inside.max() <= 321
    assert np.abs(letterbox.to_image(inside) - box).max() < 1e-3 * max(width, height)


def test_the_square_shows_the_whole_image(images: list[LabelledImage]) -> None:
    square = LetterboxReader(SIDE).read(images[0].image)
    assert square.shape == (SIDE, SIDE, 3)
    assert (square[0] == GREY).all()  # 100 x 80 is padded above and below
    assert square[SIDE // 2].std() > 0


def assert_equal(one: Batch, other: Batch) -> None:
    np.testing.assert_array_equal(one.pixels, other.pixels)
    for a, b in zip(one.boxes + one.labels, other.boxes + other.labels, strict=True):
        np.testing.assert_array_equal(a, b)


def test_every_image_comes_once_an_epoch_and_a_step_repeats_itself(
    images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    everything = TrainingConfig(batch=3, seed=7, **dict.fromkeys(AUGMENTATIONS, 0.7))
    data, again = (TrainingSet(images, vocabulary, LetterboxReader(SIDE), everything) for _ in range(2))
    assert sorted(data.index(i) for i in range(6)) == list(range(6))
    assert sorted(data.index(i) for i in range(6, 12)) == list(range(6))
    again.batch(3)  # what was shown before plays no part
    assert_equal(data.batch(4), again.batch(4))


def first_loop_s_batch(
    images: list[LabelledImage], vocabulary: Vocabulary, training: TrainingConfig, step: int
) -> Batch:
    """The batch as the first version of this loop made it, written out once more.

    The figures of the demo were measured with these: same draws in the same order, same arithmetic.
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
            kept = (sizes.min(1, initial=np.inf) >= 2) & (sizes.prod(1) / np.maximum(before, 1e-6) > 0.5)
            boxes, labels = boxes[kept], labels[kept]
        gain, offset = rng.uniform(0.8, 1.2), rng.uniform(-20.0, 20.0)
        light = np.clip(pixels * np.float32(gain) + np.float32(offset), 0, 255).astype(np.uint8)
        return light, boxes, labels

    shown = []
    for position in range(step * training.batch, (step + 1) * training.batch):
        epoch, place = divmod(position, len(images))
        order = np.random.default_rng([training.seed, 1 << 20, epoch]).permutation(len(images))
        pixels, boxes, labels = augmented(int(order[place]))
        if rng.random() < training.mixup:
            other = augmented(int(rng.integers(len(images))))
            share = np.float32(rng.beta(8.0, 8.0))
            pixels = (pixels * share + other[0] * np.float32(1 - float(share))).astype(np.uint8)
            boxes, labels = np.concatenate([boxes, other[1]]), np.concatenate([labels, other[2]])
        shown.append((pixels, boxes, labels))
    return Batch(np.stack([s[0] for s in shown]), [s[1] for s in shown], [s[2] for s in shown])


@pytest.mark.parametrize("mixup", [0.0, 0.5])
@pytest.mark.parametrize("step", [0, 1, 7, 1000])
def test_with_default_settings_a_batch_is_what_it_always_was(
    images: list[LabelledImage], vocabulary: Vocabulary, mixup: float, step: int
) -> None:
    training = TrainingConfig(batch=5, seed=42, mixup=mixup)
    data = TrainingSet(images, vocabulary, LetterboxReader(SIDE), training)
    assert_equal(data.batch(step), first_loop_s_batch(images, vocabulary, training, step))


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_augmentation_is_switched_by_its_probability_alone(
    images: list[LabelledImage], vocabulary: Vocabulary, name: str
) -> None:
    def shown(**shares: float) -> list[Any]:
        training = TrainingConfig(batch=6, seed=3, **{**NOTHING, **shares})
        return TrainingSet(images, vocabulary, LetterboxReader(SIDE), training).samples(0)

    plain, on = shown(), shown(**{name: 1.0})
    assert [s.applied for s in plain] == [()] * 6
    assert any(s.applied for s in on)
    assert any((a.pixels != b.pixels).any() for a, b in zip(plain, on, strict=True))


def test_switching_one_on_leaves_the_others_draws_as_they_were(
    images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    def words(**shares: float) -> list[tuple[str, ...]]:
        training = TrainingConfig(batch=6, seed=3, **shares)
        return [
            s.applied for s in TrainingSet(images, vocabulary, LetterboxReader(SIDE), training).samples(0)
        ]

    new = ("contrast", "noise", "blur", "paste")
    before, after = words(), words(**dict.fromkeys(new, 1.0))
    strange = ("contrast", "noise", "blur", "1 pasted", "2 pasted", "3 pasted")
    assert [tuple(w for w in s if not w.startswith(strange)) for s in after] == before
    assert all(len(s) >= 3 for s in after)


def test_a_training_through_the_cache_sees_the_same(
    images: list[LabelledImage], vocabulary: Vocabulary, tmp_path: Any
) -> None:
    training = TrainingConfig(batch=4)
    plain = TrainingSet(images, vocabulary, LetterboxReader(SIDE), training)
    cached = LetterboxCache(LetterboxReader(SIDE), CacheConfig(tmp_path / "cache"))
    for _ in range(2):
        data = TrainingSet(images, vocabulary, cached, training)
        assert_equal(data.batch(2), plain.batch(2))
