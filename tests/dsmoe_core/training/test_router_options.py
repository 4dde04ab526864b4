"""Trainings with the options of the router: LTDR and STGC."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import QUICK, SMALL, train

from dsmoe_core.config import LossWeights
from dsmoe_core.data.batches import Batch
from dsmoe_core.schema import LabelledImage, Vocabulary

from .conftest import Learner, freeze_statistics

OPTIONS = {"text_balance": 2.0, "gradient_conflict": 3.0}


def with_options(learner: Learner, **options: float) -> Learner:
    """Without the mutual information, which is estimated from each micro-batch."""
    learner = learner.with_additive_losses()
    weights = learner.objective.weights.model_copy(update=options)
    return learner._replace(objective=replace(learner.objective, weights=weights))


def require_equal(learner: Learner, batch: Batch, first: int, second: int, name: str) -> None:
    """Check that two micro-batch sizes give the same losses and gradients."""
    losses, gradients = learner.gradients(first, batch)
    part_losses, part_gradients = learner.gradients(second, batch)
    assert losses[name] > 0
    assert part_losses == pytest.approx(losses, rel=1e-4, abs=1e-7)
    largest = max(float(g.abs().max()) for g in gradients.values())
    assert set(part_gradients) == set(gradients)
    for weight, gradient in gradients.items():
        assert (part_gradients[weight] - gradient).abs().max() < 1e-4 * largest, weight


@pytest.mark.parametrize("learner", ["E"], indirect=True)
def test_balance_losses_of_micro_batches_add_up(learner: Learner) -> None:
    freeze_statistics(learner.network)
    require_equal(with_options(learner, text_balance=2.0), learner.batch, 6, 2, "text_balance")


@pytest.mark.parametrize("learner", ["E"], indirect=True)
def test_conflict_losses_of_equal_micro_batches_add_up(learner: Learner) -> None:
    """A mean of gradients is of a micro-batch; two of the same images have the mean of both together."""
    freeze_statistics(learner.network)
    half = learner.batch.slice(0, 3)
    twice = Batch(np.concatenate([half.pixels] * 2), [*half.boxes] * 2, [*half.labels] * 2)
    require_equal(with_options(learner, gradient_conflict=3.0), twice, 6, 3, "gradient_conflict")


@pytest.mark.parametrize("learner", ["E"], indirect=True)
def test_the_conflict_loss_reaches_the_weights_of_the_router_alone(learner: Learner) -> None:
    freeze_statistics(learner.network)
    losses, without = with_options(learner).gradients(6)
    more, gradients = with_options(learner, gradient_conflict=3.0).gradients(6)
    assert more.keys() - losses.keys() == {"gradient_conflict"}
    assert {name: more[name] for name in losses} == losses
    assert set(gradients) == set(without)
    changed = {name for name, gradient in gradients.items() if not torch.equal(gradient, without[name])}
    assert changed
    assert {name.removeprefix("_forward_module.").partition(".")[0] for name in changed} == {"gating"}


@pytest.mark.parametrize("learner", ["E"], indirect=True)
def test_losses_are_weighted_and_need_no_box(learner: Learner) -> None:
    freeze_statistics(learner.network)
    (index,) = [i for i, boxes in enumerate(learner.batch.boxes) if not len(boxes)]
    empty = learner.batch.slice(index, index + 1)
    one, _ = with_options(learner, **OPTIONS).gradients(6, empty)
    two, _ = with_options(learner, **{name: 2 * weight for name, weight in OPTIONS.items()}).gradients(
        6, empty
    )
    for name in OPTIONS:
        assert 0 < 2 * one[name] == pytest.approx(two[name], rel=1e-5)


def test_losses_are_absent_by_default_and_in_a_network_without_a_router(learner: Learner) -> None:
    has_router = hasattr(learner.network, "gating")
    assert not OPTIONS.keys() & learner.gradients(3)[0].keys()
    reported = with_options(learner, **OPTIONS).gradients(3)[0].keys()
    assert OPTIONS.keys() & reported == (set(OPTIONS) if has_router else set())


@pytest.mark.parametrize(
    ("losses", "tail_top_k"),
    [({"text_balance": 0.01}, None), ({"gradient_conflict": 0.1}, None), (OPTIONS, 4)],
    ids=["text balance", "gradient conflict", "all, more experts for the tail"],
)
@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_a_training_of_three_steps_reports_the_losses(
    losses: dict[str, float],
    tail_top_k: int | None,
    precision: str,
    tmp_path: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
) -> None:
    changes = {"images_seen": 6, "micro_batch": 1, "precision": precision, "losses": LossWeights(**losses)}
    summary = train(
        tmp_path / "out",
        images,
        vocabulary,
        model=SMALL.model_copy(update={"tail_top_k": tail_top_k}),
        training=QUICK.model_copy(update=changes),
    )
    assert summary.steps == 3
    assert {name for name in OPTIONS if summary.losses.get(name, 0) > 0} == set(losses)
