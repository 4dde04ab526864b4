"""Cache of text vectors on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dsmoe_core.errors import ModelError
from dsmoe_core.text_encoders.cached import CachedTextEncoder


class CountingEncoder:
    name, width = "counting", 4

    def __init__(self) -> None:
        self.encoded_texts: list[str] = []

    def encode(self, texts: list[str]) -> torch.Tensor:
        self.encoded_texts += texts
        return torch.tensor([[len(t), 1.0, 2.0, 3.0] for t in texts])


def test_each_text_is_encoded_once_and_order_is_kept(tmp_path: Path) -> None:
    inner = CountingEncoder()
    cached = CachedTextEncoder(inner, tmp_path)
    first = cached.encode(["bb", "a", "bb"])
    assert first[:, 0].tolist() == [2.0, 1.0, 2.0]
    torch.testing.assert_close(CachedTextEncoder(inner, tmp_path).encode(["a", "bb"]), first[[1, 0]])
    assert inner.encoded_texts == ["bb", "a"]


def test_damaged_cache_file_is_replaced(tmp_path: Path) -> None:
    inner = CountingEncoder()
    cached = CachedTextEncoder(inner, tmp_path)
    cached.encode(["a"])
    for file in tmp_path.iterdir():
        file.write_bytes(b"damaged")
    assert cached.encode(["a"])[0, 0] == 1.0
    assert inner.encoded_texts == ["a", "a"]


def test_encoders_of_different_names_share_no_vector(tmp_path: Path) -> None:
    first, second = CountingEncoder(), CountingEncoder()
    second.name = "another"
    CachedTextEncoder(first, tmp_path).encode(["a"])
    CachedTextEncoder(second, tmp_path).encode(["a"])
    assert second.encoded_texts == ["a"]


def test_changed_width_under_the_same_name_is_refused(tmp_path: Path) -> None:
    CachedTextEncoder(CountingEncoder(), tmp_path).encode(["a"])
    wider = CountingEncoder()
    wider.encode = lambda texts: torch.ones(len(texts), 5)  # type: ignore[method-assign]
    with pytest.raises(ModelError, match=r"width 5; expected 4"):
        CachedTextEncoder(wider, tmp_path).encode(["b"])
