"""The packaged sentence encoder and the cache."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dsmoe_core.stages.text_encoder import CachedTextEncoder, SentenceEncoder


class Counting:
    name, width = "counting", 4

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, texts: list[str]) -> torch.Tensor:
        self.asked += texts
        return torch.tensor([[len(t), 1.0, 2.0, 3.0] for t in texts])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_packaged_encoder_knows_what_is_alike() -> None:
    texts = ["a gap in a copper trace", "a break in a copper line", "a bottle of red wine"]
    vectors = SentenceEncoder().encode(texts)
    assert vectors.shape == (3, 384)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(3))
    alike, unlike = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert alike > unlike + 0.2


def test_padding_changes_nothing() -> None:
    encoder = SentenceEncoder()
    alone = encoder.encode(["a scratch"])
    beside = encoder.encode(["a scratch", "a long thin line " * 8])
    torch.testing.assert_close(alone[0], beside[0], atol=1e-5, rtol=1e-4)


def test_the_cache_asks_once_and_keeps_order(tmp_path: Path) -> None:
    inner = Counting()
    cached = CachedTextEncoder(inner, tmp_path)
    first = cached.encode(["bb", "a", "bb"])
    assert first[:, 0].tolist() == [2.0, 1.0, 2.0]
    torch.testing.assert_close(CachedTextEncoder(inner, tmp_path).encode(["a", "bb"]), first[[1, 0]])
    assert inner.asked == ["bb", "a"]


def test_a_torn_cache_file_is_made_anew(tmp_path: Path) -> None:
    inner = Counting()
    cached = CachedTextEncoder(inner, tmp_path)
    cached.encode(["a"])
    for file in tmp_path.iterdir():
        file.write_bytes(b"torn")
    assert cached.encode(["a"])[0, 0] == 1.0
    assert inner.asked == ["a", "a"]


def test_two_encoders_never_share_a_vector(tmp_path: Path) -> None:
    one, two = Counting(), Counting()
    two.name = "another"
    CachedTextEncoder(one, tmp_path).encode(["a"])
    CachedTextEncoder(two, tmp_path).encode(["a"])
    assert two.asked == ["a"]
