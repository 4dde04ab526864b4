"""The model that answers: the workspace's champion, in memory, swapped whole when another is promoted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dsmoe_core.errors import DsmoeError
from dsmoe_core.schema import ImageRecord, Prediction
from pipelines.detectors.backend import DetectorBackend, PredictFunction, with_version
from pipelines.workspace.workspace import Workspace

log = logging.getLogger(__name__)

RETRY_INTERVAL_S = 30.0
"""A model or class book that cannot be used is tried again so often."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model with one class book, in memory.

    Attributes:
        version: ``MODEL+BOOK``, as in the workspace's detections.
    """

    version: str
    _look: PredictFunction

    def predict(self, images: Sequence[ImageRecord]) -> list[Prediction]:
        """What it finds on each image; the caller sees to it that only one asks at a time.

        Raises:
            ModelError: its answers are not finite. ImageError, OSError: an image cannot be read.
        """
        return list(with_version(self._look(images), self.version))


class ChampionModel:
    """Follows a workspace's champion and its published class book.

    ``served`` is one reference, replaced when a new model has proven on an image that it works: whoever took
    the old one before finishes with it. One that cannot be used leaves the old one in its place.

    Args:
        workspace: opened for as long as this is used.
        detection: runs its models.
    """

    def __init__(
        self, workspace: Workspace, detector: DetectorBackend, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._workspace = workspace
        self._detector = detector
        self._clock = clock
        self._seen: tuple[str, str] | None = None
        self._again: float | None = None
        self.served: ServedModel | None = None
        self.problem: str | None = None

    def refresh(self) -> bool:
        """Check whether another model or class book is in use, and load it; says whether one was swapped in.

        Takes milliseconds where nothing changed, seconds otherwise. Never raises, or nobody would look again:
        what went wrong, such as a GPU whose memory a training fills, is logged and kept in ``problem``.
        """
        try:
            return self._refresh()
        except (DsmoeError, OSError) as error:
            self._fails(error)
            log.error("the champion cannot be used, %s goes on: %s", self._name(), error)  # noqa: TRY400
        except Exception as error:
            self._fails(error)
            log.exception("the champion cannot be used, %s goes on", self._name())
        return False

    def _fails(self, error: Exception) -> None:
        self.problem = str(error) or type(error).__name__
        self._again = self._clock() + RETRY_INTERVAL_S

    def _refresh(self) -> bool:
        model = self._workspace.champion()
        if model is None:
            return False
        seen = (model, self._workspace.class_books.published_version())
        if seen == self._seen and (self._again is None or self._clock() < self._again):
            return False
        self._seen, self._again = seen, None
        fresh = self._opened(model)
        self.problem = None
        if fresh is None:
            return False
        self.served = fresh
        log.info("%s answers from now on", fresh.version)
        return True

    def _opened(self, model: str) -> ServedModel | None:
        """The model with the published class book, tried on one image; None where this answers already."""
        vocabulary = self._workspace.class_books.published().vocabulary()
        version = f"{model}+{vocabulary.version}"
        if self.served is not None and self.served.version == version:
            return None
        folder = self._workspace.registry.folder(model)
        fresh = ServedModel(version, self._detector.load(folder, vocabulary))
        fresh.predict(self._workspace.images()[:1])
        return fresh

    def _name(self) -> str:
        return self.served.version if self.served else "none"
