"""Simulated annotator: corrects pre-annotations with known ground truth, through the Studio protocol."""

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

EDIT_IOU = 0.1
"""Lowest IoU at which an annotator moves a box. Below it, deleting and drawing again is less work."""


class _Candidate(NamedTuple):
    """A pre-annotation and a true box that overlap, by their indices."""

    iou: float
    region: int
    annotation: int


def correct_regions(
    pre_annotations: Sequence[Region], truth: Sequence[Annotation], accept_iou: float = 0.75
) -> list[Region]:
    """Correct pre-annotations to match the ground truth, as an annotator would.

    Every true box is assigned to at most one pre-annotation, greedily in three passes, each by falling IoU
    (ties by position). The assignment is greedy instead of globally optimal because annotators work this
    way: they accept good boxes first and then correct the nearest ones.

    1. accepted: same class, IoU >= ``accept_iou``. Keeps its box; origin ``prediction``.
    2. moved: same class, IoU >= EDIT_IOU. Gets the true box; origin ``prediction-changed``.
    3. relabelled: another class, IoU >= EDIT_IOU. Gets the true class, and the true box unless IoU >=
       ``accept_iou``; origin ``prediction-changed``.

    A pre-annotation without a true box is deleted. A true box without a pre-annotation is added with origin
    ``manual``, no score, and an id that depends only on the box and its index.

    Returns:
        One region per true box: the kept pre-annotations in their order, then the added boxes.
    """
    assigned: dict[int, int] = {}  # index of the pre-annotation -> index of the true box

    def assign(same_class: bool, min_iou: float) -> None:
        candidates = [
            _Candidate(overlap, i, j)
            for i, region in enumerate(pre_annotations)
            for j, annotation in enumerate(truth)
            if i not in assigned
            and j not in assigned.values()
            and (region.label == annotation.label) == same_class
            and (overlap := iou(region.box, annotation.box)) >= min_iou
        ]
        for candidate in sorted(candidates, key=lambda c: (-c.iou, c.region, c.annotation)):
            if candidate.region not in assigned and candidate.annotation not in assigned.values():
                assigned[candidate.region] = candidate.annotation

    assign(same_class=True, min_iou=accept_iou)
    assign(same_class=True, min_iou=min(EDIT_IOU, accept_iou))
    assign(same_class=False, min_iou=min(EDIT_IOU, accept_iou))
    corrected = [_corrected(pre_annotations[i], truth[assigned[i]], accept_iou) for i in sorted(assigned)]
    added = [_added(a, j) for j, a in enumerate(truth) if j not in assigned.values()]
    return corrected + added


def _corrected(region: Region, annotation: Annotation, accept_iou: float) -> Region:
    """Pre-annotation corrected to a true box."""
    good_box = iou(region.box, annotation.box) >= accept_iou
    if good_box and region.label == annotation.label:
        return replace(region, origin="prediction")
    box = region.box if good_box else annotation.box
    return replace(region, box=box, label=annotation.label, origin="prediction-changed")


def _added(annotation: Annotation, index: int) -> Region:
    """New box drawn by hand."""
    content = f"drawn/{index}/{annotation.label}/{annotation.box.corners}"
    region_id = hashlib.sha256(content.encode()).hexdigest()[:10]
    return Region(region_id, annotation.box, annotation.label, origin="manual", score=None)


class SimulatedAnnotator:
    """Annotates the open tasks of a project in their order, through the same calls as a person.

    After an interruption, a new run continues with the tasks that are still open.

    Args:
        truth: image key -> ground truth. Tasks without ground truth are left open.
        accept_iou: IoU from which a box of the right class is accepted unchanged.
        clock: time in seconds; gives the annotation time.
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
        """Correct and submit every open task with known ground truth; returns their number."""
        open_tasks = self._studio.open_tasks(project)
        tasks = [task for task in open_tasks if task.key in self._truth]
        if len(tasks) < len(open_tasks):
            log.warning("%d open tasks have no ground truth and stay open", len(open_tasks) - len(tasks))
        for done, task in enumerate(tasks, start=1):
            started = self._clock()
            truth = self._truth[task.key].annotations
            regions = correct_regions(task.pre_annotations, truth, self._accept_iou)
            self._studio.submit(project, task, regions, seconds=self._clock() - started)
            if progress:
                progress(done, len(tasks))
        return len(tasks)
