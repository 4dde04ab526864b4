"""Short report on the use of a trained network: parts without effect, and experts that are not used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dsmoe_core.evaluation.bootstrap import resample_counts
from dsmoe_core.evaluation.specialisation import specialisation
from dsmoe_core.knockout.effect import measure_effects
from dsmoe_core.network import DSMoE
from dsmoe_core.predict import Detector
from dsmoe_core.runtimes.eager import EagerRuntime
from dsmoe_core.schema import LabelledImage

MAIN_PARTS = ("f_out", "f_moe", "affinity")
MAX_IMAGES = 24
"""Images of the report; a forward pass of each is needed for every part."""
RESAMPLES = 200


class MainParts(NamedTuple):
    """Use of the main parts; ``pipelines.workspace.registry.PartReport`` explains the fields."""

    images: int
    lost50: dict[str, float]
    unused: tuple[str, ...]
    idle_experts: tuple[int, ...]
    class_information: float | None


def measure_main_parts(
    detector: Detector, truth: Sequence[LabelledImage], classes: Sequence[str]
) -> MainParts | None:
    """Measure the main parts on the first annotated images with a box.

    Args:
        detector: with its vocabulary set.
        truth: annotated images.
        classes: of the vocabulary.

    Returns:
        None if there is no box, or the network lacks stages.
    """
    runtime = detector.model.runtime
    shown = [labelled for labelled in truth if labelled.annotations][:MAX_IMAGES]
    if not shown or not (isinstance(runtime, EagerRuntime) and isinstance(runtime.network, DSMoE)):
        return None
    counts = resample_counts(len(shown), RESAMPLES, seed=0)
    effects = measure_effects(detector, shown, classes, counts, names=MAIN_PARTS).effects
    boxes = [(labelled.image, [a.box for a in labelled.annotations]) for labelled in shown]
    weights = np.concatenate(list(detector.weights_at(boxes)))
    routing = specialisation(weights, shown, classes, permutations=20)
    return MainParts(
        len(shown),
        {e.knockout.name: round(e.lost50.delta, 4) if e.lost50 else 0.0 for e in effects},
        tuple(e.knockout.name for e in effects if not e.carries),
        routing.idle if routing else (),
        round(routing.by_class.share, 4) if routing else None,
    )
