"""How far the classes of a book are from each other: as the text encoder has them, and in the ball."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsmoe_core.schema import Vocabulary
from pipelines.detectors.backend import DetectorBackend, DSMoEBackend

Floats = NDArray[np.float64]


class ClassDistances(NamedTuple):
    """Of c classes in the book's order, (c, c); zero on the diagonal.

    Attributes:
        embedding: 1 less the cosine of the text encoder's vectors, each the mean of a class's wordings; 0
            for the same direction, 1 for a right angle, 2 for the opposite. The detector has no part in it.
        ball: d_H of the anchors t^ in the Poincare ball (stage 5, eq. 10 and 12), after the network has read
            the book; None where there is no stage 5: an exported graph does not show it, the rows A to C of
            the ablation lack it.
    """

    embedding: Floats
    ball: Floats | None

    def ordered(self, place: Sequence[int]) -> ClassDistances:
        """The same with the classes in this order."""
        chosen = np.ix_(place, place)
        return ClassDistances(self.embedding[chosen], None if self.ball is None else self.ball[chosen])

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it; what is not there is absent."""
        both = {"embedding": self.embedding, "ball": self.ball}
        return {name: one.round(6).tolist() for name, one in both.items() if one is not None}

    def between(self, one: int, other: int) -> dict[str, float]:
        """The same of two classes."""
        both = {"embedding": self.embedding, "ball": self.ball}
        return {name: round(float(d[one, other]), 6) for name, d in both.items() if d is not None}


def class_distances(detector: DetectorBackend, folder: Path, vocabulary: Vocabulary) -> ClassDistances | None:
    """Read a book and measure; None for a detector that reads no words.

    Raises:
        ModelError: there is no whole model in the folder, or it was trained with another text encoder.
    """
    if not isinstance(detector, DSMoEBackend):
        return None
    import torch
    import torch.nn.functional as F

    from dsmoe_core import poincare
    from dsmoe_core.predict import encode_classes
    from dsmoe_core.runtimes.loading import ModelTextEncoder, RuntimeOptions, load_inference_model
    from dsmoe_core.text_embeddings import embed_vocabulary

    model = load_inference_model(folder, RuntimeOptions())
    encoder = ModelTextEncoder(model, detector.text_encoder)
    words = embed_vocabulary(vocabulary, encoder)
    with torch.no_grad():
        unit = F.normalize(words.classes.double(), dim=-1)
        embedding = (1 - unit @ unit.T).fill_diagonal_(0.0).clamp(0.0, 2.0)
        alignment = getattr(model.class_encoder, "alignment", None)
        if alignment is None:
            return ClassDistances(embedding.numpy(), None)
        anchors = alignment.anchors(encode_classes(model, vocabulary, encoder).classes).double()
        pairs = anchors.expand(len(anchors), *anchors.shape)
        ball = poincare.distance(pairs, pairs.transpose(0, 1)).fill_diagonal_(0.0)
    return ClassDistances(embedding.numpy(), ball.cpu().numpy())
