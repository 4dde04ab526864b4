"""The cycles of one seed: the initial set, each strategy after it, and a training on all labels.

A finished cycle is a file, ``STRATEGY/seed-N/cycle-NN.json``. A run that finds the file reads it instead of
running the cycle again. The initial set and its model are the same for all strategies of a seed.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import dsmoe_core
from dsmoe_core.atomic import atomic_write
from dsmoe_core.data.same_pixels import PixelComparison
from dsmoe_core.digest import content_id, sha256_of
from dsmoe_core.evaluation.coco_metrics import evaluate
from dsmoe_core.schema import LabelledImage, Prediction
from dsmoe_core.uncertainty import filter_by_score
from pipelines.benchmarks.comparison.digests import dataset_digest, module_digest, package_digest
from pipelines.benchmarks.comparison.protocol import BenchmarkDataset
from pipelines.benchmarks.simulation.learner import Learner, remove_model
from pipelines.benchmarks.simulation.oracle import annotation_minutes, outcomes
from pipelines.benchmarks.simulation.plan import Plan
from pipelines.detectors.pre_annotations import pre_annotations, threshold
from pipelines.rounds import acquisition
from pipelines.rounds.acquisition import acquisition_function
from pipelines.rounds.acquisition.calibrated import calibrated_probability
from pipelines.rounds.acquisition.function import Candidates, ReviewedImage, Vectors
from pipelines.rounds.acquisition.limits import Budgets, DuplicateFilter, Limits
from pipelines.rounds.acquisition.selection import ranked_round, sample
from pipelines.rounds.candidates import image_effort
from pipelines.workspace.annotation_time import DEFAULT_SECONDS
from pipelines.workspace.prediction_store import from_json, to_json

INITIAL, FULL = "initial", "full"
"""Names of the cell of the initial set, and of the training on all images, besides the strategies."""
CycleCallback = Callable[[str, int], None]
"""Called with the name of the cell and the number of the cycle that is finished."""


class SeedRun:
    """All cells of one seed.

    Args:
        dataset: the images of ``train`` are the pool, those of ``val`` the test set.
        on_cycle: called after each cycle, also for those that were finished before.
    """

    def __init__(
        self, plan: Plan, dataset: BenchmarkDataset, learner: Learner, seed: int, on_cycle: CycleCallback
    ) -> None:
        self._plan, self._dataset, self._learner, self._seed = plan, dataset, learner, seed
        self._on_cycle = on_cycle
        self._pool = {labelled.image.key: labelled for labelled in dataset.train}
        trained = {**plan.training_identity, "data": dataset_digest(dataset), "warm": sha256_of(plan.weights)}
        trained["code"] = package_digest(Path(dsmoe_core.__file__))
        selection = {**plan.selection_identity, "code": package_digest(Path(acquisition.__file__))}
        selection["oracle"] = [
            module_digest(Path(__file__).with_name(f"{n}.py")) for n in ("oracle", "trajectory")
        ]
        self._full_home = plan.work / f"{dataset.name}-{content_id(trained)[:10]}"
        self._home = self._full_home / content_id(selection)[:10]

    def run(self) -> dict[str, list[dict[str, Any]]]:
        """The finished cycles by cell: ``INITIAL``, ``FULL`` and the strategies."""
        initial = self._initial()
        results = {INITIAL: [initial], FULL: [self._full()]}
        for strategy in self._plan.strategies:
            cycles = [initial]
            for number in range(1, self._plan.rounds + 1):
                cycle = self._cycle(strategy, number, cycles)
                if cycle is None:  # the pool is empty
                    break
                cycles.append(cycle)
            results[strategy] = cycles[1:]
        return results

    def _initial(self) -> dict[str, Any]:
        def work(folder: Path) -> dict[str, Any]:
            keys = initial_keys(self._dataset.train, self._plan.initial, self._seed)
            minutes = sum(
                annotation_minutes(outcomes((), self._pool[key].annotations), DEFAULT_SECONDS) for key in keys
            )
            self._train(folder, keys, None)
            return {"keys": keys, "minutes": minutes, "reviewed": [], **self._evaluated(folder / "model")}

        return self._finished(self._home / INITIAL, 0, INITIAL, work)

    def _full(self) -> dict[str, Any]:
        rounds = self._plan.rounds

        def work(folder: Path) -> dict[str, Any]:
            self._train(folder, sorted(self._pool), None, cycles=rounds + 1)
            measured = self._evaluated(folder / "model")
            return {"images": len(self._pool), "boxes": self._boxes(self._pool), **measured}

        home = self._full_home / f"{FULL}-{rounds + 1}"
        result = self._finished(home, 0, FULL, work)
        remove_model(self._folder(home, 0) / "model")
        return result

    def _cycle(
        self, strategy: str, number: int, before: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any] | None:
        labelled = [key for cycle in before for key in cycle["keys"]]
        unlabelled = sorted(set(self._pool).difference(labelled))
        if not unlabelled:
            return None
        home = self._home / strategy
        earlier = self._home / INITIAL if number == 1 else home
        start = self._folder(earlier, number - 1) / "model"

        def work(folder: Path) -> dict[str, Any]:
            started = time.monotonic()
            reviewed = [from_json(raw) for cycle in before for raw in cycle["reviewed"]]
            selection = Selection(self._plan, self._dataset, self._learner, start, self._seed + 1000 * number)
            keys, predictions = selection.select(strategy, unlabelled, labelled, reviewed)
            selecting = time.monotonic() - started
            minutes = float(before[-1]["minutes"])
            for prediction in predictions:
                shown = pre_annotations(prediction, self._plan.round, None).detections
                done = outcomes(shown, self._pool[prediction.key].annotations)
                minutes += annotation_minutes(done, DEFAULT_SECONDS)
            self._train(folder, [*labelled, *keys], start)
            measured = self._evaluated(folder / "model")
            return {
                "keys": keys,
                "minutes": minutes,
                "reviewed": [to_json(filter_by_score(p)) for p in predictions],
                "selecting_s": selecting,
                **measured,
            }

        result = self._finished(home, number, strategy, work, labelled)
        if number > 1:  # the model of the initial set is needed by the other strategies
            remove_model(start)
        return result

    def _train(self, folder: Path, keys: Sequence[str], start: Path | None, cycles: int = 1) -> None:
        self._learner.train(
            [self._pool[key] for key in keys],
            self._dataset.vocabulary,
            folder / "model",
            seed=self._seed,
            start_from=start,
            cycles=cycles,
        )

    def _evaluated(self, model: Path) -> dict[str, Any]:
        images = [labelled.image for labelled in self._dataset.val]
        predictions = self._learner.predict(model, self._dataset.vocabulary, images)
        result = evaluate(predictions, self._dataset.val, self._dataset.vocabulary.names)
        per_class = {name: {"map50": m.map50, "map": m.map} for name, m in result.per_class.items()}
        return {"map50": result.map50, "map": result.map, "per_class": per_class}

    def _finished(
        self,
        home: Path,
        number: int,
        cell: str,
        work: Callable[[Path], dict[str, Any]],
        labelled: Sequence[str] = (),
    ) -> dict[str, Any]:
        """The stored result of a cycle; else run it and store the result."""
        folder = self._folder(home, number)
        file = folder.with_suffix(".json")
        if not file.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            started, processor = time.monotonic(), time.process_time()
            result = work(folder)
            everything = [*labelled, *result.get("keys", ())]
            counts = {"images": len(everything), "boxes": self._boxes(everything)}
            times = {"seconds": time.monotonic() - started, "cpu_s": time.process_time() - processor}
            result = {"cycle": number, **counts, **result, **times}
            atomic_write(file, json.dumps(result) + "\n")
        self._on_cycle(cell, number)
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found

    def _folder(self, home: Path, number: int) -> Path:
        return home / f"seed-{self._seed}" / f"cycle-{number:02}"

    def _boxes(self, keys: Sequence[str] | Mapping[str, Any]) -> int:
        return sum(len(self._pool[key].annotations) for key in keys)


def initial_keys(images: Sequence[LabelledImage], count: int, seed: int) -> list[str]:
    """Keys of a random initial set; at least one of its images has a box."""
    keys = sample([labelled.image.key for labelled in images], count, seed=seed)
    with_box = [labelled.image.key for labelled in images if labelled.annotations]
    if with_box and not set(keys) & set(with_box):
        keys[0] = sample(with_box, 1, seed=seed)[0]
    return keys


class Selection:
    """Selects the images of one cycle with the model of the cycle before.

    Args:
        model: folder of that model.
        seed: of the selection.
    """

    def __init__(
        self, plan: Plan, dataset: BenchmarkDataset, learner: Learner, model: Path, seed: int
    ) -> None:
        self._plan, self._dataset, self._learner, self._model, self._seed = (
            plan,
            dataset,
            learner,
            model,
            seed,
        )
        self._images = {p.image.key: p for p in (*dataset.val, *dataset.train)}
        self._known: dict[str, Prediction] = {}

    def select(
        self,
        strategy: str,
        unlabelled: Sequence[str],
        labelled: Sequence[str],
        reviewed: Sequence[Prediction],
    ) -> tuple[list[str], list[Prediction]]:
        """The selected keys, and the predictions that their annotator sees.

        Args:
            reviewed: predictions of labelled images from before their labels.
        """
        settings = self._plan.round
        pairs = [ReviewedImage(p, self._images[p.key]) for p in reviewed]
        labels = Counter(a.label for key in labelled for a in self._images[key].annotations)
        candidates = Candidates(
            unlabelled,
            lambda: self._stored(unlabelled),
            self._seed,
            budget=self._plan.budget,
            embeddings=lambda: self._embeddings(unlabelled),
            labelled_embeddings=lambda: self._embeddings(labelled),
            class_counts=lambda: {name: labels[name] for name in self._dataset.vocabulary.names},
            probability=calibrated_probability(pairs),
            reviewed=lambda: pairs,
            shown_score=lambda label: threshold(label, settings, None),
            class_minimum=settings.class_minimum,
        )
        choices = ranked_round(
            acquisition_function(strategy).score(candidates),
            budget=self._plan.budget,
            random_share=0.0,
            seed=self._seed,
            limits=self._limits(candidates),
        )
        keys = [choice.key for choice in choices]
        return keys, list(self._stored(keys))

    def _limits(self, candidates: Candidates) -> Limits:
        settings = self._plan.round
        budgets = duplicates = None
        if self._plan.budget_boxes is not None or settings.budget_minutes is not None:
            budgets = Budgets(
                self._plan.budget_boxes,
                settings.budget_minutes,
                lambda keys: {
                    p.key: image_effort(p, candidates, DEFAULT_SECONDS) for p in self._stored(keys)
                },
            )
        if settings.duplicate_similarity is not None:
            pixels, images = PixelComparison(), self._images
            duplicates = DuplicateFilter(
                settings.duplicate_similarity,
                self._embeddings,
                [labelled.image.key for labelled in self._dataset.val],
                lambda one, other: pixels.same(images[one].image, images[other].image),
            )
        return Limits(budgets, duplicates)

    def _stored(self, keys: Sequence[str]) -> Iterator[Prediction]:
        """Predictions in the order of the keys, with the detections that the product stores."""
        missing = [self._images[key].image for key in keys if key not in self._known]
        if missing:
            for p in self._learner.predict(self._model, self._dataset.vocabulary, missing):
                self._known[p.key] = replace(filter_by_score(p), embedding=p.embedding)
        return (self._known[key] for key in keys)

    def _embeddings(self, keys: Sequence[str]) -> Vectors:
        rows = [p.embedding for p in self._stored(keys) if p.embedding is not None]
        return np.stack(rows) if rows else np.zeros((0, 0), dtype=np.float32)
