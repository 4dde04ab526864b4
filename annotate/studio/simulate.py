"""An annotator who knows the truth.

Corrects pre-annotations as a person would, through a Studio's own calls.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from annotate.studio.agreement import iou
from annotate.studio.protocol import Region, Studio
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import Annotation, LabelledImage

log = logging.getLogger(__name__)

# Below this overlap nobody drags a drawn box: deleting it and drawing a new one is less work.
EDIT_IOU = 0.1


class _Pair(NamedTuple):
    iou: float
    region: int
    annotation: int


def correct_regions(
    pre_annotations: Sequence[Region], truth: Sequence[Annotation], accept_iou: float = 0.75
) -> list[Region]:
    """What the page hands in once someone has made the pre-annotations agree with the truth.

    Every true box is given to one pre-annotation at most, greedily in three passes, each by falling IoU
    (ties by
    place in the list). Greedy and not globally optimal, because it is how people work: they leave what is
    good, and then mend what is nearest to being good.

    1. accepted: same class, IoU >= ``accept_iou``. Box and id stay, origin ``prediction``.
    2. moved: same class, IoU >= EDIT_IOU. Takes the true box, origin ``prediction-changed``.
    3. relabelled: another class, IoU >= EDIT_IOU. Takes the true class, and keeps its box where that is at
       ``accept_iou``, else takes the true box too; origin ``prediction-changed``.

    A pre-annotation without a true box is deleted: it is not in the result. A true box without a pre-
    annotation is
    added: a new id, origin ``manual``, no score. An added box's id depends on the box and its place alone.

    Returns:
        One region for every true box: pre-annotations in their order, then the added ones in the truth's.
    """
    given: dict[int, int] = {}  # pre-annotation -> true box

    def match(same_class: bool, at_least: float) -> None:
        pairs = [
            _Pair(overlap, i, j)
            for i, region in enumerate(pre_annotations)
            for j, annotation in enumerate(truth)
            if i not in given
            and j not in given.values()
            and (region.label == annotation.label) == same_class
            and (overlap := iou(region.box, annotation.box)) >= at_least
        ]
        for pair in sorted(pairs, key=lambda p: (-p.iou, p.region, p.annotation)):
            if pair.region not in given and pair.annotation not in given.values():
                given[pair.region] = pair.annotation

    match(same_class=True, at_least=accept_iou)
    match(same_class=True, at_least=min(EDIT_IOU, accept_iou))
    match(same_class=False, at_least=min(EDIT_IOU, accept_iou))
    kept = [_mended(pre_annotations[i], truth[given[i]], accept_iou) for i in sorted(given)]
    added = [_drawn(a, j) for j, a in enumerate(truth) if j not in given.values()]
    return kept + added


def _mended(region: Region, annotation: Annotation, accept_iou: float) -> Region:
    good_box = iou(region.box, annotation.box) >= accept_iou
    if good_box and region.label == annotation.label:
        return replace(region, origin="prediction")
    box = region.box if good_box else annotation.box
    return replace(region, box=box, label=annotation.label, origin="prediction-changed")


def _drawn(annotation: Annotation, place: int) -> Region:
    name = f"drawn/{place}/{annotation.label}/{annotation.box.corners}"
    identity = hashlib.sha256(name.encode()).hexdigest()[:10]
    return Region(identity, annotation.box, annotation.label, origin="manual", score=None)


class SimulatedAnnotator:
    """Works through a project's open tasks, most useful first, exactly as the page would.

    Killed and started again, it goes on with what is still open.

    Args:
        truth: by image key: what is really on the image. A task without one is left to people.
        accept_iou: from which overlap on a box of the right class is left as it is.
        clock: seconds; tells how long a task took.
    """

    def __init__(
        self,
        studio: Studio,
        truth: Mapping[str, LabelledImage],
        *,
        accept_iou: float = 0.75,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._studio = studio
        self._truth = truth
        self._accept_iou = accept_iou
        self._clock = clock

    def run(self, project: int, progress: CountCallback | None = None) -> int:
        """Correct and submit every open task whose truth is known; returns how many that were."""
        tasks = self._studio.open_tasks(project)
        known = [task for task in tasks if task.key in self._truth]
        if len(known) < len(tasks):
            log.warning("%d open tasks are left to people: their truth is not known", len(tasks) - len(known))
        for done, task in enumerate(known, start=1):
            started = self._clock()
            regions = correct_regions(
                task.pre_annotations, self._truth[task.key].annotations, self._accept_iou
            )
            self._studio.submit(project, task, regions, seconds=self._clock() - started)
            if progress:
                progress(done, len(known))
        return len(known)
