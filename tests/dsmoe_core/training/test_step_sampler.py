"""What a step asks: never nothing, every class alike, the same to whoever asks again."""

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
from dsmoe_core.training.step_sampler import StepSampler, TrainingStep, sample_classes, scheduled_set

from .conftest import Learner

SEEDS = st.integers(0, 2**31)


@given(st.integers(1, 40), st.floats(0, 1), SEEDS)
def test_something_is_always_asked_and_nothing_twice(classes: int, share: float, seed: int) -> None:
    asked = sample_classes(classes, share, np.random.default_rng(seed))
    assert 1 <= len(asked) <= classes
    assert sorted(set(asked.tolist())) == asked.tolist()
    assert set(asked.tolist()) <= set(range(classes))


@given(st.integers(2, 40), SEEDS)
def test_a_part_is_at_least_half_and_never_all(classes: int, seed: int) -> None:
    assert classes / 2 <= len(sample_classes(classes, 1.0, np.random.default_rng(seed))) < classes
    assert len(sample_classes(classes, 0.0, np.random.default_rng(seed))) == classes


def test_every_class_and_every_size_is_as_likely() -> None:
    drawn = [sample_classes(7, 0.6, np.random.default_rng([3, step])) for step in range(6000)]
    parts = [asked for asked in drawn if len(asked) < 7]
    assert len(parts) / len(drawn) == pytest.approx(0.6, abs=0.03)
    sizes = Counter(map(len, parts))
    assert set(sizes) == {4, 5, 6}
    assert [sizes[n] / len(parts) for n in (4, 5, 6)] == pytest.approx([1 / 3] * 3, abs=0.04)
    of_each = torch.cat(parts).bincount(minlength=7).numpy() / len(parts)
    assert of_each == pytest.approx([5 / 7] * 7, abs=0.04)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), SEEDS)
def test_in_every_round_each_set_is_gone_through_once_and_no_batch_is_left_out(
    batches: list[int], seed: int
) -> None:
    turns = [scheduled_set(step, batches, seed) for step in range(3 * sum(batches))]
    for done in range(3):
        own_round = turns[done * sum(batches) : (done + 1) * sum(batches)]
        assert Counter(own for own, _ in own_round) == dict(enumerate(batches))
    for own, count in enumerate(batches):
        assert [turn for whose, turn in turns if whose == own] == list(range(3 * count))


def test_one_set_alone_has_every_step() -> None:
    assert [scheduled_set(step, [3], 5) for step in range(10)] == [(0, step) for step in range(10)]


def test_sets_do_not_come_one_after_the_other() -> None:
    turns = [scheduled_set(step, [20, 20], 0)[0] for step in range(80)]
    assert 10 < sum(a != b for a, b in pairwise(turns)) < 70
    assert turns[:40] != turns[40:], "another order in the next round"


@pytest.fixture
def sets(images: list[LabelledImage], vocabulary: Vocabulary, bars: LabelledSet) -> list[LabelledSet]:
    return [LabelledSet(images, vocabulary), bars]


def questions_of(sets: list[LabelledSet], training: TrainingConfig) -> StepSampler:
    squares = LetterboxReader(SMALL.image_px)
    known = [
        (TrainingSet(*one, squares, training), embed_vocabulary(one.vocabulary, HashEncoder()))
        for one in sets
    ]
    return StepSampler(known, training)


