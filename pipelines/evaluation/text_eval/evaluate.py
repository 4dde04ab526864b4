"""Evaluation of a class book: one model, one evaluation set, two books, and text controls."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from dsmoe_core.errors import DataError
from pipelines.evaluation.report.evaluated_model import EvaluatedModel
from pipelines.evaluation.text_eval.class_pairing import CommonClasses
from pipelines.evaluation.text_eval.distances import ClassDistances, class_distances
from pipelines.evaluation.text_eval.eval_set import EvaluationSet
from pipelines.evaluation.text_eval.margin import most_confused_classes
from pipelines.evaluation.text_eval.routing import ImageRouting
from pipelines.evaluation.text_eval.runs import (
    MetricDifferences,
    PairedRuns,
    TextRun,
    difference,
    metric_differences,
)
from pipelines.evaluation.text_eval.verdict import has_nothing_correct, reason, text_effect, verdict
from pipelines.progress import ProgressReporter
from pipelines.workspace.registry import source_commit
from prompts.class_book import ClassBook
from prompts.text_controls import TEXT_CONTROLS

Plain = dict[str, Any]
"""Values that JSON can hold."""


@dataclass(frozen=True, slots=True)
class TextEvaluationRequest:
    """The class books to compare, and the settings of the evaluation.

    Attributes:
        this: the book to evaluate.
        other: the book to compare it with.
        tolerance: accepted loss of mAP@.5:.95 (``verdict.verdict``).
        resamples: number of bootstrap resamples.
        seed: of the resamples and of the first draw of random words; each further draw uses the next seed.
        draws: number of draws of random words, whose metrics are averaged.
    """

    this: ClassBook
    other: ClassBook
    tolerance: float
    resamples: int
    seed: int
    draws: int = 3


def evaluate_class_book(
    request: TextEvaluationRequest,
    model: EvaluatedModel,
    data: EvaluationSet,
    command: str,
    progress: ProgressReporter,
) -> Plain:
    """Run a model with both books and with the controls of the first one, and compare the results.

    Only the common classes of both books are evaluated; ground-truth boxes of other classes are removed.

    Returns:
        The content of evaluation.json: the fields of ``TextEvaluationReport`` and all defined metrics.

    Raises:
        ClassBookError: the books have no class in common, or an annotated class is in neither.
        DataError: the images have no box of a common class.
        ModelError: the model cannot be used.
    """
    common = CommonClasses.of(request.this, request.other)
    truth, removed = common.rename_labels(data.truth)
    classes = common.this.names
    boxes = Counter(a.label for labelled in truth for a in labelled.annotations)
    if not boxes:
        raise DataError(
            f"{data.name} has no ground-truth box of {', '.join(classes)}, which both books have",
            "Give annotated images of these classes.",
        )
    runs = PairedRuns(
        model, truth, classes, resamples=request.resamples, seed=request.seed, progress=progress
    )
    this = runs.run(common.this, "descriptions")
    controls = {
        name: metric_differences(this, *_control_runs(runs, name, common, boxes, request))
        for name in TEXT_CONTROLS
        if name != "right"
    }
    other = runs.run(common.other, "compared class book", common.names)
    progress.status("computing distances")
    distances = _distances(model, common)
    compared = metric_differences(this, other)
    progress.status("comparing the routing")
    return {
        **_head(request, model, data, len(truth), command),
        **_decision(request, compared, controls, len(truth)),
        "boxes": sum(boxes.values()),
        "left_out": {
            "this": list(common.left_out[0]),
            "other": list(common.left_out[1]),
            "boxes": removed,
            "images": list(data.left_out),
        },
        "total": compared.total,
        "classes": _classes(runs, (this, other), compared, boxes, distances),
        "controls": [_control(name, gain, classes) for name, gain in controls.items()],
        "distances": {side: d.to_dict() for side, d in zip(("this", "other"), distances, strict=True) if d},
        "experts": _experts(runs, {"this": this, "other": other}),
    }


def _control_runs(
    runs: PairedRuns,
    control: str,
    common: CommonClasses,
    boxes: Counter[str],
    request: TextEvaluationRequest,
) -> list[TextRun]:
    """Run a control: several draws for random words, otherwise once."""
    draws = request.draws if control == "random" else 1
    return [
        runs.run(
            TEXT_CONTROLS[control](common.this, boxes, request.seed + i),
            f"control {control}{f', draw {i + 1} of {draws}' if draws > 1 else ''}",
        )
        for i in range(draws)
    ]


def _head(
    request: TextEvaluationRequest, model: EvaluatedModel, data: EvaluationSet, images: int, command: str
) -> Plain:
    commit = source_commit()
    return {
        "book": request.this.version,
        "against": request.other.version,
        "model": model.name,
        "data": f"{data.name}, {images:,} images",
        "made": datetime.now(UTC).date().isoformat(),
        "command": command,
        **({"commit": commit} if commit else {}),
        "images": images,
        "notes": list(data.notes),
        "tolerance": request.tolerance,
        "resamples": request.resamples,
        "seed": request.seed,
        "draws": request.draws,
    }


def _decision(
    request: TextEvaluationRequest,
    compared: MetricDifferences,
    controls: dict[str, MetricDifferences],
    images: int,
) -> Plain:
    """Verdict and reason, and whether the model uses the text; the reason says so if it does not."""
    gain = compared.total["map"]
    low, high = gain["ci95"]
    decision = verdict(low, high, request.tolerance, nothing_correct=has_nothing_correct(gain))
    sentence = reason(decision, gain, request.tolerance, images)
    over_random = controls["random"].total["map"]
    effect = text_effect(
        {key: over_random[key] for key in ("delta", "ci95", "p", "spread") if key in over_random}
    )
    if effect["answer"] != "yes":
        sentence = f"{sentence}. {effect['sentence']}"
    return {"verdict": decision, "reason": sentence, "text_effect": effect}


def _control(name: str, gain: MetricDifferences, classes: tuple[str, ...]) -> Plain:
    """A control's row; ``this`` is the book with its descriptions, ``other`` the control."""
    by_class = [{"name": label, **values} for label, values in zip(classes, gain.classes, strict=True)]
    return {"control": name, "total": gain.total, "classes": by_class}


