"""Differences between two class books, class by class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from prompts.class_book import ClassBook
from prompts.class_entry import ClassEntry, InnerNode, normalized_name


class Change(NamedTuple):
    """One changed field; ``old`` or ``new`` is None if the value was added or removed."""

    field: str
    old: str | None
    new: str | None


class ClassChange(NamedTuple):
    """Changes of one class; ``old_name`` differs from ``name`` if it was renamed."""

    name: str
    old_name: str
    changes: tuple[Change, ...]


class BookDiff(NamedTuple):
    """Differences from one class book to another.

    Attributes:
        added, removed: names of classes.
        changed: classes of both books. A class counts as renamed if its old name is now an alias.
        inner: changes of the inner nodes.
        reordered: whether the classes of both books are in another order, which changes the detector's order.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[ClassChange, ...]
    inner: tuple[Change, ...]
    reordered: bool

    @property
    def class_list_changed(self) -> bool:
        """Whether annotators get another list of classes to choose from."""
        return bool(self.added or self.removed or any(c.name != c.old_name for c in self.changed))

    def lines(self) -> list[str]:
        """The differences as text; empty if there are none."""
        return list(_lines(self))


def book_diff(old: ClassBook, new: ClassBook) -> BookDiff:
    """The differences from ``old`` to ``new``."""
    old_names = {name: name for name in new.names if name in old.names}
    for entry in new.classes:
        aliases = {normalized_name(alias) for alias in entry.aliases}
        renamed = [n for n in old.names if n not in new.names and normalized_name(n) in aliases]
        if entry.name not in old_names and renamed:
            old_names[entry.name] = renamed[0]
    pairs = [(old.entry(old_names[e.name]), e) for e in new.classes if e.name in old_names]
    changed = [ClassChange(n.name, o.name, tuple(_changes(o, n))) for o, n in pairs]
    old_order = [name for name in old.names if name in old_names.values()]
    return BookDiff(
        added=tuple(name for name in new.names if name not in old_names),
        removed=tuple(name for name in old.names if name not in old_names.values()),
        changed=tuple(c for c in changed if c.changes or c.name != c.old_name),
        inner=tuple(_inner_changes(old.inner, new.inner)),
        reordered=old_order != [o.name for o, _ in pairs],
    )


def _changes(old: ClassEntry, new: ClassEntry) -> Iterator[Change]:
    for field in ("description", "parent", "source", "author"):
        before, after = getattr(old, field) or None, getattr(new, field) or None
        if before != after:
            yield Change(field, before, after)
    for name in dict.fromkeys((*old.attributes, *new.attributes)):
        if old.attributes.get(name) != new.attributes.get(name):
            yield Change(name, old.attributes.get(name), new.attributes.get(name))
    yield from _item_changes("paraphrase", old.paraphrases, new.paraphrases)
    yield from _item_changes("alias", old.aliases, new.aliases)
    yield from _item_changes("confusable with", old.confusable, new.confusable)


def _item_changes(field: str, old: Iterable[str], new: Iterable[str]) -> Iterator[Change]:
    old, new = list(old), list(new)
    yield from (Change(field, text, None) for text in old if text not in new)
    yield from (Change(field, None, text) for text in new if text not in old)
    if old != new and sorted(old) == sorted(new):
        yield Change(field, ", ".join(old), ", ".join(new))


def _inner_changes(old: Iterable[InnerNode], new: Iterable[InnerNode]) -> Iterator[Change]:
    before, after = ({n.name: _format_node(n) for n in nodes} for nodes in (old, new))
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) != after.get(name):
            yield Change(f"inner node {name}", before.get(name), after.get(name))


def _format_node(node: InnerNode) -> str:
    return node.description + (f" (under {node.parent})" if node.parent else "")


def _lines(diff: BookDiff) -> Iterator[str]:
    yield from (f"+ class {name}" for name in diff.added)
    yield from (f"- class {name}" for name in diff.removed)
    if diff.reordered:
        yield "~ the order of the classes changed"
    for change in diff.inner:
        yield from _format_change(change, "")
    for entry in diff.changed:
        renamed = f", renamed from {entry.old_name}" if entry.name != entry.old_name else ""
        yield f"~ class {entry.name}{renamed}"
        for change in entry.changes:
            yield from _format_change(change, "    ")


def _format_change(change: Change, indent: str) -> Iterator[str]:
    if change.old is not None:
        yield f"{indent}- {change.field}: {change.old}"
    if change.new is not None:
        yield f"{indent}+ {change.field}: {change.new}"
