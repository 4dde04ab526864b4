"""Calibration of uncertainty scores to probabilities of concrete errors (score_kinds.py).

Fitted on the predictions of a model on labelled images that it was not trained on, and stored in the model's
folder as ``uncertainty.json``. Detections below the operating threshold count by their calibrated probability
of being real, not as equals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from pydantic import Field, ValidationError

from dsmoe_core.atomic import atomic_write
from dsmoe_core.config import Frozen
from dsmoe_core.errors import ModelError
from dsmoe_core.evaluation.matching import ImageMatches, match_images, pairwise_iou
from dsmoe_core.evaluation.operating_point import best_threshold
from dsmoe_core.evaluation.probability_calibration import (
    Calibrator,
    DetectionCalibration,
    fit,
    fit_detections,
    score_columns,
)
from dsmoe_core.schema import Detection, LabelledImage, Prediction
from dsmoe_core.uncertainty.class_distribution import class_scores, fit_class_temperature
from dsmoe_core.uncertainty.concrete_errors import (
    DUPLICATE_IOU,
    detection_errors,
    hidden_detections,
    missed_objects,
    true_classes,
)
from dsmoe_core.uncertainty.entropy import MIN_SCORE
from dsmoe_core.uncertainty.score_kinds import (
    CLASS,
    CLASS_MARGIN,
    LOCALISATION,
    LOCALISATION_75,
    NOVELTY,
    NOVELTY_OTHER,
)

FILE = "uncertainty.json"
DEFAULT_THRESHOLD = 0.5
"""Operating threshold if no detection of the labelled images is correct."""
CORRECT, MISSED, CORRECTIONS = "correct", "missed", "corrections"


class UncertaintyCalibration(Frozen):
    """Curves from raw scores to probabilities.

    Attributes:
        evaluated_on: name of the labelled images and the class book, ``DATASET+BOOK``.
        images: number of labelled images.
        temperature: of the class distribution.
        threshold: operating threshold: the score of the highest F1.
        correct: probability that a detection matches a true box of its class at IoU 0.5.
        scores: probability of the error of each score, by name.
        missed: probability that an image has a missed object, from the expected number of them.
    """

    evaluated_on: str = ""
    images: int = 0
    temperature: float = Field(1.0, gt=0)
    threshold: float = Field(DEFAULT_THRESHOLD, ge=0, le=1)
    correct: DetectionCalibration
    scores: dict[str, Calibrator] = Field(default_factory=dict)
    missed: Calibrator

    def apply(self, prediction: Prediction) -> Prediction:
        """The prediction with calibrated probabilities in ``Detection.risks`` and ``Prediction.risks``.

        The class scores are computed again, with the calibration's temperature.
        """
        scored = with_class_scores(prediction, self.temperature)
        detections = tuple(replace(d, risks=self._risks(d)) for d in scored.detections)
        return replace(prediction, detections=detections, risks=self.image_risks(detections))

    def image_risks(self, detections: Sequence[Detection]) -> dict[str, float]:
        """The risk of missed objects and the expected number of corrections of an image.

        Returns:
            ``missed``: probability that the image has an object without a detection above the threshold.
            ``corrections``: expected number of boxes that an annotator deletes, changes or adds.
        """
        wrong, missed = self.expected_corrections(detections)
        return {MISSED: self.missed.probability(missed), CORRECTIONS: wrong + missed}

    def expected_corrections(self, detections: Sequence[Detection]) -> tuple[float, float]:
        """Expected numbers of false detections above the operating threshold and of objects below it."""
        scores, top, iou = _geometry(detections)
        correct = np.array([self._correct(d) for d in detections], dtype=np.float64)
        shown = top & (scores >= self.threshold)
        hidden = hidden_detections(scores, top, iou, self.threshold)
        return float((1 - correct[shown]).sum()), float(_once(correct, hidden, iou).sum())

    def _correct(self, detection: Detection) -> float:
        return self.correct.probability(detection.label, detection.score)

    def _risks(self, detection: Detection) -> dict[str, float]:
        raw = {**detection.uncertainty, LOCALISATION_75: detection.uncertainty.get(LOCALISATION)}
        risks = {
            name: curve.probability(value)
            for name, curve in self.scores.items()
            if (value := raw.get(name)) is not None
        }
        return {CORRECT: self._correct(detection), **risks}

    def save(self, folder: Path) -> None:
        """Write ``uncertainty.json`` into a model folder."""
        atomic_write(folder / FILE, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> UncertaintyCalibration | None:
        """The calibration that is stored with a model; None if there is none.

        Raises:
            ModelError: the file is damaged.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            return cls.model_validate_json(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            errors = error.errors() if isinstance(error, ValidationError) else []
            reason = errors[0]["msg"] if errors else str(error).partition("\n")[0]
            raise ModelError(
                f"{path} is damaged ({reason})", "Delete it; the next evaluation in a round writes it again."
            ) from error


def fit_calibration(
    predictions: Mapping[str, Prediction],
    truth: Sequence[LabelledImage],
    names: tuple[str, ...],
    *,
    evaluated_on: str = "",
    min_score: float = MIN_SCORE,
) -> UncertaintyCalibration:
    """Fit all curves on the predictions of labelled images.

    Args:
        predictions: by image key; they have the raw scores in ``Detection.uncertainty``.
        truth: images that the model was not trained on.
        names: of the classes.
        min_score: detections with a lower probability do not count.
    """
    kept = {
        key: replace(p, detections=tuple(d for d in p.detections if d.score >= min_score))
        for key, p in predictions.items()
    }
    temperature = _class_temperature(match_images(kept, truth), names)
    kept = {key: with_class_scores(p, temperature) for key, p in kept.items()}
    matched = match_images(kept, truth)
    first = UncertaintyCalibration(
        evaluated_on=evaluated_on,
        images=len(truth),
        temperature=temperature,
        threshold=best_threshold(matched) or DEFAULT_THRESHOLD,
        correct=fit_detections(matched),
        scores=_score_curves(matched, len(names)),
        missed=Calibrator(transform="linear"),
    )
    expected = [first.expected_corrections(image.detections)[1] for image in matched]
    missed = [missed_objects(image, first.threshold) > 0 for image in matched]
    curve = fit(np.array(expected, dtype=np.float64), np.array(missed, dtype=bool), transform="linear")
    return first.model_copy(update={"missed": curve})


def with_class_scores(prediction: Prediction, temperature: float) -> Prediction:
    """The prediction with class scores of another temperature."""
    detections = prediction.detections
    if not detections:
        return prediction
    names = list(detections[0].probabilities)
    table = np.array([[d.probabilities[name] for name in names] for d in detections])
    scores = class_scores(table, np.array([names.index(d.label) for d in detections]), temperature)
    return replace(
        prediction,
        detections=tuple(
            replace(d, uncertainty={**d.uncertainty, CLASS: float(entropy), CLASS_MARGIN: float(margin)})
            for d, entropy, margin in zip(detections, scores.entropy, scores.margin, strict=True)
        ),
    )


def score_samples(
    matched: Sequence[ImageMatches], name: str
) -> tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Raw scores of the detections to which an error applies, and whether they have it."""
    raw_name = LOCALISATION if name == LOCALISATION_75 else name
    rows = [
        (d.uncertainty[raw_name], bool(error))
        for image in matched
        for d, applies, error in zip(image.detections, *detection_errors(image)[name], strict=True)
        if applies and raw_name in d.uncertainty
    ]
    return score_columns(rows)


def novelty_samples(
    matched: Sequence[ImageMatches],
) -> tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Novelty of the detections on objects of their class, once as it is and once as if it were not known."""
    right = [
        d.uncertainty
        for image in matched
        for d, on_object, wrong in zip(image.detections, *detection_errors(image)[CLASS], strict=True)
        if on_object and not wrong and NOVELTY_OTHER in d.uncertainty
    ]
    return score_columns([(u[NOVELTY], False) for u in right] + [(u[NOVELTY_OTHER], True) for u in right])


def _score_curves(matched: Sequence[ImageMatches], classes: int) -> dict[str, Calibrator]:
    """A curve for each score that the detections have."""
    known = {name for image in matched for d in image.detections for name in d.uncertainty}
    known |= {LOCALISATION_75} if LOCALISATION in known else set()
    names = {name for image in matched for name in detection_errors(image)}
    curves = {name: fit(*score_samples(matched, name), transform="linear") for name in sorted(known & names)}
    values, novel = novelty_samples(matched)
    if len(values):
        weights = np.where(novel, 1.0, float(classes))
        prior = 1 / (classes + 1)
        curves[NOVELTY] = fit(values, novel, weights, transform="linear", prior_rate=prior)
    return curves


def _class_temperature(matched: Sequence[ImageMatches], names: tuple[str, ...]) -> float:
    rows, labels = [], []
    for image in matched:
        placed, classes = true_classes(image, names)
        rows += [[image.detections[i].probabilities[name] for name in names] for i in placed]
        labels += classes
    table = np.array(rows, dtype=np.float64).reshape(-1, len(names))
    return fit_class_temperature(table, np.array(labels, dtype=np.int64))


def _geometry(
    detections: Sequence[Detection],
) -> tuple[Float[np.ndarray, " f"], Bool[np.ndarray, " f"], Float[np.ndarray, "f f"]]:
    """Scores, whether each is the top class of its box, and the IoU of all pairs."""
    boxes = [d.box for d in detections]
    return (
        np.array([d.score for d in detections], dtype=np.float64),
        np.array([d.is_top_class for d in detections], dtype=bool),
        pairwise_iou(boxes, boxes),
    )


def _once(
    correct: Float[np.ndarray, " f"], hidden: Bool[np.ndarray, " f"], iou: Float[np.ndarray, "f f"]
) -> Float[np.ndarray, " h"]:
    """Probabilities of the hidden detections, of overlapping ones the highest only."""
    values = []
    remaining = hidden.copy()
    for i in np.argsort(-correct, kind="stable"):
        if remaining[i]:
            values.append(correct[i])
            remaining &= iou[i] < DUPLICATE_IOU
    return np.array(values, dtype=np.float64)
