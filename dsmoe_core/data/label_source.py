"""What the label readers share: options, splits of a data set, names and numbers as files state them."""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePath, PurePosixPath

from dsmoe_core.data.set_builder import AnnotationSetBuilder
from dsmoe_core.errors import FormatError


class SplitChoice(StrEnum):
    """Which split is read where a folder holds several."""

    ALL = "all"
    TRAIN = "train"
    TEST = "test"
    """The test split, or the validation split where there is no test split."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How labels are read.

    Attributes:
        split: which split is read where a folder holds several.
        accept_predictions: read boxes with a score as labels. They are predictions of a model, so labels
            with scores are refused otherwise.
        strict: refuse labels from which anything would be clipped or left out.
        without: file or folder whose labels are not read, such as the test set in the same data set.
    """

    split: SplitChoice = SplitChoice.ALL
    accept_predictions: bool = False
    strict: bool = False
    without: Path | None = None


DEFAULT_OPTIONS = ReadOptions()

_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_PREFERRED = {SplitChoice.TRAIN: ("train",), SplitChoice.TEST: ("test", "val")}
_CONTROLS = frozenset(("Cc", "Cs", "Zl", "Zp"))
_WORD = re.compile(r"[a-z]+")


def split_of(path: PurePath) -> str | None:
    """The split that a label file belongs to by its folders or its name: train, val, test or None.

    Args:
        path: relative to the data set.
    """
    for part in path.parts[:-1]:
        split = _SPLITS.get(part.lower().rstrip("0123456789"))  # COCO: train2017
        if split is not None:
            return split
    words = (_SPLITS.get(word) for word in _WORD.findall(path.stem.lower()))
    return next((split for split in words if split is not None), None)


def choose_split(
    files: dict[Path, str | None], options: ReadOptions, source: Path, builder: AnnotationSetBuilder
) -> list[Path]:
    """The label files to read; a note says which splits there are if there are several.

    Args:
        files: split of each label file, see :func:`split_of`.
        source: the data set, for notes and messages.

    Raises:
        FormatError: the wanted split is missing.
    """
    choice = options.split
    splits = files
    if options.without is not None:
        excluded = (Path(os.path.abspath(options.without)), options.without.resolve())  # noqa: PTH100
        absolute = {p: Path(os.path.abspath(p)) for p in files}  # noqa: PTH100 - links are not followed
        splits = {p: s for p, s in files.items() if not any(absolute[p].is_relative_to(e) for e in excluded)}
        if len(splits) < len(files):
            builder.note(f"{source}: {len(files) - len(splits)} label files are in {options.without}")
    names = list(dict.fromkeys(split for split in splits.values() if split is not None))
    if len(names) < 2:
        return list(splits)
    if choice is SplitChoice.ALL:
        builder.note(f"{source} has the splits {', '.join(names)}; all of them are read")
        return list(splits)
    wanted = next((name for name in _PREFERRED[choice] if name in names), None)
    if wanted is None:
        raise FormatError(
            f"{source} has the splits {', '.join(names)}; expected {' or '.join(_PREFERRED[choice])}",
            "Give the file or folder of one split.",
        )
    builder.note(f"{source} has the splits {', '.join(names)}; only {wanted} is read")
    return [path for path, split in splits.items() if split == wanted]


def refuse_predictions(owners: Sequence[str], source: Path) -> None:
    """Refuse boxes with a score, if there are any.

    Args:
        owners: the entries with a score, for the message.
        source: the labels, for the message.

    Raises:
        FormatError: there is one.
    """
    if owners:
        raise FormatError(
            f"{source}: {len(owners)} boxes have a score, such as {owners[0]}; "
            "they are predictions of a model and not labels",
            "Give labels, or add --predictions-as-labels.",
        )


def stated_name(raw: object) -> str | None:
    """An image name with forward slashes; None if it is not text, empty or has control characters.

    Absolute paths and URLs are kept, since their last part can fit an image. Spaces of every width and the
    joiners of emoji are parts of usual names: macOS writes a narrow space into those of screenshots.
    """
    if not isinstance(raw, str) or not raw.strip():
        return None
    if any(unicodedata.category(character) in _CONTROLS for character in raw):
        return None
    name = raw.strip().replace("\\", "/")
    if PurePosixPath(name).name in ("", ".."):
        return None
    return name if "://" in name else str(PurePosixPath(name))


def class_name(raw: object) -> str:
    """A class name as text without surrounding spaces; empty if it is blank or not text."""
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        return ""
    return str(raw).strip().encode("utf-8", "replace").decode()


def number(raw: object) -> float | None:
    """A number, also where a file has it as text; None for everything else."""
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        return None
    try:
        return float(raw)
    except ValueError:
        return None
    except OverflowError:
        return float("inf")


def pixel_size(width: object, height: object) -> tuple[int, int] | None:
    """An image size in whole pixels above 0; None if it is not stated so."""
    values = (number(width), number(height))
    if any(v is None or not 1 <= v < 2**31 or v != int(v) for v in values):
        return None
    return int(values[0] or 0), int(values[1] or 0)


def bounds(points: Iterable[tuple[float, float]]) -> tuple[float, float, float, float]:
    """Corners of the box around at least one point; NaN if a coordinate is not finite."""
    xs, ys = zip(*points, strict=True)
    if not all(map(math.isfinite, (*xs, *ys))):
        return (math.nan,) * 4
    return min(xs), min(ys), max(xs), max(ys)
