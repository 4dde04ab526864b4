"""The oracle annotator: corrects pre-annotations to the true labels, in assumed seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from dsmoe_core.evaluation.matching import UNMATCHED, match_any_class, pairwise_iou
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
    same, other = match_any_class(iou, [d.label for d in shown], [a.label for a in truth])
    exact = sum(iou[i, j] >= EXACT_IOU for i, j in enumerate(same) if j != UNMATCHED)
    correct, relabelled = int((same != UNMATCHED).sum()), int((other != UNMATCHED).sum())
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
