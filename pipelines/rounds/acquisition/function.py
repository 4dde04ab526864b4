"""Interface of acquisition functions: they score the unlabelled images of a round. Higher = label sooner."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsmoe_core.schema import Detection, LabelledImage, Prediction
from pipelines.workspace.annotation_time import DEFAULT_SECONDS

Vectors = NDArray[np.floating[Any]]
"""Embeddings, n x d, rows of length 1."""
Values = NDArray[np.float64]


class ReviewedImage(NamedTuple):
    """An image with the prediction that a model made before it was trained on the image, and its labels."""

    prediction: Prediction
    labelled: LabelledImage


def no_vectors() -> Vectors:
    """No embedding: the detector makes none, or there is no image."""
    return np.zeros((0, 0), dtype=np.float32)


def score_of(detection: Detection) -> float:
    """The score itself, for a detector without a calibration."""
    return detection.score


@dataclass(frozen=True, slots=True)
class Candidates:
    """The images that a round may select, and what is known about them.

    The callables compute when they are called; a function that does not call ``predict`` or ``embeddings``
    needs no detector and is much faster.

    Attributes:
        keys: image keys, without duplicates.
        predict: the champion's predictions on all candidates, one at a time, in the order of ``keys``. The
            first call runs the detector on images without a stored prediction.
        seed: for functions that sample; the same seed gives the same scores.
        budget: images that the round selects at most; functions that select greedily select this many.
        embeddings: of the candidates, in the order of ``keys``, n x d, rows of length 1; 0 x 0 if the
            detector makes none.
        labelled_embeddings: of the labelled images, m x d, rows of length 1; 0 x 0 without any.
        class_counts: labelled boxes of every class of the class book.
        probability: that a detection is correct, calibrated, 0 to 1.
        seconds: annotator time by kind of work, see ``pipelines.workspace.annotation_time``.
        reviewed: labelled images with predictions from before their labels.
        shown_score: lowest score of a detection of a class that annotators are shown as a pre-annotation.
        class_minimum: boxes of every class that a selection should have, if the pool has them.
    """

    keys: Sequence[str]
    predict: Callable[[], Iterable[Prediction]]
    seed: int
    budget: int = 40
    embeddings: Callable[[], Vectors] = no_vectors
    labelled_embeddings: Callable[[], Vectors] = no_vectors
    class_counts: Callable[[], Mapping[str, int]] = dict
    probability: Callable[[Detection], float] = score_of
    seconds: Callable[[], Mapping[str, float]] = DEFAULT_SECONDS.copy
    reviewed: Callable[[], Iterable[ReviewedImage]] = tuple
    shown_score: Callable[[str], float] = lambda _: 0.3
    class_minimum: float = 1.0


@dataclass(frozen=True, slots=True)
class AcquisitionFunction:
    """An acquisition function.

    Attributes:
        description: what it favours, in one sentence.
        score: a finite score for every candidate, by image key. It may depend on nothing but its argument,
            and not on the order of the candidates. A function that selects greedily gives the images in the
            order of its selection the highest scores.
        needs_embeddings: whether it fails for a detector that makes no embeddings.
    """

    description: str
    score: Callable[[Candidates], Mapping[str, float]]
    needs_embeddings: bool = False
