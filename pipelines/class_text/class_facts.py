"""Statistics of each class's annotated boxes: size, aspect ratio, contrast, orientation, position, number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from PIL import Image

from dsmoe_core.data.box_stats import Grey, Orientation, contrast, orientation
from dsmoe_core.data.external_images import evenly_spaced
from dsmoe_core.errors import ImageError
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import Box, ImageRecord, LabelledImage
from pipelines.workspace.relabel import relabel_image
from pipelines.workspace.workspace import Workspace
from prompts.class_book import ClassBook

MAX_IMAGES = 500
"""Images that are opened to measure contrast and orientation; sizes and positions are taken from all."""
EDGE_MARGIN = 0.03
"""A box is at the edge if its distance to the image's edge is at most this share of the image's side."""
_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")


class Quartiles(NamedTuple):
    """The 25th, 50th and 75th percentile."""

    lower: float
    median: float
    upper: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quartiles:
        """Quartiles of at least one value."""
        return cls(*map(float, np.percentile(values, (25, 50, 75))))


@dataclass(frozen=True, slots=True)
class ClassFacts:
    """Statistics of one class; without boxes the statistics are None or empty.

    Attributes:
        boxes: number of annotated boxes.
        images: number of images with at least one of them.
        labelled_images: number of all labelled images.
        width, height: pixels.
        area_share: area of a box over the area of the image, 0 to 1.
        aspect: width over height.
        per_image: boxes on an image that has at least one.
        contrast: mean grey level inside a box minus that around it, of 255; negative: darker inside.
        orientation: share of the boxes by the direction of their lines, largest first.
        place: share of the boxes by the ninth of the image with their centre, such as "top left".
        at_edge: share of the boxes at the edge of the image.
    """

    name: str
    boxes: int
    images: int
    labelled_images: int
    width: Quartiles | None = None
    height: Quartiles | None = None
    area_share: Quartiles | None = None
    aspect: Quartiles | None = None
    per_image: Quartiles | None = None
    contrast: Quartiles | None = None
    orientation: dict[str, float] = field(default_factory=dict)
    place: dict[str, float] = field(default_factory=dict)
    at_edge: float = 0.0


@dataclass(slots=True)
class _Samples:
    """Measurements of one class's boxes."""

    boxes: list[tuple[ImageRecord, Box]] = field(default_factory=list)
    contrasts: list[float] = field(default_factory=list)
    orientations: list[Orientation] = field(default_factory=list)


def workspace_facts(
    workspace: Workspace, book: ClassBook, progress: CountCallback | None = None
) -> dict[str, ClassFacts]:
    """Statistics of every class of the class book, by name, from the workspace's annotations.

    The test set is left out: descriptions written from it could not be evaluated on it.

    Raises:
        ClassBookError: the class book lacks a class that is annotated.
        ImageError: an image cannot be read.
    """
    labelled = [relabel_image(image, book.resolve) for image in workspace.annotations().values()]
    return measure_classes(labelled, book.names, progress)


def measure_classes(
    labelled: Iterable[LabelledImage],
    classes: Iterable[str],
    progress: CountCallback | None = None,
) -> dict[str, ClassFacts]:
    """Statistics of these classes, by name.

    Args:
        progress: called with (images opened, images to open).

    Raises:
        ImageError: an image cannot be read.
    """
    images = list(labelled)
    samples = {name: _Samples() for name in classes}
    for item in images:
        for annotation in item.annotations:
            samples[annotation.label].boxes.append((item.image, annotation.box))
    to_open = evenly_spaced([item for item in images if item.annotations], MAX_IMAGES)
    for done, item in enumerate(to_open, start=1):
        _measure_pixels(item, samples)
        if progress is not None:
            progress(done, len(to_open))
    return {name: _facts(name, of_class, len(images)) for name, of_class in samples.items()}


def _measure_pixels(labelled: LabelledImage, samples: dict[str, _Samples]) -> None:
    grey = _read_grey(labelled.image)
    boxes = [annotation.box for annotation in labelled.annotations]
    for annotation in labelled.annotations:
        of_class = samples[annotation.label]
        value = contrast(grey, annotation.box, boxes)
        if value is not None:
            of_class.contrasts.append(value)
        of_class.orientations.append(orientation(grey, annotation.box))


def _read_grey(image: ImageRecord) -> Grey:
    try:
        with Image.open(image.path) as file:
            part = file if image.region is None else file.crop(image.region)
            return np.asarray(part.convert("L"), dtype=np.float64)
    except OSError as error:
        raise ImageError(
            f"image {image.name} cannot be read: {error}", "Restore the workspace's images."
        ) from None


def _facts(name: str, samples: _Samples, labelled_images: int) -> ClassFacts:
    per_image = Counter(image.key for image, _ in samples.boxes)
    counts = (name, len(samples.boxes), len(per_image), labelled_images)
    if not samples.boxes:
        return ClassFacts(*counts)
    boxes = [box for _, box in samples.boxes]
    return ClassFacts(
        *counts,
        width=Quartiles.of([b.width for b in boxes]),
        height=Quartiles.of([b.height for b in boxes]),
        area_share=Quartiles.of([b.area / (i.width * i.height) for i, b in samples.boxes]),
        aspect=Quartiles.of([b.width / b.height for b in boxes]),
        per_image=Quartiles.of(list(per_image.values())),
        contrast=Quartiles.of(samples.contrasts) if samples.contrasts else None,
        orientation=_shares(samples.orientations),
        place=_shares([_ninth(image, box) for image, box in samples.boxes]),
        at_edge=sum(_is_at_edge(image, box) for image, box in samples.boxes) / len(boxes),
    )


def _shares(values: Sequence[str]) -> dict[str, float]:
    """Share of each value, the most frequent one first."""
    shares = {value: values.count(value) / len(values) for value in dict.fromkeys(values)}
    return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))


def _ninth(image: ImageRecord, box: Box) -> str:
    x, y = (box.x1 + box.x2) / 2 / image.width, (box.y1 + box.y2) / 2 / image.height
    row, column = (min(max(int(3 * share), 0), 2) for share in (y, x))
    return f"{_ROWS[row]} {_COLUMNS[column]}" if (row, column) != (1, 1) else "centre"


def _is_at_edge(image: ImageRecord, box: Box) -> bool:
    margin_x, margin_y = EDGE_MARGIN * image.width, EDGE_MARGIN * image.height
    return (
        box.x1 <= margin_x
        or box.y1 <= margin_y
        or box.x2 >= image.width - margin_x
        or box.y2 >= image.height - margin_y
    )
