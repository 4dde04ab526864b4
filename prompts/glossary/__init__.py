"""Built-in descriptions of known defects: one class book per domain, as package data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files

from prompts.class_book import ClassBook, book_content
from prompts.class_entry import ClassEntry, InnerNode, normalized_name

DOMAINS = ("pcb", "aluminium", "steel", "glass", "plastic", "castings", "welds", "coatings")


@cache
def domain(name: str) -> ClassBook:
    """The glossary of one of DOMAINS."""
    text = files(__package__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return ClassBook.parse(text, f"glossary {name}")


def glossary_book(names: Iterable[str]) -> ClassBook:
    """A class book for these class names, with the descriptions of the glossary.

    A name keeps its spelling. The glossary has several domains (circuit boards, aluminium, ...). A name is
    looked up, by name or alias, first in the domain that has most of the given names. So "pin_hole" is a hole
    in copper if "open" (an open circuit) is also given, and a hole in aluminium if "scratch" is. A name that
    the glossary does not have becomes a class with its name as description and the source "name".

    Raises:
        ClassBookError: there is no name, or one is given twice.
    """
    requested = list(names)
    inner, classes = _entries_for(requested)
    source = "made of the names " + (", ".join(requested) or "(none)")
    return ClassBook.from_content(book_content(inner, classes), source)


def _entries_for(names: Sequence[str]) -> tuple[list[InnerNode], list[ClassEntry]]:
    """Inner nodes and classes for these names, in their order and spelling."""
    books = sorted((domain(d) for d in DOMAINS), key=lambda book: -sum(_has(book, n) for n in names))
    used_names = {normalized_name(name) for name in names}
    inner: dict[str, InnerNode] = {}
    classes: list[ClassEntry] = []
    for name in names:
        book = next((b for b in books if _has(b, name)), None)
        if book is None:
            text = " ".join(name.replace("_", " ").replace("-", " ").split())
            classes.append(ClassEntry.model_construct(name=name, description=text, source="name"))
            continue
        entry = book.entry(name)
        ancestors = _ancestors(book, entry.parent) if entry.parent else []
        ancestors = [node for node in ancestors if normalized_name(node.name) not in used_names]
        inner.update((node.name, node) for node in reversed(ancestors))
        aliases = [a for a in (entry.name, *entry.aliases) if normalized_name(a) not in used_names]
        used_names.update(normalized_name(a) for a in aliases)
        parent = ancestors[0].name if ancestors else None
        classes.append(entry.model_copy(update={"name": name, "aliases": tuple(aliases), "parent": parent}))
    classes = [_with_confusable_among(classes, entry) for entry in classes]
    return [_without_missing_parent(node, inner) for node in inner.values()], classes


def _with_confusable_among(classes: Sequence[ClassEntry], entry: ClassEntry) -> ClassEntry:
    """The entry with its confusable classes under the names of ``classes``, without those not among them."""
    name_of = {normalized_name(name): c.name for c in classes for name in (*c.aliases, c.name)}
    names = (name_of.get(normalized_name(name)) for name in entry.confusable)
    confusable = tuple(dict.fromkeys(name for name in names if name is not None and name != entry.name))
    return entry.model_copy(update={"confusable": confusable})


def _has(book: ClassBook, name: str) -> bool:
    normalized = normalized_name(name)
    return any(normalized == normalized_name(n) for c in book.classes for n in (c.name, *c.aliases))


def _ancestors(book: ClassBook, name: str | None) -> list[InnerNode]:
    nodes = {node.name: node for node in book.inner}
    ancestors = []
    while name is not None:
        ancestors.append(nodes[name])
        name = nodes[name].parent
    return ancestors


def _without_missing_parent(node: InnerNode, inner: dict[str, InnerNode]) -> InnerNode:
    """The node, without its parent if that was left out because a class has the parent's name."""
    if node.parent is None or node.parent in inner:
        return node
    return node.model_copy(update={"parent": None})
