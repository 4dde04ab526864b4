"""The packaged sentence encoder."""

from __future__ import annotations

import pytest
import torch

from dsmoe_core.text_encoders.sentence import SentenceEncoder


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_similar_texts_have_similar_vectors() -> None:
    texts = ["a gap in a copper trace", "a break in a copper line", "a bottle of red wine"]
    vectors = SentenceEncoder().encode(texts)
    assert vectors.shape == (3, 384)
    similar, different = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert similar > different + 0.2


def test_long_text_is_truncated() -> None:
    text = "a scratch across the foil " * 200
    encoder = SentenceEncoder()
    torch.testing.assert_close(encoder.encode([text + "or a bottle of wine"]), encoder.encode([text]))
