"""Score ``description``: whether the class of a detection depends on the text that describes it.

The spread of the class probability over the texts was tried first. It rises with the probability itself, so
the surest detections had the highest scores (docs/uncertainty.md). The score is the mean over the texts of
the doubt about the class that each text leaves.

The description and each paraphrase are scored as classes of their own in the same forward pass. Image
features depend on the conditioning classes only, so the other outputs stay the same, in every runtime.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dsmoe_core.text_embeddings import TextEmbeddings


class TextColumns(NamedTuple):
    """Which columns of the logits belong to single texts.

    The first ``classes`` columns are the classes; then come the texts, class by class.

    Attributes:
        classes: number of classes.
        owner: index of the class of each text.
    """

    classes: int
    owner: tuple[int, ...] = ()


def text_rows(texts: TextEmbeddings, *, reads_text: bool) -> tuple[Float[Tensor, "q t"], TextColumns]:
    """Embeddings of the classes, followed by those of the texts of each class that has several.

    Args:
        reads_text: False for a network that does not read the embeddings; it gets no texts.
    """
    classes = len(texts.classes)
    several = [(i, rows) for i, rows in enumerate(texts.class_texts) if len(rows) > 1 and reads_text]
    owner = tuple(i for i, rows in several for _ in range(len(rows)))
    return torch.cat([texts.classes, *(rows for _, rows in several)]), TextColumns(classes, owner)


def text_doubt(
    logits: Float[Tensor, "f q"], labels: Int[Tensor, " f"], columns: TextColumns
) -> Float[Tensor, " f"]:
    """Mean probability, over the texts of its class, that the best other class is the right one, 0 to 1.

    For one text that is ``sigmoid(z_other - z_text)``: above 0.5 if the text would change the class. NaN for
    a class with a single text and where there is one class only.

    Args:
        logits: of the classes and of the texts at the cells of f detections.
        labels: index of the detected class.
    """
    classes, owner = columns
    others = logits[:, :classes].float().scatter(1, labels[:, None], -torch.inf)
    best_other = others.amax(1, keepdim=True)
    doubt = torch.sigmoid(best_other - logits[:, classes:].float())
    own = labels[:, None] == torch.tensor(owner, device=labels.device, dtype=labels.dtype)[None]
    mean: Tensor = (doubt * own).sum(1) / own.sum(1)
    return mean if classes > 1 else torch.full_like(mean, torch.nan)
