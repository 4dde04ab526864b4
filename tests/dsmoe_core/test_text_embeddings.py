"""Tests of the embeddings of a vocabulary and its taxonomy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import HashEncoder

from dsmoe_core.schema import ClassText, Vocabulary
from dsmoe_core.text_embeddings import embed_vocabulary


def test_a_class_vector_is_the_mean_over_its_texts(vocabulary: Vocabulary) -> None:
    encoder = HashEncoder()
    texts = embed_vocabulary(vocabulary, encoder)
    torch.testing.assert_close(texts.classes[0], encoder.encode(["a dark square", "a black block"]).mean(0))
    torch.testing.assert_close(texts.classes[1], encoder.encode(["a light square"])[0])
    assert texts.inner.shape == (1, 16)


def test_a_sample_always_uses_the_description_and_sometimes_the_paraphrase(vocabulary: Vocabulary) -> None:
    texts = embed_vocabulary(vocabulary, HashEncoder())
    samples = [texts.sample(np.random.default_rng(seed))[0] for seed in range(20)]
    description = texts.class_texts[0][0]
    assert {torch.equal(sample, description) for sample in samples} == {True, False}
    assert all(torch.equal(s, description) or torch.allclose(s, texts.classes[0]) for s in samples)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_share_zero_uses_the_description_only_and_share_one_all_paraphrases(
    vocabulary: Vocabulary, share: float
) -> None:
    texts = embed_vocabulary(vocabulary, HashEncoder())
    for seed in range(5):
        sample = texts.sample(np.random.default_rng(seed), share)
        expected = texts.classes if share else torch.stack([t[0] for t in texts.class_texts])
        assert torch.allclose(sample, expected)


def test_taxonomy_is_converted_to_row_numbers() -> None:
    leaves = (ClassText("a", "", "x"), ClassText("b", "", "y"))
    inner = (ClassText("x", "ex", "top"), ClassText("y", "why", "top"), ClassText("top", "all"))
    texts = embed_vocabulary(Vocabulary(leaves, inner), HashEncoder())
    pairs = list(zip(texts.taxonomy.child.tolist(), texts.taxonomy.parent.tolist(), strict=True))
    assert pairs == [(0, 2), (1, 3), (2, 4), (3, 4)]


def test_a_class_without_description_is_embedded_by_its_name() -> None:
    encoder = HashEncoder()
    embed_vocabulary(Vocabulary((ClassText("mouse_bite", ""),)), encoder)
    assert encoder.encoded_texts == ["mouse bite"]
