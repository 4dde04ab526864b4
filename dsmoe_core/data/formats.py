"""Reads annotations in whichever format lies at a path."""

from __future__ import annotations

from pathlib import Path

from dsmoe_core.data import coco, voc, yolo
from dsmoe_core.data.annotation_set import AnnotationSet
from dsmoe_core.errors import FormatError


def read_annotations(path: Path, images: Path) -> AnnotationSet:
    """Reads a COCO file, a PASCAL VOC folder or a YOLO folder; names are relative to ``images``.

    Raises:
        FormatError: there is nothing, or nothing in one of these formats.
        BoxError: a box is wrong; names file, image and annotation.
    """
    if not path.exists():
        raise FormatError(
            f"{path} is not there; expected a COCO file, a VOC or a YOLO folder",
            "Correct the path, which does not exist.",
        )
    if path.is_file():
        return coco.read(path)
    if any(path.rglob("*.xml")):
        return voc.read(path)
    if any(path.rglob("*.txt")):
        return yolo.read(path, images)
    raise FormatError(
        f"{path} holds no annotations we can read",
        "Give a COCO JSON file, a folder of PASCAL VOC .xml files, or a YOLO folder.",
    )
