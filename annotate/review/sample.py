"""Review data of one image as plain values for FiftyOne. Does not import FiftyOne."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dsmoe_core.schema import Annotation, Box, Detection, ImageRecord, Prediction, Routing


@dataclass(frozen=True, slots=True)
class ReviewSample:
    """One image with its annotations and its prediction.

    Attributes:
        annotations: ground truth; None for an unlabelled image, empty for an image without defects.
        prediction: None if the detector has not run on the image.
        tags: the image's part in the loop, e.g. ``round 2``, ``ranked``, ``test set``.
    """

    image: ImageRecord
    annotations: tuple[Annotation, ...] | None
    prediction: Prediction | None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """Order and length of the vectors, the same for all samples of a data set.

    Attributes:
        classes: order of a detection's ``probs``.
        experts: length of an image's ``gating_weights``.
    """

    classes: tuple[str, ...]
    experts: int

    @classmethod
    def of(cls, samples: Iterable[ReviewSample]) -> Layout:
        """Layout of samples: all their classes, in the vocabulary's order, and the highest expert index."""
        classes: dict[str, None] = {}
        experts = 0
        for sample in samples:
            if sample.prediction is not None:
                experts = max(experts, 1 + max(sample.prediction.routing.experts, default=-1))
                for detection in sample.prediction.detections:
                    classes.update(dict.fromkeys(detection.probabilities))
            classes.update(dict.fromkeys(a.label for a in sample.annotations or ()))
        return cls(tuple(classes), experts)


def describe(sample: ReviewSample, layout: Layout) -> dict[str, Any]:
    """Field names and JSON-compatible values of one sample. A field without a value is None.

    Boxes are ``[left, top, width, height]`` relative to the image size; entropies are in nats.
    """
    image, prediction = sample.image, sample.prediction
    fields: dict[str, Any] = {
        "filepath": str(image.path),
        "image_key": image.key,
        "image_name": image.name,
        "size": [image.width, image.height],
        "labelled": sample.annotations is not None,
        "loop_tags": list(sample.tags),
        "ground_truth": None,
        **dict.fromkeys(("predictions", "uncertainty", "version", "experts", "lead_expert")),
        **dict.fromkeys(("gating_weights", "routing_entropy")),
    }
    if sample.annotations is not None:
        fields["ground_truth"] = [
            {"label": a.label, "bounding_box": _relative(a.box, image)} for a in sample.annotations
        ]
    if prediction is not None:
        names = [expert_name(index) for index in prediction.routing.experts]
        fields.update(
            predictions=[_detection(d, image, layout.classes) for d in prediction.detections],
            uncertainty=prediction.uncertainty,
            version=prediction.version,
            experts=names,
            lead_expert=names[0] if names else None,
            gating_weights=weights_vector(prediction.routing, layout.experts),
            routing_entropy=prediction.routing.entropy,
        )
    return fields


def fingerprint(fields: dict[str, Any]) -> str:
    """Short hash of the result of ``describe``. A sample with the same hash need not be written again."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def weights_vector(routing: Routing, experts: int) -> list[float]:
    """Gating weights of all experts, zero for those that were not selected. Sums to one."""
    weights = [0.0] * experts
    for index, weight in zip(routing.experts, routing.weights, strict=True):
        weights[index] = weight
    return weights


def expert_name(index: int) -> str:
    """Name of an expert, counted from 1."""
    return f"expert {index + 1}"


def _detection(detection: Detection, image: ImageRecord, classes: Sequence[str]) -> dict[str, Any]:
    second = detection.second_best
    return {
        "label": detection.label,
        "bounding_box": _relative(detection.box, image),
        "confidence": detection.score,
        "entropy": detection.entropy,
        # A class that the model does not have gets probability 0.
        "probs": [float(detection.probabilities.get(name, 0.0)) for name in classes],
        "second_best": second[0] if second else None,
        "second_probability": second[1] if second else None,
        "expert": None if detection.expert is None else expert_name(detection.expert),
    }


def _relative(box: Box, image: ImageRecord) -> list[float]:
    return [
        box.x1 / image.width,
        box.y1 / image.height,
        box.width / image.width,
        box.height / image.height,
    ]
