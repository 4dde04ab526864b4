"""Scores a class book by what the champion does with it on a fixed part of the labelled images."""

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
from prompts.refinement import Confused, Scores


def fixed_part(labelled: Iterable[LabelledImage], learned: Collection[str], most: int) -> list[LabelledImage]:
    """At most so many images, every class in its turn, first those that the model has not learned from.

    The same labels give the same part: images come in the order of their keys, which are as good as random.

    Args:
        learned: keys of the images that the model was trained on.
    """
    waiting = sorted(labelled, key=lambda p: (p.image.key in learned, p.image.key))
    rows: dict[str, list[LabelledImage]] = {}
    for one in waiting:
        for label in {a.label for a in one.annotations} or {""}:  # without a box: where nothing may be found
            rows.setdefault(label, []).append(one)
    queues = {label: iter(rows[label]) for label in sorted(rows)}
    part: dict[str, LabelledImage] = {}
    for label in cycle(tuple(queues)):
        if len(part) >= min(most, len(waiting)):
            break
        chosen = next((p for p in queues[label] if p.image.key not in part), None)
        part |= {chosen.image.key: chosen} if chosen else {}
    return list(part.values())


class ChampionReader:
    """The champion, who looks at the part with the words of one book after another.

    Args:
        model: folder of the model.
        truth: the part, under the book's names.
        progress: called with (images looked at, images in all).
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
        """What it finds with these words, by image key; of the last book it is remembered.

        Raises:
            ModelError: there is no whole model, or its figures are not finite.
        """
        if self._last is None or self._last[0] != book.version:
            images = [p.image for p in self.truth]
            found = predict_all(self._detector, self._model, book.vocabulary(), images, self._progress)
            self._last = (book.version, found)
        return self._last[1]


class TextEvaluator:
    """Per class the average precision at IoU 0.5, per pair the margin; see prompts.refinement.Scores.

    Raises:
        DataError: a class of a pair has no box in the part, so that nothing could be said of it.
    """

    def __init__(self, reader: ChampionReader, pairs: Sequence[Confused]) -> None:
        self._reader = reader
        self._pairs = pairs
        there = labels_of(reader.truth)
        if lacking := sorted({n for p in pairs for n in (p.first, p.second)} - there):
            raise DataError(
                f"no labelled image has a box of {', '.join(map(repr, lacking))}; "
                f"there are boxes of {', '.join(sorted(there)) or 'no class'}",
                "Label some, or refine another pair.",
            )

    def score(self, book: ClassBook) -> Scores:
        """See Evaluator."""
        truth = self._reader.truth
        for label in labels_of(truth):
            book.resolve(label)
        found = self._reader.predict(book)
        tables = coco_tables(found, truth, book.names)
        means = {name: tables.mean(label=name) for name in book.names}
        return Scores(
            classes={name: mean[0] for name, mean in means.items() if mean is not None},
            pairs={p.title: _margin(p, found, truth) for p in self._pairs},
        )


def labels_of(truth: Iterable[LabelledImage]) -> set[str]:
    """Classes that have a box."""
    return {a.label for p in truth for a in p.annotations}


def _margin(pair: Confused, found: Mapping[str, Prediction], truth: Sequence[LabelledImage]) -> float:
    """Mean of the two classes' mean margins; a box on which nothing was found has none, which counts as 0."""
    other = {pair.first: pair.second, pair.second: pair.first}
    margins: dict[str, list[float]] = {pair.first: [], pair.second: []}
    for labelled in truth:
        boxes = [a for a in labelled.annotations if a.label in other]
        there = found[labelled.image.key].detections if labelled.image.key in found else ()
        for annotation, detection in zip(boxes, best_matches(boxes, there), strict=True):
            p = detection.probabilities if detection is not None else {}
            margins[annotation.label].append(
                p.get(annotation.label, 0.0) - p.get(other[annotation.label], 0.0)
            )
    return float(np.mean([np.mean(values) for values in margins.values()]))
