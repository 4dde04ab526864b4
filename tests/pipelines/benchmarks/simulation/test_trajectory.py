"""The cycles of a seed: budgets, a common initial set, and resuming after a kill."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsmoe_core.config import TrainingConfig
from dsmoe_core.errors import SettingsError
from dsmoe_core.schema import ImageRecord, LabelledImage, Prediction, Vocabulary
from pipelines.benchmarks.comparison.dataset import load_dataset
from pipelines.benchmarks.simulation.learner import Learner
from pipelines.benchmarks.simulation.plan import Plan
from pipelines.benchmarks.simulation.trajectory import SeedRun
from pipelines.detectors.stub_detector import StubDetector
from pipelines.progress import SilentProgress
from tests.pipelines.blocks import write_blocks


class Killed(BaseException):
    """Simulated kill."""


class ColourLearner(Learner):
    """The stub detector, which learns in milliseconds, with the position of the first box as embedding."""

    def __init__(self, kill_at: int | None = None) -> None:
        self.trainings: list[int] = []
        self._kill_at = kill_at
        self._detector = StubDetector()

    def train(
        self,
        images: Sequence[LabelledImage],
        vocabulary: Vocabulary,
        out: Path,
        *,
        seed: int,
        start_from: Path | None,
        cycles: int = 1,
    ) -> float:
        if start_from is not None:
            assert start_from.is_dir()
        if len(self.trainings) == self._kill_at:
            raise Killed
        self.trainings.append(len(images))
        self._detector.fit(
            images=images, vocabulary=vocabulary, training=TrainingConfig(), out=out, start_from=start_from
        )
        return 0.0

    def predict(
        self, folder: Path, vocabulary: Vocabulary, images: Sequence[ImageRecord]
    ) -> Iterator[Prediction]:
        for prediction in self._detector.predict(folder, vocabulary, images):
            first = prediction.detections[0].box.corners if prediction.detections else (1.0, 0.0, 0.0, 0.0)
            vector = np.array(first, dtype=np.float32)
            object.__setattr__(prediction, "embedding", vector / np.linalg.norm(vector))
            yield prediction


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blocks(tmp_path_factory.mktemp("blocks"), train=14, val=4)


STRATEGIES = ("random", "expected_gain", "core-set")


def make_plan(data: Path, work: Path, **changes: Any) -> Plan:
    weights = work / "warm.safetensors"
    work.mkdir(parents=True, exist_ok=True)
    weights.write_bytes(b"weights")
    values = {
        "start": "warm",
        "weights": weights,
        "rounds": 2,
        "budget": 3,
        "budget_boxes": None,
        "initial": 4,
        "changes": "",
    }
    return Plan.of(
        data=data, strategies=STRATEGIES, images_seen=10, px=64, work=work, **{**values, **changes}
    )


def run(plan: Plan, learner: ColourLearner, seed: int = 1) -> dict[str, list[dict[str, Any]]]:
    with load_dataset(plan.data, SilentProgress()) as dataset:
        return SeedRun(plan, dataset, learner, seed, lambda cell, number: None).run()


def without_times(results: dict[str, list[dict[str, Any]]]) -> Any:
    times = {"seconds", "cpu_s", "selecting_s"}
    return {
        n: [{k: v for k, v in c.items() if k not in times} for c in cycles] for n, cycles in results.items()
    }


def test_each_strategy_adds_its_budget_to_the_same_initial_set(data: Path, tmp_path: Path) -> None:
    learner = ColourLearner()
    results = run(make_plan(data, tmp_path), learner)
    assert learner.trainings == [4, 14, *(7, 10) * len(STRATEGIES)]
    (initial,) = results["initial"]
    for strategy in STRATEGIES:
        assert [cycle["images"] for cycle in results[strategy]] == [7, 10]
        keys = initial["keys"] + [key for cycle in results[strategy] for key in cycle["keys"]]
        assert len(set(keys)) == 10
        minutes = [initial["minutes"], *(cycle["minutes"] for cycle in results[strategy])]
        assert minutes == sorted(set(minutes))
        assert all(0 <= cycle["map"] <= cycle["map50"] + 1e-9 <= 1 + 2e-9 for cycle in results[strategy])
    assert results["full"][0]["images"] == 14


def test_a_finished_simulation_is_read_and_another_seed_is_not(data: Path, tmp_path: Path) -> None:
    plan = make_plan(data, tmp_path)
    first, again = run(plan, ColourLearner()), ColourLearner()
    assert run(plan, again) == first
    assert again.trainings == []
    assert run(plan, again, seed=2)["initial"][0]["keys"] != first["initial"][0]["keys"]


@pytest.mark.parametrize("kill_at", [0, 1, 3, 6])
def test_a_killed_simulation_continues_to_the_same_result(data: Path, tmp_path: Path, kill_at: int) -> None:
    expected = run(make_plan(data, tmp_path / "whole"), ColourLearner())
    plan = make_plan(data, tmp_path / "killed")
    with pytest.raises(Killed):
        run(plan, ColourLearner(kill_at))
    rest = ColourLearner()
    assert without_times(run(plan, rest)) == without_times(expected)
    assert len(rest.trainings) == 8 - kill_at


def test_more_rounds_continue_from_the_last_one(data: Path, tmp_path: Path) -> None:
    run(make_plan(data, tmp_path), ColourLearner())
    learner = ColourLearner()
    results = run(make_plan(data, tmp_path, rounds=3), learner)
    assert learner.trainings == [14, *(13,) * len(STRATEGIES)]
    assert [cycle["images"] for cycle in results["core-set"]] == [7, 10, 13]


def test_a_budget_in_boxes_ends_a_round(data: Path, tmp_path: Path) -> None:
    results = run(make_plan(data, tmp_path, budget_boxes=1), ColourLearner())
    assert all(len(cycle["keys"]) < 3 for cycle in results["random"])


def test_cycles_are_stored_as_json(data: Path, tmp_path: Path) -> None:
    results = run(make_plan(data, tmp_path), ColourLearner())
    files = sorted(tmp_path.glob("*/*/random/seed-1/cycle-*.json"))
    assert [json.loads(f.read_text()) for f in files] == results["random"]


def test_settings_are_checked(data: Path, tmp_path: Path) -> None:
    plan = make_plan(data, tmp_path, changes="training.batch=8 round.class_minimum=2 model.experts=4")
    assert (plan.training.batch, plan.round.class_minimum, plan.model.experts) == (8, 2.0, 4)
    for changes in ("training.seed=3", "training.batch", "round.nothing=1", "training.batch=x"):
        with pytest.raises(SettingsError):
            make_plan(data, tmp_path, changes=changes)


@pytest.mark.parametrize(
    ("start", "backbone"), [("warm", "tiny-vit"), ("imagenet-lite", "efficientnet-lite0")]
)
def test_the_start_determines_the_backbone(data: Path, tmp_path: Path, start: str, backbone: str) -> None:
    assert make_plan(data, tmp_path, start=start).model.backbone == backbone
    with pytest.raises(SettingsError):
        make_plan(data, tmp_path, start=start, changes=f"model.backbone={backbone}")
