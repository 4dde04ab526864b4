"""The oracle annotator: corrects pre-annotations to the true labels, in assumed seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from dsmoe_core.evaluation.matching import greedy_match, pairwise_iou
from dsmoe_core.schema import Annotation, Detection, Outcome
from pipelines.workspace.annotation_time import IMAGE

EXACT_IOU = 0.8
"""A pre-annotation that overlaps its box this much is accepted; with less it is moved."""


def outcomes(shown: Sequence[Detection], truth: Sequence[Annotation]) -> Counter[Outcome]:
    """What an annotator does with the pre-annotations of an image to reach the true labels.

    Each true box takes the pre-annotation that matches it at an IoU of 0.5 or more, those of its own class
    first. It is accepted, moved, or relabelled; the other pre-annotations are deleted, and the other true
    boxes are added.

    Args:
        shown: pre-annotations, by descending score.
    """
    iou = pairwise_iou([d.box for d in shown], [a.box for a in truth])
    same = np.array([[d.label == a.label for a in truth] for d in shown], dtype=bool).reshape(iou.shape)
    right = greedy_match(np.where(same, iou, 0.0))
    free = iou.copy()
    free[right >= 0] = 0.0
    free[:, right[right >= 0]] = 0.0
    wrong = greedy_match(free)
    exact = sum(iou[i, j] >= EXACT_IOU for i, j in enumerate(right) if j >= 0)
    correct, relabelled = int((right >= 0).sum()), int((wrong >= 0).sum())
    return Counter(
        {
            Outcome.ACCEPTED: int(exact),
            Outcome.MOVED: correct - int(exact),
            Outcome.RELABELLED: relabelled,
            Outcome.DELETED: len(shown) - correct - relabelled,
            Outcome.ADDED: len(truth) - correct - relabelled,
        }
    )


def annotation_minutes(work: Mapping[Outcome, int], seconds: Mapping[str, float]) -> float:
    """Minutes for an image with these outcomes.

    Args:
        seconds: by kind of work, see ``pipelines.workspace.annotation_time``.
    """
    return (seconds[IMAGE] + sum(count * seconds[outcome] for outcome, count in work.items())) / 60
