"""Routing per class: which experts process the images of a class, and how much two classes differ in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsmoe_core.schema import LabelledImage, Prediction

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Counts = NDArray[Any]


class ImageRouting(NamedTuple):
    """Router weights of p images for e experts, and the classes on each image.

    Attributes:
        weights: 0 for an expert that was not chosen, (p, e). e is one more than the highest chosen index, and
            0 for a network without router.
        has_class: whether the image shows each of c classes, (p, c).
    """

    weights: Floats
    has_class: Bools

    @classmethod
    def of(
        cls,
        predictions: Mapping[str, Prediction],
        truth: Sequence[LabelledImage],
        classes: Sequence[str],
    ) -> ImageRouting:
        """From predictions by image key, and the ground truth."""
        routings = [predictions[labelled.image.key].routing for labelled in truth]
        last = max((expert for routing in routings for expert in routing.experts), default=-1)
        weights = np.zeros((len(truth), last + 1))
        for row, routing in zip(weights, routings, strict=True):
            row[list(routing.experts)] = routing.weights
        labels = [{a.label for a in labelled.annotations} for labelled in truth]
        has_class = [[name in on_image for name in classes] for on_image in labels]
        return cls(weights, np.array(has_class, dtype=bool))

    def per_class(self) -> Floats:
        """Mean weights over the images that show each class, (c, e); 0 for a class without images."""
        images = np.maximum(self.has_class.sum(axis=0), 1)[:, None]
        mean: Floats = self.has_class.T @ self.weights / images
        return mean

    def class_divergence(self, first: int, second: int, counts: Counts) -> Floats:
        """Divergence of the routing of two classes in each of b resamples, (b,); see :func:`divergence`.

        Images that show both classes are ignored.

        Args:
            counts: how often each image counts, (b, p).
        """
        means = [_mean(self.weights, counts * exclusive) for exclusive in self._exclusive(first, second)]
        return divergence(means[0], means[1])

    def image_counts(self, first: int, second: int) -> tuple[int, int]:
        """Numbers of images that show only the first and only the second of two classes."""
        only_first, only_second = self._exclusive(first, second)
        return int(only_first.sum()), int(only_second.sum())

    def _exclusive(self, first: int, second: int) -> tuple[Bools, Bools]:
        a, b = self.has_class[:, first], self.has_class[:, second]
        return a & ~b, b & ~a


def divergence(p: Floats, q: Floats) -> Floats:
    """Jensen-Shannon divergence to base 2 of distributions, row by row, (b,); NaN where a row is NaN.

    0: identical; 1: disjoint. After Lin, "Divergence measures based on the Shannon entropy", 1991.
    """
    middle = (p + q) / 2
    result: Floats = (_kullback_leibler(p, middle) + _kullback_leibler(q, middle)) / 2
    return result.clip(0.0, 1.0)


def _mean(weights: Floats, counts: Counts) -> Floats:
    """Weighted mean of the rows, normalized to sum to 1; NaN without any weight."""
    total = (counts @ weights).sum(axis=1, keepdims=True)
    mean: Floats = np.where(total > 0, counts @ weights / np.where(total > 0, total, 1.0), np.nan)
    return mean


def _kullback_leibler(p: Floats, q: Floats) -> Floats:
    """Kullback-Leibler divergence of rows in bits, with 0 log 0 = 0."""
    ratio = np.where(p > 0, p, 1.0) / np.where(p > 0, q, 1.0)
    result: Floats = (p * np.log2(ratio)).sum(axis=1)
    return result
