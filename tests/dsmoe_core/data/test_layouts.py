"""Folder layouts as Roboflow, CVAT, Label Studio and Ultralytics export them, read without preparation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dsmoe_core.data.formats import read_annotations
from dsmoe_core.data.import_account import Reason
from dsmoe_core.data.label_source import ReadOptions, SplitChoice
from dsmoe_core.errors import FormatError

SIZE = (40, 20)
BOX = (10, 5, 20, 15)
ROW = "0.375 0.5 0.25 0.5"
"""The same box in fractions."""


def draw(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE, (len(path.name), 0, 0)).save(path)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def coco(*names: str, roots: tuple[str, ...] = (), classes: tuple[str, ...] = ("spur", "short")) -> str:
    """A COCO file with one box of the last class on each image; ids count from 0."""
    categories: list[dict[str, Any]] = [{"id": 0, "name": r, "supercategory": "none"} for r in roots]
    parent = roots[0] if roots else ""
    first = len(roots)
    categories += [{"id": first + i, "name": c, "supercategory": parent} for i, c in enumerate(classes)]
    x1, y1, x2, y2 = BOX
    return json.dumps(
        {
            "images": [
                {"id": i, "file_name": n, "width": SIZE[0], "height": SIZE[1]} for i, n in enumerate(names)
            ],
            "categories": categories,
            "annotations": [
                {
                    "id": i,
                    "image_id": i,
                    "category_id": len(categories) - 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                }
                for i in range(len(names))
            ],
        }
    )


def voc(filename: str, label: str = "short") -> str:
    sides = "".join(f"<{s}>{v}</{s}>" for s, v in zip(("xmin", "ymin", "xmax", "ymax"), BOX, strict=True))
    size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height><depth>3</depth></size>"
    box = f"<object><name>{label}</name><bndbox>{sides}</bndbox></object>"
    return f"<annotation><folder/><filename>{filename}</filename>{size}{box}</annotation>"


def roboflow_coco(root: Path) -> None:
    for split in ("train", "valid", "test"):
        draw(root / split / f"{split}_jpg.rf.0a1b.jpg")
        write(root / split / "_annotations.coco.json", coco(f"{split}_jpg.rf.0a1b.jpg", roots=("defects",)))
    write(root / "README.roboflow.txt", "boards\n")
    write(root / "README.dataset.txt", "# boards\nhttps://example.com\n")


def roboflow_yolo(root: Path) -> None:
    for split in ("train", "valid", "test"):
        draw(root / split / "images" / f"{split}.jpg")
        write(root / split / "labels" / f"{split}.txt", f"1 {ROW}\n")
    splits = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n"
    write(root / "data.yaml", f"{splits}\nnc: 2\nnames: ['spur', 'short']\n\nroboflow:\n  project: boards\n")
    write(root / "README.roboflow.txt", "boards\n")


def roboflow_voc(root: Path) -> None:
    for split in ("train", "valid", "test"):
        draw(root / split / f"{split}_jpg.rf.0a1b.jpg")
        write(root / split / f"{split}_jpg.rf.0a1b.xml", voc(f"{split}_jpg.rf.0a1b.jpg"))
    write(root / "README.dataset.txt", "boards\n")


def cvat_coco(root: Path) -> None:
    draw(root / "images" / "a.jpg", root / "images" / "sub" / "b.jpg")
    write(root / "annotations" / "instances_default.json", coco("a.jpg", "sub/b.jpg"))


def cvat_coco_subsets(root: Path) -> None:
    for subset in ("Train", "Validation"):
        draw(root / "images" / subset / "a.jpg")
        write(root / "annotations" / f"instances_{subset}.json", coco("a.jpg"))


def cvat_yolo(root: Path) -> None:
    draw(root / "obj_train_data" / "a.jpg", root / "obj_train_data" / "b.jpg")
    write(root / "obj_train_data" / "a.txt", f"1 {ROW}\n")
    write(root / "obj.names", "spur\nshort\n")
    lines = "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"
    write(root / "obj.data", lines)
    write(root / "train.txt", "data/obj_train_data/a.jpg\ndata/obj_train_data/b.jpg\n")


def cvat_ultralytics(root: Path) -> None:
    draw(root / "images" / "train" / "a.jpg", root / "images" / "train" / "b.jpg")
    write(root / "labels" / "train" / "a.txt", f"1 {ROW}\n")
    write(root / "data.yaml", "names:\n  0: spur\n  1: short\npath: .\ntrain: train.txt\n")
    write(root / "train.txt", "data/images/train/a.jpg\ndata/images/train/b.jpg\n")


def cvat_voc(root: Path) -> None:
    draw(root / "JPEGImages" / "a.jpg", root / "JPEGImages" / "sub" / "b.jpg")
    write(root / "Annotations" / "a.xml", voc("a.jpg"))
    write(root / "Annotations" / "sub" / "b.xml", voc("sub/b.jpg"))
    write(root / "ImageSets" / "Main" / "default.txt", "a\nsub/b\n")
    colours = "background:0,0,0::\nspur:1,2,3::\nshort:4,5,6::\n"
    write(root / "labelmap.txt", f"# label:color_rgb:parts:actions\n{colours}")


def label_studio_coco(root: Path) -> None:
    draw(root / "images" / "1f2e3d4c-a.jpg", root / "images" / "0a0a0a0a-b.jpg")
    write(root / "result.json", coco("images\\1f2e3d4c-a.jpg", "images/0a0a0a0a-b.jpg"))


def label_studio_yolo(root: Path) -> None:
    draw(root / "images" / "1f2e3d4c-a.jpg", root / "images" / "0a0a0a0a-b.jpg")
    write(root / "labels" / "1f2e3d4c-a.txt", f"1 {ROW}\n")
    write(root / "labels" / "0a0a0a0a-b.txt", f"1 {ROW}\n")
    write(root / "classes.txt", "spur\nshort\n")
    write(
        root / "notes.json", json.dumps({"categories": [{"id": 0, "name": "spur"}], "info": {"year": 2026}})
    )


def label_studio_voc(root: Path) -> None:
    draw(root / "images" / "1f2e3d4c-a.jpg")
    write(root / "Annotations" / "1f2e3d4c-a.xml", voc("1f2e3d4c-a.jpg"))


def ultralytics(root: Path) -> None:
    for split in ("train2017", "val2017"):
        draw(root / "images" / split / f"{split}.jpg")
        write(root / "labels" / split / f"{split}.txt", "1 0.25 0.25 0.5 0.25 0.5 0.75 0.25 0.75\n")
    splits = "path: ../datasets/boards\ntrain: images/train2017\nval: images/val2017\ntest:\n"
    write(root / "boards.yaml", f"{splits}names:\n  0: spur\n  1: short\n")


def ultralytics_folders(root: Path) -> None:
    for folder in ("line1", "line2"):
        draw(root / folder / "images" / f"{folder}.jpg")
        write(root / folder / "labels" / f"{folder}.txt", f"1 {ROW}\n")
    write(root / "data.yaml", "train: [line1/images]\nval: [line2/images]\nnames: [spur, short]\n")


EXPORTS = {
    roboflow_coco: (
        ["test/test_jpg.rf.0a1b.jpg", "train/train_jpg.rf.0a1b.jpg", "valid/valid_jpg.rf.0a1b.jpg"],
        3,
    ),
    roboflow_yolo: (["test/images/test.jpg", "train/images/train.jpg", "valid/images/valid.jpg"], 3),
    roboflow_voc: (
        ["test/test_jpg.rf.0a1b.jpg", "train/train_jpg.rf.0a1b.jpg", "valid/valid_jpg.rf.0a1b.jpg"],
        3,
    ),
    cvat_coco: (["images/a.jpg", "images/sub/b.jpg"], 2),
    cvat_coco_subsets: (["images/Train/a.jpg", "images/Validation/a.jpg"], 2),
    cvat_yolo: (["obj_train_data/a.jpg", "obj_train_data/b.jpg"], 1),
    cvat_ultralytics: (["images/train/a.jpg", "images/train/b.jpg"], 1),
    cvat_voc: (["JPEGImages/a.jpg", "JPEGImages/sub/b.jpg"], 2),
    label_studio_coco: (["images/0a0a0a0a-b.jpg", "images/1f2e3d4c-a.jpg"], 2),
    label_studio_yolo: (["images/0a0a0a0a-b.jpg", "images/1f2e3d4c-a.jpg"], 2),
    label_studio_voc: (["images/1f2e3d4c-a.jpg"], 1),
    ultralytics: (["images/train2017/train2017.jpg", "images/val2017/val2017.jpg"], 2),
    ultralytics_folders: (["line1/images/line1.jpg", "line2/images/line2.jpg"], 2),
}


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: export.__name__)
def test_export_is_read_with_its_folder_as_labels_and_images(tmp_path: Path, export: Any) -> None:
    export(tmp_path)
    names, boxes = EXPORTS[export]
    read = read_annotations(tmp_path, tmp_path)
    assert sorted(image.name for image in read.images) == names
    labelled = [a for image in read.images for a in image.annotations]
    assert [(a.label, a.box.corners) for a in labelled] == [("short", pytest.approx(BOX))] * boxes
    assert set(read.classes) <= {"spur", "short"}
    assert read.account.entries == ()
    assert read.account.is_balanced
    assert (read.account.images_in, read.account.boxes_in) == (len(names), boxes)


@pytest.mark.parametrize(
    ("export", "images", "names"),
    [
        (roboflow_coco, "train", ["train_jpg.rf.0a1b.jpg"]),
        (roboflow_voc, "train", ["train_jpg.rf.0a1b.jpg"]),
        (roboflow_yolo, "train", ["images/train.jpg"]),
        (roboflow_yolo, "train/images", ["train.jpg"]),
    ],
)
def test_folder_of_one_split_is_read_alone(
    tmp_path: Path, export: Any, images: str, names: list[str]
) -> None:
    export(tmp_path)
    for labels in (tmp_path / "train", tmp_path):
        read = read_annotations(labels, tmp_path / images, ReadOptions(split=SplitChoice.TRAIN))
        assert [image.name for image in read.images] == names
        assert len(read.images[0].annotations) == 1


@pytest.mark.parametrize(
    "export", [cvat_coco, cvat_voc, label_studio_coco, label_studio_voc, label_studio_yolo]
)
def test_folder_of_images_may_be_the_one_in_the_export(tmp_path: Path, export: Any) -> None:
    export(tmp_path)
    images = tmp_path / ("JPEGImages" if export is cvat_voc else "images")
    read = read_annotations(tmp_path, images)
    existing = {p.relative_to(images).as_posix() for p in images.rglob("*.jpg")}
    assert {image.name for image in read.images} == existing


@pytest.mark.parametrize(
    ("export", "choice", "name"),
    [
        (roboflow_coco, SplitChoice.TRAIN, "train/train_jpg.rf.0a1b.jpg"),
        (roboflow_coco, SplitChoice.TEST, "test/test_jpg.rf.0a1b.jpg"),
        (roboflow_voc, SplitChoice.TEST, "test/test_jpg.rf.0a1b.jpg"),
        (roboflow_yolo, SplitChoice.TRAIN, "train/images/train.jpg"),
        (roboflow_yolo, SplitChoice.TEST, "test/images/test.jpg"),
        (cvat_coco_subsets, SplitChoice.TEST, "images/Validation/a.jpg"),
        (ultralytics, SplitChoice.TRAIN, "images/train2017/train2017.jpg"),
        (ultralytics, SplitChoice.TEST, "images/val2017/val2017.jpg"),
        (ultralytics_folders, SplitChoice.TEST, "line2/images/line2.jpg"),
    ],
)
def test_wanted_split_is_read_and_noted(tmp_path: Path, export: Any, choice: SplitChoice, name: str) -> None:
    export(tmp_path)
    read = read_annotations(tmp_path, tmp_path, ReadOptions(split=choice))
    assert [image.name for image in read.images] == [name]
    assert len(read.account.notes) >= 1


@pytest.mark.parametrize("export", [roboflow_coco, roboflow_yolo, roboflow_voc])
def test_labels_of_the_test_set_in_the_same_export_are_not_read(tmp_path: Path, export: Any) -> None:
    export(tmp_path)
    read = read_annotations(tmp_path, tmp_path, ReadOptions(without=tmp_path / "test"))
    assert {image.name.partition("/")[0] for image in read.images} == {"train", "valid"}


def test_split_of_image_sets_is_read(tmp_path: Path) -> None:
    cvat_voc(tmp_path)
    write(tmp_path / "ImageSets" / "Main" / "train.txt", "a\n")
    write(tmp_path / "ImageSets" / "Main" / "val.txt", "sub/b\n")
    read = read_annotations(tmp_path, tmp_path, ReadOptions(split=SplitChoice.TRAIN))
    assert [image.name for image in read.images] == ["JPEGImages/a.jpg"]


def test_missing_split_is_refused(tmp_path: Path) -> None:
    for split in ("val", "test"):
        write(tmp_path / f"{split}.json", coco("a.jpg"))
    with pytest.raises(FormatError, match=str(tmp_path)):
        read_annotations(tmp_path, tmp_path, ReadOptions(split=SplitChoice.TRAIN))


def test_yaml_file_may_be_given(tmp_path: Path) -> None:
    roboflow_yolo(tmp_path)
    assert len(read_annotations(tmp_path / "data.yaml", tmp_path).images) == 3


def test_listed_image_that_is_missing_is_left_out(tmp_path: Path) -> None:
    cvat_yolo(tmp_path)
    (tmp_path / "obj_train_data" / "b.jpg").unlink()
    read = read_annotations(tmp_path, tmp_path)
    assert [(e.image, e.reason) for e in read.account.entries] == [
        ("data/obj_train_data/b.jpg", Reason.NO_IMAGE)
    ]
    assert (read.account.images_in, read.account.images_taken) == (2, 1)


def test_labels_in_several_formats_are_noted(tmp_path: Path) -> None:
    cvat_coco(tmp_path)
    label_studio_voc(tmp_path)
    read = read_annotations(tmp_path, tmp_path)
    assert len(read.images) == 1
    assert len(read.account.notes) == 1


def test_caption_and_keypoint_files_of_coco_are_passed_over(tmp_path: Path) -> None:
    cvat_coco(tmp_path)
    for name in ("captions_default.json", "person_keypoints_default.json"):
        write(tmp_path / "annotations" / name, coco("a.jpg"))
    assert len(read_annotations(tmp_path, tmp_path).images) == 2
