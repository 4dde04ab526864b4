"""A batch in parts is learned as the whole batch is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dsmoe_core.stages.gating import LEVELLING

from .conftest import Learner, freeze_statistics

# Images have none to several boxes each, so every part has another mass of positives.


@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_parts_give_the_losses_and_gradients_of_the_whole(learner: Learner, micro_batch: int) -> None:
    """With the statistics fixed; they are all that looks from image to image."""
    freeze_statistics(learner.network)
    assert len({len(boxes) for boxes in learner.batch.boxes}) > 1
    losses, gradients = learner.gradients(6)
    in_parts, gradients_in_parts = learner.gradients(micro_batch)
    assert set(in_parts) == set(losses)
    for name, loss in losses.items():
        assert in_parts[name] == pytest.approx(loss, rel=1e-4, abs=1e-7), name
    assert set(gradients_in_parts) == set(gradients)
    largest = max(float(g.abs().max()) for g in gradients.values())
    for name, gradient in gradients.items():
        apart = float((gradients_in_parts[name] - gradient).abs().max())
        assert apart < 1e-4 * largest, f"{name}: {apart}"


def test_the_mass_is_the_whole_batch_s(learner: Learner) -> None:
    """Losses of parts that each divide by their own count add up to something else."""
    freeze_statistics(learner.network)
    losses, _ = learner.gradients(6)
    alone = [learner.gradients(1, learner.batch.slice(i, i + 1))[0] for i in range(6)]
    assert sum(a["class"] for a in alone) / 6 != pytest.approx(losses["class"], rel=0.05)


def test_parts_leave_statistics_as_one_pass_each(learner: Learner) -> None:
    """The pass that only counts leaves none: six parts are six steps of every running mean."""
    before = {n: int(b) for n, b in learner.network.named_buffers() if n.endswith("num_batches_tracked")}
    learner.gradients(1)
    after = {n: int(b) for n, b in learner.network.named_buffers() if n in before}
    assert {after[name] - count for name, count in before.items()} == {6}


@pytest.mark.parametrize("micro_batch", [6, 4, 1])
@pytest.mark.parametrize("learner", ["F"], indirect=True)
def test_a_batch_levels_the_experts_once_in_however_many_parts(learner: Learner, micro_batch: int) -> None:
    """Two experts of four get all images, whatever the levelling does meanwhile."""
    before = torch.tensor([2.0, 2.0, 0.0, 0.0])
    learner.network.gating.load_bias.copy_(before)
    learner.gradients(micro_batch)
    moved = (learner.network.gating.load_bias - before) / LEVELLING
    assert moved.tolist() == pytest.approx([-0.25, -0.25, 0.25, 0.25], abs=1e-4)


def test_a_part_of_the_batch_s_size_is_the_whole(learner: Learner) -> None:
    """In one pass, and to the last bit."""
    passes: list[int] = []
    hook = learner.network.register_forward_pre_hook(lambda *_: passes.append(1))
    before = [b.clone() for b in learner.network.buffers()]
    once = learner.gradients(6)[0]
    assert len(passes) <= 2, "the words and the images"
    for buffer, was in zip(learner.network.buffers(), before, strict=True):
        buffer.copy_(was)
    assert learner.gradients(99)[0] == once
    hook.remove()


@pytest.mark.parametrize("learner", ["F"], indirect=True)
def test_the_words_are_read_once_a_step(learner: Learner) -> None:
    learner.gradients(1)
    assert learner.network.text_prompt.centre.seen == 1


@pytest.mark.parametrize("micro_batch", [6, 2])
@pytest.mark.parametrize("change", [{"label_floor": 0.0}, {"positive_beta": 2.0}], ids=str)
def test_what_the_settings_say_of_labels_and_focus_is_what_is_learned(
    learner: Learner, change: dict[str, float], micro_batch: int
) -> None:
    """In one pass and in parts; rows without QFL have neither."""
    freeze_statistics(learner.network)
    losses, _ = learner.gradients(micro_batch)
    weights = learner.objective.weights.model_copy(update=change)
    other = learner._replace(objective=replace(learner.objective, weights=weights))
    changed, _ = other.gradients(micro_batch)
    assert (changed["class"] != pytest.approx(losses["class"], rel=1e-3)) == (not learner.objective.plain)
    assert changed["box"] == pytest.approx(losses["box"], rel=1e-6)
