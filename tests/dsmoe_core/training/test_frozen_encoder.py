"""Tests of the frozen image encoder: it does not change, and its cached maps equal computed ones."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from tiny import QUICK, train
from torch import nn

from dsmoe_core.checkpoint import WEIGHTS, read_tensors
from dsmoe_core.data.letterbox_cache import CacheConfig
from dsmoe_core.schema import LabelledImage, Vocabulary
from dsmoe_core.stages.image_encoder import ImageEncoder
from dsmoe_core.training.frozen_encoder import FrozenEncoder

BACKBONE = "image_encoder.backbone."
FROZEN = QUICK.model_copy(update={"encoder": "frozen"})


@pytest.fixture
def parent(tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary) -> Path:
    """Train a model and return its folder."""
    train(tmp_path / "parent", images, vocabulary)
    return tmp_path / "parent"


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the number of images of every call of a backbone."""
    batch_sizes: list[int] = []
    maps = ImageEncoder.maps

    def counting(encoder: ImageEncoder, images: torch.Tensor) -> list[torch.Tensor]:
        batch_sizes.append(len(images))
        return maps(encoder, images)

    monkeypatch.setattr(ImageEncoder, "maps", counting)
    return batch_sizes


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_backbone_is_unchanged_and_caching_does_not_change_the_result(
    precision: str,
    tmp_path: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
    parent: Path,
    computed: list[int],
) -> None:
    """Without cache, with an empty cache and with a filled cache, losses and weights are bit-identical."""
    training = FROZEN.model_copy(update={"precision": precision})
    cache = CacheConfig(tmp_path / "cache")
    losses, calls = [], []
    for name, run_cache in (("plain", None), ("first", cache), ("again", cache)):
        computed.clear()
        summary = train(
            tmp_path / name, images, vocabulary, training=training, start_from=parent, cache=run_cache
        )
        losses.append(summary.losses)
        calls.append(len(computed))
    assert losses[0] == losses[1] == losses[2]
    assert calls[0] == 12
    assert 6 <= calls[1] <= 12
    assert calls[2] == 0
    before, *after = (read_tensors(tmp_path / n / WEIGHTS)[0] for n in ("parent", "plain", "first", "again"))
    for weights in after:
        for name, tensor in weights.items():
            assert torch.equal(tensor, after[0][name]), name
            if name.startswith(BACKBONE):
                assert torch.equal(tensor, before[name]), name
    changed = [n for n in before if not torch.equal(before[n], after[0][n])]
    assert {"head", "image_encoder"} <= {name.split(".")[0] for name in changed}


def test_cached_and_computed_maps_are_moved_to_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device stands for a GPU."""
    fabric = Mock(spec=Fabric, device=torch.device("meta"))
    network = SimpleNamespace(image_encoder=SimpleNamespace(backbone=nn.Identity()))
    encoder = FrozenEncoder(fabric, network, "32-true", None)
    cached_then_computed = iter([[torch.zeros(1, 4, 2, 2)], [torch.zeros(1, 4, 2, 2, device="meta")]])
    monkeypatch.setattr(encoder, "_image_maps", lambda pixels: next(cached_then_computed))
    (level,) = encoder.maps(np.zeros((2, 8, 8, 3), np.uint8))
    assert level.shape == (2, 4, 2, 2)
    assert level.device.type == "meta"


@pytest.mark.slow
def test_another_encoder_does_not_use_the_cached_maps(
    tmp_path: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
    parent: Path,
    computed: list[int],
) -> None:
    cache = CacheConfig(tmp_path / "cache")
    train(tmp_path / "one", images, vocabulary, training=FROZEN, start_from=parent, cache=cache)
    (store,) = (tmp_path / "cache" / "features").glob("*/data.mdb")
    train(tmp_path / "whole", images, vocabulary, start_from=parent)
    computed.clear()
    train(tmp_path / "two", images, vocabulary, training=FROZEN, start_from=tmp_path / "whole", cache=cache)
    assert len(computed) >= 6
    assert not store.exists(), "the store of the first encoder is removed"


def test_without_a_start_model_the_encoder_is_trained_with_a_warning(
    tmp_path: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
    caplog: pytest.LogCaptureFixture,
) -> None:
    train(tmp_path / "whole", images, vocabulary)
    train(tmp_path / "frozen", images, vocabulary, training=FROZEN)
    assert [r.levelname for r in caplog.records if r.name == "dsmoe_core.train"] == ["WARNING"]
    trained, frozen = (read_tensors(tmp_path / name / WEIGHTS)[0] for name in ("whole", "frozen"))
    assert all(torch.equal(tensor, frozen[name]) for name, tensor in trained.items())
