"""Reader and writer of PASCAL VOC, as LabelImg, CVAT, Roboflow and Label Studio write it.

Corners are pixel coordinates that count from 0, as current tools write them; the 2007 challenge counted from
1, a difference of one pixel. Document type declarations are refused, since entities could expand without
limit.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from contextlib import suppress
from math import cos, isfinite, sin
from pathlib import Path, PurePosixPath

from dsmoe_core.data.annotation_set import AnnotationSet, ImageAnnotations, refuse_duplicates
from dsmoe_core.data.image_index import ImageIndex
from dsmoe_core.data.import_account import Conversion, Reason
from dsmoe_core.data.label_source import (
    DEFAULT_OPTIONS,
    ReadOptions,
    bounds,
    choose_split,
    class_name,
    number,
    pixel_size,
    refuse_predictions,
    split_of,
    stated_name,
)
from dsmoe_core.data.set_builder import AnnotationSetBuilder, Corners, ImageDraft
from dsmoe_core.data.text_file import decode_text, read_text
from dsmoe_core.errors import FormatError

_REMEDY = "Give a folder of PASCAL VOC files: <annotation> with <filename>, <size> and <object>s."
_CLASSES = "classes.txt"
_LABEL_MAP = "labelmap.txt"
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")
_ENCODING = re.compile(rb"""<\?xml[^>]*encoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")


def read(path: Path, images: Path | None = None, options: ReadOptions = DEFAULT_OPTIONS) -> AnnotationSet:
    """Read all ``*.xml`` files of a folder and its sub-folders, or one file.

    The image of a file is the one with the file's own name in the layout of the data set, or else the one
    that ``<filename>`` states. Classes come from ``classes.txt`` or ``labelmap.txt`` if there is one, and
    otherwise from the annotations in alphabetical order.

    Args:
        images: folder of images, for names and for image sizes that the files do not state.
        options: which split is read, and whether objects with a score are accepted.

    Raises:
        FormatError: there is no XML file, or objects have a score.
    """
    folder = path if path.is_dir() else path.parent
    files = xml_files(path) if path.is_dir() else [path]
    if not files:
        raise FormatError(f"{path} has no .xml file; expected PASCAL VOC annotations", _REMEDY)
    builder = AnnotationSetBuilder()
    splits = _splits(files, folder)
    reader = _FileReader(folder, ImageIndex(images), builder)
    for file in choose_split(splits, options, path, builder):
        reader.read(file)
    if not options.accept_predictions:
        refuse_predictions(reader.scored, path)
    builder.declare(_classes(folder, reader.used, builder))
    builder.states_negatives = reader.negatives_are_verified
    return builder.build()


def xml_files(folder: Path) -> list[Path]:
    """The XML files of a folder and its sub-folders that are not hidden."""
    files = (p for p in folder.rglob("*.xml") if not p.name.startswith("."))
    return sorted(p for p in files if not any(x.startswith(".") for x in p.relative_to(folder).parts))


def has_annotations(path: Path) -> bool:
    """Whether a path is an XML file, or a folder with an XML file that has annotations."""
    if not path.is_dir():
        return path.suffix.lower() == ".xml"
    for file in xml_files(path):
        with suppress(OSError):
            if "<annotation" in read_text(file):
                return True
    return False


def _splits(files: list[Path], folder: Path) -> dict[Path, str | None]:
    """The split of each file: by its folder, or by the lists in ImageSets/Main."""
    by_stem: dict[str, str] = {}
    for split in ("train", "val", "test"):
        image_list = folder / "ImageSets" / "Main" / f"{split}.txt"
        if image_list.is_file():
            stems = (line.split()[0] for line in read_text(image_list).splitlines() if line.strip())
            by_stem.update({PurePosixPath(stem).name: split for stem in stems})
    return {f: split_of(f.relative_to(folder).parent / "x") or by_stem.get(f.stem) for f in files}


