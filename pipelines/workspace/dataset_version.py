"""Dataset versions: immutable manifests of labelled images, identified by a hash of their content.

A version has its images by sha256 with their boxes, its parent, the fixed test set and the version of the
class book. Pre-annotations that no annotator checked are not part of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError

from dsmoe_core.atomic import atomic_write
from dsmoe_core.config import Frozen
from dsmoe_core.digest import canonical_json, content_id
from dsmoe_core.errors import BoxError, WorkspaceError
from dsmoe_core.schema import Annotation, Box, ImageRecord, LabelledImage, Vocabulary

Corners = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels."""


class LabelledBox(Frozen):
    """A box (x1, y1, x2, y2) in pixels and its class."""

    box: Corners
    label: str


class Item(Frozen):
    """One image of a version; ``key`` is the sha256 of its bytes."""

    key: str
    name: str
    width: int
    height: int
    boxes: tuple[LabelledBox, ...]


class DatasetVersion(Frozen):
    """One immutable version; ``id`` is the hash of all other fields.

    Attributes:
        parent: the previous version; None for the first one and for a test set.
        test_set: id of the fixed test set that belongs to it; None for a test set itself.
        class_book: version of the class book that the labels are names of.
        train: labelled images ordered by key; of a test set, its images.
    """

    id: str
    parent: str | None = None
    test_set: str | None = None
    class_book: str
    classes: tuple[str, ...]
    train: tuple[Item, ...] = Field(repr=False)

    @classmethod
    def of(
        cls,
        labelled: Sequence[LabelledImage],
        vocabulary: Vocabulary,
        *,
        parent: str | None = None,
        test_set: str | None = None,
    ) -> Self:
        """The version of these labels; their order does not change the id.

        Raises:
            BoxError: a box is outside its image.
            ClassBookError: the class book does not have a label.
        """
        draft = cls(
            id="",
            parent=parent,
            test_set=test_set,
            class_book=vocabulary.version,
            classes=vocabulary.names,
            train=tuple(_item(p, vocabulary) for p in sorted(labelled, key=lambda p: p.image.key)),
        )
        return draft.model_copy(update={"id": draft.content()})

    def content(self) -> str:
        """The hash of all fields but the id."""
        return content_id(self.model_dump(mode="json", exclude={"id"}))

    @property
    def boxes(self) -> int:
        """Number of boxes on all images."""
        return sum(len(item.boxes) for item in self.train)

    def labelled(self, images: Mapping[str, ImageRecord]) -> list[LabelledImage]:
        """The labelled images.

        Args:
            images: images of the workspace by key.

        Raises:
            WorkspaceError: an image is missing in the workspace.
        """
        missing = [item.name for item in self.train if item.key not in images]
        if missing:
            raise WorkspaceError(
                f"{len(missing)} image(s) of dataset version {self.id} are missing in the workspace, "
                f"such as {missing[0]}",
                "Restore the workspace's images.",
            )
        return [
            LabelledImage(images[i.key], tuple(Annotation(Box(*b.box), b.label) for b in i.boxes))
            for i in self.train
        ]

    def save(self, folder: Path) -> Path:
        """Write ``folder/ID.json`` unless it exists."""
        path = folder / f"{self.id}.json"
        if not path.exists():
            atomic_write(path, canonical_json(self.model_dump(mode="json")) + "\n")
        return path

    @classmethod
    def load(cls, folder: Path, version: str) -> Self:
        """Read a version and check its hash.

        Raises:
            WorkspaceError: it is missing, is not a manifest, or was changed.
        """
        path = folder / f"{version}.json"
        try:
            loaded = cls.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise WorkspaceError(f"dataset version {version} is not in {folder}", "Restore it.") from error
        except (ValueError, ValidationError) as error:
            raise WorkspaceError(f"{path} is not a dataset version", "Restore it from a copy.") from error
        if loaded.id != version or loaded.content() != version:
            raise WorkspaceError(
                f"{path} was changed: the hash of its content is {loaded.content()}, expected {version}",
                "Restore it from a copy; dataset versions are never edited.",
            )
        return loaded


def parents_first(versions: Mapping[str, DatasetVersion]) -> list[DatasetVersion]:
    """The versions in an order in which each comes after its parent; test sets first, ties by id.

    Args:
        versions: by id; a parent may be missing.
    """

    def depth(version: DatasetVersion) -> int:
        count, parent = 0, version.parent
        while parent is not None and parent in versions:
            count, parent = count + 1, versions[parent].parent
        return count

    return sorted(versions.values(), key=lambda v: (v.test_set is not None, depth(v), v.id))


def rounded_corners(box: Box) -> Corners:
    """The corners of a box as a dataset version has them, to a thousandth of a pixel."""
    return round(box.x1, 3), round(box.y1, 3), round(box.x2, 3), round(box.y2, 3)


def _item(labelled: LabelledImage, vocabulary: Vocabulary) -> Item:
    image = labelled.image
    boxes = []
    for annotation in labelled.annotations:
        vocabulary.index(annotation.label)
        boxes.append(LabelledBox(box=_corners(annotation, image), label=annotation.label))
    boxes.sort(key=lambda b: (b.box, b.label))
    return Item(key=image.key, name=image.name, width=image.width, height=image.height, boxes=tuple(boxes))


def _corners(annotation: Annotation, image: ImageRecord) -> Corners:
    """The box clipped to its image and rounded to a thousandth of a pixel."""
    outside = BoxError(
        f"box {annotation.box.corners} ({annotation.label}) is outside its image {image.name}, "
        f"which is {image.width} x {image.height}",
        "Correct or remove this box.",
    )
    if not annotation.box.inside(image.width, image.height):
        raise outside
    try:
        box = annotation.box.clipped(image.width, image.height)
        return Box(*rounded_corners(box)).corners
    except BoxError:
        raise outside from None
