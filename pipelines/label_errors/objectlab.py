"""Methods ``objectlab`` and ``objectlab-f1``: cleanlab's ObjectLab.

Tkachenko, Thyagarajan, Mueller, "ObjectLab: Automated Diagnosis of Mislabeled Images in Object Detection
Data", 2023. Its default thresholds, 0.5 and 0.95, fit the softmax scores of the paper's detectors. The
sigmoid scores of a detector with few training images seldom reach them, so ``objectlab-f1`` has both
thresholds at the score of the best F1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dsmoe_core.errors import PrerequisiteError
from dsmoe_core.evaluation.matching import match_images, pairwise_iou
from dsmoe_core.evaluation.operating_point import best_threshold
from dsmoe_core.schema import Detection, LabelledImage, Prediction
from pipelines.label_errors.calibration import Floats
from pipelines.label_errors.label_error import ErrorKind, LabelError, missed, ranked

MIN_SCORE = 0.05
"""Detections with a lower score are not given to ObjectLab."""
ALPHA, DISTANCE_FACTOR = 0.9, 0.1
"""ObjectLab's share of the IoU in the similarity of two boxes, and its factor of the distance in pixels."""
_REASONS = {
    ErrorKind.MISPLACED: "ObjectLab: similarity {quality:.2f} with the nearest detection of its class",
    ErrorKind.MISLABELLED: "ObjectLab: swap quality {quality:.2f}, from the nearest other class",
}


def objectlab_label_errors(
    labelled: Sequence[LabelledImage], predictions: Mapping[str, Prediction], classes: Sequence[str]
) -> list[LabelError]:
    """See ``FindLabelErrors``; the score is one minus ObjectLab's quality of the box.

    Raises:
        PrerequisiteError: cleanlab is not installed.
    """
    return _find(labelled, predictions, classes, None)


def objectlab_f1_label_errors(
    labelled: Sequence[LabelledImage], predictions: Mapping[str, Prediction], classes: Sequence[str]
) -> list[LabelError]:
    """See ``objectlab_label_errors``; both thresholds are the score of the best F1 on the given labels.

    Raises:
        PrerequisiteError: cleanlab is not installed.
    """
    return _find(labelled, predictions, classes, best_threshold(match_images(predictions, labelled)))


def _find(
    labelled: Sequence[LabelledImage],
    predictions: Mapping[str, Prediction],
    classes: Sequence[str],
    threshold: float | None,
) -> list[LabelError]:
    """All candidates.

    Args:
        threshold: of the scores; None: ObjectLab's defaults.
    """
    rank = _cleanlab_rank()
    detections = [_kept(predictions[item.image.key], classes) for item in labelled]
    inputs = auxiliary_inputs(labelled, detections, classes)
    high, low = {"high_probability_threshold": threshold}, {"low_probability_threshold": threshold}
    overlooked = rank.compute_overlooked_box_scores(auxiliary_inputs=inputs, **high)
    of_boxes = {
        ErrorKind.MISPLACED: rank.compute_badloc_box_scores(auxiliary_inputs=inputs, **low),
        ErrorKind.MISLABELLED: rank.compute_swap_box_scores(auxiliary_inputs=inputs, **high),
    }
    errors = []
    for i, item in enumerate(labelled):
        for detection, quality in zip(detections[i], overlooked[i], strict=True):
            if np.isfinite(quality):  # NaN: not a candidate
                reason = f"ObjectLab: overlooked quality {quality:.2f}, detected with {detection.score:.2f}"
                errors.append(missed(item.image, detection, 1 - float(quality), reason))
        for kind, qualities in of_boxes.items():
            errors += [
                _of_box(item, index, kind, float(quality)) for index, quality in enumerate(qualities[i])
            ]
    return ranked(errors)


def auxiliary_inputs(
    labelled: Sequence[LabelledImage], detections: Sequence[Sequence[Detection]], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """The boxes and their similarities as ObjectLab takes them, once for its three scores.

    ObjectLab computes the same values box by box in Python, a hundred times slower.
    """
    index = {name: i for i, name in enumerate(classes)}
    inputs = []
    for item, of_image in zip(labelled, detections, strict=True):
        boxes = [a.box for a in item.annotations]
        iou = pairwise_iou(boxes, [d.box for d in of_image])
        label_corners = _corners(boxes)
        corners = _corners([d.box for d in of_image])
        centres = [(c[:, :2] + c[:, 2:]) / 2 for c in (label_corners, corners)]
        distance = np.linalg.norm(centres[0][:, None] - centres[1][None], axis=-1)
        inputs.append(
            {
                "pred_labels": np.array([index[d.label] for d in of_image], dtype=int),
                "pred_label_probs": np.array([d.score for d in of_image], dtype=float),
                "pred_bboxes": corners,
                "lab_labels": np.array([index[a.label] for a in item.annotations], dtype=int),
                "lab_bboxes": label_corners,
                "similarity_matrix": iou * ALPHA + (1 - ALPHA) * np.exp(-distance * DISTANCE_FACTOR),
                "iou_matrix": iou,
            }
        )
    lowest = min((m[m > 0].min(initial=1.0) for i in inputs for m in (i["similarity_matrix"],)), default=1.0)
    return [{**entry, "min_possible_similarity": lowest} for entry in inputs]


def _corners(boxes: Sequence[Any]) -> Floats:
    corners: Floats = np.array([b.corners for b in boxes], dtype=np.float64).reshape(-1, 4)
    return corners


def _kept(prediction: Prediction, classes: Sequence[str]) -> list[Detection]:
    return [d for d in prediction.detections if d.score >= MIN_SCORE and d.label in classes]


def _cleanlab_rank() -> Any:
    try:
        from cleanlab.object_detection import rank
    except ImportError as error:
        raise PrerequisiteError(
            "cleanlab is not installed, which method objectlab needs",
            "Install it with `pip install 'dsmoe[active]'`, or use --method dsmoe.",
        ) from error
    return rank


def _of_box(item: LabelledImage, index: int, kind: ErrorKind, quality: float) -> LabelError:
    annotation = item.annotations[index]
    reason = _REASONS[kind].format(quality=quality)
    return LabelError(
        item.image, kind, 1 - quality, index, annotation.box, annotation.label, None, None, reason
    )
