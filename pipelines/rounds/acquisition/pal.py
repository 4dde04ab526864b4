"""Acquisition function ``pal``: detections that may be right or wrong, rare classes, dissimilar images."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from dsmoe_core.evaluation.matching import match_images
from dsmoe_core.schema import Detection, Prediction
from dsmoe_core.uncertainty import image_uncertainty
from pipelines.rounds.acquisition.function import AcquisitionFunction, Candidates, ReviewedImage, Values
from pipelines.rounds.acquisition.greedy import Shortlist
from pipelines.rounds.acquisition.pool_arrays import PoolArrays

MIN_OUTCOMES = 10
"""True and false positives of a class that its model needs, each."""
_RIDGE = 1.0
_NEWTON_STEPS = 25
Features = tuple[float, float, float]


def pal_scores(candidates: Candidates) -> dict[str, float]:
    """Uncertainty of the outcome of the detections, times class weight, image entropy and dissimilarity.

    The outline is that of "Portable active learning for object detection" (PAL, CVPR 2026), of which only
    summaries were available here:

    1. A logistic model per class gives the probability that a detection is a true positive, from its
       confidence and a count of boxes. Its binary entropy is the uncertainty of the detection.
    2. The sum over the image is weighted up for classes with few labelled boxes, and for images of high
       entropy; images similar to labelled or selected ones are weighted down.

    Differs: the count is that of the image's detections of the class after non-maximum suppression, because
    the boxes before it are not stored; the model is fitted on images with predictions from before their
    labels; a class with fewer than 10 true or false positives uses the calibrated probability. The forms of
    the weights are ours: ``1 / sqrt(1 + boxes of the class)`` relative to the rarest class, ``1 +`` the mean
    binary entropy of the detections over ln 2, and one minus the highest cosine of centred embeddings.
    """
    pool = PoolArrays(candidates)
    models = outcome_models(candidates.reviewed())
    weights = class_weights(candidates.class_counts())

    def value(prediction: Prediction) -> Sequence[float]:
        counts = Counter(d.label for d in prediction.detections)
        uncertainty = math.fsum(
            weights.get(d.label, 1.0)
            * _binary_entropy(_true_positive(d, counts[d.label], models, candidates))
            for d in prediction.detections
            if d.is_top_class
        )
        places = sum(d.is_top_class for d in prediction.detections)
        entropy = image_uncertainty(prediction.detections) / (places * math.log(2)) if places else 0.0
        return [uncertainty * (1 + entropy)]

    gains = pool.per_image(value, 1)[:, 0]
    shortlist = Shortlist(gains, pool.vectors(), candidates.labelled_embeddings, candidates.budget)
    return pool.scores(shortlist.scores(candidates.budget, lambda rows: gains[rows], lambda _: None))


def class_weights(counts: Mapping[str, int]) -> dict[str, float]:
    """``1 / sqrt(1 + boxes)`` of each class relative to the class with the fewest boxes: 1 for that one."""
    fewest = min(counts.values(), default=0)
    return {name: math.sqrt((1 + fewest) / (1 + count)) for name, count in counts.items()}


def outcome_models(reviewed: Iterable[ReviewedImage]) -> dict[str, Values]:
    """Logistic model by class: the probability that a detection is correct, from confidence and count.

    Returns:
        Coefficients of 1, the logit of the score and the logarithm of the count, for the classes with enough
        outcomes.
    """
    rows: dict[str, list[Features]] = {}
    outcomes: dict[str, list[bool]] = {}
    for prediction, labelled in reviewed:
        counts = Counter(d.label for d in prediction.detections)
        (matches,) = match_images({labelled.image.key: prediction}, [labelled])
        for detection, correct in zip(matches.detections, matches.correct, strict=True):
            rows.setdefault(detection.label, []).append(_features(detection, counts[detection.label]))
            outcomes.setdefault(detection.label, []).append(bool(correct))
    return {
        label: _logistic(np.array(features), np.array(outcomes[label]))
        for label, features in rows.items()
        if MIN_OUTCOMES <= sum(outcomes[label]) <= len(features) - MIN_OUTCOMES
    }


def _features(detection: Detection, count: int) -> Features:
    score = min(max(detection.score, 1e-6), 1 - 1e-6)
    return 1.0, math.log(score / (1 - score)), math.log(count)


def _logistic(features: Values, outcomes: Values) -> Values:
    """Ridge-regularised logistic regression by Newton's method; the intercept is not regularised."""
    ridge = np.diag([1e-6] + [_RIDGE] * (features.shape[1] - 1))
    coefficients = np.zeros(features.shape[1])
    for _ in range(_NEWTON_STEPS):
        p = 0.5 * (1 + np.tanh(features @ coefficients / 2))
        gradient = features.T @ (p - outcomes) + ridge @ coefficients
        hessian = (features * (p * (1 - p))[:, None]).T @ features + ridge
        step = np.linalg.solve(hessian, gradient)
        coefficients -= np.clip(step, -5, 5)
        if np.abs(step).max() < 1e-9:
            break
    return coefficients


def _true_positive(
    detection: Detection, count: int, models: Mapping[str, Values], candidates: Candidates
) -> float:
    model = models.get(detection.label)
    if model is None:
        return candidates.probability(detection)
    return 0.5 * (1 + math.tanh(float(np.dot(model, _features(detection, count))) / 2))


def _binary_entropy(p: float) -> float:
    p = min(max(p, 1e-9), 1 - 1e-9)
    return -(p * math.log(p) + (1 - p) * math.log(1 - p))


PAL = AcquisitionFunction(
    "images whose detections may be right or wrong, of rare classes and dissimilar", pal_scores
)
