"""Specialisation of a detector's experts at the true boxes of annotated images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from dsmoe_core.evaluation.specialisation import Specialisation, specialisation
from dsmoe_core.predict import Detector
from dsmoe_core.schema import LabelledImage
from dsmoe_core.tiling import boxes_on_tiles


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

    Large images are cut into the tiles that the model predicts on; each box counts on the tile with the
    nearest centre.

    Args:
        detector: with its vocabulary set.
        truth: annotated images, at least one.
        classes: of the annotations.
        groups, permutations, seed: as in :func:`dsmoe_core.evaluation.specialisation.specialisation`.
    """
    weights = _weights(detector, truth)
    return specialisation(weights, truth, classes, groups=groups, permutations=permutations, seed=seed)


def _weights(detector: Detector, truth: Sequence[LabelledImage]) -> Float[np.ndarray, "n e"]:
    """Router weights of the experts at the true boxes, image by image."""
    tiles = detector.model.config.tiles
    boxes = [
        on_tile
        for labelled in truth
        for on_tile in boxes_on_tiles(labelled.image, [a.box for a in labelled.annotations], tiles)
    ]
    if not boxes:
        return np.zeros((0, 0))
    rows: dict[str, list[int]] = {}
    for row, (view, _) in enumerate(boxes):
        rows.setdefault(view.key, []).append(row)
    asked = [(boxes[of_view[0]][0], [boxes[row][1] for row in of_view]) for of_view in rows.values()]
    by_view = np.concatenate(list(detector.weights_at(asked)))
    weights = np.empty_like(by_view)
    weights[[row for of_view in rows.values() for row in of_view]] = by_view
    return weights
