"""Distances between the classes of a class book: of the text embeddings, and in the Poincare ball."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsmoe_core.schema import Vocabulary
from pipelines.detectors.backend import DetectorBackend
from pipelines.detectors.ds_moe import DSMoEBackend

Floats = NDArray[np.float64]


class ClassDistances(NamedTuple):
    """Distances between c classes, in the order of the vocabulary: symmetric, zero diagonal.

    Attributes:
        embedding: 1 - cosine similarity of the text embeddings (averaged over the paraphrases of a class), 0
            to 2, (c, c). Independent of the detector.
        ball: hyperbolic distance d_H of the class anchors (stage 5, eq. 10 and 12), (c, c); None for a model
            without stage 5 (ablation rows A to C, exported models).
    """

    embedding: Floats
    ball: Floats | None

    def ordered(self, order: Sequence[int]) -> ClassDistances:
        """The distances with the classes in another order."""
        index = np.ix_(order, order)
        return ClassDistances(self.embedding[index], None if self.ball is None else self.ball[index])

    def to_dict(self) -> dict[str, Any]:
        """As a dictionary that JSON can hold; undefined distances are absent."""
        return {name: matrix.round(6).tolist() for name, matrix in self._defined().items()}

    def between(self, first: int, second: int) -> dict[str, float]:
        """The distances of two classes."""
        return {name: round(float(matrix[first, second]), 6) for name, matrix in self._defined().items()}

    def _defined(self) -> dict[str, Floats]:
        return {"embedding": self.embedding, **({} if self.ball is None else {"ball": self.ball})}


def class_distances(detector: DetectorBackend, folder: Path, vocabulary: Vocabulary) -> ClassDistances | None:
    """Compute the distances of a vocabulary; None for a detector without text encoder.

    Args:
        folder: the model folder.

    Raises:
        ModelError: the folder does not hold a complete model, or it was trained with another text encoder.
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
    texts = embed_vocabulary(vocabulary, encoder)
    with torch.no_grad():
        unit = F.normalize(texts.classes.double(), dim=-1)
        embedding = (1 - unit @ unit.T).fill_diagonal_(0.0).clamp(0.0, 2.0)
        alignment = getattr(model.class_encoder, "alignment", None)
        if alignment is None:
            return ClassDistances(embedding.numpy(), None)
        anchors = alignment.anchors(encode_classes(model, vocabulary, encoder).classes).double()
        pairs = anchors.expand(len(anchors), *anchors.shape)
        ball = poincare.distance(pairs, pairs.transpose(0, 1)).fill_diagonal_(0.0)
    return ClassDistances(embedding.numpy(), ball.cpu().numpy())
