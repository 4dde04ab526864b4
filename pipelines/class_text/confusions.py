"""Which classes are taken for each other.

By the detector, and in pre-annotations that people had to relabel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from annotate.studio.simulate import EDIT_IOU
from dsmoe_core.errors import ClassBookError
from dsmoe_core.evaluation.best_match import best_matches
from dsmoe_core.evaluation.matching import overlaps
from dsmoe_core.schema import Annotation, Detection, Harvest, LabelledImage, Outcome, Prediction
from pipelines.rounds.dispatch import shown
from pipelines.workspace.workspace import Workspace
from prompts.class_book import ClassBook
from prompts.refinement import Confused

Pair = tuple[str, str]


def confusions(detections: Mapping[str, Prediction], truth: Iterable[LabelledImage]) -> Counter[Pair]:
    """How many true boxes of one class (first) the detector takes for another one (second).

    Args:
        detections: by image key.
    """
    taken: Counter[Pair] = Counter()
    for one in truth:
        there = detections[one.image.key].detections if one.image.key in detections else ()
        for annotation, detection in zip(one.annotations, best_matches(one.annotations, there), strict=True):
            if detection is not None and detection.label != annotation.label:
                taken[annotation.label, detection.label] += 1
    return taken


def corrections(workspace: Workspace, book: ClassBook) -> Counter[Pair]:
    """How many pre-annotations were shown as one class (first) and made another one (second) by people.

    The journal holds how many were relabelled on an image; which they were is told by the places of what was
    shown and of what came back. Classes that the class book does not have are left out.
    """
    settings = workspace.settings.round
    changed: Counter[Pair] = Counter()
    found: dict[str, Mapping[str, Prediction]] = {}
    for harvest in workspace.journal.harvests().values():
        version = harvest.version
        if version is None or not harvest.outcomes.get(Outcome.RELABELLED):
            continue
        if version not in found:
            found[version] = workspace.prediction_store.lookup(version)
        if harvest.key in found[version]:
            before = shown(found[version][harvest.key], settings).detections
            changed.update(_named(_relabelled(before, harvest), book.resolve))
    return changed


def confused_pairs(
    found: Counter[Pair], corrected: Counter[Pair], classes: Sequence[str], most: int
) -> list[Confused]:
    """The pairs of these classes that are confused most, by detector and people together."""
    pairs = [confused(pair, found, corrected) for pair in combinations(classes, 2)]
    return sorted((p for p in pairs if p.times), key=lambda p: -p.times)[:most]


def confused(pair: Pair, found: Counter[Pair], corrected: Counter[Pair]) -> Confused:
    """One pair with its numbers in both directions."""
    back = (pair[1], pair[0])
    return Confused(
        first=pair[0],
        second=pair[1],
        found=(found[pair], found[back]),
        corrected=(corrected[pair], corrected[back]),
    )


def _relabelled(before: Sequence[Detection], harvest: Harvest) -> list[Pair]:
    """Shown class and right class of as many pre-annotations as were relabelled, those in place first.

    A pre-annotation that lies on a box of its own class was accepted or moved and is out of the question.
    """
    overlap = overlaps([f.box for f in before], [a.box for a in harvest.annotations])
    same = _same_class(before, harvest.annotations)
    for row, column in _by_overlap(np.where(same, overlap, 0.0)):
        overlap[row], overlap[:, column] = 0.0, 0.0
    changed = [
        (before[row].label, harvest.annotations[column].label)
        for row, column in _by_overlap(np.where(same, 0.0, overlap))
    ]
    return changed[: harvest.outcomes[Outcome.RELABELLED]]


def _same_class(before: Sequence[Detection], after: Sequence[Annotation]) -> NDArray[np.bool_]:
    return np.array([[f.label == a.label for a in after] for f in before], dtype=bool).reshape(
        len(before), len(after)
    )


def _by_overlap(overlap: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Rows and columns one to one, by falling overlap, down to where people draw anew."""
    left, pairs = overlap.copy(), []
    while left.size and left.max() >= EDIT_IOU:
        row, column = (int(i) for i in np.unravel_index(left.argmax(), left.shape))
        pairs.append((row, column))
        left[row], left[:, column] = 0.0, 0.0
    return pairs


def _named(pairs: Sequence[Pair], resolve: Callable[[str], str]) -> list[Pair]:
    named = []
    for shown_as, right in pairs:
        try:
            pair = (resolve(shown_as), resolve(right))
        except ClassBookError:
            continue
        if pair[0] != pair[1]:  # two names then, one class now
            named.append(pair)
    return named
