"""Writes a data set in the format of ultralytics: images, a label file for each image, and data.yaml."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml

from dsmoe_core.schema import LabelledImage, Vocabulary
from pipelines.benchmarks.comparison.protocol import BenchmarkDataset


def write_yolo_dataset(dataset: BenchmarkDataset, folder: Path) -> tuple[Path, list[Path]]:
    """Copy the images and write the labels.

    The images are copied because ultralytics rewrites truncated JPEG files in place.

    Returns:
        data.yaml, and the image files of ``val`` in their order.
    """
    _write_part("train", dataset.train, dataset.vocabulary, folder)
    val_files = _write_part("val", dataset.val, dataset.vocabulary, folder)
    names = dict(enumerate(dataset.vocabulary.names))
    data = {"path": str(folder), "train": "images/train", "val": "images/val", "names": names}
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump(data, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return path, val_files


def _write_part(
    part: str, images: Sequence[LabelledImage], vocabulary: Vocabulary, folder: Path
) -> list[Path]:
    image_folder, label_folder = folder / "images" / part, folder / "labels" / part
    image_folder.mkdir(parents=True)
    label_folder.mkdir(parents=True)
    files = []
    for number, labelled in enumerate(images):
        source = labelled.image.path
        copy = image_folder / f"{number:06d}{source.suffix.lower()}"
        shutil.copyfile(source, copy)
        (label_folder / f"{number:06d}.txt").write_text(label_rows(labelled, vocabulary), encoding="utf-8")
        files.append(copy)
    return files


def label_rows(labelled: LabelledImage, vocabulary: Vocabulary) -> str:
    """A line for each box: class index, centre x and y, width and height, as shares of the image's size.

    Boxes are clipped to the image.
    """
    image, rows = labelled.image, []
    for annotation in labelled.annotations:
        box = annotation.box.clipped(image.width, image.height)
        x, width = (box.x1 + box.x2) / 2 / image.width, box.width / image.width
        y, height = (box.y1 + box.y2) / 2 / image.height, box.height / image.height
        index = vocabulary.index(annotation.label)
        rows.append(f"{index} {x:.6f} {y:.6f} {width:.6f} {height:.6f}\n")
    return "".join(rows)
