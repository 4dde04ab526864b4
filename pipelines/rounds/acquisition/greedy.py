"""Greedy selection with a similarity penalty, on the rows of the highest values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipelines.rounds.acquisition.function import Values, Vectors
from pipelines.rounds.acquisition.pool_arrays import descending, top_rows
from pipelines.rounds.acquisition.similarity import SimilarityPenalty

SHORTLIST, MIN_SHORTLIST = 50, 2000
"""Rows that a greedy selection considers: this many budgets, and at least this many rows."""

Rows = NDArray[np.int64]


class Shortlist:
    """The rows of the highest values, and their similarity to labelled and selected images.

    A value can only fall in the selection, so a row outside the shortlist could be selected only after many
    of the shortlist were penalised.

    Args:
        values: of all rows.
        vectors: embeddings of all rows; None: nothing is similar.
        labelled: returns the embeddings of the labelled images.
        budget: rows to select.
    """

    def __init__(
        self, values: Values, vectors: Vectors | None, labelled: Callable[[], Vectors], budget: int
    ) -> None:
        self._values = values
        self.rows: Rows = top_rows(values, max(SHORTLIST * budget, MIN_SHORTLIST))
        known = labelled() if vectors is not None else np.zeros((0, 0), dtype=np.float32)
        chosen = vectors[self.rows] if vectors is not None else None
        self._penalty = SimilarityPenalty(chosen, known, len(self.rows))

    def scores(
        self,
        budget: int,
        gain: Callable[[Rows], Values],
        add: Callable[[int], None],
        wanted: Callable[[Rows], NDArray[np.bool_] | None] = lambda _: None,
    ) -> Values:
        """Select row by row the highest gain times dissimilarity.

        Args:
            gain: current gains of these rows, 0 or more.
            add: called with each selected row.
            wanted: rows that the next selection is restricted to; None: all.

        Returns:
            One score per row of ``values``: selected rows in descending order above all others, the other
            rows of the shortlist by their last gain, and the rest below.
        """
        open_rows = np.ones(len(self.rows), dtype=bool)
        order: list[int] = []
        picked: list[float] = []
        for _ in range(min(budget, len(self.rows))):
            current = gain(self.rows) * self._penalty.factors()
            preferred = wanted(self.rows)
            allowed = (
                open_rows if preferred is None or not (open_rows & preferred).any() else open_rows & preferred
            )
            place = int(np.argmax(np.where(allowed, current, -np.inf)))
            order.append(int(self.rows[place]))
            picked.append(float(current[place]))
            open_rows[place] = False
            self._penalty.add(place)
            add(order[-1])
        return descending(order, picked, self._rest(gain))

    def _rest(self, gain: Callable[[Rows], Values]) -> Values:
        """Values of all rows, with those of the shortlist reduced by what was selected."""
        rest = self._values.astype(np.float64)
        outside = np.ones(len(rest), dtype=bool)
        outside[self.rows] = False
        if outside.any():  # they stay below the shortlist
            top = float(rest[outside].max())
            rest[outside] -= top
        rest[self.rows] = gain(self.rows) * self._penalty.factors()
        return rest
