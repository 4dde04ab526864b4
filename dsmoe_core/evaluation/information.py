"""Mutual information between two discrete labels of the same items, with a permutation test.

Shannon, "A Mathematical Theory of Communication", 1948. The estimate from counts is above 0 by chance; the
mean over permutations says by how much. Items of one image depend on each other, so whole images are
permuted.
"""

from __future__ import annotations

from collections.abc import Callable
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

    The test permutes the second label between images: freely if it is the same for all items of an image,
    otherwise between images with as many items.

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
    permute = _permutation_of_images(second, image)
    shuffled = np.array([mutual_information(first, permute(rng)) for _ in range(permutations)])
    at_least = int((shuffled >= value - 1e-12).sum())
    return Information(value / entropy, float(shuffled.mean()) / entropy, (at_least + 1) / (permutations + 1))


def _permutation_of_images(
    label: Int[np.ndarray, " n"], image: Int[np.ndarray, " n"]
) -> Callable[[np.random.Generator], Int[np.ndarray, " n"]]:
    """A function that gives the labels after the images were permuted at random."""
    _, index, size = np.unique(image, return_inverse=True, return_counts=True)
    items = np.split(np.argsort(index, kind="stable"), np.cumsum(size)[:-1])
    of_image = np.array([label[rows[0]] for rows in items])
    if np.array_equal(of_image[index], label):
        return lambda rng: rng.permutation(of_image)[index]
    equal_sizes = [np.stack([rows for rows in items if len(rows) == n]) for n in np.unique(size)]

    def permute(rng: np.random.Generator) -> Int[np.ndarray, " n"]:
        permuted = np.empty_like(label)
        for rows in equal_sizes:
            permuted[rows] = label[rng.permutation(rows)]
        return permuted

    return permute
