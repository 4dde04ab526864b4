"""Candidates for acquisition functions, with predictions of given entropies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dsmoe_core.schema import Box, Detection, Prediction, Routing
from pipelines.rounds.acquisition.function import Candidates


def prediction(key: str, entropies: Sequence[float]) -> Prediction:
    """One detection per entropy."""
    box = Box(0.0, 0.0, 9.0, 9.0)
    detections = tuple(Detection(box, "rust", 0.5, {"rust": 0.5, "plum": 0.25}, e) for e in entropies)
    return Prediction(key, detections, Routing((0,), (1.0,), 0.0), uncertainty=99.0, version="m+b")


def candidates(entropies: Mapping[str, Sequence[float]], seed: int = 0) -> Candidates:
    """Candidates by key, with the entropies of their detections."""
    return Candidates(
        list(entropies), lambda: iter([prediction(key, values) for key, values in entropies.items()]), seed
    )
