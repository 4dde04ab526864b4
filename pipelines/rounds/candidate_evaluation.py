"""Evaluation of models on the test set of a workspace: metrics, stored predictions, paired comparison."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from statistics import median

from dsmoe_core.evaluation.paired_predictions import PairedPredictions
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import LabelledImage, Prediction
from dsmoe_core.uncertainty import filter_by_score
from dsmoe_core.uncertainty.calibration import fit_calibration
from pipelines.detectors.backend import DetectorBackend, evaluate_predictions, with_version
from pipelines.detectors.operating_points import choose_operating_points
from pipelines.rounds.context import with_embeddings
from pipelines.rounds.gate import Latency
from pipelines.workspace.annotation_time import correction_seconds
from pipelines.workspace.evaluation_predictions import (
    EvaluationPredictions,
    load_predictions,
    save_predictions,
)
from pipelines.workspace.registry import Metrics
from pipelines.workspace.relabel import relabel_image
from pipelines.workspace.workspace import Workspace

LATENCY_IMAGES, LATENCY_REPEATS = 8, 3


class CandidateEvaluation:
    """Evaluates models of a workspace on its test set, with the published class book.

    Args:
        progress: called with (images or resamples done, in total).
    """

    def __init__(self, workspace: Workspace, detector: DetectorBackend, progress: CountCallback) -> None:
        self._workspace, self._detector, self._progress = workspace, detector, progress

    @property
    def name(self) -> str:
        """Name of the test set and class book, ``DATASET+BOOK``."""
        return f"{self._workspace.journal.value('test_set')}+{self._workspace.class_book().version}"

    def truth(self) -> list[LabelledImage]:
        """The test set, whose labels have the names of the published class book; empty if there is none."""
        book = self._workspace.class_book()
        return [relabel_image(image, book.resolve) for image in self._workspace.test_set()]

    def metrics(self, model: str) -> Metrics | None:
        """A model's metrics, computed unless the registry has them; None if there is no test set."""
        truth, registry = self.truth(), self._workspace.registry
        if not truth:
            return None
        metrics = registry.evaluation(model)
        if metrics is None or metrics.evaluated_on != self.name:
            predictions = self.predictions(model)
            vocabulary = self._workspace.class_book().vocabulary()
            metrics = evaluate_predictions(predictions.values(), truth, vocabulary, self.name)
            seconds = correction_seconds(self._workspace.journal.harvests().values())
            points = choose_operating_points(predictions.values(), truth, seconds, self.name)
            registry.save_operating_points(model, points)
            registry.save_evaluation(model, metrics)
        return metrics

    def predictions(self, model: str) -> EvaluationPredictions:
        """A model's predictions with detections of low scores, predicted unless they are stored."""
        folder = self._workspace.registry.folder(model)
        images = [labelled.image for labelled in self._workspace.test_set()]
        stored = load_predictions(folder, self.name)
        if stored is not None and all(image.key in stored for image in images):
            return stored
        names = self._workspace.class_book().vocabulary().names
        save_predictions(folder, self._predict(model), names, self.name)
        stored = load_predictions(folder, self.name)
        assert stored is not None  # noqa: S101  # it was just written
        return stored

    def _predict(self, model: str) -> Iterator[Prediction]:
        """Predictions of the test set.

        The uncertainty scores are calibrated on them, and the prediction store gets those that it lacks,
        calibrated and without low scores.
        """
        workspace = self._workspace
        vocabulary, version = workspace.class_book().vocabulary(), workspace.prediction_version(model)
        images = [labelled.image for labelled in workspace.test_set()]
        workspace.require_files(images)
        known = workspace.prediction_store.lookup(version)
        shown: dict[str, Prediction] = {}
        predict = self._detector.load(workspace.registry.folder(model), vocabulary)
        for done, prediction in enumerate(with_version(predict(images), version), start=1):
            shown[prediction.key] = filter_by_score(prediction)
            yield prediction
            self._progress(done, len(images))
        calibration = fit_calibration(shown, self.truth(), vocabulary.names, evaluated_on=self.name)
        calibration.save(workspace.registry.folder(model))
        missing = [calibration.apply(p) for key, p in shown.items() if key not in known]
        if missing:
            with workspace.embedding_store.writer(version) as embeddings:
                workspace.prediction_store.append(version, with_embeddings(missing, embeddings))

    def compare(self, first: str, second: str) -> PairedPredictions:
        """The predictions of two models on the test set; at least one image is needed.

        Intervals, groups and resamples are those of the settings of the promotion gate.
        """
        settings, truth = self._workspace.settings.gate, self.truth()
        groups = [settings.group(labelled.image.name) for labelled in truth]
        return PairedPredictions(
            self.predictions(first),
            self.predictions(second),
            truth,
            self._workspace.class_book().vocabulary().names,
            groups=groups if settings.group_pattern else None,
            confidence=settings.confidence,
            resamples=settings.resamples,
            seed=self._workspace.settings.seed,
            progress=self._progress,
        )

    def latency(self, candidate: str, champion: str) -> Latency:
        """Time both models on a few test images in turn, image by image; loading them is not counted."""
        registry, vocabulary = self._workspace.registry, self._workspace.class_book().vocabulary()
        predictors = [self._detector.load(registry.folder(m), vocabulary) for m in (candidate, champion)]
        images = [labelled.image for labelled in self._workspace.test_set()[:LATENCY_IMAGES]]
        seconds: Sequence[list[float]] = ([], [])
        for repeat in range(LATENCY_REPEATS + 1):
            for image in images:
                for predict, measured in zip(predictors, seconds, strict=True):
                    start = time.perf_counter()
                    list(predict([image]))
                    if repeat:  # the first pass warms up
                        measured.append(time.perf_counter() - start)
        return Latency(*(1000 * median(measured) for measured in seconds))
