"""Selects the detections that annotators are shown as pre-annotations."""

from __future__ import annotations

from dataclasses import replace

from dsmoe_core.cross_class_nms import suppress_across_classes
from dsmoe_core.schema import Prediction
from pipelines.settings.rounds import RoundSettings


def pre_annotations(prediction: Prediction, settings: RoundSettings) -> Prediction:
    """The prediction with the detections that become pre-annotations, highest score first.

    Detections below ``pre_annotation_score`` are left out, as deleting many wrong boxes takes annotators
    longer than drawing the missing ones. Of overlapping detections of several classes that with the highest
    score remains; its second-best class (:attr:`Detection.second_best`) is shown with it, because relabelling
    a box is faster than deleting it. At most ``max_pre_annotations`` detections are returned.
    """
    confident = [d for d in prediction.detections if d.score >= settings.pre_annotation_score]
    detections = suppress_across_classes(confident)[: settings.max_pre_annotations]
    return replace(prediction, detections=tuple(detections))
