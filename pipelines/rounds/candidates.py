"""Inputs of acquisition functions and limits from a workspace: predictions, embeddings, labels, times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from dsmoe_core.data.same_pixels import PixelComparison
from dsmoe_core.schema import Detection, ImageRecord, Prediction
from pipelines.detectors.pre_annotations import threshold
from pipelines.rounds.acquisition.calibrated import calibrated_probability, probability_of
from pipelines.rounds.acquisition.expected_gain import expected_work
from pipelines.rounds.acquisition.function import Candidates, ReviewedImage, Vectors
from pipelines.rounds.acquisition.limits import Budgets, DuplicateFilter, ImageEffort, Limits
from pipelines.rounds.context import LoopContext
from pipelines.workspace.annotation_time import IMAGE, seconds_by_kind
from pipelines.workspace.relabel import or_drop, relabel_image, relabel_prediction


def candidates_of_pool(
    context: LoopContext, champion: str, unlabelled: Mapping[str, ImageRecord], keys: Sequence[str], seed: int
) -> Candidates:
    """The images of the pool that a round may select.

    Args:
        unlabelled: the pool by key.
        keys: of the images to rank.
        seed: of the selection.
    """
    workspace = context.workspace
    images = [unlabelled[key] for key in keys]

    def predict() -> Iterator[Prediction]:
        predictions = context.ensure_predictions(champion, images)
        return (predictions[key] for key in keys)

    def labelled_embeddings() -> Vectors:
        return context.embeddings(champion, [labelled.image for labelled in workspace.annotations().values()])

    def class_counts() -> Mapping[str, int]:
        book = workspace.class_book()
        labels = Counter(
            a.label
            for labelled in workspace.annotations().values()
            for a in relabel_image(labelled, book.resolve).annotations
        )
        return {name: labels[name] for name in book.vocabulary().names}

    points = workspace.registry.operating_points(champion)
    return Candidates(
        keys,
        predict,
        seed,
        budget=workspace.settings.round.budget,
        embeddings=lambda: context.embeddings(champion, images),
        labelled_embeddings=labelled_embeddings,
        class_counts=class_counts,
        probability=_lazy_probability(context) if points is None else probability_of(points.correct),
        seconds=lambda: seconds_by_kind(workspace.journal.harvests().values()),
        reviewed=lambda: reviewed_images(context),
        shown_score=lambda label: threshold(label, workspace.settings.round, points),
        class_minimum=workspace.settings.round.class_minimum,
    )


def _lazy_probability(context: LoopContext) -> Callable[[Detection], float]:
    """The calibrated probability, fitted on the reviewed images when it is needed first."""
    fitted: list[Callable[[Detection], float]] = []

    def probability(detection: Detection) -> float:
        if not fitted:
            fitted.append(calibrated_probability(reviewed_images(context)))
        return fitted[0](detection)

    return probability


def reviewed_images(context: LoopContext) -> Iterator[ReviewedImage]:
    """Labelled images with the pre-annotations that their annotators saw, in the names of the class book.

    The model of the pre-annotations was trained before the image was labelled.
    """
    workspace = context.workspace
    book = workspace.class_book()
    labelled = workspace.annotations()
    tasks = [task for task in workspace.journal.tasks() if task.version and task.key in labelled]
    stored = {
        version: workspace.prediction_store.lookup(version)
        for version in sorted({t.version for t in tasks if t.version})
    }
    for task in tasks:
        of_version = stored[task.version or ""]
        if task.key in of_version:
            prediction = relabel_prediction(of_version[task.key], or_drop(book))
            yield ReviewedImage(prediction, relabel_image(labelled[task.key], book.resolve))


def limits_of_round(
    context: LoopContext, champion: str, unlabelled: Mapping[str, ImageRecord], candidates: Candidates
) -> Limits:
    """The limits that the settings of a round ask for."""
    workspace, settings = context.workspace, context.workspace.settings.round
    budgets = duplicates = None
    if settings.budget_boxes is not None or settings.budget_minutes is not None:
        seconds = candidates.seconds()

        def effort(keys: Sequence[str]) -> Mapping[str, ImageEffort]:
            predictions = context.ensure_predictions(champion, [unlabelled[key] for key in keys])
            return {key: image_effort(predictions[key], candidates, seconds) for key in keys}

        budgets = Budgets(settings.budget_boxes, settings.budget_minutes, effort)
    if settings.duplicate_similarity is not None:
        test = {image.key: image for image in workspace.images("test")}

        def image(key: str) -> ImageRecord:
            return test[key] if key in test else unlabelled[key]

        pixels = PixelComparison()
        duplicates = DuplicateFilter(
            settings.duplicate_similarity,
            lambda keys: context.embeddings(champion, [image(key) for key in keys]),
            list(test),
            lambda one, other: pixels.same(image(one), image(other)),
        )
    return Limits(budgets, duplicates)


def image_effort(prediction: Prediction, candidates: Candidates, seconds: Mapping[str, float]) -> ImageEffort:
    """Expected boxes and annotator minutes of an image."""
    _, boxes, time = expected_work(prediction, candidates, seconds)
    return ImageEffort(sum(boxes.values()), (seconds[IMAGE] + sum(time.values())) / 60)
