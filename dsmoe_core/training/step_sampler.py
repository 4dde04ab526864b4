"""Selects the data of every training step: labelled set, images, class embeddings and class subset.

Everything is a function of (seed, step). So a resumed run, and every process of several, gets the same steps
as an uninterrupted single process.

**Several labelled sets.** A step shows images of one set with that set's class book. A round of steps has a
number of batches of each set, in random order. With ``set_sampling: proportional`` a round processes every
set once, in as many batches as it takes, so its share is proportional to its images. With ``even`` a round
has one batch of each set.

**Class subsets.** In a fraction of the steps only a random part of the classes is active: at least half, at
most all but one. Boxes of the other classes are removed, so they count as background. The whole class book is
still encoded, as in use, so T^ and its statistics do not change. The inactive classes do not condition the
image features either. The head scores every class independently, so with features that are conditioned on all
classes, such a step would be the same as any other step for the active classes. This way stages 5 to 9 get
varying sets of class texts and cannot treat them as constants.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dsmoe_core.config import TrainingConfig
from dsmoe_core.data.batches import Batch, TrainingSet
from dsmoe_core.losses import Taxonomy
from dsmoe_core.text_embeddings import TextEmbeddings

PARAPHRASE_STREAM, SUBSET_STREAM, ORDER_STREAM = 1 << 21, 1 << 24, 1 << 25
"""Seeds that separate these random streams from each other and from those of the batches."""


class TrainingStep(NamedTuple):
    """Data of one training step."""

    batch: Batch
    """Batch over all processes; its labels index ``active``."""
    classes: Float[Tensor, "c t"]
    """Embeddings of all classes of the class book, with the paraphrases sampled for this step."""
    inner: Float[Tensor, "i t"]
    """Embeddings of the taxonomy's inner nodes."""
    active: Int[Tensor, " a"]
    """Rows of ``classes`` that are trained, ascending."""
    taxonomy: Taxonomy
    """Taxonomy of the active classes and all inner nodes."""
    set_index: int = 0
    """Number of the labelled set that the batch is of."""

    @classmethod
    def with_classes(
        cls, active: Int[Tensor, " a"], batch: Batch, classes: Float[Tensor, "c t"], texts: TextEmbeddings
    ) -> TrainingStep:
        """Training step with some of the classes active; boxes of the other classes are removed.

        Args:
            active: rows of ``classes`` that are trained, ascending.
            batch: batch labelled with all classes.
            classes: embeddings of all classes of the class book.
            texts: taxonomy, and embeddings of its inner nodes.
        """
        taxonomy = texts.taxonomy.subset(active, len(classes), len(texts.inner))
        return cls(batch.select_classes(active.numpy()), classes, texts.inner, active, taxonomy)


class StepSampler:
    """Computes the data of any step of a run.

    Args:
        sets: labelled sets, each with the embeddings of its vocabulary.
        training: seed, batch size, fraction of steps with a class subset, and share of paraphrases.
    """

    def __init__(self, sets: Sequence[tuple[TrainingSet, TextEmbeddings]], training: TrainingConfig) -> None:
        self._sets = sets
        self._seed, self._subset_share = training.seed, training.class_subsets
        self._paraphrases = training.paraphrases
        self._batches = batches_per_round([len(images) for images, _ in sets], training)

    def sample(self, step: int) -> TrainingStep:
        """Return the data of this step."""
        index, batch = scheduled_set(step, self._batches, self._seed)
        images, texts = self._sets[index]
        classes = texts.sample(
            np.random.default_rng([self._seed, PARAPHRASE_STREAM, step]), self._paraphrases
        )
        rng = np.random.default_rng([self._seed, SUBSET_STREAM, step])
        active = sample_class_subset(len(classes), self._subset_share, rng)
        sampled = TrainingStep.with_classes(active, images.batch(batch), classes, texts)
        return sampled._replace(set_index=index)


def batches_per_round(sizes: Sequence[int], training: TrainingConfig) -> list[int]:
    """Batches of each set in a round of steps.

    Args:
        sizes: images of each set.
        training: batch size and ``set_sampling``.
    """
    if training.set_sampling == "even":
        return [1] * len(sizes)
    return [math.ceil(size / training.batch) for size in sizes]


def scheduled_set(step: int, batches: Sequence[int], seed: int) -> tuple[int, int]:
    """Return the set that a step uses, and in how many earlier steps it was used.

    Args:
        step: step number.
        batches: of each set in a round.
        seed: of the order within a round.
    """
    completed_rounds, position = divmod(step, sum(batches))
    order = _order_of_round(completed_rounds, batches, seed)
    index = order[position]
    return index, completed_rounds * batches[index] + order[:position].count(index)


def steps_of_each_set(steps: int, batches: Sequence[int], seed: int) -> list[int]:
    """Return how many of the first ``steps`` steps use each set.

    Args:
        batches, seed: see :func:`scheduled_set`.
    """
    completed_rounds, rest = divmod(steps, sum(batches))
    last = _order_of_round(completed_rounds, batches, seed)[:rest]
    return [completed_rounds * count + last.count(index) for index, count in enumerate(batches)]


def _order_of_round(number: int, batches: Sequence[int], seed: int) -> list[int]:
    """The set of each step of a round."""
    rng = np.random.default_rng([seed, ORDER_STREAM, number])
    order: list[int] = rng.permutation(np.repeat(np.arange(len(batches)), batches)).tolist()
    return order


def sample_class_subset(classes: int, share: float, rng: np.random.Generator) -> Int[Tensor, " a"]:
    """Sample the rows of the active classes, ascending.

    Args:
        classes: number of classes; with one class, it is always active.
        share: probability of a subset; otherwise all classes are active.
        rng: source of randomness.
    """
    if classes < 2 or rng.random() >= share:
        return torch.arange(classes)
    count = int(rng.integers((classes + 1) // 2, classes))
    return torch.from_numpy(np.sort(rng.choice(classes, count, replace=False)))
