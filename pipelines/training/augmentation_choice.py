"""Chooses the augmentations of one training: by its labels, and by a short trial of quarter turns.

The trial trains twice, with and without quarter turns, each for a quarter of the training, without the images
that early stopping would hold out, and evaluates on those. A choice is kept in a file until data, settings,
network or initial weights change.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsmoe_core.atomic import atomic_write
from dsmoe_core.config import TrainingConfig
from dsmoe_core.data.augment.choice import AugmentationChoice, choose_by_labels
from dsmoe_core.digest import content_id
from dsmoe_core.schema import LabelledImage, Vocabulary
from pipelines.detectors.backend import evaluate_predictions, predict_all
from pipelines.detectors.ds_moe import DSMoEBackend
from pipelines.progress import ProgressReporter, format_losses

FILE = "augmentation.json"
"""Name of the file with the choice in the folder of the model; a resumed training reads it."""
SHARE = 0.25
"""Length of each trial, as a share of the training."""
MIN_GAIN = 0.01
"""Turns are switched off if mAP@.5:.95 is higher without them by more than this."""


def choose_augmentation(
    detector: DSMoEBackend,
    images: Sequence[LabelledImage],
    vocabulary: Vocabulary,
    training: TrainingConfig,
    out: Path,
    start_from: Path | None,
    progress: ProgressReporter,
) -> AugmentationChoice:
    """The changes of the training settings, from the labels and from the trial.

    Args:
        out: folder of the model; an interrupted choice is resumed in it.
        start_from: folder of the model that the training starts from; None: initial weights.

    Raises:
        ModelError: the folder to start from does not hold a complete model.
    """
    labels = sorted((i.image.key, [(*a.box.corners, a.label) for a in i.annotations]) for i in images)
    settings = training.model_dump(mode="json")
    key = content_id([labels, vocabulary.to_dict(), settings, detector.recipe(start_from)])
    file = out / FILE
    if (stored := _read(file, key)) is not None:
        return stored
    by_labels = choose_by_labels(images, vocabulary, frozen=detector.freezes_encoder(training, start_from))
    choice = by_labels
    if "turns" not in by_labels.changes and training.turns > 0:
        changed = training.model_copy(update=by_labels.changes)
        trial = _try_turns(detector, images, vocabulary, changed, out / "augmentation", start_from, progress)
        choice = AugmentationChoice(by_labels.changes | trial.changes, (*by_labels.reasons, *trial.reasons))
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(file, json.dumps({"key": key, **choice._asdict()}, indent=1) + "\n")
    shutil.rmtree(out / "augmentation", ignore_errors=True)
    return choice


def _try_turns(
    detector: DSMoEBackend,
    images: Sequence[LabelledImage],
    vocabulary: Vocabulary,
    training: TrainingConfig,
    work: Path,
    start_from: Path | None,
    progress: ProgressReporter,
) -> AugmentationChoice:
    from dsmoe_core.training.early_stopping import hold_out, known_images

    known = known_images(start_from, images)
    rest, held_out = hold_out(images, training.model_copy(update={"patience": 1}), known)
    if not held_out:
        new = " that the start model was not trained on" if known else ""
        reason = f"quarter turns are not tried: there are too few labelled images{new}"
        return AugmentationChoice({}, (reason,))
    length: dict[str, Any] = {
        "images_seen": max(1, round(SHARE * training.images_seen)),
        "patience": None,
    }
    length |= {"minutes": SHARE * training.minutes} if training.minutes is not None else {}
    accuracy = {}
    for name, turns in (("with", training.turns), ("without", 0.0)):
        progress.status(f"trial {name} quarter turns")
        detector.fit(
            images=rest,
            vocabulary=vocabulary,
            training=training.model_copy(update={**length, "turns": turns}),
            out=work / name,
            start_from=start_from,
            progress=lambda step, steps, metrics: progress.advance(step, steps, format_losses(metrics)),
        )
        records = [item.image for item in held_out]
        predictions = predict_all(detector, work / name, vocabulary, records, progress.advance)
        metrics = evaluate_predictions(predictions.values(), held_out, vocabulary, "held out")
        accuracy[name] = metrics.map
    off = accuracy["without"] > accuracy["with"] + MIN_GAIN
    reason = (
        f"turns {'off' if off else 'on'}: mAP@.5:.95 on {len(held_out)} images {accuracy['with']:.3f} with "
        f"and {accuracy['without']:.3f} without quarter turns"
    )
    return AugmentationChoice({"turns": 0.0} if off else {}, (reason,))


def _read(file: Path, key: str) -> AugmentationChoice | None:
    """The stored choice; None if there is none for this training."""
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        if stored["key"] == key:
            return AugmentationChoice(stored["changes"], tuple(stored["reasons"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None
