"""COCO reader: ids, crowd regions, and files that are refused."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings

from dsmoe_core.data import coco
from dsmoe_core.errors import BoxError, DataError, FormatError

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


def test_box_outside_by_a_rounding_error_is_clipped(tmp_path: Path) -> None:
    read = coco.read(write(tmp_path, changed("annotations", 0, "bbox", to=[-0.4, 5, 40.9, 20])))
    assert read.images[0].annotations[0].box.corners == (0, 5, 40, 25)


def test_crowd_regions_are_left_out_and_noted(tmp_path: Path) -> None:
    read = coco.read(write(tmp_path, changed("annotations", 0, "iscrowd", to=1)))
    assert read.images[0].annotations == ()
    assert "1 crowd" in read.notes[0]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ([1, 2], ()),
        ({"images": []}, ("'annotations'",)),
        ({"hello": "world"}, ("'images'",)),
        (changed("images", to={}), ("'images'",)),
        (changed("images", 0, to=5), ("images[0]", "5")),
        (changed("images", 0, "width", drop=True), ("image 7 (sub/a.png)", "'width'")),
        (changed("images", 0, "height", drop=True), ("image 7 (sub/a.png)", "'height'")),
        (changed("images", 0, "height", to=0), ("image 7 (sub/a.png)", "height 0")),
        (changed("images", 0, "height", to=30.5), ("image 7 (sub/a.png)", "height 30.5")),
        (changed("images", 0, "file_name", drop=True), ("image 7", "'file_name'")),
        (changed("images", 0, "file_name", to="../a.png"), ("image 7", "'../a.png'")),
        (changed("images", 0, "file_name", to="a/../../b.png"), ("'a/../../b.png'",)),
        (changed("images", 0, "file_name", to="..\\a.png"), (repr("..\\a.png"),)),
        (changed("images", 0, "file_name", to="/etc/passwd"), ("'/etc/passwd'",)),
        (changed("images", 0, "file_name", to="C:\\a.png"), (repr("C:\\a.png"),)),
        (changed("images", 0, "file_name", to="a\nb.png"), (repr("a\nb.png"),)),
        (changed("images", 0, "file_name", to=None), ("image 7", "None")),
        (changed("images", to=GOOD["images"] * 2), ("image id '7'",)),
        (changed("images", to=[*GOOD["images"], {**GOOD["images"][0], "id": 8}]), ("'sub/a.png'",)),
        (changed("annotations", to=GOOD["annotations"] * 2), ("annotation id '3'",)),
        (changed("annotations", 0, "category_id", to=1), ("annotation 3", "category_id 1", "9, 2")),
        (changed("annotations", 0, "image_id", to=1), ("annotation 3", "image_id 1")),
        (changed("annotations", 0, "bbox", drop=True), ("annotation 3", "'bbox'")),
        (changed("annotations", 0, "bbox", to=[1, 2, 3]), ("annotation 3", "[1, 2, 3]")),
        (changed("annotations", 0, "bbox", to=[1, 2, "3", 4]), ("annotation 3", "[1, 2, '3', 4]")),
        (changed("annotations", 0, "bbox", to=[1, 2, 10**400, 4]), ("annotation 3",)),
        (changed("categories", 1, "name", to="spur"), ("class 'spur'",)),
        (changed("categories", 1, "name", to=" "), ("category 2", "' '")),
    ],
)
def test_file_that_is_not_coco_is_refused_and_its_entry_is_named(
    tmp_path: Path, content: object, named: tuple[str, ...]
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(FormatError) as caught:
        coco.read(path)
    assert [value for value in (str(path), *named) if value not in str(caught.value)] == []


@pytest.mark.parametrize(
    "box",
    [
        [35, 2, 10, 20],
        [-9, 2, 10, 20],
        [40, 2, 0.5, 20],
        [1, 2, 0, 20],
        [1, 2, -5, 20],
        [float("nan"), 2, 5, 20],
        [1, 2, float("inf"), 20],
    ],
)
def test_wrong_box_is_refused_and_its_annotation_is_named(tmp_path: Path, box: list[float]) -> None:
    path = write(tmp_path, changed("annotations", 0, "bbox", to=box))
    with pytest.raises(BoxError) as caught:
        coco.read(path)
    assert f"{path}: image sub/a.png, annotation 3" in str(caught.value)


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