def _distances(
    model: EvaluatedModel, common: CommonClasses
) -> tuple[ClassDistances | None, ClassDistances | None]:
    """Distances of both books, in the class order of the first."""
    this, other = (class_distances(model.detector, model.folder, v) for v in (common.this, common.other))
    order = [common.other.names.index(name) for name in common.names]
    return this, other and other.ordered(order)


def _classes(
    runs: PairedRuns,
    both: tuple[TextRun, TextRun],
    compared: MetricDifferences,
    boxes: Counter[str],
    distances: tuple[ClassDistances | None, ClassDistances | None],
) -> list[Plain]:
    """Metrics of each class, with its most confused class and how far the books separate the two.

    The most confused class is that of the other book, so that both books are compared on the same pair.
    """
    routing = _image_routing(runs, both[0]), _image_routing(runs, both[1])
    rows: list[Plain] = []
    for i, (name, confused) in enumerate(
        zip(runs.classes, most_confused_classes(both[1].boxes), strict=True)
    ):
        row: Plain = {"name": name, "boxes": boxes[name], **compared.classes[i]}
        if confused is not None:
            row["confused_with"] = runs.classes[confused]
            sides = zip(("this", "other"), distances, strict=True)
            row["distance"] = {side: d.between(i, confused) for side, d in sides if d is not None}
            row["routing"] = _routing_difference(runs, routing, i, confused)
        rows.append(row)
    return rows


def _image_routing(runs: PairedRuns, run: TextRun) -> ImageRouting:
    return ImageRouting.of(run.predictions, runs.truth, runs.classes)


def _routing_difference(
    runs: PairedRuns, routing: tuple[ImageRouting, ImageRouting], first: int, second: int
) -> Plain:
    """Divergence of the routing of two classes in both books; empty if it is undefined."""
    if not all(side.weights.shape[1] for side in routing):
        return {}
    counts = np.vstack([np.ones(len(runs.truth)), runs.counts])
    this, other = (side.class_divergence(first, second, counts) for side in routing)
    compared = difference(float(this[0]), float(other[0]), this[1:], other[1:])
    return compared and {"images": list(routing[0].image_counts(first, second)), **compared}


def _experts(runs: PairedRuns, by_side: dict[str, TextRun]) -> Plain:
    """Mean weight of every expert on the images of each class, (c, e), for each book."""
    tables = {side: _image_routing(runs, run).per_class() for side, run in by_side.items()}
    return {side: table.round(6).tolist() for side, table in tables.items() if table.shape[1]}
