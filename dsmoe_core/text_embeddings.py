"""A vocabulary as tensors: vectors of the descriptions and their paraphrases, and the taxonomy by rows."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dsmoe_core.losses import Taxonomy
from dsmoe_core.schema import ClassText, Vocabulary
from dsmoe_core.text_encoders.protocol import TextEncoder


class TextEmbeddings(NamedTuple):
    """Everything the network reads of a class book."""

    classes: Float[Tensor, "c t"]
    """One vector a class: the mean of all its wordings (prompt ensembling, as in CLIP)."""
    inner: Float[Tensor, "i t"]
    variants: list[Float[Tensor, "_ t"]]
    """Per class: the description first, then its paraphrases."""
    taxonomy: Taxonomy

    def draw(self, rng: np.random.Generator, share: float = 0.5) -> Float[Tensor, "c t"]:
        """The mean of the description and this random share of the paraphrases, so that no wording is a code.

        Not a single wording: a small sentence encoder puts two wordings of one defect hardly closer together
        than wordings of two defects, and a detector that reads another one at each step learns classes late.
        """
        return torch.stack([_mean_of_some(v, rng, share) for v in self.variants])


def embed_vocabulary(vocabulary: Vocabulary, encoder: TextEncoder) -> TextEmbeddings:
    """Encode a vocabulary; texts that were seen before come from the encoder's cache."""
    vectors = encoder.encode(vocabulary_texts(vocabulary))
    of_classes = len(vectors) - len(vocabulary.inner)
    variants = list(torch.split(vectors[:of_classes], [1 + len(c.paraphrases) for c in vocabulary.classes]))
    return TextEmbeddings(
        torch.stack([v.mean(0) for v in variants]),
        vectors[of_classes:],
        variants,
        _families(vocabulary),
    )


def vocabulary_texts(vocabulary: Vocabulary) -> list[str]:
    """Everything of a vocabulary that is encoded: each class with its paraphrases, then the inner nodes."""
    return [
        *(text for c in vocabulary.classes for text in (_sentence(c), *c.paraphrases)),
        *(_sentence(c) for c in vocabulary.inner),
    ]


def conditioning_vocabulary(trained: Vocabulary, asked: Vocabulary) -> Vocabulary:
    """The classes that a network was trained on, in the words of ``asked`` where it has them.

    They steer the pixels, so a class that is only asked for leaves the others' boxes and scores as they are,
    and one that is no longer asked for is missed by the scores alone.
    """
    current = {c.name: c for c in asked.classes}
    return replace(trained, classes=tuple(current.get(c.name, c) for c in trained.classes))


def _mean_of_some(
    variants: Float[Tensor, "v t"], rng: np.random.Generator, share: float
) -> Float[Tensor, " t"]:
    kept = rng.random(len(variants)) < share
    kept[0] = True
    return variants[torch.from_numpy(kept)].mean(0)


def _sentence(text: ClassText) -> str:
    return text.description or text.name.replace("_", " ")


def _families(vocabulary: Vocabulary) -> Taxonomy:
    nodes = [*vocabulary.classes, *vocabulary.inner]
    row = {node.name: i for i, node in enumerate(nodes)}
    pairs = [(row[n.name], row[n.parent]) for n in nodes if n.parent is not None and n.parent in row]
    child, parent = (torch.tensor([p[k] for p in pairs], dtype=torch.long) for k in (0, 1))
    return Taxonomy(child, parent)
