"""Trainings with their judgement, each done once and kept: the one store of all benchmarks that train.

A bout is one contestant, one lesson, one budget, one seed. Its folder's name ends in a hash of all that
decides what comes of it, so that a changed setting, label or line of code makes another bout, and two
benchmarks that need the same one share it. ``result.json``, written last, says that it is done.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotate.environments import process_lock
from dsmoe_core import evaluation
from dsmoe_core.atomic import atomic_write
from dsmoe_core.digest import content_id
from dsmoe_core.evaluation import bootstrap
from dsmoe_core.evaluation.metrics import compute_metrics, evaluation_tables
from dsmoe_core.schema import Prediction
from pipelines.benchmarks.comparison.digests import of_code, of_lesson
from pipelines.benchmarks.comparison.protocol import Budget, Contestant, Lesson
from pipelines.benchmarks.results import machine
from pipelines.progress import ProgressReporter
from pipelines.workspace.registry import source_commit

RESAMPLES = 1000
DRAWS_SEED = 42
SHOWN = 0.3
"""Score at which a person would be shown a detection; figures at the best one stand beside it."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a bout.

    Attributes:
        folder: with everything that the contestant kept.
        kept: ``figures`` (as in evaluation.json) and ``resampled``; of a bout also ``epochs``, ``minutes``
            and ``commit``.
    """

    seed: int
    folder: Path
    kept: dict[str, Any] = field(repr=False)

    @property
    def total(self) -> dict[str, Any]:
        """map50, map, and precision, recall and f1 at the best threshold; 0 where nothing is right."""
        total = self.kept["figures"]["total"]
        best = total.get("best", {})
        shares = {name: best.get(name, 0.0) for name in ("precision", "recall", "f1")}
        return {"map50": total["map50"], "map": total["map"], **shares}

    @property
    def resampled(self) -> NDArray[np.float64]:
        """mAP@.5 and mAP@.5:.95 in each resample of the images, (b, 2); the same ones for everybody."""
        return np.array(self.kept["resampled"], dtype=np.float64)


class Bouts:
    """The store.

    Args:
        work: its folder.
        resamples: of the images, for intervals.
    """

    def __init__(self, work: Path, progress: ProgressReporter, resamples: int) -> None:
        self._work = work
        self.told = progress
        self._resamples = resamples

    def fight(self, contestant: Contestant, lesson: Lesson, budget: Budget, seed: int) -> Result:
        """Train and judge; what is done already is read. Another process at the same bout is waited for.

        Raises:
            ModelError, PrerequisiteError: the contestant cannot.
        """
        folder = self._folder(contestant, lesson, budget, seed)

        def fought() -> dict[str, Any]:
            learned = contestant.learn(lesson, budget, seed, folder, self.told)
            commit = source_commit()
            return {
                "contestant": contestant.name,
                "data": lesson.name,
                "budget": budget.plain,
                **({"commit": commit} if commit else {}),
                "epochs": round(learned.epochs, 2),
                "minutes": round(learned.seconds / 60, 2),
                "notes": learned.notes,
                **self._judged(learned.detections, lesson),
            }

        return self._once(folder, "result", seed, fought)

    def again(
        self, result: Result, name: str, look: Callable[[Path], Sequence[Prediction]], lesson: Lesson
    ) -> Result:
        """Judge what the same training finds otherwise, as ``name`` says.

        Args:
            name: of the file that it is kept in; says all that decides what is found.
            look: is given the bout's folder.
        """
        return self._once(result.folder, name, result.seed, lambda: self._judged(look(result.folder), lesson))

    def _once(self, folder: Path, name: str, seed: int, make: Callable[[], dict[str, Any]]) -> Result:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.json"
        with process_lock(folder / "lock", self.told.status):
            kept = _read(path)
            if kept is None:
                kept = make()
                atomic_write(path, json.dumps(kept, ensure_ascii=False) + "\n")
        return Result(seed, folder, kept)

    def _folder(self, contestant: Contestant, lesson: Lesson, budget: Budget, seed: int) -> Path:
        decides = {
            "contestant": contestant.identity(lesson),
            "judge": of_code(Path(evaluation.__file__)),
            "data": of_lesson(lesson),
            "budget": budget.plain,
            "seed": seed,
            "resamples": self._resamples,
            **_where(budget),
        }
        identity = content_id(decides)
        return self._work / f"{lesson.name}-{contestant.name}-seed{seed}-{identity}"

    def _judged(self, detections: Sequence[Prediction], lesson: Lesson) -> dict[str, Any]:
        """All figures, and mAP in the resamples."""
        self.told.status("judging")
        counts = bootstrap.resample_counts(len(lesson.val), self._resamples, DRAWS_SEED)
        found = {one.key: one for one in detections}
        one = evaluation_tables(found, lesson.val, lesson.vocabulary.names, counts, self.told.advance)
        means = bootstrap.mean_over_classes(one.resampled)
        return {
            "figures": compute_metrics(one, counts, given=SHOWN, seed=DRAWS_SEED),
            "resampled": np.nan_to_num(means).round(6).tolist(),
        }


def _where(budget: Budget) -> dict[str, Any]:
    """What the machine decides: how far minutes lead; of passes, only the rounding of a GPU."""
    here = machine()
    if budget.minutes is not None:
        return {"machine": here}
    return {"gpu": here["gpu"]} if here["gpu"] else {}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return kept
