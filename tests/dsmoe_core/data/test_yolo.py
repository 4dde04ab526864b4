"""YOLO reader: folder layouts, class lists, and rows that are left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from dsmoe_core.data import yolo
from dsmoe_core.data.annotation_set import AnnotationSet, ImageAnnotations
from dsmoe_core.data.import_account import Reason
from dsmoe_core.data.label_source import ReadOptions
from dsmoe_core.errors import FormatError

from .conftest import draw_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One image, one label, two classes."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    Image.new("RGB", (40, 20)).save(tmp_path / "images" / "a.png")
    (tmp_path / "labels" / "a.txt").write_text("1 0.5 0.5 0.25 0.5\n\n")
    (tmp_path / "data.yaml").write_text("names: [spur, short]\n")
    return tmp_path


def test_fractions_become_pixels(folder: Path) -> None:
    (image,) = yolo.read(folder, folder / "images").images
    assert (image.name, image.width, image.height) == ("a.png", 40, 20)
    assert image.annotations[0].label == "short"
    assert image.annotations[0].box.corners == (15, 5, 25, 15)


def test_fractions_refer_to_the_upright_image(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(folder / "images" / "a.jpg", exif=exif)
    (folder / "images" / "a.png").unlink()
    (image,) = yolo.read(folder, folder / "images").images
    assert (image.width, image.height) == (20, 40)
    assert image.annotations[0].box.corners == (7.5, 10, 12.5, 30)


@pytest.mark.parametrize("names", ["names: {0: spur, 1: short}", "names:\n- spur\n- short\nnc: 2"])
def test_class_names_may_be_a_list_or_numbered(folder: Path, names: str) -> None:
    (folder / "data.yaml").write_text(names)
    assert yolo.read(folder, folder / "images").classes == ("spur", "short")


@pytest.mark.parametrize("name", ["classes.txt", "labels/classes.txt"])
def test_class_names_are_read_from_a_text_file(folder: Path, name: str) -> None:
    (folder / "data.yaml").unlink()
    (folder / name).write_text("spur\r\nshort\n")
    read = yolo.read(folder, folder / "images")
    assert (read.classes, len(read.images)) == (("spur", "short"), 1)


def test_labels_may_be_in_the_folder_of_the_images(tmp_path: Path, small_set: AnnotationSet) -> None:
    draw_images(small_set, tmp_path)
    (tmp_path / "classes.txt").write_text("spur\nshort\n")
    (tmp_path / "a.txt").write_text("0 0.5 0.5 1 1\n")
    assert [image.name for image in yolo.read(tmp_path, tmp_path).images] == ["a.png"]


def test_sub_folder_of_images_is_read_with_its_sub_folder_of_labels(folder: Path) -> None:
    for kind in ("train", "val"):
        (folder / "images" / kind).mkdir()
        (folder / "labels" / kind).mkdir()
        Image.new("RGB", (10, 10)).save(folder / "images" / kind / "a.png")
        (folder / "labels" / kind / "a.txt").write_text("0 0.5 0.5 1 1\n" if kind == "val" else "")
    (image,) = yolo.read(folder, folder / "images" / "val").images
    assert (image.name, len(image.annotations)) == ("a.png", 1)


def test_image_without_label_file_is_unlabelled_and_an_empty_file_means_no_defect(folder: Path) -> None:
    for name in ("b.png", "c.png"):
        Image.new("RGB", (40, 20)).save(folder / "images" / name)
    (folder / "labels" / "b.txt").write_text("")
    read = {image.name: len(image.annotations) for image in yolo.read(folder, folder / "images").images}
    assert read == {"a.png": 1, "b.png": 0}


def test_label_files_without_a_readable_image_are_left_out_with_their_rows(folder: Path) -> None:
    (folder / "labels" / "gone.txt").write_text("0 0.5 0.5 1 1\n\n1 0.5 0.5 1 1\n")
    (folder / "labels" / "bad.txt").write_text("0 0.5 0.5 1 1\n")
    (folder / "images" / "bad.jpg").write_bytes(b"no image")
    read = yolo.read(folder, folder / "images")
    assert len(read.images) == 1
    assert [(e.image, e.reason, e.boxes) for e in read.account.entries] == [
        ("bad.jpg", Reason.UNREADABLE_IMAGE, 1),
        ("gone", Reason.NO_IMAGE, 2),
    ]
    assert read.account.is_balanced


def test_label_file_that_fits_two_images_is_left_out(folder: Path) -> None:
    draw_images(AnnotationSet(("x",), (ImageAnnotations("a.jpg", 4, 4, ()),)), folder / "images")
    read = yolo.read(folder, folder / "images")
    assert [(e.reason, e.boxes) for e in read.account.entries] == [(Reason.AMBIGUOUS_IMAGE, 1)]
    assert read.account.is_balanced


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("0 0.5 0.5 0.2", Reason.WRONG_COLUMNS),
        ("0 0.1 0.1 0.2 0.1 0.2 0.2 0.1", Reason.WRONG_COLUMNS),
        ("spur 0.5 0.5 0.2 0.2", Reason.NOT_NUMBERS),
        ("0.5 0.5 0.5 0.2 0.2", Reason.NOT_NUMBERS),
        ("0 0,5 0,5 0,2 0,2", Reason.NOT_NUMBERS),
        ("nan 0.5 0.5 0.2 0.2", Reason.NOT_NUMBERS),
        ("2 0.5 0.5 0.2 0.2", Reason.UNKNOWN_CLASS),
        ("-1 0.5 0.5 0.2 0.2", Reason.UNKNOWN_CLASS),
        ("0 20 10 8 4", Reason.NOT_FRACTIONS),
        ("0 1.5 0.5 0.2 0.2", Reason.OUTSIDE_IMAGE),
        ("0 0.5 0.5 0 0.2", Reason.NO_AREA),
        ("0 nan 0.5 0.1 0.2", Reason.NOT_FINITE),
        ("0 0.5 0.5 inf 0.2", Reason.NOT_FINITE),
        ("0 0.1 nan 0.2 0.1 0.2 0.2", Reason.NOT_FINITE),
    ],
)
def test_wrong_row_is_left_out_and_the_others_are_taken(folder: Path, row: str, reason: Reason) -> None:
    (folder / "labels" / "a.txt").write_text(f"0 0.5 0.5 1 1\n{row}\n")
    read = yolo.read(folder, folder / "images")
    assert [len(image.annotations) for image in read.images] == [1]
    assert [(e.reason, e.where) for e in read.account.entries] == [(reason, "labels/a.txt, line 2")]
    assert read.account.is_balanced


@pytest.mark.parametrize(
    ("row", "corners", "entries"),
    [
        ("0 0.9 0.5 0.4 0.2", (28, 8, 40, 12), 1),
        ("0 0.5 0.5 1.0 1.0", (0, 0, 40, 20), 0),
        ("0,0.5,0.5,0.25,0.5", (15, 5, 25, 15), 0),
        ("0.0 0.5 0.5 0.25 0.5", (15, 5, 25, 15), 0),
        ("0 0.1 0.1 0.3 0.1 0.3 0.4 0.1 0.4", (4, 2, 12, 8), 0),
        ("0 0.1 0.1 0.3 0.1 0.2 0.5", (4, 2, 12, 10), 0),
    ],
)
def test_row_is_read_as_box_or_polygon(
    folder: Path, row: str, corners: tuple[float, ...], entries: int
) -> None:
    (folder / "labels" / "a.txt").write_text(row)
    read = yolo.read(folder, folder / "images")
    assert read.images[0].annotations[0].box.corners == pytest.approx(corners)
    assert len(read.account.entries) == entries


def test_row_with_key_points_is_read_as_its_box(folder: Path) -> None:
    (folder / "data.yaml").write_text("names: [spur, short]\nkpt_shape: [2, 2]")
    (folder / "labels" / "a.txt").write_text("0 0.5 0.5 0.25 0.5 0.1 0.1 0.9 0.9")
    (image,) = yolo.read(folder, folder / "images").images
    assert image.annotations[0].box.corners == (15, 5, 25, 15)


def test_rows_with_a_score_are_refused_unless_they_are_accepted(folder: Path) -> None:
    (folder / "labels" / "a.txt").write_text("0 0.5 0.5 0.25 0.5 0.87")
    with pytest.raises(FormatError, match=r"a\.txt, line 1"):
        yolo.read(folder, folder / "images")
    read = yolo.read(folder, folder / "images", ReadOptions(accept_predictions=True))
    assert len(read.images[0].annotations) == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_encodings_of_label_files_are_recognised(folder: Path, encoding: str) -> None:
    (folder / "labels" / "a.txt").write_bytes("1 0.5 0.5 0.25 0.5\r\n".encode(encoding))
    assert len(yolo.read(folder, folder / "images").images[0].annotations) == 1


@pytest.mark.parametrize(
    ("name", "content", "classes", "label"),
    [
        ("classes.txt", "short\n\nspur\n", ("short", "spur"), "spur"),
        ("classes.txt", "short\n\nspur\nmousebite\n", ("short", "spur", "mousebite"), "spur"),
        (
            "classes.txt",
            "\ufeffa\nb\nL\u00f6tbr\u00fccke\n\n\n",
            ("a", "b", "L\u00f6tbr\u00fccke"),
            "L\u00f6tbr\u00fccke",
        ),
        ("data.yaml", "names: [short, '', spur, mousebite]", ("short", "spur", "mousebite"), "spur"),
        ("data.yaml", "names: [short, ~, spur]", ("short", "spur"), "spur"),
        ("data.yaml", "names: {0: short, 2: spur}", ("short", "spur"), "spur"),
        ("data.yaml", "names: {2: spur, 0: short}", ("short", "spur"), "spur"),
        ("data.yaml", "names: {1: short, 2: spur}", ("short", "spur"), "spur"),
        ("data.yaml", "names: {'0': short, '1': a, '2': spur}", ("short", "a", "spur"), "spur"),
        ("data.yaml", "names: [no, yes, 0.5]", ("no", "yes", "0.5"), "0.5"),
        ("data.yaml", "\ufeffnames: [a, b, c]", ("a", "b", "c"), "c"),
        ("obj.names", "short\n\nspur\n", ("short", "spur"), "spur"),
        ("coco128.yaml", "names:\n  0: a\n  2: c", ("a", "c"), "c"),
    ],
)
def test_class_keeps_its_number(
    folder: Path, name: str, content: str, classes: tuple[str, ...], label: str
) -> None:
    (folder / "data.yaml").unlink()
    (folder / name).write_text(content, encoding="utf-8")
    (folder / "labels" / "a.txt").write_text("2 0.5 0.5 0.25 0.5\n")
    read = yolo.read(folder, folder / "images")
    assert read.classes == classes
    assert [a.label for a in read.images[0].annotations] == [label]


@pytest.mark.parametrize(("row", "reason"), [("1", Reason.BLANK_CLASS), ("3", Reason.UNKNOWN_CLASS)])
def test_box_of_a_blank_or_missing_class_is_left_out(folder: Path, row: str, reason: Reason) -> None:
    (folder / "data.yaml").write_text("names: [short, '', spur]")
    (folder / "labels" / "a.txt").write_text(f"0 0.5 0.5 1 1\n{row} 0.5 0.5 0.25 0.5\n")
    read = yolo.read(folder, folder / "images")
    assert [a.label for a in read.images[0].annotations] == ["short"]
    assert [e.reason for e in read.account.entries] == [reason]


def test_class_list_in_windows_1252_is_read(folder: Path) -> None:
    (folder / "data.yaml").write_bytes("names: [L\u00f6tbr\u00fccke, spur]".encode("cp1252"))
    assert yolo.read(folder, folder / "images").classes == ("L\u00f6tbr\u00fccke", "spur")


def test_class_lists_that_differ_are_refused(folder: Path) -> None:
    (folder / "classes.txt").write_text("short\nspur\n")
    with pytest.raises(FormatError, match=r"data\.yaml.*classes\.txt"):
        yolo.read(folder, folder / "images")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("nc: 2", "'names'"),
        ("names: {a: 0, b: 1}", "'a'"),
        ("names: [a, a]", "'a'"),
        ("names: [[a], b]", "'a'"),
        ("names: []", ""),
        ("names: ['', ~]", ""),
        ("names: [", "YAML"),
        ("!!python/object/apply:os.system ['true']", "'names'"),
    ],
)
def test_wrong_class_names_are_refused(folder: Path, text: str, named: str) -> None:
    (folder / "data.yaml").write_text(text)
    with pytest.raises(FormatError, match=rf"data\.yaml.*{named}"):
        yolo.read(folder, folder / "images")


def test_folder_without_class_names_or_labels_is_refused(folder: Path) -> None:
    (folder / "labels" / "a.txt").unlink()
    with pytest.raises(FormatError, match=str(folder)):
        yolo.read(folder, folder / "images")
    (folder / "data.yaml").unlink()
    with pytest.raises(FormatError, match=r"data\.yaml .*classes\.txt"):
        yolo.read(folder, folder / "images")
