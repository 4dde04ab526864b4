"""Reader and writer of YOLO labels: one ``.txt`` file per image with a row per box.

A row is ``class cx cy width height``, in fractions of the upright image's size, as in Ultralytics. A row with
more numbers is a polygon, ``class x1 y1 x2 y2 ...``, of which the box around it is taken. The files do not
state image sizes, so reading needs the images. An image without a label file is not labelled, unless an image
list names it; one with an empty file has no box.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import yaml

from dsmoe_core.data.annotation_set import AnnotationSet, ImageAnnotations, refuse_duplicates
from dsmoe_core.data.image_index import ImageIndex
from dsmoe_core.data.import_account import Conversion, Reason
from dsmoe_core.data.label_source import (
    DEFAULT_OPTIONS,
    ReadOptions,
    bounds,
    choose_split,
    number,
    refuse_predictions,
    split_of,
)
from dsmoe_core.data.set_builder import AnnotationSetBuilder, ImageDraft
from dsmoe_core.data.text_file import read_text
from dsmoe_core.data.yolo_classes import REMEDY, YoloClasses, find_classes, read_classes
from dsmoe_core.data.yolo_layout import YoloLayout, is_label_file, listed
from dsmoe_core.errors import FormatError
from dsmoe_core.schema import Annotation

_MAX_FRACTION = 2.0
"""A larger coordinate is not a fraction of the image's size."""
_NEGATIVE = "negative"


def read(path: Path, images: Path, options: ReadOptions = DEFAULT_OPTIONS) -> AnnotationSet:
    """Read the labels of the images in ``images``, including sub-folders.

    Args:
        path: folder of the data set or of one of its splits, or its data.yaml.
        images: folder of images.
        options: which split is read, and whether rows with a score are accepted.

    Raises:
        FormatError: there are no class names or no label files, or rows have a score.
    """
    folder = path if path.is_dir() else path.parent
    classes = find_classes(folder) if path.is_dir() else read_classes(path)
    if classes is None:
        raise FormatError(f"{path} has neither data.yaml nor obj.names nor classes.txt", REMEDY)
    builder = AnnotationSetBuilder()
    builder.declare(name for _, name in sorted(classes.names.items()) if name)
    builder.states_negatives = classes.settings.get("unlabelled") == _NEGATIVE
    layout = YoloLayout(folder, ImageIndex(images), classes.settings)
    labels = layout.labels_in_scope()
    if not labels and not layout.lists:
        raise FormatError(f"{folder} has no label file", REMEDY)
    if len(labels) < len(layout.labels):
        builder.note(f"{path}: {len(labels)} of {len(layout.labels)} label files are read, those of {images}")
    files = {p: layout.split_of_label(p) for p in labels}
    lists = {p: split_of(Path(p.name)) for p in layout.lists}
    chosen = set(choose_split({**files, **lists}, options, path, builder))
    reader = _LabelReader(layout, builder, classes)
    for label in labels:
        if label in chosen:
            reader.read_label(label)
    if len(labels) == len(layout.labels):
        for image_list in layout.lists:
            if image_list in chosen:
                reader.read_list(image_list)
    if not options.accept_predictions:
        refuse_predictions(reader.scored, path)
    return builder.build()


def has_annotations(path: Path) -> bool:
    """Whether a path is a YAML file, or a folder with a text file that can have labels."""
    if not path.is_dir():
        return path.suffix.lower() in (".yaml", ".yml")
    return any(is_label_file(p, path) for p in path.rglob("*.txt"))


