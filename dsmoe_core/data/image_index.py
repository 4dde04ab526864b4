"""Index of the image files below a folder, for readers that pair label files with images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from dsmoe_core.data.decode import upright_size
from dsmoe_core.data.image_formats import image_suffixes
from dsmoe_core.errors import ImageError


class ImageIndex:
    """Names and sizes of the images below a folder.

    Args:
        folder: folder of images; None or a path that is not a folder gives an empty index.

    Attributes:
        folder: the folder, absolute.
        names: of all images, relative to the folder, with forward slashes.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = None if folder is None or not folder.is_dir() else folder.resolve()
        self.names: set[str] = set()
        self._by_stem: dict[str, list[str]] = {}
        self._sizes: dict[str, tuple[int, int] | None] = {}
        if self.folder is not None:
            self._scan(self.folder)

    def _scan(self, root: Path) -> None:
        suffixes = image_suffixes()
        for folder, folders, files in os.walk(root):
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            inner = PurePosixPath(Path(folder).relative_to(root).as_posix())
            for file in sorted(files):
                if not file.startswith(".") and PurePosixPath(file).suffix.lower() in suffixes:
                    name = str(inner / file)
                    self.names.add(name)
                    self._by_stem.setdefault(str(PurePosixPath(name).with_suffix("")), []).append(name)

    def with_stem(self, stem: str) -> Sequence[str]:
        """Names of the images that have this relative path without its suffix."""
        return self._by_stem.get(stem, ())

    def relative(self, path: Path) -> str | None:
        """Path relative to the folder, with forward slashes; None outside of it. No file needs to exist."""
        if self.folder is None:
            return None
        normal = Path(os.path.normpath(path))
        return normal.relative_to(self.folder).as_posix() if normal.is_relative_to(self.folder) else None

    def size(self, name: str) -> tuple[int, int] | None:
        """Width and height of an upright image in pixels; None where it is missing or damaged."""
        if self.folder is None or name not in self.names:
            return None
        if name not in self._sizes:
            try:
                self._sizes[name] = upright_size(self.folder / name)
            except (ImageError, OSError):
                self._sizes[name] = None
        return self._sizes[name]

    def resolved_names(self, names: Sequence[str], bases: Iterable[Path]) -> list[str]:
        """The names relative to the folder, where they are stated relative to another one.

        Args:
            names: as stated in one annotation file, with forward slashes.
            bases: folders that they could be relative to, the most likely one first.

        Returns:
            The names under the base with the most existing images; as stated if there is none.
        """
        if self.folder is None:
            return list(names)
        hits: Counter[Path] = Counter()
        for base in dict.fromkeys((self.folder, *bases)):
            hits[base] = sum(self.relative(base / name) in self.names for name in names)
        best, count = hits.most_common(1)[0]
        if not count:
            return list(names)
        return [self.relative(best / name) or name for name in names]
