"""The detector of a simulation: it learns, and the maps from the cache change no prediction."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsmoe_core.predict import Detector
from dsmoe_core.runtimes.loading import RuntimeOptions
from dsmoe_core.schema import Detection, Prediction
from dsmoe_core.training.precision import training_precision
from dsmoe_core.warm_start.checkpoint import shipped_path
from pipelines.benchmarks.comparison.dataset import load_dataset
from pipelines.benchmarks.simulation.learner import Learner
from pipelines.benchmarks.simulation.plan import Plan
from pipelines.detectors.backend import EVALUATION_MIN_SCORE
from pipelines.progress import SilentProgress
from tests.pipelines.blocks import write_blocks
from tests.tiny import HashEncoder


def test_predictions_are_those_of_the_product(tmp_path: Path) -> None:
    data = write_blocks(tmp_path / "blocks", train=6, val=3)
    plan = Plan.of(
        data=data,
        strategies=("random",),
        rounds=1,
        budget=2,
        budget_boxes=None,
        initial=4,
        images_seen=24,
        px=64,
        changes="training.precision=32-true",
        start="warm",
        weights=shipped_path("nano"),
        work=tmp_path / "work",
    )
    learner = Learner(plan, HashEncoder())
    folder = tmp_path / "model"
    with load_dataset(data, SilentProgress()) as dataset:
        seconds = learner.train(dataset.train, dataset.vocabulary, folder, seed=1, start_from=None)
        images = [item.image for item in dataset.val]
        found = list(learner.predict(folder, dataset.vocabulary, images))
        product = Detector.load(folder, HashEncoder(), RuntimeOptions(precision="fp32"))
        product.set_vocabulary(dataset.vocabulary)
        expected = list(product.predict(images, min_score=EVALUATION_MIN_SCORE))
    assert seconds > 0
    assert training_precision(plan.training) == "32-true"
    for one, other in zip(found, expected, strict=True):
        assert one.detections
        assert one.routing is not None
        assert other.routing is not None
        assert one.routing.experts == other.routing.experts
        assert one.routing.weights == pytest.approx(other.routing.weights, abs=1e-5)
        pairs = zip(in_order(one), in_order(other), strict=True)
        for a, b in pairs:
            assert a.label == b.label
            assert a.score == pytest.approx(b.score, abs=1e-4)
            assert a.box.corners == pytest.approx(b.box.corners, abs=0.05)


def in_order(prediction: Prediction) -> list[Detection]:
    """The detections by label and position: scores of a short training are too close to order them."""
    return sorted(prediction.detections, key=lambda d: (d.label, [round(c) for c in d.box.corners]))
