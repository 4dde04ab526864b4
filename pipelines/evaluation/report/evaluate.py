"""From a model, annotations and images to all figures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from dsmoe_core.data.annotation_set import AnnotationSet
from dsmoe_core.data.external_images import ExternalImages, read_external_images
from dsmoe_core.evaluation.bootstrap import resample_counts
from dsmoe_core.evaluation.matching import ImageMatches
from dsmoe_core.evaluation.metrics import EvaluationTables, compare_map, compute_metrics, evaluation_tables
from dsmoe_core.schema import LabelledImage, Prediction
from pipelines.evaluation.report.evaluated_model import EvaluatedModel
from pipelines.evaluation.report.groups import group_images, group_metrics
from pipelines.evaluation.report.trainings import check_pairs, metrics_over_trainings
from pipelines.evaluation.report.worst import worst
from pipelines.progress import ProgressReporter
from pipelines.workspace.registry import source_commit
from prompts.class_entry import normalized_name


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """What to judge on, and how.

    Attributes:
        source: where the annotations were read from.
        score: threshold to judge at, beside that of the best F1.
        seed: of the resamples, and of the halves for temperature scaling.
        max_pixels: larger images are left out.
        by: what to group the images by (``groups.py``), where they are to be.
    """

    annotations: AnnotationSet
    source: Path
    images: Path
    score: float
    resamples: int
    seed: int
    max_pixels: int
    by: re.Pattern[str] | None = None


class EvaluationResult(NamedTuple):
    """All figures as plain values, and the worst images with what is said of them."""

    measured: dict[str, Any]
    worst: list[tuple[ImageMatches, dict[str, Any]]]


@contextmanager
def run_evaluation(
    question: EvaluationRequest,
    these: Sequence[EvaluatedModel],
    others: Sequence[EvaluatedModel],
    command: str,
    progress: ProgressReporter,
) -> Iterator[EvaluationResult]:
    """Judge the first model in full, and compare it with the first of others where there are some.

    Where there are several, they are trainings of one thing from different seeds, whose figures are also told
    over all of them (``trainings.py``).

    Within the block the worst images can be drawn; afterwards converted copies of images are gone.

    Raises:
        DataError: images or annotations cannot be used.
        SettingsError: there are several, and not as many others; or too many groups.
        ClassBookError: a model does not know a class that is annotated.
        ModelError: a model cannot be used.
    """
    this = these[0]
    check_pairs(len(these), len(others))
    with TemporaryDirectory(prefix="dsmoe-") as scratch:
        progress.status("reading images")
        taken = read_external_images(
            question.annotations,
            question.images,
            Path(scratch),
            max_pixels=question.max_pixels,
            progress=progress.advance,
        )
        truth = this.rename_labels(taken.labelled)
        groups = group_images(question.by, truth) if question.by else {}
        classes = list(this.vocabulary.names)
        counts = resample_counts(len(truth), question.resamples, question.seed)

        def judge(found: Mapping[str, Prediction], name: str) -> EvaluationTables:
            progress.status(f"{name}: resampling")
            return evaluation_tables(found, truth, classes, counts, progress.advance)

        for model in (*these[1:], *others):
            model.rename_labels(taken.labelled)  # refuses before the long work what it does not know
        models = (*these, *others)
        found = [_look(model, this, truth, progress) for model in models]
        labels = {one.label for seen in found for f in seen.values() for one in f.detections}
        classes += sorted(labels - set(classes))
        all_judged = [judge(seen, model.name) for seen, model in zip(found, models, strict=True)]
        one, ours, theirs = all_judged[0], all_judged[: len(these)], all_judged[len(these) :]
        progress.status("counting")
        compared: dict[str, Any] = {}
        if others:
            compared["against"] = {**_named(others[0]), "figures": compare_map(one, theirs[0])}
        if len(these) > 1:
            compared["trainings"] = _over_trainings(
                these, others, metrics_over_trainings(ours, theirs, question.score)
            )
        measured = compute_metrics(one, counts, given=question.score, seed=question.seed)
        if groups:
            measured["groups"] = group_metrics(groups, found[0], one, measured["threshold"])
        shown = worst(one.matched, measured["threshold"])
        head = _head(question, this, taken, command)
        yield EvaluationResult({**head, **measured, **compared, "worst": [said for _, said in shown]}, shown)


def _look(
    model: EvaluatedModel, this: EvaluatedModel, truth: list[LabelledImage], progress: ProgressReporter
) -> dict[str, Prediction]:
    progress.status(f"{model.name}: looking at images")
    found = model.look([p.image for p in truth], progress.advance)
    return found if model is this else {key: _renamed(one, this) for key, one in found.items()}


def _named(model: EvaluatedModel) -> dict[str, str]:
    return {"name": model.name, "class_book": model.vocabulary.version}


def _over_trainings(
    these: Sequence[EvaluatedModel], others: Sequence[EvaluatedModel], figured: dict[str, Any]
) -> dict[str, Any]:
    """The figures with the models' names in front."""
    if others:
        figured["against"] = {"models": [_named(model) for model in others], **figured["against"]}
    return {"models": [_named(model) for model in these], **figured}


def _renamed(found: Prediction, this: EvaluatedModel) -> Prediction:
    """Detections of another model under this one's names, where it has them."""
    return replace(
        found,
        detections=tuple(
            replace(f, label=this.aliases.get(normalized_name(f.label), f.label)) for f in found.detections
        ),
    )


def _head(
    question: EvaluationRequest, this: EvaluatedModel, taken: ExternalImages, command: str
) -> dict[str, Any]:
    commit = source_commit()
    return {
        "command": command,
        **({"commit": commit} if commit else {}),
        "date": datetime.now(UTC).date().isoformat(),
        "seed": question.seed,
        "resamples": question.resamples,
        "model": _named(this),
        "data": {
            "name": question.source.resolve().name,
            "annotations": str(question.source),
            "images": str(question.images),
            "left_out": [one._asdict() for one in taken.skipped],
            "notes": list(question.annotations.notes),
        },
    }
