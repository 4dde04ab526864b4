"""The calibrated probability that a detection is correct, from images labelled after a prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

from dsmoe_core.evaluation.matching import match_images
from dsmoe_core.evaluation.probability_calibration import DetectionCalibration, fit_detections
from dsmoe_core.schema import Detection
from pipelines.rounds.acquisition.function import ReviewedImage, score_of

MIN_DETECTIONS = 30
"""With fewer detections on reviewed images, the score is not calibrated."""


def calibrated_probability(reviewed: Iterable[ReviewedImage]) -> Callable[[Detection], float]:
    """The probability that a detection matches a true box of its class at an IoU of 0.5.

    Args:
        reviewed: labelled images with predictions of models that were not trained on them.

    Returns:
        The probability of a detection, of its score rounded to 0.001; the score itself with too few
        reviewed detections.
    """
    matched = [
        match
        for prediction, labelled in reviewed
        for match in match_images({labelled.image.key: prediction}, [labelled])
    ]
    if sum(len(match.detections) for match in matched) < MIN_DETECTIONS:
        return score_of
    return probability_of(fit_detections(matched))


def probability_of(calibration: DetectionCalibration) -> Callable[[Detection], float]:
    """The probability of a detection by this calibration, of its score rounded to 0.001."""

    @lru_cache(maxsize=100_000)
    def probability(label: str, thousandths: int) -> float:
        return calibration.probability(label, thousandths / 1000)

    return lambda detection: probability(detection.label, round(1000 * detection.score))
