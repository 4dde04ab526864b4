"""What FiftyOne shows of one image, as plain values: no FiftyOne here, so this is quick to test."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dsmoe_core.schema import Annotation, Box, Detection, ImageRecord, Prediction, Routing


@dataclass(frozen=True, slots=True)
class ReviewSample:
    """One image to look at.

    Attributes:
        truth: what people say is on it; None where nobody has looked yet, empty where they saw no defect.
        detections: what the detector says; None where it has not seen the image.
        tags: the image's part in the loop, e.g. ``round 2``, ``ranked``, ``test set``.
    """

    image: ImageRecord
    annotations: tuple[Annotation, ...] | None
    prediction: Prediction | None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """What fixes the length of the vectors: the same for every sample of a data set.

    Attributes:
        classes: order of a detection's ``probs``.
        experts: length of an image's ``gating_weights``.
    """

    classes: tuple[str, ...]
    experts: int

    @classmethod
    def of(cls, samples: Iterable[ReviewSample]) -> Layout:
        """Every class named anywhere, in the vocabulary's order, and experts up to the highest one chosen."""
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
    """Field names and JSON-like values of one sample; a field that does not apply is None.

    Boxes are ``[left, top, width, height]`` as shares of the image, entropies in nats.
    """
    image, found = sample.image, sample.prediction
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
    if found is not None:
        names = [expert_name(index) for index in found.routing.experts]
        fields.update(
            predictions=[_detection(detection, image, layout.classes) for detection in found.detections],
            uncertainty=found.uncertainty,
            version=found.version,
            experts=names,
            lead_expert=names[0] if names else None,
            gating_weights=weights_vector(found.routing, layout.experts),
            routing_entropy=found.routing.entropy,
        )
    return fields


def fingerprint(fields: dict[str, Any]) -> str:
    """A short hash of :func:`describe`'s answer: equal where nothing need be written anew."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def weights_vector(routing: Routing, experts: int) -> list[float]:
    """One weight per expert, zero for those that did not look; sums to one."""
    weights = [0.0] * experts
    for index, weight in zip(routing.experts, routing.weights, strict=True):
        weights[index] = weight
    return weights


def expert_name(index: int) -> str:
    """How people count: the first expert is 1."""
    return f"expert {index + 1}"


def _detection(detection: Detection, image: ImageRecord, classes: Sequence[str]) -> dict[str, Any]:
    second = detection.second_best
    return {
        "label": detection.label,
        "bounding_box": _relative(detection.box, image),
        "confidence": detection.score,
        "entropy": detection.entropy,
        # A class that this model does not know has no probability: zero.
        "probs": [float(detection.probabilities.get(name, 0.0)) for name in classes],
        "second_best": second[0] if second else None,
        "second_probability": second[1] if second else None,
    }


def _relative(box: Box, image: ImageRecord) -> list[float]:
    return [
        box.x1 / image.width,
        box.y1 / image.height,
        box.width / image.width,
        box.height / image.height,
    ]
