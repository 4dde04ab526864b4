"""DS-MoE as a model of a comparison."""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from tiny import SMALL, HashEncoder

from dsmoe_core.config import Tiles, TrainingConfig
from dsmoe_core.schema import ClassText, LabelledSet, Vocabulary
from dsmoe_core.tiling import labelled_views
from pipelines.benchmarks.comparison import dsmoe_model
from pipelines.benchmarks.comparison.dsmoe_model import DsmoeModel
from pipelines.benchmarks.comparison.protocol import BenchmarkDataset, Budget
from tests.pipelines.benchmarks.comparison.conftest import RecordingProgress

QUICK = TrainingConfig(batch=5, checkpoint_every_s=1e-9, precision="32-true")


def tiny_model(vocabulary: Vocabulary | None = None, **settings: Any) -> DsmoeModel:
    return DsmoeModel("tiny", SMALL, HashEncoder(), training=QUICK, vocabulary=vocabulary, **settings)


class InterruptingProgress(RecordingProgress):
    """Interrupts the training after a number of steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._steps = steps

    def advance(self, done: int, total: int, note: str = "") -> None:
        super().advance(done, total)
        if len(self.done) == self._steps:
            raise KeyboardInterrupt


def test_model_is_trained_for_epochs_and_predicts_in_order(
    dataset: BenchmarkDataset, progress: RecordingProgress, tmp_path: Path
) -> None:
    result = tiny_model().train(dataset, Budget(epochs=2), 1, tmp_path, progress)
    assert result.epochs == 2
    assert [prediction.key for prediction in result.predictions] == [p.image.key for p in dataset.val]
    assert (4, 4) in progress.done
    assert result.peak_mb is not None
    assert result.peak_mb > 100, "PyTorch alone takes more"


@pytest.mark.slow
def test_epoch_covers_all_tiles(
    dataset: BenchmarkDataset, progress: RecordingProgress, tmp_path: Path
) -> None:
    """Images of 96 px in tiles of 64 px: the tiles with a box, up to four, and the whole image."""
    tiles = Tiles(px=64, empty=0)
    views = sum(len(labelled_views(p, tiles)) for p in dataset.train)
    assert 20 <= views <= 50
    model = DsmoeModel("tiles", SMALL.model_copy(update={"tiles": tiles}), HashEncoder(), training=QUICK)
    result = model.train(dataset, Budget(epochs=2), 1, tmp_path, progress)
    steps = ceil(2 * views / 5)
    assert (steps, steps) in progress.done
    assert result.epochs == steps * 5 / views
    assert [prediction.key for prediction in result.predictions] == [p.image.key for p in dataset.val]


@pytest.mark.slow
def test_killed_training_resumes_and_gives_the_same_model(
    dataset: BenchmarkDataset, progress: RecordingProgress, tmp_path: Path
) -> None:
    budget = Budget(epochs=2)
    with pytest.raises(KeyboardInterrupt):
        tiny_model().train(dataset, budget, 1, tmp_path / "killed", InterruptingProgress(3))
    resumed = tiny_model().train(dataset, budget, 1, tmp_path / "killed", progress)
    assert progress.done[0][0] == 3  # the last checkpoint was after step 2
    uninterrupted = tiny_model().train(dataset, budget, 1, tmp_path / "other", RecordingProgress())
    assert [p.detections for p in resumed.predictions] == [p.detections for p in uninterrupted.predictions]


def test_a_budget_in_minutes_is_the_time_limit_of_the_training(
    dataset: BenchmarkDataset, progress: RecordingProgress, tmp_path: Path
) -> None:
    result = tiny_model().train(dataset, Budget(minutes=0.02), 1, tmp_path, progress)
    assert result.notes["length"]["stopped"] == "time"
    assert result.seconds >= 1.2
    assert result.epochs == result.notes["steps"] * 5 / 10


def test_identity_covers_settings_vocabulary_and_initial_weights(
    dataset: BenchmarkDataset, tmp_path: Path
) -> None:
    weights = tmp_path / "encoder.safetensors"
    weights.write_bytes(b"weights")
    other_vocabulary = Vocabulary((ClassText("rust", "red"),))
    models = [
        tiny_model(),
        tiny_model(other_vocabulary),
        tiny_model(encoder_from=weights),
        DsmoeModel("tiny", SMALL, HashEncoder()),
        DsmoeModel("tiny", SMALL.with_tiny_head(True), HashEncoder(), training=QUICK),
    ]
    identities = [str(model.identity(dataset)) for model in models]
    assert len(set(identities)) == 5
    assert str(tiny_model().identity(dataset)) == identities[0]
    weights.write_bytes(b"others")
    assert str(models[2].identity(dataset)) != identities[2]


def test_budget_and_seed_are_not_part_of_the_identity(dataset: BenchmarkDataset) -> None:
    training = QUICK.model_copy(update={"images_seen": 7, "seed": 7})
    model = DsmoeModel("tiny", SMALL, HashEncoder(), training=training)
    assert model.identity(dataset) == tiny_model().identity(dataset)


def test_extra_sets_are_trained_on(
    dataset: BenchmarkDataset, progress: RecordingProgress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    fit = dsmoe_model.fit
    monkeypatch.setattr(dsmoe_model, "fit", lambda **settings: given.update(settings) or fit(**settings))
    extra = replace(dataset, name="more", train=dataset.train[:5])
    with_extra = replace(dataset, extra_sets=(extra,))
    result = tiny_model().train(with_extra, Budget(epochs=2), 1, tmp_path, progress)
    assert given["extra_sets"] == [LabelledSet(extra.train, extra.vocabulary)]
    assert result.epochs == 2, "of ten images and five"


def test_training_gets_initial_weights_vocabulary_seed_and_length(
    dataset: BenchmarkDataset, progress: RecordingProgress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def fit(**settings: Any) -> None:
        given.update(settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(dsmoe_model, "fit", fit)
    other_vocabulary = Vocabulary((ClassText("rust", "red"),))
    model = tiny_model(other_vocabulary, encoder_from=tmp_path / "encoder.safetensors")
    with pytest.raises(KeyboardInterrupt):
        model.train(dataset, Budget(epochs=3), 7, tmp_path, progress)
    assert given["encoder_from"] == tmp_path / "encoder.safetensors"
    assert given["vocabulary"] is other_vocabulary
    assert given["training"].seed == 7
    assert given["training"].images_seen == 30
    assert given["model"].text_width == HashEncoder.width
