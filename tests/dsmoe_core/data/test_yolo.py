"""YOLO folders: round trip with images on disk, layouts, and lines that are no boxes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from PIL import Image

from dsmoe_core.data import yolo
from dsmoe_core.data.annotation_set import AnnotationSet, ImageAnnotations
from dsmoe_core.errors import BoxError, FormatError

from .conftest import Spec, assert_equal_sets, build, draw_images, specs


@given(specs(least=1))
@settings(max_examples=25, deadline=None)
def test_round_trip(spec: Spec) -> None:
    annotations = build(spec)
    with TemporaryDirectory() as folder:
        root = Path(folder)
        draw_images(annotations, root / "images")
        yolo.write(annotations, root)
        read = yolo.read(root, root / "images")
    assert_equal_sets(read, annotations)
    assert not read.notes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One image, one label, two classes."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    Image.new("RGB", (40, 20)).save(tmp_path / "images" / "a.png")
    (tmp_path / "labels" / "a.txt").write_text("1 0.5 0.5 0.25 0.5\n\n")
    (tmp_path / "data.yaml").write_text("names: [spur, short]\n")
    return tmp_path


def test_shares_become_pixels(folder: Path) -> None:
    (image,) = yolo.read(folder, folder / "images").images
    assert (image.name, image.width, image.height) == ("a.png", 40, 20)
    assert image.annotations[0].label == "short"
    assert image.annotations[0].box.corners == (15, 5, 25, 15)


def test_shares_count_in_the_upright_image(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(folder / "images" / "a.jpg", exif=exif)
    (folder / "images" / "a.png").unlink()
    (image,) = yolo.read(folder, folder / "images").images
    assert (image.width, image.height) == (20, 40)
    assert image.annotations[0].box.corners == (7.5, 10, 12.5, 30)


@pytest.mark.parametrize("names", ["names: {0: spur, 1: short}", "names:\n- spur\n- short\nnc: 2"])
def test_names_as_list_or_numbered(folder: Path, names: str) -> None:
    (folder / "data.yaml").write_text(names)
    assert yolo.read(folder, folder / "images").classes == ("spur", "short")


@pytest.mark.parametrize("place", ["classes.txt", "labels/classes.txt"])
def test_class_list_in_a_text_file(folder: Path, place: str) -> None:
    (folder / "data.yaml").unlink()
    (folder / place).write_text("spur\r\nshort\n")
    read = yolo.read(folder, folder / "images")
    assert (read.classes, len(read.images)) == (("spur", "short"), 1)


def test_labels_beside_the_images(tmp_path: Path, small_set: AnnotationSet) -> None:
    draw_images(small_set, tmp_path)
    (tmp_path / "classes.txt").write_text("spur\nshort\n")
    (tmp_path / "a.txt").write_text("0 0.5 0.5 1 1\n")
    assert [p.name for p in yolo.read(tmp_path, tmp_path).images] == ["a.png"]


def test_a_part_of_the_images_finds_its_part_of_the_labels(folder: Path) -> None:
    for kind in ("train", "val"):
        (folder / "images" / kind).mkdir()
        (folder / "labels" / kind).mkdir()
        Image.new("RGB", (10, 10)).save(folder / "images" / kind / "a.png")
        (folder / "labels" / kind / "a.txt").write_text("0 0.5 0.5 1 1\n" if kind == "val" else "")
    (image,) = yolo.read(folder, folder / "images" / "val").images
    assert (image.name, len(image.annotations)) == ("a.png", 1)


def test_no_label_is_not_labelled_and_an_empty_one_is_free_of_defects(folder: Path) -> None:
    for name in ("b.png", "c.png"):
        Image.new("RGB", (40, 20)).save(folder / "images" / name)
    (folder / "labels" / "b.txt").write_text("")
    read = {p.name: len(p.annotations) for p in yolo.read(folder, folder / "images").images}
    assert read == {"a.png": 1, "b.png": 0}


def test_labels_without_a_readable_image_are_noted(folder: Path) -> None:
    (folder / "labels" / "gone.txt").write_text("0 0.5 0.5 1 1\n")
    (folder / "labels" / "bad.txt").write_text("0 0.5 0.5 1 1\n")
    (folder / "images" / "bad.jpg").write_bytes(b"no image")
    read = yolo.read(folder, folder / "images")
    assert len(read.images) == 1
    assert any("gone.txt left out: it has no image" in note for note in read.notes)
    assert any("bad.txt left out: its image cannot be read" in note for note in read.notes)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.2", r"a.png, line 2 has 4 columns; expected 5"),
        ("0 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2", "has 9 columns"),
        ("spur 0.5 0.5 0.2 0.2", "expected numbers"),
        ("2 0.5 0.5 0.2 0.2", "has class 2; known are 0 to 1"),
        ("-1 0.5 0.5 0.2 0.2", "has class -1"),
    ],
)
def test_a_line_that_is_no_box_is_named(folder: Path, line: str, message: str) -> None:
    (folder / "labels" / "a.txt").write_text(f"0 0.5 0.5 1 1\n{line}\n")
    with pytest.raises(FormatError, match=message):
        yolo.read(folder, folder / "images")


@pytest.mark.parametrize("line", ["0 0.9 0.5 0.4 0.2", "0 0.5 0.5 0 0.2", "0 nan 0.5 0.1 0.2"])
def test_a_wrong_box_is_named(folder: Path, line: str) -> None:
    (folder / "labels" / "a.txt").write_text(line)
    with pytest.raises(BoxError, match=r"a.txt: image a.png, line 1: box"):
        yolo.read(folder, folder / "images")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nc: 2", "lacks the key 'names'"),
        ("names: {0: a, 2: b}", "expected 0, 1, 2"),
        ("names: [a, a]", "class 'a' comes twice"),
        ("names: [yes, no]", "expected a list of texts"),
        ("names: []", "names no class"),
        ("names: [", "is not YAML"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_wrong_class_names_are_refused(folder: Path, text: str, message: str) -> None:
    (folder / "data.yaml").write_text(text)
    with pytest.raises(FormatError, match=message):
        yolo.read(folder, folder / "images")


def test_a_folder_without_class_names_or_labels_is_refused(folder: Path) -> None:
    (folder / "labels" / "a.txt").unlink()
    with pytest.raises(FormatError, match="has no label file for any image"):
        yolo.read(folder, folder / "images")
    (folder / "data.yaml").unlink()
    with pytest.raises(FormatError, match=r"neither data.yaml nor classes.txt"):
        yolo.read(folder, folder / "images")


def test_two_images_for_one_label_are_refused(
    folder: Path, draw: Callable[[AnnotationSet, Path], None]
) -> None:
    draw(AnnotationSet(("x",), (ImageAnnotations("a.jpg", 4, 4, ()),)), folder / "images")
    with pytest.raises(FormatError, match=r"fits a.jpg and a.png"):
        yolo.read(folder, folder / "images")
