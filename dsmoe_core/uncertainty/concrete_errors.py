"""Which detections have the errors that the uncertainty scores predict, on labelled images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from dsmoe_core.evaluation.matching import IOU_THRESHOLD, ImageMatches
from dsmoe_core.uncertainty.score_kinds import (
    CLASS,
    CLASS_MARGIN,
    DESCRIPTION,
    LOCALISATION,
    LOCALISATION_75,
    ROUTING,
    ROUTING_ENTROPY,
)

MIN_IOU = 0.1
"""A box with a lower IoU misses the object; it is not badly placed."""
STRICT_IOU = 0.75
DUPLICATE_IOU = 0.5
"""A detection below the operating threshold with this IoU or more is the object of one above it."""


class ErrorLabels(NamedTuple):
    """One error for all detections of an image.

    Attributes:
        applies: whether the question arises for the detection.
        error: whether the detection has the error.
    """

    applies: Bool[np.ndarray, " f"]
    error: Bool[np.ndarray, " f"]


def detection_errors(image: ImageMatches) -> dict[str, ErrorLabels]:
    """The errors of the detections of an image, by score name.

    A place with several detections counts once, as the most probable class.
    """
    count = len(image.detections)
    top = np.array([d.is_top_class for d in image.detections], dtype=bool)
    best = image.iou.max(axis=1, initial=0.0)
    own = np.where(image.same_class, image.iou, 0.0).max(axis=1, initial=0.0)
    placed = top & (best >= IOU_THRESHOLD)
    wrong = np.zeros(count, dtype=bool)
    if image.iou.size:
        wrong = ~image.same_class[np.arange(count), image.iou.argmax(axis=1)]
    near = top & (own >= MIN_IOU)
    false = ErrorLabels(top, ~image.correct)
    of_class = ErrorLabels(placed, placed & wrong)
    return {
        CLASS: of_class,
        CLASS_MARGIN: of_class,
        DESCRIPTION: of_class,
        LOCALISATION: ErrorLabels(near, near & (own < IOU_THRESHOLD)),
        LOCALISATION_75: ErrorLabels(near, near & (own < STRICT_IOU)),
        ROUTING: false,
        ROUTING_ENTROPY: false,
    }


def true_classes(image: ImageMatches, names: tuple[str, ...]) -> tuple[list[int], list[int]]:
    """Detections that overlap with a true box, and the indices of their true classes.

    Returns:
        Indices of the detections, and the class of the true box with the highest IoU.
    """
    placed = np.flatnonzero(detection_errors(image)[CLASS].applies)
    labels = [names.index(image.truth[int(image.iou[i].argmax())].label) for i in placed]
    return placed.tolist(), labels


def missed_objects(image: ImageMatches, threshold: float) -> int:
    """Number of true boxes that no correct detection of at least this score matches."""
    return int((image.truth_scores < threshold).sum())


def hidden_detections(
    scores: Float[np.ndarray, " f"],
    top: Bool[np.ndarray, " f"],
    iou: Float[np.ndarray, "f f"],
    threshold: float,
) -> Bool[np.ndarray, " f"]:
    """Detections below the threshold that may be objects of their own.

    Args:
        scores: of the detections.
        top: whether no other class has a higher probability in the box.
        iou: of every detection with every detection.
    """
    shown = scores >= threshold
    covered = (iou[:, shown & top] >= DUPLICATE_IOU).any(axis=1)
    return ~shown & top & ~covered
