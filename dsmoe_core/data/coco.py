"""Reader and writer of COCO detection JSON (https://cocodataset.org/#format-data).

Boxes in the file are [x, y, width, height] in pixels.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from dsmoe_core.atomic import atomic_write
from dsmoe_core.data.annotation_set import (
    AnnotationSet,
    ImageAnnotations,
    checked_box,
    checked_name,
    checked_size,
    refuse_duplicates,
)
from dsmoe_core.errors import FormatError
from dsmoe_core.schema import Annotation

_REMEDY = "Give a COCO detection file with 'images', 'annotations' and 'categories'."

Entry = dict[str, Any]


def read(path: Path) -> AnnotationSet:
    """Read a COCO file. Ids may be numbers or texts; classes keep the order of 'categories'.

    Crowd regions (``iscrowd: 1``) are left out and counted in the notes, because they outline a group and not
    a single defect.

    Raises:
        FormatError: the file is missing or not in COCO format; names the file, the entry and the missing key.
        BoxError: a box is wrong; names file, image and annotation id.
    """
    content = _load(path)
    entries, annotations, categories = (_section(content, s, path) for s in _SECTIONS)
    names = {_id(c, path, "category"): _name(c, path) for c in _unique(categories, "category", path)}
    refuse_duplicates(names.values(), "class", path)
    sizes: dict[str, tuple[str, int, int]] = {}
    for image in _unique(entries, "image", path):
        key = _id(image, path, "image")
        name = checked_name(_get(image, "file_name", path, f"image {key}"), path, f"image {key}")
        owner = f"image {key} ({name})"
        width, height = _get(image, "width", path, owner), _get(image, "height", path, owner)
        sizes[key] = (name, *checked_size(width, height, path, owner))
    refuse_duplicates((name for name, _, _ in sizes.values()), "file name", path)
    boxes: dict[str, list[Annotation]] = defaultdict(list)
    crowds = 0
    for entry in _unique(annotations, "annotation", path):
        if entry.get("iscrowd", 0):
            crowds += 1
            continue
        key, annotation = _annotation(entry, sizes, names, path)
        boxes[key].append(annotation)
    notes = (
        (f"{path}: {crowds} crowd regions left out, because they are not single defects",) if crowds else ()
    )
    images = tuple(ImageAnnotations(n, w, h, tuple(boxes[key])) for key, (n, w, h) in sizes.items())
    return AnnotationSet(tuple(names.values()), images, notes)


_SECTIONS = ("images", "annotations", "categories")


def _load(path: Path) -> Entry:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}", "Check the path.") from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not JSON: {error}", _REMEDY) from None
    if not isinstance(content, dict):
        raise FormatError(f"{path} is not a COCO file: expected an object, got {_kind(content)}", _REMEDY)
    return content


def _section(content: Entry, section: str, path: Path) -> list[Entry]:
    if section not in content:
        raise FormatError(f"{path} is not a COCO file: it lacks the key '{section}'", _REMEDY)
    entries = content[section]
    if not isinstance(entries, list):
        raise FormatError(
            f"{path} is not a COCO file: '{section}' is {_kind(entries)}; expected a list", _REMEDY
        )
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise FormatError(f"{path}: {section}[{i}] is {_kind(entry)}; expected an object", _REMEDY)
    return entries


def _kind(value: object) -> str:
    return {"dict": "an object", "list": "a list", "NoneType": "null"}.get(
        type(value).__name__, repr(value)[:40]
    )


def _get(entry: Entry, key: str, path: Path, owner: str) -> Any:
    if key not in entry:
        raise FormatError(f"{path}: {owner} lacks the key '{key}'", _REMEDY)
    return entry[key]


def _id(entry: Entry, path: Path, owner: str, key: str = "id") -> str:
    value = _get(entry, key, path, owner)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise FormatError(f"{path}: {owner} has {key} {value!r}; expected a whole number", _REMEDY)
    return str(value)


def _unique(entries: list[Entry], what: str, path: Path) -> list[Entry]:
    refuse_duplicates((_id(entry, path, what) for entry in entries), f"{what} id", path)
    return entries


def _name(category: Entry, path: Path) -> str:
    name = _get(category, "name", path, f"category {category['id']}")
    if not isinstance(name, str) or not name.strip():
        raise FormatError(
            f"{path}: category {category['id']} has name {name!r}; expected text", "Give the class a name."
        )
    return name.strip()


def _annotation(
    entry: Entry, sizes: dict[str, tuple[str, int, int]], names: dict[str, str], path: Path
) -> tuple[str, Annotation]:
    owner = f"annotation {entry['id']}"
    image_id = _id(entry, path, owner, "image_id")
    if image_id not in sizes:
        raise FormatError(
            f"{path}: {owner} has image_id {image_id}, but no image has this id", "Correct the image_id."
        )
    name, width, height = sizes[image_id]
    owner = f"image {name}, annotation {entry['id']}"
    category = _id(entry, path, owner, "category_id")
    if category not in names:
        raise FormatError(
            f"{path}: {owner} has category_id {category}; known are {', '.join(names) or 'none'}",
            "Correct the category_id or add the category.",
        )
    raw = _get(entry, "bbox", path, owner)
    is_quadruple = isinstance(raw, list) and len(raw) == 4
    if not is_quadruple or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in raw):
        raise FormatError(
            f"{path}: {owner} has bbox {raw!r}; expected [x, y, width, height]", "Correct the bbox."
        )
    try:
        x, y, w, h = (float(v) for v in raw)
    except OverflowError:
        raise FormatError(
            f"{path}: {owner} has a bbox with a number that is too large", "Correct the bbox."
        ) from None
    return image_id, Annotation(
        checked_box((x, y, x + w, y + h), (width, height), path, owner), names[category]
    )


def write(annotations: AnnotationSet, path: Path) -> None:
    """Write a COCO file atomically; ids count from 1 in the order of the set.

    Raises:
        PrerequisiteError: the disk is full.
    """
    ids = {name: i for i, name in enumerate(annotations.classes, start=1)}
    images: list[Entry] = []
    boxes: list[Entry] = []
    for number, image in enumerate(annotations.images, start=1):
        images.append({"id": number, "file_name": image.name, "width": image.width, "height": image.height})
        for annotation in image.annotations:
            box = annotation.box
            boxes.append(
                {
                    "id": len(boxes) + 1,
                    "image_id": number,
                    "category_id": ids[annotation.label],
                    "bbox": [box.x1, box.y1, box.width, box.height],
                    "area": box.area,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i, "name": name} for name, i in ids.items()]
    content = {"images": images, "annotations": boxes, "categories": categories}
    atomic_write(path, json.dumps(content, ensure_ascii=False))
