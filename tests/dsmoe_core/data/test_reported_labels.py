"""Kinds of labels that users report: wrong boxes, shapes without boxes, crowds, blank class names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dsmoe_core.data.annotation_set import AnnotationSet
from dsmoe_core.data.formats import read_annotations
from dsmoe_core.data.import_account import Conversion, Reason, Unlabelled

SIZE = (64, 48)
MASK = {"size": [48, 64], "counts": [490, 8, 40, 8, 2526]}
POLYGON = [[10, 10, 20, 10, 20, 20, 10, 22]]


def draw(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    for i in range(count):
        Image.new("L", SIZE, i).save(folder / f"p{i}.png")
    return folder


def read_coco(tmp_path: Path, annotations: list[dict[str, Any]], images: int = 3) -> AnnotationSet:
    folder = draw(tmp_path / "images", images)
    content = {
        "images": [
            {"id": i, "file_name": f"p{i}.png", "width": SIZE[0], "height": SIZE[1]} for i in range(images)
        ],
        "annotations": [{"id": i, "category_id": 1, **a} for i, a in enumerate(annotations)],
        "categories": [{"id": 1, "name": "scratch"}],
    }
    path = tmp_path / "result.json"
    path.write_text(json.dumps(content))
    return read_annotations(path, folder)


GOOD = [{"image_id": i % 3, "bbox": [10, 10, 8, 8]} for i in range(1000)]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"bbox": []}, Reason.NO_BOX),
        ({"bbox": None}, Reason.NO_BOX),
        ({"bbox": [10, 10, float("inf"), 8]}, Reason.NOT_FINITE),
        ({"bbox": [float("nan"), 10, 8, 8]}, Reason.NOT_FINITE),
        ({"bbox": [10, 10, 0, 8]}, Reason.NO_AREA),
        ({"bbox": [10, 10, 8, 8], "category_id": 99}, Reason.UNKNOWN_CLASS),
        ({"bbox": [10, 10, 8, 8], "image_id": 99}, Reason.UNKNOWN_IMAGE),
        ({"segmentation": [[10, 10, 20, 20]]}, Reason.NO_AREA),
        ({"segmentation": [[10, 10, 20, 20, 30, 30]], "bbox": [10, 10, 0, 0]}, None),
        ({"bbox": [-1, 10, 8, 8]}, Reason.OVER_EDGE),
        ({"bbox": [-1.5, 10, 8, 8]}, Reason.OVER_EDGE),
        ({"bbox": [-10, 10, 18, 8]}, Reason.OVER_EDGE),
        ({"bbox": [58, 10, 8, 8]}, Reason.OVER_EDGE),
    ],
)
def test_one_wrong_box_of_a_thousand_does_not_stop_the_others(
    tmp_path: Path, wrong: dict[str, Any], reason: Reason | None
) -> None:
    read = read_coco(tmp_path, [*GOOD, {"image_id": 0, **wrong}])
    account = read.account
    assert (account.images_in, account.images_taken, account.boxes_in) == (3, 3, 1001)
    assert account.boxes_taken == (1000 if reason else 1001)
    assert [(e.reason, e.where) for e in account.entries] == (
        [(reason, "result.json, annotation 1000")] if reason else []
    )
    assert account.is_balanced


@pytest.mark.parametrize(
    ("shape", "conversion", "corners"),
    [
        ({"segmentation": POLYGON}, Conversion.POLYGON, (10, 10, 20, 22)),
        ({"segmentation": POLYGON, "bbox": [0, 0, 0, 0]}, Conversion.POLYGON, (10, 10, 20, 22)),
        ({"segmentation": MASK}, Conversion.MASK, (10, 10, 12, 18)),
        ({"segmentation": MASK, "bbox": [10, 10, 2, 8], "iscrowd": 1}, Conversion.CROWD, (10, 10, 12, 18)),
    ],
)
def test_shapes_without_boxes_and_crowds_give_boxes(
    tmp_path: Path, shape: dict[str, Any], conversion: Conversion, corners: tuple[float, ...]
) -> None:
    read = read_coco(tmp_path, [{"image_id": i, **shape} for i in range(3)])
    assert [image.annotations[0].box.corners for image in read.images] == [corners] * 3
    assert read.account.conversions == {conversion: 3}
    assert (read.account.boxes_taken, read.account.images_without_box) == (3, 0)


def test_crowd_without_a_box_uses_its_mask(tmp_path: Path) -> None:
    read = read_coco(tmp_path, [{"image_id": 0, "segmentation": MASK, "iscrowd": 1}])
    assert read.images[0].annotations[0].box.corners == (10, 10, 12, 18)
    assert read.account.conversions == {Conversion.CROWD: 1, Conversion.MASK: 1}


def coco_without_boxes(folder: Path) -> None:
    images = [{"id": i, "file_name": f"p{i}.png", "width": 64, "height": 48} for i in range(8)]
    boxes = [{"id": i, "image_id": i, "category_id": 0, "bbox": [10, 10, 8, 8]} for i in range(3)]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 0, "name": "short"}]}
    (folder / "result.json").write_text(json.dumps(content))


def yolo_without_boxes(folder: Path) -> None:
    (folder / "classes.txt").write_text("short\n")
    for i in range(8):
        (folder / f"p{i}.txt").write_text("0 0.25 0.25 0.1 0.1\n" if i < 3 else "")


def yolo_list_without_boxes(folder: Path) -> None:
    (folder / "obj.names").write_text("short\n")
    for i in range(3):
        (folder / f"p{i}.txt").write_text("0 0.25 0.25 0.1 0.1\n")
    (folder / "train.txt").write_text("".join(f"data/p{i}.png\n" for i in range(8)))


def voc_without_boxes(folder: Path) -> None:
    box = "<bndbox><xmin>10</xmin><ymin>10</ymin><xmax>18</xmax><ymax>18</ymax></bndbox>"
    for i in range(8):
        labelled = f"<object><name>short</name>{box}</object>" if i < 3 else ""
        (folder / f"p{i}.xml").write_text(f"<annotation><filename>p{i}.png</filename>{labelled}</annotation>")


@pytest.mark.parametrize(
    "write", [coco_without_boxes, yolo_without_boxes, yolo_list_without_boxes, voc_without_boxes]
)
def test_images_without_a_box_are_counted_and_can_be_ignored(tmp_path: Path, write: Any) -> None:
    folder = draw(tmp_path / "images", 8)
    write(folder)
    read = read_annotations(folder, folder)
    assert (read.account.images_in, read.account.images_without_box) == (8, 5)
    assert not read.states_negatives
    negative = read.counting_unlabelled(Unlabelled.NEGATIVE)
    assert (len(negative.images), negative.account.images_left_out) == (8, 0)
    ignored = read.counting_unlabelled(Unlabelled.IGNORE)
    assert (len(ignored.images), ignored.account.images_left_out) == (3, 5)
    assert {e.reason for e in ignored.account.entries} == {Reason.UNLABELLED}


def test_images_that_labelimg_marks_as_verified_are_stated_as_negative(tmp_path: Path) -> None:
    folder = draw(tmp_path / "images", 8)
    voc_without_boxes(folder)
    for path in folder.glob("*.xml"):
        path.write_text(path.read_text().replace("<annotation>", '<annotation verified="yes">'))
    assert read_annotations(folder, folder).states_negatives


def test_image_whose_boxes_were_all_left_out_is_never_free_of_defects(tmp_path: Path) -> None:
    read = read_coco(
        tmp_path, [{"image_id": 0, "bbox": [10, 10, 0, 0]}, {"image_id": 1, "bbox": [1, 1, 5, 5]}]
    )
    assert [image.name for image in read.images] == ["p1.png", "p2.png"]
    assert [e.reason for e in read.account.entries] == [Reason.NO_AREA, Reason.EVERY_BOX_LEFT_OUT]
