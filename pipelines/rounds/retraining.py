"""The steps that close a round after its harvest: dataset version and retraining."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dsmoe_core.config import FINGERPRINT_EXCLUDED, TrainingConfig
from dsmoe_core.digest import content_id
from dsmoe_core.errors import ClassBookError
from pipelines.detectors.tracking import track_training
from pipelines.progress import format_losses
from pipelines.rounds.context import LoopContext
from pipelines.workspace.dataset_version import DatasetVersion
from pipelines.workspace.registry import new_card
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
    from dsmoe_core.data.augment.choice import cacheable_augmentations

    workspace, champion = context.workspace, context.workspace.champion()
    detector = workspace.settings.detector
    training = detector.training_for_round(number, workspace.settings.round.minutes)
    if detector.freezes_encoder(has_parent=champion is not None):
        training = cacheable_augmentations(training)  # so that the settings in effect are recorded
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
