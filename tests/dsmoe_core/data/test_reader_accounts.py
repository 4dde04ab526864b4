"""Every reader accounts for each image and box: in = taken + clipped + left out, for random entries."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.sax.saxutils import escape

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dsmoe_core.data import coco, voc, yolo
from dsmoe_core.data.annotation_set import AnnotationSet
from dsmoe_core.data.import_account import Action, ImportAccount, Kind, LeftOutImage, Reason, Unlabelled
from dsmoe_core.data.label_source import ReadOptions

SIZE = (40, 30)
NUMBERS = st.one_of(
    st.integers(-50, 90),
    st.floats(-50, 90, width=16),
    st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e300, 10**400, 0]),
)
TEXTS = st.sampled_from(["", " ", "7", "x", "nan", "1e3", "-1"])
VALUES = st.one_of(NUMBERS, TEXTS, st.none(), st.booleans())
NAMES = st.sampled_from(["a.png", "b.png", "sub/a.png", "gone.png", "..", "", "/etc/a.png", "a\nb.png"])
LENIENT = ReadOptions(accept_predictions=True)


def assert_accounted(read: AnnotationSet, images: int, boxes: int) -> None:
    account = read.account
    assert (account.images_in, account.boxes_in) == (images, boxes)
    assert account.is_balanced
    assert account.images_taken == len(read.images)
    assert account.boxes_taken + account.boxes_clipped == sum(len(i.annotations) for i in read.images)
    for unlabelled in Unlabelled:
        decided = read.counting_unlabelled(unlabelled)
        assert decided.account.is_balanced
        assert decided.account.images_taken == len(decided.images)
    assert ImportAccount.from_dict(json.loads(json.dumps(account.to_dict()))) == account
    dropped = [LeftOutImage(i.name, len(i.annotations), Reason.NO_IMAGE) for i in read.images[::2]]
    assert account.without_images(dropped).is_balanced
    for image in read.images:
        assert all(a.box.inside(image.width, image.height, tolerance=0) for a in image.annotations)


def draw_images(folder: Path) -> None:
    (folder / "sub").mkdir()
    for name in ("a.png", "b.png", "sub/a.png"):
        Image.new("RGB", SIZE).save(folder / name)
    (folder / "broken.png").write_bytes(b"no image")


BOXES = st.one_of(
    st.lists(NUMBERS, min_size=4, max_size=4),
    st.lists(VALUES, max_size=5),
    st.none(),
    TEXTS,
)
SHAPES = st.one_of(
    st.lists(st.lists(NUMBERS, max_size=8), max_size=3),
    st.lists(VALUES, max_size=8),
    st.fixed_dictionaries(
        {
            "size": st.sampled_from([[30, 40], [40, 30], [0, 0], None]),
            "counts": st.one_of(
                st.lists(st.integers(-5, 1200), max_size=5),
                st.lists(VALUES, max_size=3),
                st.sampled_from(["f98f00ni0", "", "~~~", "\u00e9", "[1]"]),
                st.none(),
            ),
        }
    ),
    st.none(),
)
IDS = st.one_of(st.integers(0, 4), st.sampled_from(["0", "1", 2.0, None, True, "x", 1.5, [1]]))


def optional(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """Objects with any of these keys, or something that is not an object."""
    return st.one_of(st.fixed_dictionaries({}, optional=fields), st.fixed_dictionaries(fields), VALUES)


COCO_IMAGES = optional({"id": IDS, "file_name": NAMES, "width": VALUES | st.just(40), "height": st.just(30)})
COCO_BOXES = optional(
    {"id": IDS, "image_id": IDS, "category_id": IDS, "bbox": BOXES, "segmentation": SHAPES, "iscrowd": IDS}
)


@given(st.lists(COCO_IMAGES, max_size=6), st.lists(COCO_BOXES, max_size=8))
@settings(max_examples=120, deadline=None)
def test_coco_reader_accounts_for_everything(images: list[Any], boxes: list[Any]) -> None:
    categories = [{"id": 0, "name": "spur"}, {"id": "1", "name": "short"}, {"id": 2, "name": " "}, 7]
    content = {"images": images, "annotations": boxes, "categories": categories}
    with TemporaryDirectory() as folder:
        draw_images(Path(folder))
        path = Path(folder) / "labels.json"
        path.write_text(json.dumps(content))
        assert_accounted(coco.read(path, Path(folder), LENIENT), len(images), len(boxes))


ROWS = st.lists(st.one_of(NUMBERS, TEXTS), max_size=9).map(lambda row: " ".join(map(str, row)))
FRACTIONS = st.lists(st.floats(-0.5, 1.5), min_size=4, max_size=4)
GOOD_ROWS = st.tuples(st.integers(-1, 4), FRACTIONS).map(lambda r: " ".join(map(str, (r[0], *r[1]))))
LABEL_NAMES = st.sampled_from(["a", "b", "sub/a", "gone", "broken", "sub/gone"])


@given(st.dictionaries(LABEL_NAMES, st.lists(ROWS | GOOD_ROWS, max_size=5), min_size=1))
@settings(max_examples=120, deadline=None)
def test_yolo_reader_accounts_for_everything(files: dict[str, list[str]]) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        draw_images(folder / "images")
        (folder / "classes.txt").write_text("spur\n\nshort\n")
        for stem, rows in files.items():
            path = folder / "labels" / f"{stem}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(rows))
        read = yolo.read(folder, folder / "images", LENIENT)
        rows = [row for rows in files.values() for row in rows if row.strip()]
        assert_accounted(read, len(files), len(rows))


SIDES = ("xmin", "ymin", "xmax", "ymax")


def xml_object(label: str | None, values: list[Any]) -> str:
    sides = "".join(f"<{s}>{escape(str(v))}</{s}>" for s, v in zip(SIDES, values, strict=False))
    name = "" if label is None else f"<name>{label}</name>"
    return f"<object>{name}<bndbox>{sides}</bndbox></object>"


OBJECTS = st.builds(
    xml_object, st.sampled_from(["spur", "short", " ", None]), st.lists(VALUES | NUMBERS, max_size=4)
)
FILES = st.tuples(NAMES, VALUES | st.just(40), st.lists(OBJECTS, max_size=5), st.integers(0, 9))


@given(st.dictionaries(LABEL_NAMES, FILES, min_size=1))
@settings(max_examples=120, deadline=None)
def test_voc_reader_accounts_for_everything(files: dict[str, Any]) -> None:
    boxes = 0
    with TemporaryDirectory() as name:
        folder = Path(name)
        draw_images(folder)
        for stem, (filename, width, objects, fault) in files.items():
            size = f"<size><width>{width}</width><height>30</height></size>"
            text = f"<annotation><filename>{escape(filename)}</filename>{size}{''.join(objects)}</annotation>"
            (folder / f"{stem}.xml").write_text(text[:-5] if fault == 0 else text)
            boxes += 0 if fault == 0 else len(objects)
        assert_accounted(voc.read(folder, folder, LENIENT), len(files), boxes)


def test_entries_are_named_with_their_place() -> None:
    account = ImportAccount(images_in=3, boxes_in=5, images_taken=3, boxes_taken=5)
    left_out = account.without_images([LeftOutImage("a.png", 2, Reason.NO_IMAGE)])
    assert left_out.by_reason() == {(Kind.IMAGE, Action.LEFT_OUT, Reason.NO_IMAGE): 1}
    assert (left_out.images_taken, left_out.boxes_taken, left_out.boxes_left_out) == (2, 3, 2)
