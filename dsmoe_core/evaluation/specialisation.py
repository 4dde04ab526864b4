"""Specialisation of the experts: which expert leads where, and what it says about class and product line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from dsmoe_core.evaluation.information import Information, information
from dsmoe_core.schema import LabelledImage, Prediction


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
    predictions: Mapping[str, Prediction],
    truth: Sequence[LabelledImage],
    classes: Sequence[str],
    experts: int,
    *,
    groups: Sequence[str] | None = None,
    permutations: int = 200,
    seed: int = 0,
) -> Specialisation | None:
    """Compute the specialisation; None if there is no box or the network has no router.

    Args:
        predictions: by image key.
        experts: N_e.
        groups: of each image.
        permutations: of the test whether the information is more than by chance.
    """
    rows = [(image, a.label) for image, labelled in enumerate(truth) for a in labelled.annotations]
    routings = [predictions[labelled.image.key].routing for labelled in truth]
    if not rows or not all(routing.experts for routing in routings):
        return None
    label = np.array([classes.index(name) for _, name in rows])
    leading = np.array([routings[image].experts[0] for image, _ in rows])
    weights = np.zeros((len(classes), experts))
    for (image, _), row in zip(rows, label, strict=True):
        weights[row, list(routings[image].experts)] += routings[image].weights
    total = weights.sum(1, keepdims=True)
    share = np.bincount(leading, minlength=experts) / len(rows)
    test = {"permutations": permutations, "seed": seed}
    return Specialisation(
        tuple(classes),
        np.divide(weights, total, out=np.zeros_like(weights), where=total > 0),
        share,
        tuple(int(i) for i in np.flatnonzero(share == 0)),
        information(leading, label, **test),
        None if groups is None else information(leading, _codes([groups[i] for i, _ in rows]), **test),
    )


def _codes(values: Sequence[str]) -> Int[np.ndarray, " n"]:
    order = {value: code for code, value in enumerate(dict.fromkeys(values))}
    return np.array([order[value] for value in values])
