"""Training: it learns, it resumes to the same weights, it says what is wrong."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import SMALL, HashEncoder

from dsmoe_core.checkpoint import UNFINISHED, WEIGHTS, load_model, read_tensors
from dsmoe_core.config import ModelConfig, Tiles, TrainingConfig
from dsmoe_core.data.square_cache import PictureCache, squares_of
from dsmoe_core.errors import ClassBookError, DataError, ModelError
from dsmoe_core.schema import Annotation, Box, LabelledPicture, Picture, Vocabulary
from dsmoe_core.tiling import training_views
from dsmoe_core.train import TrainingSummary, fit

QUICK = TrainingConfig(pictures_seen=12, batch=2, precision="32-true", checkpoint_every_s=1e-9)


class Killed(BaseException):
    """Stands for a kill: no handler of ours may catch it."""


def train(
    out: Path,
    pictures: list[LabelledPicture],
    vocabulary: Vocabulary,
    *,
    training: TrainingConfig = QUICK,
    kill_at: int | None = None,
    start_from: Path | None = None,
    model: ModelConfig = SMALL,
) -> TrainingSummary:
    def progress(step: int, steps: int, losses: dict[str, float]) -> None:
        if step == kill_at:
            raise Killed

    return fit(
        pictures=pictures,
        vocabulary=vocabulary,
        text_encoder=HashEncoder(),
        model=model,
        training=training,
        out=out,
        start_from=start_from,
        progress=progress,
    )


@pytest.mark.parametrize("kill_at", [2, 5])
def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, pictures: list[LabelledPicture], vocabulary: Vocabulary, kill_at: int
) -> None:
    train(tmp_path / "whole", pictures, vocabulary)
    with pytest.raises(Killed):
        train(tmp_path / "cut", pictures, vocabulary, kill_at=kill_at)
    assert (tmp_path / "cut" / UNFINISHED).is_file()
    assert not (tmp_path / "cut" / WEIGHTS).exists()
    summary = train(tmp_path / "cut", pictures, vocabulary)
    assert summary.steps == 6
    whole, cut = (read_tensors(tmp_path / name / WEIGHTS)[0] for name in ("whole", "cut"))
    for name, tensor in whole.items():
        torch.testing.assert_close(cut[name], tensor, msg=lambda m, name=name: f"{name}: {m}")
    assert not (tmp_path / "cut" / UNFINISHED).exists()


def test_a_cache_of_pictures_changes_no_weight(
    tmp_path: Path, pictures: list[LabelledPicture], vocabulary: Vocabulary
) -> None:
    for name, cache in (("plain", None), ("cached", PictureCache(tmp_path / "cache"))):
        fit(
            pictures=pictures,
            vocabulary=vocabulary,
            text_encoder=HashEncoder(),
            model=SMALL,
            training=QUICK,
            out=tmp_path / name,
            cache=cache,
        )
    plain, cached = (read_tensors(tmp_path / name / WEIGHTS)[0] for name in ("plain", "cached"))
    for name, tensor in plain.items():
        torch.testing.assert_close(cached[name], tensor, msg=lambda m, name=name: f"{name}: {m}")


def test_large_pictures_are_trained_on_in_tiles(
    tmp_path: Path, pictures: list[LabelledPicture], vocabulary: Vocabulary
) -> None:
    cache = PictureCache(tmp_path / "cache")
    tiles = Tiles(px=64, whole=False, empty=1.0)
    fit(
        pictures=pictures,
        vocabulary=vocabulary,
        text_encoder=HashEncoder(),
        model=SMALL.model_copy(update={"tiles": tiles}),
        training=QUICK.model_copy(update={"pictures_seen": 2}),
        out=tmp_path / "model",
        cache=cache,
    )
    assert load_model(tmp_path / "model").config.tiles == tiles
    for labelled in training_views(pictures, tiles):
        gone = replace(labelled.picture, path=Path("gone"))
        assert squares_of(SMALL, cache).read(gone).shape == (64, 64, 3)


def test_a_finished_run_is_not_trained_again(
    tmp_path: Path, pictures: list[LabelledPicture], vocabulary: Vocabulary
) -> None:
    first = train(tmp_path, pictures, vocabulary)
    before = (tmp_path / WEIGHTS).stat().st_mtime_ns
    assert train(tmp_path, pictures, vocabulary, kill_at=1) == first
    assert (tmp_path / WEIGHTS).stat().st_mtime_ns == before


def test_a_torn_or_foreign_checkpoint_is_not_resumed(
    tmp_path: Path, pictures: list[LabelledPicture], vocabulary: Vocabulary
) -> None:
    (tmp_path / UNFINISHED).write_bytes(b"torn")
    assert train(tmp_path, pictures, vocabulary).steps == 6
    with pytest.raises(Killed):
        train(tmp_path / "b", pictures, vocabulary, kill_at=4)
    other = QUICK.model_copy(update={"seed": 1})
    seen: list[int] = []
    fit(
        pictures=pictures,
        vocabulary=vocabulary,
        text_encoder=HashEncoder(),
        model=SMALL,
        training=other,
        out=tmp_path / "b",
        progress=lambda step, steps, losses: seen.append(step),
    )
    assert seen[0] == 1


def test_training_on_bf16_makes_the_loss_smaller(
    tmp_path: Path, pictures: list[LabelledPicture], vocabulary: Vocabulary
) -> None:
    losses: list[float] = []
    fit(
        pictures=pictures,
        vocabulary=vocabulary,
        text_encoder=HashEncoder(),
        model=SMALL,
        training=TrainingConfig(pictures_seen=320, batch=8, seed=0),
        out=tmp_path,
        progress=lambda step, steps, named: losses.append(named["box"]),
    )
    assert losses[-1] < 0.8 * losses[0]


SHOWN = {
    "noise": lambda rng: rng.integers(0, 256, (60, 90, 3), dtype=np.uint8),
    "black": lambda rng: np.zeros((60, 90, 3), np.uint8),
    "white": lambda rng: np.full((60, 90, 3), 255, np.uint8),
}


@pytest.mark.parametrize("boxes", [0, 3])
@pytest.mark.parametrize("shown", SHOWN)
def test_bf16_training_stays_finite_on_pictures_that_show_nothing(
    shown: str, boxes: int, tmp_path: Path, vocabulary: Vocabulary
) -> None:
    """Labels at random places, of all sizes down to a pixel, or none at all."""
    rng = np.random.default_rng(0)
    pictures = []
    for i in range(4):
        path = tmp_path / f"{i}.png"
        Image.fromarray(SHOWN[shown](rng)).save(path)
        corners = [(*rng.uniform(0, 50, 2), *rng.choice([1, 8, 40], 2)) for _ in range(boxes)]
        annotations = tuple(
            Annotation(Box(float(x), float(y), float(x + w), min(float(y + h), 60.0)), "dark")
            for x, y, w, h in corners
        )
        pictures.append(LabelledPicture(Picture(f"key{i}", path.name, path, 90, 60), annotations))
    seen: list[dict[str, float]] = []
    fit(
        pictures=pictures,
        vocabulary=vocabulary,
        text_encoder=HashEncoder(),
        model=SMALL,
        training=TrainingConfig(pictures_seen=48, batch=4, precision="bf16-mixed"),
        out=tmp_path / "out",
        progress=lambda step, steps, losses: seen.append(dict(losses)),
    )
    assert len(seen) == 12
    assert [losses for losses in seen if not all(map(math.isfinite, losses.values()))] == []
    weights, _ = read_tensors(tmp_path / "out" / WEIGHTS)
    assert [name for name, tensor in weights.items() if not tensor.isfinite().all()] == []


def test_going_on_from_a_model_of_another_size_is_refused(
    tmp_path: Path, pictures: list[LabelledPicture], vocabulary: Vocabulary
) -> None:
    train(tmp_path / "a", pictures, vocabulary)
    wider = SMALL.model_copy(update={"width": 48})
    with pytest.raises(ModelError, match=r"do not fit the network \(wrong shape.*expected"):
        train(tmp_path / "b", pictures, vocabulary, start_from=tmp_path / "a", model=wider)


def test_what_cannot_be_learned_is_named(
    tmp_path: Path, pictures: list[LabelledPicture], vocabulary: Vocabulary
) -> None:
    with pytest.raises(DataError, match="no picture"):
        train(tmp_path, [], vocabulary)
    only_dark = Vocabulary((vocabulary.classes[0],), vocabulary.inner)
    with pytest.raises(ClassBookError, match="'light' is not in the class book, which has dark"):
        train(tmp_path, pictures, only_dark)
