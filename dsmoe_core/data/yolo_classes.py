"""Class names of a YOLO data set by their number, from the files of common exporters."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from dsmoe_core.data.label_source import class_name, split_of
from dsmoe_core.data.text_file import read_text
from dsmoe_core.errors import FormatError

REMEDY = "Give a YOLO folder: data.yaml (with 'names') or classes.txt, and labels/*.txt."


class YoloClasses(NamedTuple):
    """The class list of a YOLO data set.

    Attributes:
        names: by number. A blank name keeps its number; boxes cannot use it.
        settings: the other keys of data.yaml; empty without one.
        folder: of the class list, to which paths in ``settings`` are relative.
    """

    names: dict[int, str]
    settings: dict[str, Any]
    folder: Path


def find_classes(folder: Path) -> YoloClasses | None:
    """The class list in a folder or in ``labels``; for the folder of one split, also in the folder above.

    Raises:
        FormatError: a class list cannot be read, or two class lists in one folder differ.
    """
    places = [folder, folder / "labels"]
    above = folder
    while above.name == "labels" or split_of(Path(above.name) / "x") is not None:
        above = above.parent
        places.append(above)
    for place in places:
        lists = [
            (path, classes) for path in _candidates(place) if (classes := read_classes(path)) is not None
        ]
        for path, classes in lists[1:]:
            if classes.names != lists[0][1].names:
                raise FormatError(
                    f"{lists[0][0]} and {path.name} name different classes; expected one class list",
                    "Delete the list that is wrong.",
                )
        if lists:
            return lists[0][1]
    return None


def _candidates(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    yamls = sorted(p for p in folder.iterdir() if p.suffix in (".yaml", ".yml") and p.is_file())
    first = [p for p in yamls if p.stem == "data"]
    named = [folder / "obj.names", folder / "classes.txt"]
    return [*first, *(p for p in yamls if p not in first), *(p for p in named if p.is_file())]


def read_classes(path: Path) -> YoloClasses | None:
    """The class list in a file; None for a YAML file without 'names' that is not called data.yaml.

    Raises:
        FormatError: the file cannot be read, has no class name, or has the same name twice.
    """
    try:
        text = read_text(path)
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}", "Check the file.") from None
    if path.suffix not in (".yaml", ".yml"):
        lines = text.rstrip().split("\n")
        return YoloClasses(_checked(dict(enumerate(map(class_name, lines))), path), {}, path.parent)
    try:
        # As text: YAML would read the names yes, no and 0.5 as other types.
        content = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - builds texts, lists and mappings alone
    except yaml.YAMLError as error:
        raise FormatError(f"{path} is not YAML: {error}", REMEDY) from None
    if not isinstance(content, dict) or "names" not in content:
        if path.stem != "data":
            return None
        raise FormatError(f"{path} lacks the key 'names'", REMEDY)
    return YoloClasses(_checked(_numbered(content["names"], path), path), content, path.parent)


def _numbered(names: object, path: Path) -> dict[int, str]:
    """Names by number, of a list or of a mapping, which may have gaps."""
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return {i: "" if name == "~" else class_name(name) for i, name in enumerate(names)}
    if isinstance(names, dict) and all(str(key).isdecimal() for key in names):
        return {int(key): class_name(name) for key, name in names.items()}
    raise FormatError(
        f"{path} has names {names!r:.80}; expected a list, or a mapping of numbers to names", REMEDY
    )


def _checked(names: dict[int, str], path: Path) -> dict[int, str]:
    numbers: dict[str, int] = {}
    for number, name in names.items():
        if name and numbers.setdefault(name, number) != number:
            raise FormatError(
                f"{path}: class {name!r} has the numbers {numbers[name]} and {number}; expected one",
                "Rename one of the two.",
            )
    if not numbers:
        raise FormatError(f"{path} contains no class name", REMEDY)
    return names
