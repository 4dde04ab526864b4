"""A vocabulary as tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import HashEncoder

from dsmoe_core.schema import ClassText, Vocabulary
from dsmoe_core.text_embeddings import embed_vocabulary


def test_a_class_is_the_mean_of_its_wordings(vocabulary: Vocabulary) -> None:
    encoder = HashEncoder()
    words = embed_vocabulary(vocabulary, encoder)
    torch.testing.assert_close(words.classes[0], encoder.encode(["a dark square", "a black block"]).mean(0))
    torch.testing.assert_close(words.classes[1], encoder.encode(["a light square"])[0])
    assert words.inner.shape == (1, 16)


def test_drawing_always_has_the_description_and_sometimes_each_paraphrase(vocabulary: Vocabulary) -> None:
    words = embed_vocabulary(vocabulary, HashEncoder())
    drawn = [words.draw(np.random.default_rng(seed))[0] for seed in range(20)]
    alone = words.variants[0][0]
    kinds = {torch.equal(d, alone) for d in drawn}
    assert kinds == {True, False}
    assert all(torch.equal(d, alone) or torch.allclose(d, words.classes[0]) for d in drawn)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_none_reads_the_description_alone_and_of_one_every_paraphrase(
    vocabulary: Vocabulary, share: float
) -> None:
    words = embed_vocabulary(vocabulary, HashEncoder())
    for seed in range(5):
        drawn = words.draw(np.random.default_rng(seed), share)
        expected = words.classes if share else torch.stack([v[0] for v in words.variants])
        assert torch.allclose(drawn, expected)


def test_the_taxonomy_is_told_by_rows() -> None:
    leaves = (ClassText("a", "", "x"), ClassText("b", "", "y"))
    inner = (ClassText("x", "ex", "top"), ClassText("y", "why", "top"), ClassText("top", "all"))
    words = embed_vocabulary(Vocabulary(leaves, inner), HashEncoder())
    pairs = list(zip(words.taxonomy.child.tolist(), words.taxonomy.parent.tolist(), strict=True))
    assert pairs == [(0, 2), (1, 3), (2, 4), (3, 4)]


def test_a_class_without_description_is_read_by_its_name() -> None:
    encoder = HashEncoder()
    embed_vocabulary(Vocabulary((ClassText("mouse_bite", ""),)), encoder)
    assert encoder.encoded_texts == ["mouse bite"]