def test_a_step_asks_the_same_whoever_asks_and_whenever(sets: list[LabelledSet]) -> None:
    """So a resumed run and all processes of one hold together."""
    training = TrainingConfig(batch=2, class_subsets=0.5)
    one, other = (questions_of(sets, training) for _ in range(2))
    forwards = [one.of(step) for step in range(12)]
    backwards = [other.of(step) for step in reversed(range(12))][::-1]
    for first, second in zip(forwards, backwards, strict=True):
        assert torch.equal(first.classes, second.classes)
        assert torch.equal(first.asked, second.asked)
        np.testing.assert_array_equal(first.batch.pixels, second.batch.pixels)
        for mine, theirs in zip(first.batch.labels, second.batch.labels, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert {len(q.classes) for q in forwards} == {2, 3}, "both books are read"
    assert {len(q.asked) < len(q.classes) for q in forwards} == {True, False}


def test_a_batch_is_of_one_set_in_its_words(sets: list[LabelledSet]) -> None:
    """Black images are the bars', and are asked about in the words for bars alone."""
    questions = questions_of(sets, TrainingConfig(batch=2, zoom=0, brightness=0))
    for step in range(10):
        question = questions.of(step)
        black = [bool((pixels == 0).any()) for pixels in question.batch.pixels]
        assert black == [len(question.classes) == 3] * 2
        assert all((labels < len(question.classes)).all() for labels in question.batch.labels)
        assert len(question.inner) == (len(question.classes) == 2)


def test_what_is_not_asked_is_taken_off_and_the_rest_is_counted_anew() -> None:
    boxes = [np.arange(16, dtype=np.float32).reshape(4, 4), np.ones((1, 4), np.float32)]
    batch = Batch(np.zeros((2, 8, 8, 3), np.uint8), boxes, [np.array([3, 0, 1, 3]), np.array([0])])
    about = batch.select_classes(np.array([1, 3]))
    assert [labels.tolist() for labels in about.labels] == [[1, 0, 1], []]
    np.testing.assert_array_equal(about.boxes[0], boxes[0][[0, 2, 3]])
    assert about.boxes[1].shape == (0, 4)


def test_the_taxonomy_of_a_part_keeps_the_inner_nodes() -> None:
    """Leaves a, b, c are rows 0 to 2 under x and y, rows 3 and 4, which are under top, row 5."""
    taxonomy = Taxonomy(torch.tensor([0, 1, 2, 3, 4]), torch.tensor([3, 3, 4, 5, 5]))
    part = taxonomy.subset(torch.tensor([0, 2]), 3, 3)
    assert list(zip(part.child.tolist(), part.parent.tolist(), strict=True)) == [
        (0, 2),
        (1, 3),
        (2, 4),
        (3, 4),
    ]
    whole = taxonomy.subset(torch.arange(3), 3, 3)
    assert torch.equal(torch.stack(whole), torch.stack(taxonomy))


@pytest.mark.parametrize("asked", [[0], [1], [0, 1]])
def test_boxes_of_classes_that_are_not_asked_give_no_positive(learner: Learner, asked: list[int]) -> None:
    question = TrainingStep.about(torch.tensor(asked), learner.batch, learner.words.classes, learner.words)
    with torch.no_grad():
        read = learner.network.encode_classes(question.classes, question.inner).about(question.asked)
        images = torch.from_numpy(learner.batch.pixels).permute(0, 3, 1, 2).float() / 255
        output = learner.network(images, read.conditioning, read.classes)
    part = question.batch
    truth = [
        GroundTruth(torch.from_numpy(b), torch.from_numpy(c))
        for b, c in zip(part.boxes, part.labels, strict=True)
    ]
    targets = assign_targets(output, truth)
    for before, target in zip(learner.batch.labels, targets, strict=True):
        wanted = [asked.index(label) for label in before.tolist() if label in asked]
        assert target.scores.shape[-1] == len(asked)
        assert bool(target.positive.any()) is bool(wanted)
        assert set(target.scores.nonzero()[:, 1].tolist()) <= set(wanted)
    assert sum(bool(t.positive.any()) for t in targets) == sum(
        bool(set(labels.tolist()) & set(asked)) for labels in learner.batch.labels
    )


def test_a_part_is_learned_from_too(learner: Learner) -> None:
    question = TrainingStep.about(torch.tensor([1]), learner.batch, learner.words.classes, learner.words)
    losses = learner.objective.gradients(question, 2)
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert float(losses["box"]) > 0


def test_without_words_a_class_keeps_its_number() -> None:
    network = build(SMALL.model_copy(update={"ablation": "A"}))
    read = network.encode_classes(torch.ones(3, 16), torch.ones(0, 16)).about(torch.tensor([2]))
    assert read.classes.nonzero().tolist() == read.conditioning.nonzero().tolist() == [[0, 2]]
