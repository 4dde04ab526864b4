"""Candidates that differ from the champion by their seed only: how often the promotion gate passes them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dsmoe_core.evaluation.paired_predictions import PairedPredictions
from dsmoe_core.schema import LabelledImage, Prediction
from pipelines.detectors.backend import evaluate_predictions
from pipelines.detectors.registry import detector_backend
from pipelines.label_errors.new_labels import NO_REFERENCE, CheckedLabels
from pipelines.progress import ProgressReporter
from pipelines.rounds.gate import Comparison, decide
from pipelines.settings.environment import Environment
from pipelines.workspace.evaluation_predictions import load_predictions, save_predictions
from pipelines.workspace.relabel import relabel_image
from pipelines.workspace.workspace import Workspace

Plain = dict[str, Any]
Models = dict[int, dict[str, Prediction]]
"""Predictions of the test images by image key, of each seed's model."""


def measure_chance(
    workspace: Workspace,
    environment: Environment,
    folder: Path,
    dataset: str,
    *,
    seeds: Sequence[int],
    images: int,
    trials: int,
    progress: ProgressReporter,
) -> Plain:
    """Train a model for each seed from the champion, and let the gate decide on pairs of them.

    The pairs of a trial are drawn without repetition from all ordered pairs, and their test images at random
    for each trial; the models are the same in several trials.

    Args:
        folder: of the trained models and their predictions; those that are there are not made again.
        dataset: dataset version of all trainings.
        images: test images of a trial.
    """
    models = _predictions(workspace, environment, folder, dataset, seeds, progress)
    truth = _truth(workspace)
    pairs = list(itertools.permutations(seeds, 2))
    rng = np.random.default_rng(workspace.settings.seed)
    order = rng.permutation(len(pairs))
    rows = []
    for trial in range(trials):
        candidate, champion = pairs[order[trial % len(pairs)]]
        drawn = [truth[i] for i in rng.permutation(len(truth))[:images]]
        rows.append(_trial(workspace, models, candidate, champion, drawn))
        progress.advance(trial + 1, trials)
    names = workspace.class_book().vocabulary()
    return {
        "images": images,
        "trials": trials,
        "trainings": len(seeds),
        "map_all_images": {
            str(seed): round(evaluate_predictions(of_seed.values(), truth, names, "all").map, 4)
            for seed, of_seed in models.items()
        },
        "candidate_higher": sum(row["gain"] > 0 for row in rows),
        "promoted": sum(row["verdict"] == "promoted" for row in rows),
        "rows": rows,
    }


def _truth(workspace: Workspace) -> list[LabelledImage]:
    book = workspace.class_book()
    return [relabel_image(image, book.resolve) for image in workspace.test_set()]


def _predictions(
    workspace: Workspace,
    environment: Environment,
    folder: Path,
    dataset: str,
    seeds: Sequence[int],
    progress: ProgressReporter,
) -> Models:
    """Predictions of a model for each seed, which is trained if it is missing."""
    detector, book = detector_backend(workspace, environment), workspace.class_book()
    vocabulary, champion = book.vocabulary(), workspace.champion()
    version = workspace.dataset_version(dataset)
    labelled = [relabel_image(p, book.resolve) for p in version.labelled(workspace.images_by_key())]
    test = [item.image for item in workspace.test_set()]
    training = workspace.settings.detector.training_for_round(0)
    models: Models = {}
    for seed in seeds:
        out = folder / f"seed{seed}"
        stored = load_predictions(out, dataset)
        if stored is None:
            progress.line(f"training with seed {seed}")
            detector.fit(
                images=labelled,
                vocabulary=vocabulary,
                training=training.model_copy(update={"seed": seed}),
                out=out,
                start_from=workspace.registry.folder(champion) if champion else None,
                progress=lambda step, steps, _: progress.advance(step, steps),
            )
            save_predictions(out, detector.load(out, vocabulary)(test), vocabulary.names, dataset)
            stored = load_predictions(out, dataset)
            assert stored is not None  # noqa: S101  # it was just written
        models[seed] = dict(stored)
    return models


def _trial(
    workspace: Workspace, models: Models, candidate: int, champion: int, truth: Sequence[LabelledImage]
) -> Plain:
    """The gate's decision on one model against another on some test images."""
    settings, vocabulary = workspace.settings.gate, workspace.class_book().vocabulary()
    keys = [item.image.key for item in truth]
    first, second = ({key: models[seed][key] for key in keys} for seed in (candidate, champion))
    of_first, of_second = (
        evaluate_predictions(of_model.values(), truth, vocabulary, "trial") for of_model in (first, second)
    )
    paired = PairedPredictions(
        first,
        second,
        truth,
        vocabulary.names,
        confidence=settings.confidence,
        resamples=settings.resamples,
        seed=workspace.settings.seed,
    )
    # both were trained on the same labels, so none is new
    decision = decide(
        Comparison(
            of_first,
            of_second,
            settings,
            paired=paired,
            check_new_labels=lambda: CheckedLabels([], NO_REFERENCE),
        )
    )
    return {
        "candidate": candidate,
        "champion": champion,
        "candidate_map": round(of_first.map, 4),
        "champion_map": round(of_second.map, 4),
        "gain": round(of_first.map - of_second.map, 4),
        "verdict": decision.verdict,
    }
