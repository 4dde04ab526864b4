"""Detections of several classes on one place brought down to one, for whoever looks at an image."""

from __future__ import annotations

from collections.abc import Iterable

from dsmoe_core.evaluation.matching import pairwise_iou
from dsmoe_core.schema import Detection

SUPPRESSION_IOU = 0.4
"""Detections that overlap so much (intersection over union) are of one place."""


def suppress_across_classes(detections: Iterable[Detection]) -> list[Detection]:
    """Of detections on top of each other the surest alone, of whatever class; highest score first."""
    kept: list[Detection] = []
    for detection in sorted(detections, key=lambda f: -f.score):
        over = pairwise_iou([detection.box], [other.box for other in kept])
        if not (over >= SUPPRESSION_IOU).any():
            kept.append(detection)
    return kept
