"""Short report on the use of a trained network: parts without effect, and experts that are not used."""

from __future__ import annotations

from collections.abc import Sequence

from dsmoe_core.evaluation.bootstrap import resample_counts
from dsmoe_core.knockout.effect import find_full_network, measure_effects
from dsmoe_core.knockout.part_report import PartReport
from dsmoe_core.knockout.routing import measure_specialisation
from dsmoe_core.predict import Detector
from dsmoe_core.schema import LabelledImage

MAIN_PARTS = ("f_out", "f_moe", "affinity")
MAX_IMAGES = 24
"""Images of the report; a forward pass of each is needed for every part."""
RESAMPLES = 200


def measure_main_parts(
    detector: Detector, truth: Sequence[LabelledImage], classes: Sequence[str]
) -> PartReport | None:
    """Measure the main parts on the first annotated images with a box.

    Args:
        detector: with its vocabulary set.
        truth: annotated images.
        classes: of the vocabulary.

    Returns:
        None if there is no box, or the network lacks stages.
    """
    shown = [labelled for labelled in truth if labelled.annotations][:MAX_IMAGES]
    if not shown or find_full_network(detector) is None:
        return None
    counts = resample_counts(len(shown), RESAMPLES, seed=0)
    effects = measure_effects(detector, shown, classes, counts, names=MAIN_PARTS).effects
    routing = measure_specialisation(detector, shown, classes, permutations=1)  # the test is not reported
    return PartReport(
        images=len(shown),
        lost50={e.knockout.name: round(e.lost50.delta, 4) if e.lost50 else 0.0 for e in effects},
        unused=tuple(e.knockout.name for e in effects if not e.carries),
        idle_experts=routing.idle if routing else (),
        class_information=round(routing.by_class.share, 4) if routing else None,
    )
