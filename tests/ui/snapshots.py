"""Snapshots made by hand, for what is computed from them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dsmoe_core.schema import Annotation, Box, Detection, ImageRecord, LabelledImage, Prediction, Routing
from pipelines.workspace.round_summary import RoundSummary
from ui.snapshot import Snapshot

BOX = Box(10.0, 10.0, 30.0, 30.0)


def image(name: str) -> ImageRecord:
    return ImageRecord(f"key of {name}", name, Path("/nowhere") / name, 100, 100)


def labelled(name: str, *labels: str) -> LabelledImage:
    return LabelledImage(image(name), tuple(Annotation(BOX, label) for label in labels))


def detection(label: str, score: float, entropy: float = 0.1, **others: float) -> Detection:
    return Detection(BOX, label, score, {label: score, **others}, entropy)


def found(
    name: str, *detections: Detection, experts: dict[int, float] | None = None, doubt: float = 0.1
) -> Prediction:
    """The detections lie side by side."""
    chosen = experts or {0: 1.0}
    routing = Routing(tuple(chosen), tuple(chosen.values()), 0.5)
    apart = tuple(replace(f, box=Box(20.0 * i, 10.0, 20.0 * i + 20, 30.0)) for i, f in enumerate(detections))
    return Prediction(f"key of {name}", apart, routing, doubt, "m1+b1")


def snapshot(**changes: Any) -> Snapshot:
    """Four images a, b, c, d of the pool and t of the test set; nothing found, nothing labelled."""
    parts: dict[str, Any] = {
        "title": "plates",
        "path": Path("/nowhere"),
        "rounds": (),
        "champion": None,
        "classes": ("scratch", "dent"),
        "images": {p.key: p for p in map(image, "abcd")},
        "detections": {},
        "annotations": {},
        "test": {"key of t": labelled("t", "dent")},
        "sent": frozenset(),
        "least_score": 0.3,
    }
    return Snapshot(**{**parts, **changes})


def row(number: int, **changes: Any) -> RoundSummary:
    """A closed round of ten images with twenty boxes, promoted."""
    parts: dict[str, Any] = {
        "round": number,
        "state": "closed",
        "sent": 10,
        "answered": 10,
        "images": 10 * (number + 1),
        "boxes": 20 * (number + 1),
        "new_images": 10,
        "new_boxes": 20,
        "accepted": 0,
        "moved": 0,
        "relabelled": 0,
        "deleted": 0,
        "added": 20,
        "map50": 0.5,
        "map": 0.25,
        "promoted": True,
        "reason": "promoted: first model",
        "model": f"m{number}",
        "dataset_version": "d",
        "opened_at": datetime(2026, 1, 1, tzinfo=UTC),
        "closed_at": datetime(2026, 1, 2, tzinfo=UTC),
    }
    return RoundSummary(**{**parts, **changes})