class _LabelReader:
    """Reads label files into a builder; ``scored`` has the rows with a score."""

    def __init__(self, layout: YoloLayout, builder: AnnotationSetBuilder, classes: YoloClasses) -> None:
        self.layout = layout
        self.builder = builder
        self.names = classes.names
        self.has_keypoints = "kpt_shape" in classes.settings
        self.scored: list[str] = []
        self._label_stems: set[str] = set()
        self._labelled: set[str] = set()

    def read_label(self, path: Path) -> None:
        """Read one label file."""
        source = path.relative_to(self.layout.folder).as_posix()
        self._label_stems.add(path.stem)
        try:
            lines = list(enumerate(read_text(path).splitlines(), start=1))
        except OSError as error:
            self.builder.leave_out_image("", source, Reason.UNREADABLE_LABELS, str(error.strerror))
            return
        rows = [(number_, line) for number_, line in lines if line.strip()]
        names = self.layout.images_of(path)
        size = self.layout.index.size(names[0]) if len(names) == 1 else None
        if len(names) != 1 or size is None:
            reason = Reason.UNREADABLE_IMAGE if len(names) == 1 else Reason.NO_IMAGE
            reason = Reason.AMBIGUOUS_IMAGE if len(names) > 1 else reason
            self._labelled.update(names)
            self.builder.leave_out_image(
                names[0] if len(names) == 1 else path.stem, source, reason, ", ".join(names[1:3]), len(rows)
            )
            return
        self._labelled.add(names[0])
        draft = self.builder.image(names[0], source, size)
        for number_, line in rows:
            self._read_row(line, draft, f"{source}, line {number_}")

    def read_list(self, path: Path) -> None:
        """Add the images of an image list that have no label file."""
        for image in listed(path):
            name = self.layout.image_of_line(image, path)
            if name is None:
                if PurePosixPath(image.text).stem not in self._label_stems:
                    self.builder.leave_out_image(image.text, image.where, Reason.NO_IMAGE)
                continue
            if name in self._labelled:
                continue
            self._labelled.add(name)
            size = self.layout.index.size(name)
            if size is None:
                self.builder.leave_out_image(name, image.where, Reason.UNREADABLE_IMAGE)
            else:
                self.builder.image(name, image.where, size)

    def _read_row(self, line: str, draft: ImageDraft, where: str) -> None:
        columns = _columns(line)
        values = [v for v in map(number, columns) if v is not None]
        if len(values) != len(columns) or not values[0].is_integer():
            draft.leave_out_box(where, Reason.NOT_NUMBERS, line.strip()[:60])
            return
        index, coordinates = int(values[0]), values[1:]
        if len(coordinates) == 5 and 0 <= coordinates[4] <= 1:
            self.scored.append(f"{where} (score {coordinates[4]:g})")
            coordinates = coordinates[:4]
        elif self.has_keypoints and len(coordinates) > 4:
            coordinates = coordinates[:4]
        is_polygon = len(coordinates) >= 6 and len(coordinates) % 2 == 0
        if len(coordinates) != 4 and not is_polygon:
            draft.leave_out_box(where, Reason.WRONG_COLUMNS, f"{len(columns)} columns")
        elif not self.names.get(index):
            reason = Reason.BLANK_CLASS if index in self.names else Reason.UNKNOWN_CLASS
            draft.leave_out_box(where, reason, f"class {index}")
        elif any(abs(v) > _MAX_FRACTION for v in coordinates if abs(v) != float("inf")):
            draft.leave_out_box(where, Reason.NOT_FRACTIONS, line.strip()[:60])
        else:
            self._add(coordinates, is_polygon, self.names[index], draft, where)

    def _add(
        self, coordinates: list[float], is_polygon: bool, label: str, draft: ImageDraft, where: str
    ) -> None:
        width, height = draft.size
        if is_polygon:
            points = zip(coordinates[::2], coordinates[1::2], strict=True)
            corners = bounds((x * width, y * height) for x, y in points)
            draft.add_box(corners, label, where, [Conversion.POLYGON])
            return
        x, y, w, h = (v * side for v, side in zip(coordinates, (width, height) * 2, strict=True))
        draft.add_box((x - w / 2, y - h / 2, x + w / 2, y + h / 2), label, where)


def _columns(line: str) -> list[str]:
    """The columns of a row; some tools separate them with commas."""
    if "," in line and "." in line:
        return [column for column in re.split(r"[\s,;]+", line.strip()) if column]
    return line.split()


def write(annotations: AnnotationSet, folder: Path) -> None:
    """Write ``data.yaml`` and ``labels/*.txt``. The images themselves belong in ``folder/images``.

    Where the names of all images begin with ``train/`` or ``val/``, these are the splits of ``data.yaml``.

    Raises:
        FormatError: two image names differ only in their suffix, so they would share a label file.
    """
    targets = [PurePosixPath(p.name).with_suffix(".txt") for p in annotations.images]
    refuse_duplicates((str(t) for t in targets), "file", folder)
    indices = {name: i for i, name in enumerate(annotations.classes)}
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    # Without `path` ultralytics looks beside data.yaml; "." would be the folder that it is started in.
    header = {**_splits(annotations), "names": dict(enumerate(annotations.classes))}
    header["unlabelled"] = _NEGATIVE
    (folder / "data.yaml").write_text(
        yaml.safe_dump(header, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
    for image, target in zip(annotations.images, targets, strict=True):
        path = folder / "labels" / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(_line(a, image, indices) for a in image.annotations), encoding="utf-8")


def _splits(annotations: AnnotationSet) -> dict[str, str]:
    """The folders of images of both splits; the training images if there are no others."""
    first_parts = {image.name.partition("/")[0] for image in annotations.images}
    if not first_parts or not first_parts <= {"train", "val"}:
        return {"train": "images", "val": "images"}
    train, val = (split if split in first_parts else min(first_parts) for split in ("train", "val"))
    return {"train": f"images/{train}", "val": f"images/{val}"}


def _line(annotation: Annotation, image: ImageAnnotations, indices: dict[str, int]) -> str:
    box = annotation.box
    fractions = (
        (box.x1 + box.x2) / 2 / image.width,
        (box.y1 + box.y2) / 2 / image.height,
        box.width / image.width,
        box.height / image.height,
    )
    return " ".join([str(indices[annotation.label]), *(f"{fraction:.12g}" for fraction in fractions)]) + "\n"
