"""PASCAL VOC: round trip, hostile XML, and files that are no VOC."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings

from dsmoe_core.data import voc
from dsmoe_core.data.annotation_set import AnnotationSet, ImageAnnotations
from dsmoe_core.errors import BoxError, FormatError

from .conftest import Spec, assert_equal_sets, build, specs

GOOD = """<annotation><folder>x</folder><filename>a.png</filename>
<size><width>40</width><height>30</height><depth>3</depth></size>
<object><name>spur</name><difficult>1</difficult>
<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>11</xmax><ymax>22</ymax></bndbox></object></annotation>"""


@given(specs(least=1))
@settings(max_examples=40, deadline=None)
def test_round_trip(spec: Spec) -> None:
    annotations = build(spec)
    with TemporaryDirectory() as folder:
        voc.write(annotations, Path(folder) / "xml")
        read = voc.read(Path(folder) / "xml")
    assert_equal_sets(read, annotations)


def test_without_a_class_list_classes_are_alphabetical(tmp_path: Path, small_set: AnnotationSet) -> None:
    voc.write(small_set, tmp_path)
    (tmp_path / "classes.txt").unlink()
    assert voc.read(tmp_path).classes == ("short", "spur")


def test_finds_the_annotations_of_a_whole_voc_folder(tmp_path: Path) -> None:
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "a.xml").write_text(GOOD)
    read = voc.read(tmp_path)
    assert [p.name for p in read.images] == ["a.png"]
    assert read.images[0].annotations[0].box.corners == (1, 2, 11, 22)


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;&x;&x;&x;&x;">]>',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE annotation SYSTEM "http://127.0.0.1/x.dtd">',
    ],
)
def test_a_document_type_is_refused(tmp_path: Path, doctype: str) -> None:
    (tmp_path / "a.xml").write_text(doctype + GOOD.replace("spur", "&y;"))
    with pytest.raises(FormatError, match=r"a.xml: it declares a document type"):
        voc.read(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("annotation>", "image>", "expected <annotation> at the top"),
        ("</annotation>", "", "is not XML"),
        ("<filename>a.png</filename>", "", "lacks <filename>"),
        ("a.png", "../../a.png", "which leaves the folder"),
        ("<width>40</width>", "", "a.png lacks <size/width>"),
        ("<height>30</height>", "<height>tall</height>", "<size/height> 'tall'; expected a number"),
        ("<height>30</height>", "<height>0</height>", "has height 0.0"),
        ("<height>30</height>", "<height>inf</height>", "has height inf"),
        ("<name>spur</name>", "", "image a.png, object 1 lacks <name>"),
        ("<xmax>11</xmax>", "", "object 1 lacks <bndbox/xmax>"),
    ],
)
def test_what_is_no_voc_is_refused_by_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "a.xml").write_text(GOOD.replace(old, new))
    with pytest.raises(FormatError, match=message) as caught:
        voc.read(tmp_path)
    assert "a.xml" in str(caught.value)


def test_a_box_outside_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(GOOD.replace("<xmax>11", "<xmax>51"))
    with pytest.raises(BoxError, match=r"a.xml: image a.png, object 1: box .* lies outside .* 40x30"):
        voc.read(tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"has no .xml file"):
        voc.read(tmp_path)


def test_a_class_missing_from_the_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(GOOD)
    (tmp_path / "classes.txt").write_text("short\n")
    with pytest.raises(FormatError, match="lacks class 'spur'"):
        voc.read(tmp_path)


def test_two_files_for_one_image_are_refused(tmp_path: Path) -> None:
    for name in ("a.xml", "b.xml"):
        (tmp_path / name).write_text(GOOD)
    with pytest.raises(FormatError, match=r"image 'a.png' comes twice"):
        voc.read(tmp_path)


def test_names_that_differ_by_ending_only_are_not_written(tmp_path: Path) -> None:
    images = (ImageAnnotations("a.png", 1, 1, ()), ImageAnnotations("a.jpg", 1, 1, ()))
    with pytest.raises(FormatError, match=r"'a.xml' comes twice"):
        voc.write(AnnotationSet(("x",), images), tmp_path)
