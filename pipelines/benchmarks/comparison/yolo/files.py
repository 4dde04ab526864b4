"""A lesson as the files that YOLO reads: images, one text of boxes beside each, and data.yaml."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml

from dsmoe_core.schema import LabelledImage
from pipelines.benchmarks.comparison.protocol import Lesson

PARTS = ("train", "val")


def write(lesson: Lesson, folder: Path) -> tuple[Path, list[Path]]:
    """Copy the images and write labels; returns data.yaml and the files of ``val`` in their order.

    Copies, as ultralytics rewrites a JPEG that lacks its end in place.
    """
    files = [_part(name, images, lesson, folder) for name, images in _parts(lesson)]
    names = dict(enumerate(lesson.vocabulary.names))
    data = {"path": str(folder), **{name: f"images/{name}" for name in PARTS}, "names": names}
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump(data, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return path, files[PARTS.index("val")]


def _parts(lesson: Lesson) -> list[tuple[str, Sequence[LabelledImage]]]:
    return [("train", lesson.train), ("val", lesson.val)]


def _part(name: str, images: Sequence[LabelledImage], lesson: Lesson, folder: Path) -> list[Path]:
    image_folder, labels = folder / "images" / name, folder / "labels" / name
    image_folder.mkdir(parents=True)
    labels.mkdir(parents=True)
    files = []
    for number, labelled in enumerate(images):
        source = labelled.image.path
        copy = image_folder / f"{number:06d}{source.suffix.lower()}"
        shutil.copyfile(source, copy)
        (labels / f"{number:06d}.txt").write_text(_rows(labelled, lesson), encoding="utf-8")
        files.append(copy)
    return files


def _rows(labelled: LabelledImage, lesson: Lesson) -> str:
    """Class number, then centre and size of the box, as shares of the image's width and height."""
    image, rows = labelled.image, []
    for annotation in labelled.annotations:
        box = annotation.box.clipped(image.width, image.height)
        across = (box.x1 + box.x2) / 2 / image.width, box.width / image.width
        down = (box.y1 + box.y2) / 2 / image.height, box.height / image.height
        place = f"{across[0]:.6f} {down[0]:.6f} {across[1]:.6f} {down[1]:.6f}"
        rows.append(f"{lesson.vocabulary.index(annotation.label)} {place}\n")
    return "".join(rows)
