"""The steps that close a round after its harvest: dataset version, retraining, evaluation, promotion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from dsmoe_core.config import FINGERPRINT_EXCLUDED, TrainingConfig
from dsmoe_core.digest import content_id
from dsmoe_core.errors import ClassBookError
from dsmoe_core.schema import LabelledImage
from pipelines.detectors.backend import evaluate_predictions
from pipelines.detectors.tracking import track_training
from pipelines.progress import format_losses
from pipelines.rounds.context import LoopContext
from pipelines.rounds.gate import Decision, decide
from pipelines.workspace.dataset_version import DatasetVersion
from pipelines.workspace.registry import Metrics, new_card
from pipelines.workspace.relabel import relabel_image


def make_dataset(context: LoopContext, number: int) -> dict[str, Any]:
    """Step ``dataset``: save the dataset version of all annotations so far."""
    workspace = context.workspace
    book = workspace.class_book()
    labelled = [relabel_image(image, book.resolve) for image in workspace.annotations().values()]
    previous = workspace.journal.finished(number - 1, "dataset") if number else None
    version = DatasetVersion.of(
        labelled,
        book.vocabulary(),
        parent=previous["dataset_version"] if previous else None,
        test_set=workspace.journal.value("test_set"),
    )
    version.save(workspace.path / "datasets")
    return {"dataset_version": version.id, "images": len(version.train), "boxes": version.boxes}


def has_known_classes(context: LoopContext, dataset: str) -> bool:
    """Whether the published class book still has every class that a dataset version uses."""
    book = context.workspace.class_book()
    labels = {box.label for item in context.workspace.dataset_version(dataset).train for box in item.boxes}
    try:
        for label in labels:
            book.resolve(label)
    except ClassBookError:
        return False
    return True


def train(context: LoopContext, number: int, dataset: str) -> dict[str, Any]:
    """Step ``train``: train a candidate from the current champion, which can be its teacher as well.

    The champion may have been changed by hand since the round was opened. The model's id is a hash of all
    that determines the training, so an interrupted step continues the same training only if nothing changed.
    """
    workspace, champion = context.workspace, context.workspace.champion()
    detector = workspace.settings.detector
    training = detector.training_for_round(number)
    teacher = champion if detector.distill_champion else None
    settings = [training.model_dump(exclude=FINGERPRINT_EXCLUDED)]
    settings += [s.model_dump() for s in (detector.model, detector.text_encoder)]
    recipe = [dataset, champion, *settings, detector.start, detector.kind]
    recipe += [detector.warm_start] if detector.warm_start else []
    recipe += [{"teacher": teacher}] if teacher else []
    model = f"r{number}-{content_id(recipe)[:8]}"
    if not workspace.registry.has(model):
        summary = _fit(context, model, dataset, champion, teacher, training)
        workspace.registry.register(
            new_card(
                model,
                number=number,
                parent=champion,
                dataset_version=dataset,
                class_book=workspace.class_book().version,
                training={"config": training.model_dump(), "teacher": teacher, **summary},
            )
        )
    return {"model": model}


def _fit(
    context: LoopContext,
    model: str,
    dataset: str,
    champion: str | None,
    teacher: str | None,
    training: TrainingConfig,
) -> dict[str, Any]:
    """Train the model on a dataset version, whose labels get the names of the published class book.

    Args:
        champion, teacher: id of the model to start from, and of the one to learn from.
    """
    workspace, book = context.workspace, context.workspace.class_book()
    version = workspace.dataset_version(dataset)
    images = [relabel_image(p, book.resolve) for p in version.labelled(workspace.images_by_key())]
    workspace.require_files(labelled.image for labelled in images)
    parameters = {"dataset": dataset, "images": len(images), "champion": champion, **training.model_dump()}
    parameters["teacher"] = teacher
    with track_training(workspace, model, parameters) as curves:

        def progress(step: int, steps: int, metrics: Mapping[str, float]) -> None:
            context.progress.advance(step, steps, format_losses(metrics))
            if curves is not None:
                curves(step, steps, metrics)

        return context.detector.fit(
            images=images,
            vocabulary=book.vocabulary(),
            training=training,
            out=workspace.registry.folder(model),
            start_from=workspace.registry.folder(champion) if champion else None,
            teacher=workspace.registry.folder(teacher) if teacher else None,
            progress=progress,
        )


def evaluate(context: LoopContext, candidate: str) -> dict[str, Any]:
    """Step ``evaluate``: metrics of the candidate and the champion on the test set.

    Returns:
        ``metrics``: by model id, as JSON values; None if there is no test set.
    """
    champion = context.workspace.champion()
    models = [candidate] if champion is None else [candidate, champion]
    metrics = {model: _test_metrics(context, model) for model in models}
    _measure_parts(context, candidate)
    return {"metrics": {model: m and m.model_dump(mode="json") for model, m in metrics.items()}}


def _test_metrics(context: LoopContext, model: str) -> Metrics | None:
    """A model's metrics on the current test set and class book; evaluated unless the registry has them."""
    workspace = context.workspace
    book, test_set = workspace.class_book(), workspace.journal.value("test_set")
    truth = _relabelled_test_set(context)
    if not truth:
        return None
    evaluated_on = f"{test_set}+{book.version}"
    metrics = workspace.registry.evaluation(model)
    if metrics is None or metrics.evaluated_on != evaluated_on:
        predictions = context.predict_for_evaluation(model, [labelled.image for labelled in truth])
        metrics = evaluate_predictions(predictions, truth, book.vocabulary(), evaluated_on)
        workspace.registry.save_evaluation(model, metrics)
    return metrics


