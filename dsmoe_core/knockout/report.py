"""Short report on the use of a trained network: parts without effect, and experts that are not used."""

from __future__ import annotations

from collections.abc import Sequence

from dsmoe_core.knockout.effect import find_full_network, measure_effects
from dsmoe_core.knockout.part_report import PartReport
from dsmoe_core.knockout.parts import levels_with_shallow
from dsmoe_core.knockout.routing import measure_specialisation
from dsmoe_core.predict import Detector
from dsmoe_core.schema import LabelledImage

F_OUT = "f_out"
MAIN_PARTS = (F_OUT, "f_moe", "affinity")
MAX_IMAGES = 24
"""Images of the report; a forward pass of each is needed for every part."""
RESAMPLES = 200


def measure_main_parts(
    detector: Detector, truth: Sequence[LabelledImage], classes: Sequence[str]
) -> PartReport | None:
    """Measure the main parts on the first annotated images with a box.

    F_out is left out where the head reads nothing else, as then nothing is detected without it.

    Args:
        detector: with its vocabulary set.
        truth: annotated images.
        classes: of the vocabulary.

    Returns:
        None if fewer than two images have a box, or the network lacks stages.
    """
    shown = [labelled for labelled in truth if labelled.annotations][:MAX_IMAGES]
    network = find_full_network(detector)
    if len(shown) < 2 or network is None:
        return None
    parts = [name for name in MAIN_PARTS if name != F_OUT or levels_with_shallow(network)]
    effects = measure_effects(detector, shown, classes, names=parts, resamples=RESAMPLES).effects
    routing = measure_specialisation(detector, shown, classes, permutations=1)  # the test is not reported
    return PartReport(
        images=len(shown),
        lost50={e.knockout.name: round(e.lost50.delta, 4) if e.lost50 else 0.0 for e in effects},
        unused=tuple(e.knockout.name for e in effects if not e.carries),
        idle_experts=routing.idle if routing else (),
        class_information=round(routing.by_class.share, 4) if routing else None,
    )
