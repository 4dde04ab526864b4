"""A frozen image encoder does not change, and its kept maps are what it would compute."""

from __future__ import annotations

import logging
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
from dsmoe_core.data.batches import AUGMENTATIONS
from dsmoe_core.data.letterbox_cache import CacheConfig
from dsmoe_core.schema import LabelledImage, Vocabulary
from dsmoe_core.stages.image_encoder import ImageEncoder
from dsmoe_core.training.frozen_encoder import FrozenEncoder, fixed_views

BACKBONE = "image_encoder.backbone."
FROZEN = QUICK.model_copy(update={"encoder": "frozen"})


@pytest.fixture
def parent(tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary) -> Path:
    """A trained model."""
    train(tmp_path / "parent", images, vocabulary)
    return tmp_path / "parent"


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Fills with the number of images whenever a backbone computes."""
    seen: list[int] = []
    maps = ImageEncoder.maps

    def counting(encoder: ImageEncoder, images: torch.Tensor) -> list[torch.Tensor]:
        seen.append(len(images))
        return maps(encoder, images)

    monkeypatch.setattr(ImageEncoder, "maps", counting)
    return seen


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_backbone_stays_and_kept_maps_change_nothing(
    precision: str,
    tmp_path: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
    parent: Path,
    computed: list[int],
) -> None:
    """Not kept, kept for the first time, and found again: the same losses and weights to the last bit."""
    training = FROZEN.model_copy(update={"precision": precision})
    cache = CacheConfig(tmp_path / "cache")
    ends, often = [], []
    for name, kept in (("plain", None), ("first", cache), ("again", cache)):
        computed.clear()
        out = tmp_path / name
        ends.append(train(out, images, vocabulary, training=training, start_from=parent, cache=kept).losses)
        often.append(len(computed))
    assert ends[0] == ends[1] == ends[2]
    assert often[0] == 12
    assert 6 <= often[1] <= 12
    assert often[2] == 0
    before, *after = (read_tensors(tmp_path / n / WEIGHTS)[0] for n in ("parent", "plain", "first", "again"))
    for weights in after:
        for name, tensor in weights.items():
            assert torch.equal(tensor, after[0][name]), name
            if name.startswith(BACKBONE):
                assert torch.equal(tensor, before[name]), name
    changed = [n for n in before if not torch.equal(before[n], after[0][n])]
    assert {"head", "image_encoder"} <= {name.split(".")[0] for name in changed}


def test_kept_maps_and_fresh_ones_meet_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device without memory stands for a GPU."""
    fabric = Mock(spec=Fabric, device=torch.device("meta"))
    network = SimpleNamespace(image_encoder=SimpleNamespace(backbone=nn.Identity()))
    encoder = FrozenEncoder(fabric, network, "32-true", None)
    kept_then_fresh = iter([[torch.zeros(1, 4, 2, 2)], [torch.zeros(1, 4, 2, 2, device="meta")]])
    monkeypatch.setattr(encoder, "_maps_of", lambda pixels: next(kept_then_fresh))
    (level,) = encoder.maps(np.zeros((2, 8, 8, 3), np.uint8))
    assert level.shape == (2, 4, 2, 2)
    assert level.device.type == "meta"


def test_another_encoder_never_finds_what_one_has_kept(
    tmp_path: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
    parent: Path,
    computed: list[int],
) -> None:
    cache = CacheConfig(tmp_path / "cache")
    train(tmp_path / "one", images, vocabulary, training=FROZEN, start_from=parent, cache=cache)
    (kept,) = (tmp_path / "cache" / "features").glob("*/data.mdb")
    train(tmp_path / "whole", images, vocabulary, start_from=parent)
    computed.clear()
    train(tmp_path / "two", images, vocabulary, training=FROZEN, start_from=tmp_path / "whole", cache=cache)
    assert len(computed) >= 6
    assert not kept.exists(), "what nobody can read any more is removed"


def test_without_a_trained_encoder_it_learns_and_says_so(
    tmp_path: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
    caplog: pytest.LogCaptureFixture,
) -> None:
    train(tmp_path / "whole", images, vocabulary)
    train(tmp_path / "frozen", images, vocabulary, training=FROZEN)
    assert "the image encoder is not frozen" in caplog.text
    one, other = (read_tensors(tmp_path / name / WEIGHTS)[0] for name in ("whole", "frozen"))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_what_makes_new_pixels_is_off_and_named(caplog: pytest.LogCaptureFixture) -> None:
    on = QUICK.model_copy(update=dict.fromkeys(AUGMENTATIONS, 0.5))
    with caplog.at_level(logging.INFO):
        fixed = fixed_views(on)
    assert {name for name in AUGMENTATIONS if getattr(fixed, name)} == {"flips", "turns"}
    assert "zoom, brightness, contrast, noise, blur, paste, mixup are off" in caplog.text
