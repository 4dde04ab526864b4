"""Acquisition function ``entropy``: the summed class entropy of an image's detections."""

from __future__ import annotations

from dsmoe_core.uncertainty import image_uncertainty
from pipelines.rounds.acquisition.function import AcquisitionFunction, Candidates


def entropy_scores(candidates: Candidates) -> dict[str, float]:
    """Sum over the detections of their mean binary entropy, in nats; 0 for an image without detections.

    See ``dsmoe_core.uncertainty.image_uncertainty`` for the formula and its source.
    """
    return {p.key: image_uncertainty(p.detections) for p in candidates.predict()}


ENTROPY = AcquisitionFunction("images with many detections of uncertain class", entropy_scores)
