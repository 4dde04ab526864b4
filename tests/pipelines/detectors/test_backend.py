"""One contract for every detector: the stand-in always, the network where there is time for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsmoe_core.config import ModelConfig, TrainingConfig
from dsmoe_core.data.letterbox_cache import PictureCache
from dsmoe_core.errors import ModelError
from dsmoe_core.schema import LabelledPicture, Vocabulary
from pipelines.demo import truth_of
from pipelines.detectors.backend import Detection, DSMoEDetection, judge, named
from pipelines.detectors.stub_detector import StandInDetection
from pipelines.workspace.workspace import Workspace

SHORT = TrainingConfig(pictures_seen=24, batch=4)


@pytest.fixture(params=["stand-in", pytest.param("ds-moe", marks=pytest.mark.slow)])
def detection(request: pytest.FixtureRequest, tmp_path: Path) -> Detection:
    if request.param == "stand-in":
        return StandInDetection()
    return DSMoEDetection(
        ModelConfig(image_px=96), tmp_path / "texts", pictures=PictureCache(tmp_path / "squares")
    )


@pytest.fixture
def pool(workspace: Workspace, blocks: Path) -> list[LabelledPicture]:
    return list(truth_of(blocks / "train.json", workspace).values())


@pytest.fixture
def words(workspace: Workspace) -> Vocabulary:
    return workspace.class_book().vocabulary()


def test_a_trained_model_finds_things_on_every_picture_in_order(
    detection: Detection, pool: list[LabelledPicture], words: Vocabulary, tmp_path: Path
) -> None:
    steps: list[tuple[int, int]] = []
    summary = detection.fit(
        pictures=pool,
        vocabulary=words,
        training=SHORT,
        out=tmp_path / "a",
        start_from=None,
        progress=lambda done, total, losses: steps.append((done, total)),
    )
    assert summary["steps"] == steps[-1][1]
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert {p.name for p in (tmp_path / "a").iterdir()} >= {"model.safetensors", "model.json"}
    pictures = [p.picture for p in pool]
    found = list(named(detection.findings(tmp_path / "a", words, iter(pictures)), "a+b"))
    assert [f.key for f in found] == [p.key for p in pictures]
    assert {f.version for f in found} == {"a+b"}
    ready = detection.opened(tmp_path / "a", words)
    again = [one for picture in pictures for one in named(ready([picture]), "a+b")]  # asked over and over
    assert [f.key for f in again] == [f.key for f in found]
    assert all(len(a.findings) >= len(f.findings) for a, f in zip(again, found, strict=True))
    for picture, one in zip(pictures, found, strict=True):
        scores = [f.score for f in one.findings]
        assert scores == sorted(scores, reverse=True)
        assert all(set(f.probabilities) == set(words.names) for f in one.findings)
        assert all(f.box.inside(picture.width, picture.height) for f in one.findings)
        assert one.uncertainty >= 0


def test_the_same_training_twice_ends_in_the_same_figures_and_a_child_starts_from_its_parent(
    detection: Detection, pool: list[LabelledPicture], words: Vocabulary, tmp_path: Path
) -> None:
    for name, parent in (("a", None), ("b", None), ("c", tmp_path / "a")):
        detection.fit(pictures=pool, vocabulary=words, training=SHORT, out=tmp_path / name, start_from=parent)
    pictures = [p.picture for p in pool[:3]]
    one, two = (list(detection.findings(tmp_path / name, words, pictures)) for name in "ab")
    assert [f.findings for f in one] == [f.findings for f in two]
    assert list(detection.findings(tmp_path / "c", words, pictures))


def test_without_a_model_it_says_so(detection: Detection, words: Vocabulary, tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        list(detection.findings(tmp_path / "nowhere", words, []))


def test_the_stand_in_learns_colours_and_is_judged_like_any_other(
    workspace: Workspace, pool: list[LabelledPicture], words: Vocabulary, tmp_path: Path
) -> None:
    detection, truth = StandInDetection(), workspace.test_set()
    figures = []
    for count in (1, len(pool)):
        out = tmp_path / str(count)
        detection.fit(pictures=pool[:count], vocabulary=words, training=SHORT, out=out, start_from=None)
        found = detection.findings(out, words, [t.picture for t in truth])
        figures.append(judge(found, truth, words, "t+b").map)
    assert 0 < figures[0] < figures[1] <= 1
