"""Tests of the speed measurement and of the choice that follows from it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import SMALL

from dsmoe_core.config import TrainingConfig
from dsmoe_core.processor import available_cores, is_loaded
from dsmoe_core.training.precision import training_precision
from dsmoe_core.training.speed import (
    MEASUREMENTS,
    SpeedOption,
    fastest,
    prediction_speed,
    training_speed,
)
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


def test_one_disturbed_measurement_decides_nothing() -> None:
    order: list[SpeedOption] = []

    def measure(option: SpeedOption) -> float:
        order.append(option)
        return 0.1 if len(order) == 1 else 1.0

    chosen, speeds = fastest([FP32, BF16], measure)
    assert order == [FP32, BF16] * MEASUREMENTS
    assert (chosen, speeds) == (FP32, {FP32: 1.0, BF16: 1.0})


USUAL = training_precision(TrainingConfig(precision="auto"))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[SpeedOption]:
    """What is measured, on a processor without other load; the unusual precision is three times as fast."""
    options: list[SpeedOption] = []

    def measure(model: Any, option: SpeedOption, **_: Any) -> float:
        options.append(option)
        return 1.0 if option.precision == USUAL else 3.0

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setattr("dsmoe_core.training.speed.training_speed", measure)
    return options


def test_precision_is_measured_once_for_long_trainings(measured: list[SpeedOption], tmp_path: Path) -> None:
    short, fixed = TrainingConfig(images_seen=999), TrainingConfig(precision=USUAL)
    for training in (short, fixed):
        assert machine_speed.with_measured_precision(training, SMALL, tmp_path / "a") is training
    assert measured == []
    assert not (tmp_path / "a").exists()
    timed = TrainingConfig(minutes=1, images_seen=1)
    chosen = machine_speed.with_measured_precision(timed, SMALL, tmp_path / "a")
    assert chosen.precision not in ("auto", USUAL)
    count = len(measured)
    assert count == MEASUREMENTS * len(set(measured)) >= 4
    again = machine_speed.with_measured_precision(TrainingConfig(), SMALL, tmp_path / "b")
    assert again.precision == chosen.precision
    assert len(measured) == count
    other = SMALL.model_copy(update={"image_px": 128})
    machine_speed.with_measured_precision(TrainingConfig(), other, tmp_path / "c")
    assert len(measured) == 2 * count
    assert len(json.loads(machine_speed.cache_file().read_text())) == 2
    machine_speed.cache_file().write_text("damaged")
    machine_speed.with_measured_precision(TrainingConfig(), SMALL, tmp_path / "d")
    assert len(measured) == 3 * count


def test_choice_of_a_loaded_machine_is_for_one_training(
    measured: list[SpeedOption], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that is resumed keeps it, also when the machine is idle again."""
    busy = available_cores() + 1.0
    monkeypatch.setattr(os, "getloadavg", lambda: (busy, 0.0, 0.0))
    chosen = machine_speed.with_measured_precision(TrainingConfig(), SMALL, tmp_path / "a")
    count = len(measured)
    assert count > 0
    assert not machine_speed.cache_file().exists()
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    assert machine_speed.with_measured_precision(TrainingConfig(), SMALL, tmp_path / "a") == chosen
    assert len(measured) == count
    assert not machine_speed.cache_file().exists()
    machine_speed.with_measured_precision(TrainingConfig(), SMALL, tmp_path / "b")
    assert len(measured) == 2 * count
    assert machine_speed.cache_file().exists()


def test_load_is_compared_with_the_cores_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for more, loaded in ((0.0, False), (0.1, True)):
        load = available_cores() + more
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        assert is_loaded() is loaded

    def unknown() -> None:
        raise OSError("load average is not available")

    monkeypatch.setattr(os, "getloadavg", unknown)
    assert is_loaded() is False


@pytest.mark.parametrize(("given", "threads"), [(None, {4, 2}), ("1", {1})])
def test_threads_to_measure_do_not_depend_on_an_earlier_choice(
    given: str | None, threads: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier choice, or OMP_NUM_THREADS, has set torch's number to 1."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(machine_speed, "available_cores", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    options = machine_speed.speed_options()
    assert {option.threads for option in options} == threads
    assert options[0] == SpeedOption(USUAL, max(threads))
