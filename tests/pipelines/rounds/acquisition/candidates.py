"""Candidates for acquisition functions, with predictions of given entropies or probabilities."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsmoe_core.schema import Box, Detection, Prediction, Routing
from pipelines.rounds.acquisition.function import Candidates

ROUTING = Routing((0,), (1.0,), 0.0)
Vector = Sequence[float]


def prediction(key: str, entropies: Sequence[float]) -> Prediction:
    """One detection per entropy."""
    box = Box(0.0, 0.0, 9.0, 9.0)
    detections = tuple(Detection(box, "rust", 0.5, {"rust": 0.5, "plum": 0.25}, e) for e in entropies)
    return Prediction(key, detections, ROUTING, uncertainty=99.0, version="m+b")


def candidates(entropies: Mapping[str, Sequence[float]], seed: int = 0) -> Candidates:
    """Candidates by key, with the entropies of their detections and an embedding that the key determines."""
    return Candidates(
        list(entropies),
        lambda: iter([prediction(key, values) for key, values in entropies.items()]),
        seed,
        budget=3,
        embeddings=lambda: unit([random_vector(key) for key in entropies]),
    )


def random_vector(key: str) -> Vector:
    source = random.Random(key)
    return [source.gauss(0, 1) for _ in range(8)]


def unit(vectors: Sequence[Vector]) -> NDArray[np.float32]:
    """The vectors scaled to length 1."""
    rows = np.array(vectors, dtype=np.float32).reshape(len(vectors), -1 if vectors else 0)
    scaled: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled


def detection(label: str, score: float, entropy: float = 0.5, at: float = 0.0, **others: float) -> Detection:
    """A detection of 9 x 9 pixels at (at, 0)."""
    return Detection(Box(at, 0.0, at + 9.0, 9.0), label, score, {label: score, **others}, entropy)


def pool(
    detections: Mapping[str, Sequence[Detection]],
    vectors: Mapping[str, Vector] | None = None,
    labelled: Sequence[Vector] = (),
    **known: Any,
) -> Candidates:
    """Candidates by key with these detections and, if given, embeddings."""
    if vectors is not None:
        known["embeddings"] = lambda: unit([vectors[key] for key in detections])
        if labelled:
            known["labelled_embeddings"] = lambda: unit(labelled)
    return Candidates(
        list(detections),
        lambda: iter(Prediction(k, tuple(d), ROUTING, 0.0, "m+b") for k, d in detections.items()),
        known.pop("seed", 0),
        **known,
    )


def ranking(scores: Mapping[str, float]) -> list[str]:
    """Keys by descending score."""
    return sorted(scores, key=lambda key: -scores[key])
