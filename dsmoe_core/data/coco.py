"""Reader and writer of COCO detection JSON (https://cocodataset.org/#format-data).

Boxes in the file are [x, y, width, height] in pixels. Where an annotation has no box, the box around its
polygons or its run-length encoded mask is taken.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsmoe_core.atomic import atomic_write
from dsmoe_core.data.annotation_set import AnnotationSet
from dsmoe_core.data.image_index import ImageIndex
from dsmoe_core.data.import_account import Conversion, Reason
from dsmoe_core.data.label_source import (
    DEFAULT_OPTIONS,
    ReadOptions,
    bounds,
    choose_split,
    class_name,
    number,
    pixel_size,
    refuse_predictions,
    split_of,
    stated_name,
)
from dsmoe_core.data.segmentation import UnusableShape, segmentation_corners
from dsmoe_core.data.set_builder import AnnotationSetBuilder, Corners, ImageDraft
from dsmoe_core.data.text_file import decode_text
from dsmoe_core.errors import FormatError

_REMEDY = "Give a COCO detection file with 'images', 'annotations' and 'categories'."
_SECTIONS = ("images", "annotations", "categories")
_NEGATIVE = {"unlabelled": "negative"}
"""In 'info' of files that we write: images without a box are free of defects."""

Entry = dict[str, Any]


def read(path: Path, images: Path | None = None, options: ReadOptions = DEFAULT_OPTIONS) -> AnnotationSet:
    """Read a COCO file, or the COCO files in a folder.

    Ids may be numbers or texts; classes keep the order of 'categories'. A category without boxes that is only
    the supercategory of others, as Roboflow writes one, is not a class.

    Args:
        path: the file or folder.
        images: folder of images, for image sizes that the file does not state, and for names that it states
            relative to another folder.
        options: which split is read, and whether predictions are accepted.

    Raises:
        FormatError: there is no COCO file, or one is not in COCO format, or it has predictions.
    """
    builder = AnnotationSetBuilder()
    root = path if path.is_dir() else path.parent
    files = coco_files(path) if path.is_dir() else [path]
    if not files:
        raise FormatError(f"{path} has no COCO file; expected a .json file with 'images'", _REMEDY)
    chosen = choose_split({f: split_of(f.relative_to(root)) for f in files}, options, path, builder)
    index = ImageIndex(images)
    states_negatives = [_FileReader(file, root, index, builder, options).read() for file in chosen]
    builder.states_negatives = all(states_negatives)
    return builder.build()


def has_annotations(path: Path) -> bool:
    """Whether a path is a file other than YAML, or a folder with a COCO file."""
    return bool(coco_files(path)) if path.is_dir() else path.suffix.lower() not in (".yaml", ".yml")


def coco_files(folder: Path) -> list[Path]:
    """The COCO detection files in a folder and its sub-folders, in the order of their names."""
    candidates = sorted(p for p in folder.rglob("*.json") if not p.name.startswith("."))
    return [p for p in candidates if _is_detection_file(p)]


def _is_detection_file(path: Path) -> bool:
    """Whether a JSON file has the three sections of a COCO file, by their names.

    The caption and keypoint files of the COCO data set have them too, and are known by their file names.
    """
    if path.name.startswith(("captions_", "person_keypoints_", "panoptic_", "image_info_")):
        return False
    try:
        text = decode_text(path.read_bytes())
    except OSError:
        return False
    return all(f'"{section}"' in text for section in _SECTIONS)


class _FileReader:
    """Reads one COCO file into a builder.

    Args:
        root: folder of the data set, which messages name files relative to.
    """

    def __init__(
        self,
        path: Path,
        root: Path,
        index: ImageIndex,
        builder: AnnotationSetBuilder,
        options: ReadOptions,
    ) -> None:
        self.path = path
        self.source = path.relative_to(root).as_posix()
        self.index = index
        self.builder = builder
        self.options = options
        self.names: dict[str, str] = {}
        self.drafts: dict[str, ImageDraft] = {}
        self.left_out: set[str] = set()

    def read(self) -> bool:
        """Read the file; returns whether it states that images without a box are free of defects."""
        content = _load(self.path)
        images, annotations, categories = (_section(content, s, self.path) for s in _SECTIONS)
        if not self.options.accept_predictions:
            scored = [self._owner(a, i) for i, a in enumerate(annotations) if _has_score(a)]
            refuse_predictions(scored, self.path)
        objects = [a for a in annotations if isinstance(a, dict)]
        self._read_categories(categories, {_key(a.get("category_id")) for a in objects})
        self._read_images(images, Counter(_key(a.get("image_id")) for a in objects))
        for i, entry in enumerate(annotations):
            self._read_annotation(entry, self._owner(entry, i))
        info = content.get("info")
        return isinstance(info, dict) and info.get("unlabelled") == _NEGATIVE["unlabelled"]

    def _owner(self, entry: object, position: int) -> str:
        key = _key(entry.get("id")) if isinstance(entry, dict) else None
        return f"{self.source}, " + (f"annotations[{position}]" if key is None else f"annotation {key}")

    def _read_categories(self, categories: Sequence[object], used: set[str | None]) -> None:
        """Names by id. Two ids may have the same name, two names may not have the same id."""
        entries = [c for c in categories if isinstance(c, dict)]
        parents = {(class_name(c.get("supercategory")), class_name(c.get("name"))) for c in entries}
        classes = []
        for entry in entries:
            key, name = _key(entry.get("id")), class_name(entry.get("name"))
            if key is None:
                self.builder.note(f"{self.source}: category {name!r} has no id and is left out")
                continue
            if self.names.setdefault(key, name) != name:
                raise FormatError(
                    f"{self.path}: category id {key} has the names {self.names[key]!r} and {name!r}; "
                    "expected one name for each id",
                    "Give every category an id of its own.",
                )
            is_parent = any(parent == name != child for parent, child in parents)
            has_parent = class_name(entry.get("supercategory")).lower() not in ("", "none")
            if key not in used and is_parent and not has_parent:
                self.builder.note(
                    f"category {name!r} has no box and only groups other categories, so it is not a class"
                )
            elif name:
                classes.append(name)
        self.builder.declare(classes)

    def _read_images(self, images: Sequence[object], boxes: Counter[str | None]) -> None:
        """Image drafts by id; ``boxes`` is the number of annotations by image id."""
        entries = [e if isinstance(e, dict) else {} for e in images]
        stated = [stated_name(e.get("file_name")) for e in entries]
        names = dict(
            zip(
                (n for n in stated if n is not None),
                self.index.resolved_names([n for n in stated if n is not None], self._bases()),
                strict=True,
            )
        )
        keys = [_key(e.get("id")) for e in entries]
        ids: dict[str | None, set[str | None]] = {}
        for key, name in zip(keys, stated, strict=True):
            ids.setdefault(key, set()).add(name)
        for i, (entry, key, raw) in enumerate(zip(entries, keys, stated, strict=True)):
            where = f"{self.source}, " + (f"images[{i}]" if key is None else f"image {key}")
            name = names[raw] if raw is not None else ""
            size = pixel_size(entry.get("width"), entry.get("height")) or self.index.size(name)
            reason = _image_fault(entry, key, name, size, len(ids[key]))
            if reason is None and (key in self.drafts or key in self.left_out):
                self.builder.leave_out_image(name, where, Reason.DUPLICATE_ENTRY)
            elif reason is None and size is not None and key is not None:
                self.drafts[key] = self.builder.image(name, where, size)
            elif reason is not None:
                first = key is not None and key not in self.left_out and key not in self.drafts
                detail = f"file_name {entry.get('file_name')!r:.80}" if reason is Reason.NO_NAME else ""
                self.builder.leave_out_image(name, where, reason, detail, boxes[key] if first else 0)
                if key is not None:
                    self.left_out.add(key)

    def _bases(self) -> list[Path]:
        """Folders that exporters state image names relative to, other than the folder of images."""
        folder = self.path.resolve().parent
        subset = self.path.stem.partition("_")[2]  # CVAT: instances_SUBSET.json
        outer = folder.parent
        bases = [folder, folder / "images", outer, outer / "images"]
        return [*bases, outer / "images" / subset, outer / subset] if subset else bases

    def _read_annotation(self, entry: object, owner: str) -> None:
        if not isinstance(entry, dict):
            self.builder.leave_out_box(owner, Reason.NOT_AN_ENTRY, f"{entry!r:.60}")
            return
        key = _key(entry.get("image_id"))
        if key is not None and key in self.left_out and key not in self.drafts:
            return  # counted with its image
        draft = None if key is None else self.drafts.get(key)
        if draft is None:
            detail = f"image_id {entry.get('image_id')!r:.60}"
            self.builder.leave_out_box(owner, Reason.UNKNOWN_IMAGE, detail)
            return
        category = _key(entry.get("category_id"))
        label = None if category is None else self.names.get(category)
        if not label:
            reason = Reason.UNKNOWN_CLASS if label is None else Reason.BLANK_CLASS
            draft.leave_out_box(owner, reason, f"category_id {entry.get('category_id')!r:.60}")
            return
        try:
            corners, conversions = _corners(entry, draft.size)
        except UnusableShape as shape:
            draft.leave_out_box(owner, shape.reason, shape.detail)
        else:
            draft.add_box(corners, label, owner, conversions)


def _image_fault(
    entry: Entry, key: str | None, name: str, size: tuple[int, int] | None, names: int
) -> Reason | None:
    """Why an image entry cannot be taken; ``names`` is the number of different names with its id."""
    if not entry or key is None:
        return Reason.NOT_AN_ENTRY
    if names > 1:
        return Reason.DUPLICATE_ID
    if not name:
        return Reason.NO_NAME
    return Reason.NO_SIZE if size is None else None


def _corners(entry: Entry, size: tuple[int, int]) -> tuple[Corners, list[Conversion]]:
    """The corners of an annotation, and how they were obtained.

    Raises:
        UnusableShape: it has neither a box nor a polygon nor a mask that can be used.
    """
    crowd = [Conversion.CROWD] if entry.get("iscrowd") in (1, True, "1") else []
    raw = entry.get("bbox")
    values = [number(v) for v in raw] if isinstance(raw, list) else []
    box = tuple(v for v in values if v is not None)
    if len(box) == 4 == len(values) and box[2] != 0 and box[3] != 0:
        if not all(map(math.isfinite, box)):
            raise UnusableShape(Reason.NOT_FINITE, f"bbox {raw!r:.80}")
        x, y, w, h = box
        turned = [Conversion.TURNED] if w < 0 or h < 0 else []
        return bounds([(x, y), (x + w, y + h)]), [*crowd, *turned]
    if entry.get("segmentation"):
        corners, conversion = segmentation_corners(entry["segmentation"], size)
        return corners, [*crowd, conversion]
    if not raw:
        raise UnusableShape(Reason.NO_BOX)
    reason = Reason.NO_AREA if len(box) == 4 == len(values) else Reason.NOT_NUMBERS
    raise UnusableShape(reason, f"bbox {raw!r:.80}")


def _has_score(entry: object) -> bool:
    if not isinstance(entry, dict):
        return False
    score = entry.get("score")
    return "probabilities" in entry or (isinstance(score, int | float) and not isinstance(score, bool))


def _key(value: object) -> str | None:
    """An id as text, so that 7 and "7" are the same; None if it is not an id."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else None
    return str(value).strip() or None


