"""The precision of a training follows the machine, unless it is set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny import SMALL, HashEncoder

from dsmoe_core.checkpoint import CARD
from dsmoe_core.config import TrainingConfig
from dsmoe_core.schema import LabelledImage, Vocabulary
from dsmoe_core.train import fit
from dsmoe_core.training.precision import training_precision


@pytest.mark.parametrize(
    ("gpu", "gpu_bf16", "amx", "expected"),
    [
        (False, False, False, "32-true"),
        (False, False, True, "bf16-mixed"),
        (True, False, True, "32-true"),
        (True, True, False, "bf16-mixed"),
    ],
)
def test_auto_is_the_faster_precision(
    gpu: bool, gpu_bf16: bool, amx: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpu_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert training_precision(TrainingConfig()) == expected
    assert training_precision(TrainingConfig(precision="32-true")) == "32-true"
    assert training_precision(TrainingConfig(precision="bf16-mixed")) == "bf16-mixed"


def test_a_model_trained_on_another_machine_is_not_trained_again(
    tmp_path: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def train() -> str:
        fit(
            images=images[:2],
            vocabulary=vocabulary,
            text_encoder=HashEncoder(),
            model=SMALL,
            training=TrainingConfig(images_seen=2, batch=2),
            out=tmp_path,
        )
        precision: str = json.loads((tmp_path / CARD).read_text())["training"]["precision"]
        return precision

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert train() == "32-true"
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert train() == "32-true"
