"""Tests of training on several labelled sets and on class subsets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import QUICK, SMALL, Killed, train

from dsmoe_core.checkpoint import CHECKPOINT, WEIGHTS, load_model, read_tensors
from dsmoe_core.config import TrainingConfig
from dsmoe_core.errors import ClassBookError, DataError, SettingsError
from dsmoe_core.network import DSMoE
from dsmoe_core.schema import LabelledImage, LabelledSet, Vocabulary
from dsmoe_core.training.objective import Objective
from dsmoe_core.training.run import fingerprint
from dsmoe_core.training.step_sampler import TrainingStep

BOTH = QUICK.model_copy(update={"class_subsets": 0.5})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_tensors(folder / WEIGHTS)[0]


def test_a_killed_and_resumed_run_has_the_same_weights_as_an_uninterrupted_one(
    tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary, bars: LabelledSet
) -> None:
    whole = train(tmp_path / "whole", images, vocabulary, training=BOTH, extra_sets=[bars])
    for step in (1, 3, 4):
        with pytest.raises(Killed):
            train(tmp_path / "cut", images, vocabulary, training=BOTH, extra_sets=[bars], kill_at=step)
        assert (tmp_path / "cut" / CHECKPOINT).is_file() == (step > 1)
    cut = train(tmp_path / "cut", images, vocabulary, training=BOTH, extra_sets=[bars])
    assert (cut.steps, cut.losses) == (whole.steps, whole.losses)
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert [name for name, tensor in first.items() if not torch.equal(tensor, second[name])] == []


def test_fingerprint_depends_on_all_sets_their_order_and_texts(
    images: list[LabelledImage], vocabulary: Vocabulary, bars: LabelledSet
) -> None:
    own = LabelledSet(images, vocabulary)
    thin = tuple(replace(c, description=f"{c.name}, thin") for c in bars.vocabulary.classes)
    variants: list[tuple[list[LabelledSet], TrainingConfig]] = [
        ([own], QUICK),
        ([own], BOTH),
        ([own, bars], QUICK),
        ([bars, own], QUICK),
        ([own, bars._replace(vocabulary=replace(bars.vocabulary, classes=thin))], QUICK),
        ([own, bars._replace(images=bars.images[:3])], QUICK),
    ]
    hashes = [fingerprint(sets, SMALL, training, None, "hash") for sets, training in variants]
    assert len(set(hashes)) == len(variants)
    assert fingerprint([own, bars], SMALL, QUICK, None, "hash") == hashes[2]


def test_the_model_has_the_classes_of_the_main_set(
    tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary, bars: LabelledSet
) -> None:
    train(tmp_path, images, vocabulary, extra_sets=[bars])
    assert load_model(tmp_path).vocabulary == vocabulary


def test_only_active_classes_condition_the_features_and_are_scored(
    tmp_path: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
    bars: LabelledSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts: list[tuple[int, int]] = []
    forward = DSMoE.forward

    def counting(network: DSMoE, images: Any, text: Any, classes: Any, *rest: Any) -> Any:
        counts.append((len(text), len(classes)))
        return forward(network, images, text, classes, *rest)

    monkeypatch.setattr(DSMoE, "forward", counting)
    training = BOTH.model_copy(update={"class_subsets": 1.0})
    train(tmp_path, images, vocabulary, training=training, extra_sets=[bars])
    assert set(counts) == {(1, 1), (2, 2)}, "subsets of the two classes and of the three"


def test_sets_that_cannot_be_trained_together_are_refused(
    tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary, bars: LabelledSet
) -> None:
    with pytest.raises(DataError, match="set 2 of 2"):
        train(tmp_path, images, vocabulary, extra_sets=[bars._replace(images=[])])
    with pytest.raises(ClassBookError, match=r"'flat'.*dark, light"):
        train(tmp_path, images, vocabulary, extra_sets=[bars._replace(vocabulary=vocabulary)])
    without_text = SMALL.model_copy(update={"ablation": "A"})
    with pytest.raises(SettingsError, match="row A"):
        train(tmp_path, images, vocabulary, extra_sets=[bars], model=without_text)


@pytest.mark.slow
def test_the_loss_falls_on_both_sets(
    tmp_path: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
    bars: LabelledSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses: dict[int, list[float]] = {2: [], 3: []}
    accumulate = Objective.accumulate_gradients

    def recording(objective: Objective, step: TrainingStep, micro_batch: int) -> dict[str, torch.Tensor]:
        step_losses = accumulate(objective, step, micro_batch)
        losses[len(step.classes)].append(float(step_losses["box"]))
        return step_losses

    monkeypatch.setattr(Objective, "accumulate_gradients", recording)
    training = TrainingConfig(images_seen=640, batch=4, seed=0, class_subsets=0.3)
    train(tmp_path, images, vocabulary, training=training, extra_sets=[bars])
    for history in losses.values():
        assert len(history) >= 45, "both sets are used"
        third = len(history) // 3
        assert sum(history[-third:]) < 0.8 * sum(history[:third])
