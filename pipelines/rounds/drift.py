"""Drift of a champion's predictions, detected with ADWIN [Bifet and Gavalda 2007, SIAM SDM].

The stream is the predictions in the order in which the images arrived. The images that the champion was
trained on are left out, because a detector is more certain on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from statistics import fmean
from typing import Any

from dsmoe_core.errors import PrerequisiteError
from dsmoe_core.schema import ImageRecord, Prediction
from pipelines.rounds.policy import DriftSignal
from pipelines.workspace.journal import EPOCH
from pipelines.workspace.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Arrival:
    """One image of the stream.

    Attributes:
        name: of the image.
        is_new: it arrived after the last training.
        values: of the signals, by name.
    """

    name: str
    is_new: bool
    values: Mapping[str, float]


def signals(prediction: Prediction) -> dict[str, float]:
    """The watched signals of a prediction: uncertainty, entropy of the routing, weight of each expert."""
    routing = prediction.routing
    weights = {f"expert {expert}": w for expert, w in zip(routing.experts, routing.weights, strict=True)}
    return {"uncertainty": prediction.uncertainty, "routing entropy": routing.entropy, **weights}


def detect_drift(stream: Sequence[Arrival], *, delta: float) -> tuple[DriftSignal, ...]:
    """The latest change of each signal that was detected at a new image.

    Args:
        stream: in the order of arrival; a signal that an image lacks is 0 there.
        delta: probability of a false alarm; it is divided among the signals.

    Raises:
        PrerequisiteError: river is not installed.
    """
    if find_spec("river") is None:
        raise PrerequisiteError(
            "policy.drift is on, and the package river is not installed",
            "Install the extra: `pip install 'dsmoe[watch]'`.",
        )
    names = list(dict.fromkeys(name for arrival in stream for name in arrival.values))
    found = (_changes(name, stream, delta / len(names)) for name in names)
    return tuple(change for change in found if change is not None)


def _changes(signal: str, stream: Sequence[Arrival], delta: float) -> DriftSignal | None:
    """The last change of one signal that was detected at a new image; None without one."""
    from river.drift import ADWIN

    adwin: Any = ADWIN(delta=delta, clock=1)  # type: ignore[no-untyped-call]
    values = [arrival.values.get(signal, 0.0) for arrival in stream]
    detected = []
    for index, value in enumerate(values):
        adwin.update(value)
        if adwin.drift_detected:
            detected.append(index)
    new = [index for index in detected if stream[index].is_new]
    if not new:
        return None
    start = max((index + 1 for index in detected if index < new[-1]), default=0)
    split = start + change_point(values[start : new[-1] + 1])
    return DriftSignal(signal, stream[split].name, fmean(values[start:split]), fmean(values[split:]))


def change_point(values: Sequence[float]) -> int:
    """Index of the first value after the most likely change of the mean, 1 to n - 1.

    It maximises the variance between the two parts; ADWIN says that there is a change, not where.
    """
    total, count, left = sum(values), len(values), 0.0
    best, split = -1.0, 1
    for index in range(1, count):
        left += values[index - 1]
        gap = left / index - (total - left) / (count - index)
        between = gap * gap * index * (count - index)
        if between > best:
            best, split = between, index
    return split


def pool_in_order(workspace: Workspace, limit: int) -> list[ImageRecord]:
    """The newest images of the pool that the champion was not trained on, in the order of their arrival.

    Images of one import are ordered by name, which mostly has the time.
    """
    arrivals, trained = workspace.journal.arrivals(), _trained_on(workspace)
    images = [image for image in workspace.images("pool") if image.key not in trained]
    images.sort(key=lambda image: (arrivals.get(image.key, EPOCH), image.name, image.key))
    return images[-limit:]


def _trained_on(workspace: Workspace) -> set[str]:
    champion = workspace.champion()
    if champion is None:
        return set()
    version = workspace.dataset_version(workspace.registry.card(champion).dataset_version)
    return {item.key for item in version.train}


def arrival_stream(workspace: Workspace, images: Iterable[ImageRecord]) -> list[Arrival]:
    """The stored predictions of the champion on images, in their order; images without one are left out."""
    champion = workspace.champion()
    if champion is None:
        return []
    trained_at: datetime = workspace.registry.cards()[-1].created_at  # a refused candidate's, too
    arrivals = workspace.journal.arrivals()
    stored = workspace.prediction_store.lookup(workspace.prediction_version(champion))
    return [
        Arrival(image.name, arrivals.get(image.key, EPOCH) > trained_at, signals(stored[image.key]))
        for image in images
        if image.key in stored
    ]
