"""What the pages show: everything they need of a workspace, read at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from annotate.studio.label_config import colour
from dsmoe_core.cross_class_nms import one_a_place
from dsmoe_core.schema import Annotation, Finding, LabelledPicture, Picture, PictureFindings
from pipelines.workspace.round_summary import RoundRow

Kind = Literal["waiting", "sent", "labelled", "test"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A workspace as it was when it was read.

    Attributes:
        champion: the model in use; None before the first promotion.
        classes: of the class book, in its order.
        pictures: of the pool, by key.
        findings: the champion's, by picture key.
        annotations: what people said, by picture key.
        test: the fixed test set, by picture key.
        sent: the open round's pictures that have not come back.
        least_score: findings below it are not shown to annotators, and not counted here.
    """

    title: str
    path: Path
    rounds: tuple[RoundRow, ...]
    champion: str | None
    classes: tuple[str, ...]
    pictures: Mapping[str, Picture]
    findings: Mapping[str, PictureFindings]
    annotations: Mapping[str, LabelledPicture]
    test: Mapping[str, LabelledPicture]
    sent: frozenset[str]
    least_score: float

    def truth(self, key: str) -> tuple[Annotation, ...] | None:
        """What is known to be on a picture; None where nobody has looked."""
        known = self.annotations.get(key) or self.test.get(key)
        return None if known is None else known.annotations

    def shown(self, key: str) -> tuple[Finding, ...]:
        """The findings on a picture that are sure enough to be shown, one a place."""
        found = self.findings.get(key)
        return tuple(one_a_place(f for f in found.findings if f.score >= self.least_score)) if found else ()

    def kind(self, key: str) -> Kind:
        """Where a picture stands."""
        if key in self.test:
            return "test"
        if key in self.annotations:
            return "labelled"
        return "sent" if key in self.sent else "waiting"

    def colours(self) -> dict[str, str]:
        """``#rrggbb`` per class: the colours that annotators see in Label Studio."""
        return {name: colour(index) for index, name in enumerate(self.classes)}
