"""YOLO reader: folder layouts, class lists, and lines that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from dsmoe_core.data import yolo
from dsmoe_core.data.annotation_set import AnnotationSet, ImageAnnotations
from dsmoe_core.errors import BoxError, FormatError

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


def test_labels_without_a_readable_image_are_noted(folder: Path) -> None:
    (folder / "labels" / "gone.txt").write_text("0 0.5 0.5 1 1\n")
    (folder / "labels" / "bad.txt").write_text("0 0.5 0.5 1 1\n")
    (folder / "images" / "bad.jpg").write_bytes(b"no image")
    read = yolo.read(folder, folder / "images")
    assert len(read.images) == 1
    assert len(read.notes) == 2
    assert all(any(name in note for note in read.notes) for name in ("gone.txt", "bad.txt"))


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("0 0.5 0.5 0.2", "4 columns"),
        ("0 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2", "9 columns"),
        ("spur 0.5 0.5 0.2 0.2", "'spur 0.5 0.5 0.2 0.2'"),
        ("2 0.5 0.5 0.2 0.2", "class 2"),
        ("-1 0.5 0.5 0.2 0.2", "class -1"),
    ],
)
def test_line_that_is_not_a_box_is_refused_and_named(folder: Path, line: str, named: str) -> None:
    (folder / "labels" / "a.txt").write_text(f"0 0.5 0.5 1 1\n{line}\n")
    with pytest.raises(FormatError, match=rf"a\.png, line 2 .*{named}"):
        yolo.read(folder, folder / "images")


@pytest.mark.parametrize("line", ["0 0.9 0.5 0.4 0.2", "0 0.5 0.5 0 0.2", "0 nan 0.5 0.1 0.2"])
def test_wrong_box_is_refused_and_its_line_is_named(folder: Path, line: str) -> None:
    (folder / "labels" / "a.txt").write_text(line)
    with pytest.raises(BoxError, match=r"a\.txt: image a\.png, line 1"):
        yolo.read(folder, folder / "images")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("nc: 2", "'names'"),
        ("names: {0: a, 2: b}", r"\[0, 2\]"),
        ("names: [a, a]", "'a'"),
        ("names: [yes, no]", r"\[True, False\]"),
        ("names: []", ""),
        ("names: [", "YAML"),
        ("!!python/object/apply:os.system ['true']", "YAML"),
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


def test_two_images_for_one_label_are_refused(folder: Path) -> None:
    draw_images(AnnotationSet(("x",), (ImageAnnotations("a.jpg", 4, 4, ()),)), folder / "images")
    with pytest.raises(FormatError, match=r"a\.txt .*a\.jpg .*a\.png"):
        yolo.read(folder, folder / "images")
