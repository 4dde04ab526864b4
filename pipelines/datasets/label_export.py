"""Exports the labels of a workspace, with their images, in a registered label format.

Layout of the folder: ``images/`` with all images, ``train`` and ``val`` (test set) with the labels. YOLO has
``images/train``, ``images/val``, the same below ``labels/``, and ``data.yaml``.
"""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from dsmoe_core.atomic import atomic_folder, atomic_write
from dsmoe_core.data.annotation_set import AnnotationSet, ImageAnnotations
from dsmoe_core.data.formats import LabelFormat
from dsmoe_core.errors import DISK_FULL_ERRNOS, DataError, WorkspaceError
from dsmoe_core.paths import check_output_folder
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import ImageRecord, LabelledImage
from pipelines.workspace.relabel import relabel_image
from pipelines.workspace.workspace import Workspace

CARD = "dsmoe-labels.json"
"""File that marks a folder as an export, which a later export may replace."""
SPLITS = ("train", "val")
_MAX_STEM_BYTES = 200
_RESERVED = frozenset(("classes",))  # labels/classes.txt lists the classes
_SUFFIXES = {".jpg": (".jpg", ".jpeg"), ".png": (".png",)}


@dataclass(frozen=True, slots=True)
class LabelExport:
    """What was exported; the content of the card.

    Attributes:
        version: of the data set; None for the latest labels.
        classes: in the order of the class book.
        images, boxes: by split.
        renamed: exported name by original name, where they differ.
    """

    format: str
    version: str | None
    classes: tuple[str, ...]
    images: dict[str, int]
    boxes: dict[str, int]
    renamed: dict[str, str]


def export_labels(
    workspace: Workspace,
    label_format: LabelFormat,
    out: Path,
    *,
    version: str | None = None,
    link: bool = False,
    progress: CountCallback,
) -> LabelExport:
    """Write the labelled images and the test set to a folder; ids and order depend on the labels alone.

    Args:
        out: folder to create; an earlier export there is replaced.
        version: of the data set; None for the latest labels.
        link: make hard links instead of copies where the disk allows it.
        progress: called with (images done, images in total).

    Raises:
        DataError: nothing is labelled.
        WorkspaceError: the folder has something else in it, or there is no such version.
        PrerequisiteError: the folder cannot be written, or the disk is full.
    """
    out = out.expanduser().resolve()
    _refuse_other_content(out)
    check_output_folder(out)
    classes, splits = _labelled_splits(workspace, version)
    if not any(splits.values()):
        raise DataError(
            f"{workspace.path} has no labelled image", "Label images first, or give labels to `dsmoe add`."
        )
    names = export_names([p.image for labelled in splits.values() for p in labelled])
    total = sum(map(len, splits.values()))
    done = 0
    with atomic_folder(out, [p.name for p in out.iterdir()] if out.is_dir() else ()) as draft:
        for split, labelled in splits.items():
            folder = draft / "images" if label_format.split_path is not None else draft / "images" / split
            for item in labelled:
                _place(item.image.path, folder / names[item.image.key], link)
                done += 1
                progress(done, total)
        sets = {split: _annotation_set(labelled, names, classes) for split, labelled in splits.items()}
        _write(label_format, sets, draft)
        export = LabelExport(
            label_format.name,
            version,
            classes,
            {split: len(labelled) for split, labelled in splits.items()},
            {split: sum(len(p.annotations) for p in labelled) for split, labelled in splits.items()},
            {p.image.name: n for p in _all(splits) if (n := names[p.image.key]) != p.image.name},
        )
        atomic_write(draft / CARD, json.dumps(asdict(export), ensure_ascii=False, indent=1) + "\n")
    return export


