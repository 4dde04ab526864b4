"""Which images the gallery shows, in which order, and why each is worth a look. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from dsmoe_core.cross_class_nms import suppress_across_classes
from dsmoe_core.schema import Detection, ImageRecord, Prediction
from ui.snapshot import Snapshot
from ui.tables import classes_of

Wanted = Literal["to label", "labelled", "test set", "all"]
STANDING = {
    "waiting": "not labelled",
    "sent": "with the annotators",
    "labelled": "labelled",
    "test": "test set",
}


def select(snapshot: Snapshot, wanted: Wanted, classes: Collection[str] = ()) -> list[ImageRecord]:
    """The images of one kind that show any of these classes, the most uncertain first.

    An image that the detector has not looked at comes last; equals go by name.

    Args:
        classes: found by the detector or said by people; none chosen means all images.
    """
    images = {**snapshot.images, **{key: known.image for key, known in snapshot.test.items()}}
    kinds = {
        "to label": {"waiting", "sent"},
        "labelled": {"labelled"},
        "test set": {"test"},
        "all": set(STANDING),
    }[wanted]
    chosen = [
        image
        for key, image in images.items()
        if snapshot.kind(key) in kinds and (not classes or _shown(snapshot, key) & set(classes))
    ]
    return sorted(chosen, key=lambda p: (-_doubt(snapshot.detections.get(p.key)), p.name))


def reasons(found: Prediction | None, least_score: float) -> list[str]:
    """Why an image is worth a person's time, in words; the strongest reason first."""
    if found is None:
        return ["The detector has not looked at it yet."]
    places = suppress_across_classes(found.detections)
    shown = [f for f in places if f.score >= least_score]
    said = [_question(f) for f in sorted(shown, key=lambda f: -f.entropy)[:2]]
    faint = [f for f in places if f.score < least_score]
    if faint:
        best = max(faint, key=lambda f: f.score)
        noun = "place" if len(faint) == 1 else "places"
        said.append(f"{len(faint)} more {noun} too faint to show, best {best.label} {best.score:.0%}")
    return said or ["The detector sees no defect here."]


def pages(count: int, size: int) -> int:
    """How many pages so many images take; at least one."""
    return max(1, -(-count // size))


def _question(detection: Detection) -> str:
    other = detection.second_best
    if other and other[1] >= 0.01:
        return f"{detection.label} {detection.score:.0%}, or {other[0]} {other[1]:.0%}"
    return f"{detection.label} {detection.score:.0%}"


def _shown(snapshot: Snapshot, key: str) -> set[str]:
    return classes_of(snapshot, key, "detections") | classes_of(snapshot, key, "annotations")


def _doubt(found: Prediction | None) -> float:
    return float("-inf") if found is None else found.uncertainty
