"""Types of the search for label errors: a probable error, and the interface of a method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dsmoe_core.schema import Box, Detection, ImageRecord, LabelledImage, Prediction


class ErrorKind(StrEnum):
    """What is probably wrong with the labels of an image."""

    MISSED = "missed"
    """A defect without a box (ObjectLab: overlooked)."""
    MISPLACED = "misplaced"
    """A box that does not fit its defect (ObjectLab: badly located)."""
    MISLABELLED = "mislabelled"
    """A box of the wrong class (ObjectLab: swapped)."""


@dataclass(frozen=True, slots=True)
class LabelError:
    """One probable label error.

    Attributes:
        score: 0 to 1, higher = more probably an error; comparable within a method and a kind.
        annotation: index of the box in the labels of the image; None for a missed defect.
        box, label: the annotated box; for a missed defect the detection.
        suggested_box, suggested_label: what the detector says instead; None where it says nothing.
        reason: one sentence for the reviewer.
    """

    image: ImageRecord
    kind: ErrorKind
    score: float
    annotation: int | None
    box: Box
    label: str
    suggested_box: Box | None
    suggested_label: str | None
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """The error as JSON values; boxes are (x1, y1, x2, y2) in pixels."""
        suggested = self.suggested_box.corners if self.suggested_box else None
        return {
            "image": self.image.name,
            "key": self.image.key,
            "kind": str(self.kind),
            "score": round(self.score, 6),
            "annotation": self.annotation,
            "box": [round(v, 2) for v in self.box.corners],
            "label": self.label,
            "suggested_box": suggested and [round(v, 2) for v in suggested],
            "suggested_label": self.suggested_label,
            "reason": self.reason,
        }


FindLabelErrors = Callable[
    [Sequence[LabelledImage], Mapping[str, Prediction], Sequence[str]], list[LabelError]
]
"""From labelled images, predictions by image key and class names to all candidates, most probable first."""


def detections_from(prediction: Prediction, min_score: float) -> list[Detection]:
    """The detections from this score on, by descending score; ties by their corners."""
    kept = [d for d in prediction.detections if d.score >= min_score]
    return sorted(kept, key=lambda d: (-d.score, d.box.corners))


def missed(image: ImageRecord, detection: Detection, score: float, reason: str) -> LabelError:
    """A detection that no annotated box explains."""
    box, label = detection.box, detection.label
    return LabelError(image, ErrorKind.MISSED, score, None, box, label, box, label, reason)


def ranked(errors: Sequence[LabelError]) -> list[LabelError]:
    """The errors by descending score; ties by image, kind and box, so that the order is always the same."""
    return sorted(errors, key=lambda e: (-e.score, e.image.key, e.kind, e.annotation or 0, e.box.corners))
