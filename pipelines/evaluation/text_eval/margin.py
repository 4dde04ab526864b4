"""The confusion margin: by how much a true box speaks for its own class and against the next one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsmoe_core.evaluation.best_match import best_matches_from_iou
from dsmoe_core.evaluation.matching import ImageMatches

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class BoxProbabilities(NamedTuple):
    """What each of t true boxes was seen as, of c classes on p images.

    Attributes:
        image, label: of each box, by number, (t,).
        probabilities: of every class, (t, c); from the most confident detection that overlaps the box by at
            least half (IoU 0.5), whatever class it names; all 0 where there is none.
        images: p.
    """

    image: Ints
    label: Ints
    probabilities: Floats
    images: int


def box_probabilities(matched: Sequence[ImageMatches], classes: Sequence[str]) -> BoxProbabilities:
    """Look each true box up among the detections."""
    place = {name: i for i, name in enumerate(classes)}
    images, labels, rows = [], [], []
    for number, one in enumerate(matched):
        for annotation, detection in zip(
            one.truth, best_matches_from_iou(one.detections, one.overlap), strict=True
        ):
            found = detection.probabilities if detection else {}
            images.append(number)
            labels.append(place[annotation.label])
            rows.append([found.get(name, 0.0) for name in classes])
    table = np.array(rows, dtype=np.float64).reshape(-1, len(classes))
    return BoxProbabilities(
        np.array(images, dtype=np.int64), np.array(labels, dtype=np.int64), table, len(matched)
    )


def margins(seen: BoxProbabilities) -> Floats:
    """Probability of the true class less the highest one of another class, of each box, -1 to 1, (t,).

    Above zero where the box is taken for what it is, below where it is taken for something else. A box that
    nothing found has 0: no class was said of it, and this is what the margin of ever fainter detections comes
    to; so every box counts, in each book that is compared. Where there is one class only, there is none to be
    confused with, and the margin is the probability itself.
    """
    boxes = np.arange(len(seen.label))
    others = seen.probabilities.copy()
    own = others[boxes, seen.label]
    others[boxes, seen.label] = 0.0
    highest: Floats = own - others.max(axis=1, initial=0.0)
    return highest


def mean_margins(seen: BoxProbabilities, counts: Ints) -> tuple[Floats, Floats]:
    """Mean margin of each class on the images as they are, (c,), and in each of b resamples, (b, c).

    NaN where the class has no true box.

    Args:
        counts: how often each image comes in each resample (``bootstrap.draws``), (b, p).
    """
    sums, boxes = (np.zeros((seen.images, seen.probabilities.shape[1])) for _ in range(2))
    np.add.at(sums, (seen.image, seen.label), margins(seen))
    np.add.at(boxes, (seen.image, seen.label), 1.0)
    once = np.ones((1, seen.images))
    return _shares(once @ sums, once @ boxes)[0], _shares(counts @ sums, counts @ boxes)


def most_confused_classes(seen: BoxProbabilities) -> list[int | None]:
    """The class that each class is most taken for: the highest mean probability on its true boxes.

    None where nothing was found on any of them, or there is no other class.
    """
    answer: list[int | None] = []
    for label in range(seen.probabilities.shape[1]):
        mean = seen.probabilities[seen.label == label].sum(axis=0)
        mean[label] = 0.0
        answer.append(int(mean.argmax()) if mean.max(initial=0.0) > 0 else None)
    return answer


def _shares(above: Floats, below: Floats) -> Floats:
    answer: Floats = np.where(below > 0, above / np.maximum(below, 1.0), np.nan)
    return answer
