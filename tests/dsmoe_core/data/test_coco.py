"""COCO: round trip, and every way a file can be no COCO."""

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
    content = deepcopy(GOOD)
    place: Any = content
    for key in path[:-1]:
        place = place[key]
    if drop:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return content


def write(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "train.json"
    path.write_text(json.dumps(content))
    return path


@given(specs())
@settings(max_examples=40, deadline=None)
def test_round_trip(spec: Spec) -> None:
    annotations = build(spec)
    with TemporaryDirectory() as folder:
        coco.write(annotations, Path(folder) / "x.json")
        read = coco.read(Path(folder) / "x.json")
    assert [p.name for p in read.images] == [p.name for p in annotations.images]
    assert_equal_sets(read, annotations)


def test_reads_ids_of_any_kind_and_keeps_the_order_of_the_categories(tmp_path: Path) -> None:
    read = coco.read(write(tmp_path, GOOD))
    assert read.classes == ("spur", "short")
    assert read.images[0].name == "sub/a.png"
    assert read.images[0].annotations[0].box.corners == (1, 2, 11, 22)
    assert read.images[0].annotations[0].label == "spur"


def test_a_box_over_the_edge_by_rounding_is_clipped(tmp_path: Path) -> None:
    read = coco.read(write(tmp_path, changed("annotations", 0, "bbox", to=[-0.4, 5, 40.9, 20])))
    assert read.images[0].annotations[0].box.corners == (0, 5, 40, 25)


def test_crowds_are_left_out_and_said(tmp_path: Path) -> None:
    read = coco.read(write(tmp_path, changed("annotations", 0, "iscrowd", to=1)))
    assert read.images[0].annotations == ()
    assert "1 crowd regions left out" in read.notes[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "expected an object, got a list"),
        ({"images": []}, "lacks the key 'annotations'"),
        ({"hello": "world"}, "lacks the key 'images'"),
        (changed("images", to={}), "'images' is an object; expected a list"),
        (changed("images", 0, to=5), r"images\[0\] is 5; expected an object"),
        (changed("images", 0, "width", drop=True), r"image 7 \(sub/a.png\) lacks the key 'width'"),
        (changed("images", 0, "height", drop=True), r"image 7 \(sub/a.png\) lacks the key 'height'"),
        (changed("images", 0, "height", to=0), "has height 0"),
        (changed("images", 0, "height", to=30.5), "has height 30.5"),
        (changed("images", 0, "file_name", drop=True), "image 7 lacks the key 'file_name'"),
        (changed("images", 0, "file_name", to="../a.png"), "'../a.png', which leaves the folder"),
        (changed("images", 0, "file_name", to="a/../../b.png"), "which leaves the folder"),
        (changed("images", 0, "file_name", to="..\\a.png"), "which leaves the folder"),
        (changed("images", 0, "file_name", to="/etc/passwd"), "which leaves the folder"),
        (changed("images", 0, "file_name", to="C:\\a.png"), "which leaves the folder"),
        (changed("images", 0, "file_name", to="a\nb.png"), "control characters"),
        (changed("images", 0, "file_name", to=None), "file name None"),
        (changed("images", to=GOOD["images"] * 2), "image id '7' comes twice"),
        (changed("images", to=[*GOOD["images"], {**GOOD["images"][0], "id": 8}]), "'sub/a.png' comes twice"),
        (changed("annotations", to=GOOD["annotations"] * 2), "annotation id '3' comes twice"),
        (changed("annotations", 0, "category_id", to=1), "annotation 3 has category_id 1; known are 9, 2"),
        (changed("annotations", 0, "image_id", to=1), "annotation 3 has image_id 1, which no image has"),
        (changed("annotations", 0, "bbox", drop=True), "annotation 3 lacks the key 'bbox'"),
        (changed("annotations", 0, "bbox", to=[1, 2, 3]), r"bbox \[1, 2, 3\]"),
        (changed("annotations", 0, "bbox", to=[1, 2, "3", 4]), "expected .x, y, width, height"),
        (changed("annotations", 0, "bbox", to=[1, 2, 10**400, 4]), "beyond any number"),
        (changed("categories", 1, "name", to="spur"), "class 'spur' comes twice"),
        (changed("categories", 1, "name", to=" "), "category 2 has name ' '"),
    ],
)
def test_what_is_no_coco_is_refused_by_its_place(tmp_path: Path, content: object, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(FormatError, match=message) as caught:
        coco.read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([35, 2, 10, 20], r"box \(35.0, 2.0, 45.0, 22.0\) lies outside its image of 40x30"),
        ([-9, 2, 10, 20], "lies outside"),
        ([40, 2, 0.5, 20], "lies outside"),
        ([1, 2, 0, 20], "has no area"),
        ([1, 2, -5, 20], "has no area"),
        ([float("nan"), 2, 5, 20], "not finite"),
        ([1, 2, float("inf"), 20], "not finite"),
    ],
)
def test_a_wrong_box_is_named(tmp_path: Path, box: list[float], message: str) -> None:
    path = write(tmp_path, changed("annotations", 0, "bbox", to=box))
    with pytest.raises(BoxError, match=message) as caught:
        coco.read(path)
    assert f"{path}: image sub/a.png, annotation 3" in str(caught.value)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe\x00", b"[" * 200_000, b"<xml/>"])
def test_what_is_no_json_is_refused(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(raw)
    with pytest.raises(FormatError, match="is not JSON"):
        coco.read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.json cannot be read: No such file"):
        coco.read(tmp_path / "gone.json")


def test_reads_the_real_sets(shared_data: Path) -> None:
    for name, boxes, classes in (("deeppcb", 1568, 6), ("aluminium", 109, 4)):
        read = coco.read(shared_data / name / "val.json")
        assert len(read.classes) == classes
        assert sum(len(p.annotations) for p in read.images) == boxes
