"""Pairs the label files of a YOLO data set with their images, in the folder layouts of common exporters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from dsmoe_core.data.image_formats import image_suffixes
from dsmoe_core.data.image_index import ImageIndex
from dsmoe_core.data.label_source import split_of
from dsmoe_core.data.text_file import read_text

_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")
"""Label Studio puts this before the names of uploaded files."""


class ListedImage(NamedTuple):
    """A line of an image list, such as CVAT's train.txt."""

    text: str
    where: str


class YoloLayout:
    """The label files and image lists of a YOLO data set, and the images they belong to.

    Label files are searched at any depth. The image of a label file is in the folder ``images`` in place of
    ``labels``, in the folder of the label file, at the same path below the folder of images, or the only
    image of this name.

    Args:
        folder: of the data set.
        index: of the images.
        settings: of data.yaml; its keys train, val and test say which images belong to a split.
    """

    def __init__(self, folder: Path, index: ImageIndex, settings: dict[str, Any]) -> None:
        self.folder = folder.resolve()
        self.index = index
        self.labels: list[Path] = []
        self.lists: list[Path] = []
        for path in sorted(self.folder.rglob("*.txt")):
            if is_label_file(path, self.folder):
                (self.lists if _is_image_list(path) else self.labels).append(path)
        self._split_folders = list(self._folders_of_splits(settings))
        self._listed_splits = {
            PurePosixPath(image.text).stem: split_of(Path(path.name))
            for path in self.lists
            for image in listed(path)
        }
        self._exact = {label: self._exact_images(label) for label in self.labels}
        taken = {name for names in self._exact.values() for name in names}
        self._by_file_stem: dict[str, list[str]] = {}
        for name in sorted(index.names - taken):
            self._by_file_stem.setdefault(PurePosixPath(name).stem, []).append(name)

    def labels_in_scope(self) -> list[Path]:
        """All label files, or those of the folder of images where that is a part of the data set."""
        inside = self.index.folder
        if inside is None or inside == self.folder or not inside.is_relative_to(self.folder):
            return self.labels
        scoped = [p for p in self.labels if any(self.index.relative(c) for c in self._own_images(p))]
        return scoped or self.labels

    def images_of(self, label: Path) -> Sequence[str]:
        """Names of the images that fit a label file; more than one is ambiguous."""
        same = self._by_file_stem
        short = _UPLOAD_PREFIX.sub("", label.stem)
        return self._exact[label] or same.get(label.stem) or same.get(short) or ()

    def _exact_images(self, label: Path) -> Sequence[str]:
        """Names of the images where the layout of the data set has the image of a label file."""
        relative = self._below_labels(label)
        places = [*self._own_images(label)]
        if self.index.folder is not None:
            places += [self.index.folder / relative, self.index.folder / label.relative_to(self.folder)]
        for place in places:
            stem = self.index.relative(place.with_suffix(""))
            if stem is not None and (names := self.index.with_stem(stem)):
                return names
        return ()

    def image_of_line(self, image: ListedImage, source: Path) -> str | None:
        """Name of a listed image; None if there is no such image."""
        line = PurePosixPath(image.text)
        shorter = (
            PurePosixPath(*line.parts[1:]) if len(line.parts) > 1 else line
        )  # CVAT: data/obj_train_data/x
        bases = [source.parent, self.folder, *([self.index.folder] if self.index.folder else [])]
        for base in bases:
            for text in (line, shorter):
                name = self.index.relative(base / text)
                if name in self.index.names:
                    return name
        same = [n for n in self.index.names if PurePosixPath(n).name == line.name]
        return same[0] if len(same) == 1 else None

    def split_of_label(self, label: Path) -> str | None:
        """The split of a label file: by data.yaml, by an image list, or by its folder."""
        for split, folder in self._split_folders:
            if any(place.is_relative_to(folder) for place in self._own_images(label)):
                return split
        listed_split = self._listed_splits.get(label.stem)
        return listed_split or split_of(label.relative_to(self.folder).parent / "x")

    def _below_labels(self, label: Path) -> Path:
        """Path of a label file below the outermost folder ``labels``, or below the data set."""
        relative = label.relative_to(self.folder)
        if relative.parts[0] == "labels" and len(relative.parts) > 1:
            return Path(*relative.parts[1:])
        return relative

    def _own_images(self, label: Path) -> Iterator[Path]:
        """Paths in the data set where the image of a label file is usually stored, without suffix."""
        stem = label.with_suffix("")
        parts = list(stem.parts)
        for i in range(len(parts) - 2, len(self.folder.parts) - 2, -1):
            if parts[i] == "labels":
                yield Path(*parts[:i], "images", *parts[i + 1 :])
        yield stem
        yield self.folder / "images" / self._below_labels(label).with_suffix("")

    def _folders_of_splits(self, settings: dict[str, Any]) -> Iterator[tuple[str, Path]]:
        base = settings.get("path")
        bases = [self.folder / base, self.folder] if isinstance(base, str) else [self.folder]
        for key in ("train", "val", "valid", "test"):
            values = settings.get(key)
            for value in values if isinstance(values, list) else [values]:
                if not isinstance(value, str) or not value or value.endswith(".txt"):
                    continue
                inner = value
                while inner.startswith("../"):  # Roboflow writes ../train/images
                    inner = inner[3:]
                for folder in (*(b / value for b in bases), self.folder / inner):
                    if folder.is_dir() and folder.resolve() != self.folder:
                        yield ("val" if key == "valid" else key), folder.resolve()
                        break


def listed(path: Path) -> list[ListedImage]:
    """The images in an image list, with forward slashes."""
    lines = read_text(path).splitlines()
    return [
        ListedImage(line.strip().replace("\\", "/"), f"{path.name}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def is_label_file(path: Path, folder: Path) -> bool:
    """Whether a text file below a folder can have labels, by its name: not a class list or a description."""
    parts = path.relative_to(folder).parts
    if any(part.startswith(".") for part in parts) or "ImageSets" in parts:  # the latter is of PASCAL VOC
        return False
    name = path.name.lower()
    return name not in ("classes.txt", "labelmap.txt") and not name.startswith(("readme", "license"))


def _is_image_list(path: Path) -> bool:
    """Whether the first line of a text file is the path of an image."""
    try:
        first = _first_line(read_text(path).splitlines())
    except OSError:
        return False
    return PurePosixPath(first).suffix.lower() in image_suffixes()


def _first_line(lines: Iterable[str]) -> str:
    return next((line.strip() for line in lines if line.strip()), "")
