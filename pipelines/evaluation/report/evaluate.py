"""Evaluation of a model on annotated images, alone or compared with other models."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from dsmoe_core.data.annotation_set import AnnotationSet
from dsmoe_core.data.external_images import ExternalImages, read_external_images
from dsmoe_core.errors import SettingsError
from dsmoe_core.evaluation.bootstrap import resample_counts
from dsmoe_core.evaluation.matching import ImageMatches
from dsmoe_core.evaluation.metrics import (
    EvaluationTables,
    compare_map,
    compute_metrics,
    evaluation_tables,
)
from dsmoe_core.schema import LabelledImage, Prediction
from pipelines.evaluation.report.evaluated_model import EvaluatedModel
from pipelines.evaluation.report.groups import group_images, group_metrics
from pipelines.evaluation.report.trainings import check_pairs, metrics_over_trainings
from pipelines.evaluation.report.worst import worst_images
from pipelines.progress import ProgressReporter
from pipelines.workspace.registry import source_commit
from prompts.class_entry import normalized_name


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """Data and settings of an evaluation.

    Attributes:
        source: where the annotations were read from.
        images: folder of the images.
        score: score threshold to evaluate at, in addition to the best-F1 threshold.
        resamples: number of bootstrap resamples.
        seed: of the resamples, and of the split for temperature scaling.
        max_pixels: larger images are skipped.
        intensity_max: value that is white in images of more than 8 bits; None: the model's.
        group_by: pattern of the groups of images (``groups.py``); None: no groups.
        strict: refuse labels that are not taken completely.
    """

    annotations: AnnotationSet
    source: Path
    images: Path
    score: float
    resamples: int
    seed: int
    max_pixels: int
    group_by: re.Pattern[str] | None = None
    intensity_max: int | None = None
    strict: bool = False


class EvaluationResult(NamedTuple):
    """Result of an evaluation.

    Attributes:
        metrics: content of evaluation.json.
        worst: the images with the largest loss, each with its summary.
    """

    metrics: dict[str, Any]
    worst: list[tuple[ImageMatches, dict[str, Any]]]


@contextmanager
def run_evaluation(
    request: EvaluationRequest,
    models: Sequence[EvaluatedModel],
    baselines: Sequence[EvaluatedModel],
    command: str,
    progress: ProgressReporter,
) -> Iterator[EvaluationResult]:
    """Evaluate the first model, and compare it with the first baseline if there is one.

    Several models are trainings of the same configuration from different seeds. The result then also has the
    metrics over all of them (``trainings.py``).

    The worst images can be rendered inside the ``with`` block only: it removes converted copies of images at
    its end.

    Args:
        baselines: models to compare with; none, or one per model.
        command: for the report.

    Raises:
        DataError: images or annotations cannot be used.
        SettingsError: the numbers of models and baselines differ, or there are too many groups.
        ClassBookError: the class book of a model lacks an annotated class.
        ModelError: a model cannot be used.
    """
    check_pairs(len(models), len(baselines))
    with TemporaryDirectory(prefix="dsmoe-") as scratch:
        progress.status("reading images")
        external = read_external_images(
            request.annotations,
            request.images,
            Path(scratch),
            max_pixels=request.max_pixels,
            intensity_max=request.intensity_max or models[0].intensity_max,
            progress=progress.advance,
        )
        if request.strict:
            external.account.require_complete(str(request.source))
        if external.scale is not None and request.intensity_max is None:
            _require_same_scale((*models, *baselines))
        yield _evaluate(request, external, (models, baselines), command, progress)


def _require_same_scale(models: Sequence[EvaluatedModel]) -> None:
    """Refuse models that were trained with different intensity scales, if the images need one."""
    scales = {model.intensity_max: model.name for model in models if model.intensity_max is not None}
    if len(scales) > 1:
        named = ", ".join(f"{name} with {value}" for value, name in scales.items())
        raise SettingsError(
            f"the models were trained with different intensity scales: {named}",
            "Choose one with --intensity-max.",
        )


def _evaluate(
    request: EvaluationRequest,
    external: ExternalImages,
    sides: tuple[Sequence[EvaluatedModel], Sequence[EvaluatedModel]],
    command: str,
    progress: ProgressReporter,
) -> EvaluationResult:
    models, baselines = sides
    model = models[0]
    truth = model.rename_labels(external.labelled)
    groups = group_images(request.group_by, truth) if request.group_by else {}
    for other in (*models[1:], *baselines):
        other.rename_labels(external.labelled)  # checks its classes before the long computation
    predictions = [_predict(m, model, truth, progress) for m in (*models, *baselines)]
    counts = resample_counts(len(truth), request.resamples, request.seed)
    tables = _all_tables((*models, *baselines), predictions, truth, counts, progress)
    own, compared_with = tables[: len(models)], tables[len(models) :]
    progress.status("computing metrics")
    metrics = compute_metrics(own[0], counts, given=request.score, seed=request.seed)
    if groups:
        metrics["groups"] = group_metrics(groups, predictions[0], own[0], metrics["threshold"])
    if baselines:
        metrics["against"] = {**_identity(baselines[0]), "metrics": compare_map(own[0], compared_with[0])}
    if len(models) > 1:
        over_trainings = metrics_over_trainings(own, compared_with, request.score)
        metrics["trainings"] = _with_models(over_trainings, models, baselines)
    worst = worst_images(own[0].matched, metrics["threshold"])
    head = _head(request, model, external, command)
    return EvaluationResult({**head, **metrics, "worst": [summary for _, summary in worst]}, worst)


def _all_tables(
    models: Sequence[EvaluatedModel],
    predictions: Sequence[dict[str, Prediction]],
    truth: Sequence[LabelledImage],
    counts: Any,
    progress: ProgressReporter,
) -> list[EvaluationTables]:
    """Match the predictions of each model; classes that only another model knows come last."""
    classes = list(models[0].vocabulary.names)
    labels = {f.label for by_key in predictions for p in by_key.values() for f in p.detections}
    classes += sorted(labels - set(classes))
    tables = []
    for model, by_key in zip(models, predictions, strict=True):
        progress.status(f"{model.name}: bootstrap")
        tables.append(evaluation_tables(by_key, truth, classes, counts, progress.advance))
    return tables


def _predict(
    model: EvaluatedModel, reference: EvaluatedModel, truth: list[LabelledImage], progress: ProgressReporter
) -> dict[str, Prediction]:
    """Predictions of a model by image key, under the class names of the reference model."""
    progress.status(f"{model.name}: predicting")
    predictions = model.predict([p.image for p in truth], progress.advance)
    if model is reference:
        return predictions
    return {key: _renamed(prediction, reference) for key, prediction in predictions.items()}


def _renamed(prediction: Prediction, reference: EvaluatedModel) -> Prediction:
    detections = tuple(
        replace(f, label=reference.aliases.get(normalized_name(f.label), f.label))
        for f in prediction.detections
    )
    return replace(prediction, detections=detections)


def _identity(model: EvaluatedModel) -> dict[str, str]:
    return {"name": model.name, "class_book": model.vocabulary.version}


def _with_models(
    metrics: dict[str, Any], models: Sequence[EvaluatedModel], baselines: Sequence[EvaluatedModel]
) -> dict[str, Any]:
    """Add the identities of the models to the metrics over trainings."""
    if baselines:
        metrics["against"] = {"models": [_identity(model) for model in baselines], **metrics["against"]}
    return {"models": [_identity(model) for model in models], **metrics}


def _head(
    request: EvaluationRequest, model: EvaluatedModel, external: ExternalImages, command: str
) -> dict[str, Any]:
    commit = source_commit()
    return {
        "command": command,
        **({"commit": commit} if commit else {}),
        "date": datetime.now(UTC).date().isoformat(),
        "seed": request.seed,
        "resamples": request.resamples,
        "model": _identity(model),
        "data": {
            "name": request.source.resolve().name,
            "annotations": str(request.source),
            "images": str(request.images),
            "left_out": [image._asdict() for image in external.skipped],
            "intensity_scale": str(external.scale) if external.scale else None,
            "clipped": list(external.clipped),
            "notes": list(external.account.notes),
            "import": external.account.to_dict(),
        },
    }
