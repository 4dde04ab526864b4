"""COCO metrics by pycocotools: mAP in total, per class and per size; precision and recall."""

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
from dsmoe_core.schema import Box, LabelledImage, Prediction

MAX_DETECTIONS = 100
"""COCO evaluates at most this many detections per class and image, those of the highest scores."""


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """Metrics of one class, 0 to 1; precision, recall and F1 at IoU 0.5 and ``Evaluation.threshold``."""

    map50: float
    map: float
    precision: float
    recall: float
    f1: float
    boxes: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Metrics on a test set, 0 to 1.

    Attributes:
        map50, map: means over the classes that have ground-truth boxes.
        precision, recall, f1: over all boxes, at IoU 0.5 and ``threshold``.
        threshold: the score threshold of the highest F1 over all boxes; None if no detection is correct.
        per_class: the classes that have ground-truth boxes.
    """

    map50: float
    map: float
    precision: float
    recall: float
    f1: float
    threshold: float | None
    per_class: dict[str, ClassMetrics]


class ClassMatches(NamedTuple):
    """Matches of one class by pycocotools, for n detections on p images, by descending score.

    Attributes:
        image: index of the image of each detection.
        score: of each detection.
        correct: whether each detection is a true positive at each of COCO's ten IoU thresholds.
        boxes: number of ground-truth boxes on each image.
    """

    image: Int[np.ndarray, " n"]
    score: Float[np.ndarray, " n"]
    correct: Bool[np.ndarray, "10 n"]
    boxes: Int[np.ndarray, " p"]


@dataclass(frozen=True, slots=True)
class CocoTables:
    """Results of pycocotools for c classes.

    Attributes:
        precision: at ten IoU thresholds, 101 recall levels, each class, and all boxes or those of one size;
            -1 without ground-truth boxes.
        score: the score at which each recall is reached at IoU 0.5; 0 if it is never reached.
        matches: of each class.
    """

    classes: tuple[str, ...]
    precision: Float[np.ndarray, "10 101 c 4"]
    score: Float[np.ndarray, "101 c"]
    matches: tuple[ClassMatches, ...]

    def mean(self, size: Size | None = None, label: str | None = None) -> tuple[float, float] | None:
        """mAP@.5 and mAP@.5:.95 over the classes with ground-truth boxes; None without such boxes.

        Args:
            size: count boxes of this size only.
            label: this class only.
        """
        area = 0 if size is None else 1 + list(Size).index(size)
        columns = range(len(self.classes)) if label is None else [self.classes.index(label)]
        table = self.precision[:, :, columns, area]
        table = table[:, :, table[0, 0] >= 0]
        return (float(table[0].mean()), float(table.mean())) if table.size else None


def evaluate(
    predictions: Iterable[Prediction], truth: Sequence[LabelledImage], classes: Sequence[str]
) -> Evaluation:
    """Evaluate predictions on a test set.

    An image without a prediction counts as one without detections; predictions of other images are ignored.
    Classes without ground-truth boxes have no metrics and are not in the means (as in pycocotools); their
    detections are false positives.

    Args:
        classes: every class of the truth and of the predictions.
    """
    by_key = {prediction.key: prediction for prediction in predictions}
    return evaluate_tables(coco_tables(by_key, truth, classes), match_images(by_key, truth))


def evaluate_tables(tables: CocoTables, matched: Sequence[ImageMatches]) -> Evaluation:
    """Same as :func:`evaluate` for predictions that are already matched."""
    threshold = best_threshold(matched)
    point = operating_point(matched, tables.classes, 2.0 if threshold is None else threshold)
    per_class = {
        name: ClassMetrics(*mean, *_shares(counts), counts.true_positives + counts.false_negatives)
        for name, counts in point.per_class.items()
        if (mean := tables.mean(label=name)) is not None
    }
    return Evaluation(*(tables.mean() or (0.0, 0.0)), *_shares(point.total), threshold, per_class)


def _shares(counts: Counts) -> tuple[float, float, float]:
    return counts.precision or 0.0, counts.recall or 0.0, counts.f1 or 0.0


def coco_tables(
    predictions: Mapping[str, Prediction], truth: Sequence[LabelledImage], classes: Sequence[str]
) -> CocoTables:
    """Run pycocotools.

    Args:
        predictions: by image key.
    """
    from pycocotools.cocoeval import COCOeval

    category = {name: i + 1 for i, name in enumerate(classes)}
    images = [{"id": i + 1, "width": p.image.width, "height": p.image.height} for i, p in enumerate(truth)]
    head = {"images": images, "categories": [{"id": i, "name": name} for name, i in category.items()]}
    boxes = [_entry(i, category[a.label], a.box) for i, p in enumerate(truth) for a in p.annotations]
    detections = [
        _entry(i, category[f.label], f.box) | {"score": f.score}
        for i, p in enumerate(truth)
        if p.image.key in predictions
        for f in predictions[p.image.key].detections
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluation = COCOeval(_coco(head, boxes), _coco(head, detections), "bbox")
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.evaluate()
        evaluation.accumulate()
    # For each class: all areas, then small, medium and large; in each one entry per image.
    blocks = np.array(evaluation.evalImgs, dtype=object).reshape(len(classes), 4, len(truth))
    return CocoTables(
        tuple(classes),
        np.asarray(evaluation.eval["precision"][..., 0]),
        np.asarray(evaluation.eval["scores"][0, :, :, 0, 0]).clip(0),
        tuple(_class_matches(block.tolist()) for block in blocks[:, 0]),
    )


def _entry(image: int, category: int, box: Box) -> dict[str, Any]:
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
    """Convert pycocotools' matches of one class; an image is None if it has neither boxes nor detections."""
    known = [(i, matches) for i, matches in enumerate(images) if matches is not None]
    image = np.array([i for i, matches in known for _ in matches["dtScores"]], dtype=np.int64)
    score = np.array([s for _, matches in known for s in matches["dtScores"]], dtype=np.float64)
    correct = np.concatenate([np.zeros((10, 0)), *(matches["dtMatches"] > 0 for _, matches in known)], axis=1)
    order = np.argsort(-score, kind="mergesort")  # pycocotools' sort
    boxes = np.array([0 if matches is None else len(matches["gtIds"]) for matches in images], dtype=np.int64)
    return ClassMatches(image[order], score[order], correct[:, order].astype(bool), boxes)
