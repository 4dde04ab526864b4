"""Label Studio's JSON for clicks and frames, a detector that can be blocked, and fake masks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dsmoe_core.mobile_sam.prompt_segmenter import Masks
from dsmoe_core.progress import StatusCallback
from dsmoe_core.schema import ImageRecord, Prediction, Vocabulary
from pipelines.detectors.backend import PredictFunction, with_version
from pipelines.detectors.stub_detector import StubDetector
from pipelines.workspace.workspace import Workspace

Json = dict[str, Any]
RunScenario = Callable[..., Any]
MakeJson = Callable[..., Json]
Promote = StatusCallback


class BlockingDetector(StubDetector):
    """Predicts only while ``unblocked`` is set; records the size of every batch."""

    def __init__(self) -> None:
        self.unblocked = threading.Event()
        self.unblocked.set()
        self.batch_sizes: list[int] = []

    def load(self, model: Path, vocabulary: Vocabulary) -> PredictFunction:
        predict = super().load(model, vocabulary)

        def blocking_predict(images: Iterable[ImageRecord]) -> Iterator[Prediction]:
            batch = list(images)
            self.batch_sizes.append(len(batch))
            assert self.unblocked.wait(30)
            return predict(batch)

        return blocking_predict


def click(x: float, y: float, label: str, **more: object) -> Json:
    """A smart key-point; x and y in percent of the image."""
    value = {"x": x, "y": y, "width": 0.5, "keypointlabels": [label], "labels": [label]}
    return {
        "id": "k1",
        "type": "keypointlabels",
        "from_name": "click",
        "to_name": "image",
        "original_width": 96,
        "original_height": 96,
        "image_rotation": 0,
        "value": value,
        "is_positive": True,
        "origin": "manual",
        **more,
    }


def rectangle(x: float, y: float, w: float, h: float, label: str, **more: object) -> Json:
    """A rectangle; x, y, width and height in percent of the image."""
    value = {"x": x, "y": y, "width": w, "height": h, "rotation": 0, "rectanglelabels": [label]}
    shape = {"id": "r1", "type": "rectanglelabels", "from_name": "label", "to_name": "image"}
    return {**shape, "value": value, "origin": "manual", **more}


def stub_prediction(workspace: Workspace, model: str, image: ImageRecord) -> Prediction:
    vocabulary = workspace.class_book().vocabulary()
    """The stub detector's prediction, with the version of the workspace's model."""
    predictions = StubDetector().predict(workspace.registry.folder(model), vocabulary, [image])
    return next(with_version(predictions, workspace.prediction_version(model)))


class FakeMasks:
    """Returns masks of these boxes for every prompt; keeps the last prompt."""

    def __init__(self, width: int, height: int, *boxes: tuple[int, int, int, int]) -> None:
        masks = np.zeros((len(boxes), height, width), bool)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
            mask[y1:y2, x1:x2] = True
        self.masks = Masks(masks, np.linspace(1, 0, len(boxes), dtype=np.float32))
        self.last_prompt: dict[str, Any] = {}

    def segment(self, image: object, **prompt: Any) -> Masks:
        self.last_prompt = prompt
        return self.masks
