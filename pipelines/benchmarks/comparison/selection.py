"""Procedures of a comparison: how a model is trained, selected and evaluated.

A setting that is chosen on val.json makes the result on val.json too good. So there is an inner split of
train.json (dataset.py). :class:`OneTraining` can evaluate on it, to choose settings. :class:`Selected`
selects among trainings on it and then evaluates the selected one on val.json, once.

**Convergence.** :class:`Selected` trains for E, 2E, 4E, ... epochs, each time from the initial weights and
with the complete learning-rate schedule of that length. It ends when the mAP@.5:.95 on the inner split has
not improved for N lengths in a row, or when the next length would exceed the maximum. The training with the
highest mAP is evaluated. One long training that is stopped early would be cheaper, but its schedule would not
have ended: DS-MoE and YOLOv8 both lower the learning rate to almost 0 over the planned epochs. The rule is
the same for every model. Every length is a stored run, so an interrupted comparison continues.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from dsmoe_core.digest import content_id
from pipelines.benchmarks.comparison.dataset import InnerSplit
from pipelines.benchmarks.comparison.digests import dataset_digest
from pipelines.benchmarks.comparison.protocol import BenchmarkDataset, BenchmarkModel, Budget
from pipelines.benchmarks.comparison.run_store import RunResult, RunStore


class Procedure(Protocol):
    """How an entry of a sweep is trained and evaluated."""

    def run(
        self,
        models: Sequence[BenchmarkModel],
        dataset: BenchmarkDataset,
        budget: Budget,
        seed: int,
        store: RunStore,
    ) -> RunResult:
        """Train and evaluate.

        Args:
            models: the model with each of the settings to select from, at least one.
        """
        ...

    def plain(self, budget: Budget) -> dict[str, Any]:
        """Budget and inner split, as keys of a result file."""
        ...


@dataclass(frozen=True, slots=True)
class OneTraining:
    """Train and evaluate the first model.

    Attributes:
        split: train and evaluate within train.json, so that val.json is not read; None: train on train.json
            and evaluate on val.json.
    """

    split: InnerSplit | None = None

    def run(
        self,
        models: Sequence[BenchmarkModel],
        dataset: BenchmarkDataset,
        budget: Budget,
        seed: int,
        store: RunStore,
    ) -> RunResult:
        """One training and its evaluation."""
        return store.run(models[0], dataset if self.split is None else self.split.cut(dataset), budget, seed)

    def plain(self, budget: Budget) -> dict[str, Any]:
        """The budget, and the inner split if the rows are evaluated on it."""
        inner = {} if self.split is None else {"inner": self.split.plain, "evaluated_on": "inner"}
        return {"budget": budget.plain, **inner}


ON_VAL = OneTraining()
"""The default procedure."""


class Trial(NamedTuple):
    """A training that can be selected, with its mAP@.5:.95 on the inner split."""

    model: BenchmarkModel
    budget: Budget
    result: RunResult

    @property
    def inner_map(self) -> float:
        """Rounded as in result files."""
        return round(self.result.metrics["map"], 4)

    @property
    def plain(self) -> dict[str, Any]:
        """For result files."""
        return {"model": self.model.name, **self.budget.plain, "inner_map": self.inner_map}


@dataclass(frozen=True, slots=True)
class Selected:
    """Select settings and length of the training on the inner split, then evaluate on val.json.

    The training images are those of train.json without the inner split.

    Attributes:
        patience: N, lengths without improvement after which a model has converged. None: the budget is the
            length of all trainings.
        max_epochs: with ``patience``: upper limit of the length.
    """

    split: InnerSplit
    patience: int | None = None
    max_epochs: int | None = None

    def run(
        self,
        models: Sequence[BenchmarkModel],
        dataset: BenchmarkDataset,
        budget: Budget,
        seed: int,
        store: RunStore,
    ) -> RunResult:
        """The evaluation of the selected training on val.json.

        Every model is trained for every length. The length with the best of them decides on convergence.
        """
        inner = self.split.cut(dataset)
        trials: list[Trial] = []
        best_of_lengths: list[float] = []
        for length in self._lengths(budget):
            for model in models:
                trials.append(Trial(model, length, store.run(model, inner, length, seed)))
                store.progress.line(
                    f"  {_amount(length)}, {model.name}: mAP@.5:.95 {trials[-1].inner_map:.3f} (inner split)"
                )
            best_of_lengths.append(max(trial.inner_map for trial in trials[-len(models) :]))
            if self._stands_still(best_of_lengths):
                break
        best = max(trials, key=lambda trial: trial.inner_map)  # the first, so the shortest, of equal ones
        final = replace(inner, val=dataset.val)
        on_val = store.evaluate_again(
            best.result,
            f"val-{content_id(dataset_digest(final))}",
            lambda folder: best.model.predict_trained(final, folder, store.progress),
            final,
        )
        selected = {**best.plain, "converged": self._stands_still(best_of_lengths)} | {
            "tried": [trial.plain for trial in trials]
        }
        return RunResult(
            seed, best.result.folder, {**best.result.record, **on_val.record, "selected": selected}
        )

    def plain(self, budget: Budget) -> dict[str, Any]:
        """Budget, rule of convergence and inner split."""
        rule = {} if self.patience is None else {"max_epochs": self.max_epochs, "converge": self.patience}
        return {"budget": {**budget.plain, **rule}, "inner": self.split.plain}

    def _lengths(self, first: Budget) -> Iterator[Budget]:
        yield first
        if self.patience is None or self.max_epochs is None:
            return
        epochs = 2 * (first.epochs or 1)
        while epochs <= self.max_epochs:
            yield Budget(epochs=epochs)
            epochs *= 2

    def _stands_still(self, values: Sequence[float]) -> bool:
        """Whether the last ``patience`` values are not above all values before them."""
        return self.patience is not None and len(values) - 1 - values.index(max(values)) >= self.patience


def _amount(budget: Budget) -> str:
    ((unit, amount),) = budget.plain.items()
    return f"{amount:g} {unit}"
