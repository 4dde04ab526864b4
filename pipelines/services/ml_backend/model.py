"""The champion model in memory; replaced as a whole when another model or class book comes into use."""

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
"""Seconds until a model or class book that failed to load is tried again."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model with one class book, in memory.

    Attributes:
        version: ``MODEL+BOOK``, as in the workspace's predictions.
    """

    version: str
    _predict: PredictFunction

    def predict(self, images: Sequence[ImageRecord]) -> list[Prediction]:
        """One prediction per image. Not thread-safe: the caller makes one call at a time.

        Raises:
            ModelError: the outputs are not finite.
            ImageError, OSError: an image cannot be read.
        """
        return list(with_version(self._predict(images), self.version))


class ChampionModel:
    """Keeps the workspace's champion, with the published class book, loaded.

    ``served`` is replaced once the new model has predicted one image without an error. A caller that holds
    the old one may go on using it. Where the new one fails, the old one stays.

    Args:
        workspace: stays open for as long as this object is used.
        detector: loads the models.
        clock: seconds, monotonic.
    """

    def __init__(
        self, workspace: Workspace, detector: DetectorBackend, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._workspace = workspace
        self._detector = detector
        self._clock = clock
        self._last_tried: tuple[str, str] | None = None
        self._retry_at: float | None = None
        self.served: ServedModel | None = None
        self.problem: str | None = None

    def refresh(self) -> bool:
        """Load the champion if it or the class book changed.

        Takes milliseconds where nothing changed, seconds otherwise. Raises nothing, so that a polling caller
        goes on: an error, such as a GPU out of memory, is logged and kept in ``problem``.

        Returns:
            Whether ``served`` was replaced.
        """
        try:
            return self._refresh()
        except (DsmoeError, OSError) as error:
            self._note_failure(error)
            log.error("the champion cannot be loaded, %s stays: %s", self._name(), error)  # noqa: TRY400
        except Exception as error:
            self._note_failure(error)
            log.exception("the champion cannot be loaded, %s stays", self._name())
        return False

    def _note_failure(self, error: Exception) -> None:
        self.problem = str(error) or type(error).__name__
        self._retry_at = self._clock() + RETRY_INTERVAL_S

    def _refresh(self) -> bool:
        model = self._workspace.champion()
        if model is None:
            return False
        wanted = (model, self._workspace.class_books.published_version())
        if wanted == self._last_tried and (self._retry_at is None or self._clock() < self._retry_at):
            return False
        self._last_tried, self._retry_at = wanted, None
        loaded = self._load(model)
        self.problem = None
        if loaded is None:
            return False
        self.served = loaded
        log.info("%s is served from now on", loaded.version)
        return True

    def _load(self, model: str) -> ServedModel | None:
        """The model with the published class book, tested on one image; None where it is served already."""
        vocabulary = self._workspace.class_books.published().vocabulary()
        version = f"{model}+{vocabulary.version}"
        if self.served is not None and self.served.version == version:
            return None
        folder = self._workspace.registry.folder(model)
        loaded = ServedModel(version, self._detector.load(folder, vocabulary))
        loaded.predict(self._workspace.images()[:1])
        return loaded

    def _name(self) -> str:
        return self.served.version if self.served else "none"
