"""Which class books are compared, and on which classes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from dsmoe_core.errors import ClassBookError, WorkspaceError
from dsmoe_core.schema import LabelledImage, Vocabulary
from pipelines.workspace.workspace import Workspace
from prompts.class_book import ClassBook


def resolve_class_book(text: str, workspace: Workspace | None) -> ClassBook:
    """A class book as one names it: a file, or what a workspace calls it (``ClassBooks.named``).

    Raises:
        WorkspaceError: it is a workspace's, and there is none.
        ClassBookError: there is no such file or version, or it is no class book.
    """
    path = Path(text).expanduser()
    if path.suffix or path.is_file():
        return ClassBook.load(path)
    if workspace is None:
        raise WorkspaceError(
            f"{text!r} is a class book of a workspace, and there is none here",
            "Give --workspace DIR, or the file of a class book.",
        )
    return workspace.class_books.lookup(text)


@dataclass(frozen=True, slots=True)
class CommonClasses:
    """Two books cut down to the classes that both have, each in its own order and under its own names.

    Attributes:
        this, other: what the detector is asked.
        names: the other book's name of each class to this one's, in this one's order.
        left_out: classes that only one of them has: this one's, the other one's.
    """

    this: Vocabulary
    other: Vocabulary
    names: dict[str, str]
    left_out: tuple[tuple[str, ...], tuple[str, ...]]
    _books: tuple[ClassBook, ClassBook]

    @classmethod
    def of(cls, this: ClassBook, other: ClassBook) -> CommonClasses:
        """Pair the classes, by name first, then by alias.

        Raises:
            ClassBookError: they have none in common.
        """
        pairs: dict[str, str] = {}
        for with_aliases in (False, True):
            for entry in this.classes:
                for name in (entry.name, *(entry.aliases if with_aliases else ())):
                    found = _known(other, name)
                    if entry.name not in pairs and found is not None and found not in pairs.values():
                        pairs[entry.name] = found
        if not pairs:
            raise ClassBookError(
                f"the class books have no class in common: {', '.join(this.names)}; {', '.join(other.names)}",
                "Compare two books of one kind of product; an alias says that a class was renamed.",
            )
        return cls(
            _only(this, pairs),
            _only(other, pairs.values()),
            {pairs[name]: name for name in this.names if name in pairs},
            (_rest(this, pairs), _rest(other, pairs.values())),
            (this, other),
        )

    def rename_labels(self, truth: Iterable[LabelledImage]) -> tuple[list[LabelledImage], int]:
        """The annotations of the common classes under this book's names, and how many are of others.

        Raises:
            ClassBookError: an annotation's class is in neither book; all such are named.
        """
        truth = list(truth)
        labels = {a.label for one in truth for a in one.annotations}
        into = {label: self._class_of(label) for label in labels}
        if strange := sorted(label for label, found in into.items() if found is None):
            raise ClassBookError(
                f"neither class book knows {', '.join(map(repr, strange))}, which is annotated",
                "Add it as a class or an alias.",
            )
        kept = []
        for one in truth:
            named = ((a, into[a.label]) for a in one.annotations)
            annotations = tuple(replace(a, label=name) for a, name in named if name)
            kept.append(replace(one, annotations=annotations))
        before, after = (sum(len(p.annotations) for p in images) for images in (truth, kept))
        return kept, before - after

    def _class_of(self, label: str) -> str | None:
        """The common class of an annotation; nothing for another class of a book, None for no class."""
        this, other = (_known(book, label) for book in self._books)
        if this in self.this.names:
            return this
        if other in self.names:
            return self.names[other]
        return None if this is None and other is None else ""


def _known(book: ClassBook, name: str) -> str | None:
    try:
        return book.resolve(name)
    except ClassBookError:
        return None


def _only(book: ClassBook, names: Iterable[str]) -> Vocabulary:
    whole, kept = book.vocabulary(), set(names)
    return Vocabulary(tuple(c for c in whole.classes if c.name in kept), whole.inner, whole.version)


def _rest(book: ClassBook, names: Iterable[str]) -> tuple[str, ...]:
    kept = set(names)
    return tuple(name for name in book.names if name not in kept)
