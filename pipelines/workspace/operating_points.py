"""Operating points of a model: from which score on its detections are shown to annotators, by class."""

from __future__ import annotations

from pydantic import Field

from dsmoe_core.config import Frozen
from dsmoe_core.evaluation.probability_calibration import DetectionCalibration
from pipelines.workspace.annotation_time import CorrectionSeconds


class OperatingPoints(Frozen):
    """Score thresholds of a model that make the expected correction time least; ``operating_points.json``.

    A detection is shown if annotators keep it with at least the probability ``min_probability``.

    Attributes:
        evaluated_on: test set and class book, ``DATASET+BOOK``.
        images: number of images of the test set.
        seconds: seconds per correction that the thresholds were computed with.
        thresholds: lowest score that is shown, by class.
        other_classes: the same for a class without detections on the test set.
        correct: probability that a detection matches a box of its class at IoU 0.5 or more.
        kept: probability that annotators keep a detection: accept, move or relabel it.
    """

    evaluated_on: str
    images: int
    seconds: CorrectionSeconds
    min_probability: float = Field(ge=0, le=1)
    thresholds: dict[str, float]
    other_classes: float
    correct: DetectionCalibration
    kept: DetectionCalibration

    def threshold(self, label: str) -> float:
        """Lowest score of a detection of this class that is shown."""
        return self.thresholds.get(label, self.other_classes)
