"""Whether the score ``description`` shows a wrong description that was planted in the class book."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np

from dsmoe_core.evaluation.bootstrap import resample_counts
from dsmoe_core.evaluation.ranking import compare_auroc
from dsmoe_core.schema import Prediction, Vocabulary
from dsmoe_core.uncertainty.score_kinds import DESCRIPTION

Predict = Callable[[Vocabulary], Iterable[Prediction]]
"""Predicts the same images with a vocabulary, with uncertainty scores."""


def measure_planted_descriptions(
    predict: Predict, vocabulary: Vocabulary, *, resamples: int, seed: int
) -> dict[str, list[dict[str, Any]]]:
    """Give one class at a time the description of the next class, and look which class the score singles out.

    The paraphrases stay right. Detections of a class are those that have its label.

    Returns:
        ``planted_descriptions``, or nothing if no class has paraphrases. It has a row per class: detections
        of the class, AUROC of ``description`` for telling its detections from the others (with the 95 %
        interval over images) and of plain entropy, the same with the right description, and the place of
        its mean score among the classes (1 = highest). None where the class or the others have no detection.
    """
    if not any(c.paraphrases for c in vocabulary):
        return {}
    right = list(predict(vocabulary))
    means = mean_scores(right)
    counts = resample_counts(len(right), resamples, seed)
    rows = []
    for name in vocabulary.names:
        planted = list(predict(with_planted_description(vocabulary, name)))
        after, before = _Scores.of(planted, name), _Scores.of(right, name)
        ranking = compare_auroc(after.scores, after.entropy, after.planted, after.image, counts)
        unplanted = compare_auroc(before.scores, before.entropy, before.planted, before.image, counts)
        rows.append(
            {
                "class": name,
                "detections": int(after.planted.sum()),
                "auroc": ranking.value,
                "ci95": None if ranking.ci95 is None else list(ranking.ci95),
                "entropy": ranking.baseline,
                "auroc_with_right_description": unplanted.value,
                "place": place(mean_scores(planted), name),
                "place_with_right_description": place(means, name),
            }
        )
    return {"planted_descriptions": rows}


def with_planted_description(vocabulary: Vocabulary, name: str) -> Vocabulary:
    """The vocabulary in which a class has the description of the class after it."""
    names = list(vocabulary.names)
    following = vocabulary.classes[(names.index(name) + 1) % len(names)]
    classes = tuple(
        replace(c, description=following.description) if c.name == name else c for c in vocabulary.classes
    )
    return replace(vocabulary, classes=classes)


def mean_scores(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Mean of the score ``description`` by label."""
    values: dict[str, list[float]] = {}
    for prediction in predictions:
        for d in prediction.detections:
            if DESCRIPTION in d.uncertainty:
                values.setdefault(d.label, []).append(d.uncertainty[DESCRIPTION])
    return {label: fmean(scores) for label, scores in values.items()}


def place(means: Mapping[str, float], name: str) -> int | None:
    """Place of a class by its mean score, 1 = highest; None without a detection of the class."""
    return None if name not in means else 1 + sum(value > means[name] for value in means.values())


class _Scores:
    """Scores of all detections, and whether they have the label of a class."""

    def __init__(self, rows: Sequence[tuple[float, float, bool, int]]) -> None:
        columns = np.array(rows, dtype=np.float64).reshape(-1, 4).T
        self.scores, self.entropy = columns[0], columns[1]
        self.planted, self.image = columns[2] > 0, columns[3].astype(np.int64)

    @classmethod
    def of(cls, predictions: Sequence[Prediction], name: str) -> _Scores:
        return cls(
            [
                (d.uncertainty[DESCRIPTION], d.entropy, d.label == name, number)
                for number, prediction in enumerate(predictions)
                for d in prediction.detections
                if DESCRIPTION in d.uncertainty
            ]
        )
