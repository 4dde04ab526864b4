"""What must hold between the parts of a class book; each detection with its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prompts.yaml_lines import Location, Mistake

if TYPE_CHECKING:
    from prompts.class_book import ClassBook, ClassEntry, InnerNode

CutEdges = Callable[[str], str | None]
"""Says how a text would be cut by whoever reads it; None where it is read whole."""


class InconsistentError(ValueError):
    """Parts of a class book that do not fit together; becomes a ClassBookError where lines are known."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        super().__init__("; ".join(mistake.message for mistake in mistakes))
        self.mistakes = mistakes


def plain(name: str) -> str:
    """A name as it is compared: without case, spaces, underscores and hyphens."""
    return "".join(c for c in name.casefold() if c not in " _-")


def inconsistencies(book: ClassBook) -> Iterator[Mistake]:
    """Everything that does not fit together."""
    if not book.classes:
        yield Mistake(("classes",), "it has no class; add one")
    yield from _twice(book)
    yield from _bad_parents(book)
    yield from _bad_confusable(book)


def texts_cut(book: ClassBook, cut: CutEdges) -> Iterator[Mistake]:
    """Texts that the detector would not read to their end."""
    for location, owner, node in _nodes(book):
        texts: dict[Location, str] = {("description",): node.description}
        texts |= {("paraphrases", i): text for i, text in enumerate(getattr(node, "paraphrases", ()))}
        for field, text in texts.items():
            problem = cut(text)
            if problem is not None:
                yield Mistake((*location, *field), f"{owner}: {'.'.join(map(str, field))}: {problem}")


def _nodes(book: ClassBook) -> Iterator[tuple[Location, str, InnerNode | ClassEntry]]:
    """Inner nodes, then classes: where each stands, what it is called in a message, and itself."""
    for number, inner in enumerate(book.inner):
        yield ("inner", number), f"inner node {inner.name!r}", inner
    for number, entry in enumerate(book.classes):
        yield ("classes", number), f"class {entry.name!r}", entry


def _twice(book: ClassBook) -> Iterator[Mistake]:
    """Names and aliases that stand for two things."""
    owners: dict[str, str] = {}
    for location, owner, node in _nodes(book):
        if plain(node.name) in owners:
            yield Mistake(
                (*location, "name"),
                f"{owner}: the name comes twice; give every class and inner node a name of its own",
            )
        owners[plain(node.name)] = node.name
    for number, entry in enumerate(book.classes):
        for place, alias in enumerate(entry.aliases):
            other = owners.setdefault(plain(alias), entry.name)
            if other != entry.name:
                yield Mistake(
                    ("classes", number, "aliases", place),
                    f"class {entry.name!r}: the alias {alias!r} belongs to {other!r}; remove one",
                )


def _bad_parents(book: ClassBook) -> Iterator[Mistake]:
    """Parents that are no inner node, and circles of them."""
    above = {node.name: node.parent for node in book.inner}
    known = ", ".join(above) or "none"
    for location, owner, node in _nodes(book):
        where = (*location, "parent")
        if node.parent is not None and node.parent not in above:
            yield Mistake(
                where, f"{owner}: the parent {node.parent!r} is unknown; known inner nodes are {known}"
            )
    for number, inner in enumerate(book.inner):
        seen, parent = {inner.name}, inner.parent
        while parent is not None and parent not in seen:
            seen.add(parent)
            parent = above.get(parent)
        if parent == inner.name:
            yield Mistake(
                ("inner", number, "parent"),
                f"inner node {inner.name!r}: it is its own ancestor; break the circle",
            )


def _bad_confusable(book: ClassBook) -> Iterator[Mistake]:
    """Classes that are said to be easily confused with themselves, with nothing, or with one thing twice."""
    for number, entry in enumerate(book.classes):
        for place, other in enumerate(entry.confusable):
            where = ("classes", number, "confusable", place)
            owner = f"class {entry.name!r}: confusable: {other!r}"
            if other == entry.name:
                yield Mistake(where, f"{owner} is the class itself; name another one")
            elif other not in book.names:
                yield Mistake(
                    where, f"{owner} is no class of this book; its classes are {', '.join(book.names)}"
                )
            elif other in entry.confusable[:place]:
                yield Mistake(where, f"{owner} comes twice; remove one")
