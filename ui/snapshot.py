"""What the pages show: everything they need of a workspace, read at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from annotate.studio.label_config import colour
from dsmoe_core.cross_class_nms import suppress_across_classes
from dsmoe_core.schema import Annotation, Detection, ImageRecord, LabelledImage, Prediction
from pipelines.workspace.round_summary import RoundSummary

Kind = Literal["waiting", "sent", "labelled", "test"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A workspace as it was when it was read.

    Attributes:
        champion: the model in use; None before the first promotion.
        classes: of the class book, in its order.
        images: of the pool, by key.
        detections: the champion's, by image key.
        annotations: what people said, by image key.
        test: the fixed test set, by image key.
        sent: the open round's images that have not come back.
        least_score: detections below it are not shown to annotators, and not counted here.
    """

    title: str
    path: Path
    rounds: tuple[RoundSummary, ...]
    champion: str | None
    classes: tuple[str, ...]
    images: Mapping[str, ImageRecord]
    detections: Mapping[str, Prediction]
    annotations: Mapping[str, LabelledImage]
    test: Mapping[str, LabelledImage]
    sent: frozenset[str]
    least_score: float

    def truth(self, key: str) -> tuple[Annotation, ...] | None:
        """What is known to be on an image; None where nobody has looked."""
        known = self.annotations.get(key) or self.test.get(key)
        return None if known is None else known.annotations

    def shown(self, key: str) -> tuple[Detection, ...]:
        """The detections on an image that are sure enough to be shown, one a place."""
        found = self.detections.get(key)
        return (
            tuple(suppress_across_classes(f for f in found.detections if f.score >= self.least_score))
            if found
            else ()
        )

    def kind(self, key: str) -> Kind:
        """Where an image stands."""
        if key in self.test:
            return "test"
        if key in self.annotations:
            return "labelled"
        return "sent" if key in self.sent else "waiting"

    def colours(self) -> dict[str, str]:
        """``#rrggbb`` per class: the colours that annotators see in Label Studio."""
        return {name: colour(index) for index, name in enumerate(self.classes)}
