"""COCO metrics of small cases with known values, and compared with pycocotools."""

from __future__ import annotations

from pathlib import Path

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scenes import CLASSES, prediction, random_scene

from dsmoe_core.evaluation.coco_metrics import coco_tables, evaluate
from dsmoe_core.evaluation.operating_point import Size
from dsmoe_core.schema import Annotation, Box, ImageRecord, LabelledImage, Prediction

BOX = Box(10, 10, 30, 30)


def image(key: str, *labels: str) -> LabelledImage:
    return LabelledImage(
        ImageRecord(key, key, Path(key), 100, 100),
        tuple(Annotation(Box(10 + 40 * i, 10, 30 + 40 * i, 30), label) for i, label in enumerate(labels)),
    )


def test_correct_detection_has_map_1() -> None:
    result = evaluate([prediction("a", (BOX, "spur", 0.9))], [image("a", "spur")], ["spur", "short"])
    assert (result.map50, result.map, result.recall) == pytest.approx((1.0, 1.0, 1.0))
    assert result.per_class.keys() == {"spur"}


def test_wrong_class_has_map_0() -> None:
    result = evaluate([prediction("a", (BOX, "short", 0.9))], [image("a", "spur")], ["spur", "short"])
    assert (result.map50, result.map, result.f1) == (0.0, 0.0, 0.0)


def test_no_detections_have_map_0() -> None:
    assert evaluate([], [image("a", "spur")], ["spur"]).map50 == 0.0


def test_iou_of_0_8_counts_at_thresholds_up_to_it() -> None:
    shifted = prediction("a", (Box(10, 10, 30, 26), "spur", 0.9))  # IoU 0.8
    result = evaluate([shifted], [image("a", "spur")], ["spur"])
    assert result.map50 == pytest.approx(1.0)
    assert result.map == pytest.approx(0.7)


def test_higher_scoring_false_positive_halves_precision() -> None:
    rows = prediction("a", (Box(60, 60, 80, 80), "spur", 0.9), (BOX, "spur", 0.5))
    result = evaluate([rows], [image("a", "spur")], ["spur"])
    assert result.map50 == pytest.approx(0.5)
    assert result.precision == pytest.approx(0.5)


def test_predictions_of_other_images_are_ignored() -> None:
    rows = [prediction("a", (BOX, "spur", 0.9)), prediction("z", (BOX, "spur", 1.0))]
    assert evaluate(rows, [image("a", "spur")], ["spur"]).map50 == pytest.approx(1.0)


def test_total_and_sizes_equal_those_of_pycocotools() -> None:
    detections, truth = random_scene(1, images=30)
    tables = coco_tables(detections, truth, CLASSES)
    expected = summary_of_pycocotools(detections, truth)
    assert tables.mean() == pytest.approx((expected[1], expected[0]))
    for size, value in zip(Size, expected[3:6], strict=True):
        mean = tables.mean(size=size)
        assert mean is not None
        assert mean[1] == pytest.approx(value)


def summary_of_pycocotools(detections: dict[str, Prediction], truth: list[LabelledImage]) -> list[float]:
    """The twelve metrics of COCOeval.summarize."""
    ids = {p.image.key: i for i, p in enumerate(truth, start=1)}
    true = [(ids[p.image.key], a) for p in truth for a in p.annotations]
    coco, rows = COCO(), []
    for f in detections.values():
        for one in f.detections:
            box = [one.box.x1, one.box.y1, one.box.width, one.box.height]
            place = CLASSES.index(one.label) + 1
            rows.append({"image_id": ids[f.key], "category_id": place, "bbox": box, "score": one.score})
    coco.dataset = {
        "images": [{"id": i} for i in ids.values()],
        "categories": [{"id": i} for i in range(1, len(CLASSES) + 1)],
        "annotations": [
            {
                "id": k,
                "image_id": image,
                "category_id": CLASSES.index(a.label) + 1,
                "bbox": [a.box.x1, a.box.y1, a.box.width, a.box.height],
                "area": a.box.area,
                "iscrowd": 0,
            }
            for k, (image, a) in enumerate(true, start=1)
        ],
    }
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes(rows), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return [float(value) for value in evaluation.stats]


def test_empty_inputs_have_zero_metrics() -> None:
    for detections, truth in (
        ([], []),
        ([], [image("a")]),
        ([prediction("a", (BOX, "spur", 0.9))], [image("a")]),
    ):
        result = evaluate(detections, truth, ["spur"])
        assert (result.map50, result.f1, result.threshold, result.per_class) == (0.0, 0.0, None, {})


def test_one_threshold_is_used_for_all_classes() -> None:
    truth = [image("a", "spur", "short")]
    rows = prediction(
        "a", (BOX, "spur", 0.9), (Box(50, 10, 70, 30), "short", 0.4), (Box(60, 60, 80, 80), "spur", 0.3)
    )
    result = evaluate([rows], truth, ["spur", "short"])
    assert result.threshold == 0.4
    assert (result.precision, result.recall, result.f1) == (1.0, 1.0, 1.0)
    assert result.per_class["short"].precision == 1.0
