"""Tests of the pretraining by feature distillation: the loss, and learning from a teacher."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from tiny import SMALL

from dsmoe_core.build import build, tiny_vit
from dsmoe_core.checkpoint import write_tensors
from dsmoe_core.config import TrainingConfig
from dsmoe_core.efficientnet.backbone import EfficientNetLite0
from dsmoe_core.efficientnet.weights import FORMAT
from dsmoe_core.errors import PrerequisiteError
from dsmoe_core.schema import LabelledImage
from dsmoe_core.warm_start.feature_distillation import DistilledModel, FeatureDistillation
from dsmoe_core.warm_start.pretraining import pretrain_encoder

MODEL = SMALL.model_copy(update={"image_px": 64})


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like the converted weights, with random values."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "teacher.safetensors"
    write_tensors(path, dict(EfficientNetLite0().features.state_dict()), {"format": FORMAT})
    return path


def test_the_teacher_gets_no_gradients_and_is_not_stored() -> None:
    network = EfficientNetLite0()
    model = DistilledModel(backbone=tiny_vit(MODEL), width=MODEL.encoder_widths[2], teacher=network)
    loss = model(torch.rand(2, 3, 64, 64))
    loss.backward()
    assert 0 <= loss.item() <= 2
    assert all(weight.grad is None for weight in network.parameters())
    assert model.projection.weight.grad is not None
    assert any(weight.grad is not None for weight in model.backbone.parameters())
    assert not any("teacher" in name for name in model.state_dict())


def test_the_loss_falls_and_the_encoder_alone_changes(
    images: list[LabelledImage], teacher: Path, tmp_path: Path
) -> None:
    losses: list[float] = []
    training = TrainingConfig(images_seen=160, batch=4, seed=0, precision="32-true")
    network = pretrain_encoder(
        partial(FeatureDistillation, model=MODEL, teacher=teacher),
        images=[labelled.image for labelled in images],
        model=MODEL,
        training=training,
        out=tmp_path,
        progress=lambda step, steps, named: losses.append(named["distillation"]),
    )
    assert losses[-1] < losses[0]
    torch.manual_seed(training.seed)
    initial = build(MODEL).state_dict()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, initial[name])}
    assert changed
    assert all(name.startswith("image_encoder.backbone.") for name in changed)


def test_a_missing_teacher_is_refused(images: list[LabelledImage], tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError):
        pretrain_encoder(
            partial(FeatureDistillation, model=MODEL, teacher=tmp_path / "gone.safetensors"),
            images=[images[0].image],
            model=MODEL,
            training=TrainingConfig(images_seen=4),
            out=tmp_path,
        )
