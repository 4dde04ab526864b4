"""Evaluation runs of one model with different vocabularies, on the same images and resamples."""

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
METRICS = ("map50", "map", "margin")
"""AP at IoU 0.5, AP at IoU 0.5 to 0.95, and confusion margin (``margin.margins``), in the order of a
table."""


class TextRun(NamedTuple):
    """Result of one vocabulary, for c classes and b resamples.

    Attributes:
        predictions: by image key, under the class names of the evaluation set.
        boxes: class probabilities on the ground-truth boxes.
        metrics: METRICS of each class, (c, 3); NaN for a class without ground-truth boxes.
        resampled: METRICS in each resample, (b, c, 3).
    """

    predictions: dict[str, Prediction]
    boxes: BoxProbabilities
    metrics: Floats
    resampled: Floats

    @property
    def means(self) -> Floats:
        """Means of METRICS over the classes that have a value, (3,)."""
        mean: Floats = bootstrap.mean_over_classes(self.metrics[None])[0]
        return mean


class PairedRuns:
    """Runs one model with several vocabularies on an evaluation set.

    Args:
        truth: annotated with ``classes``.
        resamples: number of resamples of the images. All runs use the same resamples, so that they can be
            compared in pairs.
        seed: of the resamples.
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
        self._progress = progress
        self._runs: dict[tuple[Any, ...], TextRun] = {}

    def run(self, vocabulary: Vocabulary, name: str, names: Mapping[str, str] | None = None) -> TextRun:
        """Predict with a vocabulary and compute the metrics. Runs of equal texts are cached.

        Args:
            name: for the progress report.
            names: class of the evaluation set by the vocabulary's name for it, if the names differ.

        Raises:
            ModelError: see :func:`pipelines.detectors.backend.predict_all`.
        """
        key = (vocabulary.classes, vocabulary.inner)
        if key not in self._runs:
            self._progress.status(f"{name}: predicting")
            images = [labelled.image for labelled in self.truth]
            model = self.model
            predictions = predict_all(
                model.detector, model.folder, vocabulary, images, self._progress.advance
            )
            self._progress.status(f"{name}: bootstrap")
            self._runs[key] = self._evaluate(_renamed(predictions, names or {}))
        return self._runs[key]

    def _evaluate(self, predictions: dict[str, Prediction]) -> TextRun:
        tables = evaluation_tables(predictions, self.truth, self.classes, self.counts, self._progress.advance)
        boxes = box_probabilities(tables.matched, self.classes)
        margin, resampled_margin = mean_margins(boxes, self.counts)
        precisions = [tables.tables.mean(label=label) or (np.nan, np.nan) for label in self.classes]
        return TextRun(
            predictions,
            boxes,
            np.column_stack([np.array(precisions, dtype=np.float64), margin]),
            np.concatenate([tables.resampled, resampled_margin[..., None]], axis=2),
        )


class MetricDifferences(NamedTuple):
    """Differences of METRICS between two runs as plain values (:func:`difference`), by metric.

    Attributes:
        total: of the means over classes.
        classes: of each class, in order; empty for a class without ground-truth boxes.
    """

    total: dict[str, Any]
    classes: list[dict[str, Any]]


def metric_differences(this: TextRun, *others: TextRun) -> MetricDifferences:
    """Compare runs of the same :class:`PairedRuns`: paired, on the same resamples.

    Args:
        others: one run, or several runs of the same control, whose metrics are averaged. With several runs,
            each difference has a ``spread``: the smallest and the largest difference from a single run.
    """
    means = [bootstrap.mean_over_classes(run.resampled) for run in (this, *others)]
    return MetricDifferences(
        _differences(this.means, [run.means for run in others], means[0], means[1:]),
        [
            _differences(
                this.metrics[i],
                [run.metrics[i] for run in others],
                this.resampled[:, i],
                [run.resampled[:, i] for run in others],
            )
            for i in range(len(this.metrics))
        ],
    )


def difference(this: float, other: float, this_resampled: Floats, other_resampled: Floats) -> dict[str, Any]:
    """Difference of one metric between two runs as plain values; empty if it is undefined.

    Args:
        this_resampled, other_resampled: the metric in the same resamples, (b,).
    """
    compared = bootstrap.compare(this - other, this_resampled, other_resampled)
    if compared is None or np.isnan(compared.delta):
        return {}
    return {
        "this": round(this, 6),
        "other": round(other, 6),
        "delta": round(compared.delta, 6),
        "ci95": [round(end, 6) for end in compared.ci95],
        "p": round(compared.p, 5),
    }


def _differences(
    this: Floats, others: Sequence[Floats], this_resampled: Floats, others_resampled: Sequence[Floats]
) -> dict[str, Any]:
    """METRICS of one run minus their means over other runs.

    Args:
        this, others: METRICS of each run, (3,).
        this_resampled, others_resampled: in the same resamples, (b, 3).
    """
    mean, mean_resampled = np.mean(others, axis=0), np.mean(others_resampled, axis=0)
    result = {}
    for i, name in enumerate(METRICS):
        values = difference(float(this[i]), float(mean[i]), this_resampled[:, i], mean_resampled[:, i])
        if values and len(others) > 1:
            deltas = [round(float(this[i] - other[i]), 6) for other in others]
            values["spread"] = [min(deltas), max(deltas)]
        if values:
            result[name] = values
    return result


def _renamed(predictions: dict[str, Prediction], names: Mapping[str, str]) -> dict[str, Prediction]:
    """The predictions with other class names."""
    if all(old == new for old, new in names.items()):
        return predictions
    return {
        key: replace(
            prediction,
            detections=tuple(
                replace(
                    f,
                    label=names.get(f.label, f.label),
                    probabilities={names.get(n, n): p for n, p in f.probabilities.items()},
                )
                for f in prediction.detections
            ),
        )
        for key, prediction in predictions.items()
    }
