"""Limits of a selection: near duplicates, and budgets in boxes and in annotator minutes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.rounds.acquisition.function import Vectors
from pipelines.rounds.acquisition.neighbours import nearest_targets

MAX_COMPARED = 5
"""Images whose pixels are compared with those of an image: the most similar ones."""


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

    Images of one product under a fixed camera have almost equal embeddings although their defects differ.
    So an image is a near duplicate only if the embeddings are similar **and** the pixels are the same.

    Args:
        similarity: cosine from which the pixels of two images are compared.
        vectors: returns the embeddings of images, rows of length 1.
        test: keys of the test images.
        same_pixels: whether two images, given by their keys, show the same.
    """

    def __init__(
        self,
        similarity: float,
        vectors: Callable[[Sequence[str]], Vectors],
        test: Sequence[str],
        same_pixels: Callable[[str, str], bool],
    ) -> None:
        self._similarity = similarity
        self._vectors = vectors
        self._test = list(test)
        self._same_pixels = same_pixels
        self._test_vectors = vectors(self._test) if self._test else np.zeros((0, 0), dtype=np.float32)
        self._known: dict[str, NDArray[np.float32]] = {}
        self._similar_tests: dict[str, list[str]] = {}
        self._selected: list[str] = []

    def prepare(self, keys: Sequence[str]) -> None:
        """Read the embeddings of these images, and look up the most similar test images."""
        vectors = self._vectors(keys)
        if len(vectors) != len(keys):  # the detector makes none
            return
        nearest = nearest_targets(vectors, self._test_vectors, MAX_COMPARED)
        for key, vector, rows, cosines in zip(keys, vectors.astype(np.float32), *nearest, strict=True):
            self._known[key] = vector
            self._similar_tests[key] = [self._test[row] for row in rows[cosines >= self._similarity]]

    def refusal(self, key: str) -> Refusal | None:
        """Why a prepared image may not be selected; None if it may."""
        if any(self._same_pixels(key, other) for other in self._similar_tests.get(key, ())):
            return Refusal.DUPLICATE_OF_TEST
        if any(self._same_pixels(key, other) for other in self._similar_selected(key)):
            return Refusal.DUPLICATE_IN_ROUND
        return None

    def _similar_selected(self, key: str) -> list[str]:
        vector = self._known.get(key)
        if vector is None or not self._selected:
            return []
        selected = np.stack([self._known[other] for other in self._selected])
        rows, cosines = nearest_targets(vector[None], selected, MAX_COMPARED)
        return [self._selected[row] for row in rows[0][cosines[0] >= self._similarity]]

    def add(self, key: str) -> None:
        """Count an image as selected."""
        if key in self._known:
            self._selected.append(key)