class _NoDoctype(ET.TreeBuilder):
    """Tree builder that stops at a document type declaration, before any entity is declared."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:  # noqa: ARG002
        raise FormatError(
            f"it declares a document type ({name}), which is not safe to expand", "Remove <!DOCTYPE>."
        )


def _parse(path: Path) -> ET.Element:
    """The root of a VOC file.

    Raises:
        FormatError: it cannot be read, is not XML, is not safe, or is another kind of XML.
    """
    try:
        raw = path.read_bytes()
        stated = _ENCODING.search(raw[:200])
        text = decode_text(raw, stated[1].decode("ascii") if stated else None)
        parser = ET.XMLParser(target=_NoDoctype())  # noqa: S314 - refuses DOCTYPE, so no entity to expand
        parser.feed(_DECLARATION.sub("", text, count=1).lstrip())
        root = parser.close()
    except OSError as error:
        raise FormatError(f"it cannot be read: {error.strerror}", "Check the file.") from None
    except (ET.ParseError, ValueError) as error:
        raise FormatError(f"it is not XML: {error}", _REMEDY) from None
    if not isinstance(root, ET.Element) or root.tag != "annotation":
        raise FormatError("its root is not <annotation>", _REMEDY)
    return root


class _FileReader:
    """Reads XML files into a builder.

    Attributes:
        scored: the objects with a score.
        used: number of objects of each class.
        negatives_are_verified: every image without an object has LabelImg's mark ``verified="yes"``.
    """

    def __init__(self, folder: Path, index: ImageIndex, builder: AnnotationSetBuilder) -> None:
        self.folder = folder
        self.index = index
        self.builder = builder
        self.scored: list[str] = []
        self.used: Counter[str] = Counter()
        self.negatives_are_verified = True

    def read(self, path: Path) -> None:
        """Read one file."""
        source = path.relative_to(self.folder).as_posix()
        try:
            tree = _parse(path)
        except FormatError as error:
            self.builder.leave_out_image("", source, Reason.UNREADABLE_LABELS, error.problem)
            return
        objects = tree.findall("object")
        name = self._image_name(path, stated_name(tree.findtext("filename")))
        if name is None:
            detail = f"<filename> {tree.findtext('filename')!r:.80}"
            self.builder.leave_out_image("", source, Reason.NO_NAME, detail, len(objects))
            return
        size = pixel_size(tree.findtext("size/width"), tree.findtext("size/height")) or self.index.size(name)
        if size is None:
            detail = f"{tree.findtext('size/width')} x {tree.findtext('size/height')}"
            self.builder.leave_out_image(name, source, Reason.NO_SIZE, detail, len(objects))
            return
        self.negatives_are_verified &= bool(objects) or tree.get("verified") == "yes"
        draft = self.builder.image(name, source, size)
        for position, element in enumerate(objects, start=1):
            self._read_object(element, draft, f"{source}, object {position}")

    def _image_name(self, path: Path, stated: str | None) -> str | None:
        """Name of the image of a file: an existing one if possible, by the file's name before <filename>."""
        inner = path.relative_to(self.folder)
        below = Path(*inner.parts[1:]) if inner.parts[0] == "Annotations" and len(inner.parts) > 1 else inner
        folder = self.folder.resolve()
        resolved = folder / inner
        places = [
            resolved,
            folder / "JPEGImages" / below,
            folder / "images" / below,
            folder.parent / "JPEGImages" / below,
            folder.parent / "images" / below,
            *([self.index.folder / below] if self.index.folder else []),
        ]
        for place in places:
            stem = self.index.relative(place.with_suffix(""))
            candidates = self.index.with_stem(stem) if stem is not None else ()
            same_suffix = [
                n for n in candidates if stated and PurePosixPath(n).name == PurePosixPath(stated).name
            ]
            if same_suffix or len(candidates) == 1:
                return (same_suffix or list(candidates))[0]
        if stated is None:
            return None
        if "://" in stated or PurePosixPath(stated).is_absolute():
            return stated
        name = PurePosixPath(stated)
        bases = [place.parent for place in places]
        (existing,) = self.index.resolved_names([stated], [*bases, folder, folder.parent])
        if existing in self.index.names:
            return existing
        if PurePosixPath(name.name).stem != path.stem:
            name = name.with_name(path.stem + name.suffix)
        return str(name if name.parent.parts else PurePosixPath(below.parent.as_posix()) / name)

    def _read_object(self, element: ET.Element, draft: ImageDraft, where: str) -> None:
        label = class_name(element.findtext("name"))
        score = next((s for tag in ("confidence", "score") if (s := element.findtext(tag))), None)
        if number(score) is not None:
            self.scored.append(f"{where} (score {score})")
        if not label:
            draft.leave_out_box(where, Reason.BLANK_CLASS)
            return
        shape = _corners(element)
        if isinstance(shape, Reason):
            draft.leave_out_box(where, shape, " ".join(" ".join(element.itertext()).split())[:80])
            return
        before = len(draft.annotations)
        corners, conversions = shape
        draft.add_box(corners, label, where, conversions)
        self.used[label] += len(draft.annotations) - before


