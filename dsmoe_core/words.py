"""A vocabulary as tensors: vectors of the descriptions and their paraphrases, and the taxonomy by rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dsmoe_core.losses import Families
from dsmoe_core.schema import ClassText, Vocabulary
from dsmoe_core.stages.text_encoder import TextEncoder


class Words(NamedTuple):
    """Everything the network reads of a class book."""

    classes: Float[Tensor, "c t"]
    """Vectors of the descriptions."""
    inner: Float[Tensor, "i t"]
    variants: list[Float[Tensor, "_ t"]]
    """Per class: the description and its paraphrases."""
    families: Families

    def draw(self, rng: np.random.Generator) -> Float[Tensor, "c t"]:
        """One wording a class, so that words are learned by meaning and not as codes."""
        return torch.stack([v[int(rng.integers(len(v)))] for v in self.variants])


def words_of(vocabulary: Vocabulary, encoder: TextEncoder) -> Words:
    """Encode a vocabulary; texts that were seen before come from the encoder's cache."""
    spoken = [[_sentence(c), *c.paraphrases] for c in vocabulary.classes]
    inner = [_sentence(c) for c in vocabulary.inner]
    vectors = encoder.encode([*(t for texts in spoken for t in texts), *inner])
    variants = list(torch.split(vectors[: sum(map(len, spoken))], [len(texts) for texts in spoken]))
    return Words(
        torch.stack([v[0] for v in variants]),
        vectors[len(vectors) - len(inner) :],
        variants,
        _families(vocabulary),
    )


def _sentence(text: ClassText) -> str:
    return text.description or text.name.replace("_", " ")


def _families(vocabulary: Vocabulary) -> Families:
    nodes = [*vocabulary.classes, *vocabulary.inner]
    row = {node.name: i for i, node in enumerate(nodes)}
    pairs = [(row[n.name], row[n.parent]) for n in nodes if n.parent is not None and n.parent in row]
    child, parent = (torch.tensor([p[k] for p in pairs], dtype=torch.long) for k in (0, 1))
    return Families(child, parent)
