"""PASCAL VOC reader: class lists, hostile XML, and files that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsmoe_core.data import voc
from dsmoe_core.data.annotation_set import AnnotationSet, ImageAnnotations
from dsmoe_core.errors import BoxError, FormatError

GOOD = """<annotation><folder>x</folder><filename>a.png</filename>
<size><width>40</width><height>30</height><depth>3</depth></size>
<object><name>spur</name><difficult>1</difficult>
<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>11</xmax><ymax>22</ymax></bndbox></object></annotation>"""


def test_classes_are_alphabetical_without_a_class_list(tmp_path: Path, small_set: AnnotationSet) -> None:
    voc.write(small_set, tmp_path)
    (tmp_path / "classes.txt").unlink()
    assert voc.read(tmp_path).classes == ("short", "spur")


def test_annotations_folder_of_a_voc_set_is_read(tmp_path: Path) -> None:
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "a.xml").write_text(GOOD)
    read = voc.read(tmp_path)
    assert [image.name for image in read.images] == ["a.png"]
    assert read.images[0].annotations[0].box.corners == (1, 2, 11, 22)


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;&x;&x;&x;&x;">]>',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE annotation SYSTEM "http://127.0.0.1/x.dtd">',
    ],
)
def test_document_type_declaration_is_refused(tmp_path: Path, doctype: str) -> None:
    (tmp_path / "a.xml").write_text(doctype + GOOD.replace("spur", "&y;"))
    with pytest.raises(FormatError, match=r"a\.xml"):
        voc.read(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("annotation>", "image>", ("<annotation>",)),
        ("</annotation>", "", ("XML",)),
        ("<filename>a.png</filename>", "", ("<filename>",)),
        ("a.png", "../../a.png", ("'../../a.png'",)),
        ("<width>40</width>", "", ("a.png", "<size/width>")),
        ("<height>30</height>", "<height>tall</height>", ("<size/height>", "'tall'")),
        ("<height>30</height>", "<height>0</height>", ("height 0.0",)),
        ("<height>30</height>", "<height>inf</height>", ("height inf",)),
        ("<name>spur</name>", "", ("image a.png, object 1", "<name>")),
        ("<xmax>11</xmax>", "", ("image a.png, object 1", "<bndbox/xmax>")),
    ],
)
def test_file_that_is_not_voc_is_refused_and_its_element_is_named(
    tmp_path: Path, old: str, new: str, named: tuple[str, ...]
) -> None:
    (tmp_path / "a.xml").write_text(GOOD.replace(old, new))
    with pytest.raises(FormatError) as caught:
        voc.read(tmp_path)
    assert [value for value in ("a.xml", *named) if value not in str(caught.value)] == []


def test_box_outside_its_image_is_refused_and_its_object_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(GOOD.replace("<xmax>11", "<xmax>51"))
    with pytest.raises(BoxError, match=r"a\.xml: image a\.png, object 1"):
        voc.read(tmp_path)


def test_folder_without_xml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=str(tmp_path)):
        voc.read(tmp_path)


def test_class_that_the_class_list_lacks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(GOOD)
    (tmp_path / "classes.txt").write_text("short\n")
    with pytest.raises(FormatError, match=r"classes\.txt .*'spur'"):
        voc.read(tmp_path)


def test_two_files_for_one_image_are_refused(tmp_path: Path) -> None:
    for name in ("a.xml", "b.xml"):
        (tmp_path / name).write_text(GOOD)
    with pytest.raises(FormatError, match=r"'a\.png'"):
        voc.read(tmp_path)


def test_names_that_differ_only_in_their_suffix_are_not_written(tmp_path: Path) -> None:
    images = (ImageAnnotations("a.png", 1, 1, ()), ImageAnnotations("a.jpg", 1, 1, ()))
    with pytest.raises(FormatError, match=r"'a\.xml'"):
        voc.write(AnnotationSet(("x",), images), tmp_path)
