"""One training on several labelled sets and on parts of their class books."""

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


def test_killed_here_and_there_it_ends_bit_for_bit_like_an_uninterrupted_run(
    tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary, bars: LabelledSet
) -> None:
    whole = train(tmp_path / "whole", images, vocabulary, training=BOTH, extra_sets=[bars])
    for step in (1, 3, 4):
        with pytest.raises(Killed):
            train(tmp_path / "cut", images, vocabulary, training=BOTH, extra_sets=[bars], kill_at=step)
        assert (tmp_path / "cut" / CHECKPOINT).is_file() == (step > 1)
    cut = train(tmp_path / "cut", images, vocabulary, training=BOTH, extra_sets=[bars])
    assert (cut.steps, cut.losses) == (whole.steps, whole.losses)
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert [name for name, tensor in one.items() if not torch.equal(tensor, other[name])] == []


def test_everything_of_every_set_decides_which_run_it_is(
    images: list[LabelledImage], vocabulary: Vocabulary, bars: LabelledSet
) -> None:
    own = LabelledSet(images, vocabulary)
    thin = tuple(replace(c, description=f"{c.name}, thin") for c in bars.vocabulary.classes)
    ways: list[tuple[list[LabelledSet], TrainingConfig]] = [
        ([own], QUICK),
        ([own], BOTH),
        ([own, bars], QUICK),
        ([bars, own], QUICK),
        ([own, bars._replace(vocabulary=replace(bars.vocabulary, classes=thin))], QUICK),
        ([own, bars._replace(images=bars.images[:3])], QUICK),
    ]
    marks = [fingerprint(sets, SMALL, training, None, "hash") for sets, training in ways]
    assert len(set(marks)) == len(ways)
    assert fingerprint([own, bars], SMALL, QUICK, None, "hash") == marks[2]


def test_the_model_is_one_of_its_own_classes(
    tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary, bars: LabelledSet
) -> None:
    train(tmp_path, images, vocabulary, extra_sets=[bars])
    assert load_model(tmp_path).vocabulary == vocabulary


def test_what_is_asked_steers_and_nothing_else(
    tmp_path: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
    bars: LabelledSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[int, int]] = []
    forward = DSMoE.forward

    def watched(network: DSMoE, images: Any, text: Any, classes: Any, *rest: Any) -> Any:
        seen.append((len(text), len(classes)))
        return forward(network, images, text, classes, *rest)

    monkeypatch.setattr(DSMoE, "forward", watched)
    training = BOTH.model_copy(update={"class_subsets": 1.0})
    train(tmp_path, images, vocabulary, training=training, extra_sets=[bars])
    assert set(seen) == {(1, 1), (2, 2)}, "parts of the two classes and of the three"


def test_what_cannot_be_learned_together_is_named(
    tmp_path: Path, images: list[LabelledImage], vocabulary: Vocabulary, bars: LabelledSet
) -> None:
    with pytest.raises(DataError, match="set 2 of 2 has no image"):
        train(tmp_path, images, vocabulary, extra_sets=[bars._replace(images=[])])
    with pytest.raises(ClassBookError, match="'flat' is not in the class book, which has dark, light"):
        train(tmp_path, images, vocabulary, extra_sets=[bars._replace(vocabulary=vocabulary)])
    numbers = SMALL.model_copy(update={"ablation": "A"})
    with pytest.raises(SettingsError, match=r"2 sets .* row A, which reads no words"):
        train(tmp_path, images, vocabulary, extra_sets=[bars], model=numbers)


@pytest.mark.slow
def test_it_learns_from_both(
    tmp_path: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
    bars: LabelledSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses: dict[int, list[float]] = {2: [], 3: []}
    gradients = Objective.gradients

    def watched(objective: Objective, question: TrainingStep, micro_batch: int) -> dict[str, torch.Tensor]:
        found = gradients(objective, question, micro_batch)
        losses[len(question.classes)].append(float(found["box"]))
        return found

    monkeypatch.setattr(Objective, "gradients", watched)
    training = TrainingConfig(images_seen=640, batch=4, seed=0, class_subsets=0.3)
    train(tmp_path, images, vocabulary, training=training, extra_sets=[bars])
    for course in losses.values():
        assert len(course) >= 45, "each has its turns"
        third = len(course) // 3
        assert sum(course[-third:]) < 0.8 * sum(course[:third])
