"""One model that is predict_all in one book after the other, on the same images and the same resamples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsmoe_core.evaluation import bootstrap
from dsmoe_core.evaluation.metrics import evaluation_tables
from dsmoe_core.schema import LabelledImage, Prediction, Vocabulary
from pipelines.detectors.backend import predict_all
from pipelines.evaluation.report.evaluated_model import EvaluatedModel
from pipelines.evaluation.text_eval.margin import BoxProbabilities, box_probabilities, mean_margins
from pipelines.progress import ProgressReporter

Floats = NDArray[np.float64]
FIGURES = ("map50", "map", "margin")
"""AP at IoU 0.5, AP over 0.5 to 0.95, confusion margin (``margin.margins``), in the order of a table."""


class TextRun(NamedTuple):
    """What came of one book, for c classes and b resamples.

    Attributes:
        detections: by image key, under the names of the fixed set.
        figures: FIGURES of each class, (c, 3); NaN for a class without a true box.
        resampled: the same in each resample, (b, c, 3).
    """

    detections: dict[str, Prediction]
    seen: BoxProbabilities
    figures: Floats
    resampled: Floats

    @property
    def means(self) -> Floats:
        """FIGURES over the classes that have them, (3,)."""
        mean: Floats = bootstrap.mean_over_classes(self.figures[None])[0]
        return mean


class PairedRuns:
    """A model and a fixed set of images. Books are read on it and then compared, pair by pair.

    Args:
        truth: labelled under ``classes``.
        resamples: of the images, drawn once and used for every reading, so that all comparisons are paired.
    """

    def __init__(
        self,
        model: EvaluatedModel,
        truth: Sequence[LabelledImage],
        classes: Sequence[str],
        *,
        resamples: int,
        seed: int,
        progress: ProgressReporter,
    ) -> None:
        self.model, self.truth, self.classes = model, truth, tuple(classes)
        self.counts = bootstrap.resample_counts(len(truth), resamples, seed)
        self._told = progress
        self._read: dict[tuple[Any, ...], TextRun] = {}

    def read(self, vocabulary: Vocabulary, name: str, names: Mapping[str, str] | None = None) -> TextRun:
        """Ask in these words and judge what is found.

        Words that were predict_all in already are not asked again.

        Args:
            name: for who waits.
            names: class of the fixed set by the vocabulary's name for it, where they differ.

        Raises:
            ModelError: as :func:`pipelines.detectors.backend.predict_all`.
        """
        key = (vocabulary.classes, vocabulary.inner)
        if key not in self._read:
            self._told.status(f"{name}: looking at images")
            images = [one.image for one in self.truth]
            model = self.model
            found = predict_all(model.detector, model.folder, vocabulary, images, self._told.advance)
            self._told.status(f"{name}: resampling")
            self._read[key] = self._judged(_renamed(found, names or {}))
        return self._read[key]

    def _judged(self, found: dict[str, Prediction]) -> TextRun:
        one = evaluation_tables(found, self.truth, self.classes, self.counts, self._told.advance)
        seen = box_probabilities(one.matched, self.classes)
        margin, resampled = mean_margins(seen, self.counts)
        precisions = [one.tables.mean(label=label) or (np.nan, np.nan) for label in self.classes]
        return TextRun(
            found,
            seen,
            np.column_stack([np.array(precisions, dtype=np.float64), margin]),
            np.concatenate([one.resampled, resampled[..., None]], axis=2),
        )


class MetricDifferences(NamedTuple):
    """One reading less another, as plain values (:func:`difference`), by FIGURES.

    Attributes:
        total: of the means over classes.
        classes: of each class, in order; empty for one without a true box.
    """

    total: dict[str, Any]
    classes: list[dict[str, Any]]


def metric_differences(this: TextRun, *others: TextRun) -> MetricDifferences:
    """Compare readings of one bench, paired: all figures are taken in the same resamples.

    Args:
        others: one, or several draws of the same kind, of whose figures the mean is taken; then ``spread``
            stands beside each difference, the least and the largest against a single draw.
    """
    means = [bootstrap.mean_over_classes(one.resampled) for one in (this, *others)]
    return MetricDifferences(
        _compared(this.means, [one.means for one in others], means[0], means[1:]),
        [
            _compared(
                this.figures[i],
                [one.figures[i] for one in others],
                this.resampled[:, i],
                [one.resampled[:, i] for one in others],
            )
            for i in range(len(this.figures))
        ],
    )


def difference(this: float, other: float, these: Floats, others: Floats) -> dict[str, Any]:
    """One figure of two readings as plain values; empty where it is not defined.

    Args:
        these, others: the figure in the same resamples, (b,).
    """
    compared = bootstrap.compare(this - other, these, others)
    if compared is None or np.isnan(compared.delta):
        return {}
    return {
        "this": round(this, 6),
        "other": round(other, 6),
        "delta": round(compared.delta, 6),
        "ci95": [round(end, 6) for end in compared.ci95],
        "p": round(compared.p, 5),
    }


def _compared(
    this: Floats, drawn: Sequence[Floats], these: Floats, resampled: Sequence[Floats]
) -> dict[str, Any]:
    """FIGURES of one reading less the mean of those of the draws.

    Args:
        drawn: of each draw, (3,).
        resampled: the same in the same resamples, (b, 3).
    """
    other, others = np.mean(drawn, axis=0), np.mean(resampled, axis=0)
    answer = {}
    for i, name in enumerate(FIGURES):
        found = difference(float(this[i]), float(other[i]), these[:, i], others[:, i])
        if found and len(drawn) > 1:
            each = [round(float(this[i] - one[i]), 6) for one in drawn]
            found["spread"] = [min(each), max(each)]
        if found:
            answer[name] = found
    return answer


def _renamed(found: dict[str, Prediction], names: Mapping[str, str]) -> dict[str, Prediction]:
    """The same under other names."""
    if all(old == new for old, new in names.items()):
        return found
    return {
        key: replace(
            one,
            detections=tuple(
                replace(
                    f,
                    label=names.get(f.label, f.label),
                    probabilities={names.get(n, n): p for n, p in f.probabilities.items()},
                )
                for f in one.detections
            ),
        )
        for key, one in found.items()
    }
