"""Reader and writer of YOLO labels: one ``.txt`` file per image with a line per box.

A line is ``class cx cy width height``, in fractions of the upright image's size, as in Ultralytics. The files
do not state image sizes, so reading needs the images. An image without a label file is unlabelled; one with
an empty file has no defect.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import yaml

from dsmoe_core.data.annotation_set import AnnotationSet, ImageAnnotations, checked_box, refuse_duplicates
from dsmoe_core.data.decode import upright_size
from dsmoe_core.data.image_formats import image_suffixes
from dsmoe_core.errors import FormatError, ImageError
from dsmoe_core.schema import Annotation

_REMEDY = "Give a YOLO folder: data.yaml (with 'names') or classes.txt, and labels/*.txt."


def read(folder: Path, images: Path) -> AnnotationSet:
    """Read the labels of the images in ``images``, including sub-folders.

    Labels are in ``folder/labels`` (or in ``folder`` itself), in the sub-folder of their image. Where
    ``images`` is a sub-folder of ``folder/images``, such as ``train``, labels are in the same sub-folder of
    ``labels``.

    Raises:
        FormatError: there are no class names or no label file for any image, or a line is not a box.
        BoxError: a box is wrong; names file, image and line.
    """
    classes = _classes(folder)
    root = _labels_root(folder, images)
    labels = sorted(p for p in root.rglob("*.txt") if p.name != "classes.txt")
    images_by_stem: dict[str, list[Path]] = {}
    suffixes = image_suffixes()
    for path in sorted(p for p in images.rglob("*") if p.suffix.lower() in suffixes):
        images_by_stem.setdefault(str(path.relative_to(images).with_suffix("")), []).append(path)
    entries, notes = [], []
    for label in labels:
        candidates = images_by_stem.get(str(label.relative_to(root).with_suffix("")), [])
        if len(candidates) > 1:
            names = f"{candidates[0].name} and {candidates[1].name}"
            raise FormatError(f"{label} matches two images, {names}", "Rename one image.")
        if not candidates:
            notes.append(f"{label} left out: it has no image in {images}")
            continue
        try:
            size = upright_size(candidates[0])
        except (ImageError, OSError) as error:
            notes.append(f"{label} left out: its image cannot be read ({error})")
            continue
        name = candidates[0].relative_to(images).as_posix()
        entries.append(ImageAnnotations(name, *size, _boxes(label, name, size, classes)))
    if not entries:
        raise FormatError(f"{folder} has no label file for any image in {images}", _REMEDY)
    return AnnotationSet(classes, tuple(entries), tuple(notes))


def _labels_root(folder: Path, images: Path) -> Path:
    base = folder / "labels" if (folder / "labels").is_dir() else folder
    try:
        return base / images.resolve().relative_to((folder / "images").resolve())
    except ValueError:  # the images are in another folder
        return base


def _classes(folder: Path) -> tuple[str, ...]:
    for path in (folder / "data.yaml", folder / "labels" / "classes.txt", folder / "classes.txt"):
        if not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise FormatError(f"{path} cannot be read: {error}", "Check the file.") from None
        names = _yaml_names(text, path) if path.suffix == ".yaml" else text.split("\n")
        names = [name.strip() for name in names if name.strip()]
        if not names:
            raise FormatError(f"{path} contains no class name", _REMEDY)
        refuse_duplicates(names, "class", path)
        return tuple(names)
    raise FormatError(f"{folder} has neither data.yaml nor classes.txt", _REMEDY)


def _yaml_names(text: str, path: Path) -> list[str]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise FormatError(f"{path} is not YAML: {error}", _REMEDY) from None
    if not isinstance(content, dict) or "names" not in content:
        raise FormatError(f"{path} lacks the key 'names'", _REMEDY)
    names = content["names"]
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise FormatError(f"{path} has names numbered {list(names)}; expected 0, 1, 2, ...", _REMEDY)
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not all(type(name) in (str, int) for name in names):
        raise FormatError(f"{path} has names {names!r}; expected a list of names", _REMEDY)
    return [str(name) for name in names]


def _boxes(path: Path, image: str, size: tuple[int, int], classes: tuple[str, ...]) -> tuple[Annotation, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} cannot be read: {error}", "Check the file.") from None
    width, height = size
    boxes = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        owner = f"image {image}, line {number}"
        label, (cx, cy, w, h) = _parse_line(line, path, owner, classes)
        x, y, half_w, half_h = cx * width, cy * height, w * width / 2, h * height / 2
        corners = (x - half_w, y - half_h, x + half_w, y + half_h)
        boxes.append(Annotation(checked_box(corners, size, path, owner), label))
    return tuple(boxes)


def _parse_line(
    line: str, path: Path, owner: str, classes: tuple[str, ...]
) -> tuple[str, tuple[float, float, float, float]]:
    columns = line.split()
    if len(columns) != 5:
        raise FormatError(
            f"{path}: {owner} has {len(columns)} columns; expected 5: class cx cy width height",
            "Export boxes, not polygons or predictions.",
        )
    try:
        index, (cx, cy, w, h) = int(columns[0]), (float(c) for c in columns[1:])
    except ValueError:
        raise FormatError(f"{path}: {owner} has {line.strip()[:60]!r}; expected numbers", _REMEDY) from None
    if not 0 <= index < len(classes):
        raise FormatError(
            f"{path}: {owner} has class {index}; known are 0 to {len(classes) - 1}", "Correct the class."
        )
    return classes[index], (cx, cy, w, h)


def write(annotations: AnnotationSet, folder: Path) -> None:
    """Write ``data.yaml`` and ``labels/*.txt``. The images themselves belong in ``folder/images``.

    Raises:
        FormatError: two image names differ only in their suffix, so they would share a label file.
    """
    targets = [PurePosixPath(p.name).with_suffix(".txt") for p in annotations.images]
    refuse_duplicates((str(t) for t in targets), "file", folder)
    indices = {name: i for i, name in enumerate(annotations.classes)}
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    header = {"path": ".", "train": "images", "val": "images", "names": dict(enumerate(annotations.classes))}
    (folder / "data.yaml").write_text(
        yaml.safe_dump(header, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
    for image, target in zip(annotations.images, targets, strict=True):
        path = folder / "labels" / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(_line(a, image, indices) for a in image.annotations), encoding="utf-8")


def _line(annotation: Annotation, image: ImageAnnotations, indices: dict[str, int]) -> str:
    box = annotation.box
    fractions = (
        (box.x1 + box.x2) / 2 / image.width,
        (box.y1 + box.y2) / 2 / image.height,
        box.width / image.width,
        box.height / image.height,
    )
    return " ".join([str(indices[annotation.label]), *(f"{fraction:.12g}" for fraction in fractions)]) + "\n"