def _load(path: Path) -> Entry:
    try:
        content = json.loads(decode_text(path.read_bytes()))
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}", "Check the path.") from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not JSON: {error}", _REMEDY) from None
    if isinstance(content, list):
        raise _list_error(content, path)
    if not isinstance(content, dict):
        raise FormatError(f"{path} is not a COCO file: expected an object, got {_kind(content)}", _REMEDY)
    return content


def _list_error(content: list[Any], path: Path) -> FormatError:
    """The error for a file that is a list: COCO results, tasks of Label Studio, or something else."""
    first = content[0] if content and isinstance(content[0], dict) else {}
    if "score" in first:
        return FormatError(
            f"{path} is a list of {len(content)} detections with scores; they are predictions of a model",
            "Give labels, with 'images', 'annotations' and 'categories'.",
        )
    if "data" in first and "annotations" in first:
        return FormatError(
            f"{path} is a list of Label Studio tasks; expected a COCO file",
            "Export the project as COCO, Pascal VOC or YOLO.",
        )
    return FormatError(f"{path} is not a COCO file: expected an object, got a list", _REMEDY)


def _section(content: Entry, section: str, path: Path) -> list[Any]:
    if section not in content:
        raise FormatError(f"{path} is not a COCO file: it lacks the key '{section}'", _REMEDY)
    entries = content[section]
    if not isinstance(entries, list):
        raise FormatError(
            f"{path} is not a COCO file: '{section}' is {_kind(entries)}; expected a list", _REMEDY
        )
    return entries


def _kind(value: object) -> str:
    names = {"dict": "an object", "list": "a list", "NoneType": "null"}
    return names.get(type(value).__name__, repr(value)[:40])


def write(annotations: AnnotationSet, path: Path, *, first_category: int = 1) -> None:
    """Write a COCO file atomically; ids count from 1 in the order of the set.

    Args:
        first_category: id of the first category; trainers that take the ids as class numbers need 0.

    Raises:
        PrerequisiteError: the disk is full.
    """
    ids = {name: i for i, name in enumerate(annotations.classes, start=first_category)}
    images: list[Entry] = []
    boxes: list[Entry] = []
    for number_, image in enumerate(annotations.images, start=1):
        images.append({"id": number_, "file_name": image.name, "width": image.width, "height": image.height})
        for annotation in image.annotations:
            box = annotation.box
            boxes.append(
                {
                    "id": len(boxes) + 1,
                    "image_id": number_,
                    "category_id": ids[annotation.label],
                    "bbox": [box.x1, box.y1, box.width, box.height],
                    "area": box.area,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i, "name": name} for name, i in ids.items()]
    content = {"info": _NEGATIVE, "images": images, "annotations": boxes, "categories": categories}
    atomic_write(path, json.dumps(content, ensure_ascii=False))
