"""Many bouts in a row: every seed, every data set, every entrant; what is known is reported after each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.benchmarks.comparison import dataset as lessons
from pipelines.benchmarks.comparison.protocol import MIN_SCORE, MOST, Budget, Contestant
from pipelines.benchmarks.comparison.rows import differences, row
from pipelines.benchmarks.comparison.run_store import Bouts, Result

Report = Callable[[dict[str, Any], Sequence[int]], None]
"""Given the keys of a result file and the seeds that they hold, after each bout."""


@dataclass(frozen=True, slots=True)
class Entrant:
    """One row of a result file for each data set.

    Attributes:
        keys: what the row says of it, beside its figures.
        labels: share of the training images that it learns from.
        budget: its own, where the entrants of a series have several.
    """

    keys: dict[str, Any]
    contestant: Contestant
    labels: float = 1.0
    budget: Budget | None = None


class Pair(NamedTuple):
    """Two entrants by number, the first one's figures less the second one's, and what the test's row says."""

    one: int
    other: int
    keys: dict[str, Any]


class Field(NamedTuple):
    """Who takes part, and who is compared with whom."""

    entrants: Sequence[Entrant]
    pairs: Sequence[Pair]


def run(
    field: Field, data: Sequence[Path], budget: Budget, seeds: Sequence[int], bouts: Bouts, report: Report
) -> None:
    """Go through all bouts, seed by seed, so that half a series is a whole one of fewer seeds.

    Args:
        data: folders with images/, train.json and val.json.
        budget: of all entrants that have none of their own.

    Raises:
        DataError: a data set cannot be read.
        ModelError, PrerequisiteError: a contestant cannot go on; what is done stays done.
    """
    results: dict[tuple[str, int], list[Result]] = {}
    with ExitStack() as stack:
        read = [stack.enter_context(lessons.read(folder, bouts.told)) for folder in data]
        todo = [(seed, whole, i) for seed in seeds for whole in read for i in range(len(field.entrants))]
        for done, (seed, whole, i) in enumerate(todo, start=1):
            entrant = field.entrants[i]
            name = f"{whole.name}, {', '.join(map(str, entrant.keys.values()))}, seed {seed}"
            bouts.told.line(f"{done} of {len(todo)}: {name}")
            lesson = lessons.with_share(whole, entrant.labels, seed)
            result = bouts.fight(entrant.contestant, lesson, entrant.budget or budget, seed)
            results.setdefault((whole.name, i), []).append(result)
            shown = result.total
            bouts.told.line(f"  mAP@.5 {shown['map50']:.3f}, mAP@.5:.95 {shown['map']:.3f}")
            head = {"budget": budget.plain, "min_score": MIN_SCORE, "max_detections": MOST}
            names = [one.name for one in read]
            report({**head, **_measured(field, names, results)}, seeds[: seeds.index(seed) + 1])


def _measured(
    field: Field, data: Sequence[str], results: dict[tuple[str, int], list[Result]]
) -> dict[str, Any]:
    rows = [
        {"data": name, **entrant.keys, **row(results[name, i])}
        for name in data
        for i, entrant in enumerate(field.entrants)
        if (name, i) in results
    ]
    compared = [
        {"data": name, **pair.keys, **test}
        for name in data
        for pair in field.pairs
        for test in differences(results.get((name, pair.one), ()), results.get((name, pair.other), ()))
    ]
    return {"rows": rows, "tests": compared}
