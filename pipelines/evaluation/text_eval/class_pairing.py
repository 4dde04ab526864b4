"""The class books that are compared, and their common classes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from dsmoe_core.errors import ClassBookError, WorkspaceError
from dsmoe_core.schema import LabelledImage, Vocabulary
from pipelines.workspace.workspace import Workspace
from prompts.class_book import ClassBook


def resolve_class_book(name: str, workspace: Workspace | None) -> ClassBook:
    """Load a class book by its file name, or by its name in a workspace (``ClassBooks.lookup``).

    Raises:
        WorkspaceError: it is a name in a workspace, and there is no workspace.
        ClassBookError: there is no such file or version, or the file is not a class book.
    """
    path = Path(name).expanduser()
    if path.suffix or path.is_file():
        return ClassBook.load(path)
    if workspace is None:
        raise WorkspaceError(
            f"{name!r} is a class book of a workspace, and there is none here",
            "Give --workspace DIR, or the file of a class book.",
        )
    return workspace.class_books.lookup(name)


@dataclass(frozen=True, slots=True)
class CommonClasses:
    """The classes that two class books have in common.

    Attributes:
        this, other: each book reduced to the common classes, in its own order and with its own names.
        names: name of each common class in ``this`` by its name in ``other``, in the order of ``this``.
        left_out: classes that only ``this`` has, and classes that only ``other`` has.
    """

    this: Vocabulary
    other: Vocabulary
    names: dict[str, str]
    left_out: tuple[tuple[str, ...], tuple[str, ...]]
    _books: tuple[ClassBook, ClassBook]

    @classmethod
    def of(cls, this: ClassBook, other: ClassBook) -> CommonClasses:
        """Pair the classes of two books, by name first, then by alias.

        Raises:
            ClassBookError: the books have no class in common.
        """
        pairs: dict[str, str] = {}
        for with_aliases in (False, True):
            for entry in this.classes:
                for name in (entry.name, *(entry.aliases if with_aliases else ())):
                    match = _resolved(other, name)
                    if entry.name not in pairs and match is not None and match not in pairs.values():
                        pairs[entry.name] = match
        if not pairs:
            raise ClassBookError(
                f"the class books have no class in common: {', '.join(this.names)}; {', '.join(other.names)}",
                "Compare two books of one kind of product; an alias pairs a renamed class.",
            )
        return cls(
            _restricted(this, pairs),
            _restricted(other, pairs.values()),
            {pairs[name]: name for name in this.names if name in pairs},
            (_other_names(this, pairs), _other_names(other, pairs.values())),
            (this, other),
        )

    def rename_labels(self, truth: Iterable[LabelledImage]) -> tuple[list[LabelledImage], int]:
        """Keep the annotations of common classes, under the names of ``this``.

        Returns:
            The images, and the number of removed annotations.

        Raises:
            ClassBookError: annotated classes are in neither book; the message names all of them.
        """
        truth = list(truth)
        labels = {a.label for labelled in truth for a in labelled.annotations}
        names = {label: self._common_name(label) for label in labels}
        if unknown := sorted(label for label, name in names.items() if name is None):
            raise ClassBookError(
                f"neither class book knows {', '.join(map(repr, unknown))}, which is annotated",
                "Add it as a class or an alias.",
            )
        common = []
        for labelled in truth:
            renamed = ((a, names[a.label]) for a in labelled.annotations)
            annotations = tuple(replace(a, label=name) for a, name in renamed if name)
            common.append(replace(labelled, annotations=annotations))
        before, after = (sum(len(p.annotations) for p in images) for images in (truth, common))
        return common, before - after

    def _common_name(self, label: str) -> str | None:
        """Name in ``this``; empty for a class that only one book has, None for an unknown class."""
        this, other = (_resolved(book, label) for book in self._books)
        if this in self.this.names:
            return this
        if other in self.names:
            return self.names[other]
        return None if this is None and other is None else ""


def _resolved(book: ClassBook, name: str) -> str | None:
    """The class of a book by its name or alias; None if there is none."""
    try:
        return book.resolve(name)
    except ClassBookError:
        return None


def _restricted(book: ClassBook, names: Iterable[str]) -> Vocabulary:
    vocabulary, included = book.vocabulary(), set(names)
    classes = tuple(c for c in vocabulary.classes if c.name in included)
    return Vocabulary(classes, vocabulary.inner, vocabulary.version)


def _other_names(book: ClassBook, names: Iterable[str]) -> tuple[str, ...]:
    included = set(names)
    return tuple(name for name in book.names if name not in included)
