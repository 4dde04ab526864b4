"""How unsure the detector is; higher = label sooner."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from dsmoe_core.schema import Detection, Prediction

MIN_SCORE = 0.05
"""Below this probability a detection is not worth a person's look."""


def binary_entropy(probabilities: Float[np.ndarray, "*s c"]) -> Float[np.ndarray, "*s"]:
    """Mean binary entropy over the classes, in nats: 0 where all are sure, ln 2 where all are at one half."""
    p = np.clip(probabilities, 1e-7, 1 - 1e-7)
    entropy: Float[np.ndarray, "*s"] = -(p * np.log(p) + (1 - p) * np.log(1 - p)).mean(-1)
    return entropy


def image_uncertainty(detections: Sequence[Detection]) -> float:
    """How useful a person's look at this image would be: the summed entropy of its detections.

    The sum, not the mean, because an image with many doubtful places teaches more than one with a single
    one (Brust et al., "Active learning for deep object detection", 2019: sum beats mean and maximum). Empty
    images come last, at zero. A place that is found as several classes counts once, as the likeliest.
    """
    return math.fsum(f.entropy for f in detections if f.is_top_class)


def filter_by_score(one: Prediction, min_score: float = MIN_SCORE) -> Prediction:
    """What would have been found above this score, from what was found above a lower one."""
    kept = tuple(f for f in one.detections if f.score >= min_score)
    return replace(one, detections=kept, uncertainty=image_uncertainty(kept))
