"""Interface of detector backends: training and prediction. Does not import torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

from dsmoe_core.config import TrainingConfig
from dsmoe_core.errors import ModelError
from dsmoe_core.knockout.part_report import PartReport
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import ImageRecord, LabelledImage, Prediction, Vocabulary
from pipelines.workspace.registry import Metrics

TrainingProgress = Callable[[int, int, Mapping[str, float]], None]
"""Called with (step, steps, metrics by name: losses, learning_rate, gradient_norm)."""
PredictFunction = Callable[[Iterable[ImageRecord]], Iterator[Prediction]]
"""One prediction per image, in the order of the images."""
EVALUATION_MIN_SCORE = 0.001
"""Lowest score of a detection in an evaluation, as mAP averages over all recalls, and for smart tools."""


class DetectorBackend(Protocol):
    """A trainable detector. A model is a folder. Every call can be repeated after a kill of the process."""

    def fit(
        self,
        *,
        images: Sequence[LabelledImage],
        vocabulary: Vocabulary,
        training: TrainingConfig,
        out: Path,
        start_from: Path | None,
        teacher: Path | None = None,
        progress: TrainingProgress | None = None,
    ) -> dict[str, Any]:
        """Train a model and write it to ``out``.

        An interrupted training continues, or starts over, when it is called again with the same arguments.

        Args:
            start_from: folder of the model whose weights the training starts from; None: initial weights.
            teacher: folder of a model to learn from as well as from the labels; None: from the labels only.

        Returns:
            A summary for the model card, as JSON values.
        """
        ...

    def predict(
        self, model: Path, vocabulary: Vocabulary, images: Iterable[ImageRecord]
    ) -> Iterator[Prediction]:
        """The predictions of the model in this folder, in the order of the images.

        Raises:
            ModelError: there is no model in the folder, or it does not fit.
        """
        ...

    def load(self, model: Path, vocabulary: Vocabulary) -> PredictFunction:
        """The model in memory, for repeated use; detections from ``EVALUATION_MIN_SCORE`` on are returned.

        Raises:
            ModelError: there is no model in the folder, or it does not fit.
        """
        ...

    def measure_parts(
        self, model: Path, vocabulary: Vocabulary, truth: Sequence[LabelledImage]
    ) -> PartReport | None:
        """Which parts of the model are in use, on annotated images; None for a detector without such parts.

        Raises:
            ModelError: there is no model in the folder, or it does not fit.
        """
        ...


def with_version(predictions: Iterable[Prediction], version: str) -> Iterator[Prediction]:
    """The predictions with the version of the model, ``MODEL+BOOK``.

    Raises:
        ModelError: a value is not finite, because the training diverged.
    """
    for prediction in predictions:
        routing = prediction.routing
        if not all(map(isfinite, (prediction.uncertainty, routing.entropy, *routing.weights))):
            raise ModelError(
                f"model {version} predicts values that are not finite: its training diverged",
                "Lower detector.training.learning_rate in dsmoe.yaml and run the same command again.",
            )
        yield replace(prediction, version=version)


def predict_all(
    detector: DetectorBackend,
    model: Path,
    vocabulary: Vocabulary,
    images: Sequence[ImageRecord],
    progress: CountCallback,
) -> dict[str, Prediction]:
    """Predictions for an evaluation, with detections from ``EVALUATION_MIN_SCORE`` on, by image key.

    Args:
        model: folder of the model.
        progress: called with (images done, images in total).

    Raises:
        ModelError: the folder has no complete model, or the model predicts values that are not finite.
    """
    predictions: dict[str, Prediction] = {}
    predict = detector.load(model, vocabulary)
    for prediction in with_version(predict(images), f"{model.name}+{vocabulary.version}"):
        predictions[prediction.key] = prediction
        progress(len(predictions), len(images))
    return predictions


def evaluate_predictions(
    predictions: Iterable[Prediction],
    truth: Sequence[LabelledImage],
    vocabulary: Vocabulary,
    evaluated_on: str,
) -> Metrics:
    """COCO metrics of predictions on labelled images.

    Args:
        evaluated_on: name of the labelled images and the class book, ``DATASET+BOOK``.
    """
    from dsmoe_core.evaluation.coco_metrics import evaluate

    return Metrics.of(evaluate(predictions, truth, vocabulary.names), evaluated_on)