def _corners(element: ET.Element) -> tuple[Corners, list[Conversion]] | Reason:
    """The corners of an object, of its box, its rotated box or its polygon."""
    box, rotated, polygon = (element.find(tag) for tag in ("bndbox", "robndbox", "polygon"))
    if box is not None:
        values = [number(box.findtext(side)) for side in _SIDES]
        numbers = [v for v in values if v is not None]
        if len(numbers) < 4:
            return Reason.NOT_NUMBERS
        if not all(map(isfinite, numbers)):
            return Reason.NOT_FINITE
        x1, y1, x2, y2 = numbers
        turned = [Conversion.TURNED] if x1 > x2 or y1 > y2 else []
        return bounds([(x1, y1), (x2, y2)]), turned
    if rotated is not None:
        values = [number(rotated.findtext(tag)) for tag in ("cx", "cy", "w", "h", "angle")]
        numbers = [v for v in values if v is not None]
        return _rotated_corners(numbers) if len(numbers) == 5 else Reason.NOT_NUMBERS
    if polygon is None:
        return Reason.NO_BOX
    xs = [number(child.text) for child in polygon if child.tag.startswith("x")]
    ys = [number(child.text) for child in polygon if child.tag.startswith("y")]
    points = [(x, y) for x, y in zip(xs, ys, strict=False) if x is not None and y is not None]
    if len(xs) != len(ys) or len(points) != len(xs):
        return Reason.NOT_NUMBERS
    return (bounds(points), [Conversion.POLYGON]) if len(points) >= 3 else Reason.NO_AREA


def _rotated_corners(values: list[float]) -> tuple[Corners, list[Conversion]]:
    """The box around a rotated box of roLabelImg, with its angle in radians."""
    cx, cy, w, h, angle = values
    try:
        half_w = (abs(w * cos(angle)) + abs(h * sin(angle))) / 2
        half_h = (abs(w * sin(angle)) + abs(h * cos(angle))) / 2
    except ValueError:  # an infinite angle
        half_w = half_h = float("nan")
    return (cx - half_w, cy - half_h, cx + half_w, cy + half_h), [Conversion.ROTATED]


def _classes(folder: Path, used: Counter[str], builder: AnnotationSetBuilder) -> list[str]:
    """The classes of the class list in its order, then those that only annotations use."""
    declared: list[str] = []
    roots = (folder, folder / "Annotations", folder.parent if folder.name == "Annotations" else folder)
    for path in (root / name for root in dict.fromkeys(roots) for name in (_CLASSES, _LABEL_MAP)):
        if path.is_file():
            declared = _listed_classes(path)
            break
    missing = sorted(set(used) - set(declared))
    if declared and missing:
        builder.note(
            f"{path} lacks {len(missing)} classes that are used, such as {missing[0]}; they are added"
        )
    return [*declared, *missing]


def _listed_classes(path: Path) -> list[str]:
    """The names in classes.txt, or in CVAT's labelmap.txt (name:colour:parts:actions)."""
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if path.name == _LABEL_MAP:
        names = [line.split(":")[0].strip() for line in lines if not line.startswith("#")]
        return [name for name in dict.fromkeys(names) if name and name != "background"]
    return list(dict.fromkeys(lines))


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
    root = ET.Element("annotation", {} if image.annotations else {"verified": "yes"})
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
