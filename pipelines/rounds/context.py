"""Who works on a workspace: the labelling server, the detector, and whoever is told how it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from annotate.studio.protocol import Studio
from dsmoe_core.schema import Picture, PictureFindings
from dsmoe_core.uncertainty import surer
from pipelines.detectors.backend import Detection, asked, named
from pipelines.workspace.workspace import Workspace


class Reporter(Protocol):
    """Told how the work goes on."""

    def step(self, number: int, name: str) -> None:
        """A step of a round begins."""
        ...

    def advance(self, done: int, total: int, note: str = "") -> None:
        """So much of the step is done."""
        ...

    def finished(self, number: int, name: str) -> None:
        """A step of a round is done and journalled."""
        ...


@dataclass(frozen=True, slots=True)
class Crew:
    """A workspace with those who work on it."""

    workspace: Workspace
    studio: Studio
    detection: Detection
    reporter: Reporter

    def run_step(self, number: int, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Do a step unless the journal says that it is done; return what it left behind."""
        journal = self.workspace.journal
        done = journal.finished(number, name)
        if done is not None:
            return done
        self.reporter.step(number, name)
        journal.begin(number, name)
        detail = work()
        journal.finish(number, name, detail)
        self.reporter.finished(number, name)
        return detail

    def project(self) -> int:
        """The labelling project of this workspace."""
        book = self.workspace.class_book()
        return self.studio.ensure_project(
            self.workspace.settings.title,
            book.vocabulary(),
            owner=self.workspace.mark(),
            resolve=book.resolve,
            progress=self.reporter.advance,
        )

    def look(self, model: str, pictures: Sequence[Picture]) -> Iterator[PictureFindings]:
        """What a model finds on these pictures; where it has looked already, from the store."""
        workspace = self.workspace
        version = workspace.version_of(model)
        known = workspace.findings_store.load(version)
        yield from (known[p.key] for p in pictures if p.key in known)
        fresh = [p for p in pictures if p.key not in known]
        found = self.detection.findings(
            workspace.registry.folder(model), workspace.class_book().vocabulary(), fresh
        )
        stored = workspace.findings_store.add(version, named(found, version))
        for done, one in enumerate(stored, start=1):
            self.reporter.advance(done, len(fresh))
            yield one

    def judged(self, model: str, pictures: Sequence[Picture]) -> list[PictureFindings]:
        """What a model finds, faint findings too, to judge it by; the store keeps the others."""
        workspace = self.workspace
        version = workspace.version_of(model)
        book = workspace.class_book().vocabulary()
        folder = workspace.registry.folder(model)
        found = asked(self.detection, folder, book, pictures, self.reporter.advance)
        known = workspace.findings_store.lookup(version)
        fresh = [surer(one) for key, one in found.items() if key not in known]
        for _ in workspace.findings_store.add(version, named(fresh, version)):
            pass
        return list(found.values())
