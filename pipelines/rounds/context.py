"""The services that a round needs: workspace, labelling server, detector, progress reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from annotate.studio.protocol import Studio
from dsmoe_core.schema import ImageRecord, Prediction
from dsmoe_core.uncertainty import filter_by_score
from pipelines.detectors.backend import DetectorBackend, predict_all, with_version
from pipelines.progress import ProgressReporter
from pipelines.workspace.workspace import Workspace


@dataclass(frozen=True, slots=True)
class LoopContext:
    """A workspace with the services that work on it."""

    workspace: Workspace
    studio: Studio
    detector: DetectorBackend
    progress: ProgressReporter

    def run_step(
        self, number: int, name: str, work: Callable[[], dict[str, Any]], *, again: bool = False
    ) -> dict[str, Any]:
        """Run a step of a round unless the journal has its result.

        Args:
            number: number of the round.
            work: the step; it must be idempotent, and its result must be JSON values.
            again: run it although the journal has a result, which is replaced.

        Returns:
            The result of the step, of this run or of an earlier one.
        """
        journal = self.workspace.journal
        done = journal.finished(number, name)
        if done is not None and not again:
            return done
        self.progress.step(number, name)
        journal.begin(number, name)
        detail = work()
        journal.finish(number, name, detail)
        self.progress.finished(number, name)
        return detail

    def project(self) -> int:
        """The id of the workspace's project on the labelling server; it is created if it is missing."""
        book = self.workspace.class_book()
        return self.studio.ensure_project(
            self.workspace.settings.title,
            book.vocabulary(),
            owner=self.workspace.unique_id(),
            resolve=book.resolve,
            project=self.workspace.project(),
            progress=self.progress.advance,
        )

    def ensure_predictions(self, model: str, images: Sequence[ImageRecord]) -> Mapping[str, Prediction]:
        """Run a model on the images that have no stored prediction of it, and store the new predictions.

        Returns:
            All stored predictions of the model, by image key; each is read when it is accessed.
        """
        workspace, version = self.workspace, self.workspace.prediction_version(model)
        store = workspace.prediction_store
        stored = store.lookup(version)
        missing = [image for image in images if image.key not in stored]
        if not missing:
            return stored
        workspace.require_files(missing)
        predictions = self.detector.predict(
            workspace.registry.folder(model), workspace.class_book().vocabulary(), missing
        )
        store.append(
            version,
            with_version(predictions, version),
            lambda done: self.progress.advance(done, len(missing)),
        )
        return store.lookup(version)

    def predict_for_evaluation(self, model: str, images: Sequence[ImageRecord]) -> list[Prediction]:
        """Predictions with detections of low scores too, as an evaluation needs them.

        The store gets them without the low scores, for images that it has no prediction of.
        """
        workspace, version = self.workspace, self.workspace.prediction_version(model)
        workspace.require_files(images)
        predictions = predict_all(
            self.detector,
            workspace.registry.folder(model),
            workspace.class_book().vocabulary(),
            images,
            self.progress.advance,
        )
        stored = workspace.prediction_store.lookup(version)
        missing = [filter_by_score(p) for key, p in predictions.items() if key not in stored]
        if missing:
            workspace.prediction_store.append(version, missing)
        return list(predictions.values())
