"""Registry of the label formats, and the reader that recognises them.

To support another format, write a module with a reader and a writer like ``coco.py`` and add one entry to
:data:`LABEL_FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dsmoe_core.data import coco, voc, yolo
from dsmoe_core.data.annotation_set import AnnotationSet
from dsmoe_core.errors import FormatError


class LabelFormat(NamedTuple):
    """One format of annotation files.

    Attributes:
        name: short, in lower case.
        layout: what to give as its path, as a phrase for messages.
        suffixes: of its files, lower case with the dot; ingest ignores such a file next to an image of the
            same stem.
        recognises: whether the file or folder at a path, which exists, is in this format.
        read: from the path and the folder of images, to which image names are relative.
        write: an annotation set to a path.
    """

    name: str
    layout: str
    suffixes: tuple[str, ...]
    recognises: Callable[[Path], bool]
    read: Callable[[Path, Path], AnnotationSet]
    write: Callable[[AnnotationSet, Path], None]


def _contains(pattern: str) -> Callable[[Path], bool]:
    """Whether a path is a folder that holds a file of this pattern at any depth."""
    return lambda path: path.is_dir() and any(path.rglob(pattern))


LABEL_FORMATS: tuple[LabelFormat, ...] = (
    LabelFormat(
        "voc",
        "a folder of PASCAL VOC .xml files",
        (".xml",),
        recognises=_contains("*.xml"),
        read=lambda path, _images: voc.read(path),
        write=voc.write,
    ),
    LabelFormat(
        "yolo",
        "a YOLO folder",
        (".txt",),
        recognises=_contains("*.txt"),
        read=yolo.read,
        write=yolo.write,
    ),
    LabelFormat(
        "coco",
        "a COCO JSON file",
        (".json",),
        recognises=Path.is_file,
        read=lambda path, _images: coco.read(path),
        write=coco.write,
    ),
)
"""All formats. The first that recognises a path reads it; COCO is last because it takes any file."""


def label_suffixes() -> tuple[str, ...]:
    """The file name suffixes of all registered formats."""
    return tuple(suffix for label_format in LABEL_FORMATS for suffix in label_format.suffixes)


def read_annotations(path: Path, images: Path) -> AnnotationSet:
    """Read annotations in whichever registered format is found at a path.

    Args:
        path: file or folder of annotations.
        images: folder of images, to which image names are relative.

    Raises:
        FormatError: the path does not exist, or no format recognises it.
        BoxError: a box is wrong; names file, image and annotation.
    """
    layouts = ", ".join(label_format.layout for label_format in LABEL_FORMATS)
    if not path.exists():
        raise FormatError(f"{path} does not exist; expected one of: {layouts}", "Correct the path.")
    for label_format in LABEL_FORMATS:
        if label_format.recognises(path):
            return label_format.read(path, images)
    raise FormatError(f"{path} holds no annotations in a known format", f"Give one of: {layouts}.")
