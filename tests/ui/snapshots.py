"""Builders of snapshots, predictions and round rows for the tests of pure functions."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dsmoe_core.schema import Annotation, Box, Detection, ImageRecord, LabelledImage, Prediction, Routing
from pipelines.settings.rounds import RoundSettings
from pipelines.workspace.round_summary import RoundSummary
from ui.snapshot import Snapshot

BOX = Box(10.0, 10.0, 30.0, 30.0)


def image(name: str) -> ImageRecord:
    return ImageRecord(f"key of {name}", name, Path("/nowhere") / name, 100, 100)


def labelled(name: str, *labels: str) -> LabelledImage:
    return LabelledImage(image(name), tuple(Annotation(BOX, label) for label in labels))


def detection(label: str, score: float, entropy: float = 0.1, **others: float) -> Detection:
    return Detection(BOX, label, score, {label: score, **others}, entropy)


def prediction(
    name: str, *detections: Detection, experts: dict[int, float] | None = None, uncertainty: float = 0.1
) -> Prediction:
    """A prediction whose detections do not overlap."""
    weights = experts or {0: 1.0}
    routing = Routing(tuple(weights), tuple(weights.values()), 0.5)
    apart = tuple(replace(d, box=Box(20.0 * i, 10.0, 20.0 * i + 20, 30.0)) for i, d in enumerate(detections))
    return Prediction(f"key of {name}", apart, routing, uncertainty, "m1+b1")


def snapshot(**changes: Any) -> Snapshot:
    """Images a, b, c, d in the pool and t in the test set; no predictions and no annotations."""
    fields: dict[str, Any] = {
        "title": "plates",
        "path": Path("/nowhere"),
        "rounds": (),
        "champion": None,
        "classes": ("scratch", "dent"),
        "images": {i.key: i for i in map(image, "abcd")},
        "predictions": {},
        "annotations": {},
        "test_set": {"key of t": labelled("t", "dent")},
        "sent": frozenset(),
        "round_settings": RoundSettings(pre_annotation_score=0.3),
    }
    return Snapshot(**{**fields, **changes})


def row(number: int, **changes: Any) -> RoundSummary:
    """A closed round of ten images with twenty boxes, promoted."""
    fields: dict[str, Any] = {
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
    return RoundSummary(**{**fields, **changes})
