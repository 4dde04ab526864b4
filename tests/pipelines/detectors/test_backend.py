"""The contract of every detector backend: the stub always, the network in slow tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsmoe_core.config import ModelConfig, TrainingConfig
from dsmoe_core.data.letterbox_cache import CacheConfig
from dsmoe_core.errors import ModelError, SettingsError
from dsmoe_core.schema import LabelledImage, Vocabulary
from pipelines.detectors.backend import DetectorBackend, evaluate_predictions, with_version
from pipelines.detectors.ds_moe import DSMoEBackend
from pipelines.detectors.registry import DETECTOR_BACKENDS, detector_backend, detector_entry
from pipelines.detectors.stub_detector import StubDetector
from pipelines.rounds.simulated_annotator import load_truth
from pipelines.settings.detector import DetectorSettings
from pipelines.settings.environment import Environment
from pipelines.workspace.workspace import Workspace

SHORT = TrainingConfig(images_seen=24, batch=4)


@pytest.fixture(params=["stub", pytest.param("ds-moe", marks=pytest.mark.slow)])
def detector(request: pytest.FixtureRequest, tmp_path: Path) -> DetectorBackend:
    if request.param == "stub":
        return StubDetector()
    cache = CacheConfig(tmp_path / "squares")
    return DSMoEBackend(ModelConfig(image_px=96), tmp_path / "texts", images=cache)


@pytest.fixture
def pool(workspace: Workspace, blocks: Path) -> list[LabelledImage]:
    return list(load_truth(blocks / "train.json", workspace).values())


@pytest.fixture
def vocabulary(workspace: Workspace) -> Vocabulary:
    return workspace.class_book().vocabulary()


def test_trained_model_predicts_on_every_image_in_order(
    detector: DetectorBackend, pool: list[LabelledImage], vocabulary: Vocabulary, tmp_path: Path
) -> None:
    steps: list[tuple[int, int]] = []
    summary = detector.fit(
        images=pool,
        vocabulary=vocabulary,
        training=SHORT,
        out=tmp_path / "a",
        start_from=None,
        progress=lambda step, total, metrics: steps.append((step, total)),
    )
    assert summary["steps"] == steps[-1][1]
    assert [step for step, _ in steps] == sorted(step for step, _ in steps)
    assert {p.name for p in (tmp_path / "a").iterdir()} >= {"model.safetensors", "model.json"}
    images = [p.image for p in pool]
    predictions = list(with_version(detector.predict(tmp_path / "a", vocabulary, iter(images)), "a+b"))
    assert [p.key for p in predictions] == [p.key for p in images]
    assert {p.version for p in predictions} == {"a+b"}
    predict = detector.load(tmp_path / "a", vocabulary)
    repeated = [p for image in images for p in with_version(predict([image]), "a+b")]
    assert [p.key for p in repeated] == [p.key for p in predictions]
    assert all(len(r.detections) >= len(p.detections) for r, p in zip(repeated, predictions, strict=True))
    for image, prediction in zip(images, predictions, strict=True):
        scores = [d.score for d in prediction.detections]
        assert scores == sorted(scores, reverse=True)
        assert all(set(d.probabilities) == set(vocabulary.names) for d in prediction.detections)
        assert all(d.box.inside(image.width, image.height) for d in prediction.detections)
        assert prediction.uncertainty >= 0


def test_training_is_reproducible_and_can_start_from_a_model(
    detector: DetectorBackend, pool: list[LabelledImage], vocabulary: Vocabulary, tmp_path: Path
) -> None:
    for name, parent in (("a", None), ("b", None), ("c", tmp_path / "a")):
        detector.fit(
            images=pool, vocabulary=vocabulary, training=SHORT, out=tmp_path / name, start_from=parent
        )
    images = [p.image for p in pool[:3]]
    first, second = (list(detector.predict(tmp_path / name, vocabulary, images)) for name in "ab")
    assert [p.detections for p in first] == [p.detections for p in second]
    assert list(detector.predict(tmp_path / "c", vocabulary, images))


def test_a_teacher_can_be_given_and_must_exist(
    detector: DetectorBackend, pool: list[LabelledImage], vocabulary: Vocabulary, tmp_path: Path
) -> None:
    arguments: dict[str, Any] = {"vocabulary": vocabulary, "training": SHORT, "start_from": None}
    detector.fit(images=pool, out=tmp_path / "teacher", **arguments)
    detector.fit(images=pool, out=tmp_path / "student", teacher=tmp_path / "teacher", **arguments)
    assert len(list(detector.predict(tmp_path / "student", vocabulary, [p.image for p in pool]))) == len(pool)
    with pytest.raises(ModelError):
        detector.fit(images=pool, out=tmp_path / "other", teacher=tmp_path / "nowhere", **arguments)


def test_stub_takes_classes_without_labels_from_the_teacher(
    pool: list[LabelledImage], vocabulary: Vocabulary, tmp_path: Path
) -> None:
    detector, name = StubDetector(), vocabulary.names[0]
    arguments: dict[str, Any] = {"vocabulary": vocabulary, "training": SHORT, "start_from": None}
    detector.fit(images=pool, out=tmp_path / "teacher", **arguments)
    without = [replace(p, annotations=tuple(a for a in p.annotations if a.label != name)) for p in pool]
    best = []
    for out, teacher in (("alone", None), ("taught", tmp_path / "teacher")):
        detector.fit(images=without, out=tmp_path / out, teacher=teacher, **arguments)
        predictions = detector.predict(tmp_path / out, vocabulary, [p.image for p in pool])
        best.append(max(d.probabilities[name] for p in predictions for d in p.detections))
    assert best[0] == 0 < best[1]


def test_folder_without_a_model_is_refused(
    detector: DetectorBackend, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    with pytest.raises(ModelError):
        list(detector.predict(tmp_path / "nowhere", vocabulary, []))


def test_stub_improves_with_more_labels(
    workspace: Workspace, pool: list[LabelledImage], vocabulary: Vocabulary, tmp_path: Path
) -> None:
    detector, truth = StubDetector(), workspace.test_set()
    values = []
    for count in (1, len(pool)):
        out = tmp_path / str(count)
        detector.fit(images=pool[:count], vocabulary=vocabulary, training=SHORT, out=out, start_from=None)
        predictions = detector.predict(out, vocabulary, [t.image for t in truth])
        values.append(evaluate_predictions(predictions, truth, vocabulary, "t+b").map)
    assert 0 < values[0] < values[1] <= 1


@pytest.mark.parametrize(("kind", "backend"), [("stub", StubDetector), ("ds-moe", DSMoEBackend)])
def test_settings_name_the_backend(workspace: Workspace, kind: str, backend: type) -> None:
    assert kind in DETECTOR_BACKENDS
    workspace.settings = workspace.settings.model_copy(update={"detector": DetectorSettings(kind=kind)})
    assert isinstance(detector_backend(workspace, Environment.read({})), backend)


def test_default_setting_is_registered() -> None:
    assert detector_entry(DetectorSettings().kind).tracked


def test_unknown_backend_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"'yolo'.* ds-moe, stub"):
        detector_entry("yolo")
