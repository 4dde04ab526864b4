"""The cache of vectors on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dsmoe_core.errors import ModelError
from dsmoe_core.text_encoders.cached import CachedTextEncoder


class Counting:
    name, width = "counting", 4

    def __init__(self) -> None:
        self.encoded_texts: list[str] = []

    def encode(self, texts: list[str]) -> torch.Tensor:
        self.encoded_texts += texts
        return torch.tensor([[len(t), 1.0, 2.0, 3.0] for t in texts])


def test_the_cache_asks_once_and_keeps_order(tmp_path: Path) -> None:
    inner = Counting()
    cached = CachedTextEncoder(inner, tmp_path)
    first = cached.encode(["bb", "a", "bb"])
    assert first[:, 0].tolist() == [2.0, 1.0, 2.0]
    torch.testing.assert_close(CachedTextEncoder(inner, tmp_path).encode(["a", "bb"]), first[[1, 0]])
    assert inner.encoded_texts == ["bb", "a"]


def test_a_torn_cache_file_is_made_anew(tmp_path: Path) -> None:
    inner = Counting()
    cached = CachedTextEncoder(inner, tmp_path)
    cached.encode(["a"])
    for file in tmp_path.iterdir():
        file.write_bytes(b"torn")
    assert cached.encode(["a"])[0, 0] == 1.0
    assert inner.encoded_texts == ["a", "a"]


def test_two_encoders_never_share_a_vector(tmp_path: Path) -> None:
    one, two = Counting(), Counting()
    two.name = "another"
    CachedTextEncoder(one, tmp_path).encode(["a"])
    CachedTextEncoder(two, tmp_path).encode(["a"])
    assert two.encoded_texts == ["a"]


def test_an_encoder_that_changed_under_its_name_is_refused(tmp_path: Path) -> None:
    CachedTextEncoder(Counting(), tmp_path).encode(["a"])
    wider = Counting()
    wider.encode = lambda texts: torch.ones(len(texts), 5)  # type: ignore[method-assign]
    with pytest.raises(ModelError, match=r"counting is 5 wide now; before it was 4. .* empty"):
        CachedTextEncoder(wider, tmp_path).encode(["b"])
