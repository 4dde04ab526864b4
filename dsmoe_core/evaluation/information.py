"""Mutual information between two discrete labels of the same items, with a permutation test.

Shannon, "A Mathematical Theory of Communication", 1948. The estimate from counts is above 0 by chance; the
mean over permutations says by how much. Items of one image depend on each other, so whole images are
permuted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int


class Information(NamedTuple):
    """How much one label says about another.

    Attributes:
        share: mutual information divided by the entropy of the second label, 0 to 1; 0 if it is constant.
        by_chance: mean share over permutations.
        p: share of the permutations, the data included, with at least this mutual information.
    """

    share: float
    by_chance: float
    p: float


def mutual_information(first: Int[np.ndarray, " n"], second: Int[np.ndarray, " n"]) -> float:
    """Mutual information in bits of two labels, estimated from their counts; 0 without items."""
    if not len(first):
        return 0.0
    joint = np.zeros((int(first.max()) + 1, int(second.max()) + 1))
    np.add.at(joint, (first, second), 1.0 / len(first))
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 0
    return max(0.0, float((joint[seen] * np.log2(joint[seen] / independent[seen])).sum()))


def information(
    first: Int[np.ndarray, " n"],
    second: Int[np.ndarray, " n"],
    image: Int[np.ndarray, " n"],
    *,
    permutations: int = 200,
    seed: int = 0,
) -> Information:
    """Mutual information of two labels as a share of the entropy of the second.

    In each permutation an image has the second labels of another image, in random order. If that has fewer
    items, its labels are repeated; if it has more, some are left out.

    Args:
        first: for example the leading expert at each box, counted from 0.
        second: for example the class of each box, counted from 0.
        image: of each item, counted from 0.
    """
    entropy = mutual_information(second, second)
    if entropy == 0.0:
        return Information(0.0, 0.0, 1.0)
    value = mutual_information(first, second)
    rng = np.random.default_rng(seed)
    images = [np.flatnonzero(image == i) for i in np.unique(image)]
    shuffled = np.array(
        [mutual_information(first, _permuted(second, images, rng)) for _ in range(permutations)]
    )
    at_least = int((shuffled >= value - 1e-12).sum())
    return Information(value / entropy, float(shuffled.mean()) / entropy, (at_least + 1) / (permutations + 1))


def _permuted(
    label: Int[np.ndarray, " n"], images: Sequence[Int[np.ndarray, " _"]], rng: np.random.Generator
) -> Int[np.ndarray, " n"]:
    """The labels after the images were permuted at random; ``images`` has the items of each image."""
    permuted = np.empty_like(label)
    for items, other in zip(images, rng.permutation(len(images)), strict=True):
        permuted[items] = np.resize(rng.permutation(label[images[other]]), len(items))
    return permuted
