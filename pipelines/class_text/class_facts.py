"""What is measured of each class's annotated boxes: size, aspect, contrast, orientation, place, number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from PIL import Image

from dsmoe_core.data.box_stats import Grey, Orientation, contrast, orientation
from dsmoe_core.data.external_images import evenly
from dsmoe_core.errors import ImageError
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import Box, ImageRecord, LabelledImage
from pipelines.datasets.relabel import in_book_classes
from pipelines.workspace.workspace import Workspace
from prompts.class_book import ClassBook

MAX_OPENED = 500
"""Images that are looked into for contrast and orientation; sizes and places are taken from all."""
AT_EDGE = 0.03
"""A box that comes so near to its image's edge, as a share of the image's side, lies at the edge."""
_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")


class Quartiles(NamedTuple):
    """A quarter of the values is below ``low``, half of them below ``middle``, a quarter above ``high``."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quartiles:
        """Of at least one value."""
        return cls(*map(float, np.percentile(values, (25, 50, 75))))


@dataclass(frozen=True, slots=True)
class ClassFacts:
    """What was measured of one class.

    Attributes:
        boxes: how many there are; without any the figures are None or empty.
        images: on which there is at least one.
        labelled: images that were looked through.
        width, height: pixels.
        share: of the image's area, 0 to 1.
        aspect: width over height.
        each: boxes on an image that has one.
        contrast: mean grey inside a box less that around it, in grey levels of 255; negative: darker inside.
        orientation: share of the boxes whose lines run so.
        place: share of the boxes whose centre lies in this ninth of the image, such as "top left".
        at_edge: share of the boxes that touch the image's edge, or nearly so.
    """

    name: str
    boxes: int
    images: int
    labelled: int
    width: Quartiles | None = None
    height: Quartiles | None = None
    share: Quartiles | None = None
    aspect: Quartiles | None = None
    each: Quartiles | None = None
    contrast: Quartiles | None = None
    orientation: dict[str, float] = field(default_factory=dict)
    place: dict[str, float] = field(default_factory=dict)
    at_edge: float = 0.0


@dataclass(slots=True)
class _Boxes:
    """The boxes of one class while they are gathered."""

    placed: list[tuple[ImageRecord, Box]] = field(default_factory=list)
    contrasts: list[float] = field(default_factory=list)
    orientations: list[Orientation] = field(default_factory=list)


def of_workspace(
    workspace: Workspace, book: ClassBook, progress: CountCallback | None = None
) -> dict[str, ClassFacts]:
    """Facts of every class of this class book, from what people labelled.

    The test set is left out: words that are made to fit it could not be judged on it.

    Raises:
        ClassBookError: the class book lacks a class that is annotated.
        ImageError: an image cannot be read.
    """
    labelled = [in_book_classes(p, book.resolve) for p in workspace.annotations().values()]
    return measure(labelled, book.names, progress)


def measure(
    labelled: Iterable[LabelledImage],
    classes: Iterable[str],
    progress: CountCallback | None = None,
) -> dict[str, ClassFacts]:
    """Facts of these classes, by name.

    Args:
        progress: called with (images opened, images to open).

    Raises:
        ImageError: an image cannot be read.
    """
    images = list(labelled)
    gathered = {name: _Boxes() for name in classes}
    for one in images:
        for annotation in one.annotations:
            gathered[annotation.label].placed.append((one.image, annotation.box))
    opened = evenly([p for p in images if p.annotations], MAX_OPENED)
    for done, one in enumerate(opened, start=1):
        _look_into(one, gathered)
        if progress is not None:
            progress(done, len(opened))
    return {name: _facts(name, boxes, len(images)) for name, boxes in gathered.items()}


def _look_into(labelled: LabelledImage, gathered: dict[str, _Boxes]) -> None:
    grey = _grey(labelled.image)
    for annotation in labelled.annotations:
        boxes = gathered[annotation.label]
        found = contrast(grey, annotation.box, [a.box for a in labelled.annotations])
        boxes.contrasts += [] if found is None else [found]
        boxes.orientations.append(orientation(grey, annotation.box))


def _grey(image: ImageRecord) -> Grey:
    try:
        with Image.open(image.path) as opened:
            part = opened if image.region is None else opened.crop(image.region)
            return np.asarray(part.convert("L"), dtype=np.float64)
    except OSError as error:
        raise ImageError(
            f"image {image.name} cannot be read: {error}", "Restore the workspace's images."
        ) from None


def _facts(name: str, boxes: _Boxes, labelled: int) -> ClassFacts:
    counts: dict[str, int] = {}
    for image, _ in boxes.placed:
        counts[image.key] = counts.get(image.key, 0) + 1
    head = (name, len(boxes.placed), len(counts), labelled)
    if not boxes.placed:
        return ClassFacts(*head)
    only = [box for _, box in boxes.placed]
    return ClassFacts(
        *head,
        width=Quartiles.of([b.width for b in only]),
        height=Quartiles.of([b.height for b in only]),
        share=Quartiles.of([b.area / (p.width * p.height) for p, b in boxes.placed]),
        aspect=Quartiles.of([b.width / b.height for b in only]),
        each=Quartiles.of(list(counts.values())),
        contrast=Quartiles.of(boxes.contrasts) if boxes.contrasts else None,
        orientation=_shares(boxes.orientations),
        place=_shares([_ninth(image, box) for image, box in boxes.placed]),
        at_edge=sum(_at_edge(image, box) for image, box in boxes.placed) / len(only),
    )


def _shares(values: Sequence[str]) -> dict[str, float]:
    """The share of each value, the most frequent one first."""
    counted = {value: values.count(value) / len(values) for value in dict.fromkeys(values)}
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def _ninth(image: ImageRecord, box: Box) -> str:
    x, y = (box.x1 + box.x2) / 2 / image.width, (box.y1 + box.y2) / 2 / image.height
    row, column = (min(max(int(3 * share), 0), 2) for share in (y, x))
    return f"{_ROWS[row]} {_COLUMNS[column]}" if (row, column) != (1, 1) else "centre"


def _at_edge(image: ImageRecord, box: Box) -> bool:
    near_x, near_y = AT_EDGE * image.width, AT_EDGE * image.height
    return (
        box.x1 <= near_x
        or box.y1 <= near_y
        or box.x2 >= image.width - near_x
        or box.y2 >= image.height - near_y
    )
