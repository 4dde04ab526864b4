"""Entropy of detections and of images, the plain measure of uncertainty; does not import torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from dsmoe_core.schema import Detection, Prediction

MIN_SCORE = 0.05
"""Detections with a lower probability are not shown to annotators."""


def binary_entropy(probabilities: Float[np.ndarray, "*s c"]) -> Float[np.ndarray, "*s"]:
    """Compute the mean binary entropy over the classes in nats, from 0 (certain) to ln 2 (all at 0.5)."""
    p = np.clip(probabilities, 1e-7, 1 - 1e-7)
    entropy: Float[np.ndarray, "*s"] = -(p * np.log(p) + (1 - p) * np.log(1 - p)).mean(-1)
    return entropy


def image_uncertainty(detections: Sequence[Detection]) -> float:
    """Compute the uncertainty of an image: the summed entropy of its detections, 0 without any.

    The sum and not the mean, because an image with many doubtful places teaches more than one with a single
    one (Brust et al., "Active learning for deep object detection", 2019: the sum beats mean and maximum). A
    place detected as several classes counts once, as the most probable class.
    """
    return math.fsum(d.entropy for d in detections if d.is_top_class)


def filter_by_score(prediction: Prediction, min_score: float = MIN_SCORE) -> Prediction:
    """Keep the detections with at least this score, and recompute the image's uncertainty."""
    detections = tuple(d for d in prediction.detections if d.score >= min_score)
    return replace(prediction, detections=detections, uncertainty=image_uncertainty(detections))
