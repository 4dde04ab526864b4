"""Non-maximum suppression across classes, for pages and pre-annotations that show one box per place."""

from __future__ import annotations

from collections.abc import Iterable

from dsmoe_core.evaluation.matching import pairwise_iou
from dsmoe_core.schema import Detection

SUPPRESSION_IOU = 0.4
"""Minimum IoU at which a detection suppresses another of lower score."""


def suppress_across_classes(detections: Iterable[Detection]) -> list[Detection]:
    """Keep the detection of the highest score among overlapping ones of any class.

    Returns:
        The kept detections, highest score first.
    """
    kept: list[Detection] = []
    for detection in sorted(detections, key=lambda d: -d.score):
        iou = pairwise_iou([detection.box], [better.box for better in kept])
        if not (iou >= SUPPRESSION_IOU).any():
            kept.append(detection)
    return kept
