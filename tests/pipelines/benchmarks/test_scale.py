"""Overhead of a cycle, Ray and torchrun: what is timed, compared and counted."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dsmoe_core.schema import ImageRecord, Prediction
from pipelines import cli
from pipelines.benchmarks.ranking import synthetic_predictions
from pipelines.benchmarks.scale.overhead import STEPS, OverheadOptions, TimedDetector, measure_overhead
from pipelines.benchmarks.scale.ray_jobs import JobClock, compared
from pipelines.benchmarks.scale.torchrun import weight_difference
from pipelines.detectors.stub_detector import StubDetector
from pipelines.orchestration.assets import STEPS as ASSETS
from pipelines.progress import SilentProgress
from pipelines.settings.environment import Environment
from pipelines.workspace.workspace import Workspace

PAUSE_S = 0.02


@dataclass
class SlowDetector(StubDetector):
    """Predicts nothing, after a pause for each image."""

    def predict(self, model: Path, vocabulary: object, images: Iterable[ImageRecord]) -> Iterator[Prediction]:
        for image in images:
            time.sleep(PAUSE_S)
            yield replace(next(synthetic_predictions([image.key], 0)), detections=())


def test_steps_are_those_of_the_assets() -> None:
    assert set(STEPS) == set(ASSETS)


def test_time_in_the_detector_is_counted_without_that_of_its_caller(workspace: Workspace) -> None:
    detector, images = TimedDetector(SlowDetector()), workspace.images("pool")[:3]
    for prediction in detector.predict(Path(), workspace.class_book().vocabulary(), images):
        assert prediction.embedding is not None
        assert float((prediction.embedding**2).sum()) == pytest.approx(1.0, abs=1e-5)
        time.sleep(10 * PAUSE_S)
    assert 3 * PAUSE_S <= detector.spent.clock < 3 * 10 * PAUSE_S
    assert detector.spent.cpu < detector.spent.clock


def test_every_step_of_every_round_has_a_time(tmp_path: Path) -> None:
    options = OverheadOptions(images=16, test=4, px=96, budgets=(3, 4), stub=True)
    measured = measure_overhead(tmp_path, options, Environment.read(), SilentProgress())
    assert [row["sent"] for row in measured["rows"]] == [3, 4]
    for row in measured["rows"]:
        assert set(row["steps"]) == set(STEPS)
        assert all(step["seconds"] >= 0 for step in row["steps"].values())
        total = sum(step["seconds"] for step in row["steps"].values())
        assert row["overhead"]["seconds"] == pytest.approx(total, abs=0.05)
        assert row["detector"]["seconds"] > 0


def test_predictions_that_are_missing_or_differ_are_counted() -> None:
    expected = list(synthetic_predictions(["a", "b", "c"], 0))
    assert compared(expected, expected) == {"missing": 0, "unequal": 0}
    changed = replace(expected[1], uncertainty=expected[1].uncertainty + 1)
    assert compared([expected[0], changed], expected) == {"missing": 1, "unequal": 1}


def test_one_running_worker_is_killed_once_half_of_the_images_are_done() -> None:
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    workers = [subprocess.Popen(sleeper) for _ in range(2)]
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    try:
        processes = [ended.pid, *(worker.pid for worker in workers)]
        clock = JobClock(lambda _done, _total: None, lambda: processes)
        clock(4, 10)
        early = clock.killed
        clock(5, 10)
        clock(10, 10)
        assert (early, clock.killed) == (None, (workers[0].pid, 5))
        assert workers[0].wait(timeout=30) == -9
        assert workers[1].poll() is None
        assert clock.first is not None
        assert clock.first[1] == 4
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def test_largest_difference_of_weights(tmp_path: Path) -> None:
    for name, change in (("a", 0.0), ("b", 0.25)):
        (tmp_path / name).mkdir()
        tensors = {"w": torch.tensor([1.0, 2.0 + change]), "n": torch.tensor([3])}
        save_file(tensors, tmp_path / name / "model.safetensors")
    assert weight_difference(tmp_path / "a", tmp_path / "b") == 0.25


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ray_loses_no_image_of_a_killed_worker_and_torchrun_trains_the_same_model(tmp_path: Path) -> None:
    parts = ["--parts", "torchrun,ray_killed", "--images", "256", "--images-seen", "16", "--px", "64"]
    assert cli.run(["benchmark", "scale", *parts, "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "scale.json").read_text())
    killed, torchrun = result["ray_killed"], result["torchrun"]
    assert (killed["images"], killed["missing"], killed["unequal"]) == (256, 0, 0)
    assert killed["workers_started"] == 3
    assert [(row["processes"], row["steps"]) for row in torchrun["rows"]] == [(1, 2), (1, 2), (2, 2)]
    assert torchrun["max_loss_difference"] < 1e-2
    assert torchrun["max_weight_difference"] < 2e-2  # as between thread counts


def test_an_unknown_part_is_refused(tmp_path: Path) -> None:
    assert cli.run(["benchmark", "scale", "--parts", "overhead,moon", "--out", str(tmp_path)]) == 2
    assert cli.run(["benchmark", "scale", "--px", "100", "--out", str(tmp_path)]) == 2
    assert not (tmp_path / "scale.json").exists()
