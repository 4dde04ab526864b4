"""Tests of the training loop: learning, resuming to the same weights, and errors."""

from __future__ import annotations

import math
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import QUICK, SMALL, HashEncoder, Killed, train

from dsmoe_core.checkpoint import CHECKPOINT, WEIGHTS, load_model, read_tensors
from dsmoe_core.config import Tiles, TrainingConfig
from dsmoe_core.data.letterbox_cache import CacheConfig, letterbox_reader
from dsmoe_core.errors import ClassBookError, DataError, ModelError
from dsmoe_core.schema import Annotation, Box, ImageRecord, LabelledImage, Vocabulary
from dsmoe_core.tiling import training_views
from dsmoe_core.train import fit
from dsmoe_core.training.objective import Objective

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("precision", ["32-true", pytest.param("bf16-mixed", marks=pytest.mark.slow)])
def test_a_run_killed_at_every_step_has_the_same_weights_as_an_uninterrupted_one(
    tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary, precision: str
) -> None:
    training = QUICK.model_copy(update={"precision": precision})
    whole = train(tmp_path / "whole", images, vocabulary, training=training)
    for step in range(1, 7):
        with pytest.raises(Killed):
            train(tmp_path / "cut", images, vocabulary, training=training, kill_at=step)
        assert (tmp_path / "cut" / CHECKPOINT).is_file() == (step > 1)
        assert not (tmp_path / "cut" / WEIGHTS).exists()
    cut = train(tmp_path / "cut", images, vocabulary, training=training)
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")
    assert (cut.steps, cut.losses) == (whole.steps, whole.losses)
    assert not (tmp_path / "cut" / CHECKPOINT).exists()


def assert_same_weights(one: Path, other: Path) -> None:
    """Check that the weights of two models are bit-identical."""
    first, second = (read_tensors(folder / WEIGHTS)[0] for folder in (one, other))
    assert first.keys() == second.keys()
    assert [name for name, tensor in first.items() if not torch.equal(tensor, second[name])] == []


PROGRAM = """
import pickle, sys
from pathlib import Path
sys.path[:0] = [{root!r}, {root!r} + "/tests"]
from tiny import train
def progress(step, steps, metrics):
    print(step, flush=True)
train(Path(sys.argv[1]), *pickle.loads(Path(sys.argv[2]).read_bytes()), progress=progress)
"""


