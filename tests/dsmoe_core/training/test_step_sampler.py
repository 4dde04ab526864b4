"""Tests of the step sampler: class subsets, the order of several sets, and reproducibility."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import SMALL, HashEncoder

from dsmoe_core.build import build
from dsmoe_core.config import TrainingConfig
from dsmoe_core.data.batches import Batch, TrainingSet
from dsmoe_core.data.letterbox import LetterboxReader
from dsmoe_core.losses import GroundTruth, Taxonomy, assign_targets
from dsmoe_core.schema import LabelledImage, LabelledSet, Vocabulary
from dsmoe_core.text_embeddings import embed_vocabulary
from dsmoe_core.training.step_sampler import (
    StepSampler,
    TrainingStep,
    batches_per_round,
    sample_class_subset,
    scheduled_set,
    steps_of_each_set,
)

from .conftest import Learner

SEEDS = st.integers(0, 2**31)


@given(st.integers(1, 40), st.floats(0, 1), SEEDS)
def test_a_subset_has_at_least_one_class_and_no_duplicates(classes: int, share: float, seed: int) -> None:
    active = sample_class_subset(classes, share, np.random.default_rng(seed))
    assert 1 <= len(active) <= classes
    assert sorted(set(active.tolist())) == active.tolist()
    assert set(active.tolist()) <= set(range(classes))


@given(st.integers(2, 40), SEEDS)
def test_a_proper_subset_has_at_least_half_of_the_classes(classes: int, seed: int) -> None:
    assert classes / 2 <= len(sample_class_subset(classes, 1.0, np.random.default_rng(seed))) < classes
    assert len(sample_class_subset(classes, 0.0, np.random.default_rng(seed))) == classes


def test_every_class_and_every_subset_size_is_equally_likely() -> None:
    sampled = [sample_class_subset(7, 0.6, np.random.default_rng([3, step])) for step in range(6000)]
    subsets = [active for active in sampled if len(active) < 7]
    assert len(subsets) / len(sampled) == pytest.approx(0.6, abs=0.03)
    sizes = Counter(map(len, subsets))
    assert set(sizes) == {4, 5, 6}
    assert [sizes[n] / len(subsets) for n in (4, 5, 6)] == pytest.approx([1 / 3] * 3, abs=0.04)
    frequencies = torch.cat(subsets).bincount(minlength=7).numpy() / len(subsets)
    assert frequencies == pytest.approx([5 / 7] * 7, abs=0.04)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), SEEDS)
def test_every_round_processes_each_set_once_without_skipping_a_batch(batches: list[int], seed: int) -> None:
    schedule = [scheduled_set(step, batches, seed) for step in range(3 * sum(batches))]
    for i in range(3):
        one_round = schedule[i * sum(batches) : (i + 1) * sum(batches)]
        assert Counter(index for index, _ in one_round) == dict(enumerate(batches))
    for index, count in enumerate(batches):
        assert [batch for other, batch in schedule if other == index] == list(range(3 * count))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 60), SEEDS)
def test_steps_of_each_set_are_counted(batches: list[int], steps: int, seed: int) -> None:
    used = Counter(scheduled_set(step, batches, seed)[0] for step in range(steps))
    assert steps_of_each_set(steps, batches, seed) == [used[index] for index in range(len(batches))]


def test_even_sampling_uses_every_set_once_in_each_round() -> None:
    proportional, even = TrainingConfig(), TrainingConfig(set_sampling="even")
    assert batches_per_round([9, 41], proportional) == [3, 11]
    assert batches_per_round([9, 41], even) == [1, 1]
    assert steps_of_each_set(20, batches_per_round([9, 41], even), 0) == [10, 10]


def test_a_single_set_is_used_in_every_step() -> None:
    assert [scheduled_set(step, [3], 5) for step in range(10)] == [(0, step) for step in range(10)]


def test_sets_alternate_within_a_round_in_a_new_order_each_round() -> None:
    indices = [scheduled_set(step, [20, 20], 0)[0] for step in range(80)]
    assert 10 < sum(a != b for a, b in pairwise(indices)) < 70
    assert indices[:40] != indices[40:]


@pytest.fixture
def sets(images: list[LabelledImage], vocabulary: Vocabulary, bars: LabelledSet) -> list[LabelledSet]:
    return [LabelledSet(images, vocabulary), bars]


def make_sampler(sets: list[LabelledSet], training: TrainingConfig) -> StepSampler:
    squares = LetterboxReader(SMALL.image_px)
    embedded = [
        (TrainingSet(*labelled, squares, training), embed_vocabulary(labelled.vocabulary, HashEncoder()))
        for labelled in sets
    ]
    return StepSampler(embedded, training)


def test_a_step_does_not_depend_on_earlier_calls(sets: list[LabelledSet]) -> None:
    """Needed for resumed runs and for several processes."""
    training = TrainingConfig(batch=2, class_subsets=0.5)
    first_sampler, second_sampler = (make_sampler(sets, training) for _ in range(2))
    forwards = [first_sampler.sample(step) for step in range(12)]
    backwards = [second_sampler.sample(step) for step in reversed(range(12))][::-1]
    for first, second in zip(forwards, backwards, strict=True):
        assert torch.equal(first.classes, second.classes)
        assert torch.equal(first.active, second.active)
        np.testing.assert_array_equal(first.batch.pixels, second.batch.pixels)
        for labels, expected in zip(first.batch.labels, second.batch.labels, strict=True):
            np.testing.assert_array_equal(labels, expected)
    assert {len(step.classes) for step in forwards} == {2, 3}, "both sets are used"
    assert {len(step.active) < len(step.classes) for step in forwards} == {True, False}


def test_a_batch_has_images_of_one_set_and_its_class_embeddings(sets: list[LabelledSet]) -> None:
    """Images with black pixels belong to the bars, whose vocabulary has three classes and no inner node."""
    sampler = make_sampler(sets, TrainingConfig(batch=2, zoom=0, brightness=0))
    for index in range(10):
        step = sampler.sample(index)
        black = [bool((pixels == 0).any()) for pixels in step.batch.pixels]
        assert black == [len(step.classes) == 3] * 2
        assert all((labels < len(step.classes)).all() for labels in step.batch.labels)
        assert len(step.inner) == (len(step.classes) == 2)


def test_boxes_of_inactive_classes_are_removed_and_labels_renumbered() -> None:
    boxes = [np.arange(16, dtype=np.float32).reshape(4, 4), np.ones((1, 4), np.float32)]
    batch = Batch(np.zeros((2, 8, 8, 3), np.uint8), boxes, [np.array([3, 0, 1, 3]), np.array([0])])
    subset = batch.select_classes(np.array([1, 3]))
    assert [labels.tolist() for labels in subset.labels] == [[1, 0, 1], []]
    np.testing.assert_array_equal(subset.boxes[0], boxes[0][[0, 2, 3]])
    assert subset.boxes[1].shape == (0, 4)


def test_taxonomy_of_a_subset_keeps_the_inner_nodes() -> None:
    """Leaves 0 to 2 are children of the inner nodes 3 and 4, which are children of node 5."""
    taxonomy = Taxonomy(torch.tensor([0, 1, 2, 3, 4]), torch.tensor([3, 3, 4, 5, 5]))
    subset = taxonomy.subset(torch.tensor([0, 2]), 3, 3)
    assert list(zip(subset.child.tolist(), subset.parent.tolist(), strict=True)) == [
        (0, 2),
        (1, 3),
        (2, 4),
        (3, 4),
    ]
    unchanged = taxonomy.subset(torch.arange(3), 3, 3)
    assert torch.equal(torch.stack(unchanged), torch.stack(taxonomy))


@pytest.mark.parametrize("active", [[0], [1], [0, 1]])
def test_boxes_of_inactive_classes_have_no_positive_cells(learner: Learner, active: list[int]) -> None:
    texts = learner.texts
    step = TrainingStep.with_classes(torch.tensor(active), learner.batch, texts.classes, texts)
    with torch.no_grad():
        encoding = learner.network.encode_classes(step.classes, step.inner).select(step.active)
        images = torch.from_numpy(learner.batch.pixels).permute(0, 3, 1, 2).float() / 255
        output = learner.network(images, encoding.conditioning, encoding.classes)
    truth = [
        GroundTruth(torch.from_numpy(boxes), torch.from_numpy(labels))
        for boxes, labels in zip(step.batch.boxes, step.batch.labels, strict=True)
    ]
    targets = assign_targets(output, truth)
    for labels, target in zip(learner.batch.labels, targets, strict=True):
        expected = [active.index(label) for label in labels.tolist() if label in active]
        assert target.scores.shape[-1] == len(active)
        assert bool(target.positive.any()) is bool(expected)
        assert set(target.scores.nonzero()[:, 1].tolist()) <= set(expected)
    assert sum(bool(t.positive.any()) for t in targets) == sum(
        bool(set(labels.tolist()) & set(active)) for labels in learner.batch.labels
    )


def test_a_step_with_a_class_subset_gives_finite_losses(learner: Learner) -> None:
    texts = learner.texts
    step = TrainingStep.with_classes(torch.tensor([1]), learner.batch, texts.classes, texts)
    losses = learner.objective.accumulate_gradients(step, 2)
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert float(losses["box"]) > 0


def test_without_text_a_class_keeps_its_index_in_a_subset() -> None:
    network = build(SMALL.model_copy(update={"ablation": "A"}))
    encoding = network.encode_classes(torch.ones(3, 16), torch.ones(0, 16)).select(torch.tensor([2]))
    assert encoding.classes.nonzero().tolist() == encoding.conditioning.nonzero().tolist() == [[0, 2]]