def _relabelled_test_set(context: LoopContext) -> list[LabelledImage]:
    """The test set, whose labels have the names of the published class book."""
    workspace = context.workspace
    book = workspace.class_book()
    return [relabel_image(image, book.resolve) for image in workspace.test_set()]


def _measure_parts(context: LoopContext, model: str) -> None:
    """Write which parts of the model are in use, unless the registry has it or there is no test set."""
    registry = context.workspace.registry
    if registry.parts(model) is not None or not (truth := _relabelled_test_set(context)):
        return
    vocabulary = context.workspace.class_book().vocabulary()
    report = context.detector.measure_parts(registry.folder(model), vocabulary, truth)
    if report is not None:
        registry.save_parts(model, report)


def promote(context: LoopContext, number: int, candidate: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Step ``promote``: decide by the promotion gate, and make the candidate champion if it passes.

    Args:
        metrics: result of ``evaluate``; it is repeated if another model was made champion since.

    Returns:
        The result that the round is closed with.
    """
    workspace = context.workspace
    champion = workspace.champion()
    if champion is not None and champion not in metrics:
        metrics = evaluate(context, candidate)["metrics"]
    of_candidate = _parse(metrics[candidate])
    prefix = f"round {number}, "
    if champion == candidate:  # by an interrupted run of this step, or by hand
        reason = workspace.registry.history()[-1].reason.removeprefix(prefix)
        decision = Decision(True, reason)
    else:
        of_champion = _parse(metrics[champion]) if champion is not None else None
        decision = decide(of_candidate, of_champion, workspace.settings.gate)
        if decision.promoted:
            workspace.registry.promote(candidate, prefix + decision.reason)
    result = {
        "counts": (workspace.journal.finished(number, "harvest") or {})["counts"],
        **(workspace.journal.finished(number, "dataset") or {}),
        "model": candidate,
        "promoted": decision.promoted,
        "reason": decision.reason,
        "checks": {name: asdict(check) for name, check in decision.results.items()},
    }
    if of_candidate is not None:
        result |= {"map50": of_candidate.map50, "map": of_candidate.map}
    return result


def _parse(metrics: Mapping[str, Any] | None) -> Metrics | None:
    return None if metrics is None else Metrics.model_validate(metrics)
