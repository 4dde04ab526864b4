"""Limits of a selection: near duplicates, and budgets in boxes and in annotator minutes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.rounds.acquisition.function import Vectors
from pipelines.rounds.acquisition.neighbours import nearest_similarity


class Refusal(StrEnum):
    """Why an image stays in the pool although its score is high enough."""

    DUPLICATE_IN_ROUND = "nearly duplicates an image of the round"
    DUPLICATE_OF_TEST = "nearly duplicates a test image"


class ImageEffort(NamedTuple):
    """What an image is expected to cost: boxes after its annotation, and annotator minutes."""

    boxes: float
    minutes: float


class Budgets(NamedTuple):
    """Budgets besides the number of images.

    Attributes:
        boxes, minutes: None: no such budget.
        effort: the expected effort of images, by key.
    """

    boxes: float | None
    minutes: float | None
    effort: Callable[[Sequence[str]], Mapping[str, ImageEffort]]


class Limits:
    """Admits images one by one, and counts what they cost.

    Args:
        budgets: None: the number of images alone limits the selection.
        duplicates: None: near duplicates are admitted.
    """

    def __init__(self, budgets: Budgets | None = None, duplicates: DuplicateFilter | None = None) -> None:
        self._budgets = budgets
        self._duplicates = duplicates
        self._effort: dict[str, ImageEffort] = {}
        self._boxes = self._minutes = 0.0
        self.refused: dict[str, Refusal] = {}
        """Reason by key of the images that were not admitted."""

    def prepare(self, keys: Sequence[str]) -> None:
        """Look up what ``admit`` needs to know of these images, all at once."""
        if self._budgets is not None:
            self._effort |= self._budgets.effort(keys)
        if self._duplicates is not None:
            self._duplicates.prepare(keys)

    def reached(self, share: float = 1.0) -> bool:
        """Whether this share of a budget is spent."""
        if self._budgets is None:
            return False
        spent = ((self._boxes, self._budgets.boxes), (self._minutes, self._budgets.minutes))
        return any(limit is not None and value >= share * limit - 1e-9 for value, limit in spent)

    def admit(self, key: str) -> bool:
        """Whether a prepared image may be selected; it then counts as selected."""
        reason = self._duplicates.refusal(key) if self._duplicates is not None else None
        if reason is not None:
            self.refused[key] = reason
            return False
        if self._duplicates is not None:
            self._duplicates.add(key)
        if key in self._effort:
            self._boxes += self._effort[key].boxes
            self._minutes += self._effort[key].minutes
        return True


class DuplicateFilter:
    """Finds images that nearly duplicate a test image or an image selected before.

    Args:
        similarity: cosine from which two images are near duplicates.
        vectors: returns the embeddings of images, rows of length 1.
        test: embeddings of the test images.
    """

    def __init__(self, similarity: float, vectors: Callable[[Sequence[str]], Vectors], test: Vectors) -> None:
        self._similarity = similarity
        self._vectors = vectors
        self._test = test
        self._known: dict[str, NDArray[np.float32]] = {}
        self._of_test: set[str] = set()
        self._selected: list[NDArray[np.float32]] = []

    def prepare(self, keys: Sequence[str]) -> None:
        """Read the embeddings of these images, and compare them with the test images."""
        vectors = self._vectors(keys)
        if len(vectors) != len(keys):  # the detector makes none
            return
        nearest = nearest_similarity(vectors, self._test)
        for key, vector, value in zip(keys, vectors.astype(np.float32), nearest, strict=True):
            self._known[key] = vector
            if value >= self._similarity:
                self._of_test.add(key)

    def refusal(self, key: str) -> Refusal | None:
        """Why a prepared image may not be selected; None if it may."""
        if key in self._of_test:
            return Refusal.DUPLICATE_OF_TEST
        vector = self._known.get(key)
        if vector is None or not self._selected:
            return None
        nearest = float((np.stack(self._selected) @ vector).max())
        return Refusal.DUPLICATE_IN_ROUND if nearest >= self._similarity else None

    def add(self, key: str) -> None:
        """Count an image as selected."""
        if key in self._known:
            self._selected.append(self._known[key])
