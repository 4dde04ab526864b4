"""Scores a class book with the champion's predictions on a fixed subset of the labelled images."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np

from dsmoe_core.errors import DataError
from dsmoe_core.evaluation.best_match import best_matches
from dsmoe_core.evaluation.coco_metrics import coco_tables
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import LabelledImage, Prediction
from pipelines.detectors.backend import DetectorBackend, predict_all
from prompts.class_book import ClassBook
from prompts.refinement import ConfusedPair, TextScores


def evaluation_images(
    labelled: Iterable[LabelledImage], trained_on: Collection[str], max_images: int
) -> list[LabelledImage]:
    """Select images for the evaluation: classes in turn, images that the model was not trained on first.

    The same labels give the same images: they are taken in the order of their keys, which are hashes.

    Args:
        trained_on: keys of the images that the model was trained on.
    """
    ordered = sorted(labelled, key=lambda item: (item.image.key in trained_on, item.image.key))
    by_class: dict[str, list[LabelledImage]] = {}
    for item in ordered:
        for label in {a.label for a in item.annotations} or {""}:  # "": images without a box
            by_class.setdefault(label, []).append(item)
    queues = {label: iter(by_class[label]) for label in sorted(by_class)}
    selected: dict[str, LabelledImage] = {}
    for label in cycle(tuple(queues)):
        if len(selected) >= min(max_images, len(ordered)):
            break
        unused = next((item for item in queues[label] if item.image.key not in selected), None)
        if unused is not None:
            selected[unused.image.key] = unused
    return list(selected.values())


class ChampionPredictor:
    """Predicts the evaluation images with the champion and the texts of a class book.

    Args:
        model: folder of the champion.
        truth: evaluation images, with the class names of the book.
        progress: called with (images done, total images).
    """

    def __init__(
        self, detector: DetectorBackend, model: Path, truth: Sequence[LabelledImage], progress: CountCallback
    ) -> None:
        self.truth = truth
        self._detector = detector
        self._model = model
        self._progress = progress
        self._last: tuple[str, dict[str, Prediction]] | None = None

    def predict(self, book: ClassBook) -> dict[str, Prediction]:
        """Predictions with this class book, by image key; those of the last book are cached.

        Raises:
            ModelError: the model's files are incomplete, or its outputs are not finite.
        """
        if self._last is None or self._last[0] != book.version:
            images = [item.image for item in self.truth]
            predictions = predict_all(self._detector, self._model, book.vocabulary(), images, self._progress)
            self._last = (book.version, predictions)
        return self._last[1]


class TextEvaluator:
    """Evaluator with a detector: average precision at IoU 0.5 per class, margin per confused pair.

    Raises:
        DataError: no evaluation image has a box of one of the pairs' classes.
    """

    def __init__(self, predictor: ChampionPredictor, pairs: Sequence[ConfusedPair]) -> None:
        self._predictor = predictor
        self._pairs = pairs
        annotated = annotated_classes(predictor.truth)
        if missing := sorted({name for p in pairs for name in (p.first, p.second)} - annotated):
            raise DataError(
                f"no labelled image has a box of {', '.join(map(repr, missing))}; "
                f"there are boxes of {', '.join(sorted(annotated)) or 'no class'}",
                "Label some, or refine another pair.",
            )

    def score(self, book: ClassBook) -> TextScores:
        """See Evaluator."""
        truth = self._predictor.truth
        for label in annotated_classes(truth):
            book.resolve(label)
        predictions = self._predictor.predict(book)
        tables = coco_tables(predictions, truth, book.names)
        means = {name: tables.mean(label=name) for name in book.names}
        return TextScores(
            class_ap={name: mean[0] for name, mean in means.items() if mean is not None},
            pair_margins={p.title: _margin(p, predictions, truth) for p in self._pairs},
        )


def annotated_classes(truth: Iterable[LabelledImage]) -> set[str]:
    """Classes with at least one box."""
    return {annotation.label for item in truth for annotation in item.annotations}


def _margin(
    pair: ConfusedPair, predictions: Mapping[str, Prediction], truth: Sequence[LabelledImage]
) -> float:
    """Mean of the two classes' mean margins; the margin of a box without a detection is 0."""
    other = {pair.first: pair.second, pair.second: pair.first}
    margins: dict[str, list[float]] = {pair.first: [], pair.second: []}
    for item in truth:
        boxes = [a for a in item.annotations if a.label in other]
        prediction = predictions.get(item.image.key)
        detections = prediction.detections if prediction is not None else ()
        for annotation, detection in zip(boxes, best_matches(boxes, detections), strict=True):
            p = detection.probabilities if detection is not None else {}
            margins[annotation.label].append(
                p.get(annotation.label, 0.0) - p.get(other[annotation.label], 0.0)
            )
    return float(np.mean([np.mean(values) for values in margins.values()]))
