"""Whether the uncertainty scores predict the errors that they are meant for: content of uncertainty.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from dsmoe_core.evaluation.bootstrap import Interval, resample_counts
from dsmoe_core.evaluation.calibration import expected_calibration_error
from dsmoe_core.evaluation.matching import IOU_THRESHOLD, ImageMatches, match_images
from dsmoe_core.evaluation.ranking import Ranking, compare_auroc, compare_spearman
from dsmoe_core.schema import LabelledImage, Prediction
from dsmoe_core.uncertainty.calibration import (
    CORRECTIONS,
    MISSED,
    UncertaintyCalibration,
    fit_calibration,
)
from dsmoe_core.uncertainty.concrete_errors import detection_errors, missed_objects
from dsmoe_core.uncertainty.score_kinds import (
    CLASS,
    CLASS_MARGIN,
    DESCRIPTION,
    LOCALISATION,
    LOCALISATION_75,
    NOVELTY,
    ROUTING,
    ROUTING_ENTROPY,
    SCORE_KINDS,
)
from pipelines.benchmarks.uncertainty_samples import Samples

Plain = dict[str, Any]
Row = tuple[float, float, float, int, float, float]
"""The columns of ``Table``."""
DETECTION_SCORES = (
    CLASS,
    CLASS_MARGIN,
    DESCRIPTION,
    LOCALISATION,
    LOCALISATION_75,
    ROUTING,
    ROUTING_ENTROPY,
)
CONFIDENT = 0.3
"""Score from which on detections also count on their own."""


@dataclass(frozen=True)
class Table:
    """One row per sample: scores, the baseline (plain entropy), the error, and the image.

    Attributes:
        risk: calibrated probability of the error, fitted on other images; NaN without.
        low_score: a second baseline, 1 minus the detection's score; NaN for images.
    """

    scores: Float[np.ndarray, " n"]
    baseline: Float[np.ndarray, " n"]
    target: Float[np.ndarray, " n"]
    image: Int[np.ndarray, " n"]
    risk: Float[np.ndarray, " n"]
    low_score: Float[np.ndarray, " n"]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Table:
        """The table of these rows."""
        columns = np.array(rows, dtype=np.float64).reshape(-1, 6).T
        image = columns[3].astype(np.int64)
        return cls(columns[0], columns[1], columns[2], image, columns[4], columns[5])

    @property
    def error(self) -> Bool[np.ndarray, " n"]:
        """The target as a yes or no."""
        return self.target > 0


def evaluate_scores(
    samples: Samples,
    truth: Sequence[LabelledImage],
    names: tuple[str, ...],
    other: Sequence[Prediction],
    *,
    resamples: int,
    seed: int,
) -> Plain:
    """Evaluate every score against plain entropy.

    Calibrated values of an image come from a calibration that was fitted on the other half of the images.

    Args:
        truth: the labelled images of the samples.
        names: of the classes.
        other: predictions of images of another data set; may be empty.
        resamples, seed: of the bootstrap over images.
    """
    calibrated = _cross_fitted(samples.complete, truth, names, seed)
    matched = match_images(calibrated.predictions, truth)
    counts = resample_counts(len(truth), resamples, seed)
    scores = {name: _row(name, _detection_table(matched, name), counts) for name in DETECTION_SCORES}
    scores[NOVELTY] = _row(NOVELTY, _novelty_table(samples, truth, calibrated), counts)
    result: Plain = {
        "images": len(truth),
        "boxes": sum(len(p.annotations) for p in truth),
        "detections": sum(len(p.detections) for p in samples.complete.values()),
        "resamples": resamples,
        "threshold": calibrated.halves[0].threshold,
        "temperature": calibrated.halves[0].temperature,
        "scores": scores,
        "localisation_spearman": _localisation_rows(matched, counts),
        "novelty_per_class": _novelty_per_class(samples, truth, counts),
        "images_scores": _image_rows(matched, calibrated, counts),
    }
    if other:
        result["other_data"] = _other_data(samples, truth, other, resamples, seed)
    return result


@dataclass(frozen=True)
class CrossFitted:
    """Predictions with risks, and the calibration that each image was not part of.

    Attributes:
        half: of each image, 0 or 1, in the order of the labelled images.
    """

    predictions: dict[str, Prediction]
    halves: tuple[UncertaintyCalibration, UncertaintyCalibration]
    half: tuple[int, ...]


def _cross_fitted(
    predictions: dict[str, Prediction], truth: Sequence[LabelledImage], names: tuple[str, ...], seed: int
) -> CrossFitted:
    order = np.random.default_rng(seed).permutation(len(truth))
    half = np.zeros(len(truth), dtype=np.int64)
    half[order[1::2]] = 1
    fitted = [
        fit_calibration(predictions, [p for p, h in zip(truth, half, strict=True) if h != own], names)
        for own in (0, 1)
    ]
    halves = (fitted[0], fitted[1])
    calibrated = {
        p.image.key: halves[h].apply(predictions[p.image.key]) for p, h in zip(truth, half, strict=True)
    }
    return CrossFitted(calibrated, halves, tuple(half.tolist()))


def _detection_table(matched: Sequence[ImageMatches], name: str) -> Table:
    raw = LOCALISATION if name == LOCALISATION_75 else name
    rows = []
    for number, image in enumerate(matched):
        for d, applies, error in zip(image.detections, *detection_errors(image)[name], strict=True):
            if applies and raw in d.uncertainty:
                risk = d.risks.get(name, np.nan)
                rows.append((d.uncertainty[raw], d.entropy, float(error), number, risk, 1 - d.score))
    return Table.of(rows)


def evaluate_unseen_class(
    predictions: dict[str, Prediction],
    truth: Sequence[LabelledImage],
    name: str,
    *,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Plain]]:
    """How well scores separate detections on objects of a class that the model never saw from all others.

    Args:
        predictions: by image key, of a model that was trained without the class.
        truth: with boxes of the class.

    Returns:
        By score: among all detections (``all``), most of which are background, and among those that have an
        IoU of 0.5 or more with a true box of any class (``on_objects``).
    """
    counts = resample_counts(len(truth), resamples, seed)

    def measured(score: str, *, on_objects: bool) -> Plain:
        rows = _novelty_rows(predictions, truth, name, None, score=score, on_objects=on_objects)
        return _auroc(Table.of(rows), counts)

    return {
        score: {"all": measured(score, on_objects=False), "on_objects": measured(score, on_objects=True)}
        for score in (NOVELTY, DESCRIPTION)
    }


def _novelty_rows(
    predictions: dict[str, Prediction],
    truth: Sequence[LabelledImage],
    name: str,
    calibrated: CrossFitted | None,
    *,
    score: str = NOVELTY,
    on_objects: bool = True,
) -> list[Row]:
    """Detections of a class book without one class: is the object under the box of that class?

    Args:
        on_objects: without detections that have an IoU below 0.5 with every true box, as the question arises
            for objects only.
    """
    rows = []
    for number, image in enumerate(match_images(predictions, truth)):
        labels = [a.label for a in image.truth]
        for i, d in enumerate(image.detections):
            if not d.is_top_class or score not in d.uncertainty:
                continue
            best = int(image.iou[i].argmax()) if labels else -1
            placed = best >= 0 and image.iou[i, best] >= IOU_THRESHOLD
            if on_objects and not placed:
                continue
            novel = placed and labels[best] == name
            risk = np.nan
            if calibrated is not None:
                curve = calibrated.halves[calibrated.half[number]].scores.get(NOVELTY)
                risk = np.nan if curve is None else curve.probability(d.uncertainty[NOVELTY])
            rows.append((d.uncertainty[score], d.entropy, float(novel), number, risk, 1 - d.score))
    return rows


def _novelty_table(samples: Samples, truth: Sequence[LabelledImage], calibrated: CrossFitted) -> Table:
    return Table.of(
        [
            row
            for name, predictions in samples.without.items()
            for row in _novelty_rows(predictions, truth, name, calibrated)
        ]
    )


def _novelty_per_class(
    samples: Samples, truth: Sequence[LabelledImage], counts: Int[np.ndarray, "b p"]
) -> list[Plain]:
    rows = []
    for name, predictions in samples.without.items():
        table = Table.of(_novelty_rows(predictions, truth, name, None))
        rows.append({"class": name, **_auroc(table, counts)})
    return rows


def _row(name: str, table: Table, counts: Int[np.ndarray, "b p"]) -> Plain:
    kind = SCORE_KINDS[LOCALISATION if name == LOCALISATION_75 else name]
    known = ~np.isnan(table.risk)
    error = expected_calibration_error(table.risk[known], table.error[known])
    strict = name == LOCALISATION_75
    return {
        "addressee": str(kind.addressee),
        "error": kind.error.replace("0.5", "0.75") if strict else kind.error,
        **_auroc(table, counts),
        "ece": error,
    }


def _auroc(table: Table, counts: Int[np.ndarray, "b p"]) -> Plain:
    arguments = table.error, table.image, counts
    ranking = compare_auroc(table.scores, table.baseline, *arguments)
    row = {"samples": len(table.scores), "errors": int(table.error.sum()), **_ranking("auroc", ranking)}
    row["beats_chance"] = ranking.ci95 is not None and ranking.ci95[0] > 0.5
    if np.isnan(table.low_score).any():
        return row
    by_score = compare_auroc(table.scores, table.low_score, *arguments)
    return {**row, "low_score": by_score.baseline, "beats_low_score": by_score.beats_baseline}


def _localisation_rows(matched: Sequence[ImageMatches], counts: Int[np.ndarray, "b p"]) -> list[Plain]:
    """Rank correlation with 1 - IoU, for all detections near an object and for the confident ones."""
    result = []
    for low in (0.0, CONFIDENT):
        rows = []
        for number, image in enumerate(matched):
            own = np.where(image.same_class, image.iou, 0.0).max(axis=1, initial=0.0)
            applies = detection_errors(image)[LOCALISATION].applies
            for d, use, iou in zip(image.detections, applies, own, strict=True):
                if use and d.score >= low and LOCALISATION in d.uncertainty:
                    raw = d.uncertainty[LOCALISATION]
                    rows.append((raw, d.entropy, 1 - iou, number, np.nan, 1 - d.score))
        table = Table.of(rows)
        arguments = table.target, table.image, counts
        ranking = compare_spearman(table.scores, table.baseline, *arguments)
        by_score = compare_spearman(table.scores, table.low_score, *arguments)
        row = {"min_score": low, "samples": len(rows), **_ranking("spearman", ranking)}
        result.append({**row, "low_score": by_score.baseline, "beats_low_score": by_score.beats_baseline})
    return result


def _image_rows(
    matched: Sequence[ImageMatches], calibrated: CrossFitted, counts: Int[np.ndarray, "b p"]
) -> dict[str, Plain]:
    """Missed objects and corrections of each image, against the summed entropy of its detections."""
    missed, corrections = [], []
    for number, image in enumerate(matched):
        calibration = calibrated.halves[calibrated.half[number]]
        prediction = calibrated.predictions[image.image.key]
        false = int(((image.scores >= calibration.threshold) & ~image.correct).sum())
        hidden = missed_objects(image, calibration.threshold)
        risks, entropy = prediction.risks, prediction.uncertainty
        missed.append((risks[MISSED], entropy, float(hidden > 0), number, risks[MISSED], np.nan))
        actual = float(false + hidden)
        corrections.append((risks[CORRECTIONS], entropy, actual, number, np.nan, np.nan))
    table, expected = Table.of(missed), Table.of(corrections)
    arguments = expected.target, expected.image, counts
    ranking = compare_spearman(expected.scores, expected.baseline, *arguments)
    return {
        MISSED: {
            "error": "the image has an object without a detection above the threshold",
            **_auroc(table, counts),
            "ece": expected_calibration_error(table.risk, table.error),
        },
        CORRECTIONS: {
            "samples": len(corrections),
            **_ranking("spearman", ranking),
            "mean_expected": float(expected.scores.mean()),
            "mean_actual": float(expected.target.mean()),
        },
    }


def _other_data(
    samples: Samples,
    truth: Sequence[LabelledImage],
    other: Sequence[Prediction],
    resamples: int,
    seed: int,
) -> Plain:
    """Images of another data set against the own ones, by the mean score of an image."""
    own = [samples.complete[p.image.key] for p in truth]
    both = [*own, *other]
    counts = np.concatenate(
        [resample_counts(len(part), resamples, seed + i) for i, part in enumerate((own, other))], axis=1
    )
    novel = np.arange(len(both)) >= len(own)
    entropy = np.array([p.uncertainty for p in both])
    number = np.arange(len(both))
    measured = {
        ROUTING_ENTROPY: np.array([p.routing.entropy for p in both]),
        ROUTING: np.array([_mean(p, ROUTING) for p in both]),
        NOVELTY: np.array([_mean(p, NOVELTY) for p in both]),
    }
    rows = {
        name: _ranking("auroc", compare_auroc(values, entropy, novel, number, counts))
        for name, values in measured.items()
    }
    detections = sum(len(p.detections) for p in other)
    return {"images": len(other), "detections": detections, "scores": rows}


def _mean(prediction: Prediction, name: str) -> float:
    values = [d.uncertainty[name] for d in prediction.detections if name in d.uncertainty]
    return float(np.mean(values)) if values else 0.0


def _ranking(measure: str, ranking: Ranking) -> Plain:
    return {
        measure: ranking.value,
        "ci95": _ends(ranking.ci95),
        "entropy": ranking.baseline,
        "entropy_ci95": _ends(ranking.baseline_ci95),
        "gain_ci95": _ends(ranking.gain_ci95),
        "beats_entropy": ranking.beats_baseline,
    }


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)
