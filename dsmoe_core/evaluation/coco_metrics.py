"""COCO scores by pycocotools: mAP@.5 and mAP@.5:.95, whole, per class and per size; precision and recall."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from dsmoe_core.evaluation.matching import ImageMatches, match_images
from dsmoe_core.evaluation.operating_point import Counts, Size, best_threshold, operating_point
from dsmoe_core.schema import LabelledImage, Prediction

MAX_DETECTIONS = 100
"""COCO looks at so many detections of a class on an image, the most probable ones."""


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """Scores of one class, 0 to 1; precision, recall and F1 at IoU 0.5 and the evaluation's threshold."""

    map50: float
    map: float
    precision: float
    recall: float
    f1: float
    boxes: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of a test set, 0 to 1.

    Attributes:
        map50, map: means over the classes that the test set has boxes of.
        precision, recall, f1: over all boxes, at IoU 0.5 and the threshold.
        threshold: the one score threshold of the best F1 over all boxes; None where nothing found is right.
        per_class: of the classes that the test set has boxes of.
    """

    map50: float
    map: float
    precision: float
    recall: float
    f1: float
    threshold: float | None
    per_class: dict[str, ClassMetrics]


class ClassMatches(NamedTuple):
    """What pycocotools matched of one class, highest score first.

    Attributes:
        image: index of the image that a detection is on.
        right: whether it is right at each of COCO's ten IoU thresholds.
        boxes: number of true boxes on each image.
    """

    image: Int[np.ndarray, " n"]
    score: Float[np.ndarray, " n"]
    right: Bool[np.ndarray, "10 n"]
    boxes: Int[np.ndarray, " p"]


@dataclass(frozen=True, slots=True)
class CocoTables:
    """What pycocotools reckoned.

    Attributes:
        precision: at COCO's ten IoU thresholds and 101 recalls, of each class, over all boxes and those of
            each size; -1 where there is no true box.
        score: the score down to which one must go for a recall at IoU 0.5; 0 where it is never reached.
        matches: of each class.
    """

    classes: tuple[str, ...]
    precision: Float[np.ndarray, "10 101 c 4"]
    score: Float[np.ndarray, "101 c"]
    matches: tuple[ClassMatches, ...]

    def mean(self, size: Size | None = None, label: str | None = None) -> tuple[float, float] | None:
        """mAP@.5 and mAP@.5:.95 over the classes with true boxes (of this size), or of one class.

        None where there is no such box.
        """
        area = 0 if size is None else 1 + list(Size).index(size)
        chosen = range(len(self.classes)) if label is None else [self.classes.index(label)]
        table = self.precision[:, :, chosen, area]
        table = table[:, :, table[0, 0] >= 0]
        return (float(table[0].mean()), float(table.mean())) if table.size else None


def evaluate(
    detections: Iterable[Prediction], truth: Sequence[LabelledImage], classes: Sequence[str]
) -> Evaluation:
    """Compare detections with what people say is there.

    An image of the test set without detections counts as one on which nothing was found; detections on others
    are left out. Classes without a single true box have no score and stay out of the means, as pycocotools
    does it; detections of theirs are false.

    Args:
        classes: every class of the truth and of the detections.
    """
    found = {f.key: f for f in detections}
    return evaluate_tables(coco_tables(found, truth, classes), match_images(found, truth))


def evaluate_tables(tables: CocoTables, matched: Sequence[ImageMatches]) -> Evaluation:
    """The scores of detections that were compared already."""
    threshold = best_threshold(matched)
    point = operating_point(matched, tables.classes, 2.0 if threshold is None else threshold)
    per_class = {
        name: ClassMetrics(*mean, *_shares(counts), counts.right + counts.missed)
        for name, counts in point.per_class.items()
        if (mean := tables.mean(label=name)) is not None
    }
    return Evaluation(*(tables.mean() or (0.0, 0.0)), *_shares(point.total), threshold, per_class)


def _shares(counts: Counts) -> tuple[float, float, float]:
    return counts.precision or 0.0, counts.recall or 0.0, counts.f1 or 0.0


def coco_tables(
    detections: Mapping[str, Prediction], truth: Sequence[LabelledImage], classes: Sequence[str]
) -> CocoTables:
    """Let pycocotools match and count.

    Args:
        detections: by image key.
    """
    from pycocotools.cocoeval import COCOeval

    place = {name: i + 1 for i, name in enumerate(classes)}
    images = [{"id": i + 1, "width": p.image.width, "height": p.image.height} for i, p in enumerate(truth)]
    head = {"images": images, "categories": [{"id": i, "name": name} for name, i in place.items()]}
    true = [_entry(i, place[a.label], a.box) for i, p in enumerate(truth) for a in p.annotations]
    found = [
        _entry(i, place[f.label], f.box) | {"score": f.score}
        for i, p in enumerate(truth)
        if p.image.key in detections
        for f in detections[p.image.key].detections
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        evaluation = COCOeval(_coco(head, true), _coco(head, found), "bbox")
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.evaluate()
        evaluation.accumulate()
    # All areas, then small, medium and large: one block of images each, in every class.
    blocks = np.array(evaluation.evalImgs, dtype=object).reshape(len(classes), 4, len(truth))
    return CocoTables(
        tuple(classes),
        np.asarray(evaluation.eval["precision"][..., 0]),
        np.asarray(evaluation.eval["scores"][0, :, :, 0, 0]).clip(0),
        tuple(_class_matches(block.tolist()) for block in blocks[:, 0]),
    )


def _entry(image: int, category: int, box: Any) -> dict[str, Any]:
    return {
        "image_id": image + 1,
        "category_id": category,
        "bbox": [box.x1, box.y1, box.width, box.height],
        "area": box.area,
        "iscrowd": 0,
    }


def _coco(head: dict[str, Any], entries: list[dict[str, Any]]) -> Any:
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = head | {"annotations": [{"id": i, **entry} for i, entry in enumerate(entries, start=1)]}
    coco.createIndex()
    return coco


def _class_matches(images: Sequence[dict[str, Any] | None]) -> ClassMatches:
    """Of what pycocotools says of one class on each image; None where there is neither box nor detection."""
    known = [(i, one) for i, one in enumerate(images) if one is not None]
    image = np.array([i for i, one in known for _ in one["dtScores"]], dtype=np.int64)
    score = np.array([s for _, one in known for s in one["dtScores"]], dtype=np.float64)
    right = np.concatenate([np.zeros((10, 0)), *(one["dtMatches"] > 0 for _, one in known)], axis=1)
    order = np.argsort(-score, kind="mergesort")  # as pycocotools sorts
    boxes = np.array([0 if one is None else len(one["gtIds"]) for one in images], dtype=np.int64)
    return ClassMatches(image[order], score[order], right[:, order].astype(bool), boxes)
