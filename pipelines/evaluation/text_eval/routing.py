"""Which experts look at which class, and whether a book tells classes apart that are confused."""

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
    """How p images went through e experts, and which of c classes they show.

    Attributes:
        weights: of the router, 0 for an expert that was not chosen, (p, e); e is up to the last expert that
            was ever chosen, 0 for a network without a router.
        shows: (p, c).
    """

    weights: Floats
    shows: Bools

    @classmethod
    def of(
        cls,
        detections: Mapping[str, Prediction],
        truth: Sequence[LabelledImage],
        classes: Sequence[str],
    ) -> ImageRouting:
        """From detections by image key."""
        routings = [detections[one.image.key].routing for one in truth]
        last = max((expert for one in routings for expert in one.experts), default=-1)
        weights = np.zeros((len(truth), last + 1))
        for row, one in zip(weights, routings, strict=True):
            row[list(one.experts)] = one.weights
        labels = [{a.label for a in one.annotations} for one in truth]
        return cls(weights, np.array([[name in here for name in classes] for here in labels], dtype=bool))

    def per_class(self) -> Floats:
        """Mean weights on the images that show each class, (c, e); 0 where none does."""
        images = np.maximum(self.shows.sum(axis=0), 1)[:, None]
        mean: Floats = self.shows.T @ self.weights / images
        return mean

    def apart(self, one: int, other: int, counts: Counts) -> Floats:
        """How differently the images of two classes are routed, in each of b resamples, (b,).

        Images that show both say nothing of a difference and are left out.

        Args:
            counts: how often each image counts, (b, p).
        """
        alone = self.shows[:, one] & ~self.shows[:, other], self.shows[:, other] & ~self.shows[:, one]
        means = [_mean(self.weights, counts * chosen) for chosen in alone]
        return divergence(means[0], means[1])

    def images(self, one: int, other: int) -> tuple[int, int]:
        """How many show the one and not the other, and the other way round."""
        a, b = self.shows[:, one], self.shows[:, other]
        return int((a & ~b).sum()), int((b & ~a).sum())


def divergence(p: Floats, q: Floats) -> Floats:
    """Of distributions, row by row: 0 (alike) to 1 (nothing in common), (b,); NaN where a row is NaN.

    The Jensen-Shannon divergence to base 2 (Lin, "Divergence measures based on the Shannon entropy", 1991).
    """
    middle = (p + q) / 2
    answer: Floats = (_relative(p, middle) + _relative(q, middle)) / 2
    return answer.clip(0.0, 1.0)


def _mean(weights: Floats, counts: Counts) -> Floats:
    """Weighted mean of the rows, made to sum up to one; NaN where nothing counts."""
    total = (counts @ weights).sum(axis=1, keepdims=True)
    mean: Floats = np.where(total > 0, counts @ weights / np.where(total > 0, total, 1.0), np.nan)
    return mean


def _relative(p: Floats, q: Floats) -> Floats:
    """Kullback-Leibler, of rows, in bits; 0 log 0 is 0."""
    ratio = np.where(p > 0, p, 1.0) / np.where(p > 0, q, 1.0)
    answer: Floats = (p * np.log2(ratio)).sum(axis=1)
    return answer
