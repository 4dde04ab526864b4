"""COCO reader: ids, shapes, entries that are left out, and files that are refused."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from PIL import Image

from dsmoe_core.data import coco
from dsmoe_core.data.annotation_set import AnnotationSet
from dsmoe_core.data.import_account import Action, Conversion, Kind, Reason
from dsmoe_core.data.label_source import ReadOptions
from dsmoe_core.errors import DataError, FormatError

from .conftest import Spec, assert_equal_sets, build, specs

GOOD: dict[str, Any] = {
    "images": [{"id": 7, "file_name": "sub/a.png", "width": 40, "height": 30}],
    "annotations": [{"id": 3, "image_id": 7, "category_id": 9, "bbox": [1, 2, 10, 20]}],
    "categories": [{"id": 9, "name": "spur"}, {"id": 2, "name": "short"}],
}


def changed(*path: str | int, to: Any = None, drop: bool = False) -> dict[str, Any]:
    """GOOD with another value at this path, or without it."""
    content = deepcopy(GOOD)
    parent: Any = content
    for key in path[:-1]:
        parent = parent[key]
    if drop:
        del parent[path[-1]]
    else:
        parent[path[-1]] = to
    return content


def write(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "train.json"
    path.write_text(json.dumps(content))
    return path


@given(specs())
@settings(max_examples=40, deadline=None)
def test_writing_and_reading_keeps_the_set_and_its_order(spec: Spec) -> None:
    annotations = build(spec)
    with TemporaryDirectory() as folder:
        coco.write(annotations, Path(folder) / "x.json")
        read = coco.read(Path(folder) / "x.json")
    assert [image.name for image in read.images] == [image.name for image in annotations.images]
    assert_equal_sets(read, annotations)


def test_classes_keep_the_order_of_the_categories(tmp_path: Path) -> None:
    read = coco.read(write(tmp_path, GOOD))
    assert read.classes == ("spur", "short")
    assert read.images[0].name == "sub/a.png"
    assert read.images[0].annotations[0].box.corners == (1, 2, 11, 22)
    assert read.images[0].annotations[0].label == "spur"


def entries(read: AnnotationSet) -> list[tuple[Kind, Action, Reason]]:
    return [(e.kind, e.action, e.reason) for e in read.account.entries]


def test_box_outside_by_a_rounding_error_is_taken(tmp_path: Path) -> None:
    read = coco.read(write(tmp_path, changed("annotations", 0, "bbox", to=[-0.4, 5, 40.8, 20])))
    assert read.images[0].annotations[0].box.corners == (0, 5, 40, 25)
    assert read.account.boxes_taken == 1


def test_boxes_of_crowd_regions_are_taken_and_counted(tmp_path: Path) -> None:
    read = coco.read(write(tmp_path, changed("annotations", 0, "iscrowd", to=1)))
    assert read.images[0].annotations[0].box.corners == (1, 2, 11, 22)
    assert read.account.conversions == {Conversion.CROWD: 1}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ([1, 2], ()),
        ({"images": []}, ("'annotations'",)),
        ({"hello": "world"}, ("'images'",)),
        (changed("images", to={}), ("'images'",)),
        (changed("categories", to=[{"id": 9, "name": "spur"}, {"id": 9, "name": "short"}]), ("9", "'short'")),
        (changed("annotations", 0, "score", to=0.9), ("annotation 3",)),
        ([{"image_id": 7, "category_id": 9, "bbox": [1, 2, 3, 4], "score": 0.9}], ("1 detections",)),
        ([{"id": 1, "data": {"image": "a.png"}, "annotations": []}], ("Label Studio",)),
    ],
)
def test_file_that_is_not_coco_or_has_predictions_is_refused(
    tmp_path: Path, content: object, named: tuple[str, ...]
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(FormatError) as caught:
        coco.read(path)
    assert [value for value in (str(path), *named) if value not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (changed("images", 0, to=5), Reason.NOT_AN_ENTRY),
        (changed("images", 0, "id", drop=True), Reason.NOT_AN_ENTRY),
        (changed("images", 0, "width", drop=True), Reason.NO_SIZE),
        (changed("images", 0, "height", to=0), Reason.NO_SIZE),
        (changed("images", 0, "height", to=30.5), Reason.NO_SIZE),
        (changed("images", 0, "height", to=float("inf")), Reason.NO_SIZE),
        (changed("images", 0, "file_name", drop=True), Reason.NO_NAME),
        (changed("images", 0, "file_name", to=None), Reason.NO_NAME),
        (changed("images", 0, "file_name", to=".."), Reason.NO_NAME),
        (changed("images", 0, "file_name", to="a\nb.png"), Reason.NO_NAME),
        (
            changed("images", to=[*GOOD["images"], {**GOOD["images"][0], "file_name": "b.png"}]),
            Reason.DUPLICATE_ID,
        ),
    ],
)
def test_image_entry_that_cannot_be_used_is_left_out_with_its_boxes(
    tmp_path: Path, content: dict[str, Any], reason: Reason
) -> None:
    read = coco.read(write(tmp_path, content))
    assert read.images == ()
    assert {e.reason for e in read.account.entries if e.kind is Kind.IMAGE} == {reason}
    assert (read.account.images_in, read.account.boxes_in) == (len(content["images"]), 1)
    assert read.account.boxes_left_out == 1
    assert read.account.is_balanced


def test_missing_size_comes_from_the_image_file(tmp_path: Path) -> None:
    (tmp_path / "images" / "sub").mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(tmp_path / "images" / "sub" / "a.png")
    path = write(tmp_path, changed("images", 0, "width", drop=True))
    read = coco.read(path, tmp_path / "images")
    assert (read.images[0].width, read.images[0].height) == (40, 30)
    assert read.account.is_balanced


@pytest.mark.parametrize(
    "second",
    [
        {},
        {"id": 8},
        {"id": 8, "width": 80},
    ],
)
def test_image_that_is_listed_twice_is_taken_once(tmp_path: Path, second: dict[str, Any]) -> None:
    images = [*GOOD["images"], {**GOOD["images"][0], **second}]
    read = coco.read(write(tmp_path, changed("images", to=images)))
    assert [len(image.annotations) for image in read.images] == [1]
    assert entries(read) == [(Kind.IMAGE, Action.LEFT_OUT, Reason.DUPLICATE_ENTRY)]
    assert read.account.is_balanced


def test_image_that_is_listed_twice_with_different_boxes_is_left_out(tmp_path: Path) -> None:
    content = changed("images", to=[*GOOD["images"], {**GOOD["images"][0], "id": 8}])
    content["annotations"].append({"id": 4, "image_id": 8, "category_id": 9, "bbox": [1, 2, 3, 4]})
    read = coco.read(write(tmp_path, content))
    assert read.images == ()
    assert entries(read) == [(Kind.IMAGE, Action.LEFT_OUT, Reason.CONFLICTING_LABELS)] * 2
    assert (read.account.boxes_in, read.account.boxes_left_out) == (2, 2)
    assert read.account.is_balanced


GOOD_BOX = {"id": 4, "image_id": 7, "category_id": 9, "bbox": [1, 2, 3, 4]}


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"category_id": 1}, Reason.UNKNOWN_CLASS),
        ({"category_id": None}, Reason.UNKNOWN_CLASS),
        ({"category_id": 5}, Reason.BLANK_CLASS),
        ({"image_id": 1}, Reason.UNKNOWN_IMAGE),
        ({"image_id": True}, Reason.UNKNOWN_IMAGE),
        ({"bbox": None}, Reason.NO_BOX),
        ({"bbox": []}, Reason.NO_BOX),
        ({"bbox": [1, 2, 3]}, Reason.NOT_NUMBERS),
        ({"bbox": [1, 2, "x", 4]}, Reason.NOT_NUMBERS),
        ({"bbox": "1 2 3 4"}, Reason.NOT_NUMBERS),
        ({"bbox": [1, 2, 10**400, 4]}, Reason.NOT_FINITE),
        ({"bbox": [float("nan"), 2, 5, 20]}, Reason.NOT_FINITE),
        ({"bbox": [1, 2, float("inf"), 20]}, Reason.NOT_FINITE),
        ({"bbox": [40, 2, 0.5, 20]}, Reason.OUTSIDE_IMAGE),
        ({"bbox": [1, 2, 0, 20]}, Reason.NO_AREA),
        ({"bbox": None, "segmentation": [[1, 2, 3, 4]]}, Reason.NO_AREA),
        ({"bbox": None, "segmentation": [[1, 2, 3, "x", 5, 6]]}, Reason.NOT_NUMBERS),
        ({"bbox": None, "segmentation": [[1, 2, 3, float("nan"), 5, 6]]}, Reason.NOT_FINITE),
        ({"bbox": None, "segmentation": {"size": [30, 40], "counts": [1200]}}, Reason.NO_AREA),
        ({"bbox": None, "segmentation": {"size": [30, 40], "counts": [10, 5]}}, Reason.WRONG_MASK),
        ({"bbox": None, "segmentation": {"size": [40, 30], "counts": [600, 600]}}, Reason.WRONG_MASK),
        ({"bbox": None, "segmentation": {"size": [30, 40], "counts": "\u00e9"}}, Reason.WRONG_MASK),
        ({"bbox": None, "segmentation": {"size": [0, 0], "counts": []}}, Reason.WRONG_MASK),
    ],
)
def test_wrong_box_is_left_out_and_the_others_are_taken(
    tmp_path: Path, entry: dict[str, Any], reason: Reason
) -> None:
    content = changed("annotations", to=[*GOOD["annotations"], {**GOOD_BOX, **entry}])
    content["categories"].append({"id": 5, "name": " "})
    read = coco.read(write(tmp_path, content))
    assert [len(image.annotations) for image in read.images] == [1]
    assert entries(read) == [(Kind.BOX, Action.LEFT_OUT, reason)]
    assert read.account.entries[0].where == "train.json, annotation 4"
    assert read.account.is_balanced


@pytest.mark.parametrize(
    ("box", "corners"),
    [
        ([-1, 2, 10, 20], (0, 2, 9, 22)),
        ([32, 2, 10, 20], (32, 2, 40, 22)),
        ([-100, -100, 1000, 1000], (0, 0, 40, 30)),
    ],
)
def test_box_over_the_edge_is_clipped_and_counted(
    tmp_path: Path, box: list[float], corners: tuple[float, ...]
) -> None:
    read = coco.read(write(tmp_path, changed("annotations", 0, "bbox", to=box)))
    assert read.images[0].annotations[0].box.corners == corners
    assert entries(read) == [(Kind.BOX, Action.CLIPPED, Reason.OVER_EDGE)]
    assert (read.account.boxes_taken, read.account.boxes_clipped) == (0, 1)


@pytest.mark.parametrize(
    ("shape", "conversion", "corners"),
    [
        ({"segmentation": [[10, 10, 20, 10, 20, 22]]}, Conversion.POLYGON, (10, 10, 20, 22)),
        ({"segmentation": [[1, 1, 5, 1, 5, 5], [8, 8, 9, 8, 9, 20]]}, Conversion.POLYGON, (1, 1, 9, 20)),
        ({"segmentation": [10, 10, 20, 10, 20, 22]}, Conversion.POLYGON, (10, 10, 20, 22)),
        ({"segmentation": [[10, 10], [20, 10], [20, 22]]}, Conversion.POLYGON, (10, 10, 20, 22)),
        (
            {"segmentation": {"size": [30, 40], "counts": [310, 8, 22, 8, 852]}},
            Conversion.MASK,
            (10, 10, 12, 18),
        ),
        ({"segmentation": {"size": [30, 40], "counts": "f98f00ni0"}}, Conversion.MASK, (10, 10, 12, 18)),
        (
            {"bbox": [0, 0, 0, 0], "segmentation": [[10, 10, 20, 10, 20, 22]]},
            Conversion.POLYGON,
            (10, 10, 20, 22),
        ),
        ({"bbox": None, "segmentation": [[10, 10, 20, 10, 20, 22]]}, Conversion.POLYGON, (10, 10, 20, 22)),
        ({"bbox": [20, 22, -10, -12]}, Conversion.TURNED, (10, 10, 20, 22)),
    ],
)
def test_box_comes_from_the_shape_where_there_is_none(
    tmp_path: Path, shape: dict[str, Any], conversion: Conversion, corners: tuple[float, ...]
) -> None:
    content = changed("annotations", to=[{"id": 3, "image_id": 7, "category_id": 9, **shape}])
    read = coco.read(write(tmp_path, content))
    assert read.images[0].annotations[0].box.corners == corners
    assert read.account.conversions == {conversion: 1}
    assert (read.account.boxes_taken, read.account.entries) == (1, ())


def test_image_without_a_box_that_could_be_taken_is_left_out(tmp_path: Path) -> None:
    read = coco.read(write(tmp_path, changed("annotations", 0, "bbox", to=[1, 2, 0, 0])))
    assert read.images == ()
    assert [e.reason for e in read.account.entries] == [Reason.NO_AREA, Reason.EVERY_BOX_LEFT_OUT]
    assert read.account.is_balanced


def test_ids_may_be_numbers_or_texts(tmp_path: Path) -> None:
    content = changed("annotations", 0, "image_id", to="7")
    content["annotations"][0]["category_id"] = 9.0
    assert len(coco.read(write(tmp_path, content)).images[0].annotations) == 1


def test_root_category_without_boxes_is_not_a_class(tmp_path: Path) -> None:
    categories = [
        {"id": 0, "name": "defects", "supercategory": "none"},
        {"id": 9, "name": "spur", "supercategory": "defects"},
        {"id": 2, "name": "short", "supercategory": "defects"},
    ]
    read = coco.read(write(tmp_path, changed("categories", to=categories)))
    assert read.classes == ("spur", "short")
    assert len(read.account.notes) == 1
    used = changed("categories", to=categories)
    used["annotations"][0]["category_id"] = 0
    assert coco.read(write(tmp_path, used)).classes == ("defects", "spur", "short")


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"]
)
def test_encodings_are_recognised(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "x.json"
    text = json.dumps(changed("images", 0, "file_name", to="n\u00e4he.png"), ensure_ascii=False)
    path.write_bytes(text.encode(encoding))
    assert [image.name for image in coco.read(path).images] == ["n\u00e4he.png"]


def test_predictions_are_read_if_they_are_accepted(tmp_path: Path) -> None:
    path = write(tmp_path, changed("annotations", 0, "score", to=0.9))
    read = coco.read(path, None, ReadOptions(accept_predictions=True))
    assert len(read.images[0].annotations) == 1


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe\x00", b"[" * 200_000, b"<xml/>"])
def test_file_that_is_not_json_is_refused(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(raw)
    with pytest.raises(FormatError, match=r"x\.json .*JSON"):
        coco.read(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.json"):
        coco.read(tmp_path / "gone.json")


def test_real_sets_have_their_known_number_of_boxes(shared_data: Path) -> None:
    for name, boxes, classes in (("deeppcb", 1568, 6), ("aluminium", 109, 4)):
        read = coco.read(shared_data / name / "val.json")
        assert len(read.classes) == classes
        assert sum(len(image.annotations) for image in read.images) == boxes
