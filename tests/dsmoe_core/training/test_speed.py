"""Tests of the speed measurement and of the choice that follows from it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from tiny import SMALL

from dsmoe_core.config import TrainingConfig
from dsmoe_core.training.precision import training_precision
from dsmoe_core.training.speed import SpeedOption, fastest, prediction_speed, training_speed
from pipelines.detectors import machine_speed

FP32, BF16 = SpeedOption("32-true", 1), SpeedOption("bf16-mixed", 1)


def test_speeds_are_positive_and_leave_threads_and_random_numbers_as_they_were() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    threads = torch.get_num_threads()
    for measure in (training_speed, prediction_speed):
        assert measure(SMALL, FP32, batch=2, steps=1) > 0
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(("speed", "best"), [(1.0, FP32), (1.05, FP32), (1.5, BF16), (0.5, FP32)])
def test_another_option_has_to_be_clearly_faster(speed: float, best: SpeedOption) -> None:
    chosen, speeds = fastest([FP32, BF16], lambda option: speed if option is BF16 else 1.0)
    assert chosen == best
    assert set(speeds) == {FP32, BF16}


def test_precision_is_measured_once_for_long_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    measured: list[Any] = []

    def measure(model: Any, option: SpeedOption, **_: Any) -> float:
        measured.append(option)
        usual = training_precision(TrainingConfig())
        return 1.0 if option.precision == usual else 3.0

    monkeypatch.setattr("dsmoe_core.training.speed.training_speed", measure)
    usual = training_precision(TrainingConfig())
    short, fixed = TrainingConfig(images_seen=999), TrainingConfig(precision=usual)
    for training in (short, fixed):
        assert machine_speed.with_measured_precision(training, SMALL) is training
    assert measured == []
    chosen = machine_speed.with_measured_precision(TrainingConfig(minutes=1, images_seen=1), SMALL)
    assert chosen.precision not in ("auto", usual)
    count = len(measured)
    assert count >= 2
    assert machine_speed.with_measured_precision(TrainingConfig(), SMALL).precision == chosen.precision
    assert len(measured) == count
    other = SMALL.model_copy(update={"image_px": 128})
    machine_speed.with_measured_precision(TrainingConfig(), other)
    assert len(measured) == 2 * count
    assert len(json.loads(machine_speed.cache_file().read_text())) == 2
    machine_speed.cache_file().write_text("damaged")
    machine_speed.with_measured_precision(TrainingConfig(), SMALL)
    assert len(measured) == 3 * count
