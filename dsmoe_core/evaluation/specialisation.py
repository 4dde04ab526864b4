"""Specialisation of the experts: which expert leads where, and what it says about class and product line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from dsmoe_core.evaluation.information import Information, information
from dsmoe_core.schema import LabelledImage


class Specialisation(NamedTuple):
    """Routing at the true boxes.

    Attributes:
        classes: rows of ``weights``.
        weights: mean weight of each of e experts at the boxes of each class. A row sums to 1, or is 0 for a
            class without boxes.
        leading: share of the boxes at which each expert has the highest weight, (e,).
        idle: experts that lead at no box.
        by_class: what the leading expert says about the class of a box.
        by_group: what it says about the group of the image, such as its product line; None without groups.
    """

    classes: tuple[str, ...]
    weights: Float[np.ndarray, "c e"]
    leading: Float[np.ndarray, " e"]
    idle: tuple[int, ...]
    by_class: Information
    by_group: Information | None


def specialisation(
    weights: Float[np.ndarray, "n e"],
    truth: Sequence[LabelledImage],
    classes: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    permutations: int = 200,
    seed: int = 0,
) -> Specialisation | None:
    """Compute the specialisation; None if there is no box or the network has no router.

    Args:
        weights: of e experts at the centres of the true boxes, image by image, as ``Detector.weights_at``
            gives them.
        truth: annotated images.
        groups: of each image.
        permutations: of the images, for the test whether the information is more than by chance.

    Raises:
        ValueError: the number of rows is not that of the boxes.
    """
    rows = [(image, a.label) for image, labelled in enumerate(truth) for a in labelled.annotations]
    if len(rows) != len(weights):
        raise ValueError(
            f"there are {len(weights)} rows of weights; expected one for each of {len(rows)} boxes"
        )
    if not weights.size:
        return None
    label = np.array([classes.index(name) for _, name in rows])
    leading = weights.argmax(axis=1)
    of_class = np.zeros((len(classes), weights.shape[1]))
    np.add.at(of_class, label, weights)
    total = of_class.sum(1, keepdims=True)
    share = np.bincount(leading, minlength=weights.shape[1]) / len(rows)
    image = np.array([i for i, _ in rows])
    test = {"permutations": permutations, "seed": seed}
    return Specialisation(
        tuple(classes),
        np.divide(of_class, total, out=np.zeros_like(of_class), where=total > 0),
        share,
        tuple(int(i) for i in np.flatnonzero(share == 0)),
        information(leading, label, image, **test),
        None if groups is None else information(leading, _codes([groups[i] for i in image]), image, **test),
    )


def _codes(values: Sequence[str]) -> Int[np.ndarray, " n"]:
    order = {value: code for code, value in enumerate(dict.fromkeys(values))}
    return np.array([order[value] for value in values])
