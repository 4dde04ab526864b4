"""The candidates as arrays, in the order of their keys: classes of the detections, embeddings, scores."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dsmoe_core.errors import SettingsError
from dsmoe_core.schema import Prediction
from pipelines.rounds.acquisition.function import Candidates, Values, Vectors

ClassValues = Mapping[str, float]


class PoolArrays:
    """Arrays with one row per candidate, sorted by key, so that results do not depend on the given order.

    Memory grows with the number of candidates, classes and vector dimensions, not with the detections.
    """

    def __init__(self, candidates: Candidates) -> None:
        self._candidates = candidates
        self._order = np.array(
            sorted(range(len(candidates.keys)), key=lambda i: candidates.keys[i]), dtype=np.int64
        )

    def __len__(self) -> int:
        return len(self._order)

    def scores(self, values: Values) -> dict[str, float]:
        """One value per row as scores by key."""
        keys = self._candidates.keys
        return {keys[i]: float(v) for i, v in zip(self._order, values, strict=True)}

    def per_image(self, value: Callable[[Prediction], Sequence[float]], width: int) -> Values:
        """``width`` values of each prediction, n x width; the predictions are streamed."""
        table = np.zeros((len(self), width))
        for row, prediction in enumerate(self._candidates.predict()):
            table[row] = value(prediction)
        return table[self._order]

    def per_class(
        self, value: Callable[[Prediction], Iterable[ClassValues]], classes: Iterable[str], kinds: int = 1
    ) -> tuple[list[str], NDArray[np.float32]]:
        """Values of each prediction by class; the predictions are streamed.

        Args:
            value: returns ``kinds`` mappings from class to value.
            classes: of the class book; classes of the predictions that are not in it follow.

        Returns:
            The classes, and an array kinds x n x classes.
        """
        column = {name: i for i, name in enumerate(classes)}
        entries = [(array("q"), array("l"), array("f")) for _ in range(kinds)]
        for row, prediction in enumerate(self._candidates.predict()):
            for (rows, columns, values), found in zip(entries, value(prediction), strict=True):
                for name, amount in found.items():
                    rows.append(row)
                    columns.append(column.setdefault(name, len(column)))
                    values.append(amount)
        table = np.zeros((kinds, len(self), len(column)), dtype=np.float32)
        for kind, (rows, columns, values) in enumerate(entries):
            index = (np.frombuffer(rows, np.int64), np.frombuffer(columns, np.dtype("l")))
            table[kind][index] = np.frombuffer(values, np.float32)
        return list(column), table[:, self._order]

    def vectors(self, function: str | None = None) -> Vectors | None:
        """The embeddings of the candidates; None if the detector makes none.

        Args:
            function: name of an acquisition function that cannot do without.

        Raises:
            SettingsError: there are none, and ``function`` is given.
        """
        if not len(self):
            return None
        found = self._candidates.embeddings()
        if len(found) == len(self) and found.shape[1]:
            return found[self._order]
        if function is not None:
            raise SettingsError(
                f"round.acquisition {function} compares images by their embeddings, and the detector made "
                f"{len(found)} for {len(self)} images",
                "Use an acquisition function without embeddings, such as entropy.",
            )
        return None


def descending(order: Sequence[int], picked: Sequence[float], rest: Values) -> Values:
    """Scores that reproduce the order of a greedy selection.

    Args:
        order: rows in the order of selection.
        picked: value of each when it was selected.
        rest: values of all rows; those of selected rows are replaced.

    Returns:
        One score per row: the selected rows have strictly descending scores above those of all others.
    """
    scores = rest.astype(np.float64)
    others = np.ones(len(scores), dtype=bool)
    others[list(order)] = False
    above = float(scores[others].max()) if others.any() else -np.inf
    for row, value in zip(reversed(order), reversed(picked), strict=True):
        above = max(float(value), float(np.nextafter(above, np.inf)) if np.isfinite(above) else float(value))
        scores[row] = above
    return scores


def top_rows(values: Values, count: int) -> NDArray[np.int64]:
    """The rows with the highest values, at most ``count``, in ascending order of the row."""
    if count >= len(values):
        return np.arange(len(values))
    return np.sort(np.argsort(-values, kind="stable")[:count])
