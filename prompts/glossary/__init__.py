"""Built-in descriptions of known defects, in our own words: one class book a domain, as package data."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from prompts.class_book import ClassBook, ClassEntry, InnerNode, plain

DOMAINS = ("pcb", "aluminium", "steel", "glass", "plastic", "castings", "welds", "coatings")


@cache
def domain(name: str) -> ClassBook:
    """The glossary of one of DOMAINS."""
    text = files(__package__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return ClassBook.parsed(text, f"glossary {name}")


def entries_for(names: list[str]) -> tuple[list[InnerNode], list[ClassEntry]]:
    """Inner nodes and classes for these names, in their order and spelling.

    Domains are tried in order of how many of the names they know: "pin_hole" beside "open" is a hole in
    copper, beside "scratch" one in aluminium. An unknown name becomes a class that has only its name.
    """
    books = sorted((domain(d) for d in DOMAINS), key=lambda book: -sum(_knows(book, n) for n in names))
    taken = {plain(name) for name in names}
    inner: dict[str, InnerNode] = {}
    classes: list[ClassEntry] = []
    for name in names:
        book = next((b for b in books if _knows(b, name)), None)
        if book is None:
            spoken = " ".join(name.replace("_", " ").replace("-", " ").split())
            classes.append(ClassEntry.model_construct(name=name, description=spoken, source="name"))
            continue
        known = book.entry(name)
        above = _ancestors(book, known.parent) if known.parent else []
        above = [node for node in above if plain(node.name) not in taken]
        inner.update((node.name, node) for node in reversed(above))
        aliases = [a for a in (known.name, *known.aliases) if plain(a) not in taken]
        taken.update(plain(a) for a in aliases)
        parent = above[0].name if above else None
        classes.append(known.model_copy(update={"name": name, "aliases": tuple(aliases), "parent": parent}))
    known_here = [_among(entry, classes) for entry in classes]
    return [_rooted(node, inner) for node in inner.values()], known_here


def _among(entry: ClassEntry, classes: list[ClassEntry]) -> ClassEntry:
    """The entry with its confusable classes as they are called here; those that are not here are left out."""
    called = {plain(name): c.name for c in classes for name in (*c.aliases, c.name)}
    here = (called.get(plain(name)) for name in entry.confusable)
    confusable = tuple(dict.fromkeys(name for name in here if name is not None and name != entry.name))
    return entry.model_copy(update={"confusable": confusable})


def _knows(book: ClassBook, name: str) -> bool:
    return any(plain(name) == plain(known) for c in book.classes for known in (c.name, *c.aliases))


def _ancestors(book: ClassBook, name: str | None) -> list[InnerNode]:
    nodes = {node.name: node for node in book.inner}
    found = []
    while name is not None:
        found.append(nodes[name])
        name = nodes[name].parent
    return found


def _rooted(node: InnerNode, kept: dict[str, InnerNode]) -> InnerNode:
    """The node without a parent that was left out because a class has its name."""
    return node if node.parent is None or node.parent in kept else node.model_copy(update={"parent": None})
