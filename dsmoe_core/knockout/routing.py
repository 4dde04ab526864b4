"""Specialisation of a detector's experts at the true boxes of annotated images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dsmoe_core.evaluation.specialisation import Specialisation, specialisation
from dsmoe_core.predict import Detector
from dsmoe_core.schema import LabelledImage


def measure_specialisation(
    detector: Detector,
    truth: Sequence[LabelledImage],
    classes: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    permutations: int = 200,
    seed: int = 0,
) -> Specialisation | None:
    """Run the router on the images and compute the specialisation; None without a box or a router.

    Args:
        detector: with its vocabulary set.
        truth: annotated images, at least one.
        classes: of the annotations.
        groups, permutations, seed: as in :func:`dsmoe_core.evaluation.specialisation.specialisation`.
    """
    boxes = [(labelled.image, [a.box for a in labelled.annotations]) for labelled in truth]
    weights = np.concatenate(list(detector.weights_at(boxes)))
    return specialisation(weights, truth, classes, groups=groups, permutations=permutations, seed=seed)
