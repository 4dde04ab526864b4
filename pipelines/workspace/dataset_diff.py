"""Difference of two dataset versions: images and boxes that were added, removed or changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dsmoe_core.evaluation.matching import greedy_match, pairwise_iou
from dsmoe_core.schema import Box
from pipelines.workspace.dataset_version import DatasetVersion, Item, LabelledBox

MAX_NAMED = 10
"""Images that are named in a summary."""


@dataclass(frozen=True, slots=True)
class ClassDiff:
    """Numbers of boxes of one class.

    Attributes:
        moved: boxes at another place, with an IoU of at least 0.5 with the earlier one.
        relabelled_from, relabelled_to: boxes that lost or got the class.
    """

    added: int = 0
    removed: int = 0
    moved: int = 0
    relabelled_from: int = 0
    relabelled_to: int = 0


@dataclass(frozen=True, slots=True)
class DatasetDiff:
    """Difference of two dataset versions.

    Attributes:
        added, removed, changed: names of images; changed ones have other boxes.
        classes: by class, in the order of the newer version; classes without a difference are left out.
        boxes: total number of boxes, before and after.
    """

    before: str
    after: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    classes: Mapping[str, ClassDiff]
    boxes: tuple[int, int]

    @property
    def is_empty(self) -> bool:
        """Whether the versions have the same images and boxes."""
        return not (self.added or self.removed or self.changed)

    def to_dict(self) -> dict[str, Any]:
        """The difference as JSON values, with the names of all images."""
        names = ("added", "removed", "moved", "relabelled_from", "relabelled_to")
        return {
            "before": self.before,
            "after": self.after,
            "images": {
                "added": list(self.added),
                "removed": list(self.removed),
                "changed": list(self.changed),
            },
            "boxes": {"before": self.boxes[0], "after": self.boxes[1]},
            "classes": {c: {n: getattr(diff, n) for n in names} for c, diff in self.classes.items()},
        }


def diff_versions(before: DatasetVersion, after: DatasetVersion) -> DatasetDiff:
    """The difference from one version to another, image by image and box by box."""
    old = {item.key: item for item in before.train}
    new = {item.key: item for item in after.train}
    changed = [key for key in old.keys() & new.keys() if old[key].boxes != new[key].boxes]
    counts: Counter[tuple[str, str]] = Counter()
    for key in old.keys() | new.keys():
        counts.update(_changes(_boxes(old.get(key)), _boxes(new.get(key))))
    classes = dict.fromkeys((*after.classes, *before.classes))
    names = ("added", "removed", "moved", "relabelled_from", "relabelled_to")
    diffs = {c: ClassDiff(**{name: counts[name, c] for name in names}) for c in classes}
    return DatasetDiff(
        before.id,
        after.id,
        _names(new, new.keys() - old.keys()),
        _names(old, old.keys() - new.keys()),
        _names(new, changed),
        {c: diff for c, diff in diffs.items() if diff != ClassDiff()},
        (before.boxes, after.boxes),
    )


def _boxes(item: Item | None) -> Sequence[LabelledBox]:
    return item.boxes if item is not None else ()


def _names(items: Mapping[str, Item], keys: Any) -> tuple[str, ...]:
    return tuple(sorted(items[key].name for key in keys))


def _changes(old: Sequence[LabelledBox], new: Sequence[LabelledBox]) -> Iterator[tuple[str, str]]:
    """(kind of change, class) of each differing box; equal boxes are paired first, then by IoU."""
    equal = Counter((b.box, b.label) for b in old) & Counter((b.box, b.label) for b in new)
    rest_old, rest_new = (_without(boxes, equal) for boxes in (old, new))
    iou = pairwise_iou([Box(*b.box) for b in rest_new], [Box(*b.box) for b in rest_old])
    pairs = greedy_match(iou)
    for box, match in zip(rest_new, pairs, strict=True):
        if match < 0:
            yield "added", box.label
        elif rest_old[match].label == box.label:
            yield "moved", box.label
        else:
            yield "relabelled_from", rest_old[match].label
            yield "relabelled_to", box.label
    matched = {int(match) for match in pairs}
    yield from (("removed", box.label) for i, box in enumerate(rest_old) if i not in matched)


def _without(boxes: Sequence[LabelledBox], equal: Counter[tuple[Any, str]]) -> list[LabelledBox]:
    """The boxes without those that are equal in both versions."""
    left = Counter(equal)
    rest = []
    for box in boxes:
        if left[box.box, box.label]:
            left[box.box, box.label] -= 1
        else:
            rest.append(box)
    return rest
