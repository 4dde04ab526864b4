"""Registry of the label formats."""

from __future__ import annotations

import csv
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from PIL import Image

from dsmoe_core.data import formats
from dsmoe_core.data.annotation_set import AnnotationSet, ImageAnnotations
from dsmoe_core.data.decode import upright_size
from dsmoe_core.data.formats import LABEL_FORMATS, LabelFormat, read_annotations
from dsmoe_core.data.image_folder import image_files
from dsmoe_core.data.label_source import ReadOptions
from dsmoe_core.errors import FormatError
from dsmoe_core.schema import Annotation, Box

from .conftest import Spec, assert_equal_sets, build, draw_images, specs

each_format = pytest.mark.parametrize("label_format", LABEL_FORMATS, ids=lambda f: f.name)


def labels_path(folder: Path, label_format: LabelFormat) -> Path:
    return folder / "train.json" if label_format.name == "coco" else folder / "labelled"


@each_format
@given(spec=specs(min_images=1))
@settings(max_examples=25, deadline=None)
def test_what_a_format_writes_is_recognised_and_read(label_format: LabelFormat, spec: Spec) -> None:
    annotations = build(spec)
    with TemporaryDirectory() as folder:
        path = labels_path(Path(folder), label_format)
        draw_images(annotations, Path(folder) / "images")
        label_format.write(annotations, path)
        read = read_annotations(path, Path(folder) / "images")
    assert_equal_sets(read, annotations)
    assert not read.account.notes
    assert read.account.is_balanced
    assert not read.account.entries


@each_format
def test_files_of_each_format_have_its_suffix(
    tmp_path: Path, small_set: AnnotationSet, label_format: LabelFormat
) -> None:
    path = labels_path(tmp_path, label_format)
    label_format.write(small_set, path)
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.stem in ("a", "b")]
    assert files
    assert {p.suffix for p in files} == set(label_format.suffixes)


def test_path_without_annotations_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone"):
        with pytest.raises(FormatError, match=str(path)):
            read_annotations(path, tmp_path)


def read_csv(path: Path, images: Path, options: ReadOptions) -> AnnotationSet:
    """Rows of image name, class and corners."""
    entries = []
    with path.open(newline="") as file:
        for name, label, *corners in csv.reader(file):
            box = Box(*(float(corner) for corner in corners))
            entries.append(ImageAnnotations(name, *upright_size(images / name), (Annotation(box, label),)))
    return AnnotationSet(tuple({e.annotations[0].label for e in entries}), tuple(entries))


def write_csv(annotations: AnnotationSet, path: Path) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            (image.name, a.label, *a.box.corners) for image in annotations.images for a in image.annotations
        )


def test_one_more_entry_is_enough_for_a_new_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = LabelFormat(
        "csv", "a CSV file", (".csv",), lambda path: path.suffix == ".csv", read_csv, write_csv
    )
    annotations = AnnotationSet(
        ("spur",), (ImageAnnotations("a.png", 30, 20, (Annotation(Box(1, 2, 11, 12), "spur"),)),)
    )
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    entry.write(annotations, tmp_path / "a.csv")
    with pytest.raises(FormatError):
        read_annotations(tmp_path / "a.csv", tmp_path)
    monkeypatch.setattr(formats, "LABEL_FORMATS", (entry, *LABEL_FORMATS))
    assert_equal_sets(read_annotations(tmp_path / "a.csv", tmp_path), annotations)
    assert [path.name for path in image_files(tmp_path)] == ["a.png"]
