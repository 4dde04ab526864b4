"""What changed between two class books, class by class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from prompts.class_book import ClassBook, ClassEntry, InnerNode, plain


class Change(NamedTuple):
    """One thing that is said otherwise; None where it was or is not said at all."""

    what: str
    old: str | None
    new: str | None


class ClassChange(NamedTuple):
    """What became of a class; ``before`` is its old name where it was renamed."""

    name: str
    before: str
    changes: tuple[Change, ...]


class BookDiff(NamedTuple):
    """What changed from one class book to another.

    Attributes:
        added, removed: names of classes.
        changed: classes of both books, renamed ones included: a class that is gone and is now an alias.
        inner: changes of the inner nodes.
        reordered: the classes that both have come in another order, which is the detector's.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[ClassChange, ...]
    inner: tuple[Change, ...]
    reordered: bool

    @property
    def classes_change(self) -> bool:
        """Whether the list of classes does, which annotators choose from."""
        return bool(self.added or self.removed or any(c.name != c.before for c in self.changed))

    def lines(self) -> list[str]:
        """For people; empty where nothing changed."""
        return list(_lines(self))


def book_diff(old: ClassBook, new: ClassBook) -> BookDiff:
    """What changed from ``old`` to ``new``."""
    before = {name: name for name in new.names if name in old.names}
    for entry in new.classes:
        aliases = {plain(alias) for alias in entry.aliases}
        gone = [n for n in old.names if n not in new.names and plain(n) in aliases]
        if entry.name not in before and gone:
            before[entry.name] = gone[0]
    pairs = [(old.entry(before[e.name]), e) for e in new.classes if e.name in before]
    changed = [ClassChange(n.name, o.name, tuple(_changes(o, n))) for o, n in pairs]
    order = [name for name in old.names if name in before.values()]
    return BookDiff(
        added=tuple(name for name in new.names if name not in before),
        removed=tuple(name for name in old.names if name not in before.values()),
        changed=tuple(c for c in changed if c.changes or c.name != c.before),
        inner=tuple(_inner(old.inner, new.inner)),
        reordered=order != [o.name for o, _ in pairs],
    )


def _changes(old: ClassEntry, new: ClassEntry) -> Iterator[Change]:
    for field in ("description", "parent", "source", "author"):
        one, other = getattr(old, field) or None, getattr(new, field) or None
        if one != other:
            yield Change(field, one, other)
    for name in dict.fromkeys((*old.attributes, *new.attributes)):
        if old.attributes.get(name) != new.attributes.get(name):
            yield Change(name, old.attributes.get(name), new.attributes.get(name))
    yield from _items("paraphrase", old.paraphrases, new.paraphrases)
    yield from _items("alias", old.aliases, new.aliases)
    yield from _items("confusable with", old.confusable, new.confusable)


def _items(what: str, old: Iterable[str], new: Iterable[str]) -> Iterator[Change]:
    old, new = list(old), list(new)
    yield from (Change(what, text, None) for text in old if text not in new)
    yield from (Change(what, None, text) for text in new if text not in old)
    if old != new and sorted(old) == sorted(new):
        yield Change(what, ", ".join(old), ", ".join(new))


def _inner(old: Iterable[InnerNode], new: Iterable[InnerNode]) -> Iterator[Change]:
    before, after = ({n.name: _told(n) for n in nodes} for nodes in (old, new))
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) != after.get(name):
            yield Change(f"inner node {name}", before.get(name), after.get(name))


def _told(node: InnerNode) -> str:
    return node.description + (f" (under {node.parent})" if node.parent else "")


def _lines(diff: BookDiff) -> Iterator[str]:
    yield from (f"+ class {name}" for name in diff.added)
    yield from (f"- class {name}" for name in diff.removed)
    if diff.reordered:
        yield "~ the classes come in another order"
    for change in diff.inner:
        yield from _said(change, "")
    for one in diff.changed:
        yield f"~ class {one.name}" + (f", until now {one.before}" if one.name != one.before else "")
        for change in one.changes:
            yield from _said(change, "    ")


def _said(change: Change, indent: str) -> Iterator[str]:
    if change.old is not None:
        yield f"{indent}- {change.what}: {change.old}"
    if change.new is not None:
        yield f"{indent}+ {change.what}: {change.new}"
