"""mAP lost without a part, with intervals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import SMALL, HashEncoder

from dsmoe_core.build import build, build_full_network
from dsmoe_core.checkpoint import save_model
from dsmoe_core.errors import SettingsError
from dsmoe_core.evaluation.coco_metrics import evaluate
from dsmoe_core.knockout.effect import measure_effects
from dsmoe_core.knockout.parts import knocked_out, knockouts
from dsmoe_core.predict import Detector
from dsmoe_core.runtimes.eager import EagerRuntime
from dsmoe_core.schema import Annotation, LabelledImage, Vocabulary
from dsmoe_core.stages.aggregation import Aggregation


@pytest.fixture
def detector(tmp_path: Path, vocabulary: Vocabulary) -> Detector:
    torch.manual_seed(0)
    network = build_full_network(SMALL)
    with torch.no_grad():
        for level in network.head.levels:
            level.bias.fill_(0.0)  # so that the untrained network has detections
    save_model(tmp_path / "model", network, SMALL, vocabulary, {})
    made = Detector.load(tmp_path / "model", HashEncoder())
    made.set_vocabulary(vocabulary)
    return made


@pytest.fixture
def truth(detector: Detector, images: list[LabelledImage]) -> list[LabelledImage]:
    """The detector's own best detections as ground truth, so that the whole network scores above 0."""
    made = []
    for labelled, prediction in zip(images, detector.predict(i.image for i in images), strict=True):
        best = prediction.detections[:3]
        made.append(LabelledImage(labelled.image, tuple(Annotation(d.box, d.label) for d in best)))
    return made


def test_effects_equal_separate_evaluations(
    detector: Detector, truth: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    steps: list[tuple[int, int]] = []
    result = measure_effects(
        detector,
        truth,
        vocabulary.names,
        resamples=50,
        names=("f_out", "offsets"),
        progress=lambda done, total: steps.append((done, total)),
    )
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert [effect.knockout.name for effect in result.effects] == ["f_out", "offsets"]
    assert result.map50 > 0.2
    runtime = detector.model.runtime
    assert isinstance(runtime, EagerRuntime)
    network = runtime.network
    for effect, part in zip(
        result.effects,
        [k for k in knockouts(network) if k.name in ("f_out", "offsets")],  # type: ignore[arg-type]
        strict=True,
    ):
        with knocked_out(network, part):  # type: ignore[arg-type]
            alone = evaluate(
                detector.predict((p.image for p in truth), min_score=0.001), truth, vocabulary.names
            )
        assert effect.map50 == pytest.approx(alone.map50)
        assert effect.map == pytest.approx(alone.map)
        assert effect.lost50 is not None
        assert effect.lost50.delta == pytest.approx(result.map50 - alone.map50)
        assert effect.lost50.ci95[0] <= effect.lost50.ci95[1]
        assert effect.carries == (effect.lost50.ci95[0] > 0)


def test_part_without_effect_loses_nothing(
    detector: Detector, truth: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    runtime = detector.model.runtime
    assert isinstance(runtime, EagerRuntime)
    aggregation = runtime.network.aggregation
    assert isinstance(aggregation, Aggregation)
    aggregation.gate_only = True
    with torch.no_grad():
        aggregation.gate.weight.zero_()
    (effect,) = measure_effects(detector, truth, vocabulary.names, resamples=50, names=("f_moe",)).effects
    assert effect.lost50 is not None
    assert effect.lost50.delta == 0.0
    assert not effect.carries


def test_network_without_the_ten_stages_is_refused(
    tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    config = SMALL.model_copy(update={"ablation": "C"})
    save_model(tmp_path / "row", build(config), config, vocabulary, {})
    detector = Detector.load(tmp_path / "row", HashEncoder())
    detector.set_vocabulary(vocabulary)
    with pytest.raises(SettingsError):
        measure_effects(detector, images, vocabulary.names)


def test_intervals_of_few_groups_are_wider_and_one_group_is_refused(
    detector: Detector, truth: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    groups = [str(i % 2) for i in range(len(truth))]
    (effect,) = measure_effects(
        detector, truth, vocabulary.names, groups=groups, resamples=200, names=("f_out",)
    ).effects
    assert effect.lost50 is not None
    by_group = [
        measure_effects(detector, truth[i::2], vocabulary.names, resamples=100, names=("f_out",)).effects[0]
        for i in range(2)
    ]
    low, high = effect.lost50.ci95
    losses = [e.lost50.delta for e in by_group if e.lost50]
    assert low == pytest.approx(min(losses), abs=1e-6)  # with two groups, the extremes of the resamples
    assert high == pytest.approx(max(losses), abs=1e-6)
    with pytest.raises(SettingsError):
        measure_effects(detector, truth, vocabulary.names, groups=["one"] * len(truth))
