"""What a GPU computes: as a processor does, and to the end. Run by `make test-outside` where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from exports import diverse_network, sample_images, sample_texts
from tiny import QUICK, HashEncoder, train

from dsmoe_core.checkpoint import WEIGHTS, read_tensors
from dsmoe_core.config import TrainingConfig
from dsmoe_core.data.letterbox_cache import CacheConfig
from dsmoe_core.mobile_sam.network import MobileSam
from dsmoe_core.mobile_sam.prompt_segmenter import PromptSegmenter
from dsmoe_core.predict import Detector
from dsmoe_core.runtimes.eager import EagerRuntime
from dsmoe_core.schema import Box, LabelledImage, Vocabulary

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _there_is_one() -> None:
    assert torch.cuda.is_available(), "the tests marked gpu need one"


def test_a_training_learns_and_its_model_finds(
    tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    losses: list[float] = []
    training = TrainingConfig(images_seen=320, batch=8, seed=0)
    torch.cuda.reset_peak_memory_stats()
    train(
        tmp_path / "model",
        images,
        vocabulary,
        training=training,
        progress=lambda step, steps, figures: losses.append(figures["box"]),
    )
    assert torch.cuda.max_memory_allocated() > 0, "it was the GPU that learned"
    assert losses[-1] < 0.8 * losses[0]
    weights, _ = read_tensors(tmp_path / "model" / WEIGHTS)
    assert [name for name, tensor in weights.items() if not tensor.isfinite().all()] == []
    detector = Detector.load(tmp_path / "model", HashEncoder())
    detector.set_vocabulary(vocabulary)
    found = list(detector.predict((p.image for p in images), min_score=0.001, batch=2))
    assert [one.key for one in found] == [p.image.key for p in images]
    assert all(detection.box.inside(100, 80, tolerance=0.0) for one in found for detection in one.detections)


def test_a_frozen_encoder_s_maps_come_from_the_cache(
    tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary
) -> None:
    train(tmp_path / "parent", images, vocabulary)
    frozen, cache = QUICK.model_copy(update={"encoder": "frozen"}), CacheConfig(tmp_path / "cache")
    ends = [
        train(
            tmp_path / name,
            images,
            vocabulary,
            training=frozen,
            start_from=tmp_path / "parent",
            cache=cache,
        )
        for name in ("first", "again")
    ]
    for name, loss in ends[0].losses.items():
        assert ends[1].losses[name] == pytest.approx(loss, rel=0.01, abs=1e-3)


def test_eager_fp32_answers_as_the_processor_does() -> None:
    words = sample_texts(3), sample_texts(2, seed=1)
    ours, theirs = (
        EagerRuntime(diverse_network(), "fp32", device=device).run(sample_images(4), *words)
        for device in ("cpu", "cuda")
    )
    assert ours.routing is not None
    assert theirs.routing is not None
    assert theirs.logits.device.type == "cuda"
    assert ours.routing.experts.tolist() == theirs.routing.experts.tolist()
    torch.testing.assert_close(theirs.logits.cpu(), ours.logits, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(theirs.boxes.cpu(), ours.boxes, atol=1e-2, rtol=1e-3)


COMPILED = """
import torch
from exports import sample_images, sample_texts, diverse_network
from dsmoe_core.runtimes.eager import EagerRuntime
words = sample_texts(3), sample_texts(2, seed=1)
eager, compiled = (EagerRuntime(diverse_network(), "fp32", device="cuda", compiled=c) for c in (False, True))
shown = [sample_images(4).roll(i, 0) for i in range(4)] + [sample_images(1)] * 2
answers = [compiled.run(one, *words) for one in shown]
for one, answer in zip(shown, answers):
    expected = eager.run(one, *words)
    assert answer.routing.experts.tolist() == expected.routing.experts.tolist()
    torch.testing.assert_close(answer.logits, expected.logits, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(answer.boxes, expected.boxes, atol=1e-2, rtol=1e-3)
print("EQUAL")
"""


def test_a_compiled_network_answers_as_eager_does_time_and_again() -> None:
    """In a process of its own, as it cannot look through the checks of shapes that tests run under."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILED],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.endswith("EQUAL\n"), done.stderr


def test_a_click_and_a_box_become_the_masks_that_they_become_on_the_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    weights = MobileSam(128).state_dict()
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    found = []
    for gpu in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        network = MobileSam(128)
        network.load_state_dict(weights)
        asked = PromptSegmenter(network)
        found.append(
            (
                asked.segment(image, points=[(20.0, 30.0)]),
                asked.segment(image, box=Box(10.0, 5.0, 55.0, 50.0)),
            )
        )
    for ours, theirs in zip(*found, strict=True):
        assert ours.masks.shape == theirs.masks.shape
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=0.02)
        assert (ours.masks == theirs.masks).mean() > 0.95
