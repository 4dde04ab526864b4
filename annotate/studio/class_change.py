"""What a changed class book means for a project that people already work in; nothing they did is orphaned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dsmoe_core.errors import ClassBookError, StudioError

Json = dict[str, Any]
Resolve = Callable[
    [str], str
]  # a name or alias -> the class book's own name; ClassBookError where it has none


def no_aliases(name: str) -> str:
    """A class book that knows no old names."""
    raise ClassBookError(f"class {name!r} is not in the class book", "Add it, or an alias for it.")


@dataclass(frozen=True, slots=True)
class ClassChange:
    """The difference between a project's classes and a class book's.

    Attributes:
        added: new ones, in the book's order.
        renamed: old name -> the class that has it as an alias. Annotations and pre-annotations are rewritten.
        removed: neither a class nor an alias any more. Refused where an annotation has it; taken out of the
            pre-annotations that nobody has answered yet.
        annotations, prelabels: how many annotations, and sets of pre-annotations, have a class that goes.
    """

    added: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    annotations: Mapping[str, int] = field(default_factory=dict)
    pre_annotations: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def between(cls, there: Collection[str], wanted: Collection[str], resolve: Resolve) -> ClassChange:
        """From the classes that are there to those that are wanted; what it touches is not counted yet."""
        renamed: dict[str, str] = {}
        removed: list[str] = []
        for name in sorted(set(there) - set(wanted)):
            try:
                renamed[name] = resolve(name)
            except ClassBookError:
                removed.append(name)
        return cls(tuple(name for name in wanted if name not in there), renamed, tuple(removed))

    @property
    def obsolete(self) -> frozenset[str]:
        """Names that the project will not have any more."""
        return frozenset(self.renamed) | frozenset(self.removed)

    def with_counts(self, rows: Iterable[Mapping[str, Any]]) -> ClassChange:
        """The same with what it touches, from the project's tasks."""
        annotations: Counter[str] = Counter()
        pre_annotations: Counter[str] = Counter()
        for row in rows:
            for counter, those in ((annotations, "annotations"), (pre_annotations, "predictions")):
                for one in row.get(those) or []:
                    counter.update(self.obsolete & labels_of(one["result"]))
        return ClassChange(self.added, self.renamed, self.removed, annotations, pre_annotations)

    def check(self) -> None:
        """Refuse to take away a class that annotations use.

        Raises:
            StudioError
        """
        if used := [name for name in self.removed if self.annotations.get(name)]:
            many = ", ".join(f"{name!r} ({self.annotations[name]})" for name in used)
            raise StudioError(
                f"annotations use the class {many}, which the class book has no more",
                "Put it back into the class book, or make it an alias of the class that takes its place; "
                "or start a project with another title.",
            )

    def rewrite(self, results: Iterable[Mapping[str, Any]], *, drop: bool) -> list[Json] | None:
        """The results under the new names; None where they stay as they are.

        Args:
            drop: leave out regions of a removed class.
        """
        before = [dict(result) for result in results]
        after = [self._renamed(r) for r in before if not (drop and labels_of([r]) & set(self.removed))]
        return None if after == before else after

    def _renamed(self, result: Json) -> Json:
        value = {
            kind: [self.renamed.get(name, name) for name in part] if _is_labels(kind, part) else part
            for kind, part in (result.get("value") or {}).items()
        }
        return {**result, "value": value} if "value" in result else result


def labels_of(results: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Every class that these results have."""
    return frozenset(
        str(name)
        for result in results
        for kind, part in (result.get("value") or {}).items()
        if _is_labels(kind, part)
        for name in part
    )


def _is_labels(kind: str, part: object) -> bool:
    """Whether this part of a value holds classes: rectanglelabels, keypointlabels, brushlabels, ..."""
    return kind.endswith("labels") and isinstance(part, list)
