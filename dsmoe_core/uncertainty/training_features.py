"""Computes the features of a sample of the training boxes, for the score ``novelty``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from dsmoe_core.predict import Detector
from dsmoe_core.schema import LabelledImage
from dsmoe_core.tiling import training_views
from dsmoe_core.uncertainty.novelty import MAX_BOXES_PER_CLASS, KnownFeatures, known_features

MAX_IMAGES = 200
"""Training images, or tiles, that are predicted by default."""


def training_features(
    detector: Detector,
    images: Sequence[LabelledImage],
    names: tuple[str, ...],
    *,
    max_images: int = MAX_IMAGES,
    seed: int = 0,
) -> KnownFeatures:
    """Compute the features of training boxes, up to ``MAX_BOXES_PER_CLASS`` of each class.

    Args:
        detector: with its vocabulary set.
        images: of the training; a model that works on tiles gets their tiles.
        names: of the vocabulary's classes.
        max_images: images, or tiles, that are predicted.
        seed: of the sample.
    """
    views = training_views(images, detector.model.config.tiles)
    sampled = list(_sampled(views, names, max_images, seed))
    known = [(view.image, [a for a in view.annotations if a.label in names]) for view in sampled]
    of_images = detector.features_of((image, [a.box for a in of_image]) for image, of_image in known)
    features = [feature for of_image in of_images for feature in of_image]
    labels = [names.index(a.label) for _, of_image in known for a in of_image]
    return known_features(features, labels, names, seed)


def _sampled(
    views: Sequence[LabelledImage], names: tuple[str, ...], max_images: int, seed: int
) -> Iterator[LabelledImage]:
    """Images in random order that have a box of a class with too few boxes."""
    count = dict.fromkeys(names, 0)
    images = 0
    for i in np.random.default_rng(seed).permutation(len(views)).tolist():
        labels = [a.label for a in views[i].annotations if a.label in count]
        if images < max_images and any(count[label] < MAX_BOXES_PER_CLASS for label in labels):
            images += 1
            for label in labels:
                count[label] += 1
            yield views[i]
