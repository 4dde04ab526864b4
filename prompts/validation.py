"""Consistency checks between the parts of a class book; each mistake has its location."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prompts.class_entry import ClassEntry, InnerNode, normalized_name
from prompts.yaml_lines import Location, Mistake

LengthCheck = Callable[[str], str | None]
"""Returns why a text is too long for the text encoder; None if the encoder reads all of it."""


class InconsistentError(ValueError):
    """The parts of a class book contradict each other; becomes a ClassBookError once lines are known."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        super().__init__("; ".join(mistake.message for mistake in mistakes))
        self.mistakes = mistakes


def inconsistencies(inner: Sequence[InnerNode], classes: Sequence[ClassEntry]) -> Iterator[Mistake]:
    """All contradictions between the parts of a class book."""
    if not classes:
        yield Mistake(("classes",), "it has no class; add one")
    yield from _duplicate_names(inner, classes)
    yield from _bad_parents(inner, classes)
    yield from _bad_confusable(classes)


def overlong_texts(
    inner: Sequence[InnerNode], classes: Sequence[ClassEntry], check_length: LengthCheck
) -> Iterator[Mistake]:
    """Descriptions and paraphrases of which the text encoder would not read the end."""
    for location, owner, node in _nodes(inner, classes):
        texts: dict[Location, str] = {("description",): node.description}
        texts |= {("paraphrases", i): text for i, text in enumerate(getattr(node, "paraphrases", ()))}
        for field, text in texts.items():
            problem = check_length(text)
            if problem is not None:
                yield Mistake((*location, *field), f"{owner}: {'.'.join(map(str, field))}: {problem}")


def _nodes(
    inner: Sequence[InnerNode], classes: Sequence[ClassEntry]
) -> Iterator[tuple[Location, str, InnerNode | ClassEntry]]:
    """Inner nodes, then classes, each with its location and its name in messages."""
    for number, node in enumerate(inner):
        yield ("inner", number), f"inner node {node.name!r}", node
    for number, entry in enumerate(classes):
        yield ("classes", number), f"class {entry.name!r}", entry


def _duplicate_names(inner: Sequence[InnerNode], classes: Sequence[ClassEntry]) -> Iterator[Mistake]:
    owners: dict[str, str] = {}
    for location, owner, node in _nodes(inner, classes):
        if normalized_name(node.name) in owners:
            yield Mistake(
                (*location, "name"),
                f"{owner}: the name is used twice; give every class and inner node its own name",
            )
        owners[normalized_name(node.name)] = node.name
    for number, entry in enumerate(classes):
        for index, alias in enumerate(entry.aliases):
            alias_owner = owners.setdefault(normalized_name(alias), entry.name)
            if alias_owner != entry.name:
                yield Mistake(
                    ("classes", number, "aliases", index),
                    f"class {entry.name!r}: the alias {alias!r} belongs to {alias_owner!r}; remove one",
                )


def _bad_parents(inner: Sequence[InnerNode], classes: Sequence[ClassEntry]) -> Iterator[Mistake]:
    """Parents that are not inner nodes, and cycles among the inner nodes."""
    parent_of = {node.name: node.parent for node in inner}
    known = ", ".join(parent_of) or "none"
    for location, owner, node in _nodes(inner, classes):
        if node.parent is not None and node.parent not in parent_of:
            yield Mistake(
                (*location, "parent"),
                f"{owner}: the parent {node.parent!r} is unknown; known inner nodes are {known}",
            )
    for number, node in enumerate(inner):
        visited, parent = {node.name}, node.parent
        while parent is not None and parent not in visited:
            visited.add(parent)
            parent = parent_of.get(parent)
        if parent == node.name:
            yield Mistake(
                ("inner", number, "parent"),
                f"inner node {node.name!r}: it is its own ancestor; remove the cycle",
            )


def _bad_confusable(classes: Sequence[ClassEntry]) -> Iterator[Mistake]:
    """Entries of ``confusable`` that are the class itself, not a class, or listed twice."""
    names = [entry.name for entry in classes]
    for number, entry in enumerate(classes):
        for index, other in enumerate(entry.confusable):
            location = ("classes", number, "confusable", index)
            owner = f"class {entry.name!r}: confusable: {other!r}"
            if other == entry.name:
                yield Mistake(location, f"{owner} is the class itself; name another one")
            elif other not in names:
                yield Mistake(
                    location, f"{owner} is not a class of this book; its classes are {', '.join(names)}"
                )
            elif other in entry.confusable[:index]:
                yield Mistake(location, f"{owner} is listed twice; remove one")
