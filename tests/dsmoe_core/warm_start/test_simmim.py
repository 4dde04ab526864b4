"""Masked images: only what is hidden counts, it is learned, and a killed run goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import SMALL
from torch import Tensor, nn

from dsmoe_core.build import tiny_vit
from dsmoe_core.config import TrainingConfig
from dsmoe_core.errors import DataError
from dsmoe_core.schema import ImageRecord, LabelledImage
from dsmoe_core.warm_start.simmim import HIDDEN, PATCH, MaskedImageModel, fit_simmim, random_patch_mask

MODEL = SMALL.model_copy(update={"image_px": 128})
QUICK = TrainingConfig(images_seen=8, batch=2, precision="32-true", checkpoint_every_s=1e-9)


@pytest.fixture
def unlabelled(images: list[LabelledImage]) -> list[ImageRecord]:
    return [labelled.image for labelled in images]


def learn(
    images: list[ImageRecord], out: Path, training: TrainingConfig = QUICK, kill_at: int | None = None
) -> tuple[nn.Module, list[float]]:
    losses: list[float] = []

    def progress(step: int, steps: int, named: dict[str, float]) -> None:
        losses.append(named["hidden"])
        if step == kill_at:
            raise KeyboardInterrupt

    trained = fit_simmim(images=images, model=MODEL, training=training, out=out, progress=progress)
    return trained, losses


def test_the_same_share_of_every_image_is_hidden_and_other_squares_each_time() -> None:
    hidden = random_patch_mask(4, 10, seed=1, step=3)
    assert hidden.flatten(1).sum(1).tolist() == [round(HIDDEN * 100)] * 4
    assert torch.equal(hidden, random_patch_mask(4, 10, seed=1, step=3))
    assert not torch.equal(hidden, random_patch_mask(4, 10, seed=1, step=4))
    assert not torch.equal(hidden[0], hidden[1])


def test_what_is_hidden_is_not_seen_and_alone_counts() -> None:
    torch.manual_seed(0)
    masked = MaskedImageModel(backbone=tiny_vit(MODEL), width=MODEL.encoder_widths[-1]).eval()
    hidden = random_patch_mask(1, 4, seed=0, step=0)
    cover = hidden[0].repeat_interleave(PATCH, 0).repeat_interleave(PATCH, 1)
    image = torch.rand(1, 3, 128, 128)
    other = torch.where(cover, 1 - image, image)
    painted: list[Tensor] = []
    masked.paint.register_forward_hook(lambda module, given, output: painted.append(output))
    with torch.no_grad():
        first, second = masked(image, hidden), masked(other, hidden)
        assert torch.equal(painted[0], painted[1])
        assert first != second
        expected = nn.functional.pixel_shuffle(painted[0], PATCH) + 0.5
    torch.testing.assert_close(first, (expected - image).abs()[..., cover].mean())


def test_it_learns_to_paint(unlabelled: list[ImageRecord], tmp_path: Path) -> None:
    training = TrainingConfig(images_seen=160, batch=4, seed=0, brightness=0)
    _, losses = learn(unlabelled, tmp_path / "out", training)
    assert losses[-1] < 0.8 * losses[0]


def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(
    unlabelled: list[ImageRecord], tmp_path: Path
) -> None:
    whole, _ = learn(unlabelled, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        learn(unlabelled, tmp_path / "cut", kill_at=3)
    cut, losses = learn(unlabelled, tmp_path / "cut")
    assert len(losses) == 4 - 2  # the step that was killed had not been kept yet
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(cut.state_dict()[name], tensor, msg=lambda m, name=name: f"{name}: {m}")
    assert learn(unlabelled, tmp_path / "cut")[1] == []


def test_no_image_is_nothing_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image to learn from"):
        learn([], tmp_path)
