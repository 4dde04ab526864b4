"""Matches the image names of annotation files with the images of a folder.

A name is text that is compared with the names of the images; it is never opened as a path. The ways to
compare go from exact to loose, and the first that finds an image is used: the same name, another Unicode form
or back slashes, percent-encoding, the folder of images itself in front, an absolute path or URL whose last
parts fit, Label Studio's prefix of uploaded files, another case. Where several images fit, or several names
fit the same image, nothing is matched.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

Parts = tuple[str, ...]

_SCHEME = re.compile(r"^(?:[A-Za-z][A-Za-z0-9+.-]+:/|[A-Za-z]:[/\\])")  # of a URL, or a drive letter
_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:/+([^?#]*)")
_LOCAL_FILE = re.compile(r"local-files/*\?(?:.*&)?d=([^&]*)")  # of Label Studio
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-(.+)$")  # of Label Studio
_NOT_IN_UPLOADS = re.compile(r"[^-\w.]")
_MIN_VOTES = 2


class NameMatch(NamedTuple):
    """Result of matching names with images.

    Attributes:
        matched: name of the image by annotated name.
        ambiguous: by annotated name, the images that fit, or the other names that fit the same image.
        missing: annotated names that no image fits.
    """

    matched: dict[str, str]
    ambiguous: dict[str, tuple[str, ...]]
    missing: tuple[str, ...]


def match_names(names: Iterable[str], images: Iterable[str], folder: Path | None = None) -> NameMatch:
    """Match annotated names with the names of images.

    Args:
        names: each once, as the annotation files state them.
        images: paths relative to the folder of images, with forward slashes.
        folder: folder of images; None where it is not known.
    """
    names = list(names)
    index = _Index(images, names, folder)
    found: dict[str, tuple[int, str]] = {}
    ambiguous: dict[str, tuple[str, ...]] = {}
    missing = []
    for name in names:
        level, fitting = index.find(name)
        if len(fitting) == 1:
            found[name] = level, fitting[0]
        elif fitting:
            ambiguous[name] = fitting
        else:
            missing.append(name)
    matched = _one_to_one(found, ambiguous)
    return NameMatch(matched, ambiguous, tuple(missing))


def _one_to_one(found: dict[str, tuple[int, str]], ambiguous: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """The matches after names that fit the same image are moved to ``ambiguous``; an exact name keeps it."""
    names_of: dict[str, list[str]] = defaultdict(list)
    for name, (_, image) in found.items():
        names_of[image].append(name)
    matched = {}
    for name, (level, image) in found.items():
        rivals = [other for other in names_of[image] if other != name]
        if not rivals or level == 0:
            matched[name] = image
        else:
            ambiguous[name] = (image, *rivals)
    return matched


class _Index:
    """The names of the images by their forms.

    Args:
        names: all annotated names; they show the folder that absolute names have in common.
    """

    def __init__(self, images: Iterable[str], names: Sequence[str], folder: Path | None) -> None:
        self._images = list(images)
        self._names = names
        self._folder = _parts(folder.resolve().as_posix()) if folder is not None else ()
        self._exact = set(self._images)

    def find(self, name: str) -> tuple[int, tuple[str, ...]]:
        """The images that fit a name, and how loosely: 0 for exactly the same name."""
        ways: tuple[Callable[[str], Iterable[str]], ...] = (
            lambda n: (n,) if n in self._exact else (),
            lambda n: self._by_path.get(_parts(n), ()),
            lambda n: self._by_path.get(_parts(unquote(n)), ()),
            self._below_own_folder,
            self._by_last_parts,
            self._by_upload,
            lambda n: self._by_folded_path.get(_folded(_parts(n)), ()),
            lambda n: self._by_folded_name.get(_folded(_parts(n)[-1:]), ()) if _is_foreign(n) else (),
        )
        for level, way in enumerate(ways):
            if fitting := tuple(way(name)):
                return level, fitting
        return len(ways), ()

    @cached_property
    def _by_path(self) -> dict[Parts, list[str]]:
        return self._grouped(_parts)

    @cached_property
    def _by_folded_path(self) -> dict[Parts, list[str]]:
        return self._grouped(lambda image: _folded(_parts(image)))

    @cached_property
    def _by_name(self) -> dict[Parts, list[str]]:
        return self._grouped(lambda image: _parts(image)[-1:])

    @cached_property
    def _by_folded_name(self) -> dict[Parts, list[str]]:
        return self._grouped(lambda image: _folded(_parts(image)[-1:]))

    @cached_property
    def _by_uploaded_name(self) -> dict[Parts, list[str]]:
        return self._grouped(lambda image: (_uploaded(_parts(image)[-1]),))

    def _grouped(self, key: Callable[[str], Parts]) -> dict[Parts, list[str]]:
        groups: dict[Parts, list[str]] = defaultdict(list)
        for image in self._images:
            groups[key(image)].append(image)
        return groups

    def _below_own_folder(self, name: str) -> list[str]:
        """Names that begin with the last parts of the folder of images, such as ``images/a.png``."""
        parts = _foreign_parts(name)
        for length in range(len(parts) - 1, 0, -1):
            if parts[:length] == self._folder[-length:] and (fitting := self._by_path.get(parts[length:])):
                return fitting
        return []

    def _by_last_parts(self, name: str) -> list[str]:
        """For an absolute path or URL, the images with the longest equal end of their paths."""
        if not _is_foreign(name):
            return []
        parts = _foreign_parts(name)
        root = self._common_root
        if root is not None and parts[: len(root)] == root and (f := self._by_path.get(parts[len(root) :])):
            return f
        candidates = self._by_name.get(parts[-1:], [])
        lengths = {image: _common_end(_parts(image), parts) for image in candidates}
        longest = max(lengths.values(), default=0)
        return [image for image in candidates if lengths[image] == longest]

    def _by_upload(self, name: str) -> list[str]:
        """For a file that was uploaded to Label Studio, the images with the name it had before."""
        parts = _foreign_parts(name)
        upload = _UPLOAD_PREFIX.match(parts[-1]) if parts else None
        if upload is None:
            return []
        original = upload[1]
        return self._by_name.get((original,), []) or self._by_uploaded_name.get((_uploaded(original),), [])

    @cached_property
    def _common_root(self) -> Parts | None:
        """The folder below which most absolute names are the path of an image; None if that is not clear."""
        votes: Counter[Parts] = Counter()
        for name in self._names:
            if _is_foreign(name):
                parts = _foreign_parts(name)
                votes.update(p for p in _beginnings(parts) if parts[len(p) :] in self._by_path)
        best = votes.most_common(2)
        if not best or best[0][1] < _MIN_VOTES or (len(best) > 1 and best[0][1] == best[1][1]):
            return None
        return best[0][0]


def _is_foreign(name: str) -> bool:
    """Whether a name cannot be relative to the folder of images: an absolute path, a URL, or with ``..``."""
    text = name.replace("\\", "/")
    return bool(
        text.startswith("/") or _SCHEME.match(text) or ".." in text.split("/") or _LOCAL_FILE.search(text)
    )


def _foreign_parts(name: str) -> Parts:
    """The parts of a path or URL, decoded, after the last ``..``."""
    if local := _LOCAL_FILE.search(name):
        return _parts(unquote(local[1]))
    if url := _URL.match(name):
        return _parts(unquote(url[1]))
    text = _SCHEME.sub("", name)
    parts = _parts(unquote(text) if "/" in text and "%" in text else text)
    backwards = [place for place, part in enumerate(parts) if part == ".."]
    return parts[backwards[-1] + 1 :] if backwards else parts


def _parts(path: str) -> Parts:
    """The parts of a path in the composed Unicode form."""
    text = unicodedata.normalize("NFC", path.replace("\\", "/"))
    return tuple(part for part in text.split("/") if part not in ("", "."))


def _folded(parts: Parts) -> Parts:
    return tuple(part.casefold() for part in parts)


def _uploaded(name: str) -> str:
    """A file name as Label Studio stores an uploaded file."""
    return _NOT_IN_UPLOADS.sub("", name.strip().replace(" ", "_"))


def _common_end(a: Parts, b: Parts) -> int:
    """Number of equal parts at the end."""
    length = 0
    for x, y in zip(reversed(a), reversed(b), strict=False):
        if x != y:
            break
        length += 1
    return length


def _beginnings(parts: Parts) -> list[Parts]:
    return [parts[:length] for length in range(len(parts))]
