"""What each step asks: images of which labelled set, in which words, and which of its classes.

All of it is a function of (seed, step), so that a resumed run asks what an uninterrupted one would have
asked, and so does every process of several.

**Several sets.** A step shows images of one set and reads that set's class book. In a round every set is
gone through once, in as many batches as that takes, in an order that is drawn anew; so each has its share by
its images, and at least one batch.

**Class subsets.** In a share of the steps a part of the book's classes is asked about: at least half, at most
all but one, each as likely. Boxes of the others are taken off: to "is there a short here?" a mouse bite is
background. The book is read whole, as in use, so T^ and what is counted of the words stay the same. But what
is not asked does not steer either: the head scores every class by itself, so while all of them steered,
pixels could not tell such a step from any other, and it would teach nothing but a part of what the others
teach. So stages 5 to 9 meet ever other words, and cannot take them for constants.
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

WORDINGS, SUBSETS, TURNS = 1 << 21, 1 << 24, 1 << 25
"""Keep the random numbers apart from each other and from those of the batches."""


class TrainingStep(NamedTuple):
    """What one step shows and asks."""

    batch: Batch
    """Of all processes; labels count within ``asked``."""
    classes: Float[Tensor, "c t"]
    """The whole book, in this step's words."""
    inner: Float[Tensor, "i t"]
    asked: Int[Tensor, " a"]
    """Rows of ``classes``, rising."""
    taxonomy: Taxonomy
    """Of the asked classes and all inner nodes."""

    @classmethod
    def about(
        cls, asked: Int[Tensor, " a"], batch: Batch, classes: Float[Tensor, "c t"], words: TextEmbeddings
    ) -> TrainingStep:
        """Ask about these classes of a book alone."""
        taxonomy = words.taxonomy.subset(asked, len(classes), len(words.inner))
        return cls(batch.select_classes(asked.numpy()), classes, words.inner, asked, taxonomy)


class StepSampler:
    """The questions of a run.

    Args:
        sets: each with the words of its class book.
        training: seed, share of the steps that ask about a part of the classes, and of paraphrases read.
    """

    def __init__(self, sets: Sequence[tuple[TrainingSet, TextEmbeddings]], training: TrainingConfig) -> None:
        self._sets = sets
        self._seed, self._share = training.seed, training.class_subsets
        self._paraphrases = training.paraphrases
        self._batches = [math.ceil(len(images) / training.batch) for images, _ in sets]

    def of(self, step: int) -> TrainingStep:
        """What this step asks."""
        own, turn = scheduled_set(step, self._batches, self._seed)
        images, words = self._sets[own]
        drawn = words.draw(np.random.default_rng([self._seed, WORDINGS, step]), self._paraphrases)
        asked = sample_classes(len(drawn), self._share, np.random.default_rng([self._seed, SUBSETS, step]))
        return TrainingStep.about(asked, images.batch(turn), drawn, words)


def scheduled_set(step: int, batches: Sequence[int], seed: int) -> tuple[int, int]:
    """Which set a step shows, and how many steps have shown it before.

    Args:
        batches: that it takes to go through each set once.
    """
    done, place = divmod(step, sum(batches))
    rng = np.random.default_rng([seed, TURNS, done])
    order = rng.permutation(np.repeat(np.arange(len(batches)), batches))
    own = int(order[place])
    return own, done * batches[own] + int((order[:place] == own).sum())


def sample_classes(classes: int, share: float, rng: np.random.Generator) -> Int[Tensor, " a"]:
    """Rows of the classes that a step asks about, rising: all, or in this share of the steps a part.

    A book of one class has no part that is less.
    """
    if classes < 2 or rng.random() >= share:
        return torch.arange(classes)
    count = int(rng.integers((classes + 1) // 2, classes))
    return torch.from_numpy(np.sort(rng.choice(classes, count, replace=False)))
