"""Embeds the texts of a vocabulary and converts its taxonomy to row numbers."""

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
    """Embeddings and taxonomy of a vocabulary, the input of stage 1."""

    classes: Float[Tensor, "c t"]
    """One vector per class: the mean over its description and paraphrases (prompt ensembling, as in CLIP)."""
    inner: Float[Tensor, "i t"]
    """One vector per inner node of the taxonomy."""
    class_texts: list[Float[Tensor, "_ t"]]
    """Per class, one vector per text: the description first, then the paraphrases."""
    taxonomy: Taxonomy

    def sample(self, rng: np.random.Generator, share: float = 0.5) -> Float[Tensor, "c t"]:
        """Compute class vectors from the description and a random share of the paraphrases.

        This keeps the network from memorising one text. The mean of several texts is used, not a single one:
        a small sentence encoder places two texts of one defect hardly closer together than texts of two
        defects, and with another text at each step a detector learns the classes late.
        """
        return torch.stack([_sampled_mean(texts, rng, share) for texts in self.class_texts])


def embed_vocabulary(vocabulary: Vocabulary, encoder: TextEncoder) -> TextEmbeddings:
    """Embed all texts of a vocabulary."""
    vectors = encoder.encode(vocabulary_texts(vocabulary))
    class_text_count = len(vectors) - len(vocabulary.inner)
    class_texts = list(
        torch.split(vectors[:class_text_count], [1 + len(c.paraphrases) for c in vocabulary.classes])
    )
    return TextEmbeddings(
        torch.stack([texts.mean(0) for texts in class_texts]),
        vectors[class_text_count:],
        class_texts,
        _taxonomy(vocabulary),
    )


def vocabulary_texts(vocabulary: Vocabulary) -> list[str]:
    """List the texts to embed: each class's description and paraphrases, then the inner nodes."""
    return [
        *(text for c in vocabulary.classes for text in (_description(c), *c.paraphrases)),
        *(_description(c) for c in vocabulary.inner),
    ]


def conditioning_vocabulary(trained: Vocabulary, requested: Vocabulary) -> Vocabulary:
    """Return the classes that a network was trained on, with the texts of ``requested`` where it has them.

    These classes condition the image features. So a class that was added after training does not change the
    boxes and scores of the others, and removing a class removes its scores only.
    """
    current = {c.name: c for c in requested.classes}
    return replace(trained, classes=tuple(current.get(c.name, c) for c in trained.classes))


def _sampled_mean(texts: Float[Tensor, "v t"], rng: np.random.Generator, share: float) -> Float[Tensor, " t"]:
    selected = rng.random(len(texts)) < share
    selected[0] = True
    return texts[torch.from_numpy(selected)].mean(0)


def _description(text: ClassText) -> str:
    return text.description or text.name.replace("_", " ")


def _taxonomy(vocabulary: Vocabulary) -> Taxonomy:
    nodes = [*vocabulary.classes, *vocabulary.inner]
    row = {node.name: i for i, node in enumerate(nodes)}
    pairs = [(row[n.name], row[n.parent]) for n in nodes if n.parent is not None and n.parent in row]
    child, parent = (torch.tensor([p[k] for p in pairs], dtype=torch.long) for k in (0, 1))
    return Taxonomy(child, parent)
