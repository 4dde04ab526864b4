"""Tests of SimMIM pretraining: the mask, the loss, learning, and resuming."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from tiny import SMALL
from torch import Tensor, nn

from dsmoe_core.build import tiny_vit
from dsmoe_core.config import Tiles, TrainingConfig
from dsmoe_core.data.letterbox_cache import CacheConfig, letterbox_reader
from dsmoe_core.errors import DataError
from dsmoe_core.schema import ImageRecord, LabelledImage
from dsmoe_core.tiling import image_views
from dsmoe_core.warm_start.pretraining import pretrain_encoder
from dsmoe_core.warm_start.simmim import (
    MASK_RATIO,
    PATCH_SIZE,
    MaskedImageModel,
    MaskedImages,
    random_patch_mask,
)

MODEL = SMALL.model_copy(update={"image_px": 128})
QUICK = TrainingConfig(images_seen=8, batch=2, precision="32-true", checkpoint_every_s=1e-9)


@pytest.fixture
def unlabelled(images: list[LabelledImage]) -> list[ImageRecord]:
    return [labelled.image for labelled in images]


def pretrain(
    images: list[ImageRecord], out: Path, training: TrainingConfig = QUICK, kill_at: int | None = None
) -> tuple[nn.Module, list[float]]:
    losses: list[float] = []

    def progress(step: int, steps: int, named: dict[str, float]) -> None:
        losses.append(named["reconstruction"])
        if step == kill_at:
            raise KeyboardInterrupt

    network = pretrain_encoder(
        partial(MaskedImages, model=MODEL, seed=training.seed),
        images=images,
        model=MODEL,
        training=training,
        out=out,
        progress=progress,
    )
    return network, losses


def test_mask_has_the_same_ratio_in_every_image_and_differs_between_images_and_steps() -> None:
    mask = random_patch_mask(4, 10, seed=1, step=3)
    assert mask.flatten(1).sum(1).tolist() == [round(MASK_RATIO * 100)] * 4
    assert torch.equal(mask, random_patch_mask(4, 10, seed=1, step=3))
    assert not torch.equal(mask, random_patch_mask(4, 10, seed=1, step=4))
    assert not torch.equal(mask[0], mask[1])


def test_masked_pixels_do_not_reach_the_network_and_only_they_count_in_the_loss() -> None:
    torch.manual_seed(0)
    model = MaskedImageModel(backbone=tiny_vit(MODEL), width=MODEL.encoder_widths[-1]).eval()
    mask = random_patch_mask(1, 4, seed=0, step=0)
    pixel_mask = mask[0].repeat_interleave(PATCH_SIZE, 0).repeat_interleave(PATCH_SIZE, 1)
    image = torch.rand(1, 3, 128, 128)
    changed = torch.where(pixel_mask, 1 - image, image)
    decoded: list[Tensor] = []
    model.decoder.register_forward_hook(lambda module, inputs, output: decoded.append(output))
    with torch.no_grad():
        loss, loss_of_changed = model(image, mask), model(changed, mask)
        assert torch.equal(decoded[0], decoded[1])
        assert loss != loss_of_changed
        predicted = nn.functional.pixel_shuffle(decoded[0], PATCH_SIZE) + 0.5
    torch.testing.assert_close(loss, (predicted - image).abs()[..., pixel_mask].mean())


def test_the_loss_falls(unlabelled: list[ImageRecord], tmp_path: Path) -> None:
    training = TrainingConfig(images_seen=160, batch=4, seed=0, brightness=0)
    _, losses = pretrain(unlabelled, tmp_path / "out", training)
    assert losses[-1] < 0.8 * losses[0]


def test_a_killed_and_resumed_run_has_the_weights_of_an_uninterrupted_one(
    unlabelled: list[ImageRecord], tmp_path: Path
) -> None:
    whole, _ = pretrain(unlabelled, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        pretrain(unlabelled, tmp_path / "cut", kill_at=3)
    cut, losses = pretrain(unlabelled, tmp_path / "cut")
    assert len(losses) == 4 - 2  # the killed step had no checkpoint yet
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(cut.state_dict()[name], tensor, msg=lambda m, name=name: f"{name}: {m}")
    assert pretrain(unlabelled, tmp_path / "cut")[1] == []


def test_large_images_are_pretrained_on_in_all_their_tiles(
    unlabelled: list[ImageRecord], tmp_path: Path
) -> None:
    cache, tiles = CacheConfig(tmp_path / "cache"), Tiles(px=64, empty=0)
    pretrain_encoder(
        partial(MaskedImages, model=MODEL, seed=0),
        images=unlabelled,
        model=MODEL.model_copy(update={"tiles": tiles}),
        training=QUICK.model_copy(update={"images_seen": 2}),
        out=tmp_path / "out",
        cache=cache,
    )
    views = [view for image in unlabelled for view in image_views(image, tiles)]
    assert len(views) == 5 * len(unlabelled)
    for view in views:
        missing = replace(view, path=Path("missing"))  # so it can come from the cache only
        assert letterbox_reader(MODEL, cache).read(missing).shape == (128, 128, 3)


def test_no_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        pretrain([], tmp_path)
