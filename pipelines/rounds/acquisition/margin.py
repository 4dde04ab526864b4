"""Acquisition function ``margin``: detections whose two most probable explanations are equally probable."""

from __future__ import annotations

import math

from dsmoe_core.schema import Detection
from pipelines.rounds.acquisition.function import AcquisitionFunction, Candidates


def margin_scores(candidates: Candidates) -> dict[str, float]:
    """Sum over the detections of ``(1 - (p1 - p2))^2``; 0 for an image without detections.

    Follows Brust et al., "Active learning for deep object detection", 2019, eq. 1 ("1-vs-2") with the sum
    over the detections. Differs: the probabilities are sigmoids, so background counts as a class with
    probability ``1 - p1``; without it a very improbable detection would look uncertain. A place that is
    detected as several classes counts once.
    """
    return {
        p.key: math.fsum((1 - _margin(d)) ** 2 for d in p.detections if d.is_top_class)
        for p in candidates.predict()
    }


def _margin(detection: Detection) -> float:
    """Difference of the two highest probabilities among the classes and background, 0 to 1."""
    second = detection.second_best
    values = sorted((detection.score, 1 - detection.score, second[1] if second else 0.0))
    return values[-1] - values[-2]


MARGIN = AcquisitionFunction(
    "images with detections between two classes, or class and background", margin_scores
)
