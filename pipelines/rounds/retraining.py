"""The steps that close a round: harvest, dataset version, retraining, evaluation, promotion."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from dsmoe_core.config import FINGERPRINT_EXCLUDED, TrainingConfig
from dsmoe_core.digest import content_id
from dsmoe_core.errors import WorkspaceError
from pipelines.detectors.backend import evaluate_predictions
from pipelines.detectors.tracking import track_training
from pipelines.progress import format_losses
from pipelines.rounds.context import LoopContext
from pipelines.rounds.gate import Decision, decide
from pipelines.workspace.dataset_version import DatasetVersion
from pipelines.workspace.journal import SentTask
from pipelines.workspace.registry import Metrics, new_card
from pipelines.workspace.relabel import relabel_image
from pipelines.workspace.round_summary import count_round

HARVEST_OVERLAP = timedelta(minutes=10)
"""How far a harvest reaches back before the last one: annotations may be stored late, clocks may be set."""


def harvest(context: LoopContext, number: int, partial: bool) -> dict[str, Any]:
    """Step ``harvest``: record all new annotations, of earlier rounds too.

    Args:
        partial: allow that images of this round have not come back.

    Raises:
        WorkspaceError: images of this round are out, or no image at all is labelled.
    """
    journal, consensus = context.workspace.journal, context.workspace.settings.studio.consensus
    project, last = context.project(), journal.last_harvest()
    since = min(last, datetime.now(UTC)) - HARVEST_OVERLAP if last else None
    _record_annotations(context, project, since)
    tasks, harvests = journal.tasks(number), journal.harvests()
    open_keys: set[str] = set()
    consensus_changed = since is not None and journal.value("consensus") != consensus
    if consensus_changed or any(task.key not in harvests for task in tasks):
        # The open tasks are listed first: what is answered in between must not look deleted.
        open_keys = {task.key for task in context.studio.open_tasks(project)}
        _record_annotations(context, project, None)
        harvests = journal.harvests()
    journal.set_value("consensus", consensus)  # all recorded annotations were merged in this way
    missing = [task for task in tasks if task.key not in harvests]
    if missing and not partial:
        raise _still_out(open_keys, missing, len(tasks))
    if not any(h.labelled for h in harvests.values()):
        raise WorkspaceError(
            "no labelled image came back, all were skipped or left in doubt; expected at least one",
            "Annotate some in Label Studio and run the same command again.",
        )
    return {"counts": count_round(tasks, harvests)}


def _record_annotations(context: LoopContext, project: int, since: datetime | None) -> None:
    """Record annotations that changed since then, of images that this workspace sent."""
    workspace = context.workspace
    sent = {task.key for task in workspace.journal.tasks()}
    harvests = [
        h
        for h in context.studio.harvest(project, since=since, consensus=workspace.settings.studio.consensus)
        if h.key in sent
    ]
    workspace.journal.record_harvests(harvests)
    agreement = {h.key: h.agreement for h in harvests if h.agreement is not None}
    context.studio.set_agreement(project, agreement)


def _still_out(open_keys: Collection[str], missing: Sequence[SentTask], sent: int) -> WorkspaceError:
    """The error for a round whose images have not all come back.

    Args:
        open_keys: keys of the tasks that were open before the last harvest; a missing image without an open
            task was deleted and will not come back.
    """
    deleted = sum(task.key not in open_keys for task in missing)
    if deleted:
        return WorkspaceError(
            f"{deleted} of {sent} images of round {missing[0].round} are no longer in Label Studio, and came "
            "back without an annotation",
            "Send them again: `dsmoe round open`, or close without them: `dsmoe round close --partial`.",
        )
    return WorkspaceError(
        f"{len(missing)} of {sent} images of round {missing[0].round} are not annotated yet",
        "Annotate them in Label Studio, or close the round without them: `dsmoe round close --partial`.",
    )


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


def train(context: LoopContext, number: int, dataset: str) -> dict[str, Any]:
    """Step ``train``: train a candidate from the current champion.

    The champion may have been changed by hand since the round was opened. The model's id is a hash of all
    that determines the training, so an interrupted step continues the same training only if nothing changed.
    """
    workspace, champion = context.workspace, context.workspace.champion()
    detector = workspace.settings.detector
    training = detector.training_for_round(number)
    settings = [training.model_dump(exclude=FINGERPRINT_EXCLUDED)]
    settings += [s.model_dump() for s in (detector.model, detector.text_encoder)]
    recipe = [dataset, champion, *settings, detector.start, detector.kind]
    recipe += [detector.warm_start] if detector.warm_start else []
    model = f"r{number}-{content_id(recipe)[:8]}"
    if not workspace.registry.has(model):
        summary = _fit(context, model, dataset, champion, training)
        workspace.registry.register(
            new_card(
                model,
                number=number,
                parent=champion,
                dataset_version=dataset,
                class_book=workspace.class_book().version,
                training={"config": training.model_dump(), **summary},
            )
        )
    return {"model": model}


def _fit(
    context: LoopContext, model: str, dataset: str, champion: str | None, training: TrainingConfig
) -> dict[str, Any]:
    """Train the model on a dataset version, whose labels get the names of the published class book."""
    workspace, book = context.workspace, context.workspace.class_book()
    version = workspace.dataset_version(dataset)
    images = [relabel_image(p, book.resolve) for p in version.labelled(workspace.images_by_key())]
    parameters = {"dataset": dataset, "images": len(images), "champion": champion, **training.model_dump()}
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
    return {"metrics": {model: m and m.model_dump(mode="json") for model, m in metrics.items()}}


def _test_metrics(context: LoopContext, model: str) -> Metrics | None:
    """A model's metrics on the current test set and class book; evaluated unless the registry has them."""
    workspace = context.workspace
    book, test_set = workspace.class_book(), workspace.journal.value("test_set")
    truth = [relabel_image(image, book.resolve) for image in workspace.test_set()]
    if not truth:
        return None
    evaluated_on = f"{test_set}+{book.version}"
    metrics = workspace.registry.evaluation(model)
    if metrics is None or metrics.evaluated_on != evaluated_on:
        predictions = context.predict_for_evaluation(model, [labelled.image for labelled in truth])
        metrics = evaluate_predictions(predictions, truth, book.vocabulary(), evaluated_on)
        workspace.registry.save_evaluation(model, metrics)
    return metrics


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
