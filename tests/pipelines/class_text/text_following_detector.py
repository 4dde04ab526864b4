"""Detector stub whose class probabilities depend on keywords in the class descriptions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dsmoe_core.schema import Detection, ImageRecord, LabelledImage, Prediction, Routing, Vocabulary
from pipelines.detectors.backend import PredictFunction

WITH_KEYWORD, WITHOUT_KEYWORD, NEXT_CLASS = 0.9, 0.3, 0.6
"""Probability of the true class with and without its keyword, and of the next class without the keyword."""


class TextFollowingDetector:
    """Finds every true box, and predicts the next class if the description lacks the keyword of its class.

    Args:
        truth: images with their true boxes.
        keywords: one word per class.

    Attributes:
        books: version of the class book of each call.
    """

    def __init__(self, truth: Sequence[LabelledImage], keywords: Mapping[str, str]) -> None:
        self._truth = {item.image.key: item for item in truth}
        self._keywords = keywords
        self.books: list[str] = []

    def fit(self, **_: Any) -> dict[str, Any]:
        raise NotImplementedError

    def predict(
        self, model: Path, vocabulary: Vocabulary, images: Iterable[ImageRecord]
    ) -> Iterator[Prediction]:
        self.books.append(vocabulary.version)
        for image in images:
            detections = []
            for annotation in self._truth[image.key].annotations:
                index = vocabulary.index(annotation.label)
                text = vocabulary.classes[index]
                next_class = vocabulary.names[(index + 1) % len(vocabulary)]
                has_keyword = self._keywords[text.name] in text.description
                probabilities = dict.fromkeys(vocabulary.names, 0.05)
                probabilities[next_class] = 0.1 if has_keyword else NEXT_CLASS
                probabilities[text.name] = WITH_KEYWORD if has_keyword else WITHOUT_KEYWORD
                label = max(probabilities, key=lambda name: probabilities[name])
                detections.append(Detection(annotation.box, label, probabilities[label], probabilities, 0.1))
            yield Prediction(image.key, tuple(detections), Routing((0,), (1.0,), 0.0), 0.1, "")

    def load(self, model: Path, vocabulary: Vocabulary) -> PredictFunction:
        return partial(self.predict, model, vocabulary)
