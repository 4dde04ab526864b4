"""Reader and writer of PASCAL VOC: a folder with one XML file per image, as LabelImg and CVAT write them.

Corners are pixel coordinates that count from 0, as current tools write them; the 2007 challenge counted from
1, a difference of one pixel. Document type declarations are refused, since entities could expand without
limit.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path, PurePosixPath

from dsmoe_core.data.annotation_set import (
    AnnotationSet,
    ImageAnnotations,
    checked_box,
    checked_name,
    checked_size,
    refuse_duplicates,
)
from dsmoe_core.errors import FormatError
from dsmoe_core.schema import Annotation

_REMEDY = "Give a folder of PASCAL VOC files: <annotation> with <filename>, <size> and <object>s."
_CLASSES = "classes.txt"


def read(folder: Path) -> AnnotationSet:
    """Read all ``*.xml`` files of a folder and its sub-folders, or of its ``Annotations`` folder.

    The name of an image is the XML file's sub-folder followed by its ``<filename>``. Classes come from
    ``classes.txt`` if it exists, otherwise from the annotations in alphabetical order.

    Raises:
        FormatError: there is no XML file, or one is not in VOC format; names the file and the missing
            element.
        BoxError: a box is wrong; names file, image and object.
    """
    root = folder / "Annotations" if (folder / "Annotations").is_dir() else folder
    files = sorted(root.rglob("*.xml"))
    if not files:
        raise FormatError(f"{folder} has no .xml file; expected PASCAL VOC annotations", _REMEDY)
    images = tuple(_read_one(path, root) for path in files)
    refuse_duplicates((p.name for p in images), "image", folder)
    used = {a.label for p in images for a in p.annotations}
    return AnnotationSet(_classes(root, used), images)


class _NoDoctype(ET.TreeBuilder):
    """Tree builder that stops at a document type declaration, before any entity is declared."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:  # noqa: ARG002
        raise FormatError(
            f"it declares a document type ({name}), which is not safe to expand", "Remove <!DOCTYPE>."
        )


def _parse(path: Path) -> ET.Element:
    try:
        parser = ET.XMLParser(target=_NoDoctype())  # noqa: S314 - refuses DOCTYPE, so no entity to expand
        parser.feed(path.read_bytes())
        root = parser.close()
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}", "Check the file.") from None
    except ET.ParseError as error:
        raise FormatError(f"{path} is not XML: {error}", _REMEDY) from None
    except FormatError as error:
        raise FormatError(f"{path}: {error.problem}", error.remedy) from None
    if not isinstance(root, ET.Element) or root.tag != "annotation":
        raise FormatError(f"{path} is not a VOC file: expected <annotation> as its root", _REMEDY)
    return root


def _read_one(path: Path, root: Path) -> ImageAnnotations:
    tree = _parse(path)
    filename = checked_name(_text(tree, "filename", path, "the annotation"), path, "the annotation")
    name = str(PurePosixPath(path.relative_to(root).parent.as_posix()) / filename)
    width, height = checked_size(
        _number(tree, "size/width", path, name), _number(tree, "size/height", path, name), path, name
    )
    annotations = []
    for number, element in enumerate(tree.iterfind("object"), start=1):
        owner = f"image {name}, object {number}"
        label = _text(element, "name", path, owner)
        sides = ("xmin", "ymin", "xmax", "ymax")
        x1, y1, x2, y2 = (_number(element, f"bndbox/{side}", path, owner) for side in sides)
        annotations.append(Annotation(checked_box((x1, y1, x2, y2), (width, height), path, owner), label))
    return ImageAnnotations(name, width, height, tuple(annotations))


def _text(element: ET.Element, tag: str, path: Path, owner: str) -> str:
    text = element.findtext(tag)
    if text is None or not text.strip():
        raise FormatError(f"{path}: {owner} lacks <{tag}>", _REMEDY)
    return text.strip()


def _number(element: ET.Element, tag: str, path: Path, owner: str) -> float:
    text = _text(element, tag, path, owner)
    try:
        return float(text)
    except ValueError:
        raise FormatError(f"{path}: {owner} has <{tag}> {text!r}; expected a number", _REMEDY) from None


def _classes(root: Path, used: set[str]) -> tuple[str, ...]:
    declared = root / _CLASSES
    if not declared.is_file():
        return tuple(sorted(used))
    names = [line.strip() for line in declared.read_text(encoding="utf-8").splitlines() if line.strip()]
    refuse_duplicates(names, "class", declared)
    if missing := sorted(used - set(names)):
        raise FormatError(f"{declared} lacks class {missing[0]!r}, which is used", "Add it to the file.")
    return tuple(names)


def write(annotations: AnnotationSet, folder: Path) -> None:
    """Write one XML file per image, in the image's sub-folder, and ``classes.txt``.

    Raises:
        FormatError: two image names differ only in their suffix, so they would share an XML file.
    """
    targets = [PurePosixPath(p.name).with_suffix(".xml") for p in annotations.images]
    refuse_duplicates((str(t) for t in targets), "file", folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _CLASSES).write_text("".join(f"{n}\n" for n in annotations.classes), encoding="utf-8")
    for image, target in zip(annotations.images, targets, strict=True):
        path = folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(ET.tostring(_element(image), encoding="utf-8", xml_declaration=True))


def _element(image: ImageAnnotations) -> ET.Element:
    root = ET.Element("annotation")
    ET.SubElement(root, "folder").text = str(PurePosixPath(image.name).parent)
    ET.SubElement(root, "filename").text = PurePosixPath(image.name).name
    size = ET.SubElement(root, "size")
    for tag, value in (("width", image.width), ("height", image.height), ("depth", 3)):
        ET.SubElement(size, tag).text = str(value)
    for annotation in image.annotations:
        element = ET.SubElement(root, "object")
        ET.SubElement(element, "name").text = annotation.label
        ET.SubElement(element, "difficult").text = "0"
        box = ET.SubElement(element, "bndbox")
        for tag, corner in zip(("xmin", "ymin", "xmax", "ymax"), annotation.box.corners, strict=True):
            ET.SubElement(box, tag).text = f"{corner:.12g}"
    ET.indent(root)
    return root
