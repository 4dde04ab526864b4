"""Who works on a workspace: the labelling server, the detector, and whoever is told how it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
    """A workspace with those who work on it."""

    workspace: Workspace
    studio: Studio
    detector: DetectorBackend
    progress: ProgressReporter

    def run_step(self, number: int, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Do a step unless the journal says that it is done; return what it left behind."""
        journal = self.workspace.journal
        done = journal.finished(number, name)
        if done is not None:
            return done
        self.progress.step(number, name)
        journal.begin(number, name)
        detail = work()
        journal.finish(number, name, detail)
        self.progress.finished(number, name)
        return detail

    def project(self) -> int:
        """The labelling project of this workspace."""
        book = self.workspace.class_book()
        return self.studio.ensure_project(
            self.workspace.settings.title,
            book.vocabulary(),
            owner=self.workspace.unique_id(),
            resolve=book.resolve,
            progress=self.progress.advance,
        )

    def predict(self, model: str, images: Sequence[ImageRecord]) -> Iterator[Prediction]:
        """What a model finds on these images; where it has looked already, from the store."""
        workspace = self.workspace
        version = workspace.prediction_version(model)
        known = workspace.prediction_store.load(version)
        yield from (known[p.key] for p in images if p.key in known)
        fresh = [p for p in images if p.key not in known]
        found = self.detector.predict(
            workspace.registry.folder(model), workspace.class_book().vocabulary(), fresh
        )
        stored = workspace.prediction_store.add(version, with_version(found, version))
        for done, one in enumerate(stored, start=1):
            self.progress.advance(done, len(fresh))
            yield one

    def predict_for_evaluation(self, model: str, images: Sequence[ImageRecord]) -> list[Prediction]:
        """What a model finds, faint detections too, to judge it by; the store keeps the others."""
        workspace = self.workspace
        version = workspace.prediction_version(model)
        book = workspace.class_book().vocabulary()
        folder = workspace.registry.folder(model)
        found = predict_all(self.detector, folder, book, images, self.progress.advance)
        known = workspace.prediction_store.lookup(version)
        fresh = [filter_by_score(one) for key, one in found.items() if key not in known]
        for _ in workspace.prediction_store.add(version, with_version(fresh, version)):
            pass
        return list(found.values())
