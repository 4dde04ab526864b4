"""Tests of the objective: micro-batches give the losses and gradients of the whole batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dsmoe_core.stages.gating import LOAD_BIAS_RATE

from .conftest import Learner, freeze_statistics

# The images have different numbers of boxes, so the micro-batches have different counts.


@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_micro_batches_give_the_losses_and_gradients_of_the_whole_batch(
    learner: Learner, micro_batch: int
) -> None:
    """Holds with fixed statistics, which are the only dependence between images."""
    learner = learner.with_additive_losses()
    freeze_statistics(learner.network)
    assert len({len(boxes) for boxes in learner.batch.boxes}) > 1
    losses, gradients = learner.gradients(6)
    part_losses, part_gradients = learner.gradients(micro_batch)
    assert set(part_losses) == set(losses)
    for name, loss in losses.items():
        assert part_losses[name] == pytest.approx(loss, rel=1e-4, abs=1e-7), name
    assert set(part_gradients) == set(gradients)
    largest = max(float(g.abs().max()) for g in gradients.values())
    for name, gradient in gradients.items():
        difference = float((part_gradients[name] - gradient).abs().max())
        assert difference < 1e-4 * largest, f"{name}: {difference}"


def test_losses_are_divided_by_the_counts_of_the_whole_batch(learner: Learner) -> None:
    """The mean of losses that are divided by the counts of each image is different."""
    freeze_statistics(learner.network)
    losses, _ = learner.gradients(6)
    alone = [learner.gradients(1, learner.batch.slice(i, i + 1))[0] for i in range(6)]
    assert sum(a["class"] for a in alone) / 6 != pytest.approx(losses["class"], rel=0.05)


def test_every_micro_batch_updates_the_statistics_once(learner: Learner) -> None:
    """The additional pass that assigns the targets does not update them."""
    before = {n: int(b) for n, b in learner.network.named_buffers() if n.endswith("num_batches_tracked")}
    learner.gradients(1)
    after = {n: int(b) for n, b in learner.network.named_buffers() if n in before}
    assert {after[name] - count for name, count in before.items()} == {6}


@pytest.mark.parametrize("micro_batch", [6, 4, 1])
@pytest.mark.parametrize("learner", ["E"], indirect=True)
def test_load_bias_update_does_not_depend_on_the_micro_batch(learner: Learner, micro_batch: int) -> None:
    """Two of four experts get all images throughout, because their initial bias is high."""
    before = torch.tensor([20.0, 20.0, 0.0, 0.0])
    learner.network.gating.load_bias.copy_(before)
    learner.gradients(micro_batch)
    moved = (learner.network.gating.load_bias - before) / LOAD_BIAS_RATE
    assert moved.tolist() == pytest.approx([-0.25, -0.25, 0.25, 0.25], abs=1e-4)


@pytest.mark.parametrize("micro_batch", [6, 4, 1])
@pytest.mark.parametrize("learner", ["E"], indirect=True)
def test_combination_of_the_alignment_loss_changes_after_a_whole_batch(
    learner: Learner, micro_batch: int
) -> None:
    for _ in range(3):
        learner.gradients(micro_batch)
    assert float(learner.network.aggregation.turn) == pytest.approx(3.0)


def test_a_micro_batch_of_the_batch_size_needs_one_pass(learner: Learner) -> None:
    """A larger micro-batch gives bit-identical losses."""
    passes: list[int] = []
    hook = learner.network.register_forward_pre_hook(lambda *_: passes.append(1))
    before = [b.clone() for b in learner.network.buffers()]
    losses = learner.gradients(6)[0]
    assert len(passes) <= 2, "one call for the texts, one for the images"
    for buffer, saved in zip(learner.network.buffers(), before, strict=True):
        buffer.copy_(saved)
    assert learner.gradients(99)[0] == losses
    hook.remove()


@pytest.mark.parametrize("learner", ["E"], indirect=True)
def test_texts_are_encoded_once_per_step(learner: Learner) -> None:
    learner.gradients(1)
    assert learner.network.text_prompt.centre.updates == 1


@pytest.mark.parametrize("micro_batch", [6, 2])
@pytest.mark.parametrize("change", [{"label_floor": 0.0}, {"positive_beta": 2.0}], ids=str)
def test_label_floor_and_positive_beta_change_the_class_loss_of_qfl_only(
    learner: Learner, change: dict[str, float], micro_batch: int
) -> None:
    """Rows without QFL have neither setting."""
    freeze_statistics(learner.network)
    losses, _ = learner.gradients(micro_batch)
    weights = learner.objective.weights.model_copy(update=change)
    other = learner._replace(objective=replace(learner.objective, weights=weights))
    changed, _ = other.gradients(micro_batch)
    differs = changed["class"] != pytest.approx(losses["class"], rel=1e-3)
    assert differs == (not learner.objective.bce_iou)
    assert changed["box"] == pytest.approx(losses["box"], rel=1e-6)


@pytest.mark.parametrize("micro_batch", [6, 2])
def test_box_weighting_changes_the_box_loss_of_row_f_only(learner: Learner, micro_batch: int) -> None:
    """The other rows always weight boxes equally."""
    freeze_statistics(learner.network)
    losses, _ = learner.gradients(micro_batch)
    weights = learner.objective.weights.model_copy(update={"box_weighting": "alignment"})
    changed, _ = learner._replace(objective=replace(learner.objective, weights=weights)).gradients(
        micro_batch
    )
    differs = changed["box"] != pytest.approx(losses["box"], rel=1e-3)
    assert differs == (not learner.objective.bce_iou)
    assert changed["class"] == pytest.approx(losses["class"], rel=1e-6)
