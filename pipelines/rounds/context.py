"""The services that a round needs: workspace, labelling server, detector, progress reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotate.studio.protocol import Studio
from dsmoe_core.schema import ImageRecord, Prediction
from pipelines.detectors.backend import DetectorBackend, with_version
from pipelines.progress import ProgressReporter
from pipelines.workspace.embedding_store import EmbeddingWriter
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
        """Run a model on the images without a stored prediction of it; store predictions and embeddings.

        Returns:
            All stored predictions of the model, by image key; each is read when it is accessed.
        """
        workspace, version = self.workspace, self.workspace.prediction_version(model)
        store = workspace.prediction_store
        stored = store.lookup(version)
        missing = [image for image in images if image.key not in stored]
        if not missing:
            return stored
        with workspace.embedding_store.writer(version) as embeddings:
            store.append(
                version,
                with_embeddings(self._predictions(model, version, missing), embeddings),
                lambda done: self.progress.advance(done, len(missing)),
            )
        return store.lookup(version)

    def embeddings(self, model: str, images: Sequence[ImageRecord]) -> NDArray[np.floating[Any]]:
        """Embeddings of images, one row of length 1 per image; 0 x 0 if the detector makes none.

        Runs the model on images without a stored prediction, and again on those whose embedding was lost.
        """
        version = self.workspace.prediction_version(model)
        self.ensure_predictions(model, images)
        stored = self.workspace.embedding_store.read(version)
        if not stored.made or not images:
            return np.zeros((0, 0), dtype=np.float32)
        lost = set(stored.missing([image.key for image in images]))
        if lost:
            with self.workspace.embedding_store.writer(version) as embeddings:
                again = [image for image in images if image.key in lost]
                predictions = with_embeddings(self._predictions(model, version, again), embeddings)
                for done, _ in enumerate(predictions, start=1):
                    self.progress.advance(done, len(again))
            stored = self.workspace.embedding_store.read(version)
            if not stored.made:
                return np.zeros((0, 0), dtype=np.float32)
        return stored.vectors([image.key for image in images])

    def _predictions(self, model: str, version: str, images: Sequence[ImageRecord]) -> Iterator[Prediction]:
        workspace = self.workspace
        workspace.require_files(images)
        predictions = self.detector.predict(
            workspace.registry.folder(model), workspace.class_book().vocabulary(), images
        )
        return with_version(predictions, version)


def with_embeddings(predictions: Iterable[Prediction], writer: EmbeddingWriter) -> Iterator[Prediction]:
    """The predictions, whose embeddings are stored first, so an image with a stored prediction has one."""
    for prediction in predictions:
        if prediction.embedding is None:
            writer.add_none()
        else:
            writer.add(prediction.key, prediction.embedding)
        yield prediction
