"""Selection and order of the images in the gallery, and the reasons to look at them. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from dsmoe_core.cross_class_nms import suppress_across_classes
from dsmoe_core.schema import Detection, ImageRecord, Prediction
from ui.snapshot import ImageStatus, Snapshot
from ui.tables import classes_of

GalleryFilter = Literal["to label", "labelled", "test set", "all"]
STATUS_TEXT: dict[ImageStatus, str] = {
    "waiting": "not labelled",
    "sent": "with the annotators",
    "labelled": "labelled",
    "test": "test set",
}
_STATUSES: dict[GalleryFilter, tuple[ImageStatus, ...]] = {
    "to label": ("waiting", "sent"),
    "labelled": ("labelled",),
    "test set": ("test",),
    "all": tuple(STATUS_TEXT),
}


def select_images(
    snapshot: Snapshot, chosen: GalleryFilter, classes: Collection[str] = ()
) -> list[ImageRecord]:
    """The images of a filter with any of these classes, the most uncertain first, then by name.

    Images without a prediction come last.

    Args:
        classes: in the pre-annotations or annotations of an image; empty: images are not filtered by class.
    """
    images = {**snapshot.images, **{key: item.image for key, item in snapshot.test_set.items()}}
    selected = [
        image
        for key, image in images.items()
        if snapshot.status(key) in _STATUSES[chosen]
        and (not classes or _classes_on(snapshot, key) & set(classes))
    ]
    return sorted(selected, key=lambda i: (-_uncertainty(snapshot.predictions.get(i.key)), i.name))


def reasons(prediction: Prediction | None, pre_annotations: Sequence[Detection]) -> list[str]:
    """Why an image is worth looking at: its most uncertain pre-annotations, and detections not shown.

    Args:
        pre_annotations: the detections of the prediction that annotators are shown.
    """
    if prediction is None:
        return ["The detector has not predicted this image yet."]
    most_uncertain = sorted(pre_annotations, key=lambda d: -d.entropy)[:2]
    texts = [_format_detection(detection) for detection in most_uncertain]
    not_shown = [
        d for d in suppress_across_classes(prediction.detections) if d not in pre_annotations
    ]  # highest score first
    if not_shown:
        best, noun = not_shown[0], "detection" if len(not_shown) == 1 else "detections"
        texts.append(
            f"{len(not_shown)} more {noun} not shown to annotators, best {best.label} {best.score:.0%}"
        )
    return texts or ["The detector finds no defect."]


def page_count(images: int, per_page: int) -> int:
    """Number of pages; at least one."""
    return max(1, -(-images // per_page))


def _format_detection(detection: Detection) -> str:
    other = detection.second_best
    if other and other[1] >= 0.01:
        return f"{detection.label} {detection.score:.0%}, or {other[0]} {other[1]:.0%}"
    return f"{detection.label} {detection.score:.0%}"


def _classes_on(snapshot: Snapshot, key: str) -> set[str]:
    return classes_of(snapshot, key, "pre-annotations") | classes_of(snapshot, key, "annotations")


def _uncertainty(prediction: Prediction | None) -> float:
    return float("-inf") if prediction is None else prediction.uncertainty