@pytest.mark.slow
def test_a_process_killed_by_sigkill_resumes_to_the_same_weights(
    tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    """The signal may arrive in a step, while a checkpoint is written, or between them."""
    (tmp_path / "data").write_bytes(pickle.dumps((images, vocabulary)))

    def start(out: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PROGRAM.format(root=str(ROOT)), str(tmp_path / out)]
        return subprocess.Popen([*command, str(tmp_path / "data")], stdout=subprocess.PIPE, text=True)

    train(tmp_path / "whole", images, vocabulary)
    first_steps = []
    for lines in (3, 2):
        with start("cut") as run:
            assert run.stdout is not None
            first_steps.append([int(run.stdout.readline()) for _ in range(lines)][0])  # noqa: RUF015
            run.kill()
        assert run.returncode == -signal.SIGKILL
        assert not (tmp_path / "cut" / WEIGHTS).exists()
    assert first_steps[0] == 1 < first_steps[1]
    with start("cut") as run:
        run.communicate()
    assert run.returncode == 0
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")


def test_an_image_cache_does_not_change_the_weights(
    tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    for name, cache in (("plain", None), ("cached", CacheConfig(tmp_path / "cache"))):
        fit(
            images=images,
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


def test_large_images_are_trained_on_in_tiles(
    tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    cache = CacheConfig(tmp_path / "cache")
    tiles = Tiles(px=64, whole=False, empty=1.0)
    fit(
        images=images,
        vocabulary=vocabulary,
        text_encoder=HashEncoder(),
        model=SMALL.model_copy(update={"tiles": tiles}),
        training=QUICK.model_copy(update={"images_seen": 2}),
        out=tmp_path / "model",
        cache=cache,
    )
    assert load_model(tmp_path / "model").config.tiles == tiles
    for labelled in training_views(images, tiles):
        missing = replace(labelled.image, path=Path("missing"))  # so it can come from the cache only
        assert letterbox_reader(SMALL, cache).read(missing).shape == (64, 64, 3)


def test_a_finished_run_is_not_trained_again(
    tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    first = train(tmp_path, images, vocabulary)
    before = (tmp_path / WEIGHTS).stat().st_mtime_ns
    assert train(tmp_path, images, vocabulary, kill_at=1) == first
    assert (tmp_path / WEIGHTS).stat().st_mtime_ns == before


def test_a_damaged_checkpoint_or_one_of_another_run_is_ignored(
    tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    (tmp_path / CHECKPOINT).write_bytes(b"torn")
    assert train(tmp_path, images, vocabulary).steps == 6
    with pytest.raises(Killed):
        train(tmp_path / "b", images, vocabulary, kill_at=4)
    other = QUICK.model_copy(update={"seed": 1})
    steps_done: list[int] = []
    fit(
        images=images,
        vocabulary=vocabulary,
        text_encoder=HashEncoder(),
        model=SMALL,
        training=other,
        out=tmp_path / "b",
        progress=lambda step, steps, losses: steps_done.append(step),
    )
    assert steps_done[0] == 1


def test_the_loss_falls_in_bf16_training(
    tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    losses: list[float] = []
    fit(
        images=images,
        vocabulary=vocabulary,
        text_encoder=HashEncoder(),
        model=SMALL,
        training=TrainingConfig(images_seen=320, batch=8, seed=0),
        out=tmp_path,
        progress=lambda step, steps, named: losses.append(named["box"]),
    )
    assert losses[-1] < 0.8 * losses[0]


CONTENTS = {
    "noise": lambda rng: rng.integers(0, 256, (60, 90, 3), dtype=np.uint8),
    "black": lambda rng: np.zeros((60, 90, 3), np.uint8),
    "white": lambda rng: np.full((60, 90, 3), 255, np.uint8),
}


@pytest.mark.parametrize(
    ("content", "boxes", "steps"),
    [
        *((content, boxes, 12) for content in CONTENTS for boxes in (0, 3)),
        pytest.param("noise", 3, 500, marks=pytest.mark.slow),
    ],
)
def test_bf16_training_stays_finite_on_images_without_content(
    content: str, boxes: int, steps: int, tmp_path: Path, vocabulary: Vocabulary
) -> None:
    """The labels are random boxes of all sizes down to a pixel, or none."""
    rng = np.random.default_rng(0)
    images = []
    for i in range(4):
        path = tmp_path / f"{i}.png"
        Image.fromarray(CONTENTS[content](rng)).save(path)
        corners = [(*rng.uniform(0, 50, 2), *rng.choice([1, 8, 40], 2)) for _ in range(boxes)]
        annotations = tuple(
            Annotation(Box(float(x), float(y), float(x + w), min(float(y + h), 60.0)), "dark")
            for x, y, w, h in corners
        )
        images.append(LabelledImage(ImageRecord(f"key{i}", path.name, path, 90, 60), annotations))
    history: list[dict[str, float]] = []
    fit(
        images=images,
        vocabulary=vocabulary,
        text_encoder=HashEncoder(),
        model=SMALL,
        training=TrainingConfig(images_seen=4 * steps, batch=4, precision="bf16-mixed"),
        out=tmp_path / "out",
        progress=lambda step, steps, losses: history.append(dict(losses)),
    )
    assert len(history) == steps
    assert [losses for losses in history if not all(map(math.isfinite, losses.values()))] == []
    weights, _ = read_tensors(tmp_path / "out" / WEIGHTS)
    assert [name for name, tensor in weights.items() if not tensor.isfinite().all()] == []


@pytest.mark.parametrize("metric", ["box", "gradient norm"])
def test_a_diverged_training_stops_and_keeps_its_last_valid_checkpoint(
    metric: str,
    tmp_path: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    accumulate, steps = Objective.accumulate_gradients, []

    def diverging(objective: Objective, *args: Any) -> dict[str, torch.Tensor]:
        losses = accumulate(objective, *args)
        steps.append(1)
        if len(steps) == 3 and metric == "gradient norm":
            next(p for p in objective.network.parameters() if p.grad is not None).grad.fill_(math.inf)
        elif len(steps) == 3:
            losses[metric] = losses[metric] * math.nan
        return losses

    monkeypatch.setattr(Objective, "accumulate_gradients", diverging)
    with pytest.raises(ModelError, match=rf"step 3\b.*{metric} is (nan|inf)") as raised:
        train(tmp_path, images, vocabulary)
    assert "0.002" in raised.value.remedy
    tensors, metadata = read_tensors(tmp_path / CHECKPOINT)
    assert metadata["step"] == "2"
    assert [name for name, tensor in tensors.items() if not tensor.isfinite().all()] == []
    assert not (tmp_path / WEIGHTS).exists()


def test_a_start_model_of_another_width_is_refused(
    tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    train(tmp_path / "a", images, vocabulary)
    wider = SMALL.model_copy(update={"width": 48})
    with pytest.raises(ModelError, match="wrong shape"):
        train(tmp_path / "b", images, vocabulary, start_from=tmp_path / "a", model=wider)


def test_a_set_without_images_or_with_an_unknown_class_is_refused(
    tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    with pytest.raises(DataError):
        train(tmp_path, [], vocabulary)
    only_dark = Vocabulary((vocabulary.classes[0],), vocabulary.inner)
    with pytest.raises(ClassBookError, match=r"'light'.*dark"):
        train(tmp_path, images, only_dark)
