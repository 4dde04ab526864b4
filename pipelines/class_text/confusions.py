"""Counts which classes are confused: by the detector, and in pre-annotations that annotators relabelled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from annotate.studio.simulate import EDIT_IOU
from dsmoe_core.errors import ClassBookError
from dsmoe_core.evaluation.best_match import best_matches
from dsmoe_core.evaluation.matching import pairwise_iou
from dsmoe_core.schema import Annotation, Detection, Harvest, LabelledImage, Outcome, Prediction
from pipelines.detectors.pre_annotations import shown_detections
from pipelines.workspace.workspace import Workspace
from prompts.class_book import ClassBook
from prompts.refinement import ConfusedPair

ClassPair = tuple[str, str]


def detector_confusions(
    predictions: Mapping[str, Prediction], truth: Iterable[LabelledImage]
) -> Counter[ClassPair]:
    """Number of true boxes by (true class, predicted class), for predictions of a wrong class.

    Args:
        predictions: by image key.
    """
    counts: Counter[ClassPair] = Counter()
    for labelled in truth:
        prediction = predictions.get(labelled.image.key)
        detections = prediction.detections if prediction is not None else ()
        matches = best_matches(labelled.annotations, detections)
        for annotation, detection in zip(labelled.annotations, matches, strict=True):
            if detection is not None and detection.label != annotation.label:
                counts[annotation.label, detection.label] += 1
    return counts


def annotator_corrections(workspace: Workspace, book: ClassBook) -> Counter[ClassPair]:
    """Number of pre-annotations by (predicted class, corrected class), for those that annotators relabelled.

    The journal has the number of relabelled boxes per image. Which boxes these were is found by matching the
    pre-annotations with the annotations. Classes that are not in the class book are left out.
    """
    counts: Counter[ClassPair] = Counter()
    predictions: dict[str, Mapping[str, Prediction]] = {}
    for harvest in workspace.journal.harvests().values():
        version = harvest.version
        if version is None or not harvest.outcomes.get(Outcome.RELABELLED):
            continue
        if version not in predictions:
            predictions[version] = workspace.prediction_store.lookup(version)
        if harvest.key in predictions[version]:
            before = shown_detections(workspace, predictions[version][harvest.key]).detections
            counts.update(_resolved(_relabelled(before, harvest), book.resolve))
    return counts


def confused_pairs(
    by_detector: Counter[ClassPair],
    by_annotators: Counter[ClassPair],
    classes: Sequence[str],
    max_pairs: int,
) -> list[ConfusedPair]:
    """The most confused pairs of these classes, by the sum of confusions and corrections."""
    pairs = [confused_pair(pair, by_detector, by_annotators) for pair in combinations(classes, 2)]
    return sorted((p for p in pairs if p.count), key=lambda p: -p.count)[:max_pairs]


def confused_pair(
    pair: ClassPair, by_detector: Counter[ClassPair], by_annotators: Counter[ClassPair]
) -> ConfusedPair:
    """One pair with its counts in both directions."""
    first, second = pair
    reverse = (second, first)
    return ConfusedPair(
        first=first,
        second=second,
        detector=(by_detector[pair], by_detector[reverse]),
        annotators=(by_annotators[pair], by_annotators[reverse]),
    )


def _relabelled(before: Sequence[Detection], harvest: Harvest) -> list[ClassPair]:
    """Predicted and corrected class of the relabelled pre-annotations, those with the highest IoU first.

    A pre-annotation that overlaps a box of its own class was accepted or moved and is not a candidate.
    """
    iou = pairwise_iou([d.box for d in before], [a.box for a in harvest.annotations])
    same_class = _same_class(before, harvest.annotations)
    for row, column in _match_greedily(np.where(same_class, iou, 0.0)):
        iou[row], iou[:, column] = 0.0, 0.0
    pairs = [
        (before[row].label, harvest.annotations[column].label)
        for row, column in _match_greedily(np.where(same_class, 0.0, iou))
    ]
    return pairs[: harvest.outcomes[Outcome.RELABELLED]]


def _same_class(before: Sequence[Detection], after: Sequence[Annotation]) -> NDArray[np.bool_]:
    return np.array([[d.label == a.label for a in after] for d in before], dtype=bool).reshape(
        len(before), len(after)
    )


def _match_greedily(iou: NDArray[np.float64]) -> list[tuple[int, int]]:
    """One-to-one matches of rows and columns, highest IoU first, down to EDIT_IOU."""
    remaining, matches = iou.copy(), []
    while remaining.size and remaining.max() >= EDIT_IOU:
        row, column = (int(i) for i in np.unravel_index(remaining.argmax(), remaining.shape))
        matches.append((row, column))
        remaining[row], remaining[:, column] = 0.0, 0.0
    return matches


def _resolved(pairs: Sequence[ClassPair], resolve: Callable[[str], str]) -> list[ClassPair]:
    """The pairs under the names of the class book, without classes that it lacks or has merged."""
    resolved = []
    for predicted, corrected in pairs:
        try:
            pair = (resolve(predicted), resolve(corrected))
        except ClassBookError:
            continue
        if pair[0] != pair[1]:
            resolved.append(pair)
    return resolved
