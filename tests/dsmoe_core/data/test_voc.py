"""PASCAL VOC reader: class lists, hostile XML, and files that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from dsmoe_core.data import voc
from dsmoe_core.data.annotation_set import AnnotationSet, ImageAnnotations
from dsmoe_core.data.import_account import Action, Conversion, Reason
from dsmoe_core.data.label_source import ReadOptions
from dsmoe_core.errors import FormatError

BOX = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>11</xmax><ymax>22</ymax></bndbox>"
OBJECT = f"<object><name>spur</name><difficult>1</difficult>{BOX}</object>"
GOOD = f"""<annotation><folder>x</folder><filename>a.png</filename>
<size><width>40</width><height>30</height><depth>3</depth></size>
{OBJECT}</annotation>"""


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
def test_file_with_a_document_type_declaration_is_left_out(tmp_path: Path, doctype: str) -> None:
    (tmp_path / "a.xml").write_text(doctype + GOOD.replace("spur", "&y;"))
    (tmp_path / "b.xml").write_text(GOOD.replace("a.png", "b.png"))
    read = voc.read(tmp_path)
    assert [image.name for image in read.images] == ["b.png"]
    assert [(e.where, e.reason) for e in read.account.entries] == [("a.xml", Reason.UNREADABLE_LABELS)]


@pytest.mark.parametrize(
    ("old", "new", "reason", "boxes"),
    [
        ("annotation>", "image>", Reason.UNREADABLE_LABELS, 0),
        ("</annotation>", "", Reason.UNREADABLE_LABELS, 0),
        ("<filename>a.png</filename>", "", Reason.NO_NAME, 1),
        ("<width>40</width>", "", Reason.NO_SIZE, 1),
        ("<height>30</height>", "<height>tall</height>", Reason.NO_SIZE, 1),
        ("<height>30</height>", "<height>0</height>", Reason.NO_SIZE, 1),
        ("<height>30</height>", "<height>inf</height>", Reason.NO_SIZE, 1),
    ],
)
def test_file_that_cannot_be_used_is_left_out_with_its_objects(
    tmp_path: Path, old: str, new: str, reason: Reason, boxes: int
) -> None:
    (tmp_path / "a.xml").write_text(GOOD.replace(old, new))
    (tmp_path / "b.xml").write_text(GOOD.replace("a.png", "b.png"))
    read = voc.read(tmp_path)
    assert [image.name for image in read.images] == ["b.png"]
    assert [(e.where, e.reason, e.boxes) for e in read.account.entries] == [("a.xml", reason, boxes)]
    assert read.account.is_balanced


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("<name>spur</name>", "<name> </name>", Reason.BLANK_CLASS),
        ("<xmax>11</xmax>", "", Reason.NOT_NUMBERS),
        ("<xmax>11</xmax>", "<xmax>wide</xmax>", Reason.NOT_NUMBERS),
        ("<xmax>11</xmax>", "<xmax>1</xmax>", Reason.NO_AREA),
        ("<xmax>11</xmax>", "<xmax>nan</xmax>", Reason.NOT_FINITE),
        ("<xmin>1</xmin>", "<xmin>50</xmin>", Reason.OUTSIDE_IMAGE),
        ("bndbox>", "box>", Reason.NO_BOX),
    ],
)
def test_wrong_object_is_left_out_and_the_others_are_taken(
    tmp_path: Path, old: str, new: str, reason: Reason
) -> None:
    wrong = OBJECT.replace("<xmax>11", "<xmax>60") if reason is Reason.OUTSIDE_IMAGE else OBJECT
    (tmp_path / "a.xml").write_text(GOOD.replace("</annotation>", wrong.replace(old, new) + "</annotation>"))
    read = voc.read(tmp_path)
    assert [len(image.annotations) for image in read.images] == [1]
    assert [(e.where, e.reason) for e in read.account.entries] == [("a.xml, object 2", reason)]
    assert read.account.is_balanced


@pytest.mark.parametrize(
    ("old", "new", "corners", "conversions"),
    [
        ("<xmin>1</xmin>", "<xmin>1.25</xmin>", (1.25, 2, 11, 22), {}),
        (
            "<xmin>1</xmin><ymin>2</ymin><xmax>11<",
            "<xmin>11</xmin><ymin>2</ymin><xmax>1<",
            (1, 2, 11, 22),
            {Conversion.TURNED: 1},
        ),
        (
            BOX,
            "<polygon><x1>1</x1><y1>2</y1><x2>9</x2><y2>2</y2><x3>5</x3><y3>8</y3></polygon>",
            (1, 2, 9, 8),
            {Conversion.POLYGON: 1},
        ),
        (
            BOX,
            "<robndbox><cx>20</cx><cy>15</cy><w>8</w><h>4</h><angle>0</angle></robndbox>",
            (16, 13, 24, 17),
            {Conversion.ROTATED: 1},
        ),
    ],
)
def test_shapes_and_fractions_are_read(
    tmp_path: Path, old: str, new: str, corners: tuple[float, ...], conversions: dict[Conversion, int]
) -> None:
    (tmp_path / "a.xml").write_text(GOOD.replace(old, new))
    read = voc.read(tmp_path)
    assert read.images[0].annotations[0].box.corners == pytest.approx(corners)
    assert read.account.conversions == conversions


def test_object_over_the_edge_is_clipped_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(GOOD.replace("<xmax>11", "<xmax>51"))
    read = voc.read(tmp_path)
    assert read.images[0].annotations[0].box.corners == (1, 2, 40, 22)
    assert [(e.action, e.reason) for e in read.account.entries] == [(Action.CLIPPED, Reason.OVER_EDGE)]


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [
        ("utf-8", "utf-8-sig"),
        ("utf-16", "utf-16"),
        ("utf-16", "utf-8"),
        ("ISO-8859-1", "latin-1"),
        ("windows-1252", "cp1252"),
        ("gb2312", "utf-8-sig"),
        (None, "utf-16-le"),
        (None, "latin-1"),
    ],
)
def test_encodings_are_recognised(tmp_path: Path, declared: str | None, encoding: str) -> None:
    declaration = "" if declared is None else f'<?xml version="1.0" encoding="{declared}"?>\n'
    text = declaration + GOOD.replace("spur", "L\u00f6tbr\u00fccke")
    (tmp_path / "a.xml").write_bytes(text.encode(encoding))
    read = voc.read(tmp_path)
    assert read.images[0].annotations[0].label == "L\u00f6tbr\u00fccke"


def test_multi_byte_encoding_is_read(tmp_path: Path) -> None:
    text = '<?xml version="1.0" encoding="GBK"?>' + GOOD.replace("spur", "\u5212\u75d5")
    (tmp_path / "a.xml").write_bytes(text.encode("gbk"))
    assert voc.read(tmp_path).classes == ("\u5212\u75d5",)


def test_missing_size_comes_from_the_image_file(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    (tmp_path / "a.xml").write_text(GOOD.replace("<width>40</width>", ""))
    read = voc.read(tmp_path, tmp_path)
    assert (read.images[0].width, read.images[0].height) == (40, 30)


def test_name_of_the_file_comes_before_its_filename(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (40, 30)).save(tmp_path / name)
    for name in ("a.xml", "b.xml", "c.xml"):
        (tmp_path / name).write_text(GOOD.replace("a.png", "untitled.png"))
    read = voc.read(tmp_path, tmp_path)
    assert [image.name for image in read.images] == ["a.png", "b.png", "c.png"]


def test_folder_without_xml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=str(tmp_path)):
        voc.read(tmp_path)


def test_class_that_the_class_list_lacks_is_added_and_noted(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(GOOD)
    (tmp_path / "classes.txt").write_text("short\n")
    read = voc.read(tmp_path)
    assert read.classes == ("short", "spur")
    assert len(read.account.notes) == 1


def test_objects_with_a_score_are_refused_unless_they_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(GOOD.replace("<name>", "<confidence>0.8</confidence><name>"))
    with pytest.raises(FormatError, match=r"a\.xml, object 1"):
        voc.read(tmp_path)
    assert len(voc.read(tmp_path, None, ReadOptions(accept_predictions=True)).images) == 1


def test_names_that_differ_only_in_their_suffix_are_not_written(tmp_path: Path) -> None:
    images = (ImageAnnotations("a.png", 1, 1, ()), ImageAnnotations("a.jpg", 1, 1, ()))
    with pytest.raises(FormatError, match=r"'a\.xml'"):
        voc.write(AnnotationSet(("x",), images), tmp_path)