def export_names(images: Iterable[ImageRecord]) -> dict[str, str]:
    """A file name for each image, by key: its own where that is possible.

    The suffix is that of the stored file. Images whose names would share a label file, also where upper and
    lower case are the same, get the beginning of their key appended; characters that cannot be shown are
    replaced.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for image in sorted(images, key=lambda i: (i.name, i.key)):
        if image.key in names:
            continue
        path = PurePosixPath(*(_shown(part) for part in PurePosixPath(image.name).parts))
        suffix = path.suffix if path.suffix.lower() in _SUFFIXES.get(image.path.suffix, ()) else None
        stem, suffix = (path.stem, suffix) if suffix else (path.stem, image.path.suffix)
        stem = stem.encode()[:_MAX_STEM_BYTES].decode("utf-8", "ignore").strip()
        parent = path.parent
        if stem.casefold() in _RESERVED or _folded(parent / stem) in taken:
            stem = f"{stem}-{image.key[:12]}"
        taken.add(_folded(parent / stem))
        names[image.key] = str(parent / (stem + suffix))
    return names


def _folded(path: PurePosixPath) -> str:
    return unicodedata.normalize("NFC", str(path)).casefold()


def _shown(part: str) -> str:
    """A part of a path without characters that label formats cannot hold, or spaces around it."""
    text = "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else "_" for c in part)
    text = text.replace("\\", "_").strip()
    return f"_{text}" if not text or text.startswith(".") else text


def _labelled_splits(
    workspace: Workspace, version: str | None
) -> tuple[tuple[str, ...], dict[str, list[LabelledImage]]]:
    """The classes, and the labelled images of each split that has any, by name."""
    images = workspace.images_by_key()
    if version is None:
        book = workspace.class_book()
        classes = book.vocabulary().names
        train, test = (
            [relabel_image(p, book.resolve) for p in labelled]
            for labelled in (workspace.annotations().values(), workspace.test_set())
        )
    else:
        dataset = workspace.dataset_version(version)
        classes, train = dataset.classes, dataset.labelled(images)
        test = workspace.dataset_version(dataset.test_set).labelled(images) if dataset.test_set else []
        if version == workspace.journal.value("test_set"):
            train, test = [], train
    splits = dict(zip(SPLITS, (train, test), strict=True))
    by_name = {s: sorted(p, key=lambda p: (p.image.name, p.image.key)) for s, p in splits.items() if p}
    return classes, by_name


def _all(splits: dict[str, list[LabelledImage]]) -> list[LabelledImage]:
    return [p for labelled in splits.values() for p in labelled]


def _annotation_set(
    labelled: Sequence[LabelledImage], names: dict[str, str], classes: tuple[str, ...]
) -> AnnotationSet:
    entries = (
        ImageAnnotations(names[p.image.key], p.image.width, p.image.height, p.annotations) for p in labelled
    )
    return AnnotationSet(classes, tuple(entries))


def _write(label_format: LabelFormat, sets: dict[str, AnnotationSet], folder: Path) -> None:
    """Write each split to a file or folder of its own, or all to one with the splits as sub-folders."""
    if label_format.split_path is not None:
        for split, labels in sets.items():
            label_format.write(labels, folder / label_format.split_path.format(split=split))
        return
    entries = [
        ImageAnnotations(f"{split}/{e.name}", e.width, e.height, e.annotations)
        for split, labels in sets.items()
        for e in labels.images
    ]
    classes = next(iter(sets.values())).classes
    label_format.write(AnnotationSet(classes, tuple(entries)), folder)


def _place(source: Path, target: Path, link: bool) -> None:
    """Copy or link an image."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if link:
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno in DISK_FULL_ERRNOS:
                raise
        else:
            return
    shutil.copyfile(source, target)


def _refuse_other_content(out: Path) -> None:
    """Refuse a folder that is not new, empty or an earlier export."""
    if out.is_dir() and any(out.iterdir()) and not (out / CARD).is_file():
        raise WorkspaceError(
            f"{out} is not empty and was not made by `dsmoe data export`",
            "Give a new folder, an empty one, or an earlier export.",
        )
