"""Difference between the classes of a labelling project and of a class book, and how labels are rewritten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dsmoe_core.errors import ClassBookError, StudioError

Json = dict[str, Any]
MAX_PLACES = 10
"""Uses of a class that a message lists."""
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
        places: image, task and annotation of the first uses of each removed class in annotations.
    """

    added: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    annotations: Mapping[str, int] = field(default_factory=dict)
    pre_annotations: Mapping[str, int] = field(default_factory=dict)
    places: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

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
        places: dict[str, tuple[str, ...]] = {}
        for task in tasks:
            for item in task.get("predictions") or []:
                pre_annotations.update(self.obsolete & labels_of(item.get("result") or ()))
            for item in task.get("annotations") or []:
                used = self.obsolete & labels_of(item.get("result") or ())
                annotations.update(used)
                for name in sorted(used & set(self.removed)):
                    if annotations[name] <= MAX_PLACES:
                        places[name] = (*places.get(name, ()), place_of(task, item))
        return replace(self, annotations=annotations, pre_annotations=pre_annotations, places=places)

    def check(self) -> None:
        """Refuse to remove a class that annotations use.

        Raises:
            StudioError: an annotation uses a removed class.
        """
        if used := [name for name in self.removed if self.annotations.get(name)]:
            uses = "; ".join(self._uses(name) for name in used)
            raise StudioError(
                f"annotations use a class that is not in the class book: {uses}",
                "Correct them in Label Studio, or add the class to the class book, or make it an alias, and "
                "publish that; then run the same command again.",
            )

    def _uses(self, name: str) -> str:
        """A class that annotations use, their number, and the first places."""
        count, places = self.annotations[name], self.places.get(name, ())
        more = f" and {count - len(places)} more" if count > len(places) > 0 else ""
        return f"{name!r} ({count})" + (f" on {', '.join(places)}{more}" if places else "")

    def rewrite(self, results: Iterable[Mapping[str, Any]], *, drop: bool) -> list[Json] | None:
        """Rename the classes in Label Studio results.

        Args:
            results: regions of an annotation or prediction.
            drop: leave out regions of a removed class.

        Returns:
            The new results; None if nothing changes.
        """
        before = list(results)
        after = [self._rename(r) for r in before if not (drop and labels_of([r]) & set(self.removed))]
        return None if after == before else after

    def _rename(self, result: Any) -> Any:
        value = {
            kind: [self.renamed.get(name, name) for name in part] if _is_labels(kind, part) else part
            for kind, part in value_of(result).items()
        }
        return {**result, "value": value} if value else result


def place_of(task: Mapping[str, Any], annotation: Mapping[str, Any]) -> str:
    """Image, task and annotation, for messages."""
    data = task.get("data") or {}
    name = data.get("name") or data.get("key") or "an image of another program"
    return f"{name} (task {task.get('id')}, annotation {annotation.get('id')})"


def labels_of(results: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """All class names in Label Studio results."""
    return frozenset(
        str(name)
        for result in results
        for kind, part in value_of(result).items()
        if _is_labels(kind, part)
        for name in part
    )


def value_of(result: object) -> Mapping[str, Any]:
    """The value of a Label Studio result; empty if it is not an object."""
    value = result.get("value") if isinstance(result, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _is_labels(kind: str, part: object) -> bool:
    """Whether a part of a result's value holds class names: rectanglelabels, keypointlabels, ..."""
    return kind.endswith("labels") and isinstance(part, list)
