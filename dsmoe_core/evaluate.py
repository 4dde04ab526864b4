"""COCO evaluation by pycocotools: mAP@.5, mAP@.5:.95, precision, recall and F1, whole and per class."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dsmoe_core.schema import LabelledPicture, PictureFindings


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Scores of one class, 0 to 1; precision, recall and F1 at IoU 0.5 and the threshold of the best F1."""

    map50: float
    map: float
    precision: float
    recall: float
    f1: float
    boxes: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Means over the classes that the test set has boxes of."""

    map50: float
    map: float
    precision: float
    recall: float
    f1: float
    per_class: dict[str, ClassScores]


def evaluate(
    findings: Iterable[PictureFindings], truth: Sequence[LabelledPicture], classes: Sequence[str]
) -> Evaluation:
    """Compare findings with what people say is there.

    A picture of the test set without findings counts as one on which nothing was found; findings on others
    are left out. Classes without a single true box have no score and stay out of the means, as pycocotools
    does it.
    """
    index = {name: i + 1 for i, name in enumerate(classes)}
    order = {p.picture.key: i + 1 for i, p in enumerate(truth)}
    found = [
        {
            "image_id": order[f.key],
            "category_id": index[one.label],
            "bbox": [one.box.x1, one.box.y1, one.box.width, one.box.height],
            "score": one.score,
        }
        for f in findings
        if f.key in order
        for one in f.findings
    ]
    counts = {name: sum(a.label == name for p in truth for a in p.annotations) for name in classes}
    precision = _precision_table(_coco(truth, index), found)
    per_class = {
        name: _class_scores(None if precision is None else precision[:, :, i], counts[name])
        for i, name in enumerate(classes)
        if counts[name]
    }

    def mean(field: str) -> float:
        return float(np.mean([getattr(s, field) for s in per_class.values()])) if per_class else 0.0

    return Evaluation(mean("map50"), mean("map"), mean("precision"), mean("recall"), mean("f1"), per_class)


def _coco(truth: Sequence[LabelledPicture], index: dict[str, int]) -> dict[str, Any]:
    images = [
        {"id": i + 1, "width": p.picture.width, "height": p.picture.height} for i, p in enumerate(truth)
    ]
    flat = [(i + 1, a) for i, p in enumerate(truth) for a in p.annotations]
    annotations = [
        {
            "id": k + 1,
            "image_id": image,
            "category_id": index[a.label],
            "bbox": [a.box.x1, a.box.y1, a.box.width, a.box.height],
            "area": a.box.area,
            "iscrowd": 0,
        }
        for k, (image, a) in enumerate(flat)
    ]
    categories = [{"id": i, "name": name} for name, i in index.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def _precision_table(truth: dict[str, Any], found: list[dict[str, Any]]) -> npt.NDArray[np.float64] | None:
    """Precision at (IoU threshold, recall threshold, class), all areas, 100 findings a picture."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    if not found or not truth["annotations"]:
        return None
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"][:, :, :, 0, -1])


def _class_scores(precision: npt.NDArray[np.float64] | None, boxes: int) -> ClassScores:
    if precision is None:
        return ClassScores(0.0, 0.0, 0.0, 0.0, 0.0, boxes)
    at_half = precision[0]
    recall = np.linspace(0.0, 1.0, len(at_half))
    f1 = 2 * at_half * recall / np.maximum(at_half + recall, 1e-12)
    best = int(f1.argmax())
    return ClassScores(
        float(at_half.mean()),
        float(precision.mean()),
        float(at_half[best]),
        float(recall[best]),
        float(f1[best]),
        boxes,
    )
