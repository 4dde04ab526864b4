"""Two class books, one model, one fixed set of images: everything that is measured of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from dsmoe_core.errors import DataError
from dsmoe_core.schema import Vocabulary
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
from pipelines.evaluation.text_eval.verdict import nothing_correct, reason, text_effect, verdict
from pipelines.progress import ProgressReporter
from pipelines.workspace.registry import source_commit
from prompts.class_book import ClassBook
from prompts.text_controls import TEXT_CONTROLS

Plain = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TextEvaluationRequest:
    """What to judge, and how.

    Attributes:
        this: the book that is judged.
        other: what it is compared with.
        tolerance: loss of mAP@.5:.95 that is no loss (``verdict.verdict``).
        seed: of the resamples and of the first random words; each further draw has the next seed.
        draws: of random words, whose figures are averaged.
    """

    this: ClassBook
    other: ClassBook
    tolerance: float
    resamples: int
    seed: int
    draws: int = 3


def evaluate_class_book(
    question: TextEvaluationRequest,
    model: EvaluatedModel,
    data: EvaluationSet,
    command: str,
    progress: ProgressReporter,
) -> Plain:
    """Ask one model in both books and in the controls of the first, and say what it comes to.

    All are asked in the classes that both books have, and boxes of other classes are taken off the truth.

    Returns:
        The content of evaluation.json: the fields of ``TextEvaluationReport`` and every metric. Undefined
        values are absent.

    Raises:
        ClassBookError: the books have no class in common, or an annotation is of neither.
        ModelError: the model cannot be used.
    """
    common = CommonClasses.of(question.this, question.other)
    truth, strange = common.rename_labels(data.truth)
    classes = common.this.names
    boxes = Counter(a.label for one in truth for a in one.annotations)
    if not boxes:
        raise DataError(
            f"{data.name} has no true box of {', '.join(classes)}, which both books have",
            "Give annotated images of these classes.",
        )
    bench = PairedRuns(
        model, truth, classes, resamples=question.resamples, seed=question.seed, progress=progress
    )
    readings = {words: _readings(bench, words, common.this, boxes, question) for words in TEXT_CONTROLS}
    (this,) = readings["right"]
    other = bench.read(common.other, "the book compared with", common.names)
    progress.status("measuring distances")
    apart = _distances(model, common)
    compared = metric_differences(this, other)
    gain = compared.total["map"]
    low, high = gain["ci95"]
    said = verdict(low, high, question.tolerance, blind=nothing_correct(gain))
    controls = {
        words: metric_differences(this, *drawn) for words, drawn in readings.items() if words != "right"
    }
    words = text_effect(_difference(controls["random"].total["map"]))
    progress.status("comparing the experts")
    return {
        **_head(question, model, data, len(truth), command),
        "verdict": said,
        "reason": _with_words(reason(said, gain, question.tolerance, len(truth)), words),
        "text_effect": words,
        "boxes": sum(boxes.values()),
        "left_out": {
            "this": list(common.left_out[0]),
            "other": list(common.left_out[1]),
            "boxes": strange,
            "images": list(data.left_out),
        },
        "total": compared.total,
        "classes": _classes(bench, this, other, compared, boxes, apart),
        "controls": [_control(name, one, classes) for name, one in controls.items()],
        "distances": {side: one.to_dict() for side, one in zip(("this", "other"), apart, strict=True) if one},
        "experts": _experts(bench, {"this": this, "other": other}),
    }


def _readings(
    bench: PairedRuns,
    words: str,
    vocabulary: Vocabulary,
    boxes: Counter[str],
    question: TextEvaluationRequest,
) -> list[TextRun]:
    """What comes of these words; where they are random, of several draws of them."""
    draws = question.draws if words == "random" else 1
    seeds = range(question.seed, question.seed + draws)
    said = [f"{words} words{f' {i} of {draws}' if draws > 1 else ''}" for i in range(1, draws + 1)]
    return [
        bench.read(TEXT_CONTROLS[words](vocabulary, boxes, seed), name)
        for seed, name in zip(seeds, said, strict=True)
    ]


def _head(
    question: TextEvaluationRequest, model: EvaluatedModel, data: EvaluationSet, images: int, command: str
) -> Plain:
    commit = source_commit()
    return {
        "book": question.this.version,
        "against": question.other.version,
        "model": model.name,
        "data": f"{data.name}, {images:,} images",
        "made": datetime.now(UTC).date().isoformat(),
        "command": command,
        **({"commit": commit} if commit else {}),
        "images": images,
        "notes": list(data.notes),
        "tolerance": question.tolerance,
        "resamples": question.resamples,
        "seed": question.seed,
        "draws": question.draws,
    }


def _with_words(said: str, words: Plain) -> str:
    """The verdict, and beside it that the words do not matter to this model where that is so."""
    return said if words["answer"] == "yes" else f"{said}. {words['sentence']}"


def _control(name: str, gain: MetricDifferences, classes: tuple[str, ...]) -> Plain:
    """One of the controls; ``this`` is the right words, ``other`` the control."""
    by_class = [{"name": label, **one} for label, one in zip(classes, gain.classes, strict=True)]
    return {"words": name, "total": gain.total, "classes": by_class}


def _difference(one: Plain) -> Plain:
    return {key: one[key] for key in ("delta", "ci95", "p", "spread") if key in one}


def _distances(
    model: EvaluatedModel, common: CommonClasses
) -> tuple[ClassDistances | None, ClassDistances | None]:
    """Of both books, the other one's in this one's order."""
    this, other = (
        class_distances(model.detector, model.folder, book) for book in (common.this, common.other)
    )
    place = [common.other.names.index(name) for name in common.names]
    return this, other and other.ordered(place)


def _classes(
    bench: PairedRuns,
    this: TextRun,
    other: TextRun,
    compared: MetricDifferences,
    boxes: Counter[str],
    apart: tuple[ClassDistances | None, ClassDistances | None],
) -> list[Plain]:
    """Each class: its figures, the class that it is most taken for, and how the two are told apart.

    The rival is that of the other book, which is in use, so that both books answer for the same pair.
    """
    routed = _routed(bench, this), _routed(bench, other)
    rows: list[Plain] = []
    for i, (name, rival) in enumerate(zip(bench.classes, most_confused_classes(other.seen), strict=True)):
        row: Plain = {"name": name, "boxes": boxes[name], **compared.classes[i]}
        if rival is not None:
            row["rival"] = bench.classes[rival]
            sides = zip(("this", "other"), apart, strict=True)
            row["to_rival"] = {side: one.between(i, rival) for side, one in sides if one is not None}
            row["routing"] = _routing(bench, routed, i, rival)
        rows.append(row)
    return rows


def _routed(bench: PairedRuns, reading: TextRun) -> ImageRouting:
    return ImageRouting.of(reading.detections, bench.truth, bench.classes)


def _routing(bench: PairedRuns, routed: tuple[ImageRouting, ImageRouting], one: int, rival: int) -> Plain:
    """How differently images of two classes are routed, in both books; empty where that is not defined."""
    if not all(side.weights.shape[1] for side in routed):
        return {}
    counts = np.vstack([np.ones(len(bench.truth)), bench.counts])
    this, other = (side.apart(one, rival, counts) for side in routed)
    compared = difference(float(this[0]), float(other[0]), this[1:], other[1:])
    return compared and {"images": list(routed[0].images(one, rival)), **compared}


def _experts(bench: PairedRuns, readings: dict[str, TextRun]) -> Plain:
    """The mean weight of every expert on the images that show each class, (c, e), in each book."""
    tables = {side: _routed(bench, one).per_class() for side, one in readings.items()}
    return {side: table.round(6).tolist() for side, table in tables.items() if table.shape[1]}
