"""Snapshot of a workspace: all data of the pages, read at one time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from annotate.studio.label_config import colour
from dsmoe_core.data.import_account import ImportAccount
from dsmoe_core.schema import Annotation, Detection, ImageRecord, LabelledImage, Prediction
from pipelines.detectors.pre_annotations import pre_annotations
from pipelines.settings.rounds import RoundSettings
from pipelines.workspace.import_log import ImportRecord
from pipelines.workspace.operating_points import OperatingPoints
from pipelines.workspace.round_summary import RoundSummary

ImageStatus = Literal["waiting", "sent", "labelled", "test"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A workspace at the time when it was read.

    Attributes:
        champion: id of the model in use; None before the first promotion.
        classes: of the class book, in its order.
        images: of the pool, by key.
        predictions: of the champion, by image key.
        annotations: latest annotations, by image key.
        test_set: the fixed test set, by image key.
        sent: keys of the images that are with the annotators.
        round_settings: define, with ``operating_points``, which detections are pre-annotations.
        operating_points: of the champion; None without a test set.
        accounts: of the harvests, by round.
        imports: accounts of the imported labels, the latest import first.
    """

    title: str
    path: Path
    rounds: tuple[RoundSummary, ...]
    champion: str | None
    classes: tuple[str, ...]
    images: Mapping[str, ImageRecord]
    predictions: Mapping[str, Prediction]
    annotations: Mapping[str, LabelledImage]
    test_set: Mapping[str, LabelledImage]
    sent: frozenset[str]
    round_settings: RoundSettings
    accounts: Mapping[int, ImportAccount] = field(default_factory=dict)
    imports: tuple[ImportRecord, ...] = ()
    operating_points: OperatingPoints | None = None

    def truth(self, key: str) -> tuple[Annotation, ...] | None:
        """Annotations of an image; None if it is not labelled."""
        labelled = self.annotations.get(key) or self.test_set.get(key)
        return None if labelled is None else labelled.annotations

    def pre_annotations(self, key: str) -> tuple[Detection, ...]:
        """Detections of an image that annotators are shown, highest score first."""
        prediction = self.predictions.get(key)
        if prediction is None:
            return ()
        return pre_annotations(prediction, self.round_settings, self.operating_points).detections

    def status(self, key: str) -> ImageStatus:
        """Where an image is in the labelling process."""
        if key in self.test_set:
            return "test"
        if key in self.annotations:
            return "labelled"
        return "sent" if key in self.sent else "waiting"

    def colours(self) -> dict[str, str]:
        """``#rrggbb`` per class, the same colours as in Label Studio."""
        return {name: colour(index) for index, name in enumerate(self.classes)}
