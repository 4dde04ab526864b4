"""Difference between the classes of a labelling project and of a class book, and how labels are rewritten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dsmoe_core.errors import ClassBookError, StudioError

Json = dict[str, Any]
Resolve = Callable[[str], str]
"""Maps a class name or alias to the class-book name; raises ClassBookError for an unknown name."""


def no_aliases(name: str) -> str:
    """Default ``Resolve`` of a class book without aliases: every old name is unknown."""
    raise ClassBookError(f"class {name!r} is not in the class book", "Add it, or an alias for it.")


@dataclass(frozen=True, slots=True)
class ClassChange:
    """Difference between the classes of a project and those of a class book.

    Attributes:
        added: new classes, in the order of the class book.
        renamed: old name -> the class that has it as an alias. Annotations and pre-annotations are rewritten.
        removed: names that are neither a class nor an alias any more. Refused if an annotation uses one.
            Otherwise they are deleted from the pre-annotations of open tasks.
        annotations: number of annotations that use each obsolete class.
        pre_annotations: number of predictions (sets of pre-annotations) that use each obsolete class.
    """

    added: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    annotations: Mapping[str, int] = field(default_factory=dict)
    pre_annotations: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def between(cls, current: Collection[str], wanted: Collection[str], resolve: Resolve) -> ClassChange:
        """Compare the current classes of a project with the wanted ones. Usage counts stay empty."""
        renamed: dict[str, str] = {}
        removed: list[str] = []
        for name in sorted(set(current) - set(wanted)):
            try:
                renamed[name] = resolve(name)
            except ClassBookError:
                removed.append(name)
        return cls(tuple(name for name in wanted if name not in current), renamed, tuple(removed))

    @property
    def obsolete(self) -> frozenset[str]:
        """Names that the project loses: renamed and removed classes."""
        return frozenset(self.renamed) | frozenset(self.removed)

    def with_counts(self, tasks: Iterable[Mapping[str, Any]]) -> ClassChange:
        """Copy with the usage counts of the obsolete classes in the project's tasks."""
        annotations: Counter[str] = Counter()
        pre_annotations: Counter[str] = Counter()
        for task in tasks:
            for counter, kind in ((annotations, "annotations"), (pre_annotations, "predictions")):
                for item in task.get(kind) or []:
                    counter.update(self.obsolete & labels_of(item["result"]))
        return ClassChange(self.added, self.renamed, self.removed, annotations, pre_annotations)

    def check(self) -> None:
        """Refuse to remove a class that annotations use.

        Raises:
            StudioError: an annotation uses a removed class.
        """
        if used := [name for name in self.removed if self.annotations.get(name)]:
            counts = ", ".join(f"{name!r} ({self.annotations[name]})" for name in used)
            raise StudioError(
                f"annotations use the class {counts}, which is no longer in the class book",
                "Add it to the class book again, or make it an alias of the class that replaces it, "
                "or start a project with another title.",
            )

    def rewrite(self, results: Iterable[Mapping[str, Any]], *, drop: bool) -> list[Json] | None:
        """Rename the classes in Label Studio results.

        Args:
            results: regions of an annotation or prediction.
            drop: leave out regions of a removed class.

        Returns:
            The new results; None if nothing changes.
        """
        before = [dict(result) for result in results]
        after = [self._rename(r) for r in before if not (drop and labels_of([r]) & set(self.removed))]
        return None if after == before else after

    def _rename(self, result: Json) -> Json:
        value = {
            kind: [self.renamed.get(name, name) for name in part] if _is_labels(kind, part) else part
            for kind, part in (result.get("value") or {}).items()
        }
        return {**result, "value": value} if "value" in result else result


def labels_of(results: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """All class names in Label Studio results."""
    return frozenset(
        str(name)
        for result in results
        for kind, part in (result.get("value") or {}).items()
        if _is_labels(kind, part)
        for name in part
    )


def _is_labels(kind: str, part: object) -> bool:
    """Whether a part of a result's value holds class names: rectanglelabels, keypointlabels, ..."""
    return kind.endswith("labels") and isinstance(part, list)
