"""Predictions with uncertainty scores for the benchmark: with all classes, and without each class in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dsmoe_core.predict import Detector
from dsmoe_core.progress import CountCallback
from dsmoe_core.runtimes.protocol import RuntimeOutput
from dsmoe_core.schema import ImageRecord, Prediction, Vocabulary

COST_IMAGES = 16
"""Images that are timed."""
_WARM_UP = 2


@dataclass(frozen=True)
class Samples:
    """Predictions of labelled images.

    Attributes:
        complete: with all classes, by image key.
        without: with a class book that lacks one class, by its name and by image key.
    """

    complete: dict[str, Prediction]
    without: dict[str, dict[str, Prediction]]


def predict_samples(
    detector: Detector,
    reduced: dict[str, Detector],
    vocabulary: Vocabulary,
    images: Sequence[ImageRecord],
    progress: CountCallback,
) -> Samples:
    """Run the network once on each image, and decode its output with every class book.

    Args:
        detector: with the complete vocabulary.
        reduced: detectors of the same model whose vocabulary lacks one class, by the name of that class.
        progress: called with (images done, images in total).
    """
    complete: dict[str, Prediction] = {}
    without: dict[str, dict[str, Prediction]] = {name: {} for name in reduced}
    for image, output, i in detector.outputs(images, batch=4):
        complete[image.key] = detector.decode(image, output, i)
        for name, other in reduced.items():
            part = without_class(output, vocabulary, name)
            without[name][image.key] = other.decode(image, part, i)
        progress(len(complete), len(images))
    return Samples(complete, without)


def without_class(output: RuntimeOutput, vocabulary: Vocabulary, name: str) -> RuntimeOutput:
    """The output without the columns of a class and of its texts.

    The conditioning classes stay, so the other columns are those of a class book without the class.
    """
    texts = [c.name for c in vocabulary.classes for _ in range(_texts(len(c.paraphrases)))]
    if output.logits.shape[-1] == len(vocabulary):  # a network that does not read the texts
        texts = []
    kept = [i for i, owner in enumerate([*vocabulary.names, *texts]) if owner != name]
    columns = torch.tensor(kept, device=output.logits.device)
    following = output.next_experts
    if following is not None:
        following = following._replace(logits=following.logits[..., columns])
    return output._replace(logits=output.logits[..., columns], next_experts=following)


def _texts(paraphrases: int) -> int:
    """Columns of the single texts of a class: none if it has one text."""
    return paraphrases + 1 if paraphrases else 0


def measure_cost(plain: Detector, scored: Detector, images: Sequence[ImageRecord]) -> dict[str, float]:
    """Time of a prediction with scores, and with the next-best experts too, relative to one without scores.

    Each image is predicted in every way, one after another, and the median of the ratios counts.

    Args:
        plain: without the next-best experts.
        scored: the same model with them.
    """
    timed = list(images[: COST_IMAGES + _WARM_UP])
    seconds = [
        (_plain_seconds(plain, image), _seconds(plain, image), _seconds(scored, image)) for image in timed
    ][_WARM_UP:]
    return {
        "seconds_without_scores": statistics.median(row[0] for row in seconds),
        "scores": statistics.median(row[1] / row[0] for row in seconds),
        "scores_and_next_experts": statistics.median(row[2] / row[0] for row in seconds),
    }


def _seconds(detector: Detector, image: ImageRecord) -> float:
    started = time.perf_counter()
    for _ in detector.predict([image]):
        pass
    return time.perf_counter() - started


def _plain_seconds(detector: Detector, image: ImageRecord) -> float:
    """Time of a prediction without the columns of texts and without scores."""
    started = time.perf_counter()
    for _, output, i in detector.outputs([image], texts=False):
        detector.decode(image, output, i, scored=False)
    return time.perf_counter() - started
