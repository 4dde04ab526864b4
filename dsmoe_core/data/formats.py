"""Registry of the label formats, and the reader that recognises them.

To support another format, write a module with a reader and a writer like ``coco.py`` and add one entry to
:data:`LABEL_FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from dsmoe_core.data import coco, voc, yolo
from dsmoe_core.data.annotation_set import AnnotationSet
from dsmoe_core.data.import_account import MAX_NAMED
from dsmoe_core.data.label_source import DEFAULT_OPTIONS, ReadOptions
from dsmoe_core.errors import FormatError


class LabelFormat(NamedTuple):
    """One format of annotation files.

    Attributes:
        name: short, in lower case.
        layout: what to give as its path, as a phrase for messages.
        suffixes: of its files, lower case with the dot; ingest ignores such files in the folder of
            images.
        recognises: whether the file or folder at a path, which exists, is in this format.
        read: from the path and the folder of images, to which image names are relative, with options.
        write: an annotation set to a path.
        split_path: where the labels of a split are in an exported data set, with ``{split}`` for its name;
            None where the labels of all splits are written together, under names that begin with the split.
    """

    name: str
    layout: str
    suffixes: tuple[str, ...]
    recognises: Callable[[Path], bool]
    read: Callable[[Path, Path, ReadOptions], AnnotationSet]
    write: Callable[[AnnotationSet, Path], None]
    split_path: str | None = "{split}"


LABEL_FORMATS: tuple[LabelFormat, ...] = (
    LabelFormat(
        "voc",
        "a folder of PASCAL VOC .xml files",
        (".xml",),
        recognises=voc.has_annotations,
        read=voc.read,
        write=voc.write,
    ),
    LabelFormat(
        "coco",
        "a COCO JSON file or a folder with one",
        (".json",),
        recognises=coco.has_annotations,
        read=coco.read,
        write=coco.write,
        split_path="{split}.json",
    ),
    LabelFormat(
        "yolo",
        "a YOLO folder or its data.yaml",
        (".txt",),
        recognises=yolo.has_annotations,
        read=yolo.read,
        write=yolo.write,
        split_path=None,
    ),
)
"""All formats. The first that recognises a path reads it."""


def label_suffixes() -> tuple[str, ...]:
    """The file name suffixes of all registered formats."""
    return tuple(suffix for label_format in LABEL_FORMATS for suffix in label_format.suffixes)


def read_annotations(path: Path, images: Path, options: ReadOptions = DEFAULT_OPTIONS) -> AnnotationSet:
    """Read annotations in the first registered format that recognises a path.

    Args:
        path: file or folder of annotations.
        images: folder of images, to which image names are relative.
        options: which split is read, whether predictions are accepted, and whether every entry must be taken.

    Raises:
        FormatError: the path does not exist, no format recognises it, no entry of it can be taken, or
            ``options.strict`` is set and an entry cannot be taken unchanged.
    """
    layouts = ", ".join(label_format.layout for label_format in LABEL_FORMATS)
    if not path.exists():
        raise FormatError(f"{path} does not exist; expected one of: {layouts}", "Correct the path.")
    recognised = [label_format for label_format in LABEL_FORMATS if label_format.recognises(path)]
    if not recognised:
        raise FormatError(f"{path} holds no annotations in a known format", f"Give one of: {layouts}.")
    annotations = recognised[0].read(path, images, options)
    account = annotations.account
    if len(recognised) > 1:
        names = [label_format.name for label_format in recognised]
        note = f"{path} has labels in the formats {', '.join(names)}; only {names[0]} is read"
        annotations = replace(annotations, account=account.with_notes(note))
    if options.strict:
        account.require_complete(str(path))
    if account.images_in and not account.images_taken:
        raise FormatError(
            f"{path}: none of {account.images_in} image entries can be taken",
            "Correct the entries.",
            details=[str(entry) for entry in account.entries[:MAX_NAMED]],
        )
    return annotations
