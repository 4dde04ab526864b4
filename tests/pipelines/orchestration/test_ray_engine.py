"""Tests of prediction on Ray: the same predictions as without it, also after kills."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dsmoe_core.config import TrainingConfig
from dsmoe_core.data import coco
from dsmoe_core.errors import ServiceError
from dsmoe_core.schema import ClassText, ImageRecord, LabelledImage, Prediction, Vocabulary
from pipelines.detectors.backend import PredictFunction
from pipelines.detectors.stub_detector import StubDetector
from pipelines.orchestration.ray_engine import LOOPBACK, RaySettings, predict_on_ray, read_shard, write_shard
from tests.pipelines.blocks import COLOURS

VOCABULARY = Vocabulary(tuple(ClassText(name, name) for name in COLOURS), version="book")


@dataclass(frozen=True)
class StubSource:
    """Loads the stub detector in a worker; each prediction is a line of ``log``.

    Attributes:
        kill: number of the image, in the order of the log, at which the worker is killed once; None: never.
    """

    model: Path
    log: Path
    kill: int | None = None

    def __call__(self) -> PredictFunction:
        return self.predict

    def predict(self, images: Iterable[ImageRecord]) -> Iterator[Prediction]:
        import ray

        self.log.with_suffix(".address").write_text(ray.util.get_node_ip_address())
        for prediction in StubDetector().predict(self.model, VOCABULARY, images):
            with self.log.open("a") as log:
                log.write(prediction.key + "\n")
            if self.kill is not None and len(self.log.read_text().splitlines()) == self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            yield prediction


@pytest.fixture
def images(blocks: Path) -> list[ImageRecord]:
    entries = coco.read(blocks / "train.json").images
    return [ImageRecord(e.name, e.name, blocks / "images" / e.name, e.width, e.height) for e in entries]


@pytest.fixture
def model(blocks: Path, images: list[ImageRecord], tmp_path: Path) -> Path:
    labels = {e.name: e.annotations for e in coco.read(blocks / "train.json").images}
    labelled = [LabelledImage(image, labels[image.name]) for image in images]
    StubDetector().fit(
        images=labelled,
        vocabulary=VOCABULARY,
        training=TrainingConfig(),
        out=tmp_path / "model",
        start_from=None,
    )
    return tmp_path / "model"


def predict(images: list[ImageRecord], source: StubSource, folder: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Predict with two workers and shards of two images."""
    monkeypatch.setattr("pipelines.orchestration.ray_engine.SHARD_BATCHES", 2)
    settings = RaySettings(workers=2, checkpoints=folder)
    return predict_on_ray(
        images, source, settings, batch=1, identity={"model": "m"}, progress=lambda _done, _total: None
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_worker_is_replaced_and_a_second_run_predicts_nothing_again(
    images: list[ImageRecord], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(StubDetector().predict(model, VOCABULARY, images))
    log, folder = tmp_path / "log", tmp_path / "parts"
    assert predict(images, StubSource(model, log, kill=5), folder, monkeypatch) == expected
    assert log.with_suffix(".address").read_text() == LOOPBACK
    lines = log.read_text().splitlines()
    assert set(lines) == {image.key for image in images}
    assert len(lines) > len(images)  # the shard of the killed worker was repeated
    shards = sorted(folder.glob("*.jsonl"))
    assert len(shards) == len(images) // 2

    shards[1].unlink()
    again = tmp_path / "again"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # a second cluster needs no file of the first one
    assert predict(images, StubSource(model, again), folder, monkeypatch) == expected
    assert again.read_text().splitlines() == [image.key for image in images[2:4]]
    assert not (tmp_path / "home").exists()  # no token is written


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1", "127.0.0.1:99999999", "nowhere"])
def test_an_address_without_a_cluster_is_refused(
    images: list[ImageRecord], model: Path, tmp_path: Path, address: str
) -> None:
    settings = RaySettings(1, tmp_path / "parts", address=address)
    with pytest.raises(ServiceError):
        predict_on_ray(
            images[:1],
            StubSource(model, tmp_path / "log"),
            settings,
            batch=1,
            identity={},
            progress=lambda _done, _total: None,
        )


def test_shards_keep_every_digit(images: list[ImageRecord], model: Path, tmp_path: Path) -> None:
    predictions = list(StubDetector().predict(model, VOCABULARY, images[:3]))
    file = tmp_path / "shard.jsonl"
    file.write_text(write_shard(predictions))
    assert read_shard(file) == predictions


def test_complete_shards_need_no_cluster_unless_an_image_or_the_model_changed(
    images: list[ImageRecord], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.orchestration import ray_engine

    predictions = list(StubDetector().predict(model, VOCABULARY, images[:2]))
    folder, counts = tmp_path / "parts", []
    folder.mkdir()
    file = ray_engine._file_of(images[:2], 0, folder, {"model": "m"})
    file.write_text(write_shard(predictions))
    found = predict_on_ray(
        images[:2],
        StubSource(model, tmp_path / "log"),
        RaySettings(2, folder),
        batch=2,
        identity={"model": "m"},
        progress=lambda done, total: counts.append((done, total)),
    )
    assert (found, counts) == (predictions, [(2, 2)])
    assert ray_engine._file_of(images[:2], 0, folder, {"model": "n"}) != file
    changed = tmp_path / "changed.png"
    changed.write_bytes(images[0].path.read_bytes() + b"x")
    other = ImageRecord(images[0].key, images[0].name, changed, images[0].width, images[0].height)
    assert ray_engine._file_of([other, images[1]], 0, folder, {"model": "m"}) != file
