"""One contract for every detector: the stub always, the network where there is time for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsmoe_core.config import ModelConfig, TrainingConfig
from dsmoe_core.data.letterbox_cache import CacheConfig
from dsmoe_core.errors import ModelError
from dsmoe_core.schema import LabelledImage, Vocabulary
from pipelines.detectors.backend import DetectorBackend, DSMoEBackend, evaluate_predictions, with_version
from pipelines.detectors.stub_detector import StubDetector
from pipelines.rounds.simulated_annotator import load_truth
from pipelines.workspace.workspace import Workspace

SHORT = TrainingConfig(images_seen=24, batch=4)


@pytest.fixture(params=["stub", pytest.param("ds-moe", marks=pytest.mark.slow)])
def detector(request: pytest.FixtureRequest, tmp_path: Path) -> DetectorBackend:
    if request.param == "stub":
        return StubDetector()
    return DSMoEBackend(
        ModelConfig(image_px=96), tmp_path / "texts", images=CacheConfig(tmp_path / "squares")
    )


@pytest.fixture
def pool(workspace: Workspace, blocks: Path) -> list[LabelledImage]:
    return list(load_truth(blocks / "train.json", workspace).values())


@pytest.fixture
def words(workspace: Workspace) -> Vocabulary:
    return workspace.class_book().vocabulary()


def test_a_trained_model_finds_things_on_every_image_in_order(
    detector: DetectorBackend, pool: list[LabelledImage], words: Vocabulary, tmp_path: Path
) -> None:
    steps: list[tuple[int, int]] = []
    summary = detector.fit(
        images=pool,
        vocabulary=words,
        training=SHORT,
        out=tmp_path / "a",
        start_from=None,
        progress=lambda done, total, losses: steps.append((done, total)),
    )
    assert summary["steps"] == steps[-1][1]
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert {p.name for p in (tmp_path / "a").iterdir()} >= {"model.safetensors", "model.json"}
    images = [p.image for p in pool]
    found = list(with_version(detector.predict(tmp_path / "a", words, iter(images)), "a+b"))
    assert [f.key for f in found] == [p.key for p in images]
    assert {f.version for f in found} == {"a+b"}
    ready = detector.load(tmp_path / "a", words)
    again = [one for image in images for one in with_version(ready([image]), "a+b")]  # asked over and over
    assert [f.key for f in again] == [f.key for f in found]
    assert all(len(a.detections) >= len(f.detections) for a, f in zip(again, found, strict=True))
    for image, one in zip(images, found, strict=True):
        scores = [f.score for f in one.detections]
        assert scores == sorted(scores, reverse=True)
        assert all(set(f.probabilities) == set(words.names) for f in one.detections)
        assert all(f.box.inside(image.width, image.height) for f in one.detections)
        assert one.uncertainty >= 0


def test_the_same_training_twice_ends_in_the_same_figures_and_a_child_starts_from_its_parent(
    detector: DetectorBackend, pool: list[LabelledImage], words: Vocabulary, tmp_path: Path
) -> None:
    for name, parent in (("a", None), ("b", None), ("c", tmp_path / "a")):
        detector.fit(images=pool, vocabulary=words, training=SHORT, out=tmp_path / name, start_from=parent)
    images = [p.image for p in pool[:3]]
    one, two = (list(detector.predict(tmp_path / name, words, images)) for name in "ab")
    assert [f.detections for f in one] == [f.detections for f in two]
    assert list(detector.predict(tmp_path / "c", words, images))


def test_without_a_model_it_says_so(detector: DetectorBackend, words: Vocabulary, tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        list(detector.predict(tmp_path / "nowhere", words, []))


def test_the_stand_in_learns_colours_and_is_judged_like_any_other(
    workspace: Workspace, pool: list[LabelledImage], words: Vocabulary, tmp_path: Path
) -> None:
    detector, truth = StubDetector(), workspace.test_set()
    figures = []
    for count in (1, len(pool)):
        out = tmp_path / str(count)
        detector.fit(images=pool[:count], vocabulary=words, training=SHORT, out=out, start_from=None)
        found = detector.predict(out, words, [t.image for t in truth])
        figures.append(evaluate_predictions(found, truth, words, "t+b").map)
    assert 0 < figures[0] < figures[1] <= 1
