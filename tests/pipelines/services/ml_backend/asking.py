"""What annotators point at, in Label Studio's JSON, and a detector that can be held back."""

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
Play = Callable[..., Any]
Make = Callable[..., Json]
Promote = StatusCallback


class Held(StubDetector):
    """Answers only when it is let; counts how often and on what it was asked."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.looks: list[int] = []

    def load(self, model: Path, vocabulary: Vocabulary) -> PredictFunction:
        look = super().opened(model, vocabulary)

        def held(images: Iterable[ImageRecord]) -> Iterator[Prediction]:
            batch = list(images)
            self.looks.append(len(batch))
            assert self.go.wait(30)
            return look(batch)

        return held


def click(x: float, y: float, label: str, **more: object) -> Json:
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
    value = {"x": x, "y": y, "width": w, "height": h, "rotation": 0, "rectanglelabels": [label]}
    shape = {"id": "r1", "type": "rectanglelabels", "from_name": "label", "to_name": "image"}
    return {**shape, "value": value, "origin": "manual", **more}


def found_by(workspace: Workspace, model: str, image: ImageRecord) -> Prediction:
    vocabulary = workspace.class_book().vocabulary()
    found = StubDetector().predict(workspace.registry.folder(model), vocabulary, [image])
    return next(with_version(found, workspace.prediction_version(model)))


class Scissors:
    """Answers every prompt with masks of these boxes; remembers the prompt."""

    def __init__(self, width: int, height: int, *boxes: tuple[int, int, int, int]) -> None:
        masks = np.zeros((len(boxes), height, width), bool)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
            mask[y1:y2, x1:x2] = True
        self.masks = Masks(masks, np.linspace(1, 0, len(boxes), dtype=np.float32))
        self.asked: dict[str, Any] = {}

    def segment(self, image: object, **prompt: Any) -> Masks:
        self.asked = prompt
        return self.masks
