"""Benchmark of the search for label errors: errors are planted in labels, and methods rank the candidates."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dsmoe_core.evaluation.matching import IOU_THRESHOLD, pairwise_iou
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import Annotation, Box, LabelledImage, Prediction
from pipelines.label_errors.data import LabelsToCheck
from pipelines.label_errors.label_error import ErrorKind, LabelError
from pipelines.label_errors.methods import LABEL_ERROR_METHODS
from pipelines.label_errors.new_labels import check_labels
from pipelines.rounds.gate import Outcome
from pipelines.rounds.gate.labels import judge
from pipelines.settings.gate import GateSettings

SHARE = 0.05
"""Share of the boxes that get each kind of error."""
MIN_SHIFT, MAX_SHIFT = 0.15, 0.4
"""Shift of a misplaced box along each axis, as a share of its width or height."""
GATE_BATCH = 40
"""Images of a round in the measurement of the promotion gate."""
GATE_SHARES = (0.0, 0.1, 0.2, 0.3)
"""Shares of wrong boxes in them, a third of each kind."""


@dataclass(frozen=True, slots=True)
class PlantedLabels:
    """Labels with planted errors.

    Attributes:
        labelled: the images with the wrong labels.
        wrong: for each kind, the (image key, index) of the wrong boxes in ``labelled``.
        dropped: the boxes that were removed, by image key.
    """

    labelled: tuple[LabelledImage, ...]
    wrong: Mapping[ErrorKind, frozenset[tuple[str, int]]]
    dropped: Mapping[str, tuple[Annotation, ...]]

    @property
    def counts(self) -> dict[str, int]:
        """Number of planted errors of each kind."""
        counts = {str(kind): len(boxes) for kind, boxes in self.wrong.items()}
        return counts | {str(ErrorKind.MISSED): sum(map(len, self.dropped.values()))}


def plant_errors(
    labelled: Sequence[LabelledImage], classes: Sequence[str], *, seed: int, share: float = SHARE
) -> PlantedLabels:
    """Shift, relabel and drop boxes: ``share`` of all boxes each, and no box twice."""
    rng = np.random.default_rng(seed)
    places = [(n, i) for n, item in enumerate(labelled) for i in range(len(item.annotations))]
    count = max(1, round(share * len(places)))
    chosen = [places[i] for i in rng.permutation(len(places))[: 3 * count]]
    shifted, swapped, dropped = (chosen[k * count : (k + 1) * count] for k in range(3))
    boxes = [list(item.annotations) for item in labelled]
    for n, i in shifted:
        boxes[n][i] = replace(boxes[n][i], box=_shifted(boxes[n][i].box, labelled[n], rng))
    for n, i in swapped:
        others = [name for name in classes if name != boxes[n][i].label]
        boxes[n][i] = replace(boxes[n][i], label=others[int(rng.integers(len(others)))])
    removed: dict[str, list[Annotation]] = {}
    for n, i in dropped:
        removed.setdefault(labelled[n].image.key, []).append(boxes[n][i])
    kept = [[i for i in range(len(b)) if (n, i) not in set(dropped)] for n, b in enumerate(boxes)]
    keys = [item.image.key for item in labelled]
    return PlantedLabels(
        tuple(
            replace(item, annotations=tuple(boxes[n][i] for i in kept[n])) for n, item in enumerate(labelled)
        ),
        {
            kind: frozenset((keys[n], kept[n].index(i)) for n, i in of_kind)
            for kind, of_kind in ((ErrorKind.MISPLACED, shifted), (ErrorKind.MISLABELLED, swapped))
        },
        {key: tuple(of_image) for key, of_image in removed.items()},
    )


def _shifted(box: Box, item: LabelledImage, rng: np.random.Generator) -> Box:
    """The box moved along both axes, away from an edge of the image that would clip it."""
    size = np.array([box.width, box.height])
    shift = rng.uniform(MIN_SHIFT, MAX_SHIFT, 2) * rng.choice([-1, 1], 2) * size
    limits = (item.image.width, item.image.height)
    corners = np.array([[box.x1, box.y1], [box.x2, box.y2]])
    outside = ((corners + shift).min(axis=0) < 0) | ((corners + shift).max(axis=0) > limits)
    shift = np.where(outside, -shift, shift)
    moved = np.clip(corners + shift, 0, limits)
    return Box(*map(float, moved.ravel()))


def average_precision(hits: Sequence[bool], positives: int) -> float:
    """Mean of the precision at each hit of a ranking; positives that are not in it count as 0."""
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    return float(precision[np.asarray(hits, dtype=bool)].sum() / positives) if positives else 0.0


def hits_of(errors: Sequence[LabelError], kind: ErrorKind, planted: PlantedLabels) -> list[bool]:
    """Whether each candidate of a kind, in order, is a planted error; a dropped box is found once."""
    candidates = [e for e in errors if e.kind is kind]
    if kind is not ErrorKind.MISSED:
        return [(e.image.key, e.annotation) in planted.wrong[kind] for e in candidates]
    left = {key: list(boxes) for key, boxes in planted.dropped.items()}
    hits = []
    for error in candidates:
        boxes = left.get(error.image.key, [])
        iou = pairwise_iou([error.box], [a.box for a in boxes])[0]
        hit = bool(len(iou)) and float(iou.max()) >= IOU_THRESHOLD
        if hit:
            boxes.pop(int(iou.argmax()))
        hits.append(hit)
    return hits


def measure_label_errors(
    labelled: Sequence[LabelledImage],
    predictions: Mapping[str, Prediction],
    classes: Sequence[str],
    *,
    seeds: Sequence[int],
    progress: CountCallback | None = None,
) -> dict[str, Any]:
    """Plant errors with each seed, and measure the average precision of every method and kind.

    Args:
        predictions: by image key, of a model that was not trained on these images.

    Returns:
        JSON values: for each method and kind the mean, minimum and maximum of the AP over the seeds, the
        precision among as many candidates as there are errors, and seconds per search.
    """
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in LABEL_ERROR_METHODS}
    counts: dict[str, int] = {}
    for done, seed in enumerate(seeds, start=1):
        planted = plant_errors(labelled, classes, seed=seed)
        counts = planted.counts
        for name, method in LABEL_ERROR_METHODS.items():
            start = time.perf_counter()
            errors = method.find(planted.labelled, predictions, classes)
            seconds = time.perf_counter() - start
            row: dict[str, Any] = {"seconds": seconds}
            for kind in ErrorKind:
                hits, total = hits_of(errors, kind, planted), counts[kind]
                row[str(kind)] = (average_precision(hits, total), sum(hits[:total]) / total)
            runs[name].append(row)
        if progress is not None:
            progress(done, len(seeds))
    return {
        "images": len(labelled),
        "boxes": sum(len(item.annotations) for item in labelled),
        "planted": counts,
        "chance": {str(kind): round(SHARE, 4) for kind in (ErrorKind.MISPLACED, ErrorKind.MISLABELLED)},
        "methods": {name: _summary(rows) for name, rows in runs.items()},
    }


def measure_gate(
    labels: LabelsToCheck, *, seeds: Sequence[int], progress: CountCallback | None = None
) -> dict[str, Any]:
    """How often the promotion gate's check ``labels`` refuses batches of images with planted errors.

    For each seed and share of wrong boxes, ``GATE_BATCH`` random images get errors; the others have right
    labels, as the test set has.

    Returns:
        JSON values: for each share of wrong boxes the mean and the largest share of probable errors, the mean
        share among the right images, and how many batches are refused with the default settings.
    """
    settings, rows = GateSettings(), []
    for share in GATE_SHARES:
        found, doubted, refused = [], [], 0
        for seed in seeds:
            order = np.random.default_rng(seed).permutation(len(labels.labelled))
            batch = [labels.labelled[i] for i in order[:GATE_BATCH]]
            right = [labels.labelled[i] for i in order[GATE_BATCH:]]
            if share:
                batch = list(plant_errors(batch, labels.classes, seed=seed, share=share / 3).labelled)
            checked = check_labels(
                labels._replace(labelled=tuple(batch), reference=tuple(right)),
                set(labels.classes),
                {None: [item.image.key for item in batch]},
            )
            found.append(checked.rounds[0].errors / max(checked.rounds[0].defects, 1))
            doubted.append(checked.reference.errors / max(checked.reference.defects, 1))
            refused += judge(checked, settings).outcome is Outcome.FAIL
        rows.append(
            {
                "wrong": share,
                "found": round(float(np.mean(found)), 4),
                "found_max": round(max(found), 4),
                "reference": round(float(np.mean(doubted)), 4),
                "refused": refused,
            }
        )
        if progress is not None:
            progress(len(rows), len(GATE_SHARES))
    batch_size = min(GATE_BATCH, len(labels.labelled))
    return {
        "images": batch_size,
        "right_images": len(labels.labelled) - batch_size,
        "batches": len(seeds),
        "limit": settings.max_label_errors,
        "shares": rows,
    }


def _summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for kind in ErrorKind:
        values = [row[str(kind)][0] for row in rows]
        summary[str(kind)] = {
            "ap": round(float(np.mean(values)), 4),
            "ap_min": round(min(values), 4),
            "ap_max": round(max(values), 4),
            "precision_at_n": round(float(np.mean([row[str(kind)][1] for row in rows])), 4),
        }
    return summary | {"seconds": round(float(np.mean([row["seconds"] for row in rows])), 2)}
