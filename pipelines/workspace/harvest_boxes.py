"""JSON form of annotations and of what became of each box of an image, for the journal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from dsmoe_core.schema import Annotation, Box, BoxOutcome, Harvest, Outcome


class HarvestBoxes(NamedTuple):
    """What became of each box of an image, and who decided it.

    Attributes:
        annotators: user ids of the labelling server.
    """

    annotators: tuple[str, ...]
    boxes: tuple[BoxOutcome, ...]


def to_row(harvest: Harvest) -> dict[str, Any]:
    """The row of a harvest in the journal."""
    boxes = [
        {"outcome": str(box.outcome), "shown": _to_json(box.shown), "annotated": _to_json(box.annotated)}
        for box in harvest.boxes
    ]
    return {"key": harvest.key, "annotators": list(harvest.annotator_ids), "boxes": boxes}


def from_row(annotators: Sequence[str], boxes: Sequence[dict[str, Any]]) -> HarvestBoxes:
    """The inverse of ``to_row``."""
    return HarvestBoxes(
        tuple(annotators),
        tuple(
            BoxOutcome(Outcome(b["outcome"]), _from_json(b["shown"]), _from_json(b["annotated"]))
            for b in boxes
        ),
    )


def annotation_to_json(annotation: Annotation) -> list[Any]:
    """[x1, y1, x2, y2, label]."""
    return [*annotation.box.corners, annotation.label]


def annotation_from_json(values: Sequence[Any]) -> Annotation:
    """The inverse of ``annotation_to_json``."""
    return Annotation(Box(*map(float, values[:4])), values[4])


def _to_json(annotation: Annotation | None) -> list[Any] | None:
    return None if annotation is None else annotation_to_json(annotation)


def _from_json(values: list[Any] | None) -> Annotation | None:
    return None if values is None else annotation_from_json(values)
